//! In-memory links with bounded buffers, on which a test does what networks, and bad implementations of links, do.

// Each of its users takes a part of it.
#![allow(dead_code)]

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// Orders what happens on different links.
static TICKS: AtomicU64 = AtomicU64::new(1);

fn tick() -> u64 {
    TICKS.fetch_add(1, Ordering::Relaxed)
}

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

pub(crate) use Side::{Client, Server};

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Client => Server,
            Server => Client,
        }
    }
}

/// What one end of a link meets from now on, reading and writing; bytes under way to it are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Every call fails.
    Reset,
    /// Reading gives the end, writing fails.
    End,
    /// Every call waits, for ever.
    Stall,
    /// Reading waits, for ever; writing goes on.
    Deaf,
}

/// How one end of a link breaks the contract of its traits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// A write takes nothing, and says so.
    WritesNothing,
    /// A write takes all and claims one byte more.
    WritesTooMuch,
    /// A read takes back what the buffer held before.
    TakesBack,
    /// A read fills the buffer, and fails.
    FillsAndFails,
    /// A read fills the buffer, and waits.
    FillsAndWaits,
}

/// The test's hold on a link.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Mutex<State>>);

struct State {
    /// What the client writes, and what the server writes.
    pipes: [Pipe; 2],
    ends: [End; 2],
}

/// One direction.
struct Pipe {
    buffer: VecDeque<u8>,
    capacity: usize,
    /// All that was ever written.
    log: Vec<u8>,
    delivered: usize,
    /// The link is reset once so many bytes were delivered.
    cut_at: Option<usize>,
    /// How long what is written is on its way.
    delay: Duration,
    /// When what the buffer holds arrives, in the order in which it was written, and how much each time. Empty without a delay.
    arrivals: VecDeque<(Instant, usize)>,
    /// How much of what the buffer holds has arrived.
    arrived: usize,
    /// Nothing more will be written; the end arrives then.
    ended: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Default)]
struct End {
    fault: Option<Fault>,
    lie: Option<Lie>,
    polls: u64,
    first_written: Option<u64>,
    dropped: Option<u64>,
}

impl Pipe {
    fn write(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
        self.log.extend(bytes);
        if self.delay.is_zero() {
            self.arrived += bytes.len();
        } else {
            self.arrivals
                .push_back((Instant::now() + self.delay, bytes.len()));
        }
    }

    fn end(&mut self) {
        let at = Instant::now() + self.delay;
        self.ended.get_or_insert(at);
    }

    /// Sees what has arrived by now. Returns when more does, if anything is on its way.
    fn advance(&mut self) -> Option<Instant> {
        if self.delay.is_zero() {
            return None;
        }
        let now = Instant::now();
        while let Some((at, count)) = self.arrivals.front()
            && *at <= now
        {
            self.arrived += count;
            self.arrivals.pop_front();
        }
        let next = self.arrivals.front().map(|(at, _)| *at).or(self.ended);
        next.filter(|at| *at > now)
    }

    fn has_ended(&self) -> bool {
        self.buffer.is_empty() && self.ended.is_some_and(|at| at <= Instant::now())
    }
}

/// A link, each direction of which holds `capacity` bytes.
pub(crate) fn link(capacity: usize) -> (MemoryLink, MemoryLink, Wire) {
    slow_link(capacity, Duration::ZERO)
}

