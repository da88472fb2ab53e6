//! Who is let in is asked on each link, and whose the session is stays as it was.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tower::ServiceExt;
use unbroken::{
    CloseReason, Config, Connector, Error, HandshakeError, LinkState, Refusal, RejectCode,
    ResumeError, Security, Suite,
    protocol::{native::Answer, noise::ClientKeys},
};

use super::{
    choices::{Fitting, MEMBER, OTHER_MEMBER, SERVER, keys, public},
    memory_link::Fault,
    memory_net::{Dial, Net, ROOMY, closed, exchange, expect, resumed, send, within},
    raw::{self, mutual, with},
};

#[tokio::test(start_paused = true)]
async fn a_key_that_is_let_in_no_more_ends_its_session_at_the_next_resume() {
    let asked = Arc::new(AtomicU32::new(0));
    let lets_in = Arc::new(AtomicBool::new(true));
    let authorize = {
        let (asked, lets_in) = (asked.clone(), lets_in.clone());
        move |key: &unbroken::PublicKey| {
            asked.fetch_add(1, Relaxed);
            *key == public(MEMBER) && lets_in.load(Relaxed)
        }
    };
    let server = Security::key_pair(keys(SERVER)).authorize(authorize);
    let mut net = Net::new(&Config::new().security(server), ROOMY);
    let (mut client, mut server) = net.open(&Fitting::Mutual.client()).await;
    assert_eq!(asked.load(Relaxed), 1);
    for links in 2..5 {
        net.cut_and_resume(&client, &server).await;
        assert_eq!(asked.load(Relaxed), links, "once on each link");
    }
    lets_in.store(false, Relaxed);
    // The link that is attached goes on.
    exchange(&mut client, &mut server).await;
    assert_eq!(asked.load(Relaxed), 4);
    let mut outcomes = net.take_outcomes();
    net.newest().cut(Fault::Reset);
    assert_eq!(
        closed(&client.handle()).await,
        CloseReason::Refused(Refusal::NotAuthorised)
    );
    while let Ok(resumed) = within("the failure", outcomes.recv()).await.expect("one") {
        assert!(matches!(resumed, unbroken::Accepted::Resumed(_)));
    }
    assert_eq!(asked.load(Relaxed), 5);
    // A session of its own it does not get either.
    let again = Connector::new(net.dialer(), Fitting::Mutual.client()).oneshot(());
    let refused = again.await.expect_err("it is let in no more");
    assert!(
        matches!(
            refused,
            Error::Rejected {
                reason: RejectCode::NotAuthorised,
                ..
            }
        ),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_authorize_that_panics_harms_only_its_link() {
    let panics = Arc::new(AtomicBool::new(false));
    let shared = panics.clone();
    let server = Security::key_pair(keys(SERVER)).authorize(move |_| {
        assert!(!shared.load(Relaxed), "as the test wants it");
        true
    });
    // Room for one handshake, which the one that panics has to leave.
    let config = Config::new().security(server).max_handshakes(1);
    let mut net = Net::new(&config, ROOMY);
    let (mut client, mut server) = net.open(&Fitting::Mutual.client()).await;
    panics.store(true, Relaxed);
    // A new session, and a resume of another while its own link serves.
    let connector = Connector::new(net.dialer(), Fitting::Mutual.client());
    let failed = within("an open", connector.clone().oneshot(())).await;
    assert!(matches!(failed, Err(Error::Link(_))), "{failed:?}");
    let failed = within("a migration", client.handle().migrate()).await;
    assert!(matches!(failed, Err(Error::Link(_))), "{failed:?}");
    exchange(&mut client, &mut server).await;
    assert_eq!(server.handle().stats().resumes, 0);

    panics.store(false, Relaxed);
    within("a migration", client.handle().migrate())
        .await
        .expect("it moves");
    exchange(&mut client, &mut server).await;
    let (mut another, mut its_server) = net.open(&Fitting::Mutual.client()).await;
    exchange(&mut another, &mut its_server).await;
}

/// With all that a session is resumed with, but not with the key it was opened with.
#[tokio::test(start_paused = true)]
async fn a_client_with_another_key_is_refused_the_session_and_the_true_one_goes_on() {
    let mut net = Net::new(&Fitting::Mutual.server(), ROOMY);
    let (link, _) = net.raw_link();
    let (mut frames, stolen) = raw::open(link, mutual(MEMBER)).await.expect("a session");
    let mut server = net.opened().await;
    send(&mut server, b"before").await;
    assert_eq!(within("the bytes", frames.take(6)).await, b"before");

    // A client of its own session, that is let in; with the link attached, and without one.
    for attached in [true, false] {
        if !attached {
            net.wire(0).cut(Fault::Reset);
            super::memory_net::state(&server.handle(), |state| *state != LinkState::Connected)
                .await;
        }
        for attempt in [1, 7, u32::MAX] {
            let (mut link, _) = net.raw_link();
            let asked = raw::request(&mut link, &stolen, attempt, 0, mutual(OTHER_MEMBER)).await;
            let (_, answer) = asked.expect("an answer");
            assert!(
                matches!(answer, Answer::Rejected(reject) if reject.code == RejectCode::NotAuthorised),
                "{answer:?}"
            );
            let failure = net.failure().await;
            assert!(
                matches!(failure, Error::Resume(ResumeError::NotAuthorised)),
                "{failure:?}"
            );
        }
        assert_eq!(server.handle().stats().resumes, 0);
        if attached {
            send(&mut server, b"meanwhile").await;
            assert_eq!(within("the bytes", frames.take(9)).await, b"meanwhile");
            frames.send_data(b"up").await.expect("room");
            expect(&mut server, b"up").await;
        }
    }
    let (link, _) = net.raw_link();
    let mut frames = raw::resume(link, &stolen, 1, 15, mutual(MEMBER))
        .await
        .expect("it is the true client's");
    resumed(&server.handle(), 1).await;
    send(&mut server, b"after").await;
    assert_eq!(within("the bytes", frames.take(5)).await, b"after");
    assert_eq!(server.peer_identity(), Some(public(MEMBER)));

    // Nor what is left of it when it is over.
    server.handle().close(5);
    drop(server);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut link, _) = net.raw_link();
    let asked = raw::request(&mut link, &stolen, 9, 0, mutual(OTHER_MEMBER)).await;
    let (_, answer) = asked.expect("an answer");
    assert!(
        matches!(answer, Answer::Rejected(reject) if reject.code == RejectCode::NotAuthorised),
        "{answer:?}"
    );
}

/// It is the security and the client's key that a session is bound to.
#[tokio::test(start_paused = true)]
async fn a_session_moves_between_suites() {
    for fitting in Fitting::ALL {
        let protection = |suite| {
            let server = *public(SERVER).as_bytes();
            with(
                match fitting {
                    Fitting::Anonymous => ClientKeys::Anonymous,
                    Fitting::Psk => ClientKeys::Preshared([9; 32].into()),
                    Fitting::ServerKey => ClientKeys::Server(server),
                    Fitting::Mutual => ClientKeys::Mutual {
                        private: [MEMBER; 32].into(),
                        server,
                    },
                },
                suite,
            )
        };
        for [first, second] in [
            [Suite::AesGcm, Suite::ChaChaPoly],
            [Suite::ChaChaPoly, Suite::AesGcm],
        ] {
            let mut net = Net::new(&fitting.server(), ROOMY);
            let (link, _) = net.raw_link();
            let (mut frames, session) = raw::open(link, protection(first)).await.expect("opened");
            let mut server = net.opened().await;
            let mut received = 0;
            for (attempt, suite) in (1..).zip([second, first, second]) {
                send(&mut server, b"across").await;
                assert_eq!(within("the bytes", frames.take(6)).await, b"across");
                received += 6;
                let (link, _) = net.raw_link();
                frames = raw::resume(link, &session, attempt, received, protection(suite))
                    .await
                    .expect("resumed");
                resumed(&server.handle(), attempt.into()).await;
            }
        }
    }
}

/// A copy of a first message has `authorize` asked about its key, and that is all.
#[tokio::test(start_paused = true)]
async fn a_copied_first_message_shows_a_key_and_opens_nothing() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let shared = asked.clone();
    let server = Security::key_pair(keys(SERVER)).authorize(move |key| {
        shared.lock().expect("no panic").push(*key);
        true
    });
    let mut net = Net::new(&Config::new().security(server), ROOMY);
    let (mut client, mut server) = net.open(&Fitting::Mutual.client()).await;
    net.cut_and_resume(&client, &server).await;
    let sent = [net.wire(0), net.wire(1)].map(|wire| wire.written(super::memory_link::Client));
    net.set(Dial::Refuse);
    let mut outcomes = net.take_outcomes();
    // What follows the open's was sealed for another ephemeral key; the resume's names a number that was used.
    let expected: [fn(&Error) -> bool; 2] = [
        |error| matches!(error, Error::Handshake(HandshakeError::Decrypt)),
        |error| matches!(error, Error::Resume(ResumeError::Stale)),
    ];
    for (bytes, is_expected) in sent.into_iter().zip(expected) {
        let (mut link, _) = net.raw_link();
        send(&mut link, &bytes).await;
        let failure = within("the outcome", async {
            loop {
                match outcomes.recv().await.expect("one") {
                    Ok(accepted) => assert!(matches!(accepted, unbroken::Accepted::Resumed(_))),
                    Err(error) => break error,
                }
            }
        })
        .await;
        assert!(is_expected(&failure), "{failure:?}");
        exchange(&mut client, &mut server).await;
        assert_eq!(server.handle().stats().resumes, 1);
    }
    assert_eq!(
        asked.lock().expect("no panic").as_slice(),
        [public(MEMBER); 4]
    );
}
