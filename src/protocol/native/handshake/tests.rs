use std::time::Duration;

use super::{
    super::{
        ClientProtection, Id, Nonce, Opened, ServerProtection, SessionSecret,
        frame::{Frame, OPEN, OPENED, REJECT, RESUME, RESUMED, Reject},
        message::{CONFIRM_LEN, Confirm},
        prelude::{MAGIC, security, suite},
        proof::{Attempt, Claim, NO_HANDSHAKE_HASH},
    },
    *,
};
use crate::{
    error::{HandshakeError, RejectCode},
    protocol::handshake::Handshake,
};

const ID: Id = [0x1d; 16];
const CLIENT_NONCE: Nonce = [0xc1; 16];
const SERVER_NONCE: Nonce = [0x5e; 16];
const RESUME_HELLO: Hello = Hello::Resume {
    id: ID,
    attempt: 3,
    nonce: CLIENT_NONCE,
    received: 1000,
};
const BUSY: Reject = Reject {
    code: RejectCode::Busy,
    retry_after: Duration::from_millis(1500),
};

fn secret() -> SessionSecret {
    SessionSecret::new([0x5c; 32])
}

fn opened() -> Opened {
    Opened {
        id: ID,
        secret: secret(),
        route: 0x0102_0304,
        window: 1 << 20,
        resume_window: Duration::from_secs(300),
    }
}

fn client_resume() -> ClientResume {
    ClientResume::new(
        ID,
        &secret(),
        7,
        3,
        CLIENT_NONCE,
        1000,
        ClientProtection::None,
    )
}

/// Everything a machine transmits now.
fn said(machine: &mut impl Handshake) -> Vec<u8> {
    let said = machine.transmit().to_vec();
    machine.transmitted(said.len());
    assert!(machine.transmit().is_empty());
    said
}

/// Hands `bytes` over in pieces of `most`, as far as the machine wants them; gives what is left of them.
fn feed<'a>(
    machine: &mut impl Handshake,
    mut bytes: &'a [u8],
    most: usize,
) -> Result<&'a [u8], HandshakeError> {
    loop {
        let (piece, rest) = bytes.split_at(most.min(machine.wanted()).min(bytes.len()));
        if piece.is_empty() {
            return Ok(bytes);
        }
        machine.receive(piece)?;
        bytes = rest;
    }
}

/// [`feed`] for a server on a link without a security, which lets everybody go on.
fn feed_server<'a>(
    server: &mut ServerHandshake,
    bytes: &'a [u8],
    most: usize,
) -> Result<&'a [u8], HandshakeError> {
    let rest = feed(server, bytes, most)?;
    if server.prelude().is_none() {
        return Ok(rest);
    }
    assert_eq!(server.wanted(), 0, "it waits for a decision");
    server.proceed(ServerProtection::None)?;
    feed(server, rest, most)
}

/// A server that has taken in `first`, all of it.
fn server(first: &[u8]) -> ServerHandshake {
    let mut server = ServerHandshake::new();
    assert_eq!(feed_server(&mut server, first, usize::MAX), Ok(&[][..]));
    server
}

/// A server that waits for the CONFIRM of an open, and the client that has it.
fn opening() -> (ServerHandshake, ClientOpen) {
    let mut client = ClientOpen::new(5, ClientProtection::None);
    let mut server = server(&said(&mut client));
    server.open(&opened());
    feed(&mut client, &said(&mut server), usize::MAX).expect("the server does right");
    (server, client)
}

/// A server that waits for the CONFIRM of a resume, and the client that has it.
fn resuming(nonce: Nonce) -> (ServerHandshake, ClientResume) {
    let mut client = client_resume();
    let mut server = server(&said(&mut client));
    server.resume(&secret(), nonce, 2000);
    feed(&mut client, &said(&mut server), usize::MAX).expect("the server does right");
    (server, client)
}

