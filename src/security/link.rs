//! Noise's records on a link (`docs/PROTOCOL.md`, native: "Security").

use std::{
    fmt,
    io::{self, IoSlice},
    mem::{self, MaybeUninit},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffer::Buffer;
use crate::{
    error::{Error, HandshakeError},
    link,
    protocol::noise::{HandshakeHash, Records, TAG_LEN},
};

/// Length of what goes before a record: how long it is.
const HEAD_LEN: usize = 2;
/// How many bytes of a link a record takes up beside its plaintext's.
const OVERHEAD: usize = HEAD_LEN + TAG_LEN;
/// The most plaintext that is sealed at a time, in bytes. With its tag a record takes up a round number of bytes, so that a reader whose
/// buffer has as many has it opened right there. Records of 32 KiB measure 1 to 2 % faster, those of 64 KiB slower.
const PLAINTEXT: usize = 16 * 1024 - TAG_LEN;
/// The most plaintext that is sealed at a time on a young link, in bytes. A record is of use when it is whole: what gets through before a
/// bad network cuts the link counts, so a record takes up a packet there rather than twelve.
const YOUNG_PLAINTEXT: usize = 1300;
/// How many bytes a link carries before it is no longer young.
const YOUNG: usize = 64 * 1024;
/// Pieces that are shorter are gathered into records of this size at most: copying so much costs less than sealing and opening once
/// more.
const GATHERED: usize = 1024;
/// The most that waits for the link to take it, in bytes: what a session hands over at a time fits.
const MOST_OUTPUT: usize = 66 * 1024;
/// The smallest allocation for what is sealed, or was opened, in bytes.
const SMALLEST: usize = 256;
/// How much of a link is read at a time, on the stack, until more is there than that.
const GLANCE: usize = 4 * 1024;
/// How many times as much is read at a time when there was more again.
const GROWTH: usize = 4;
/// The most that is read at a time, in bytes; not less than the longest record.
const MOST_INPUT: usize = 128 * 1024;
/// How many times a link is read in one go, if it has records without plaintext only, before other tasks may run.
const ROUNDS: usize = 64;

/// A link inside Noise: what is written goes out sealed, and what is read was sealed by the peer, in this order, or reading fails.
///
/// The records come from a handshake of [`protocol::noise`](crate::protocol::noise), which leaves it to the caller how its messages
/// travel; [`connect`](Self::connect) and [`accept`](Self::accept) have a way of their own.
///
/// # Reading and writing
///
/// Both go straight to the link, in the same poll. What the link does not take at once is held back, so call `flush` when you wait
/// for an answer. `shutdown` tells the peer, sealed as well, that this is the end, and then ends the link's write side. A link that
/// ends without having said so was cut off, by whomever: reading it fails with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof).
///
/// # Errors
///
/// Reading fails with [`InvalidData`](io::ErrorKind::InvalidData) and the [`Error`] in it if the peer or somebody between sends what it
/// cannot have sealed, and with `UnexpectedEof` as above. After either the link is of no use: everything fails from then on. Errors of
/// the link itself are returned as they are, and everything in the same direction fails from then on.
///
/// # Cancel safety
///
/// A read or write that is dropped before it is ready has taken and sent nothing.
pub struct NoiseLink<L> {
    link: L,
    records: Records,
    /// Records that have come, the last of them perhaps in part.
    input: Buffer,
    /// The link has filled all the room it was last given.
    has_more: bool,
    /// The link has given something since this was last asked.
    stirred: bool,
    /// What was opened when the reader had no room for the record.
    opened: Buffer,
    /// The last record that was opened said that the peer's direction ends.
    ends: bool,
    /// Records the link has not taken yet.
    output: Buffer,
    /// How many more bytes go out as on a young link.
    young: usize,
    /// This end has said that its direction ends.
    shut: bool,
    unreadable: Option<Broken>,
    unwritable: Option<Broken>,
}

/// Why there will be nothing more.
#[derive(Clone, Copy, Debug)]
enum Broken {
    /// The peer cannot have sealed what came.
    Record(HandshakeError),
    /// The link ended, and the peer had not said that it would.
    Truncated,
    /// The link failed.
    Link(io::ErrorKind),
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Record(error) => Error::Handshake(error).into(),
            Broken::Truncated => Self::new(
                io::ErrorKind::UnexpectedEof,
                "the link was cut off: its peer had not ended it",
            ),
            Broken::Link(kind) => kind.into(),
        }
    }
}

