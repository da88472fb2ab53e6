//! What is measured: streams over TCP, opened across the path.

use std::{net::SocketAddr, sync::LazyLock};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tower::{ServiceExt, service_fn};
use unbroken::{BoxError, Config, Connector, Listener, Security, Snet, Suite, TcpConnector};

use crate::{
    path::{FAR, NEAR},
    tls::{self, Identity},
};

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) type BoxStream = Box<dyn Stream>;

static TLS: LazyLock<tls::Ends> = LazyLock::new(|| {
    let ends = Identity::generate().and_then(|identity| tls::ends(&identity));
    ends.expect("a certificate and its key")
});

/// What goes over TCP.
enum Over {
    Nothing,
    Tls,
    Session(Box<Config>),
}

pub(crate) struct Kind {
    pub(crate) name: String,
    over: Over,
}

impl Kind {
    /// What the others are compared with.
    fn tcp() -> Self {
        Self {
            name: "TCP".to_owned(),
            over: Over::Nothing,
        }
    }

    fn session(name: &str, config: Config) -> Self {
        Self {
            name: name.to_owned(),
            over: Over::Session(Box::new(config)),
        }
    }
}

/// As they are by default, TCP first.
pub(crate) fn all() -> Vec<Kind> {
    let native = |security| Config::new().security(security);
    let snet = native(Security::none()).snet(Snet::plain().history(4 << 20));
    vec![
        Kind::tcp(),
        Kind {
            name: "tokio-rustls".to_owned(),
            over: Over::Tls,
        },
        Kind::session("native, none", native(Security::none())),
        Kind::session(
            "native, AES-GCM",
            native(Security::anonymous().suite(Suite::AesGcm)),
        ),
        Kind::session("snet, 4 MiB", snet),
    ]
}

/// What windows are at first and at most, in KiB: fixed ones, then one that grows.
const WINDOWS: [(usize, usize); 5] = [
    (256, 256),
    (1024, 1024),
    (4096, 4096),
    (16_384, 16_384),
    (256, 16_384),
];

/// native with one window after the other, TCP first.
pub(crate) fn windows() -> Vec<Kind> {
    let sessions = WINDOWS.iter().map(|(first, most)| {
        let config = Config::new().security(Security::none());
        let config = config.window(first << 10).max_window(most << 10);
        let name = if first == most {
            format!("{first} KiB")
        } else {
            format!("{first} to {most} KiB")
        };
        Kind::session(&name, config)
    });
    [Kind::tcp()].into_iter().chain(sessions).collect()
}

/// Both ends of a stream.
pub(crate) struct Pair {
    pub(crate) client: BoxStream,
    pub(crate) server: BoxStream,
    /// While it lives, the session can be resumed.
    _listener: Option<Listener>,
}

/// Opens a stream across the path. The client's socket is the one that `congestion` is for.
pub(crate) async fn open(kind: &Kind, congestion: Option<&str>) -> Result<Pair, BoxError> {
    match &kind.over {
        Over::Nothing => {
            let (server, client) = connection(congestion).await?;
            Ok(pair(client, server, None))
        }
        Over::Tls => {
            let (server, client) = connection(congestion).await?;
            let (server, client) = tokio::try_join!(
                TLS.1.accept(server),
                TLS.0.connect(tls::server_name(), client)
            )?;
            Ok(pair(client, server, None))
        }
        Over::Session(config) => {
            let mut listener = Listener::bind((NEAR, 0), (**config).clone()).await?;
            let address = SocketAddr::from((FAR, listener.local_addr()?.port()));
            let congestion = congestion.map(str::to_owned);
            let dial = service_fn(move |address| dial(address, congestion.clone()));
            let client = Connector::new(dial, (**config).clone()).oneshot(address);
            let accept = async { Ok::<_, BoxError>(listener.accept().await?.0) };
            let client = async { Ok(client.await?) };
            let (server, client) = tokio::try_join!(accept, client)?;
            Ok(pair(client, server, Some(listener)))
        }
    }
}

fn pair(
    client: impl Stream + 'static,
    server: impl Stream + 'static,
    _listener: Option<Listener>,
) -> Pair {
    Pair {
        client: Box::new(client),
        server: Box::new(server),
        _listener,
    }
}

async fn connection(
    congestion: Option<&str>,
) -> Result<(tokio::net::TcpStream, tokio::net::TcpStream), BoxError> {
    let listener = TcpListener::bind((NEAR, 0)).await?;
    let address = SocketAddr::from((FAR, listener.local_addr()?.port()));
    let accept = async { Ok(listener.accept().await?.0) };
    let (server, client) = tokio::try_join!(accept, dial(address, congestion.map(str::to_owned)))?;
    server.set_nodelay(true)?;
    Ok((server, client))
}

/// With `TcpConnector`'s socket options, whatever goes over it.
async fn dial(
    address: SocketAddr,
    congestion: Option<String>,
) -> Result<tokio::net::TcpStream, BoxError> {
    let tcp = TcpConnector::new().oneshot(address).await?;
    if let Some(name) = congestion {
        SockRef::from(&tcp)
            .set_tcp_congestion(name.as_bytes())
            .map_err(|error| format!("congestion control {name}: {error}"))?;
    }
    Ok(tcp)
}
