//! A server that has run out of file descriptors, in a process of its own.

#![cfg(all(feature = "client", feature = "server", target_os = "linux"))]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use unbroken::{Config, Listener, Security};

/// What the server may have open, of which it takes a dozen for itself.
const FILES: usize = 64;
const STUCK: usize = 100;
const ANNOUNCED: &str = "listening on port ";

fn config() -> Config {
    // Longer than any test lasts: nobody makes room by running out of time.
    Config::new()
        .security(Security::none())
        .handshake_timeout(Duration::from_secs(60))
        .linger(Duration::from_secs(120))
}

#[tokio::test]
#[ignore = "the other process of the test below"]
async fn serve() -> std::io::Result<()> {
    let mut listener = Listener::bind("127.0.0.1:0", config()).await?;
    println!("\n{ANNOUNCED}{}", listener.local_addr()?.port());
    tokio::spawn(async move {
        while let Ok((mut transport, _)) = listener.accept().await {
            transport.write_all(b"welcome").await?;
            transport.shutdown().await?;
        }
        Ok::<(), std::io::Error>(())
    });
    // Until the other process is done.
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await??;
    Ok(())
}

#[tokio::test]
async fn those_who_are_stuck_make_room_when_file_descriptors_run_out()
-> Result<(), Box<dyn std::error::Error>> {
    let mut server = Command::new("sh")
        .args(["-c", &format!("ulimit -n {FILES} && exec \"$@\""), "sh"])
        .arg(std::env::current_exe()?)
        .args(["--exact", "serve", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(server.stdout.take().expect("it is piped")).lines();
    let port = loop {
        let line = lines.next().expect("the server says its port")?;
        if let Some(port) = line.strip_prefix(ANNOUNCED) {
            break port.parse()?;
        }
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let began = Instant::now();
    let stuck: Vec<TcpStream> = (0..STUCK)
        .map(|_| TcpStream::connect(addr))
        .collect::<Result<_, _>>()?;

    let mut transport = unbroken::connect(addr, config()).await?;
    let mut read = String::new();
    transport.read_to_string(&mut read).await?;
    assert_eq!(read, "welcome");
    let took = began.elapsed();
    // Nobody is pushed out within a second, and what does not fit at once takes its turn.
    let least = Duration::from_secs(1);
    assert!(took > least, "{took:?}: there was room for all");
    assert!(took < 20 * least, "{took:?}");
    drop(stuck);
    server.stdin.take().expect("it is piped").write_all(b"!")?;
    assert!(server.wait()?.success());
    Ok(())
}
