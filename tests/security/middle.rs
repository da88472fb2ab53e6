//! Somebody in between who ends the client's Noise himself, and talks Noise to the server.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc::UnboundedReceiver,
};
use tower::ServiceExt;
use unbroken::{
    Accepted, CloseReason, Connector, Error, HandshakeError, NoiseLink, Refusal, RejectCode,
    ResumableTransport, ResumeError, Suite,
    protocol::{
        native::{ClientOpen, Hello, ServerHandshake},
        noise::{ClientKeys, Initiator, Responder, ServerKeys},
    },
};

use super::{
    choices::{Fitting, STRANGER, public},
    memory_link::{Client, Fault, MemoryLink},
    memory_net::{Dial, Net, ROOMY, closed, connected, exchange, expect, send, state, within},
    raw::{self, ephemeral, hear, under},
    raw_native::{WINDOW, drive, named},
};

/// A plaintext that nobody guesses.
const WORDS: &[u8] = b"for your eyes alone";

/// The client's link, the server's link, both inside Noise of his own: he is in the middle from the open on.
async fn in_the_middle(net: &mut Net) -> (NoiseLink<MemoryLink>, NoiseLink<MemoryLink>) {
    let mut near = net.ignored().await;
    let (mut far, _) = net.raw_link();
    let mut server = hear(&mut near, ServerKeys::Anonymous)
        .await
        .expect("an OPEN");
    let Some(Hello::Open { window }) = server.hello() else {
        panic!("{:?}", server.hello());
    };
    let mut client = ClientOpen::new(window, raw::anonymous());
    drive(&mut far, &mut client).await.expect("OPENED");
    // With it he has the session's secret.
    let opened = named(&client);
    server.open(&opened);
    drive(&mut near, &mut server).await.expect("room");
    let mut near = under(near, server.take_records());
    drive(&mut near, &mut server).await.expect("a CONFIRM");
    assert_eq!(server.proved(), Some(0));
    let mut far = under(far, client.take_records());
    send(&mut far, &client.confirm().expect("it is opened")).await;
    (near, far)
}

/// Carries both directions on until the link ends, and changes what the client says.
async fn eavesdrop(mut near: NoiseLink<MemoryLink>, mut far: NoiseLink<MemoryLink>) -> Vec<u8> {
    let mut read = Vec::new();
    let (mut up, mut down) = ([0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            count = near.read(&mut up) => match count {
                Ok(count @ 1..) => {
                    read.extend(&up[..count]);
                    for at in 0..count {
                        if up[at..count].starts_with(WORDS) {
                            up[at] = b'F';
                        }
                    }
                    if far.write_all(&up[..count]).await.is_err() || far.flush().await.is_err() {
                        return read;
                    }
                }
                _ => return read,
            },
            count = far.read(&mut down) => match count {
                Ok(count @ 1..) => {
                    if near.write_all(&down[..count]).await.is_err() || near.flush().await.is_err() {
                        return read;
                    }
                }
                _ => return read,
            },
        }
    }
}

/// That is what it means that nobody is authenticated.
#[tokio::test(start_paused = true)]
async fn under_anonymous_he_who_is_there_from_the_open_on_reads_and_changes_everything() {
    let mut net = Net::new(&Fitting::Anonymous.server(), ROOMY);
    net.set(Dial::Ignore);
    let connector = Connector::new(net.dialer(), Fitting::Anonymous.client());
    let opening = tokio::spawn(connector.oneshot(()));
    let (near, far) = in_the_middle(&mut net).await;
    let mut client = within("the session", opening)
        .await
        .expect("no panic")
        .expect("a session");
    let mut server = net.opened().await;
    let spy = tokio::spawn(eavesdrop(near, far));
    send(&mut client, WORDS).await;
    expect(&mut server, b"For your eyes alone").await;
    send(&mut server, b"and mine").await;
    expect(&mut client, b"and mine").await;
    // The client's link.
    net.wire(0).cut(Fault::Reset);
    let read = within("what he has read", spy).await.expect("no panic");
    assert!(read.windows(WORDS.len()).any(|bytes| bytes == WORDS));
}

