//! A bad network between a client and a server on this machine: it cuts every connection after a while.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::sleep,
};

/// How many connections have been cut so far.
#[derive(Clone, Debug, Default)]
pub struct Cuts(Arc<AtomicU32>);

impl Cuts {
    /// Their number.
    pub fn count(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// How often a client has to have said something before its connection may be cut: an open session is resumed, one that is being
/// opened is not.
const OPEN_AFTER: u32 = 3;

/// The address of a proxy that carries connections to `server` and resets each when it has been in use for `life`, whatever is under way.
pub async fn before(server: SocketAddr, life: Duration) -> io::Result<(SocketAddr, Cuts)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let addr = listener.local_addr()?;
    let cuts = Cuts::default();
    let counter = cuts.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let counter = counter.clone();
            tokio::spawn(async move {
                if carry(client, server, life).await? {
                    counter.0.fetch_add(1, Relaxed);
                }
                io::Result::Ok(())
            });
        }
    });
    Ok((addr, cuts))
}

/// Whether it had to be cut.
async fn carry(mut client: TcpStream, server: SocketAddr, life: Duration) -> io::Result<bool> {
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let in_use = Notify::new();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        let mut buffer = [0; 16 << 10];
        for said in 1.. {
            let length = from_client.read(&mut buffer).await?;
            if length == 0 {
                break;
            }
            to_server.write_all(&buffer[..length]).await?;
            if said == OPEN_AFTER {
                in_use.notify_one();
            }
        }
        to_server.shutdown().await
    };
    let down = async {
        copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    let cut = async {
        in_use.notified().await;
        sleep(life).await;
    };
    tokio::select! {
        ended = async { tokio::try_join!(up, down) } => {
            ended?;
            Ok(false)
        }
        () = cut => {
            // What the sockets hold is lost.
            client.set_zero_linger()?;
            server.set_zero_linger()?;
            Ok(true)
        }
    }
}