/// A link whose bytes take `delay` to arrive, and count for the capacity meanwhile.
pub(crate) fn slow_link(capacity: usize, delay: Duration) -> (MemoryLink, MemoryLink, Wire) {
    assert!(capacity > 0);
    let pipe = || Pipe {
        buffer: VecDeque::new(),
        capacity,
        log: Vec::new(),
        delivered: 0,
        cut_at: None,
        delay,
        arrivals: VecDeque::new(),
        arrived: 0,
        ended: None,
        reader: None,
        writer: None,
    };
    let wire = Wire(Arc::new(Mutex::new(State {
        pipes: [pipe(), pipe()],
        ends: [End::default(), End::default()],
    })));
    let end = |side| {
        MemoryLink::Plain(Bare {
            side,
            wire: wire.clone(),
            timer: None,
        })
    };
    (end(Client), end(Server), wire.clone())
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics under this lock")
    }

    /// Changes the link, and has whoever waits on it look again.
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state);
        let wakers = state.wakers();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// Both ends meet `fault`.
    pub(crate) fn cut(&self, fault: Fault) {
        self.cut_end(Client, fault);
        self.cut_end(Server, fault);
    }

    /// One end meets `fault`; the other notices nothing.
    pub(crate) fn cut_end(&self, side: Side, fault: Fault) {
        self.change(|state| state.ends[side as usize].fault = Some(fault));
    }

    /// Takes all faults back.
    pub(crate) fn go_on(&self) {
        self.change(|state| {
            for end in &mut state.ends {
                end.fault = None;
            }
        });
    }

    /// The link is reset as soon as `count` bytes in all have been delivered from `side`.
    pub(crate) fn cut_at(&self, side: Side, count: usize) {
        self.change(|state| state.pipes[side as usize].cut_at = Some(count));
    }

    pub(crate) fn lie(&self, side: Side, lie: Lie) {
        self.change(|state| state.ends[side as usize].lie = Some(lie));
    }

    /// All that `side` ever wrote.
    pub(crate) fn written(&self, side: Side) -> Vec<u8> {
        self.lock().pipes[side as usize].log.clone()
    }

    /// How many of them have been read.
    pub(crate) fn delivered(&self, side: Side) -> usize {
        self.lock().pipes[side as usize].delivered
    }

    /// How many times `side` was polled.
    pub(crate) fn polls(&self, side: Side) -> u64 {
        self.lock().ends[side as usize].polls
    }

    /// When `side` first wrote, in an order that holds for all links.
    pub(crate) fn first_written(&self, side: Side) -> Option<u64> {
        self.lock().ends[side as usize].first_written
    }

    /// When `side` closed its end, in the same order.
    pub(crate) fn dropped(&self, side: Side) -> Option<u64> {
        self.lock().ends[side as usize].dropped
    }
}

impl State {
    fn wakers(&mut self) -> Vec<Waker> {
        self.pipes
            .iter_mut()
            .flat_map(|pipe| [pipe.reader.take(), pipe.writer.take()])
            .flatten()
            .collect()
    }

    fn check_cut(&mut self, side: Side) {
        let pipe = &self.pipes[side as usize];
        if pipe.cut_at.is_some_and(|at| pipe.delivered >= at) {
            for end in &mut self.ends {
                end.fault = Some(Fault::Reset);
            }
        }
    }
}

fn failed(kind: io::ErrorKind) -> Poll<io::Result<usize>> {
    Poll::Ready(Err(kind.into()))
}

/// One end of an in-memory link.
pub(crate) enum MemoryLink {
    Plain(Bare),
    /// For raw peers under Noise.
    #[cfg(feature = "noise")]
    Noise(Box<unbroken::NoiseLink<Bare>>),
    #[cfg(feature = "noise")]
    Between,
}

impl MemoryLink {
    /// Puts the link under the records of a handshake on it.
    #[cfg(feature = "noise")]
    pub(crate) fn protect(&mut self, records: unbroken::protocol::noise::Records) {
        let Self::Plain(bare) = std::mem::replace(self, Self::Between) else {
            panic!("a link has one handshake");
        };
        *self = Self::Noise(Box::new(unbroken::NoiseLink::new(bare, records)));
    }
}

/// Calls the same on whichever it is.
macro_rules! forward {
    ($link:expr, $call:ident $(, $argument:expr)*) => {
        match $link.get_mut() {
            MemoryLink::Plain(link) => Pin::new(link).$call($($argument),*),
            #[cfg(feature = "noise")]
            MemoryLink::Noise(link) => Pin::new(link.as_mut()).$call($($argument),*),
            #[cfg(feature = "noise")]
            MemoryLink::Between => unreachable!("it is there only while it is replaced"),
        }
    };
}

impl AsyncRead for MemoryLink {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, poll_read, cx, buf)
    }
}

impl AsyncWrite for MemoryLink {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self, poll_write, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, poll_shutdown, cx)
    }
}

/// What is under it all.
pub(crate) struct Bare {
    side: Side,
    wire: Wire,
    /// For what is on its way to be read.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Bare {
    /// Polls under the lock; wakes others, but not the one that polls, once it is released.
    fn poll<R>(&self, poll: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.wire.lock();
        state.ends[self.side as usize].polls += 1;
        let result = poll(&mut state);
        drop(state);
        result
    }

