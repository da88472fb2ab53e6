//! Which link opens a session and which resumes it, and what a client is told of one that is over: with whole handshakes, over links.

use unbroken::{
    CloseReason, RejectCode, ResumeError,
    protocol::{
        Handshake, Session,
        native::{Answer, ClientOpen, ClientProtection, ClientResume, Identity, SessionSecret},
    },
    reset,
};

use crate::{
    core_native::Native,
    core_pair::{ClientEnd, End, InFlight, Limits, Pair, ServerEnd, Side},
    core_scripted::{DEAD_AFTER, HANDSHAKE_TIMEOUT, LINGER, MS, RESUME_WINDOW, WINDOW},
};

/// A link of whoever speaks to the server beside the client.
const STRANGER: usize = 1 << 20;

fn pair() -> Pair<Native> {
    let limits = Limits {
        history: WINDOW,
        resume_window: RESUME_WINDOW,
    };
    Pair::new(&Native::new([WINDOW; 2]), limits, 300)
}

fn attached() -> Pair<Native> {
    let mut pair = pair();
    pair.dial();
    pair.pump(true);
    pair
}

/// Carries a handshake of a stranger's on, as far as it goes.
fn shake(pair: &mut Pair<Native>, link: usize, client: &mut impl Handshake) {
    loop {
        let said = client.transmit().to_vec();
        client.transmitted(said.len());
        for byte in &said {
            pair.server.receive(link, &mut [*byte], pair.now);
        }
        let answer = pair.server.transmit(link, usize::MAX, pair.now);
        if answer.is_empty() {
            return;
        }
        client.receive(&answer).expect("the server is right");
    }
}

/// Somebody asks to resume, on a link of his own.
fn ask(pair: &mut Pair<Native>, link: usize, identity: &Identity, attempt: u32) -> ClientResume {
    let Identity {
        id, secret, route, ..
    } = identity;
    pair.server.accept(link, pair.now);
    let clear = ClientProtection::None;
    let mut resume = ClientResume::new(*id, secret, *route, attempt, [0x77; 16], 0, clear);
    shake(pair, link, &mut resume);
    resume
}

fn confirm(pair: &mut Pair<Native>, link: usize, confirm: &[u8]) -> Vec<u8> {
    pair.server.receive(link, &mut confirm.to_vec(), pair.now);
    pair.server.transmit(link, usize::MAX, pair.now)
}

fn rejected(code: RejectCode) -> Vec<u8> {
    let [high, low] = code.code().to_be_bytes();
    vec![0x15, 0, 0, 6, high, low, 0, 0, 0, 0]
}

#[test]
fn the_first_proof_opens_a_session_once() {
    // The client's first link is lost with the CONFIRM in flight, which comes in late, before or after that of its resume.
    for late in [false, true] {
        let mut pair = pair();
        let first = pair.dial();
        for side in Side::BOTH {
            pair.send(side, first, usize::MAX);
            while pair.deliver(side.other(), first, usize::MAX) {}
        }
        pair.write(Side::Client, 5);
        while pair.send(Side::Client, first, usize::MAX) {}
        assert_eq!((pair.server.accepted(), pair.server.unproved.len()), (0, 1));
        pair.cut(first, InFlight::Late, &[]);
        if !late {
            while pair.deliver(Side::Server, first, usize::MAX) {}
            assert_eq!((pair.server.accepted(), pair.server.unproved.len()), (1, 0));
            assert_eq!(pair.read(Side::Server, 10), 5);
        }
        let second = pair.dial();
        for _ in 0..4 {
            for side in Side::BOTH {
                pair.send(side, second, usize::MAX);
                pair.deliver(side.other(), second, usize::MAX);
            }
        }
        assert_eq!((pair.server.accepted(), pair.server.unproved.len()), (1, 0));
        while pair.deliver(Side::Server, first, usize::MAX) {}
        if late {
            assert_eq!(pair.server.rejections, [RejectCode::Stale]);
        }
        pair.pump(true);
        assert!(pair.is_even() && pair.server.holds(second));
        assert_eq!((pair.server.accepted(), pair.server.sessions.len()), (1, 1));
        assert_eq!(pair.client.failed_attaches(), 0);
    }
}

