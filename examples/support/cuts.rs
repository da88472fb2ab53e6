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
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::timeout,
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

/// The address of a proxy that carries connections to `server` and resets each after `life`, whatever is under way.
pub async fn before(server: SocketAddr, life: Duration) -> io::Result<(SocketAddr, Cuts)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let addr = listener.local_addr()?;
    let cuts = Cuts::default();
    let counter = cuts.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let counter = counter.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await?;
                client.set_nodelay(true)?;
                server.set_nodelay(true)?;
                let carrying = copy_bidirectional(&mut client, &mut server);
                if timeout(life, carrying).await.is_err() {
                    counter.0.fetch_add(1, Relaxed);
                    // What the sockets hold is lost.
                    client.set_zero_linger()?;
                    server.set_zero_linger()?;
                }
                io::Result::Ok(())
            });
        }
    });
    Ok((addr, cuts))
}
