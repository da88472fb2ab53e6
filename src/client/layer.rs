//! A Tower layer that makes what a connect service dials survive.

use tower_layer::Layer;

use super::Connector;
use crate::config::Config;

/// Wraps a service that dials into a [`Connector`], in a `tower::ServiceBuilder`.
///
/// What stands below it in the stack applies to each link; what stands above, to the session.
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, ServiceExt};
/// use unbroken::{Config, ResumableLayer, TcpConnector};
///
/// # async fn example() -> Result<(), unbroken::Error> {
/// let connect = ServiceBuilder::new()
///     .layer(ResumableLayer::new(Config::new()))
///     .timeout(Duration::from_secs(5)) // for each link to be dialled
///     .service(TcpConnector::new());
/// let transport = connect.oneshot("example.com:7000").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ResumableLayer {
    config: Config,
}

impl ResumableLayer {
    /// A layer whose sessions behave as `config` says.
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl<C> Layer<C> for ResumableLayer {
    type Service = Connector<C>;

    fn layer(&self, inner: C) -> Connector<C> {
        Connector::new(inner, self.config.clone())
    }
}