/// A session that was opened without him, whose client's next link is his.
async fn his_next_link(
    fitting: Fitting,
) -> (Net, ResumableTransport, ResumableTransport, MemoryLink) {
    let mut net = Net::new(&fitting.server(), ROOMY);
    let (mut client, mut server) = net.open(&fitting.client()).await;
    exchange(&mut client, &mut server).await;
    net.set(Dial::Ignore);
    net.newest().cut(Fault::Reset);
    let link = net.ignored().await;
    (net, client, server, link)
}

/// The acceptor's next error. Till then sessions are resumed, and none is opened.
async fn failure(outcomes: &mut UnboundedReceiver<Result<Accepted, Error>>) -> Error {
    within("a failure", async {
        loop {
            match outcomes.recv().await.expect("the net goes on") {
                Ok(Accepted::Resumed(_)) => {}
                Ok(accepted) => panic!("{accepted:?}"),
                Err(error) => return error,
            }
        }
    })
    .await
}

/// A message with its length in front.
async fn message(link: &mut MemoryLink) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; link.read_u16().await?.into()];
    link.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn send_message(link: &mut MemoryLink, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).expect("it is short");
    send(link, &[&len.to_be_bytes(), bytes].concat()).await;
}

/// He passes on what either says, word for word, from his Noise with the one into his Noise with the other.
#[tokio::test(start_paused = true)]
async fn under_anonymous_he_who_comes_in_at_a_resume_reads_no_byte_and_gets_no_link_attached() {
    let (mut net, mut client, mut server, mut near) = his_next_link(Fitting::Anonymous).await;
    send(&mut client, WORDS).await;
    let mut outcomes = net.take_outcomes();
    let mut prelude = [0; 16];
    near.read_exact(&mut prelude).await.expect("a prelude");
    let suite = Suite::ALL
        .into_iter()
        .find(|suite| suite.code() == prelude[7]);
    let suite = suite.expect("a suite");
    let mut to_client = Responder::new(ServerKeys::Anonymous, suite, &prelude, ephemeral());
    let first = message(&mut near).await.expect("the first message");
    let resume = to_client.first(&first).expect("it is for anybody");

    let (mut far, _) = net.raw_link();
    let mut to_server = Initiator::new(ClientKeys::Anonymous, suite, &prelude, ephemeral());
    send(&mut far, &prelude).await;
    send_message(&mut far, &to_server.first(&resume).expect("the first")).await;
    let second = message(&mut far).await.expect("the second message");
    // RESUMED, which he can read, and whose proof is for his link with the server.
    let (resumed, records) = to_server.second(&second).expect("it is for him");
    assert_eq!(resumed.len(), 4 + 56);
    let (second, _) = to_client.second(&resumed).expect("the second");
    send_message(&mut near, &second).await;

    // The client finds the proof wrong, says no more and tries again.
    let mut rest = Vec::new();
    let _ = within("the link's end", near.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"", "no CONFIRM");
    net.set(Dial::Serve);
    // To the server he has nothing to say that it would believe.
    let mut far = NoiseLink::new(far, records);
    send(&mut far, &[&[0x14, 0, 0, 40][..], &[0; 40]].concat()).await;
    let failure = failure(&mut outcomes).await;
    assert!(
        matches!(failure, Error::Handshake(HandshakeError::Proof)),
        "{failure:?}"
    );
    connected(&client.handle()).await;
    expect(&mut server, WORDS).await;
    exchange(&mut client, &mut server).await;
}

/// A REJECT inside Noise is believed, and with nobody authenticated he can say it.
#[tokio::test(start_paused = true)]
async fn under_anonymous_he_who_comes_in_at_a_resume_can_refuse_it() {
    let (_net, client, _server, mut near) = his_next_link(Fitting::Anonymous).await;
    let mut machine = hear(&mut near, ServerKeys::Anonymous)
        .await
        .expect("a RESUME");
    machine.reject(RejectCode::Unknown, Duration::ZERO);
    drive(&mut near, &mut machine).await.expect("room");
    assert_eq!(
        closed(&client.handle()).await,
        CloseReason::Refused(Refusal::Unknown)
    );
}

