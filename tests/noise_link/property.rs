//! Whatever is written, at whatever size, comes out.

use std::{
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use unbroken::{NoiseLink, protocol::noise::Suite};

use super::{
    pattern,
    pieces::{Pieces, Pipe},
    records,
};

/// One end, and what it has still to do.
struct End {
    link: NoiseLink<Pieces>,
    to_write: Vec<u8>,
    written: usize,
    to_read: Vec<u8>,
    read: usize,
    is_shut: bool,
    is_ended: bool,
}

impl End {
    fn new(link: NoiseLink<Pieces>, to_write: &[u8], to_read: &[u8]) -> Self {
        Self {
            link,
            to_write: to_write.to_vec(),
            written: 0,
            to_read: to_read.to_vec(),
            read: 0,
            is_shut: false,
            is_ended: false,
        }
    }

    fn step(&mut self, random: &mut StdRng, cx: &mut Context<'_>) {
        match random.random_range(0..8) {
            0..3 => self.write(random, cx),
            3..6 => self.read(random, cx),
            6 => {
                if let Poll::Ready(result) = Pin::new(&mut self.link).poll_flush(cx) {
                    result.expect("the link goes on");
                }
            }
            _ => self.link.release(),
        }
    }

    fn write(&mut self, random: &mut StdRng, cx: &mut Context<'_>) {
        let rest = &self.to_write[self.written..];
        if rest.is_empty() {
            if let Poll::Ready(result) = Pin::new(&mut self.link).poll_shutdown(cx) {
                result.expect("the link goes on");
                self.is_shut = true;
            }
            return;
        }
        let mut rest = &rest[..size(random).min(rest.len())];
        let offered = rest.len();
        let result = if random.random() {
            let mut slices = Vec::new();
            while !rest.is_empty() {
                let (slice, behind) = rest.split_at(size(random).min(rest.len()));
                slices.push(IoSlice::new(slice));
                rest = behind;
            }
            Pin::new(&mut self.link).poll_write_vectored(cx, &slices)
        } else {
            Pin::new(&mut self.link).poll_write(cx, rest)
        };
        if let Poll::Ready(result) = result {
            let count = result.expect("the link goes on");
            assert!(count <= offered);
            assert!(count > 0 || offered == 0);
            self.written += count;
        }
    }

    fn read(&mut self, random: &mut StdRng, cx: &mut Context<'_>) {
        let mut bytes = vec![0xee; size(random) + 3];
        let mut buf = ReadBuf::new(&mut bytes);
        buf.put_slice(b"abc");
        let had_room = buf.remaining() > 0;
        let result = Pin::new(&mut self.link).poll_read(cx, &mut buf);
        let (before, given) = buf.filled().split_at(3);
        assert_eq!(before, b"abc");
        match result {
            Poll::Pending => assert!(given.is_empty()),
            Poll::Ready(result) => {
                result.expect("the link goes on");
                assert_eq!(given, &self.to_read[self.read..self.read + given.len()]);
                self.read += given.len();
                self.is_ended |= given.is_empty() && had_room;
            }
        }
    }

    fn is_done(&self) -> bool {
        if self.is_ended {
            assert_eq!(self.read, self.to_read.len(), "it ended early");
        }
        self.is_shut && self.is_ended
    }
}

/// Those around the limits more often than they would be.
fn size(random: &mut StdRng) -> usize {
    match random.random_range(0..8) {
        0 => 0,
        1..4 => random.random_range(1..200),
        4 => random.random_range(1000..1050),
        5 => random.random_range(16_350..16_420),
        6 => random.random_range(1..70_000),
        _ => random.random_range(60_000..200_000),
    }
}

proptest! {
    #[test]
    fn exactly_what_is_written_comes_out_both_ways_at_once(
        seed in any::<u64>(),
        lens in (0usize..600_000, 0usize..600_000),
        suite in prop_oneof![Just(Suite::AesGcm), Just(Suite::ChaChaPoly)],
        in_pieces in any::<bool>(),
    ) {
        let mut random = StdRng::seed_from_u64(seed);
        let (forth, back) = (Pipe::default(), Pipe::default());
        let bytes = pattern(lens.0.max(lens.1));
        let (there, here) = (&bytes[..lens.0], &bytes[..lens.1]);
        let (client, server) = records(suite);
        let seeds = [random.random(), random.random()].map(|seed| in_pieces.then_some(seed));
        let mut ends = [
            End::new(NoiseLink::new(Pieces::new(&back, &forth, seeds[0]), client), there, here),
            End::new(NoiseLink::new(Pieces::new(&forth, &back, seeds[1]), server), here, there),
        ];
        let mut cx = Context::from_waker(Waker::noop());
        let mut steps = 0;
        while !ends.iter().all(End::is_done) {
            let end = &mut ends[random.random_range(0..2)];
            end.step(&mut random, &mut cx);
            steps += 1;
            prop_assert!(steps < 1_000_000, "nothing moves any more");
        }
        prop_assert!(forth.waiting().is_empty() && back.waiting().is_empty());
        for end in &mut ends {
            end.link.release();
            prop_assert_eq!(end.link.allocated(), 0);
        }
    }
}
