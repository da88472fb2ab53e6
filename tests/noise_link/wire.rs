//! Links that are tampered with: an error, or the bytes that were written; never others, and never an end that is none.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use unbroken::{
    HandshakeError, NoiseLink,
    protocol::noise::{MAX_PLAINTEXT, Records, Suite, TAG_LEN},
};

use super::{
    found, pattern,
    pieces::{Pieces, Pipe},
    records,
};

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("it needs nothing")
        .block_on(future)
}

/// What a client puts on the wire, a record for each, and its end.
fn recorded(suite: Suite, plaintexts: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut client = records(suite).0;
    plaintexts
        .iter()
        .chain([&&b""[..]])
        .map(|plaintext| sealed(&mut client, plaintext))
        .collect()
}

fn sealed(records: &mut Records, plaintext: &[u8]) -> Vec<u8> {
    let mut record = vec![0; plaintext.len() + TAG_LEN];
    let len = records.seal(plaintext, &mut record).expect("it fits");
    [&(len as u16).to_be_bytes()[..], &record].concat()
}

/// What a server reads of a wire that ends, so much at a time, and how that ends.
fn read(suite: Suite, wire: &[u8], at_a_time: usize) -> (Vec<u8>, io::Result<()>) {
    let link = Pieces::new(&Pipe::ended(wire), &Pipe::default(), None);
    let mut link = NoiseLink::new(link, records(suite).1);
    block_on(async {
        let mut bytes = Vec::new();
        let mut some = vec![0; at_a_time];
        loop {
            match link.read(&mut some).await {
                Ok(0) => break (bytes, Ok(())),
                Ok(count) => bytes.extend(&some[..count]),
                Err(error) => {
                    let again = link.read(&mut some).await.expect_err("it is broken");
                    assert_eq!(again.kind(), error.kind());
                    assert_eq!(found(&again), found(&error));
                    link.write(b"x").await.expect_err("it is broken both ways");
                    link.flush().await.expect_err("it is broken both ways");
                    link.shutdown().await.expect_err("it is broken both ways");
                    break (bytes, Err(error));
                }
            }
        }
    })
}

/// The records, long enough together that a reader does not see all at once, and small enough to try everything.
const PLAINTEXTS: [&[u8]; 4] = [b"first", b"the second record", b"3", b"and one more"];

#[test]
fn what_was_sealed_is_read_however_much_at_a_time() {
    for suite in Suite::ALL {
        let wire = recorded(suite, &PLAINTEXTS).concat();
        for at_a_time in [1, 2, 3, 16, 17, 21, 1000] {
            let (bytes, end) = read(suite, &wire, at_a_time);
            assert_eq!(bytes, PLAINTEXTS.concat());
            end.expect("it ends in order");
        }
    }
}

#[test]
fn a_changed_bit_anywhere_is_an_error_and_never_another_byte() {
    for suite in Suite::ALL {
        let wire = recorded(suite, &PLAINTEXTS).concat();
        for at in 0..wire.len() {
            for bit in 0..8 {
                let mut changed = wire.clone();
                changed[at] ^= 1 << bit;
                for at_a_time in [4, 1000] {
                    let (bytes, end) = read(suite, &changed, at_a_time);
                    let error = end.expect_err("a change goes unnoticed");
                    assert!(PLAINTEXTS.concat().starts_with(&bytes), "byte {at}");
                    let expected = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
                    assert!(expected.contains(&error.kind()), "{error}");
                }
            }
        }
    }
}

#[test]
fn a_wire_cut_off_anywhere_does_not_end_in_order() {
    let wire = recorded(Suite::AesGcm, &PLAINTEXTS).concat();
    for at in 0..wire.len() {
        for at_a_time in [4, 1000] {
            let (bytes, end) = read(Suite::AesGcm, &wire[..at], at_a_time);
            assert!(PLAINTEXTS.concat().starts_with(&bytes));
            let error = end.expect_err("it looks like the end");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {at}");
        }
    }
}