/// All that he can answer with, not having a key.
fn his_keys(fitting: Fitting) -> ServerKeys {
    let own = [STRANGER; 32].into();
    match fitting {
        Fitting::Anonymous => ServerKeys::Anonymous,
        Fitting::Psk => ServerKeys::Preshared(own),
        Fitting::ServerKey => ServerKeys::Private(own),
        Fitting::Mutual => ServerKeys::Mutual(own),
    }
}

const WITH_KEYS: [Fitting; 3] = [Fitting::Psk, Fitting::ServerKey, Fitting::Mutual];

/// What he does when he understands nothing: refuse, or talk on as if he did.
async fn bluff(mut near: MemoryLink, fitting: Fitting, talk: bool) {
    let before = near_prelude(&mut near).await;
    let first = message(&mut near).await.expect("the first message");
    let mut responder = Responder::new(his_keys(fitting), Suite::fastest(), &before, ephemeral());
    let understood = responder.first(&first);
    assert_eq!(understood, Err(HandshakeError::Decrypt), "{fitting:?}");
    if talk {
        // A second message of the right length, of an ephemeral key and what is no ciphertext.
        let key = public(STRANGER);
        let mut second = key.as_bytes().to_vec();
        second.resize(32 + 4 + 64 + 16, 7);
        let of_resumed = before[5] == 1;
        second.truncate(if of_resumed {
            32 + 4 + 56 + 16
        } else {
            second.len()
        });
        send_message(&mut near, &second).await;
    } else {
        let mut machine = ServerHandshake::new();
        let _ = unbroken::protocol::Handshake::receive(&mut machine, &before);
        machine.reject(RejectCode::Unknown, Duration::MAX);
        drive(&mut near, &mut machine).await.expect("room");
    }
    let mut rest = Vec::new();
    let _ = within("the link's end", near.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"", "{fitting:?}: the client says no more");
}

async fn near_prelude(near: &mut MemoryLink) -> [u8; 16] {
    let mut prelude = [0; 16];
    near.read_exact(&mut prelude).await.expect("a prelude");
    prelude
}

