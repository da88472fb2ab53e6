//! The keeper: one small task a session, for what nobody polls for.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::Span;

use super::{session_io::Need, shared::Shared, wakers::GRACE};
use crate::error::CloseReason;

/// A future on the heap.
pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Gives a client's session new links.
pub(crate) trait Redial: Send + 'static {
    /// Tries until the session has a new link, is over, or wants none any more. Gives itself back, with what it has learnt.
    fn redial(self: Box<Self>, shared: Arc<Shared>) -> BoxFuture<Box<dyn Redial>>;
}

/// A client's way to new links.
enum Redialling {
    /// A server waits for the client's.
    Never,
    Idle(Box<dyn Redial>),
    Running(BoxFuture<Box<dyn Redial>>),
}

pin_project! {
    /// Keeps a session until it is over; then it is ready. Dropping it, polled or not, ends the session, and then drops `held`.
    ///
    /// There is one for each session for as long as it is open, so it is no larger than it must be.
    pub(crate) struct Keeper<T> {
        guard: Guard,
        // In memory of its own: with it the task would take the next larger size.
        own: Box<Own<T>>,
        grace_ends: Option<Instant>,
        #[pin]
        timer: Sleep,
    }
}

/// What a session's role gives its keeper.
struct Own<T> {
    redialling: Redialling,
    _held: T,
}

/// Keeps the session, and `held` as long.
pub(crate) fn keep<T>(shared: Arc<Shared>, redial: Option<Box<dyn Redial>>, held: T) -> Keeper<T> {
    let span = Some(shared.span()).filter(|span| !span.is_disabled());
    Keeper {
        guard: Guard {
            shared,
            span: span.map(Box::new),
        },
        own: Box::new(Own {
            redialling: redial.map_or(Redialling::Never, Redialling::Idle),
            _held: held,
        }),
        grace_ends: None,
        timer: sleep_until(Instant::now()),
    }
}

impl<T> Future for Keeper<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Guard { shared, span } = this.guard;
        let _entered = span.as_ref().map(|span| span.enter());
        loop {
            let (need, deadline) = shared.keep(cx);
            let redialling = &mut this.own.redialling;
            match need {
                Need::End => return Poll::Ready(()),
                Need::Link => redialling.start(shared),
                Need::Nothing => {}
            }
            let redialled = redialling.poll(cx);
            let watched = watch_turns(shared, this.grace_ends);
            let deadline = [deadline.map(Instant::from_std), *this.grace_ends]
                .into_iter()
                .flatten()
                .min();
            // What the calls above have changed, or have left to be watched, is looked at again.
            let due = poll_timer(this.timer.as_mut(), deadline, cx).is_ready();
            if !redialled && !watched && !due {
                return Poll::Pending;
            }
        }
    }
}

impl Redialling {
    fn start(&mut self, shared: &Arc<Shared>) {
        *self = match std::mem::replace(self, Self::Never) {
            Self::Idle(redial) => Self::Running(redial.redial(shared.clone())),
            other => other,
        };
    }

    /// Returns whether the attempts have just ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if let Self::Running(running) = self
            && let Poll::Ready(redial) = running.as_mut().poll(cx)
        {
            *self = Self::Idle(redial);
            return true;
        }
        false
    }
}

/// Watches whether the application takes its turns. Returns whether a turn has just come to the keeper.
fn watch_turns(shared: &Shared, grace_ends: &mut Option<Instant>) -> bool {
    let next_look = |shared: &Shared| shared.has_turns().then(|| Instant::now() + GRACE);
    match *grace_ends {
        Some(at) if at > Instant::now() => false,
        Some(_) => {
            let passed = shared.pass_grace();
            *grace_ends = next_look(shared);
            if grace_ends.is_none() {
                shared.stop_watching();
                // One may have begun before `stop_watching`, and so not have woken the keeper.
                *grace_ends = next_look(shared);
            }
            passed
        }
        None => {
            // The turn that was to be watched may be over by now; the next should not have to ask again.
            let watches = shared.has_turns() || shared.is_watching();
            *grace_ends = watches.then(|| Instant::now() + GRACE);
            false
        }
    }
}

fn poll_timer(
    mut timer: Pin<&mut Sleep>,
    deadline: Option<Instant>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let Some(deadline) = deadline else {
        return Poll::Pending;
    };
    if timer.deadline() != deadline {
        timer.as_mut().reset(deadline);
    }
    timer.poll(cx)
}

/// Ends the session if the keeper is gone before it: without one nothing would ever happen to it again.
struct Guard {
    shared: Arc<Shared>,
    /// What the session's events are in, if anybody is interested.
    span: Option<Box<Span>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _entered = self.span.as_ref().map(|span| span.enter());
        self.shared.close(CloseReason::Abandoned);
    }
}
