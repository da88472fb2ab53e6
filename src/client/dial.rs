//! Calling the service that dials.

use std::future::{Future, poll_fn};

use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use super::tcp::SOCKET_BUFFER_LIMIT;
use crate::{
    error::BoxError,
    transport::{BoxFuture, BoxLink},
};

/// Calls a service that is ready for a link, and lets the bound on its socket buffers reach the [`TcpConnector`](super::TcpConnector)
/// that may be below.
pub(super) fn dial<C, T>(
    service: &mut C,
    target: T,
    socket_buffer: Option<usize>,
) -> impl Future<Output = Result<BoxLink, BoxError>> + Send + 'static
where
    C: Service<T>,
    C::Response: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
{
    let dialling = SOCKET_BUFFER_LIMIT.sync_scope(socket_buffer, || service.call(target));
    SOCKET_BUFFER_LIMIT.scope(socket_buffer, async move {
        match dialling.await {
            Ok(link) => Ok(Box::new(link) as BoxLink),
            Err(error) => Err(error.into()),
        }
    })
}

/// Dials anew at each call, to the same target.
pub(super) type Dial = Box<dyn FnMut() -> BoxFuture<Result<BoxLink, BoxError>> + Send>;

/// Dials with clones of a service, each of which is asked for its readiness.
pub(super) fn dial_again<C, T>(service: C, target: T, socket_buffer: Option<usize>) -> Dial
where
    C: Service<T> + Clone + Send + 'static,
    C::Response: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
    T: Clone + Send + 'static,
{
    Box::new(move || {
        let mut service = service.clone();
        let target = target.clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx))
                .await
                .map_err(Into::into)?;
            dial(&mut service, target, socket_buffer).await
        })
    })
}