    /// Wakes at that time, unless the link is polled before.
    fn wake_at(&mut self, at: Option<Instant>, cx: &mut Context<'_>) {
        let Some(at) = at else { return };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        timer.as_mut().reset(at);
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

impl AsyncRead for Bare {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let from = self.side.other();
        let mut arrives = None;
        let (result, woken) = self.poll(|state| {
            state.check_cut(from);
            let end = &state.ends[self.side as usize];
            let (fault, lie) = (end.fault, end.lie);
            let pipe = &mut state.pipes[from as usize];
            arrives = pipe.advance();
            let result = match (fault, lie) {
                (Some(Fault::Reset), _) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                (Some(Fault::End), _) => Poll::Ready(Ok(())),
                (Some(Fault::Stall | Fault::Deaf), _) => Poll::Pending,
                (None, Some(Lie::TakesBack)) => {
                    buf.clear();
                    Poll::Ready(Ok(()))
                }
                (None, Some(Lie::FillsAndFails)) => {
                    buf.put_slice(&[0xee][..buf.remaining().min(1)]);
                    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
                }
                (None, Some(Lie::FillsAndWaits)) => {
                    buf.put_slice(&[0xee][..buf.remaining().min(1)]);
                    Poll::Pending
                }
                (None, _) if pipe.arrived > 0 => {
                    let left = pipe.cut_at.map_or(usize::MAX, |at| at - pipe.delivered);
                    let count = pipe.arrived.min(buf.remaining()).min(left);
                    buf.put_slice(&pipe.buffer.drain(..count).collect::<Vec<_>>());
                    pipe.arrived -= count;
                    pipe.delivered += count;
                    Poll::Ready(Ok(()))
                }
                (None, _) if pipe.has_ended() => Poll::Ready(Ok(())),
                (None, _) => Poll::Pending,
            };
            if result.is_pending() {
                pipe.reader = Some(cx.waker().clone());
                return (result, Vec::new());
            }
            let mut woken: Vec<Waker> = pipe.writer.take().into_iter().collect();
            if state.ends[self.side as usize].fault.is_none() {
                state.check_cut(from);
                if state.ends[self.side as usize].fault.is_some() {
                    woken.extend(state.wakers());
                }
            }
            (result, woken)
        });
        woken.into_iter().for_each(Waker::wake);
        if result.is_pending() {
            self.wake_at(arrives, cx);
        }
        result
    }
}

impl AsyncWrite for Bare {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (result, reader) = self.poll(|state| {
            let end = &mut state.ends[self.side as usize];
            let (fault, lie) = (end.fault, end.lie);
            let peer_gone = state.ends[self.side.other() as usize].dropped.is_some();
            let pipe = &mut state.pipes[self.side as usize];
            let result = match (fault, lie) {
                (Some(Fault::Reset | Fault::End), _) => failed(io::ErrorKind::ConnectionReset),
                (None | Some(Fault::Deaf), _) if peer_gone || pipe.ended.is_some() => {
                    failed(io::ErrorKind::BrokenPipe)
                }
                (None, Some(Lie::WritesNothing)) => Poll::Ready(Ok(0)),
                (None, Some(Lie::WritesTooMuch)) => Poll::Ready(Ok(bytes.len() + 1)),
                (None | Some(Fault::Deaf), _) if pipe.buffer.len() < pipe.capacity => {
                    let count = bytes.len().min(pipe.capacity - pipe.buffer.len());
                    pipe.write(&bytes[..count]);
                    let end = &mut state.ends[self.side as usize];
                    end.first_written = end.first_written.or_else(|| Some(tick()));
                    Poll::Ready(Ok(count))
                }
                (Some(Fault::Stall | Fault::Deaf) | None, _) => Poll::Pending,
            };
            if result.is_pending() {
                pipe.writer = Some(cx.waker().clone());
                return (result, None);
            }
            (result, pipe.reader.take())
        });
        if let Some(reader) = reader {
            reader.wake();
        }
        result
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let reader = self.poll(|state| {
            let pipe = &mut state.pipes[self.side as usize];
            pipe.end();
            pipe.reader.take()
        });
        if let Some(reader) = reader {
            reader.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let side = self.side;
        self.wire.change(|state| {
            state.ends[side as usize].dropped = Some(tick());
            state.pipes[side as usize].end();
        });
    }
}
