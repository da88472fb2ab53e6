//! Of the Go implementation of snet: resumes. What can be is tested over both protocols.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    time::{Instant, timeout},
};
use unbroken::{Config, Error, LinkState, ResumeError, Snet, protocol::snet::ResumeReply};

use super::{
    memory_link::{Client, Fault, Server},
    memory_net::{
        Dial, Net, Protocol, REPLY, ROOMY, connected, exchange, expect, expect_nothing, native,
        over_both, pattern, plain, plain_history, send, until, within,
    },
    raw_peer,
    stream_on::stream_on,
};

over_both!(
    snet_go_01_resumes_in_a_row_deliver_exactly_once_though_nothing_is_read,
    snet_go_01_resumes_in_a_row_deliver_exactly_once_while_replays_are_half_read,
    snet_go_02_a_resume_that_fails_half_way_leaves_both_counts_true,
    snet_go_03_a_half_open_old_link_does_not_block_the_resume,
    snet_go_04_a_replayed_resume_request_leaves_the_live_session_alone,
    snet_go_06_what_is_under_way_stays_within_the_history,
    snet_go_08_the_callers_buffer_is_never_changed,
    snet_go_10_a_cancelled_or_timed_out_read_costs_nothing,
    snet_go_10_a_cancelled_write_has_taken_nothing,
    snet_go_12_ids_and_keys_are_random,
);

/// How much an application reads between two resumes.
async fn n_resumes_in_a_row(protocol: Protocol, read_between: usize) {
    // Links that hold less than what is replayed.
    let mut net = Net::new(&protocol.config(), 700);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    let (up, down) = (pattern(1, 12_000), pattern(2, 12_000));
    let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
    for turn in 0..12 {
        let part = turn * 1000..(turn + 1) * 1000;
        client.write_all(&up[part.clone()]).await.expect("writing");
        server.write_all(&down[part]).await.expect("writing");
        for (end, got) in [(&mut client, &mut got_down), (&mut server, &mut got_up)] {
            let mut bytes = vec![0; read_between];
            let count = match timeout(Duration::from_millis(1), end.read(&mut bytes)).await {
                Ok(count) => count.expect("reading"),
                Err(_) => 0,
            };
            got.extend(&bytes[..count]);
        }
        net.cut_and_resume(&client, &server).await;
        if turn % 3 == 0 {
            // Once more, before anything has moved.
            net.cut_and_resume(&client, &server).await;
        }
    }
    expect(&mut server, &up[got_up.len()..]).await;
    expect(&mut client, &down[got_down.len()..]).await;
    assert!(up.starts_with(&got_up) && down.starts_with(&got_down));
    expect_nothing(&mut server).await;
    expect_nothing(&mut client).await;
    assert!(client.handle().stats().replayed > 0, "nothing was replayed");
}

async fn snet_go_01_resumes_in_a_row_deliver_exactly_once_though_nothing_is_read(
    protocol: Protocol,
) {
    n_resumes_in_a_row(protocol, 0).await;
}

async fn snet_go_01_resumes_in_a_row_deliver_exactly_once_while_replays_are_half_read(
    protocol: Protocol,
) {
    n_resumes_in_a_row(protocol, 450).await;
}

async fn snet_go_02_a_resume_that_fails_half_way_leaves_both_counts_true(protocol: Protocol) {
    const DATA: usize = 60;
    // Into native's frames as well, up to their last.
    let frames = match protocol {
        Protocol::Snet => 0,
        Protocol::Native => 80,
    };
    let up = protocol.resume_sent() + DATA + frames;
    let down = protocol.resume_reply() + DATA + frames;
    let cuts_up = (0..=up).map(|at| Dial::CutAt(Client, at));
    let cuts_down = (0..=down).map(|at| Dial::CutAt(Server, at));
    for cut in cuts_up.chain(cuts_down) {
        let mut net = Net::new(&protocol.config(), ROOMY);
        let (mut client, mut server) = net.open(&protocol.config()).await;
        exchange(&mut client, &mut server).await;
        let (up, down) = (pattern(1, DATA), pattern(2, DATA));
        // Lost with the link: under way to ends that are not read.
        net.newest().cut(Fault::Deaf);
        send(&mut client, &up).await;
        send(&mut server, &down).await;
        net.plan([cut]);
        net.newest().cut(Fault::Reset);
        until("the link after the one that was cut", || {
            (net.links() >= 2).then_some(())
        })
        .await;
        // Wherever the cut falls, the application reads while it does.
        tokio::join!(expect(&mut server, &up), expect(&mut client, &down));
        expect_nothing(&mut server).await;
        expect_nothing(&mut client).await;
        exchange(&mut client, &mut server).await;
    }
}