#[test]
fn an_open_comes_about_however_its_bytes_are_cut_and_takes_no_more_of_them() {
    for most in 1..=80 {
        let mut client = ClientOpen::new(1 << 16, ClientProtection::None);
        let mut server = ServerHandshake::new();
        let first = said(&mut client);
        assert_eq!(first.len(), 28);
        assert_eq!(feed_server(&mut server, &first, most), Ok(&[][..]));
        assert_eq!(server.hello(), Some(Hello::Open { window: 1 << 16 }));
        assert_eq!(server.wanted(), 0, "it waits for a decision");

        server.open(&opened());
        assert_eq!(server.hello(), None, "it is answered");
        let second = said(&mut server);
        assert_eq!(feed(&mut client, &second, most), Ok(&[][..]));
        assert!(client.transmit().is_empty() && client.wanted() == 0);
        let got = client.opened().expect("the server has named it");
        assert_eq!((got.id, got.secret.as_bytes()), (ID, secret().as_bytes()));
        assert_eq!((got.route, got.window), (0x0102_0304, 1 << 20));
        assert_eq!(got.resume_window, Duration::from_secs(300));
        assert_eq!(client.rejected(), None);

        let mut third = client.confirm().expect("it is opened").to_vec();
        third.extend(b"follows");
        assert_eq!(server.proved(), None);
        assert_eq!(feed(&mut server, &third, most), Ok(&b"follows"[..]));
        assert_eq!(server.proved(), Some(0));
    }
}

#[test]
fn a_resume_comes_about_however_its_bytes_are_cut_and_takes_no_more_of_them() {
    for most in 1..=80 {
        let mut client = client_resume();
        let mut server = ServerHandshake::new();
        let first = said(&mut client);
        assert_eq!((first.len(), &first[8..12]), (64, &[0, 0, 0, 7][..]));
        assert_eq!(feed_server(&mut server, &first, most), Ok(&[][..]));
        assert_eq!(server.hello(), Some(RESUME_HELLO));

        server.resume(&secret(), SERVER_NONCE, 2000);
        let second = said(&mut server);
        assert_eq!(client.confirm(1500), None, "there is no answer yet");
        assert_eq!(feed(&mut client, &second, most), Ok(&[][..]));
        let expected = Answer::Resumed { received: 2000 };
        assert_eq!(client.answer(), Some(expected));
        assert!(client.transmit().is_empty() && client.wanted() == 0);

        let mut third = client.confirm(1500).expect("it goes on").to_vec();
        third.extend(b"follows");
        assert_eq!(feed(&mut server, &third, most), Ok(&b"follows"[..]));
        assert_eq!(server.proved(), Some(1500));
        assert!(server.transmit().is_empty() && server.wanted() == 0);
    }
}

#[test]
fn no_changed_byte_of_a_resume_request_gets_past_the_client() {
    let first = said(&mut client_resume());
    for at in PRELUDE_LEN + HEADER_LEN..first.len() {
        let mut client = client_resume();
        said(&mut client);
        let mut changed = first.clone();
        changed[at] ^= 1;
        let mut server = server(&changed);
        assert_ne!(server.hello(), Some(RESUME_HELLO), "byte {at}");
        server.resume(&secret(), SERVER_NONCE, 2000);
        let second = said(&mut server);
        let fed = feed(&mut client, &second, 7);
        assert_eq!(fed, Err(HandshakeError::Proof), "byte {at}");
        assert_eq!((client.answer(), client.confirm(0)), (None, None));
    }
}

#[test]
fn no_changed_byte_of_the_answer_gets_past_the_client() {
    let mut server = server(&said(&mut client_resume()));
    server.resume(&secret(), SERVER_NONCE, 2000);
    let second = said(&mut server);
    for at in 0..second.len() {
        for bit in 0..8 {
            let mut client = client_resume();
            said(&mut client);
            let mut changed = second.clone();
            changed[at] ^= 1 << bit;
            let error = feed(&mut client, &changed, usize::MAX).expect_err("it is changed");
            if at >= HEADER_LEN {
                assert_eq!(error, HandshakeError::Proof, "byte {at}");
            } else {
                assert!(matches!(error, HandshakeError::Frame(_)), "byte {at}");
            }
            assert_eq!((client.answer(), client.confirm(0)), (None, None));
        }
    }
}

#[test]
fn no_changed_byte_of_a_confirm_proves_anything() {
    let prove_with = |machines: &dyn Fn() -> (ServerHandshake, [u8; CONFIRM_LEN])| {
        for at in 0..CONFIRM_LEN {
            for bit in 0..8 {
                let (mut server, mut confirm) = machines();
                confirm[at] ^= 1 << bit;
                let error = feed(&mut server, &confirm, 5).expect_err("it is changed");
                if at >= HEADER_LEN {
                    assert_eq!(error, HandshakeError::Proof, "byte {at}");
                } else {
                    assert!(matches!(error, HandshakeError::Frame(_)), "byte {at}");
                }
                assert_eq!((server.proved(), server.wanted()), (None, 0));
            }
        }
    };
    prove_with(&|| {
        let (server, client) = opening();
        (server, client.confirm().expect("it is opened"))
    });
    prove_with(&|| {
        let (server, client) = resuming(SERVER_NONCE);
        (server, client.confirm(1500).expect("it goes on"))
    });
}