#[test]
fn records_again_left_out_or_in_another_order_are_an_error() {
    let wire = recorded(Suite::AesGcm, &PLAINTEXTS);
    let mut others = Vec::new();
    for at in 0..wire.len() {
        let mut twice = wire.clone();
        twice.insert(at, wire[at].clone());
        let mut without = wire.clone();
        without.remove(at);
        others.extend([twice, without]);
        for other in 0..at {
            let mut swapped = wire.clone();
            swapped.swap(at, other);
            others.push(swapped);
        }
    }
    others.push([wire.clone(), wire].concat());
    for other in others {
        let (bytes, end) = read(Suite::AesGcm, &other.concat(), 1000);
        end.expect_err("it looks like the end");
        assert!(PLAINTEXTS.concat().starts_with(&bytes));
    }
}

#[test]
fn another_links_records_and_those_of_the_other_direction_do_not_open() {
    let (client, server) = records(Suite::AesGcm);
    for (mut from, suite) in [(client, Suite::ChaChaPoly), (server, Suite::AesGcm)] {
        let (bytes, end) = read(suite, &sealed(&mut from, b"hello"), 1000);
        let error = end.expect_err("a stranger's record opens");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(found(&error), Some(HandshakeError::Decrypt));
        assert!(bytes.is_empty());
    }
}

#[test]
fn a_record_too_short_for_its_tag_is_an_error_as_soon_as_it_is_announced() {
    for len in 0..16 {
        let good = sealed(&mut records(Suite::AesGcm).0, b"good");
        let wire = [&good[..], &[0, len]].concat();
        let (bytes, end) = read(Suite::AesGcm, &wire, 1000);
        assert_eq!(bytes, b"good");
        let error = end.expect_err("no record is so short");
        assert_eq!(
            found(&error),
            Some(HandshakeError::MessageLength(len.into()))
        );
    }
}

#[test]
fn the_longest_record_is_read_however_small_the_readers_buffers_are() {
    let plaintext = pattern(MAX_PLAINTEXT);
    for suite in Suite::ALL {
        let wire = recorded(suite, &[&plaintext, b"more", &plaintext]).concat();
        for at_a_time in [100, 65_519, 65_535, 200_000] {
            let (bytes, end) = read(suite, &wire, at_a_time);
            assert_eq!(bytes, [&plaintext[..], b"more", &plaintext].concat());
            end.expect("it ends in order");
        }
    }
}

#[test]
fn a_record_without_plaintext_is_no_end_if_another_follows() {
    let wire = recorded(Suite::AesGcm, &[b"", b"a", b"", b"", b"b"]);
    let (bytes, end) = read(Suite::AesGcm, &wire.concat(), 1000);
    assert_eq!(bytes, b"ab");
    end.expect("it ends in order");
    let whole = wire[..2].concat();
    for cut in 1..wire[1].len() {
        let (bytes, end) = read(Suite::AesGcm, &whole[..whole.len() - cut], 1000);
        assert!(bytes.is_empty());
        let error = end.expect_err("the end was taken back");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    let (bytes, end) = read(Suite::AesGcm, &whole, 1000);
    assert_eq!(bytes, b"a");
    end.expect_err("the end was taken back");
}

/// A link whose peer says again and again that it has nothing to say.
struct Chatter(Records);

impl AsyncRead for Chatter {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buf.put_slice(&sealed(&mut self.0, b""));
        Poll::Ready(Ok(()))
    }
}

#[test]
fn records_without_plaintext_and_without_end_let_other_tasks_run() {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (client, server) = records(Suite::AesGcm);
    let mut link = NoiseLink::new(Chatter(client), server);
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = woken.clone().into();
    let mut bytes = [0; 100];
    let mut buf = ReadBuf::new(&mut bytes);
    let result = Pin::new(&mut link).poll_read(&mut Context::from_waker(&waker), &mut buf);
    assert!(result.is_pending());
    assert!(woken.0.load(Ordering::Relaxed), "nobody comes again");
}
