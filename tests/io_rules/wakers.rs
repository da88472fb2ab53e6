//! No task that waits is forgotten, whatever else polls the same direction and whenever the link wakes.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    sync::mpsc,
    time::timeout,
};
use tower::ServiceExt;
use unbroken::{Accepted, Acceptor, Connector};

use super::{
    keeper::{Idler, poll_once},
    memory_net::{Dial, Net, Protocol, expect, over_both, pattern},
};

over_both!(
    a_flush_that_waits_is_woken_though_a_write_came_after_it,
    a_write_that_waits_is_woken_though_a_flush_came_after_it,
);

/// Far longer than anything here takes; virtual where time is.
const SOON: Duration = Duration::from_secs(5);

async fn woken(idler: &Idler) {
    let woken = async {
        while idler.woken() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, woken).await.expect("the task is woken");
}

async fn a_flush_that_waits_is_woken_though_a_write_came_after_it(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), 100);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    let mut bytes = pattern(1, 10_000);
    client.write_all(&bytes).await.expect("room");
    let idler = Arc::new(Idler::default());
    assert!(!poll_once(&idler, client.flush()));
    assert!(poll_once(&idler, client.write(&[7])));
    bytes.push(7);
    expect(&mut server, &bytes).await;
    woken(&idler).await;
}

async fn a_write_that_waits_is_woken_though_a_flush_came_after_it(protocol: Protocol) {
    let config = protocol.keeping(1000);
    let mut net = Net::new(&config, 100);
    let (mut client, mut server) = net.open(&config).await;
    net.lose(&client, &server).await;
    let bytes = pattern(1, 1000);
    client.write_all(&bytes).await.expect("room");
    let idler = Arc::new(Idler::default());
    assert!(!poll_once(&idler, client.write(&[1])));
    // Done at once, as there is no link.
    assert!(poll_once(&idler, client.flush()));
    assert_eq!(idler.woken(), 0, "woken for nothing");
    net.set(Dial::Serve);
    expect(&mut server, &bytes).await;
    woken(&idler).await;
}

/// A link that, when armed, wakes whoever writes to it within that write, before it says that it cannot take anything now: as tokio's
/// sockets do when a task has used up its budget.
struct Hasty {
    link: DuplexStream,
    armed: Arc<AtomicBool>,
}

impl AsyncRead for Hasty {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_read(cx, buf)
    }
}

impl AsyncWrite for Hasty {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.armed.swap(false, Ordering::SeqCst) {
            cx.waker().wake_by_ref();
            // Long enough for another thread to come and look.
            let since = Instant::now();
            while since.elapsed() < Duration::from_millis(2) {
                std::hint::spin_loop();
            }
            return Poll::Pending;
        }
        Pin::new(&mut self.link).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}

/// On real threads: the keeper has to come between the wake-up and the end of the poll.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_was_accepted_goes_out_though_the_link_woke_within_the_write() {
    for protocol in [Protocol::Snet, Protocol::Native] {
        accepted_goes_out(protocol).await;
    }
}

async fn accepted_goes_out(protocol: Protocol) {
    let armed = Arc::new(AtomicBool::new(false));
    let (accepted, mut transports) = mpsc::unbounded_channel();
    let acceptor = Acceptor::new(protocol.config());
    let dial = tower::service_fn({
        let armed = armed.clone();
        move |(): ()| {
            let (near, far) = tokio::io::duplex(1 << 16);
            let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
            tokio::spawn(async move {
                if let Ok(Accepted::New(transport)) = acceptor.accept(far).await {
                    accepted.send(transport).expect("the test goes on");
                }
            });
            let armed = armed.clone();
            std::future::ready(io::Result::Ok(Hasty { link: near, armed }))
        }
    });
    let mut client = Connector::new(dial, protocol.config())
        .oneshot(())
        .await
        .expect("a session");
    let mut server = transports.recv().await.expect("a session");
    for round in 0..40 {
        // Nobody polls for a while, so that the keeper sleeps without a timer.
        tokio::time::sleep(Duration::from_millis(30)).await;
        armed.store(true, Ordering::SeqCst);
        // Written, not flushed; then the application only reads.
        client.write_all(&[round]).await.expect("room");
        let answer = async {
            let mut byte = [0];
            server.read_exact(&mut byte).await.expect("a byte");
            server.write_all(&byte).await.expect("room");
        };
        let mut byte = [0];
        let (read, ()) = timeout(SOON, async {
            tokio::join!(client.read_exact(&mut byte), answer)
        })
        .await
        .expect("the byte arrives");
        read.expect("the answer");
        assert_eq!(byte, [round]);
    }
}