#[test]
fn a_confirm_proves_nothing_to_another_nonce_another_secret_or_another_step() {
    let (_, client) = resuming([1; 16]);
    let replayed = client.confirm(1500).expect("it goes on");
    let (_, client) = opening();
    let of_the_open = client.confirm().expect("it is opened");
    for confirm in [replayed, of_the_open] {
        let (mut server, _) = resuming([2; 16]);
        assert_eq!(server.receive(&confirm), Err(HandshakeError::Proof));
    }
    let (mut server, _) = opening();
    assert_eq!(server.receive(&replayed), Err(HandshakeError::Proof));

    let mut server = self::server(&said(&mut client_resume()));
    server.resume(&SessionSecret::new([0; 32]), [1; 16], 2000);
    said(&mut server);
    assert_eq!(server.receive(&replayed), Err(HandshakeError::Proof));
}

#[test]
fn a_server_without_the_secret_resumes_nothing() {
    let mut client = client_resume();
    let mut server = server(&said(&mut client));
    server.resume(&SessionSecret::new([0; 32]), SERVER_NONCE, 2000);
    assert_eq!(
        feed(&mut client, &said(&mut server), usize::MAX),
        Err(HandshakeError::Proof)
    );
}

#[test]
fn an_open_is_confirmed_with_a_count_of_0_alone() {
    let (mut server, client) = opening();
    let opened = client.opened().expect("it is opened");
    let proof = Attempt::opening(opened.id).prove(
        Claim::Confirm {
            client: 0,
            server: 0,
            switching: 1,
        },
        &NO_HANDSHAKE_HASH,
        &opened.secret,
    );
    let confirm = Confirm { received: 1, proof };
    assert_eq!(
        server.receive(&confirm.encode()),
        Err(HandshakeError::Proof)
    );
}

#[test]
fn a_client_takes_a_rejection_however_it_is_cut() {
    for most in 1..=20 {
        let mut open = ClientOpen::new(5, ClientProtection::None);
        let mut server = server(&said(&mut open));
        server.reject(BUSY.code, BUSY.retry_after);
        let rejection = said(&mut server);
        assert_eq!(rejection, *b"\x15\0\0\x06\0\x05\0\0\x05\xdc");
        assert_eq!(feed(&mut open, &rejection, most), Ok(&[][..]));
        assert_eq!((open.rejected(), open.wanted()), (Some(BUSY), 0));
        assert!(open.opened().is_none() && open.confirm().is_none());

        let mut resume = client_resume();
        said(&mut resume);
        assert_eq!(feed(&mut resume, &rejection, most), Ok(&[][..]));
        assert_eq!(resume.answer(), Some(Answer::Rejected(BUSY)));
        assert_eq!((resume.confirm(0), resume.wanted()), (None, 0));
    }
}

#[test]
fn what_comes_behind_a_rejection_changes_nothing() {
    let bytes = [Frame::Reject(BUSY).encode().as_bytes(), b"more"].concat();
    for most in [1, bytes.len()] {
        let mut client = client_resume();
        said(&mut client);
        feed(&mut client, &bytes, most).expect("a rejection");
        assert_eq!(client.answer(), Some(Answer::Rejected(BUSY)));
    }
}

#[test]
fn a_client_that_hears_something_else_knows_it_from_the_header() {
    let rows: [(&[u8; 4], ProtocolError); 6] = [
        (b"HTTP", ProtocolError::UnknownFrame(b'H')),
        (b"\x13\0\0\x38", ProtocolError::OutOfPlace(RESUMED)),
        (b"\x00\0\0\x01", ProtocolError::OutOfPlace(0)),
        (b"\x81\0\0\x00", ProtocolError::UnknownFrame(0x81)),
        (
            b"\x11\0\0\x41",
            ProtocolError::Length {
                frame: OPENED,
                len: 0x41,
            },
        ),
        (
            b"\x15\0\0\x05",
            ProtocolError::Length {
                frame: REJECT,
                len: 5,
            },
        ),
    ];
    for (header, expected) in rows {
        let mut client = ClientOpen::new(5, ClientProtection::None);
        said(&mut client);
        assert_eq!(
            feed(&mut client, header, 1),
            Err(HandshakeError::Frame(expected))
        );
    }
}