async fn snet_go_03_a_half_open_old_link_does_not_block_the_resume(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), 100);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    exchange(&mut client, &mut server).await;
    // The server hears nothing of the link's end, and hangs on it reading and writing.
    let old = net.newest();
    old.cut_end(Server, Fault::Stall);
    let written = old.written(Server).len();
    let down = pattern(1, 5000);
    let (mut reading, mut writing) = tokio::io::split(server);
    let to_write = down.clone();
    let writer = tokio::spawn(async move {
        send(&mut writing, &to_write).await;
        writing
    });
    let reader = tokio::spawn(async move {
        expect(&mut reading, b"over the new link").await;
        reading
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(old.written(Server).len(), written, "the link does not hang");

    let cut_at = Instant::now();
    old.cut_end(Client, Fault::Reset);
    expect(&mut client, &down).await;
    send(&mut client, b"over the new link").await;
    let (reading, writing) = within("both tasks", async {
        (
            reader.await.expect("no panic"),
            writer.await.expect("no panic"),
        )
    })
    .await;
    server = reading.unsplit(writing);
    assert!(
        cut_at.elapsed() < Duration::from_millis(50),
        "{:?} to resume beside a link that hangs",
        cut_at.elapsed()
    );
    assert!(old.dropped(Server).is_some(), "the old link is still open");
    exchange(&mut client, &mut server).await;
}

async fn snet_go_04_a_replayed_resume_request_leaves_the_live_session_alone(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), ROOMY);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    exchange(&mut client, &mut server).await;
    net.cut_and_resume(&client, &server).await;
    let live = net.newest();
    // A perfect copy, as long as nothing was sent since. In native every attempt has a number: of one that the server has not seen.
    let stolen = match protocol {
        Protocol::Snet => live.written(Client)[..41].to_vec(),
        Protocol::Native => {
            net.plan([Dial::Ignore]);
            let moved = within("the migration", client.handle().migrate()).await;
            assert!(matches!(moved, Err(Error::HandshakeTimeout)), "{moved:?}");
            net.newest().written(Client)
        }
    };
    while !matches!(net.outcome().await, Ok(unbroken::Accepted::Resumed(_))) {}

    // The server asks for the proof, which never comes.
    let (mut thief, _) = net.raw_link();
    send(&mut thief, &stolen).await;
    let mut reply = vec![0; protocol.resume_reply()];
    thief.read_exact(&mut reply).await.expect("an answer");
    assert_ne!(reply, vec![0; reply.len()]);
    let began = Instant::now();
    for _ in 0..100 {
        exchange(&mut client, &mut server).await;
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "the live session waited");

    // Later snet's counts cannot be: refused, which is no more of an event. native's is asked for its proof once more.
    let (mut thief, _) = net.raw_link();
    send(&mut thief, &stolen).await;
    thief.read_exact(&mut reply).await.expect("an answer");
    assert_eq!(reply == [0; REPLY], protocol == Protocol::Snet);
    exchange(&mut client, &mut server).await;
    assert_eq!(began.elapsed(), Duration::ZERO, "the live session waited");

    tokio::time::sleep(Duration::from_secs(60)).await;
    exchange(&mut client, &mut server).await;
    assert_eq!(live.dropped(Client).or(live.dropped(Server)), None);
    assert_eq!(client.handle().stats().resumes, 1);
    assert_eq!(server.handle().stats().resumes, 1);
}

#[tokio::test(start_paused = true)]
async fn snet_go_05_a_peers_counts_size_nothing() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut raw, _) = net.raw_link();
    let opened = raw_peer::open(&mut raw).await.expect("a session");
    let mut server = net.opened().await;
    for (sent, received) in [
        (u64::MAX, u64::MAX),
        (0, u64::MAX),
        (0, 1 << 40),
        (u64::MAX, 1),
    ] {
        let (mut link, _) = net.raw_link();
        let (_, reply) = raw_peer::request(&mut link, &opened, sent, received)
            .await
            .expect("an answer");
        assert_eq!(reply, ResumeReply::Refused, "{sent} {received}");
        drop(link);
        assert!(matches!(
            net.failure().await,
            Error::Resume(ResumeError::ReceivedTooMuch)
        ));
    }
    // Bytes that were never sent are no reason to refuse: they may be under way. Nor are they one to make room for them.
    let (mut link, _) = net.raw_link();
    let counts = raw_peer::resume(&mut link, &opened, u64::MAX, 0).await;
    assert_eq!(counts.expect("the counts").received, 0);
    send(&mut link, b"alive").await;
    expect(&mut server, b"alive").await;
}