#[tokio::test(start_paused = true)]
async fn under_any_key_he_is_no_server_to_a_client_that_opens() {
    for fitting in WITH_KEYS {
        for talk in [false, true] {
            let net = Net::new(&fitting.server(), ROOMY);
            net.set(Dial::Ignore);
            let opening = Connector::new(net.dialer(), fitting.client()).oneshot(());
            let (opened, ()) = tokio::join!(opening, async {
                bluff(net.ignored().await, fitting, talk).await;
            });
            match opened.expect_err("there is no server") {
                Error::Rejected { reason, .. } => assert!(!talk && reason == RejectCode::Unknown),
                Error::Handshake(error) => assert!(talk && error == HandshakeError::Decrypt),
                error => panic!("{error:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn under_any_key_he_is_no_server_to_a_client_that_resumes_nor_can_he_refuse() {
    for fitting in WITH_KEYS {
        let (net, mut client, mut server, near) = his_next_link(fitting).await;
        bluff(near, fitting, false).await;
        bluff(net.ignored().await, fitting, true).await;
        bluff(net.ignored().await, fitting, false).await;
        net.set(Dial::Serve);
        connected(&client.handle()).await;
        exchange(&mut client, &mut server).await;
    }
}

/// To the server he is, without a key, nobody that it lets in.
#[tokio::test(start_paused = true)]
async fn under_psk_and_mutual_he_is_no_client() {
    for fitting in [Fitting::Psk, Fitting::Mutual] {
        let mut net = Net::new(&fitting.server(), ROOMY);
        let (mut client, mut server) = net.open(&fitting.client()).await;
        let keys = || match fitting {
            Fitting::Psk => ClientKeys::Preshared([STRANGER; 32].into()),
            _ => ClientKeys::Mutual {
                private: [STRANGER; 32].into(),
                server: *public(super::choices::SERVER).as_bytes(),
            },
        };
        let (mut far, _) = net.raw_link();
        let mut machine = ClientOpen::new(WINDOW, raw::with(keys(), Suite::fastest()));
        drive(&mut far, &mut machine).await.expect("an answer");
        let reject = machine.rejected().expect("a REJECT");
        assert_eq!(reject.code, RejectCode::NotAuthorised);
        let failure = net.failure().await;
        let expected = match fitting {
            Fitting::Psk => HandshakeError::Decrypt,
            _ => HandshakeError::NotAuthorised,
        };
        assert!(
            matches!(failure, Error::Handshake(error) if error == expected),
            "{failure:?}"
        );
        exchange(&mut client, &mut server).await;
    }
}

/// The client's word for the session is for its own Noise alone: a recorded conversation, said again, is not heard out.
#[tokio::test(start_paused = true)]
async fn what_a_client_has_said_on_its_links_says_nothing_when_it_is_said_again() {
    for fitting in Fitting::ALL {
        let mut net = Net::new(&fitting.server(), ROOMY);
        let (mut client, mut server) = net.open(&fitting.client()).await;
        for _ in 0..3 {
            exchange(&mut client, &mut server).await;
            net.cut_and_resume(&client, &server).await;
        }
        exchange(&mut client, &mut server).await;
        let recorded: Vec<_> = (0..4)
            .map(|number| net.wire(number).written(Client))
            .collect();
        let mut outcomes = net.take_outcomes();
        let resumes = server.handle().stats().resumes;
        for over in [false, true] {
            if over {
                server.handle().close(9);
                closed(&client.handle()).await;
            }
            let sessions = net.acceptor().sessions().expect("it can be used").count();
            for (number, bytes) in recorded.iter().enumerate() {
                let (mut link, _) = net.raw_link();
                send(&mut link, bytes).await;
                let failure = failure(&mut outcomes).await;
                assert!(
                    matches!(
                        failure,
                        Error::Handshake(HandshakeError::Decrypt)
                            | Error::Resume(
                                ResumeError::Stale | ResumeError::Ended | ResumeError::Expired
                            )
                    ),
                    "{fitting:?}, link {number}: {failure:?}"
                );
            }
            let now = net.acceptor().sessions().expect("it can be used").count();
            assert_eq!(now, sessions, "{fitting:?}: no session comes of it");
            assert_eq!(server.handle().stats().resumes, resumes, "{fitting:?}");
            if !over {
                exchange(&mut client, &mut server).await;
            }
        }
    }
}

/// Without the secret, with the id or without, from anywhere.
#[tokio::test(start_paused = true)]
async fn guesses_of_ids_and_secrets_come_to_nothing() {
    let mut net = Net::new(&Fitting::Anonymous.server(), ROOMY);
    let (link, _) = net.raw_link();
    let (mut frames, session) = raw::open(link, raw::anonymous()).await.expect("a session");
    let mut server = net.opened().await;
    for number in 1..200_u32 {
        let guess = unbroken::protocol::native::Opened {
            id: if number % 2 == 0 {
                session.id
            } else {
                rand::random()
            },
            secret: unbroken::protocol::native::SessionSecret::new(rand::random()),
            ..session.clone()
        };
        let (mut link, _) = net.raw_link();
        let asked = raw::request(&mut link, &guess, number, 0, raw::anonymous()).await;
        if guess.id == session.id {
            // The server's own proof shows that the secret is another.
            let error = asked.expect_err("a proof with another secret");
            let inner = error.downcast::<HandshakeError>().expect("ours");
            assert_eq!(inner, HandshakeError::Proof);
        } else {
            let (_, answer) = asked.expect("an answer");
            assert!(
                matches!(answer, unbroken::protocol::native::Answer::Rejected(reject)
                    if reject.code == RejectCode::Unknown),
                "{answer:?}"
            );
        }
        drop(link);
        net.failure().await;
    }
    send(&mut server, b"undisturbed").await;
    assert_eq!(within("the bytes", frames.take(11)).await, b"undisturbed");
    assert_eq!(server.handle().stats().resumes, 0);
    state(&server.handle(), |state| {
        *state == unbroken::LinkState::Connected
    })
    .await;
}
