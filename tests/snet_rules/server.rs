//! What a server does about resumes: nothing before they have proved themselves, in their order, and zeros for final reasons only.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use unbroken::{
    Accepted, Config, Error, HandshakeError, ResumeError,
    protocol::{
        Handshake,
        snet::{Opened, ResumeReply, SessionKey},
    },
};

use super::{
    memory_link::{Client, Fault, MemoryLink, Server, Wire, link},
    memory_net::{
        Net, OPEN_SENT, REPLY, RESUME_SENT, ROOMY, exchange, expect, expect_nothing, pattern,
        plain, plain_history, resumed, send, until, within,
    },
    raw_peer,
};

/// Says whether the server closes the link without zeros, or anything else.
async fn closes_silently(link: &mut MemoryLink) -> bool {
    within("the link's end", raw_peer::closes_silently(link)).await
}

#[tokio::test(start_paused = true)]
async fn eternal_terminal_15_a_live_link_is_untouched_until_message_3_has_proved_itself() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut client, mut server) = net.open(&plain()).await;
    net.cut_and_resume(&client, &server).await;
    let live = net.newest();
    let genuine = live.written(Client)[..41].to_vec();
    let (mut other_client, mut other_server) = net.open(&plain()).await;
    net.cut_and_resume(&other_client, &other_server).await;
    let other_live = net.newest();
    let other_genuine = other_live.written(Client)[..41].to_vec();

    let mut flipped = genuine.clone();
    flipped[40] ^= 1;
    let mut stranger = genuine.clone();
    stranger[1] ^= 1;
    // What a link brings, and the answer: whether there is one, and one of zeros.
    let requests = [
        ("a copy", &genuine[..], Some(false)),
        ("a slow copy", &genuine[..30], None),
        ("a wrong proof of the request", &flipped, Some(true)),
        ("an unknown id", &stranger, Some(true)),
        ("garbage", &[0xff; 41], Some(true)),
        ("an open that stops", &[0; 9], None),
    ];
    let mut links = Vec::new();
    let began = Instant::now();
    for (what, request, zeros) in requests {
        let (mut link, _) = net.raw_link();
        link.write_all(request).await.expect("room");
        if let Some(zeros) = zeros {
            let mut reply = [0; REPLY];
            within("an answer", link.read_exact(&mut reply))
                .await
                .expect("an answer");
            assert_eq!(reply == [0; REPLY], zeros, "{what}");
        }
        links.push((what, link));
        exchange(&mut client, &mut server).await;
    }
    // A copy with a wrong message 3, in pieces, bytes going both ways in between.
    let (mut thief, _) = net.raw_link();
    thief.write_all(&other_genuine).await.expect("room");
    let mut reply = [0; REPLY];
    within("an answer", thief.read_exact(&mut reply))
        .await
        .expect("an answer");
    for half in [[1; 8], [2; 8]] {
        exchange(&mut other_client, &mut other_server).await;
        thief.write_all(&half).await.expect("room");
    }
    assert!(closes_silently(&mut thief).await, "a wrong proof");
    exchange(&mut other_client, &mut other_server).await;
    assert!(
        began.elapsed() < Duration::from_millis(10),
        "{:?}: the live sessions waited",
        began.elapsed()
    );

    // Until all of them have run out of time, and after.
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        exchange(&mut client, &mut server).await;
        exchange(&mut other_client, &mut other_server).await;
    }
    for wire in [live, other_live] {
        assert_eq!((wire.dropped(Client), wire.dropped(Server)), (None, None));
    }
    for end in [client, server, other_client, other_server] {
        assert_eq!(end.handle().stats().resumes, 1);
    }
}

/// A raw client's session: its link, what it holds, and the server's end.
async fn raw_session(net: &mut Net) -> (MemoryLink, Wire, Opened, unbroken::ResumableTransport) {
    let (mut link, wire) = net.raw_link();
    let opened = raw_peer::open(&mut link).await.expect("a session");
    let server = net.opened().await;
    (link, wire, opened, server)
}

