//! A short conversation, its link cut at every byte offset of every message, in each direction, and twice in a row at every
//! pair of offsets: it completes, once and in order, and so does its end where the protocol has one.

#[path = "../support/core_carried.rs"]
mod core_carried;
#[path = "../support/core_native.rs"]
mod core_native;
#[path = "../support/core_native_server.rs"]
mod core_native_server;
#[path = "../support/core_pair.rs"]
mod core_pair;
#[path = "../support/core_shield.rs"]
mod core_shield;
#[path = "../support/core_snet.rs"]
mod core_snet;
#[cfg(feature = "noise")]
mod noise;

use std::time::Duration;

use core_native::Native;
use core_pair::{ClientEnd, End, InFlight, Limits, Pair, Protocol, ServerEnd, Side};
use core_snet::Snet;
use unbroken::{CloseReason, protocol::snet::CipherChoice};

const LIMITS: Limits = Limits {
    history: 64,
    resume_window: Duration::from_secs(300),
};
/// Bytes a direction of a link holds: half the history, as socket buffers are bounded.
const CAPACITY: usize = 32;

/// The conversation. Both ends speak at once, then each answers what it has read of the other in full, and ends what it says.
const FIRST: [usize; 2] = [5, 6];
const ANSWER: [usize; 2] = [3, 4];
/// How long a turn takes.
const TURN: Duration = Duration::from_millis(5);

/// Where a link is cut: when `side` has read `offset` bytes of it, handshake included.
#[derive(Clone, Copy, Debug)]
struct Cut {
    side: Side,
    offset: usize,
}

/// How a conversation runs.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// Bytes each end puts on the link in its turn.
    send: usize,
    /// Bytes each end reads from it in its turn.
    deliver: usize,
    in_flight: InFlight,
    /// Whether the server learns of a cut only by the resume.
    half_open: bool,
    /// Whether what is late on an old link waits until the server has answered on the new one.
    held: bool,
    /// When the client resumes on a second link while it has the first.
    migrates: Option<Cut>,
}

/// What a conversation left behind: how many bytes of each link each side has read.
struct Outcome {
    delivered: Vec<[usize; 2]>,
    failed_opens: usize,
}

/// Runs the conversation to its end. `cuts[i]` strikes the i-th link, those that open the session included.
fn converse<P: Protocol>(protocol: &P, cuts: &[Cut], manner: Manner) -> Outcome {
    let mut pair = Pair::new(protocol, LIMITS, CAPACITY);
    let mut said = [0; 2];
    let mut failed_opens = 0;
    for _ in 0..10_000 {
        if pair.needs_link() {
            let resumes = pair.client.is_open();
            if pair.links() > 0 && !resumes {
                failed_opens += 1;
                assert_eq!(pair.server.accepted(), 0, "a session whose open failed");
            }
            pair.dial();
        }
        if let (1, Some(due)) = (pair.links(), manner.migrates)
            && pair.delivered(0, due.side) >= due.offset
        {
            pair.migrate();
        }
        let newest = pair.links() - 1;
        strike(&mut pair, cuts, manner);
        for side in Side::BOTH {
            speak(&mut pair, side, &mut said[side as usize]);
        }
        for link in 0..pair.links() {
            for side in Side::BOTH {
                pair.send(side, link, manner.send);
            }
        }
        let answered = pair.delivered(newest, Side::Client) >= pair.answered_after;
        for link in 0..pair.links() {
            if manner.held && link != newest && !answered {
                continue;
            }
            for side in Side::BOTH {
                let most = match cuts.get(link) {
                    Some(cut) if cut.side == side && !pair.is_cut(link) => {
                        cut.offset - pair.delivered(link, side)
                    }
                    _ => usize::MAX,
                };
                pair.deliver(side, link, most.min(manner.deliver));
                strike(&mut pair, cuts, manner);
                pair.read(side, 64);
                pair.check();
            }
        }
        let all = [FIRST[1] + ANSWER[1], FIRST[0] + ANSWER[0]];
        let complete = Side::BOTH.iter().all(|side| {
            let all = all[*side as usize] as u64;
            pair.progress(*side) == (all, all)
        });
        let closed = [pair.client.closed(), pair.server.closed()];
        if P::ENDS && closed.contains(&None) {
            // Long enough for what is put off to go out somewhere between all else.
            pair.pass(TURN);
        } else if complete {
            let reason = P::ENDS.then_some(CloseReason::Finished);
            assert_eq!(closed, [reason; 2]);
            assert_eq!(
                pair.server.accepted(),
                1,
                "sessions the application was given"
            );
            assert_eq!(pair.client.failed_attaches(), 0);
            assert_eq!(pair.server.failed_attaches(), 0);
            let delivered =
                (0..pair.links()).map(|link| Side::BOTH.map(|side| pair.delivered(link, side)));
            return Outcome {
                delivered: delivered.collect(),
                failed_opens,
            };
        }
    }
    panic!(
        "stuck; read of written: {:?}",
        Side::BOTH.map(|side| pair.progress(side))
    );
}

