//! The keeper: one small task a session, for what nobody polls for.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};
use tracing::Instrument;

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

/// Keeps the session until it is over. Dropping the future, polled or not, ends it.
pub(crate) fn keep(
    shared: Arc<Shared>,
    redial: Option<Box<dyn Redial>>,
) -> impl Future<Output = ()> + Send {
    let span = shared.span();
    let guard = Guard(shared);
    keep_guarded(guard, redial).instrument(span)
}

async fn keep_guarded(guard: Guard, redial: Option<Box<dyn Redial>>) {
    let shared = &guard.0;
    let mut redialling = redial.map_or(Redialling::Never, Redialling::Idle);
    let mut grace_ends = None;
    let mut timer = pin!(sleep_until(Instant::now()));
    poll_fn(|cx| {
        loop {
            let (need, deadline) = shared.keep(cx);
            match (need, &mut redialling) {
                (Need::End, _) => return Poll::Ready(()),
                (Need::Nothing, _) | (Need::Link, Redialling::Never) => {}
                (Need::Link, Redialling::Idle(_)) => redialling.start(shared),
                (Need::Link, Redialling::Running(_)) => {}
            }
            let redialled = redialling.poll(cx);
            let watched = watch_turns(shared, &mut grace_ends);
            let deadline = [deadline.map(Instant::from_std), grace_ends]
                .into_iter()
                .flatten()
                .min();
            // What the calls above have changed, or have left to be watched, is looked at again.
            let due = poll_timer(timer.as_mut(), deadline, cx).is_ready();
            if !redialled && !watched && !due {
                return Poll::Pending;
            }
        }
    })
    .await;
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
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.close(CloseReason::Abandoned);
    }
}