#[test]
fn a_server_knows_a_stranger_from_the_first_byte_that_is_wrong() {
    for good in 0..4 {
        let mut server = ServerHandshake::new();
        assert_eq!(server.receive(&MAGIC[..good]), Ok(()));
        assert_eq!(server.receive(b"x"), Err(HandshakeError::Magic));
        server.reject(RejectCode::Busy, Duration::ZERO);
        assert!(server.transmit().is_empty(), "no stranger is told anything");
    }
}

#[test]
fn the_first_frame_is_the_one_the_prelude_announced_and_has_its_length() {
    let open = said(&mut ClientOpen::new(5, ClientProtection::None));
    let resume = said(&mut client_resume());
    let of = |prelude: &[u8], frame: &[u8]| {
        let bytes = [&prelude[..PRELUDE_LEN], frame].concat();
        feed_server(&mut ServerHandshake::new(), &bytes, 1).err()
    };
    let kind = Some(HandshakeError::Kind);
    assert_eq!(of(&open, &resume[PRELUDE_LEN..]), kind);
    assert_eq!(of(&resume, &open[PRELUDE_LEN..]), kind);
    let wrong = |error: ProtocolError| Some(HandshakeError::Frame(error));
    let length = |frame, len| ProtocolError::Length { frame, len };
    assert_eq!(of(&open, b"\x10\0\0\x09"), wrong(length(OPEN, 9)));
    assert_eq!(of(&resume, b"\x12\0\x01\x2c"), wrong(length(RESUME, 300)));
    for frame in [0x00, 0x11, 0x14, 0x15] {
        let misplaced = ProtocolError::OutOfPlace(frame);
        assert_eq!(of(&open, &[frame, 0, 0, 8]), wrong(misplaced));
    }
    for frame in [0x07, 0x16, 0x80] {
        let unknown = ProtocolError::UnknownFrame(frame);
        assert_eq!(of(&resume, &[frame, 0, 0, 8]), wrong(unknown));
    }
}

#[test]
fn what_is_not_spoken_shows_right_after_the_prelude_and_is_rejected_in_the_clear() {
    let prelude = said(&mut ClientOpen::new(5, ClientProtection::None))[..PRELUDE_LEN].to_vec();
    let refused = RejectCode::SecurityNotOffered;
    // Which byte is set to what; the code that it earns; how the REJECT is announced.
    let rows: [(usize, u8, RejectCode, &[u8]); 10] = [
        (4, 2, RejectCode::Version, b""),
        (4, 0, RejectCode::Version, b""),
        (5, 2, RejectCode::Version, b""),
        (12, 1, RejectCode::Version, b""),
        (15, 1, RejectCode::Version, b""),
        (6, security::NN, refused, b"\0\0"),
        (6, security::IK, refused, b"\0\0"),
        (6, 0xff, refused, b"\0\0"),
        (7, suite::AES_GCM_SHA256, refused, b""),
        (7, 0xff, refused, b""),
    ];
    for (at, value, code, announced) in rows {
        for (most, behind) in [(1, 0), (7, 3), (80, 12)] {
            let mut bytes = prelude.clone();
            bytes[at] = value;
            bytes.resize(PRELUDE_LEN + behind, 0xab);
            let mut server = ServerHandshake::new();
            let fed = feed_server(&mut server, &bytes, most);
            if code == refused {
                assert_eq!(fed, Err(HandshakeError::Security), "byte {at}");
                assert_eq!(server.hello(), None);
            } else {
                assert!(fed.is_ok(), "byte {at}");
                assert_eq!(server.hello(), Some(Hello::Unacceptable(code)), "byte {at}");
            }
            assert_eq!(server.wanted(), 0);
            server.open(&opened());
            server.resume(&secret(), SERVER_NONCE, 0);
            assert!(server.transmit().is_empty(), "there is nothing to open");
            server.reject(code, Duration::ZERO);
            let expected = Frame::Reject(Reject {
                code,
                retry_after: Duration::ZERO,
            });
            assert_eq!(
                said(&mut server),
                [announced, expected.encode().as_bytes()].concat()
            );
        }
    }
}