/// Cuts the links whose cut is due.
fn strike<P: Protocol>(pair: &mut Pair<P>, cuts: &[Cut], manner: Manner) {
    for (link, cut) in cuts.iter().enumerate().take(pair.links()) {
        if pair.delivered(link, cut.side) >= cut.offset {
            let unaware: &[Side] = if manner.half_open {
                &[Side::Server]
            } else {
                &[]
            };
            pair.cut(link, manner.in_flight, unaware);
        }
    }
}

/// The application of `side` says what it has to say by now.
fn speak<P: Protocol>(pair: &mut Pair<P>, side: Side, said: &mut usize) {
    let read = pair.progress(side).0 as usize;
    let mut due = FIRST[side as usize];
    if read >= FIRST[side.other() as usize] {
        due += ANSWER[side as usize];
    }
    if *said < due {
        *said += pair.write(side, due - *said);
    }
    if P::ENDS && *said == FIRST[side as usize] + ANSWER[side as usize] {
        pair.shut_write(side);
    }
}

/// Every place on the link that comes after `cuts`, the end of it included.
fn places<P: Protocol>(protocol: &P, cuts: &[Cut], manner: Manner) -> Vec<Cut> {
    let outcome = converse(protocol, cuts, manner);
    let Some(lengths) = outcome.delivered.get(cuts.len()) else {
        return Vec::new();
    };
    all_to(*lengths).collect()
}

fn all_to(lengths: [usize; 2]) -> impl Iterator<Item = Cut> {
    let to = move |side: Side| (0..=lengths[side as usize]).map(move |offset| Cut { side, offset });
    Side::BOTH.into_iter().flat_map(to)
}

/// Runs `check`, and says of which cuts it failed.
fn at<T>(cuts: &[Cut], manner: Manner, check: impl FnOnce() -> T) -> T {
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
    checked.unwrap_or_else(|_| panic!("with {cuts:?}, {manner:?}"))
}

/// All at once; one byte at a time; and the sender far ahead of the reader.
const PACES: [(usize, usize); 3] = [(usize::MAX, usize::MAX), (1, 1), (usize::MAX, 1)];

fn manners(paces: &[(usize, usize)]) -> Vec<Manner> {
    let mut manners = Vec::new();
    for &(send, deliver) in paces {
        let in_flight = [
            (InFlight::Lost, false),
            (InFlight::Half, false),
            (InFlight::Late, false),
            (InFlight::Late, true),
        ];
        for (in_flight, held) in in_flight {
            for half_open in [false, true] {
                manners.push(Manner {
                    send,
                    deliver,
                    in_flight,
                    half_open,
                    held,
                    migrates: None,
                });
            }
        }
    }
    manners
}

fn cut_once<P: Protocol>(protocol: &P, manners: &[Manner]) {
    for &manner in manners {
        let places = places(protocol, &[], manner);
        assert!(places.len() > 60, "the conversation is longer than that");
        let mut failed_opens = 0;
        for cut in places {
            let outcome = at(&[cut], manner, || converse(protocol, &[cut], manner));
            let named = outcome.delivered[0][Side::Client as usize] >= protocol.named_after();
            assert_eq!(
                outcome.failed_opens,
                usize::from(!named),
                "{cut:?}, {manner:?}"
            );
            failed_opens += outcome.failed_opens;
        }
        assert!(
            failed_opens > 0,
            "some cuts come before the session has a name"
        );
    }
}

fn cut_twice<P: Protocol>(protocol: &P, manners: &[Manner]) {
    for &manner in manners {
        let mut pairs = 0;
        for first in places(protocol, &[], manner) {
            for second in at(&[first], manner, || places(protocol, &[first], manner)) {
                pairs += 1;
                at(&[first, second], manner, || {
                    converse(protocol, &[first, second], manner)
                });
            }
        }
        assert!(pairs > 4000, "{pairs} pairs of offsets");
    }
}