#[tokio::test(start_paused = true)]
async fn message_3_of_an_older_request_than_the_last_attached_is_closed() {
    let mut net = Net::new(&plain(), ROOMY);
    let (_first, _, opened, mut server) = raw_session(&mut net).await;
    let mut requested = Vec::new();
    for _ in 0..4 {
        let (mut link, wire) = net.raw_link();
        let (mut machine, reply) = raw_peer::request(&mut link, &opened, 100, 0)
            .await
            .expect("an answer");
        assert!(matches!(reply, ResumeReply::Granted { .. }));
        machine.confirm();
        requested.push((link, wire, machine));
    }
    let (up, down) = (pattern(1, 40), pattern(2, 40));
    let mut carrying = usize::MAX;
    // The third proves itself first, then an older one, then the newest, then an older one again.
    for (turn, (number, attaches)) in [(2, true), (0, false), (3, true), (1, false)]
        .into_iter()
        .enumerate()
    {
        let so_far = 10 * turn;
        let (link, wire, machine) = &mut requested[number];
        raw_peer::drive(link, machine).await.expect("room");
        let outcome = net.outcome().await;
        if attaches {
            assert!(matches!(outcome, Ok(Accepted::Resumed(_))), "{outcome:?}");
            carrying = number;
            // Each was granted when neither end had sent anything.
            expect(link, &down[..so_far]).await;
            send(link, &up[..so_far]).await;
        } else {
            assert!(
                matches!(outcome, Err(Error::Resume(ResumeError::Stale))),
                "{outcome:?}"
            );
            assert!(closes_silently(link).await);
            assert_eq!(wire.written(Server).len(), REPLY);
        }
        let (link, ..) = &mut requested[carrying];
        send(&mut server, &down[so_far..so_far + 10]).await;
        expect(link, &down[so_far..so_far + 10]).await;
        send(link, &up[so_far..so_far + 10]).await;
        expect(&mut server, &up[so_far..so_far + 10]).await;
    }
    assert_eq!(server.handle().stats().resumes, 2);
}

