//! A TCP connection that can be destroyed on command, at this end, while whatever is above it uses it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tower::ServiceExt;
use unbroken::TcpConnector;

/// What a session runs on.
pub(crate) struct Cuttable(Arc<Mutex<Wire>>);

struct Wire {
    tcp: Option<TcpStream>,
    /// Who waits for it, each way.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The newest connection of a session, and what its dialling has come to.
#[derive(Default)]
pub(crate) struct Cutter {
    newest: Mutex<Option<Arc<Mutex<Wire>>>>,
    dials: AtomicU64,
    /// In microseconds.
    slowest_dial: AtomicU64,
}

impl Cutter {
    /// Dials as a session's own connector does, so that whatever bounds the session sets on the socket hold.
    pub(crate) async fn dial(self: Arc<Self>, addr: std::net::SocketAddr) -> io::Result<Cuttable> {
        self.dials.fetch_add(1, Relaxed);
        let began = Instant::now();
        let tcp = TcpConnector::new().oneshot(addr).await?;
        let took = began.elapsed().as_micros() as u64;
        self.slowest_dial.fetch_max(took, Relaxed);
        let wire = Arc::new(Mutex::new(Wire {
            tcp: Some(tcp),
            reader: None,
            writer: None,
        }));
        *lock(&self.newest) = Some(wire.clone());
        Ok(Cuttable(wire))
    }

    /// Resets the newest connection: what is in its buffers at this end is lost, the system closes it at once, and it is an error
    /// here and, as soon as the reset has arrived, there. Returns whether there was one.
    pub(crate) fn cut(&self) -> io::Result<bool> {
        let Some(wire) = lock(&self.newest).take() else {
            return Ok(false);
        };
        let mut wire = lock(&wire);
        let Some(tcp) = wire.tcp.take() else {
            return Ok(false);
        };
        let waiting = [wire.reader.take(), wire.writer.take()];
        drop(wire);
        tcp.set_zero_linger()?;
        drop(tcp);
        waiting.into_iter().flatten().for_each(Waker::wake);
        Ok(true)
    }

    /// How often it was dialled since this was last asked, and the slowest of those that succeeded, in microseconds.
    pub(crate) fn take_dials(&self) -> (u64, u64) {
        (
            self.dials.swap(0, Relaxed),
            self.slowest_dial.swap(0, Relaxed),
        )
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cuttable {
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        waiting: impl FnOnce(&mut Wire) -> &mut Option<Waker>,
        call: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut wire = lock(&self.0);
        let Some(tcp) = &mut wire.tcp else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let polled = call(Pin::new(tcp), cx);
        if polled.is_pending() {
            *waiting(&mut wire) = Some(cx.waker().clone());
        }
        polled
    }
}

fn reader(wire: &mut Wire) -> &mut Option<Waker> {
    &mut wire.reader
}

fn writer(wire: &mut Wire) -> &mut Option<Waker> {
    &mut wire.writer
}

impl AsyncRead for Cuttable {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(cx, reader, |tcp, cx| tcp.poll_read(cx, buf))
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, writer, |tcp, cx| tcp.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, writer, |tcp, cx| tcp.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, writer, |tcp, cx| tcp.poll_shutdown(cx))
    }
}