/// A first cut that leaves bytes of both directions to be replayed, then one at every offset of the resume and the replay.
fn cut_resume<P: Protocol>(protocol: &P, first: Cut) {
    let manner = manners(&PACES)[0];
    let lengths = &converse(protocol, &[], manner).delivered[0];
    assert!(lengths[first.side as usize] > first.offset);
    for manner in manners(&PACES) {
        for second in places(protocol, &[first], manner) {
            at(&[first, second], manner, || {
                converse(protocol, &[first, second], manner)
            });
        }
    }
}

#[test]
fn snet_cut_at_every_offset_of_the_open_and_the_data() {
    for protocol in Snet::all() {
        cut_once(&protocol, &manners(&PACES));
    }
}

#[test]
fn snet_cut_at_every_offset_of_the_resume_and_the_replay() {
    for protocol in Snet::all() {
        // Within the data: 9 + 16 bytes of handshake precede it towards the server, 24 towards the client.
        for (side, offset) in [(Side::Server, 27), (Side::Client, 26), (Side::Server, 24)] {
            cut_resume(&protocol, Cut { side, offset });
        }
    }
}

#[test]
fn snet_two_cuts_at_every_pair_of_offsets_in_bursts() {
    cut_twice(&Snet(CipherChoice::Rc4), &manners(&PACES[..1]));
}

#[test]
fn snet_two_cuts_at_every_pair_of_offsets_with_the_sender_ahead() {
    let manners = manners(&PACES[2..]);
    // What else can be in flight at such a pace is in the test above.
    cut_twice(&Snet(CipherChoice::Rc4), &[manners[0], manners[7]]);
}

#[test]
fn snet_three_cuts_in_a_row() {
    let protocol = Snet(CipherChoice::Plain);
    let manner = manners(&PACES)[0];
    let first = Cut {
        side: Side::Server,
        offset: 26,
    };
    for second in places(&protocol, &[first], manner) {
        for third in places(&protocol, &[first, second], manner) {
            let cuts = [first, second, third];
            at(&cuts, manner, || converse(&protocol, &cuts, manner));
        }
    }
}

/// Message 3 and data in one segment: the handshake takes its own bytes, and the session the rest.
#[test]
fn snet_data_in_the_segment_of_message_3() {
    for protocol in Snet::all() {
        let mut pair = Pair::new(&protocol, LIMITS, 200);
        for round in 1..=3 {
            let link = pair.dial();
            // Message 1, message 2.
            for side in Side::BOTH {
                pair.send(side, link, usize::MAX);
                while pair.deliver(side.other(), link, usize::MAX) {}
            }
            let before = pair.delivered(link, Side::Server);
            assert_eq!(pair.write(Side::Client, 7), 7);
            pair.send(Side::Client, link, usize::MAX);
            pair.deliver(Side::Server, link, usize::MAX);
            assert_eq!(
                pair.delivered(link, Side::Server) - before,
                16,
                "message 3 and no more"
            );
            assert_eq!(pair.server.accepted(), 1);
            pair.deliver(Side::Server, link, usize::MAX);
            assert_eq!(pair.delivered(link, Side::Server) - before, 16 + 7);
            pair.read(Side::Server, 100);
            assert_eq!(pair.progress(Side::Server), (7 * round, 7 * round));
        }
    }
}

/// A client that was named its session can resume it though its last message never arrived.
#[test]
fn snet_session_whose_message_3_was_lost_is_opened_by_the_resume() {
    for in_flight in [InFlight::Lost, InFlight::Half] {
        let mut pair = Pair::new(&Snet(CipherChoice::Rc4), LIMITS, CAPACITY);
        let link = pair.dial();
        for side in Side::BOTH {
            pair.send(side, link, usize::MAX);
            pair.deliver(side.other(), link, usize::MAX);
        }
        assert!(pair.client.is_open());
        assert_eq!(pair.write(Side::Client, 9), 9);
        pair.send(Side::Client, link, usize::MAX);
        pair.cut(link, in_flight, &[]);
        pair.pump(true);
        assert_eq!(pair.server.accepted(), 0);

        pair.heal();
        assert_eq!(pair.server.accepted(), 1);
        assert_eq!(pair.progress(Side::Server), (9, 9));
        assert_eq!(
            pair.server.registry.len(),
            1,
            "the same session, not another"
        );
    }
}

/// The same at both ends.
const NATIVE: Native = Native::new([64; 2]);

