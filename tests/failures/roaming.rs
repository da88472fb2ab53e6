//! Over real sockets: sessions that move between addresses and kinds of links, and the bound on what sockets hold.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, split},
    net::{TcpListener, TcpSocket},
    sync::mpsc,
};
use tower::{Service, ServiceExt};
use unbroken::{
    Accepted, Acceptor, Config, Connector, Listener, ResumableTransport, Snet, TcpConnector,
};

use super::memory_net::{Protocol, exchange, expect, over_both, pattern, resumed, send, within};

over_both!(real_time:
    teleport_22_a_session_moves_to_other_addresses_and_kinds_of_links,
    teleport_22_a_listener_serves_a_session_from_every_address,
);

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Hands each link to an acceptor, and its sessions to the test.
fn accept<L>(acceptor: &Acceptor, link: L, sessions: &mpsc::UnboundedSender<ResumableTransport>)
where
    L: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (acceptor, sessions) = (acceptor.clone(), sessions.clone());
    tokio::spawn(async move {
        if let Ok(Accepted::New(transport)) = acceptor.accept(link).await {
            let _ = sessions.send(transport);
        }
    });
}

async fn teleport_22_a_session_moves_to_other_addresses_and_kinds_of_links(protocol: Protocol) {
    let acceptor = Acceptor::new(protocol.config());
    let (sender, mut sessions) = mpsc::unbounded_channel();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let addr = listener.local_addr().expect("an address");
    let peers = Arc::new(Mutex::new(Vec::new()));
    let accepting = tokio::spawn({
        let (acceptor, sender, peers) = (acceptor.clone(), sender.clone(), peers.clone());
        async move {
            while let Ok((link, peer)) = listener.accept().await {
                peers.lock().expect("no panic").push(peer.ip());
                accept(&acceptor, link, &sender);
            }
        }
    });
    let kinds = Arc::new(Mutex::new(0));
    let count = kinds.clone();
    let dial = tower::service_fn(move |()| {
        let kind = {
            let mut count = count.lock().expect("no panic");
            *count += 1;
            *count - 1
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        async move {
            let link: Box<dyn Io> = match kind % 4 {
                // From one address, then from another.
                host @ (0 | 1) => {
                    let socket = TcpSocket::new_v4()?;
                    socket.bind(SocketAddr::from(([127, 0, 0, 2 + host], 0)))?;
                    Box::new(socket.connect(addr).await?)
                }
                2 => {
                    let (near, far) = tokio::net::UnixStream::pair()?;
                    accept(&acceptor, far, &sender);
                    Box::new(near)
                }
                _ => {
                    let (near, far) = tokio::io::duplex(100);
                    accept(&acceptor, far, &sender);
                    Box::new(near)
                }
            };
            io::Result::Ok(link)
        }
    });
    let mut client = within(
        "opening",
        Connector::new(dial, protocol.config()).oneshot(()),
    )
    .await
    .expect("the session opens");
    let mut server = within("the session", sessions.recv())
        .await
        .expect("a session");
    exchange(&mut client, &mut server).await;
    for turn in 1..=7 {
        let bytes = pattern(turn, 10_000);
        send(&mut server, &bytes[..2000]).await;
        within("moving", client.handle().migrate())
            .await
            .expect("it moves");
        tokio::join!(
            send(&mut server, &bytes[2000..]),
            expect(&mut client, &bytes)
        );
        exchange(&mut client, &mut server).await;
        resumed(&server.handle(), turn).await;
    }
    assert_eq!(*kinds.lock().expect("no panic"), 8);
    let peers = peers.lock().expect("no panic").clone();
    let hosts = [2, 3, 2, 3].map(|host| Ipv4Addr::new(127, 0, 0, host));
    assert_eq!(peers, hosts);
    accepting.abort();
}

async fn teleport_22_a_listener_serves_a_session_from_every_address(protocol: Protocol) {
    let config = protocol.config();
    let mut listener = Listener::bind((Ipv4Addr::UNSPECIFIED, 0), config.clone())
        .await
        .expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let hosts = Arc::new(Mutex::new(1));
    let dial = tower::service_fn(move |()| {
        let host = {
            let mut host = hosts.lock().expect("no panic");
            *host += 1;
            *host
        };
        async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from(([127, 0, 1, host], 0)))?;
            socket
                .connect(SocketAddr::from(([127, 0, 0, host], port)))
                .await
        }
    });
    let mut client = within("opening", Connector::new(dial, config).oneshot(()))
        .await
        .expect("the session opens");
    let (mut server, peer) = within("the session", listener.accept())
        .await
        .expect("a session");
    assert_eq!(server.handle().peer_addr(), Some(peer));
    assert_eq!(peer.ip(), Ipv4Addr::new(127, 0, 1, 2));
    for turn in 1..10 {
        exchange(&mut client, &mut server).await;
        within("moving", client.handle().migrate())
            .await
            .expect("it moves");
        resumed(&server.handle(), turn.into()).await;
        // Where it is now.
        let peer = server.handle().peer_addr().expect("an address");
        assert_eq!(peer.ip(), Ipv4Addr::new(127, 0, 1, 2 + turn));
    }
}

