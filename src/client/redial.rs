//! Dialling again, with backoff, and resuming on what comes of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{sleep_until, timeout};
use tower::{
    retry::backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
    util::rng::HasherRng,
};

use super::dial::Dial;
use crate::{
    config::Valid,
    error::{CloseReason, Error, HandshakeError, Refusal, ResumeError},
    protocol::{
        native,
        snet::{self, ResumeReply},
    },
    transport::{AnyLink, BoxFuture, Chain, Redial, Shared, exchange, now, random, unless},
};

/// How far delays vary, as a share of themselves, so that clients that were cut off together do not come back together.
const JITTER: f64 = 0.5;

/// A client's way to new links, and what the last ones were worth.
pub(super) struct Redialer {
    dial: Dial,
    config: Arc<Valid>,
    /// In memory of its own, since there is one only while links are lost.
    backoff: Option<Box<ExponentialBackoff>>,
    /// The last delay that was waited.
    delay: Duration,
    /// When the last link was attached, and how many bytes had been received by then.
    attached: Option<(Instant, u64)>,
    /// How many bytes the server had received when it was last asked.
    delivered: u64,
    /// The number of the last resume request.
    request: u64,
}

/// What came of an attempt.
enum Outcome {
    /// No more are needed.
    Settled,
    /// Another is.
    Failed,
}

impl Redialer {
    pub(super) fn new(dial: Dial, config: Arc<Valid>) -> Self {
        Self {
            dial,
            config,
            backoff: None,
            delay: Duration::ZERO,
            attached: None,
            delivered: 0,
            request: 0,
        }
    }

    /// Starts the backoff over: the next attempt is made at once.
    fn reset(&mut self) {
        self.backoff = None;
        self.delay = Duration::ZERO;
    }

    /// Starts the backoff over unless the last link was good for nothing: a server that takes each link and drops it at once
    /// is not to be dialled in a tight loop.
    fn judge_last_link(&mut self, shared: &Shared) {
        let good = self.attached.is_none_or(|(at, received)| {
            shared.received() > received
                || now().duration_since(at) > self.delay.max(self.config.retry_first)
        });
        if good {
            self.reset();
        }
    }

    /// Waits before the next attempt.
    async fn back_off(&mut self) {
        match &mut self.backoff {
            // The first is made at once.
            None => self.backoff = self.new_backoff(),
            Some(backoff) => {
                let sleep = backoff.next_backoff();
                self.delay = sleep
                    .deadline()
                    .saturating_duration_since(tokio::time::Instant::now());
                sleep.await;
            }
        }
    }

    fn new_backoff(&self) -> Option<Box<ExponentialBackoff>> {
        let Valid {
            retry_first,
            retry_cap,
            ..
        } = *self.config;
        // Refused are only delays of 0 and a cap below the first, which the configuration refuses too.
        ExponentialBackoffMaker::new(retry_first, retry_cap, JITTER, HasherRng::new())
            .ok()
            .map(|mut maker| Box::new(maker.make_backoff()))
    }
}

impl Redial for Redialer {
    fn redial(mut self: Box<Self>, shared: Arc<Shared>) -> BoxFuture<Box<dyn Redial>> {
        Box::pin(async move {
            self.judge_last_link(&shared);
            loop {
                let attempt = unless(shared.network_change(), self.attempt(&shared)).await;
                match attempt {
                    Some(Outcome::Settled) => return self as Box<dyn Redial>,
                    Some(Outcome::Failed) => {}
                    // The network has changed: whatever was under way may hang on the old one.
                    None => self.reset(),
                }
            }
        })
    }
}

impl Redialer {
    async fn attempt(&mut self, shared: &Arc<Shared>) -> Outcome {
        self.back_off().await;
        if let Some(at) = shared.retry_at() {
            sleep_until(at.into()).await;
        }
        if !shared.wants_link() {
            return Outcome::Settled;
        }
        let attempt = shared.begin_attempt();
        match self.dial_and_resume(shared).await {
            Ok(Some(delivered)) => {
                if delivered > self.delivered {
                    // The link before was good for sending, which only the server could tell.
                    self.delivered = delivered;
                    self.reset();
                }
                self.attached = Some((now(), shared.received()));
                Outcome::Settled
            }
            Ok(None) => Outcome::Settled,
            Err(error) => {
                tracing::debug!(session = %shared.id().short(), attempt, error = %Chain(&error), "an attempt to resume failed");
                shared.attempt_failed(error);
                Outcome::Failed
            }
        }
    }

    /// Resumes on a new link, if one is still wanted, and returns how many bytes the server had received.
    async fn dial_and_resume(&mut self, shared: &Arc<Shared>) -> Result<Option<u64>, Error> {
        let patience = self.config.handshake_timeout;
        let dialling = timeout(patience, (self.dial)());
        let link = dialling.await.unwrap_or_else(|late| Err(late.into()));
        let link = AnyLink::from(link.map_err(Error::Dial)?);
        self.request += 1;
        let resume = async {
            match self.config.snet {
                Some(_) => resume_snet(shared, link, self.request).await,
                None => resume_native(shared, link, &self.config).await,
            }
        };
        timeout(patience, resume)
            .await
            .unwrap_or(Err(Error::HandshakeTimeout))
    }
}

/// The old link goes on meanwhile, until this end has proved itself. After an error that is final the session is over.
async fn resume_native(
    shared: &Shared,
    mut link: AnyLink,
    config: &Valid,
) -> Result<Option<u64>, Error> {
    let protection = config.security.for_client(random::bytes()?);
    let Some(mut machine) = shared.begin_native_resume(random::bytes()?, protection)? else {
        return Ok(None);
    };
    exchange(&mut link, &mut machine, || {}).await?;
    let reject = match machine.answer() {
        Some(native::Answer::Resumed { received }) => {
            #[cfg(feature = "noise")]
            let link = link.protect(machine.take_records());
            shared.attach_resumed(link, &machine)?;
            return Ok(Some(received));
        }
        Some(native::Answer::Rejected(reject)) => {
            shared.rejected(reject)?;
            reject
        }
        // It may be anybody's, so it cannot have this end wait for longer than it would by itself.
        Some(native::Answer::RejectedInTheClear(reject)) => native::Reject {
            retry_after: Duration::ZERO,
            ..reject
        },
        None => return Err(HandshakeError::OutOfPlace.into()),
    };
    Err(Error::Rejected {
        reason: reject.code,
        retry_after: reject.retry_after,
    })
}

/// After an error that is final the session is over.
async fn resume_snet(
    shared: &Shared,
    mut link: AnyLink,
    request: u64,
) -> Result<Option<u64>, Error> {
    let Some((opened, counts)) = shared.begin_snet_resume() else {
        return Ok(None);
    };
    let mut machine = snet::ClientResume::new(&opened, counts);
    exchange(&mut link, &mut machine, || {}).await?;
    match machine.reply() {
        Some(ResumeReply::Granted { counts: server, .. }) => {
            // Before the proof: with it the server changes over.
            shared.check_snet(server)?;
            machine.confirm();
            exchange(&mut link, &mut machine, || {}).await?;
            shared.attach_snet(link, request, server, counts.received)?;
            Ok(Some(server.received))
        }
        Some(ResumeReply::Refused) => {
            shared.close(CloseReason::Refused(Refusal::Unexplained));
            Err(ResumeError::Unknown.into())
        }
        None => Err(HandshakeError::OutOfPlace.into()),
    }
}
