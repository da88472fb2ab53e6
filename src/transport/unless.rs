//! Work that an event may end early.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

/// Runs `work` to its end, unless `event` comes before it.
pub(crate) async fn unless<T>(
    event: impl Future<Output = ()>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut event = pin!(event);
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => event.as_mut().poll(cx).map(|()| None),
    })
    .await
}
