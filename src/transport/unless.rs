//! Work that an event may end early.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

/// Runs `work` to its end, unless `event` comes before it; if it has come already, `work` does not begin.
pub(crate) async fn unless<T>(
    event: impl Future<Output = ()>,
    work: impl Future<Output = T>,
) -> Option<T> {
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
