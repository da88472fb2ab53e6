//! Sessions that a client was told of and has not proved itself for; peers that were refused.

use tokio::io::AsyncReadExt;
use unbroken::{Accepted, Acceptor, Error, ResumeError, protocol::snet::ResumeReply};

use super::{
    memory_net::{Net, ROOMY, plain, within},
    raw_peer,
};

/// As many sessions may be unproved as the bound on handshakes allows four times over. Those that proved themselves do not count.
#[tokio::test(start_paused = true)]
async fn sessions_that_prove_themselves_push_no_unproved_one_out() {
    let mut net = Net::new(&plain().max_handshakes(2), ROOMY);
    let (mut link, _) = net.raw_link();
    let machine = raw_peer::begin_open(&mut link).await.expect("message 2");
    let unproved = machine.opened().expect("a name").clone();
    drop(link);
    net.failure().await;
    let mut sessions = Vec::new();
    for _ in 0..50 {
        let (mut link, _) = net.raw_link();
        raw_peer::open(&mut link).await.expect("a session");
        sessions.push((link, net.session().await));
    }
    let (mut link, _) = net.raw_link();
    within("a resume", raw_peer::resume(&mut link, &unproved, 0, 0))
        .await
        .expect("a resume opens the session");
    net.session().await;
}

#[tokio::test(start_paused = true)]
async fn unproved_sessions_are_bounded_and_the_oldest_goes_first() {
    let mut net = Net::new(&plain().max_handshakes(2), ROOMY);
    let mut unproved = Vec::new();
    for _ in 0..9 {
        let (mut link, _) = net.raw_link();
        let machine = raw_peer::begin_open(&mut link).await.expect("message 2");
        unproved.push(machine.opened().expect("a name").clone());
        drop(link);
        net.failure().await;
    }
    for (number, session) in unproved.iter().enumerate() {
        let (mut link, _) = net.raw_link();
        let (_, reply) = raw_peer::request(&mut link, session, 0, 0)
            .await
            .expect("an answer");
        assert_eq!(reply == ResumeReply::Refused, number == 0, "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_peer_that_stays_is_an_error_of_the_resume_not_of_the_time() {
    let acceptor = Acceptor::new(plain());
    let (mut near, far) = tokio::io::duplex(ROOMY);
    let session = {
        let (mut link, far) = tokio::io::duplex(ROOMY);
        let elsewhere = Acceptor::new(plain());
        let (opened, accepted) = tokio::join!(raw_peer::open(&mut link), elsewhere.accept(far));
        assert!(matches!(accepted, Ok(Accepted::New(_))));
        opened.expect("a session")
    };
    let (accepted, reply) = tokio::join!(acceptor.accept(far), async {
        let (_, reply) = raw_peer::request(&mut near, &session, 0, 0)
            .await
            .expect("an answer");
        // Its own end stays open.
        assert_eq!(near.read(&mut [0]).await.expect("the end"), 0);
        reply
    });
    assert_eq!(reply, ResumeReply::Refused);
    assert!(matches!(accepted, Err(Error::Resume(ResumeError::Unknown))));
}