#[tokio::test(start_paused = true)]
async fn an_opens_proof_after_a_resumes_is_closed_and_the_session_opens_once() {
    for proves_at_all in [true, false] {
        let mut net = Net::new(&plain(), ROOMY);
        // Message 3 is still on its way...
        let (mut first, first_wire) = net.raw_link();
        let mut open = raw_peer::begin_open(&mut first).await.expect("message 2");
        let opened = open.opened().expect("named").clone();
        // ... when the client comes back on another link, twice.
        let (mut second, _) = net.raw_link();
        let (mut machine, reply) = raw_peer::request(&mut second, &opened, 5, 0)
            .await
            .expect("an answer");
        let ResumeReply::Granted { counts, .. } = reply else {
            panic!("a session that was named is refused");
        };
        assert_eq!((counts.sent, counts.received), (0, 0));
        let (mut third, _) = net.raw_link();
        let (mut newest, _) = raw_peer::request(&mut third, &opened, 5, 0)
            .await
            .expect("an answer");
        machine.confirm();
        raw_peer::drive(&mut second, &mut machine)
            .await
            .expect("room");
        let mut server = net.opened().await;
        send(&mut second, b"hello").await;
        expect(&mut server, b"hello").await;
        if proves_at_all {
            raw_peer::drive(&mut first, &mut open).await.expect("room");
            assert!(matches!(
                net.failure().await,
                Error::Resume(ResumeError::Stale)
            ));
            assert!(closes_silently(&mut first).await);
            assert_eq!(first_wire.written(Server).len(), REPLY);
        } else {
            drop(first);
            assert!(matches!(net.failure().await, Error::Link(_)));
        }
        // The other resume is newer, and of a session that exists by now.
        newest.confirm();
        raw_peer::drive(&mut third, &mut newest)
            .await
            .expect("room");
        assert!(matches!(net.outcome().await, Ok(Accepted::Resumed(_))));
        send(&mut third, b"hello").await;
        send(&mut third, b"again").await;
        // The first 5 bytes were counted between its request and its proof.
        expect(&mut server, b"again").await;
        expect_nothing(&mut server).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_named_is_resumable_for_the_resume_window() {
    let window = Duration::from_secs(100);
    let config = plain().resume_window(window);
    for (after, resumable) in [(99, true), (100, false)] {
        let mut net = Net::new(&config, ROOMY);
        let (mut first, _) = net.raw_link();
        let machine = raw_peer::begin_open(&mut first).await.expect("message 2");
        let opened = machine.opened().expect("named").clone();
        tokio::time::sleep(Duration::from_secs(after)).await;
        assert!(matches!(net.failure().await, Error::HandshakeTimeout));
        let (mut second, _) = net.raw_link();
        let resumed = raw_peer::resume(&mut second, &opened, 0, 0).await;
        assert_eq!(resumed.is_ok(), resumable, "{resumed:?} after {after} s");
        if resumable {
            net.opened().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn zeros_are_sent_for_final_reasons() {
    let config = plain_history(100);
    let mut net = Net::new(&config, ROOMY);
    let (mut link, _, opened, mut server) = raw_session(&mut net).await;
    for part in pattern(0, 250).chunks(50) {
        send(&mut server, part).await;
        expect(&mut link, part).await;
    }
    send(&mut link, b"12345").await;
    expect(&mut server, b"12345").await;
    let other_key = Opened {
        id: opened.id,
        key: SessionKey::new([7; 8]),
    };
    let unknown = Opened {
        id: opened.id ^ 1,
        key: opened.key.clone(),
    };
    let cases = [
        (&unknown, 5, 250, ResumeError::Unknown),
        (&other_key, 5, 250, ResumeError::Proof),
        (&opened, 5, 251, ResumeError::ReceivedTooMuch),
        (&opened, 4, 250, ResumeError::SentTooLittle),
        (&opened, 5, 149, ResumeError::Gap),
    ];
    for (session, sent, received, why) in cases {
        let (mut link, _) = net.raw_link();
        let (_, reply) = raw_peer::request(&mut link, session, sent, received)
            .await
            .expect("an answer");
        assert_eq!(reply, ResumeReply::Refused, "{why}");
        drop(link);
        match net.failure().await {
            Error::Resume(error) => assert_eq!(error, why),
            error => panic!("{error:?}"),
        }
    }
    // At the edges it is granted.
    for (sent, received) in [(5, 250), (5, 150), (1000, 250)] {
        let (mut link, _) = net.raw_link();
        let (_, reply) = raw_peer::request(&mut link, &opened, sent, received)
            .await
            .expect("an answer");
        assert!(
            matches!(reply, ResumeReply::Granted { .. }),
            "{sent} {received}"
        );
        drop(link);
        assert!(matches!(net.failure().await, Error::Link(_)));
    }
    send(&mut server, b"alive").await;
    expect(&mut link, b"alive").await;
}

#[tokio::test(start_paused = true)]
async fn overload_closes_without_zeros_and_passes() {
    let config = plain().max_sessions(1);
    let mut net = Net::new(&config, ROOMY);
    // Named while there is room...
    let (mut first, _) = net.raw_link();
    let mut open = raw_peer::begin_open(&mut first).await.expect("message 2");
    let opened = open.opened().expect("named").clone();
    // ... which is taken by the time it proves itself.
    let (link, _, _, server) = raw_session(&mut net).await;
    raw_peer::drive(&mut first, &mut open).await.expect("room");
    assert!(closes_silently(&mut first).await);
    assert!(matches!(net.failure().await, Error::Overloaded(_)));
    // A hello gets no answer at all, a resume none after the grant.
    let (mut another, _) = net.raw_link();
    send(&mut another, &[0, 1, 2, 3, 4, 5, 6, 7, 8]).await;
    assert!(closes_silently(&mut another).await);
    assert!(matches!(net.failure().await, Error::Overloaded(_)));
    let (mut second, _) = net.raw_link();
    raw_peer::resume(&mut second, &opened, 0, 0)
        .await
        .expect("granted");
    assert!(closes_silently(&mut second).await);
    assert!(matches!(net.failure().await, Error::Overloaded(_)));
    // There is room again: the session that was named opens after all.
    drop((link, server));
    tokio::time::sleep(Duration::from_secs(61)).await;
    let (mut third, _) = net.raw_link();
    raw_peer::resume(&mut third, &opened, 0, 0)
        .await
        .expect("granted");
    let mut server = net.opened().await;
    send(&mut server, b"alive").await;
    expect(&mut third, b"alive").await;
}

/// What it has sent is kept for the peer, so memory is free again when the session is over and not before.
#[tokio::test(start_paused = true)]
async fn a_used_up_memory_budget_closes_without_zeros_and_passes() {
    const HISTORY: usize = 64 << 10;
    let memory = unbroken::MemoryBudget::new(2 * HISTORY);
    let config = plain_history(HISTORY)
        .window(HISTORY)
        .memory_budget(memory.clone());
    let mut net = Net::new(&config, ROOMY);
    let mut open = Vec::new();
    for _ in 0..2 {
        let (mut client, mut server) = net.open(&plain_history(HISTORY)).await;
        let bytes = pattern(1, 4 * HISTORY);
        for part in bytes.chunks(10_000) {
            send(&mut server, part).await;
            expect(&mut client, part).await;
        }
        open.push((client, server));
    }
    assert_eq!(memory.used(), memory.bytes());
    let (mut another, _) = net.raw_link();
    send(&mut another, &[0, 1, 2, 3, 4, 5, 6, 7, 8]).await;
    assert!(closes_silently(&mut another).await);
    assert!(matches!(net.failure().await, Error::Overloaded(_)));
    // Those that run go on, and are resumed.
    let (client, server) = &mut open[0];
    net.wire(0).cut(Fault::Reset);
    resumed(&client.handle(), 1).await;
    send(client, b"up").await;
    expect(server, b"up").await;
    let (client, server) = open.pop().expect("two are open");
    server.handle().close(1);
    drop((client, server));
    let (mut client, mut server) = net.open(&plain_history(HISTORY)).await;
    exchange(&mut client, &mut server).await;
}

#[tokio::test(start_paused = true)]
async fn an_evicted_or_late_handshake_closes_without_zeros() {
    let config = plain().max_handshakes(1);
    let mut net = Net::new(&config, ROOMY);
    let (_live, _, opened, _server) = raw_session(&mut net).await;
    let (mut first, _) = net.raw_link();
    raw_peer::request(&mut first, &opened, 0, 0)
        .await
        .expect("granted");
    // Makes room for another, which is then too late.
    let (mut second, _) = net.raw_link();
    assert!(closes_silently(&mut first).await);
    assert!(matches!(net.failure().await, Error::Overloaded(_)));
    raw_peer::request(&mut second, &opened, 0, 0)
        .await
        .expect("granted");
    assert!(closes_silently(&mut second).await);
    assert!(matches!(net.failure().await, Error::HandshakeTimeout));
    // A proof that is wrong.
    let (mut third, _) = net.raw_link();
    raw_peer::request(&mut third, &opened, 0, 0)
        .await
        .expect("granted");
    send(&mut third, &[0; 16]).await;
    assert!(closes_silently(&mut third).await);
    assert!(matches!(
        net.failure().await,
        Error::Handshake(HandshakeError::Proof)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_server_reads_nothing_past_message_3_before_it_attaches() {
    let net = Net::new(&plain(), ROOMY);
    let acceptor = net.acceptor();
    let (mut peer, end, wire) = link(ROOMY);
    let client = tokio::spawn(async move {
        let mut machine = raw_peer::begin_open(&mut peer).await.expect("message 2");
        // The proof and the first data in one segment.
        let mut segment = machine.transmit().to_vec();
        segment.extend(b"first data");
        peer.write_all(&segment).await.expect("room");
        machine.transmitted(16);
        (peer, machine.opened().expect("named").clone())
    });
    let accepted = acceptor.accept(end).await;
    // No other task has run since.
    assert_eq!(wire.delivered(Client), OPEN_SENT);
    let Ok(Accepted::New(mut server)) = accepted else {
        panic!("{accepted:?} is no new session");
    };
    let (_old, opened) = client.await.expect("no panic");
    expect(&mut server, b"first data").await;

    let (mut peer, end, wire) = link(ROOMY);
    let client = tokio::spawn(async move {
        let (mut machine, _) = raw_peer::request(&mut peer, &opened, 20, 0)
            .await
            .expect("granted");
        machine.confirm();
        let mut segment = machine.transmit().to_vec();
        segment.extend(b"more of it");
        peer.write_all(&segment).await.expect("room");
        peer
    });
    let accepted = acceptor.accept(end).await;
    assert_eq!(wire.delivered(Client), RESUME_SENT);
    assert!(matches!(accepted, Ok(Accepted::Resumed(_))));
    expect(&mut server, b"more of it").await;
    drop(client.await);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_arrive_twice_are_dropped() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut old, _, opened, mut server) = raw_session(&mut net).await;
    let bytes = pattern(1, 300);
    send(&mut old, &bytes[..100]).await;
    until("the first bytes", || {
        (server.handle().stats().received == 100).then_some(())
    })
    .await;
    let (mut new, _) = net.raw_link();
    let (mut machine, reply) = raw_peer::request(&mut new, &opened, 250, 0)
        .await
        .expect("granted");
    let ResumeReply::Granted { counts, .. } = reply else {
        panic!("refused");
    };
    assert_eq!(counts.received, 100);
    // Under way on the old link while the count was on its way back.
    send(&mut old, &bytes[100..220]).await;
    until("what was under way", || {
        (server.handle().stats().received == 220).then_some(())
    })
    .await;
    machine.confirm();
    raw_peer::drive(&mut new, &mut machine).await.expect("room");
    // One byte at a time, across the border of old and new.
    for byte in &bytes[100..] {
        new.write_u8(*byte).await.expect("room");
        tokio::task::yield_now().await;
    }
    expect(&mut server, &bytes).await;
    expect_nothing(&mut server).await;
    assert_eq!(server.handle().stats().received, 300);
}

#[tokio::test(start_paused = true)]
async fn ids_carry_the_route() {
    for route in [0, 0xbeef, 0xffff] {
        let config: Config = plain().route(route);
        let mut net = Net::new(&config, ROOMY);
        let (mut client, mut server) = net.open(&plain()).await;
        exchange(&mut client, &mut server).await;
        net.newest().cut(super::memory_link::Fault::Reset);
        resumed(&client.handle(), 1).await;
        let request = net.newest().written(Client);
        assert_eq!(request[0], 0xff);
        // The top 16 bits of a little-endian number of 8 bytes from 1 on.
        assert_eq!(
            u32::from(u16::from_le_bytes([request[7], request[8]])),
            route
        );
        let id = client.handle().id().to_string();
        assert_eq!(id[..4], format!("{route:04x}"));
        assert_eq!(id[16..], "0".repeat(16));
        assert_eq!(server.handle().id(), client.handle().id());
    }
}