#[test]
fn a_copied_open_opens_nothing() {
    let mut pair = attached();
    for count in 0..=72 + 28 {
        let copy = pair.inject(0, count, &[]);
        while pair.deliver(Side::Server, copy, usize::MAX) || pair.send(Side::Server, copy, 100) {}
    }
    assert_eq!(pair.server.accepted(), 1);
    // The proof of another session.
    assert!(
        pair.server
            .rejections
            .iter()
            .all(|code| *code == RejectCode::BadProof)
    );
    assert_eq!(pair.server.rejections.len(), 28 + 1);
}

#[test]
fn who_does_not_know_the_secret_is_told_no_more_than_that() {
    let mut pair = attached();
    let identity = pair.client.session().identity().clone();
    let thief = Identity {
        secret: SessionSecret::new([0; 32]),
        ..identity.clone()
    };
    // The server proves itself first, so a thief cannot even tell that its answer is right.
    pair.server.accept(STRANGER, pair.now);
    let clear = ClientProtection::None;
    let mut resume = ClientResume::new(thief.id, &thief.secret, 7, 9, [1; 16], 0, clear);
    let request = resume.transmit().to_vec();
    resume.transmitted(request.len());
    for byte in request {
        pair.server.receive(STRANGER, &mut [byte], pair.now);
    }
    let answer = pair.server.transmit(STRANGER, usize::MAX, pair.now);
    assert!(resume.receive(&answer).is_err() && resume.answer().is_none());
    let guess = [&[0x14, 0, 0, 40][..], &[0; 40]].concat();
    assert_eq!(
        confirm(&mut pair, STRANGER, &guess),
        rejected(RejectCode::BadProof)
    );

    // The right proof, one bit of it changed; and the right one for another attempt, and over other counts.
    for (link, bit) in (1..).zip([32, 8 * 11, 8 * 12, 8 * 43 + 7]) {
        let link = STRANGER + link;
        let resume = ask(&mut pair, link, &identity, 20);
        assert_eq!(resume.answer(), Some(Answer::Resumed { received: 0 }));
        let mut wrong = resume.confirm(0).expect("it was answered").to_vec();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            confirm(&mut pair, link, &wrong),
            rejected(RejectCode::BadProof)
        );
    }
    let other = ask(&mut pair, STRANGER + 9, &identity, 21)
        .confirm(0)
        .expect("answered");
    ask(&mut pair, STRANGER + 10, &identity, 22);
    let answer = confirm(&mut pair, STRANGER + 10, &other);
    assert_eq!(answer, rejected(RejectCode::BadProof));

    // Nothing of all that has disturbed the client, or taken a number.
    assert_eq!(pair.server.stats().resumes, 0);
    pair.write(Side::Client, 10);
    pair.pump(true);
    assert!(pair.is_even());
    pair.migrate().expect("nothing is under way");
    pair.pump(true);
    assert_eq!(pair.server.stats().resumes, 1);
    assert_eq!(pair.client.failed_attaches(), 0);
}

/// What the client claims in its proof cannot be: it is dropped without a word, and the session goes on.
#[test]
fn a_client_that_claims_more_than_was_sent_is_closed() {
    let mut pair = attached();
    let identity = pair.client.session().identity().clone();
    let resume = ask(&mut pair, STRANGER, &identity, 5);
    let impossible = resume.confirm(1).expect("it was answered");
    assert_eq!(confirm(&mut pair, STRANGER, &impossible), []);
    assert!(!pair.server.holds(STRANGER));
    assert_eq!(pair.server.attach_errors, [ResumeError::ReceivedTooMuch]);
    pair.write(Side::Client, 10);
    pair.pump(true);
    assert!(pair.is_even());
}