async fn snet_go_06_what_is_under_way_stays_within_the_history(protocol: Protocol) {
    const HISTORY: usize = 1024;
    let config = protocol.keeping(HISTORY);
    // Both buffers on the way hold half the history, as the socket buffers of both ends do.
    let mut net = Net::new(&config, HISTORY / 2);
    let (client, server) = net.open(&config).await;
    let (client_handle, server_handle) = (client.handle(), server.handle());
    let bytes = pattern(1, 100_000);
    let copy = |mut end: unbroken::ResumableTransport, bytes: Vec<u8>| async move {
        // All at once, as far as the session takes it: cuts find as much under way as there can be.
        let (mut reading, mut writing) = tokio::io::split(&mut end);
        tokio::join!(send(&mut writing, &bytes), async {
            for part in bytes.chunks(HISTORY) {
                expect(&mut reading, part).await;
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
        });
        end
    };
    let client = tokio::spawn(copy(client, bytes.clone()));
    let server = tokio::spawn(copy(server, bytes));
    let mut cuts = 0;
    while !(client.is_finished() && server.is_finished()) {
        tokio::time::sleep(Duration::from_millis(61)).await;
        connected(&client_handle).await;
        connected(&server_handle).await;
        net.newest().cut(Fault::Reset);
        cuts += 1;
    }
    assert!(cuts > 5, "{cuts} cuts prove little");
    let (mut client, mut server) = within("both", async {
        (
            client.await.expect("no panic"),
            server.await.expect("no panic"),
        )
    })
    .await;
    exchange(&mut client, &mut server).await;
}

async fn snet_go_08_the_callers_buffer_is_never_changed(protocol: Protocol) {
    let config = match protocol {
        Protocol::Snet => Config::new().snet(Snet::rc4().silence(None)),
        Protocol::Native => native(),
    };
    let mut net = Net::new(&config, ROOMY);
    let (mut client, mut server) = net.open(&config).await;
    let bytes = pattern(1, 3000);
    let buffer = bytes.clone();
    client.write_all(&buffer).await.expect("writing");
    let slices = [
        std::io::IoSlice::new(&buffer[..1000]),
        std::io::IoSlice::new(&buffer[1000..]),
    ];
    let count = client.write_vectored(&slices).await.expect("writing");
    assert_eq!((count, &buffer), (3000, &bytes));
    if protocol == Protocol::Snet {
        let on_the_wire = stream_on(protocol, &net.newest(), Client);
        assert_eq!(on_the_wire.len(), 6000);
        assert_ne!(on_the_wire[..3000], bytes, "nothing was encrypted");
    }
    net.cut_and_resume(&client, &server).await;
    expect(&mut server, &bytes).await;
    expect(&mut server, &bytes).await;
    assert_eq!(buffer, bytes);
}

async fn snet_go_10_a_cancelled_or_timed_out_read_costs_nothing(protocol: Protocol) {
    let mut net = Net::new(&protocol.config(), ROOMY);
    let (mut client, mut server) = net.open(&protocol.config()).await;
    let bytes = pattern(1, 500);
    let to_send = bytes.clone();
    let writer = tokio::spawn(async move {
        for byte in to_send {
            server.write_u8(byte).await.expect("writing");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        server
    });
    let other = Arc::new(Notify::new());
    let (mut timed_out, mut cancelled) = (0, 0);
    let mut got: Vec<u8> = Vec::new();
    let mut buffer = [0; 16];
    while got.len() < bytes.len() {
        // Some reads end just when a byte arrives, some long before.
        let limit = Duration::from_millis(1 + got.len() as u64 % 4);
        match timeout(limit, client.read(&mut buffer)).await {
            Ok(count) => got.extend(&buffer[..count.expect("reading")]),
            Err(_) => timed_out += 1,
        }
        other.notify_one();
        tokio::select! {
            count = client.read(&mut buffer) => got.extend(&buffer[..count.expect("reading")]),
            () = other.notified() => cancelled += 1,
        }
    }
    assert_eq!(got, bytes);
    assert!(timed_out > 50 && cancelled > 50, "{timed_out} {cancelled}");
    let mut server = within("the writer", writer).await.expect("no panic");
    exchange(&mut client, &mut server).await;
    assert_eq!(net.links(), 1, "the link was replaced");
    assert_eq!(client.handle().state(), LinkState::Connected);
}

async fn snet_go_10_a_cancelled_write_has_taken_nothing(protocol: Protocol) {
    let config = protocol.keeping(256);
    let mut net = Net::new(&config, 64);
    let (mut client, mut server) = net.open(&config).await;
    let bytes = pattern(1, 5000);
    let (mut sent, mut cancelled) = (0, 0);
    let mut got: Vec<u8> = Vec::new();
    while got.len() < bytes.len() {
        let part = &bytes[sent..bytes.len().min(sent + 100)];
        let mut full = part.is_empty();
        match timeout(Duration::from_millis(1), client.write(part)).await {
            Ok(count) => sent += count.expect("writing"),
            Err(_) => {
                cancelled += 1;
                full = true;
            }
        }
        if full {
            let mut buffer = [0; 512];
            let count = within("reading", server.read(&mut buffer)).await;
            got.extend(&buffer[..count.expect("reading")]);
        }
    }
    assert_eq!(got, bytes);
    assert!(cancelled > 5, "{cancelled}");
    assert_eq!(net.links(), 1);
}

async fn snet_go_12_ids_and_keys_are_random(protocol: Protocol) {
    const SESSIONS: usize = 200;
    let mut net = Net::new(&protocol.config(), ROOMY);
    let mut numbers = vec![Vec::new(); 8];
    let mut sessions = Vec::new();
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    for _ in 0..SESSIONS {
        let (client, server) = net.open(&protocol.config()).await;
        assert_eq!(client.handle().id(), server.handle().id());
        let id = u128::from_str_radix(&client.handle().id().to_string(), 16).expect("hex digits");
        let (hello, reply) = (net.newest().written(Client), net.newest().written(Server));
        numbers[0].push((id >> 64) as u64);
        match protocol {
            // Both ends' public keys, and the challenge.
            Protocol::Snet => {
                numbers[1].push(number(&hello[1..9]));
                numbers[2].push(number(&reply[..8]));
                numbers[3].push(number(&reply[16..24]));
            }
            // The rest of the id, the secret, and the nonces of a resume.
            Protocol::Native => {
                numbers[1].push(id as u64);
                for (slot, part) in (2..).zip(reply[20..52].chunks(8)) {
                    numbers[slot].push(number(part));
                }
                within("moving", client.handle().migrate())
                    .await
                    .expect("it moves");
                let (ask, answer) = (net.newest().written(Client), net.newest().written(Server));
                numbers[6].push(number(&ask[40..48]));
                numbers[7].push(number(&answer[4..12]));
            }
        }
        // Alive, so that the newest link is always the next session's.
        sessions.push((client, server));
    }
    // A random bit has one value throughout in one of 2^199 runs.
    for (slot, numbers) in numbers
        .iter()
        .enumerate()
        .filter(|(_, numbers)| !numbers.is_empty())
    {
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), SESSIONS, "some came twice");
        // The top 16 bits of snet's are the route.
        let bits = if (protocol, slot) == (Protocol::Snet, 0) {
            48
        } else {
            64
        };
        for bit in 0..bits {
            let ones = numbers.iter().filter(|number| **number >> bit & 1 == 1);
            let share = ones.count() as f64 / numbers.len() as f64;
            assert!((0.2..=0.8).contains(&share), "{slot}, bit {bit}: {share}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn goscon_14_nothing_switches_before_the_replay_is_known_to_be_possible() {
    let config = plain_history(1000);
    let mut net = Net::new(&config, ROOMY);
    let (mut old, old_wire) = net.raw_link();
    let opened = raw_peer::open(&mut old).await.expect("a session");
    let mut server = net.opened().await;
    send(&mut server, &pattern(0, 100)).await;
    expect(&mut old, &pattern(0, 100)).await;

    // Granted, with counts that are right...
    let (mut new, _) = net.raw_link();
    let (mut machine, reply) = raw_peer::request(&mut new, &opened, 0, 100)
        .await
        .expect("an answer");
    assert!(matches!(reply, ResumeReply::Granted { .. }));
    // ... but by the time of the proof the history has moved on, over the old link.
    let bytes = pattern(1, 5000);
    for part in bytes.chunks(500) {
        send(&mut server, part).await;
        expect(&mut old, part).await;
    }
    machine.confirm();
    raw_peer::drive(&mut new, &mut machine).await.expect("sent");
    assert!(
        within("the new link's end", raw_peer::closes_silently(&mut new)).await,
        "zeros or data on a link that cannot be resumed on"
    );
    assert!(matches!(
        net.failure().await,
        Error::Resume(ResumeError::Gap)
    ));
    assert_eq!(old_wire.dropped(Server), None);
    send(&mut server, b"goes on").await;
    expect(&mut old, b"goes on").await;
    send(&mut old, b"both ways").await;
    expect(&mut server, b"both ways").await;
    assert_eq!(server.handle().stats().resumes, 0);

    // Asked again, it is known at once.
    let (mut new, _) = net.raw_link();
    let (_, reply) = raw_peer::request(&mut new, &opened, 9, 100)
        .await
        .expect("an answer");
    assert_eq!(reply, ResumeReply::Refused);
    drop(new);
    send(&mut server, b"and on").await;
    expect(&mut old, b"and on").await;
}
