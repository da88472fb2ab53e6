//! Opening a session over TCP, in one call.

use tower_service::Service;

use super::{Connector, Target, TcpConnector};
use crate::{
    config::Config,
    error::{BoxError, Error},
    transport::ResumableTransport,
};

/// Opens a session with the server at `target`, over TCP.
///
/// It dials with a [`TcpConnector`], now and whenever the link is lost; a [`Connector`] takes any other way. The target is anything
/// that turns into a [`Target`]: a `"host:port"`, a `SocketAddr`, a `(host, port)`, a `Uri`.
///
/// # Errors
///
/// [`Error::Target`] or [`Error::Config`] if either cannot be used, otherwise those of the [`Connector`].
///
/// # Cancel safety
///
/// Dropping the future drops the link. A server that has named the session already keeps its id for the resume window.
///
/// ```no_run
/// use unbroken::{Config, ResumableTransport};
///
/// # async fn example() -> Result<(), unbroken::Error> {
/// let transport: ResumableTransport =
///     unbroken::connect("example.com:7000", Config::new()).await?;
/// # Ok(())
/// # }
/// ```
pub async fn connect<T>(target: T, config: Config) -> Result<ResumableTransport, Error>
where
    T: TryInto<Target>,
    T::Error: Into<BoxError>,
{
    let target = target.try_into().map_err(|error| {
        error
            .into()
            .downcast::<Error>()
            .map_or_else(Error::Dial, |error| *error)
    })?;
    Connector::new(TcpConnector::new(), config)
        .call(target)
        .await
}