impl<L> NoiseLink<L> {
    /// Puts `link` inside Noise, on which the handshake that `records` come from is over, and nothing but records follows.
    pub fn new(link: L, records: Records) -> Self {
        Self {
            link,
            records,
            input: Buffer::default(),
            has_more: false,
            stirred: false,
            opened: Buffer::default(),
            ends: false,
            output: Buffer::default(),
            young: YOUNG,
            shut: false,
            unreadable: None,
            unwritable: None,
        }
    }

    /// The hash of the whole handshake, the same at both ends and at no other link's: what is signed together with it holds for this
    /// link alone.
    pub fn hash(&self) -> &HandshakeHash {
        self.records.hash()
    }

    /// Gives the memory of the buffers back in which nothing waits: up to 260 KiB after much traffic. They are taken anew when
    /// there is traffic again.
    pub fn release(&mut self) {
        self.input.release();
        self.opened.release();
        self.output.release();
        self.has_more = false;
    }

    /// Whether the link has given anything since this was last asked, though it may have made no record complete.
    pub(crate) fn take_stirred(&mut self) -> bool {
        mem::take(&mut self.stirred)
    }

    /// What the buffers take up, in bytes.
    pub fn allocated(&self) -> usize {
        self.input.allocated() + self.opened.allocated() + self.output.allocated()
    }

    /// Nothing that comes can be believed any more.
    fn distrust(&mut self, broken: Broken) -> io::Error {
        self.unreadable = Some(broken);
        self.unwritable = Some(broken);
        broken.into()
    }

    /// Opens the whole records at the start of `input` as far as there is room for them in `buf`; the first of them in any case, if
    /// `buf` was filled as far as `before`. Returns how many bytes they took.
    fn open(&mut self, input: &[u8], before: usize, buf: &mut ReadBuf<'_>) -> usize {
        let mut rest = input;
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD_LEN>() {
            let len = u16::from_be_bytes(*head);
            if usize::from(len) < TAG_LEN {
                self.distrust(Broken::Record(HandshakeError::MessageLength(len)));
                break;
            }
            let Some((record, behind)) = behind.split_at_checked(len.into()) else {
                break;
            };
            let opened = if buf.remaining() >= record.len() {
                let room = buf.initialize_unfilled_to(record.len());
                let opened = self.records.open(record, room);
                buf.advance(opened.unwrap_or_default());
                opened
            } else if buf.filled().len() == before {
                let capacity = record.len().next_power_of_two().max(SMALLEST);
                self.opened.reserve(capacity);
                let opened = self.records.open(record, self.opened.room());
                self.opened.fill(opened.unwrap_or_default());
                self.give(buf);
                opened
            } else {
                break;
            };
            match opened {
                Ok(count) => self.ends = count == 0,
                Err(error) => {
                    self.distrust(Broken::Record(error));
                    break;
                }
            }
            rest = behind;
        }
        input.len() - rest.len()
    }