#[test]
fn another_version_that_asks_for_a_security_has_its_rejection_announced_too() {
    let mut prelude = said(&mut ClientOpen::new(5, ClientProtection::None))[..PRELUDE_LEN].to_vec();
    (prelude[4], prelude[6]) = (2, security::NK);
    let mut server = server(&prelude);
    server.reject(RejectCode::Version, Duration::ZERO);
    assert_eq!(said(&mut server)[..6], *b"\0\0\x15\0\0\x06");
}

#[test]
fn a_server_can_reject_whenever_the_peer_reads_and_once() {
    let rejection = Frame::Reject(BUSY).encode().as_bytes().to_vec();
    let first = said(&mut client_resume());
    let confirm = resuming(SERVER_NONCE).1.confirm(0).expect("it goes on");
    let reject = |server: &mut ServerHandshake| {
        server.reject(BUSY.code, BUSY.retry_after);
        let told = said(server);
        server.reject(BUSY.code, BUSY.retry_after);
        server.end(0, 0, 0, 0);
        assert!(server.transmit().is_empty(), "once");
        assert_eq!((server.wanted(), server.proved()), (0, None));
        told
    };

    let mut early = ServerHandshake::new();
    early.receive(&first[..15]).expect("a prelude so far");
    early.reject(BUSY.code, BUSY.retry_after);
    assert!(early.transmit().is_empty(), "the prelude is not in");

    assert_eq!(reject(&mut server(&first[..16])), rejection, "no frame yet");
    assert_eq!(reject(&mut server(&first)), rejection, "the frame is in");
    let (mut waiting, _) = resuming(SERVER_NONCE);
    assert_eq!(reject(&mut waiting), rejection, "no CONFIRM yet");
    let (mut proved, _) = resuming(SERVER_NONCE);
    proved.receive(&confirm).expect("it proves");
    assert_eq!(reject(&mut proved), rejection, "too late to honour it");
    let (mut failed, _) = resuming([0; 16]);
    assert_eq!(failed.receive(&confirm), Err(HandshakeError::Proof));
    assert_eq!(reject(&mut failed), rejection, "the proof is wrong");

    let mut speaking = server(&first);
    speaking.resume(&secret(), SERVER_NONCE, 2000);
    speaking.transmitted(1);
    speaking.reject(BUSY.code, BUSY.retry_after);
    assert_eq!(said(&mut speaking).len(), 59, "RESUMED is said to its end");
}

#[test]
fn a_proved_client_is_told_how_its_session_ended() {
    let (mut server, client) = resuming(SERVER_NONCE);
    server.end(1, 2, 3, 4);
    assert!(server.transmit().is_empty(), "it has proved nothing");
    let confirm = client.confirm(1500).expect("it goes on");
    server.receive(&confirm).expect("it proves");
    server.end(1, 2, 3, 4);
    let attach = Frame::Attach {
        from: 1,
        received: 2,
        limit: 3,
    };
    let reset = Frame::Reset { code: 4 };
    assert_eq!(
        said(&mut server),
        [attach.encode().as_bytes(), reset.encode().as_bytes()].concat()
    );
    assert_eq!((server.wanted(), server.proved()), (0, None));
}

#[test]
fn bytes_that_nobody_waits_for_are_out_of_place() {
    let out_of_place = Err(HandshakeError::OutOfPlace);
    let mut client = client_resume();
    assert_eq!(client.receive(b"x"), out_of_place, "it speaks first");
    let mut server = server(&said(&mut client));
    assert_eq!(server.receive(b"x"), out_of_place, "it is to answer");
    let (mut server, _) = resuming(SERVER_NONCE);
    assert_eq!(server.receive(&[0; CONFIRM_LEN + 1]), out_of_place);
}

#[test]
fn no_secret_shows_in_a_machine_that_is_printed() {
    let (server, client) = opening();
    let (resumed, resuming) = resuming(SERVER_NONCE);
    let printed = format!("{server:?} {client:?} {resumed:?} {resuming:?}");
    assert!(
        !printed.contains(&format!("{}, {}", 0x5c, 0x5c)),
        "{printed}"
    );
}

#[cfg(feature = "noise")]
mod protected;
