//! Dialling again, with backoff, and resuming on what comes of it.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::time::timeout;
use tower::{
    retry::backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
    util::rng::HasherRng,
};

use super::dial::Dial;
use crate::{
    config::Valid,
    error::{Error, HandshakeError, ResumeError},
    protocol::snet::{ClientResume, ResumeReply},
    transport::{BoxFuture, BoxLink, Redial, Shared, exchange, now},
};

/// How far delays vary, as a share of themselves, so that clients that were cut off together do not come back together.
const JITTER: f64 = 0.5;

/// A client's way to new links, and what the last ones were worth.
pub(super) struct Redialer {
    dial: Dial,
    config: Arc<Valid>,
    backoff: Option<ExponentialBackoff>,
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

    fn new_backoff(&self) -> Option<ExponentialBackoff> {
        let Valid {
            retry_first,
            retry_cap,
            ..
        } = *self.config;
        // Refused are only delays of 0 and a cap below the first, which the configuration refuses too.
        ExponentialBackoffMaker::new(retry_first, retry_cap, JITTER, HasherRng::new())
            .ok()
            .map(|mut maker| maker.make_backoff())
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
        if !shared.wants_link() {
            return Outcome::Settled;
        }
        shared.begin_attempt();
        let dialling = timeout(self.config.handshake_timeout, (self.dial)());
        let link = match dialling.await.unwrap_or_else(|late| Err(late.into())) {
            Ok(link) => link,
            Err(error) => {
                tracing::debug!(session = %shared.id().short(), error, "dialling failed");
                shared.dial_failed(error);
                return Outcome::Failed;
            }
        };
        self.request += 1;
        let resume = resume(shared, link, self.request);
        match timeout(self.config.handshake_timeout, resume).await {
            Ok(Ok(None)) => Outcome::Settled,
            Ok(Ok(Some(delivered))) => {
                if delivered > self.delivered {
                    // The link before was good for sending, which only the server could tell.
                    self.delivered = delivered;
                    self.reset();
                }
                self.attached = Some((now(), shared.received()));
                Outcome::Settled
            }
            Ok(Err(error)) => {
                tracing::debug!(session = %shared.id().short(), %error, "resuming failed");
                Outcome::Failed
            }
            Err(_) => {
                tracing::debug!(session = %shared.id().short(), "resuming took too long");
                Outcome::Failed
            }
        }
    }
}

/// Resumes on a new link, if one is still wanted, and returns how many bytes the server had received. After an error that is final
/// the session is over.
async fn resume(shared: &Shared, mut link: BoxLink, request: u64) -> Result<Option<u64>, Error> {
    let Some((opened, counts)) = shared.begin_resume() else {
        return Ok(None);
    };
    let mut machine = ClientResume::new(&opened, counts);
    exchange(&mut link, &mut machine, || {}).await?;
    match machine.reply() {
        Some(ResumeReply::Granted { counts: server, .. }) => {
            // Before the proof: with it the server changes over.
            shared.check(server)?;
            machine.confirm();
            exchange(&mut link, &mut machine, || {}).await?;
            shared.attach(link, request, server, counts.received)?;
            Ok(Some(server.received))
        }
        Some(ResumeReply::Refused) => {
            shared.refused();
            Err(ResumeError::Unknown.into())
        }
        None => Err(HandshakeError::OutOfPlace.into()),
    }
}

/// Runs `work` to its end, unless `event` comes first.
async fn unless<T>(event: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    let mut event = pin!(event);
    let mut work = pin!(work);
    poll_fn(|cx| {
        if event.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        work.as_mut().poll(cx).map(Some)
    })
    .await
}