/// A cut that never comes.
const NEVER: Cut = Cut {
    side: Side::Client,
    offset: usize::MAX,
};

/// Bursts, in all ways otherwise; each of a number of cases in another of them.
fn nth_burst(nth: usize) -> Manner {
    let manners = manners(&PACES[..1]);
    manners[nth % manners.len()]
}

#[test]
fn native_cut_at_every_offset_of_the_open_the_data_and_the_end() {
    cut_once(&NATIVE, &manners(&PACES[..1]));
}

#[test]
fn native_cut_at_every_offset_byte_by_byte_and_with_the_sender_ahead() {
    let manners = manners(&PACES[1..]);
    for (nth, cut) in places(&NATIVE, &[], manners[0]).into_iter().enumerate() {
        for manner in manners.iter().skip(nth % 5).step_by(5) {
            at(&[cut], *manner, || converse(&NATIVE, &[cut], *manner));
        }
    }
}

/// Half of the pairs, so that the halves can run side by side. A cut before the session has a name leaves nothing of it: one will do.
fn native_two_cuts(first_at: Side, named_at: usize) {
    let mut pairs = 0;
    let firsts = places(&NATIVE, &[], nth_burst(0));
    let named = |cut: &Cut| cut.side == first_at && cut.offset + 1 >= named_at;
    for first in firsts.into_iter().filter(named) {
        // Which places come after the first cut hardly depends on the manner.
        for second in places(&NATIVE, &[first], nth_burst(0)) {
            pairs += 1;
            let manner = nth_burst(pairs + first.offset);
            let cuts = [first, second];
            at(&cuts, manner, || converse(&NATIVE, &cuts, manner));
        }
    }
    assert!(pairs > 50_000, "{pairs} pairs of offsets");
}

#[test]
fn native_two_cuts_at_every_pair_of_offsets_the_first_towards_the_server() {
    native_two_cuts(Side::Server, 28);
}

#[test]
fn native_two_cuts_at_every_pair_of_offsets_the_first_towards_the_client() {
    native_two_cuts(Side::Client, NATIVE.named_after());
}

#[test]
fn native_two_cuts_byte_by_byte_and_with_the_sender_ahead() {
    // Within the data, and behind the first end of a stream: 72 bytes of handshake and 40 of ATTACH and PING precede the data towards
    // the server, 68 and 40 towards the client.
    for (side, offset) in [(Side::Server, 117), (Side::Client, 170)] {
        let first = Cut { side, offset };
        for (nth, manner) in manners(&PACES[1..]).into_iter().enumerate() {
            let places = places(&NATIVE, &[first], manner);
            for second in places.into_iter().skip(nth % 4).step_by(4) {
                let cuts = [first, second];
                at(&cuts, manner, || converse(&NATIVE, &cuts, manner));
            }
        }
    }
}

#[test]
fn native_three_cuts_in_a_row() {
    let first = Cut {
        side: Side::Server,
        offset: 118,
    };
    let mut nth = 0;
    for second in places(&NATIVE, &[first], nth_burst(0))
        .into_iter()
        .step_by(5)
    {
        for third in places(&NATIVE, &[first, second], nth_burst(0)) {
            nth += 1;
            let manner = nth_burst(nth);
            let cuts = [first, second, third];
            at(&cuts, manner, || converse(&NATIVE, &cuts, manner));
        }
    }
}

/// The client resumes while it has a link, and either link is cut.
#[test]
fn native_migration_cut_at_every_offset_of_either_link() {
    let whole = converse(&NATIVE, &[], nth_burst(0)).delivered[0];
    let mut migrations = 0;
    for (nth, place) in all_to(whole).enumerate().step_by(3) {
        let manner = Manner {
            send: 16,
            deliver: 8 + nth % 9,
            migrates: Some(place),
            ..nth_burst(nth)
        };
        let delivered = at(&[], manner, || converse(&NATIVE, &[], manner).delivered);
        let [old, new] = delivered[..] else {
            // The session was over by then, or had just been lost for good.
            continue;
        };
        migrations += 1;
        let old = all_to(old).map(|cut| vec![cut]);
        let new = all_to(new).map(|cut| vec![NEVER, cut]);
        for (nth, cuts) in old.chain(new).enumerate() {
            if nth % 8 == place.offset % 8 {
                at(&cuts, manner, || converse(&NATIVE, &cuts, manner));
            }
        }
    }
    assert!(migrations > 50, "{migrations} migrations");
}