    /// Gives the reader of what was opened before.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let count = buf.remaining().min(self.opened.filled().len());
        buf.put_slice(&self.opened.filled()[..count]);
        self.opened.consume(count);
    }

    /// Seals the first bytes of `slices`, `total` in all, as far as there is room for them to wait, and returns how many.
    fn seal(&mut self, slices: &[IoSlice<'_>], total: usize) -> io::Result<usize> {
        let longest = if self.young > 0 {
            YOUNG_PLAINTEXT
        } else {
            PLAINTEXT
        };
        let records = (total / longest).saturating_add(2);
        let sealed = total.saturating_add(records.saturating_mul(OVERHEAD));
        let capacity = sealed.min(MOST_OUTPUT).next_power_of_two();
        self.output.reserve(capacity.clamp(SMALLEST, MOST_OUTPUT));
        let mut pieces = Pieces::new(slices);
        let mut gathered = [0; GATHERED];
        let mut taken = 0;
        while taken < total && self.output.room().len() > OVERHEAD {
            let rest = total - taken;
            let most = longest.min(self.output.room().len() - OVERHEAD);
            let piece = pieces.piece();
            let plaintext = if piece.len() >= GATHERED || piece.len() == rest {
                pieces.take(most)
            } else {
                let count = pieces.gather(&mut gathered[..GATHERED.min(most)]);
                &gathered[..count]
            };
            let sealed = seal(&mut self.records, plaintext, self.output.room());
            let len = sealed.map_err(|error| self.distrust(Broken::Record(error)))?;
            self.output.fill(len);
            taken += plaintext.len();
        }
        self.young = self.young.saturating_sub(taken);
        Ok(taken)
    }
}

/// Seals `plaintext` into the first bytes of `room`, its length before it, and returns how many.
fn seal(records: &mut Records, plaintext: &[u8], room: &mut [u8]) -> Result<usize, HandshakeError> {
    let (head, record) = room
        .split_first_chunk_mut::<HEAD_LEN>()
        .ok_or(HandshakeError::OutOfPlace)?;
    let len = records.seal(plaintext, record)?;
    // No record is longer than its head can say.
    *head = (len as u16).to_be_bytes();
    Ok(HEAD_LEN + len)
}

/// What is to be written, piece by piece.
struct Pieces<'a> {
    piece: &'a [u8],
    rest: &'a [IoSlice<'a>],
}

impl<'a> Pieces<'a> {
    fn new(slices: &'a [IoSlice<'a>]) -> Self {
        Self {
            piece: &[],
            rest: slices,
        }
    }

    /// The next piece that is not empty, if any is left.
    fn piece(&mut self) -> &'a [u8] {
        while let (true, Some((next, rest))) = (self.piece.is_empty(), self.rest.split_first()) {
            (self.piece, self.rest) = (next, rest);
        }
        self.piece
    }

    /// The first `most` bytes of the next piece, or all of it.
    fn take(&mut self, most: usize) -> &'a [u8] {
        let piece = self.piece();
        let (taken, rest) = piece.split_at(most.min(piece.len()));
        self.piece = rest;
        taken
    }

    /// Fills `out` as far as there is something left, and returns how far.
    fn gather(&mut self, out: &mut [u8]) -> usize {
        let mut count = 0;
        while count < out.len() && !self.piece().is_empty() {
            let taken = self.take(out.len() - count);
            out[count..count + taken.len()].copy_from_slice(taken);
            count += taken.len();
        }
        count
    }
}

impl<L: AsyncRead + Unpin> NoiseLink<L> {
    /// Takes in what the link has. At its end it returns false.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        before: usize,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        if self.input.allocated() == 0 {
            let mut glance = [const { MaybeUninit::uninit() }; GLANCE];
            let mut bytes = ReadBuf::uninit(&mut glance);
            let count = ready!(link::poll_read(&mut self.link, cx, &mut bytes))?;
            self.stirred |= count > 0;
            let used = self.open(bytes.filled(), before, buf);
            let rest = &bytes.filled()[used..];
            self.has_more = count == GLANCE;
            if !rest.is_empty() || self.has_more {
                self.input.reserve(2 * GLANCE);
                self.input.push(rest);
            }
            return Poll::Ready(Ok(count > 0));
        }
        let is_full = self.has_more || self.input.room().is_empty();
        let growth = if is_full { GROWTH } else { 1 };
        self.input
            .reserve((self.input.allocated() * growth).min(MOST_INPUT));
        let mut room = ReadBuf::new(self.input.room());
        let count = ready!(link::poll_read(&mut self.link, cx, &mut room))?;
        self.has_more = room.remaining() == 0;
        self.stirred |= count > 0;
        self.input.fill(count);
        Poll::Ready(Ok(count > 0))
    }
}

