//! A peer that holds the secret and says anything at all, and what an end makes of it.

#![allow(dead_code, reason = "each test file uses its part")]

use std::time::Duration;

use unbroken::{
    CloseReason, ResumeError,
    protocol::{LinkId, Phase, Session},
};

use crate::core_scripted::{Scripted, bytes};

/// What happens to an end.
#[derive(Clone, Debug)]
pub(crate) enum Noise {
    /// Frames, and what follows them, cut up into pieces of at most so many bytes, on the link that many before the newest.
    Says(Vec<u8>, usize, LinkId),
    Writes(usize),
    Reads(usize),
    Hands(usize),
    Resumes(u64),
    LosesLink(LinkId),
    Passes(Duration),
    Shuts,
    Resets(u32),
    Drops,
    Probes,
}

/// Seen in EternalTerminal: bad input aborted the daemon. Here nothing a peer says does more than to end its own link or session, and
/// nothing makes an end hold more than its window.
pub(crate) fn makes_noise(mut script: Scripted, window: usize, noise: Vec<Noise>) {
    let role = script.session.role();
    let mut received = 0;
    for noise in noise {
        let was_over = matches!(script.session.phase(), Phase::Closed(_));
        let dropped = script.session.is_write_shut();
        match noise {
            Noise::Says(bytes, piece, back) => {
                let link = script.link.saturating_sub(back);
                for piece in bytes.chunks(piece.min(bytes.len()).max(1)) {
                    let arrived = script.give(link, piece);
                    assert!(arrived.broken.is_none() || !script.session.holds(link));
                    if !script.session.holds(link) {
                        break;
                    }
                }
            }
            Noise::Writes(count) => {
                if !dropped && script.session.verdict().is_none() {
                    let room = script.session.room();
                    assert_eq!(script.session.write(&bytes(0, count)), count.min(room));
                }
            }
            Noise::Reads(count) => {
                script.read_some(count);
            }
            Noise::Hands(most) => {
                script.hand(most);
            }
            Noise::Resumes(count) => match script.resume(count) {
                Ok(()) => assert!(!was_over),
                Err(error) => assert!(
                    matches!(
                        (error, role),
                        (ResumeError::ReceivedTooMuch | ResumeError::Gap, _)
                    ) || was_over && error == ResumeError::Closed
                ),
            },
            Noise::LosesLink(back) => {
                let link = script.link.saturating_sub(back);
                script.session.link_failed(link, script.now);
            }
            Noise::Passes(time) => script.pass(time),
            Noise::Shuts => script.session.shut_write(),
            Noise::Resets(code) => script.session.reset(code, script.now),
            Noise::Drops => script.session.drop_transport(script.now),
            Noise::Probes => script.session.probe(),
        }
        let session = &script.session;
        assert!(session.waiting() <= window);
        assert!(session.room() <= window);
        assert!(
            session.received() >= received,
            "nothing received is forgotten"
        );
        received = session.received();
        match session.phase() {
            Phase::Closed(reason) => {
                assert_eq!(session.verdict(), Some(reason));
                assert_eq!(session.poll_timeout(), None);
            }
            Phase::Attached => assert!((0..=script.link).any(|link| session.holds(link))),
            Phase::Detached(_) => {
                assert_ne!(
                    session.verdict(),
                    Some(CloseReason::Abandoned),
                    "nothing panicked"
                );
            }
        }
        if was_over {
            assert!(matches!(script.session.phase(), Phase::Closed(_)));
        }
    }
}