#[test]
fn sessions_that_never_were_are_unknown() {
    let mut pair = attached();
    let mut identity = pair.client.session().identity().clone();
    identity.id[15] ^= 1;
    let resume = ask(&mut pair, STRANGER, &identity, 1);
    let Some(Answer::Rejected(reject)) = resume.answer() else {
        panic!("{:?}", resume.answer());
    };
    assert_eq!(reject.code, RejectCode::Unknown);
}

#[test]
fn attempts_that_are_too_old_are_stale() {
    let mut pair = attached();
    for _ in 0..3 {
        pair.dial();
        pair.pump(true);
    }
    let identity = pair.client.session().identity().clone();
    for (link, attempt) in (STRANGER..).zip([0, 1, 3]) {
        let resume = ask(&mut pair, link, &identity, attempt);
        assert!(matches!(resume.answer(), Some(Answer::Rejected(_))));
        assert_eq!(pair.server.rejections.last(), Some(&RejectCode::Stale));
    }
    // Two at the same time: the newer is confirmed first.
    let older = ask(&mut pair, STRANGER + 10, &identity, 8);
    let newer = ask(&mut pair, STRANGER + 11, &identity, 9);
    let newer = newer.confirm(0).expect("it was answered");
    assert_eq!(confirm(&mut pair, STRANGER + 11, &newer)[0], 0x06, "ATTACH");
    let older = older.confirm(0).expect("it was answered");
    let answer = confirm(&mut pair, STRANGER + 10, &older);
    assert_eq!(answer, rejected(RejectCode::Stale));
    assert!(pair.server.holds(STRANGER + 11));
}

/// The last link of a session goes with the server's last word.
fn lose_the_last_word(mut end: impl FnMut(&mut Pair<Native>)) -> Pair<Native> {
    let mut pair = attached();
    pair.write(Side::Client, 10);
    pair.write(Side::Server, 20);
    pair.pump(false);
    end(&mut pair);
    let link = pair.links() - 1;
    for _ in 0..5 {
        if pair.server.closed().is_some() {
            break;
        }
        pair.send(Side::Client, link, usize::MAX);
        pair.deliver(Side::Server, link, usize::MAX);
        if pair.server.closed().is_none() {
            pair.send(Side::Server, link, usize::MAX);
            pair.deliver(Side::Client, link, usize::MAX);
        }
    }
    assert!(pair.server.closed().is_some() && pair.client.closed().is_none());
    pair.cut(link, InFlight::Lost, &[]);
    pair.pump(false);
    pair
}