/// A TCP link that a test can cut though nothing is in between.
struct Cuttable<L> {
    link: L,
    cut: Arc<Mutex<Cut>>,
}

#[derive(Default)]
struct Cut {
    done: bool,
    wakers: [Option<Waker>; 2],
}

impl Cut {
    fn now(cut: &Arc<Mutex<Self>>) {
        let wakers = {
            let mut cut = cut.lock().expect("no panic");
            cut.done = true;
            std::mem::take(&mut cut.wakers)
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl<L> Cuttable<L> {
    fn check(&self, direction: usize, cx: &Context<'_>) -> io::Result<()> {
        let mut cut = self.cut.lock().expect("no panic");
        cut.wakers[direction] = Some(cx.waker().clone());
        if cut.done {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            Ok(())
        }
    }
}

impl<L: AsyncRead + Unpin> AsyncRead for Cuttable<L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(0, cx)?;
        Pin::new(&mut self.link).poll_read(cx, buf)
    }
}

impl<L: AsyncWrite + Unpin> AsyncWrite for Cuttable<L> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(1, cx)?;
        Pin::new(&mut self.link).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn snet_go_06_the_history_bounds_the_socket_buffers() {
    const HISTORY: usize = 256 << 10;
    const CUT_EVERY: usize = 1 << 20;
    const TURNS: usize = 24;
    let config = Config::new()
        .snet(Snet::plain().silence(None).history(HISTORY))
        .retry(Duration::from_millis(1), Duration::from_millis(10));
    let mut listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), config.clone())
        .await
        .expect("a port");
    let addr = listener.local_addr().expect("an address");
    let cut = Arc::new(Mutex::new(Arc::new(Mutex::new(Cut::default()))));
    let newest = cut.clone();
    let dial = tower::service_fn(move |addr: SocketAddr| {
        let cut = Arc::new(Mutex::new(Cut::default()));
        *newest.lock().expect("no panic") = cut.clone();
        let link = TcpConnector::new().call(addr);
        async move { link.await.map(|link| Cuttable { link, cut }) }
    });
    let client = within("opening", Connector::new(dial, config).oneshot(addr))
        .await
        .expect("the session opens");
    let (server, _) = within("the session", listener.accept())
        .await
        .expect("a session");
    let (client_handle, server_handle) = (client.handle(), server.handle());
    let bytes = pattern(1, CUT_EVERY);
    let stream = |end: ResumableTransport, cut: Option<Arc<Mutex<Arc<Mutex<Cut>>>>>| {
        let bytes = bytes.clone();
        async move {
            let (mut reading, mut writing) = split(end);
            tokio::join!(
                async {
                    for _ in 0..TURNS {
                        send(&mut writing, &bytes).await;
                        if let Some(cut) = &cut {
                            // The send buffer is as full as it gets.
                            let newest = cut.lock().expect("no panic").clone();
                            Cut::now(&newest);
                        }
                    }
                },
                async {
                    for turn in 0..TURNS {
                        if turn % 4 == 0 {
                            // As is the receive buffer, at times.
                            tokio::time::sleep(Duration::from_millis(30)).await;
                        }
                        expect(&mut reading, &bytes).await;
                    }
                }
            );
        }
    };
    let client = tokio::spawn(stream(client, Some(cut)));
    let server = tokio::spawn(stream(server, None));
    within("both streams", async {
        client.await.expect("the client's stream is whole");
        server.await.expect("the server's stream is whole");
    })
    .await;
    assert!(client_handle.stats().resumes >= 10);
    assert!(server_handle.stats().replayed + client_handle.stats().replayed > 0);
}
