//! Whole runs of a [`Pair`], whatever their steps, and what has come of each in the end.

#![allow(dead_code, reason = "each test file uses its part")]

use std::time::Duration;

use unbroken::{CloseReason, Refusal, protocol::Session, reset};

use crate::{
    core_native::Native,
    core_pair::{End, Limits, Pair, Protocol, ServerEnd, Side},
    core_steps::{Step, take},
};

pub(crate) const RESUME_WINDOW: Duration = Duration::from_secs(300);
/// What zeros say.
pub(crate) const REFUSED: CloseReason = CloseReason::Refused(Refusal::Unexplained);

/// What is lost with a link is at most half a history: everything arrives.
pub(crate) fn delivers<P: Protocol>(
    protocol: &P,
    history: usize,
    capacity: usize,
    steps: Vec<Step>,
) {
    let limits = Limits {
        history,
        resume_window: RESUME_WINDOW,
    };
    let mut pair = Pair::new(protocol, limits, capacity);
    for step in steps {
        take(&mut pair, step);
        assert_eq!(pair.client.closed(), None);
        assert_eq!(pair.server.closed(), None);
    }
    pair.heal();
    assert!(pair.is_even());
    assert_eq!(pair.client.closed(), None);
    assert_eq!(
        pair.server.accepted(),
        1,
        "sessions the application was given"
    );
    assert_eq!(pair.client.failed_attaches(), 0);
    assert_eq!(pair.server.failed_attaches(), 0);
    // The session is as good as new.
    for side in Side::BOTH {
        assert!(pair.write(side, 10) > 0, "{side:?} can write");
    }
    pair.pump(true);
    assert!(pair.is_even());
}

/// More can be lost with a link than the history holds: everything arrives, or both ends say that there is a gap.
pub(crate) fn delivers_or_tells<P: Protocol>(
    protocol: &P,
    history: usize,
    capacity: usize,
    steps: Vec<Step>,
) -> bool {
    let limits = Limits {
        history,
        resume_window: RESUME_WINDOW,
    };
    let mut pair = Pair::new(protocol, limits, capacity);
    for step in steps {
        take(&mut pair, step);
    }
    pair.heal();
    match pair.client.closed() {
        None => {
            assert!(pair.is_even());
            false
        }
        Some(reason) => {
            pair.pump(true);
            pair.pass(RESUME_WINDOW);
            match (reason, pair.server.closed()) {
                // A server that finds the gap has only zeros to say it with.
                (CloseReason::Gap | REFUSED, Some(CloseReason::Gap)) => {}
                // What the client wrote after its request made the gap: the server cannot know.
                (CloseReason::Gap, Some(CloseReason::Expired)) => {}
                // No message 3 ever arrived, so there is nobody to tell.
                (CloseReason::Gap | REFUSED, None) if pair.server.accepted() == 0 => {}
                other => panic!("the client and the server say {other:?}"),
            }
            true
        }
    }
}

/// Longer than a run takes: whatever time passes, links are lost, and neither the session nor the patience of an end.
pub(crate) const AGES: Duration = Duration::from_secs(1 << 24);

/// How a run of native goes on after its steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    /// Whether all links are given up first; otherwise each end notices what became of them when it does.
    pub(crate) healed: bool,
    /// Who has not read, and does not until everything else is done.
    pub(crate) withheld: Option<Side>,
}

