//! A Noise link on a link that gives and takes bytes in pieces: what is read is what was written, and its end is one only if nothing
//! on the link was changed, moved, left out or added.

#![no_main]

use std::{
    cell::RefCell,
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use unbroken::{
    NoiseLink,
    protocol::noise::{Initiator, Pattern, Records, Responder, Suite},
};
use unbroken_fuzz::{
    input::{Pieces, byte, pick, rest, size},
    keys::Keys,
};

/// The most that is written in a run, lest the ciphers be what takes the time.
const MOST: usize = 1 << 18;
/// What a link's buffers take up at most, as it says.
const MOST_ALLOCATED: usize = 260 * 1024;

/// The link underneath.
struct Inner {
    /// What it gives, and how much of that it has given; then its end.
    gives: Vec<u8>,
    given: usize,
    /// What it has taken, for whoever else holds this.
    taken: Rc<RefCell<Vec<u8>>>,
    pieces: Pieces,
    /// Of 8 calls in a row those that come too early.
    early: u8,
    shut: bool,
}

impl Inner {
    fn new(gives: &[u8], pieces: Pieces, early: u8) -> Self {
        Self {
            gives: gives.to_vec(),
            given: 0,
            taken: Rc::default(),
            pieces,
            // It is ready at last.
            early: early & 0x7f,
            shut: false,
        }
    }

    fn is_early(&mut self) -> bool {
        self.early = self.early.rotate_left(1);
        self.early & 1 == 1
    }
}

impl AsyncRead for Inner {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_early() {
            return Poll::Pending;
        }
        let left = self.gives.len() - self.given;
        let count = self.pieces.next(left.min(buf.remaining()));
        buf.put_slice(&self.gives[self.given..self.given + count]);
        self.given += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Inner {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        assert!(!self.shut, "a write behind the end");
        if self.is_early() {
            return Poll::Pending;
        }
        let count = self.pieces.next(bytes.len());
        self.taken.borrow_mut().extend(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_early() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_early() {
            return Poll::Pending;
        }
        self.shut = true;
        Poll::Ready(Ok(()))
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let how = byte(&mut input);
    let pattern = Pattern::ALL[usize::from(how >> 2 & 3)];
    let suite = Suite::ALL[usize::from(how >> 4 & 1)];
    let mut ends = records(pattern, suite, Keys::of(data));
    if how & 2 != 0 {
        ends.reverse();
    }
    if how & 1 == 0 {
        said(input, ends);
    } else {
        written(input, ends);
    }
});

fn records(pattern: Pattern, suite: Suite, keys: Keys) -> [Records; 2] {
    let [client, server] = keys.ephemeral();
    let mut client = Initiator::new(keys.client(pattern), suite, b"", client);
    let mut server = Responder::new(keys.server(pattern), suite, b"", server);
    let first = client.first(b"").expect("it is the first");
    server.first(&first).expect("it is right");
    let (second, server) = server.second(b"").expect("the first is in");
    let (_, client) = client.second(&second).expect("it is right");
    [client, server]
}

/// Calls until it is ready.
fn wait<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1 << 24 {
        if let Poll::Ready(value) = poll(&mut cx) {
            return value;
        }
    }
    panic!("it is never ready");
}

/// Reads until there is nothing more, into buffers of these sizes; and how that ended.
fn read_all(link: &mut NoiseLink<Inner>, mut sizes: Pieces) -> (Vec<u8>, io::Result<()>) {
    let mut got = Vec::new();
    let mut room = vec![0; 1 << 16];
    loop {
        let most = sizes.next(room.len());
        let mut buf = ReadBuf::new(&mut room[..most]);
        let result = wait(|cx| Pin::new(&mut *link).poll_read(cx, &mut buf));
        assert!(link.allocated() <= MOST_ALLOCATED);
        if buf.filled().is_empty() {
            return (got, result);
        }
        assert!(result.is_ok(), "bytes along with an error");
        got.extend(buf.filled());
    }
}

/// Nothing is to be had of a link that has shown itself untrue.
fn is_dead(link: &mut NoiseLink<Inner>) {
    let mut room = [0; 8];
    let mut buf = ReadBuf::new(&mut room);
    let read = wait(|cx| Pin::new(&mut *link).poll_read(cx, &mut buf));
    assert!(read.is_err() && buf.filled().is_empty());
    let written = wait(|cx| Pin::new(&mut *link).poll_write(cx, b"more"));
    assert!(written.is_err());
}

/// Somebody says anything who has no keys.
fn said(mut input: Unstructured<'_>, [_, records]: [Records; 2]) {
    let pieces = Pieces::draw(&mut input);
    let sizes = Pieces::draw(&mut input);
    let early = byte(&mut input);
    let inner = Inner::new(rest(&mut input), pieces, early);
    let mut link = NoiseLink::new(inner, records);
    let (got, result) = read_all(&mut link, sizes);
    assert_eq!(got, [], "what nobody has sealed");
    let kind = result.expect_err("an end that nobody has sealed").kind();
    assert!(matches!(
        kind,
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof
    ));
    is_dead(&mut link);
}

/// The byte at `at` of what is written.
fn pattern(at: usize) -> u8 {
    (at as u8).wrapping_mul(29) ^ (at >> 8) as u8
}

/// One end writes, somebody in between does what he likes, the other end reads.
fn written(mut input: Unstructured<'_>, [sealing, opening]: [Records; 2]) {
    let pieces = [Pieces::draw(&mut input), Pieces::draw(&mut input)];
    let sizes = Pieces::draw(&mut input);
    let early = [byte(&mut input), byte(&mut input)];
    let ending = byte(&mut input);
    let shut = ending & 1 == 0;

    let inner = Inner::new(&[], pieces[0], early[0]);
    let taken = inner.taken.clone();
    let mut link = NoiseLink::new(inner, sealing);
    let mut written = 0;
    let steps = usize::from(pick(&mut input, 40));
    for _ in 0..steps {
        let step = byte(&mut input);
        let count = size(&mut input).min(MOST - written);
        let bytes: Vec<u8> = (written..written + count).map(pattern).collect();
        let mut cx = Context::from_waker(Waker::noop());
        let taken = match step % 8 {
            0..3 => Pin::new(&mut link).poll_write(&mut cx, &bytes),
            3..5 => {
                let (first, rest) = bytes.split_at(usize::from(step >> 3).min(count));
                let (second, third) = rest.split_at(rest.len() / 2);
                let slices = [first, second, third].map(IoSlice::new);
                Pin::new(&mut link).poll_write_vectored(&mut cx, &slices)
            }
            5 => {
                let _ = Pin::new(&mut link).poll_flush(&mut cx);
                Poll::Pending
            }
            6 => {
                wait(|cx| Pin::new(&mut link).poll_flush(cx)).expect("the link goes on");
                Poll::Pending
            }
            _ => {
                link.release();
                Poll::Pending
            }
        };
        if let Poll::Ready(taken) = taken {
            let taken = taken.expect("the link goes on");
            assert!(taken <= count && (taken > 0 || count == 0));
            written += taken;
        }
        assert!(link.allocated() <= MOST_ALLOCATED);
    }
    if shut {
        wait(|cx| Pin::new(&mut link).poll_shutdown(cx)).expect("the link goes on");
        assert!(wait(|cx| Pin::new(&mut link).poll_write(cx, b"more")).is_err());
    } else {
        wait(|cx| Pin::new(&mut link).poll_flush(cx)).expect("the link goes on");
    }
    let sent = taken.take();
    let arrives = meddle(&sent, &mut input);

    let mut link = NoiseLink::new(Inner::new(&arrives, pieces[1], early[1]), opening);
    let (got, result) = read_all(&mut link, sizes);
    assert!(got.len() <= written);
    let wrong = (0..got.len()).find(|at| got[*at] != pattern(*at));
    assert_eq!(wrong, None, "a byte that was not written there");
    if arrives == sent {
        assert_eq!(got.len(), written);
        assert_eq!(result.is_ok(), shut, "an end where there is none, or none");
    } else {
        assert!(result.is_err(), "an end, though not all is as it was sent");
        is_dead(&mut link);
    }
}

/// What is on a link, with something done to it or nothing.
fn meddle(sent: &[u8], input: &mut Unstructured<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    let mut rest = sent;
    while let [high, low, ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (record, behind) = rest.split_at(2 + len);
        records.push(record);
        rest = behind;
    }
    assert_eq!(rest, [], "part of a record, though all was sent");
    let how = pick(input, 8);
    let [one, other] = [byte(input), byte(input)].map(usize::from);
    if records.is_empty() {
        return sent.to_vec();
    }
    let [first, second] = [one % records.len(), other % records.len()];
    match how {
        1 => records.swap(first, second),
        2 => records.insert(first, records[second]),
        3 => drop(records.remove(first)),
        4 => records.truncate(first),
        _ => {}
    }
    let mut bytes = records.concat();
    // Anywhere, but in the heads of records not less than elsewhere.
    let at = match other % 3 {
        0 => one % bytes.len().max(1),
        1 => records[..first.min(records.len())].concat().len() + other % 18,
        _ => bytes.len().saturating_sub(one),
    };
    match how {
        5 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= input.arbitrary().unwrap_or(1);
            }
        }
        6 => bytes.truncate(at),
        7 => bytes.extend(self::rest(input)),
        _ => {}
    }
    bytes
}