impl<L: AsyncWrite + Unpin> NoiseLink<L> {
    /// Has the link take all that was sealed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let result = ready!(link::poll_write(&mut self.link, cx, [self.output.filled()]));
            let taken = result.inspect_err(|error| self.fail_writing(error))?;
            self.output.consume(taken);
        }
        Poll::Ready(Ok(()))
    }

    /// Seals the few bytes of `slices` into one record, of which only what the link does not take comes to lie in memory of its own.
    fn send_few(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut gathered = [0; GATHERED];
        let mut room = [0; GATHERED + OVERHEAD];
        let count = Pieces::new(slices).gather(&mut gathered);
        let sealed = seal(&mut self.records, &gathered[..count], &mut room);
        let len = sealed.map_err(|error| self.distrust(Broken::Record(error)))?;
        let mut record = &room[..len];
        while !record.is_empty() {
            match link::poll_write(&mut self.link, cx, [record]) {
                Poll::Ready(Ok(taken)) => record = &record[taken..],
                Poll::Ready(Err(error)) => {
                    self.fail_writing(&error);
                    return Err(error);
                }
                Poll::Pending => {
                    self.output
                        .reserve(record.len().next_power_of_two().max(SMALLEST));
                    self.output.push(record);
                    break;
                }
            }
        }
        Ok(())
    }

    fn fail_writing(&mut self, error: &io::Error) {
        self.unwritable = Some(Broken::Link(error.kind()));
    }

    fn check_writable(&self) -> io::Result<()> {
        self.unwritable.map_or(Ok(()), |broken| Err(broken.into()))
    }
}

impl<L: AsyncRead + Unpin> AsyncRead for NoiseLink<L> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        this.give(buf);
        for _ in 0..ROUNDS {
            if this.unreadable.is_none() {
                let mut input = mem::take(&mut this.input);
                let used = this.open(input.filled(), before, buf);
                input.consume(used);
                this.input = input;
            }
            // What was opened before the first record that could not be is the peer's.
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            if let Some(broken) = this.unreadable {
                return Poll::Ready(Err(broken.into()));
            }
            let result = ready!(this.poll_fill(cx, before, buf));
            let is_end =
                !result.inspect_err(|error| this.unreadable = Some(Broken::Link(error.kind())))?;
            if is_end && this.ends && this.input.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if is_end {
                return Poll::Ready(Err(this.distrust(Broken::Truncated)));
            }
        }
        // Nothing to be read came, but more may be there.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<L: AsyncWrite + Unpin> AsyncWrite for NoiseLink<L> {
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
        let this = self.get_mut();
        this.check_writable()?;
        if this.shut {
            return Poll::Ready(Err(Error::WriteAfterShutdown.into()));
        }
        let total = slices
            .iter()
            .fold(0usize, |sum, slice| sum.saturating_add(slice.len()));
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        ready!(this.poll_send(cx))?;
        if total <= GATHERED {
            this.send_few(cx, slices)?;
            return Poll::Ready(Ok(total));
        }
        let taken = this.seal(slices, total)?;
        if let Poll::Ready(Err(error)) = this.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_writable()?;
        ready!(this.poll_send(cx))?;
        let result = ready!(Pin::new(&mut this.link).poll_flush(cx));
        Poll::Ready(result.inspect_err(|error| this.fail_writing(error)))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_writable()?;
        ready!(this.poll_send(cx))?;
        if !this.shut {
            this.send_few(cx, &[])?;
            this.shut = true;
            ready!(this.poll_send(cx))?;
        }
        let result = ready!(Pin::new(&mut this.link).poll_shutdown(cx));
        Poll::Ready(result.inspect_err(|error| this.fail_writing(error)))
    }
}

/// Without keys and bytes.
impl<L> fmt::Debug for NoiseLink<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoiseLink")
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}
