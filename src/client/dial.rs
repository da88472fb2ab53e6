//! Calling the service that dials.

use std::future::Future;

use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use super::tcp::SOCKET_BUFFER_LIMIT;
use crate::{error::BoxError, transport::BoxLink};

/// Calls a service that is ready for a link, and lets the bound on its socket buffers reach the [`TcpConnector`](super::TcpConnector)
/// that may be below.
pub(super) fn dial<C, T>(
    service: &mut C,
    target: T,
    socket_buffer: usize,
) -> impl Future<Output = Result<BoxLink, BoxError>> + Send + 'static
where
    C: Service<T>,
    C::Response: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
{
    let limit = Some(socket_buffer);
    let dialling = SOCKET_BUFFER_LIMIT.sync_scope(limit, || service.call(target));
    SOCKET_BUFFER_LIMIT.scope(limit, async move {
        match dialling.await {
            Ok(link) => Ok(Box::new(link) as BoxLink),
            Err(error) => Err(error.into()),
        }
    })
}
