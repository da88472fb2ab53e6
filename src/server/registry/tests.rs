use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{config::Config, error::CloseReason, server::owners::Source};

const MOST: usize = 8;
const MOST_PER_ADDRESS: usize = 3;
const MOST_PER_IDENTITY: usize = 2;
const WINDOW: Duration = Duration::from_secs(100);

/// Who opens: an address, and a key, if they are known.
type Who = (Option<u8>, Option<u8>);

#[derive(Clone, Debug)]
enum Step {
    /// A client says that it wants a session, and is named one if there is room.
    Open(Who),
    /// A session that was named is proved, from anywhere.
    Prove(usize, Who),
    /// A proof for a session that runs, or is over.
    ProveAgain(usize, Who),
    /// A session is over, in one of the ways there are, and its keeper gone.
    End(usize, u8),
    /// What was named long enough ago is forgotten.
    Wait(u64),
}

fn who() -> impl Strategy<Value = Who> {
    let known = |most| prop::option::weighted(0.7, 0..most);
    (known(4_u8), known(5_u8))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => who().prop_map(Step::Open),
        6 => (any::<usize>(), who()).prop_map(|(which, who)| Step::Prove(which, who)),
        1 => (any::<usize>(), who()).prop_map(|(which, who)| Step::ProveAgain(which, who)),
        3 => (any::<usize>(), 0..4_u8).prop_map(|(which, how)| Step::End(which, how)),
        1 => (0..WINDOW.as_secs()).prop_map(Step::Wait),
    ]
}

fn addr((number, _): Who) -> Option<SocketAddr> {
    let ip = Ipv4Addr::new(203, 0, 113, number?);
    // As one that is mapped counts just the same.
    let ip = if rand::random() {
        IpAddr::V6(ip.to_ipv6_mapped())
    } else {
        ip.into()
    };
    Some(SocketAddr::new(ip, rand::random()))
}

fn peer(who: Who) -> Peer {
    Peer {
        addr: addr(who),
        key: key(who),
    }
}

fn key((_, number): Who) -> Option<[u8; 32]> {
    Some([number?; 32])
}

/// What a registry should know.
#[derive(Default)]
struct Model {
    named: Vec<(SessionId, Instant)>,
    running: Vec<(Who, Entry)>,
    ended: Vec<SessionId>,
}

impl Model {
    fn check_room(&self, (address, identity): Who) -> Result<(), Denied> {
        let count =
            |is: &dyn Fn(&Who) -> bool| self.running.iter().filter(|(who, _)| is(who)).count();
        let limit = if self.running.len() >= MOST {
            Limit::Sessions
        } else if address.is_some() && count(&|who| who.0 == address) >= MOST_PER_ADDRESS {
            Limit::SessionsPerAddress
        } else if identity.is_some() && count(&|who| who.1 == identity) >= MOST_PER_IDENTITY {
            Limit::SessionsPerIdentity
        } else {
            return Ok(());
        };
        Err(Denied::Full(limit))
    }

    /// How many sessions each has who has any.
    fn counts(&self) -> (HashMap<Source, usize>, HashMap<[u8; 32], usize>) {
        let mut counts = (HashMap::new(), HashMap::new());
        for (who, _) in &self.running {
            if let Some(addr) = addr(*who) {
                *counts.0.entry(Source::from(addr)).or_default() += 1;
            }
            if let Some(key) = key(*who) {
                *counts.1.entry(key).or_default() += 1;
            }
        }
        counts
    }
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let config = Config::new()
        .resume_window(WINDOW)
        .max_sessions(MOST)
        .max_sessions_per_address(MOST_PER_ADDRESS)
        .max_sessions_per_identity(MOST_PER_IDENTITY);
    let registry = Arc::new(Registry::new(
        config.validate(Role::Server).expect("it can be used"),
    ));
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Open(who) => {
                let room = registry.check_open(peer(who));
                prop_assert_eq!(room, model.check_room(who));
                if room.is_ok() {
                    let id = registry.draw_native_id().expect("random numbers");
                    let named = Named::Native {
                        binding: Binding::NONE,
                        secret: SessionSecret::new([1; 32]),
                        peer_window: 1,
                    };
                    let id = SessionId::native(id);
                    registry.name(id, named).expect("nobody shuts it down");
                    model.named.push((id, now()));
                }
            }
            Step::Prove(which, who) if !model.named.is_empty() => {
                let which = which % model.named.len();
                let (id, since) = model.named[which];
                let is_forgotten = since + WINDOW <= now();
                match registry.prove(id, peer(who)) {
                    Ok(Proved::Opened(entry)) => {
                        prop_assert_eq!(model.check_room(who), Ok(()));
                        model.named.remove(which);
                        model.running.push((who, entry));
                    }
                    // When it is forgotten is not for the proof to say: another look may not have come by yet.
                    Err(Denied::Unknown) => prop_assert!(is_forgotten),
                    Err(denied) => prop_assert_eq!(Err(denied), model.check_room(who)),
                    Ok(Proved::Running(_) | Proved::Ended(_)) => prop_assert!(false, "it is new"),
                }
            }
            Step::ProveAgain(which, who) if !model.running.is_empty() => {
                let (_, entry) = &model.running[which % model.running.len()];
                let proved = registry.prove(entry.session().id(), peer(who));
                prop_assert!(matches!(proved, Ok(Proved::Running(_))));
                if let Some(id) = model.ended.last() {
                    let proved = registry.prove(*id, peer(who));
                    prop_assert!(!matches!(
                        proved,
                        Ok(Proved::Opened(_) | Proved::Running(_))
                    ));
                }
            }
            Step::End(which, how) if !model.running.is_empty() => {
                let (_, entry) = model.running.remove(which % model.running.len());
                let session = entry.session().clone();
                match how {
                    0 => session.reset(3),
                    1 => session.close(CloseReason::Expired),
                    2 => session.close(CloseReason::Abandoned),
                    // The keeper's future was dropped before anything closed the session.
                    _ => {}
                }
                model.ended.push(session.id());
                drop(entry);
            }
            Step::Wait(secs) => tokio::time::advance(Duration::from_secs(secs)).await,
            Step::Prove(..) | Step::ProveAgain(..) | Step::End(..) => {}
        }
        prop_assert_eq!(registry.count(), model.running.len());
        prop_assert_eq!(registry.lock().owners.counts(), model.counts());
    }
    model.running.clear();
    prop_assert_eq!(registry.count(), 0);
    prop_assert_eq!(registry.lock().owners.counts(), Default::default());
    Ok(())
}

proptest! {
    /// Opens that are let in and that are denied, proofs of what is new, runs, is over or forgotten, and ends of every kind.
    #[test]
    fn sessions_are_counted_for_their_owners_as_long_as_they_run(steps in vec(step(), 0..150)) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime")
            .block_on(run(steps))?;
    }
}