/// The client comes for the last word, and is told it from what is remembered.
#[test]
fn a_client_that_missed_the_last_word_is_told() {
    type EndIt = fn(&mut Pair<Native>);
    let cases: [(EndIt, CloseReason, CloseReason); 3] = [
        (
            |pair| {
                for side in Side::BOTH {
                    pair.shut_write(side);
                }
            },
            CloseReason::Finished,
            CloseReason::Finished,
        ),
        (
            |pair| {
                pair.server
                    .session()
                    .expect("it is open")
                    .reset(5, pair.now)
            },
            CloseReason::LocalReset(5),
            CloseReason::Reset(5),
        ),
        (
            |pair| pair.client.session().reset(6, pair.now),
            CloseReason::Reset(6),
            CloseReason::LocalReset(6),
        ),
    ];
    for (end, server, client) in cases {
        // Before and after the server has given up its link.
        for waits in [false, true] {
            let mut pair = lose_the_last_word(end);
            assert_eq!(pair.server.closed(), Some(server));
            if waits {
                pair.pass(HANDSHAKE_TIMEOUT);
                assert_eq!(pair.server.ended.len(), 1);
            }
            let identity = pair.client.session().identity().clone();
            pair.dial();
            pair.pump(true);
            assert_eq!(pair.client.closed(), Some(client));
            assert_eq!((pair.server.told, pair.client.failed_attaches()), (1, 0));
            // What had come in is still there, and it is an end where there was one.
            assert_eq!(pair.progress(Side::Client), (20, 20));
            assert_eq!(pair.client.is_read_ended(), client == CloseReason::Finished);
            assert_eq!(pair.client.is_shut_down(), client == CloseReason::Finished);

            // No older attempt hears of it any more, and a newer one does again.
            for (link, attempt) in (STRANGER..).zip([0, 1]) {
                let resume = ask(&mut pair, link, &identity, attempt);
                assert!(matches!(resume.answer(), Some(Answer::Rejected(_))));
                assert_eq!(pair.server.rejections.last(), Some(&RejectCode::Stale));
            }
            let resume = ask(&mut pair, STRANGER + 5, &identity, 2);
            let right = resume.confirm(0).expect("it was answered");
            let told = confirm(&mut pair, STRANGER + 5, &right);
            assert_eq!((told.len(), told[0], told[28]), (28 + 8, 0x06, 0x03));
            // Nor does anybody who does not prove himself.
            let mut wrong = ask(&mut pair, STRANGER + 6, &identity, 3)
                .confirm(0)
                .expect("it was answered");
            wrong[40] ^= 1;
            let told = confirm(&mut pair, STRANGER + 6, &wrong);
            assert_eq!(told, rejected(RejectCode::BadProof));
        }
    }
}

#[test]
fn a_client_that_comes_too_late_is_told_that_it_expired() {
    for half_open in [false, true] {
        let mut pair = attached();
        pair.write(Side::Server, 20);
        pair.pump(false);
        let unaware: &[Side] = if half_open { &Side::BOTH } else { &[] };
        pair.cut(0, InFlight::Lost, unaware);
        pair.pump(false);
        if half_open {
            pair.pass(DEAD_AFTER);
        }
        // Only the server's clock has gone so far.
        let late = pair.now + RESUME_WINDOW;
        pair.server.handle_timeout(late);
        assert_eq!(pair.server.closed(), Some(CloseReason::Expired));
        pair.dial();
        pair.pump(true);
        assert_eq!(pair.server.rejections, [RejectCode::Expired]);
        assert_eq!(pair.client.closed(), Some(CloseReason::Expired));
        assert_eq!(pair.progress(Side::Client), (20, 20));
        assert!(!pair.client.is_read_ended());
    }
}

/// A server whose transport was dropped breaks off what the client leaves open, and a client that was away then is told so.
#[test]
fn a_client_that_was_away_when_the_server_broke_off_is_told() {
    let mut pair = attached();
    pair.cut(0, InFlight::Lost, &[]);
    pair.pump(true);
    let now = pair.now;
    pair.server
        .session()
        .expect("it is open")
        .drop_transport(now);
    pair.pass(LINGER - MS);
    assert_eq!(pair.server.closed(), None);
    pair.pass(MS);
    assert_eq!(pair.server.closed(), Some(CloseReason::Expired));
    pair.dial();
    pair.pump(true);
    let reason = CloseReason::Reset(reset::LINGER);
    assert_eq!(pair.client.closed(), Some(reason));
}

#[test]
fn an_open_that_never_ends_is_none() {
    let mut pair = attached();
    let mut open = ClientOpen::new(64, ClientProtection::None);
    pair.server.accept(STRANGER, pair.now);
    shake(&mut pair, STRANGER, &mut open);
    assert!(open.opened().is_some());
    assert_eq!((pair.server.unproved.len(), pair.server.accepted()), (1, 1));
    pair.server.link_failed(STRANGER, pair.now);
    assert_eq!((pair.server.sessions.len(), pair.server.accepted()), (1, 1));
    assert!(pair.client.is_open());
}