/// Whatever happens short of an end, both applications get what the other one wrote; and whatever one of them leaves unread, as much of
/// it as there is credit for comes in, and is acknowledged.
pub(crate) fn native_delivers(native: Native, capacity: usize, steps: Vec<Step>, rest: Rest) {
    let limits = Limits {
        history: 0,
        resume_window: AGES,
    };
    let native = Native {
        linger: AGES,
        ..native
    };
    let mut pair = Pair::new(&native, limits, capacity);
    for step in steps {
        match (&step, rest.withheld) {
            (Step::Read(side, _), Some(withheld)) if *side == withheld => {}
            _ => take(&mut pair, step),
        }
        pair.check();
        for closed in [pair.client.closed(), pair.server.closed()] {
            assert!(matches!(closed, None | Some(CloseReason::Finished)));
        }
    }
    if rest.healed {
        pair.lose_links();
    }
    if let Some(withheld) = rest.withheld {
        pair.readers = vec![withheld.other()];
        pair.recover(|pair| {
            let window = native.windows[withheld as usize] as u64;
            let (read, written) = pair.progress(withheld);
            let due = written.min(read + window);
            let (other_read, other_written) = pair.progress(withheld.other());
            let mut stats = [pair.client.stats(), pair.server.stats()];
            if withheld == Side::Server {
                stats.reverse();
            }
            let [reader, writer] = stats;
            other_read == other_written
                && reader.received == due
                && writer.sent - writer.unacknowledged == due
                && reader.unacknowledged == 0
        });
        pair.readers = Side::BOTH.to_vec();
    }
    pair.recover(|pair| pair.is_even() && pair.server.accepted() == 1);
    for side in Side::BOTH {
        pair.shut_write(side);
    }
    pair.recover(|pair| {
        let closed = [pair.client.closed(), pair.server.closed()];
        closed == [Some(CloseReason::Finished); 2]
    });
    assert!(pair.is_even());
    assert_eq!(pair.server.accepted(), 1);
    assert_eq!(pair.client.failed_attaches(), 0);
    assert_eq!(pair.server.failed_attaches(), 0);
}

/// What an application does in the end. Of two at least one ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Nothing,
    Shut,
    Drop,
    Reset(u32),
}

/// However the applications end, and whatever links do then, both ends end, and each says what the applications did.
pub(crate) fn native_ends(
    native: Native,
    capacity: usize,
    steps: Vec<Step>,
    endings: [Ending; 2],
    healed: bool,
) {
    let limits = Limits {
        history: 0,
        resume_window: AGES,
    };
    let mut pair = Pair::new(&native, limits, capacity);
    pair.dial();
    pair.pump(false);
    for step in steps {
        take(&mut pair, step);
        pair.check();
    }
    let mut resets = [None; 2];
    for side in Side::BOTH {
        let now = pair.now;
        let session: &mut dyn Session = match side {
            Side::Client => pair.client.session(),
            Side::Server => pair.server.session().expect("it was opened"),
        };
        match endings[side as usize] {
            Ending::Nothing => {}
            Ending::Shut => session.shut_write(),
            Ending::Drop => {
                if session.waiting() > 0 {
                    resets[side as usize] = Some(reset::DROPPED_UNREAD);
                }
                session.drop_transport(now);
                pair.gone.push(side);
            }
            Ending::Reset(code) => {
                resets[side as usize] = Some(code);
                session.reset(code, now);
                pair.gone.push(side);
            }
        }
    }
    if healed {
        pair.lose_links();
    }
    let gone = pair.gone.clone();
    pair.readers.retain(|side| !gone.contains(side));
    pair.recover(|pair| pair.client.closed().is_some() && pair.server.closed().is_some());
    let expected = match (resets, endings) {
        ([Some(client), Some(server)], _) => [client, server].map(CloseReason::LocalReset),
        ([Some(code), None], _) => [CloseReason::LocalReset(code), CloseReason::Reset(code)],
        ([None, Some(code)], _) => [CloseReason::Reset(code), CloseReason::LocalReset(code)],
        // What the other one leaves open is broken off when the linger time has passed.
        (_, [Ending::Nothing, _]) => [CloseReason::Reset(reset::LINGER), CloseReason::Local],
        (_, [_, Ending::Nothing]) => [CloseReason::Local, CloseReason::Reset(reset::LINGER)],
        _ => [CloseReason::Finished; 2],
    };
    let closed = [pair.client.closed(), pair.server.closed()];
    assert_eq!(closed, expected.map(Some));
    for side in &pair.readers {
        if expected[*side as usize] == CloseReason::Finished {
            let (read, written) = pair.progress(*side);
            assert_eq!(read, written, "{side:?} has had everything");
        }
    }
}
