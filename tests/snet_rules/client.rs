//! When a client moves to a new link though it has one: asked to, or in doubt.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    time::{Instant, timeout},
};
use tower::ServiceExt;
use unbroken::{CloseReason, Config, Connector, Error, LinkState, Snet};

use super::{
    memory_link::{Client, Fault, Server},
    memory_net::{
        Dial, Net, REPLY, ROOMY, closed, exchange, expect, expect_nothing, pattern, plain,
        plain_history, resumed, send, stream, until, within,
    },
    raw_peer,
};

const SILENCE: Duration = Duration::from_secs(12);

fn silence() -> Config {
    Config::new().snet(Snet::plain().silence(SILENCE).history(1000))
}

#[tokio::test(start_paused = true)]
async fn a_migration_dials_first_and_closes_the_old_link_before_it_asks() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut client, mut server) = net.open(&plain()).await;
    let old = net.newest();
    let go_on = Arc::new(Notify::new());
    net.plan([Dial::Wait(go_on.clone())]);
    let handle = client.handle();
    let migrating = tokio::spawn(async move { handle.migrate().await });
    until("the dial", || (net.dials().len() == 2).then_some(())).await;
    // While it is dialled, the old link goes on.
    let began = Instant::now();
    for _ in 0..10 {
        exchange(&mut client, &mut server).await;
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(client.handle().state(), LinkState::Connected);
    assert!(!migrating.is_finished());
    go_on.notify_one();
    within("the migration", migrating)
        .await
        .expect("no panic")
        .expect("it moves");
    let closed = old.dropped(Client).expect("the old link is closed");
    let asked = net
        .newest()
        .first_written(Client)
        .expect("the new link carries a request");
    assert!(closed < asked, "asked while the old link was still open");
    exchange(&mut client, &mut server).await;
    assert_eq!((net.links(), client.handle().stats().resumes), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_or_written_on_the_old_link_after_the_counts_are_taken() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut client, mut server) = net.open(&plain()).await;
    let old = net.newest();
    net.plan([Dial::Ignore]);
    let handle = client.handle();
    let migrating = tokio::spawn(async move { handle.migrate().await });
    let mut silent = net.ignored().await;
    let mut request = [0; 41];
    within("the request", silent.read_exact(&mut request))
        .await
        .expect("a request");
    let (read, written) = (old.delivered(Server), old.written(Client).len());
    let (up, down) = (pattern(1, 500), pattern(2, 500));
    send(&mut client, &up).await;
    send(&mut server, &down).await;
    expect_nothing(&mut client).await;
    assert_eq!(old.delivered(Server), read);
    assert_eq!(old.written(Client).len(), written);
    // The one that was asked says nothing; the next attempt carries it all.
    drop(silent);
    within("the migration", migrating)
        .await
        .expect("no panic")
        .expect("it moves");
    expect(&mut server, &up).await;
    expect(&mut client, &down).await;
}

#[tokio::test(start_paused = true)]
async fn a_migration_whose_dial_fails_leaves_the_old_link_in_use() {
    let config = plain().handshake_timeout(Duration::from_secs(3));
    let mut net = Net::new(&config, ROOMY);
    let (mut client, mut server) = net.open(&config).await;
    for dial in [Dial::Refuse, Dial::Hang] {
        let dials = net.dials().len();
        net.plan([dial]);
        // Both that ask hear of it.
        let (client_handle, another) = (client.handle(), client.handle());
        let (first, second) = within("the migration", async {
            tokio::join!(client_handle.migrate(), another.migrate())
        })
        .await;
        assert!(matches!(first, Err(Error::Dial(_))), "{first:?}");
        assert!(matches!(second, Err(Error::Dial(_))), "{second:?}");
        exchange(&mut client, &mut server).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(net.dials().len(), dials + 1, "it goes on trying");
    }
    assert_eq!((net.links(), client.handle().stats().resumes), (1, 0));
    assert_eq!(client.handle().state(), LinkState::Connected);
    // The next one finds its way.
    within("the migration", client.handle().migrate())
        .await
        .expect("it moves");
    exchange(&mut client, &mut server).await;
}

#[tokio::test(start_paused = true)]
async fn migrations_at_other_ends_and_times() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut client, mut server) = net.open(&plain()).await;
    assert!(matches!(
        server.handle().migrate().await,
        Err(Error::CannotDial)
    ));
    // A link that is lost meanwhile is no error.
    net.lose(&client, &server).await;
    let handle = client.handle();
    let migrating = tokio::spawn(async move { handle.migrate().await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!migrating.is_finished());
    net.set(Dial::Serve);
    within("the migration", migrating)
        .await
        .expect("no panic")
        .expect("it moves");
    exchange(&mut client, &mut server).await;
    // Whoever stops waiting does not stop it.
    let resumes = client.handle().stats().resumes;
    assert!(
        timeout(Duration::ZERO, client.handle().migrate())
            .await
            .is_err()
    );
    resumed(&client.handle(), resumes + 1).await;
    exchange(&mut client, &mut server).await;
    // A session that ends, or has ended.
    net.lose(&client, &server).await;
    net.set(Dial::Hang);
    let handle = client.handle();
    let migrating = tokio::spawn(async move { handle.migrate().await });
    assert_eq!(closed(&client.handle()).await, CloseReason::Expired);
    let ended = Err::<(), _>(CloseReason::Expired);
    for result in [
        within("the end", migrating).await.expect("no panic"),
        client.handle().migrate().await,
    ] {
        let result = result.map_err(|error| match error {
            Error::Closed(reason) => reason,
            error => panic!("{error:?}"),
        });
        assert_eq!(result, ended);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hears_nothing_resumes_on_a_new_link() {
    let mut net = Net::new(&silence(), ROOMY);
    let (mut client, mut server) = net.open(&silence()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    send(&mut server, b"heard").await;
    expect(&mut client, b"heard").await;
    // Black from here on: neither end notices.
    net.newest().cut(Fault::Stall);
    let heard = Instant::now();
    client.write_all(b"up").await.expect("room");
    server.write_all(b"down").await.expect("room");
    until("a resume", || {
        (client.handle().stats().resumes == 1).then_some(())
    })
    .await;
    let dialled = net.dials()[1].duration_since(heard);
    assert!(
        (SILENCE..SILENCE + Duration::from_millis(2)).contains(&dialled),
        "{dialled:?}"
    );
    expect(&mut client, b"down").await;
    expect(&mut server, b"up").await;
    // Where there is nothing to say, it costs a link each time.
    let before = net.links();
    tokio::time::sleep(10 * SILENCE).await;
    assert!((9..=10).contains(&(net.links() - before)));
    exchange(&mut client, &mut server).await;
}

#[tokio::test(start_paused = true)]
async fn bytes_keep_silence_away_and_none_turns_it_off() {
    let mut net = Net::new(&silence(), ROOMY);
    let (mut client, mut server) = net.open(&silence()).await;
    for _ in 0..20 {
        tokio::time::sleep(SILENCE - Duration::from_millis(10)).await;
        send(&mut server, b"x").await;
        // Read or not: the keeper hears it too.
    }
    assert_eq!(net.dials().len(), 1);
    expect(&mut client, &[b'x'; 20]).await;
    // A server has no such clock, and without one there is none.
    let mut net = Net::new(&silence(), ROOMY);
    let (mut client, mut server) = net.open(&plain_history(1000)).await;
    tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
    assert_eq!(net.dials().len(), 1);
    exchange(&mut client, &mut server).await;
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_silence_stands_while_the_application_does_not_read() {
    let mut net = Net::new(&silence(), 100);
    let (mut client, mut server) = net.open(&silence()).await;
    let bytes = pattern(1, 2000);
    let to_send = bytes.clone();
    let sending = tokio::spawn(async move {
        send(&mut server, &to_send[..1050]).await;
        // The receive buffer is full, and so is half the link: nothing can be heard.
        tokio::time::sleep(Duration::from_secs(60 * 60)).await;
        send(&mut server, &to_send[1050..]).await;
        server
    });
    tokio::time::sleep(Duration::from_secs(60 * 60 - 5)).await;
    assert_eq!(net.dials().len(), 1, "doubted though nobody read");
    expect(&mut client, &bytes[..10]).await;
    // There is room again: the clock starts anew, and what comes is heard.
    tokio::time::sleep(SILENCE - Duration::from_secs(2)).await;
    assert_eq!(net.dials().len(), 1);
    expect(&mut client, &bytes[10..]).await;
    let mut server = within("the sender", sending).await.expect("no panic");
    let read = Instant::now();
    until("a doubt", || (net.dials().len() > 1).then_some(())).await;
    assert!(net.dials()[1].duration_since(read) <= SILENCE + Duration::from_millis(2));
    exchange(&mut client, &mut server).await;
}

#[tokio::test(start_paused = true)]
async fn in_doubt_the_dial_is_tried_before_the_old_link_is_given_up() {
    let mut net = Net::new(&silence(), ROOMY);
    let (mut client, mut server) = net.open(&silence()).await;
    net.set(Dial::Refuse);
    tokio::time::sleep(SILENCE + Duration::from_secs(5)).await;
    let tried = net.dials().len();
    assert!(tried > 4, "{tried}");
    // The link was fine all the time, and one byte ends the doubt.
    assert_eq!(client.handle().state(), LinkState::Connected);
    send(&mut server, b"here").await;
    expect(&mut client, b"here").await;
    tokio::time::sleep(SILENCE - Duration::from_secs(1)).await;
    assert_eq!(net.dials().len(), tried, "still in doubt");
    exchange(&mut client, &mut server).await;
    assert_eq!((net.links(), client.handle().stats().resumes), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_byte_heard_during_the_dial_calls_the_resume_off() {
    let mut net = Net::new(&silence(), ROOMY);
    let (mut client, mut server) = net.open(&silence()).await;
    let go_on = Arc::new(Notify::new());
    for asked in [false, true] {
        net.plan([Dial::Wait(go_on.clone())]);
        let (dials, links) = (net.dials().len(), net.links());
        if asked {
            client.handle().network_changed();
        } else {
            tokio::time::sleep(SILENCE).await;
        }
        until("the dial", || (net.dials().len() > dials).then_some(())).await;
        send(&mut server, b"here").await;
        expect(&mut client, b"here").await;
        go_on.notify_one();
        until("the new link", || (net.links() > links).then_some(())).await;
        until("its end", || net.newest().dropped(Client)).await;
        assert!(net.newest().written(Client).is_empty());
        exchange(&mut client, &mut server).await;
    }
    assert_eq!(client.handle().stats().resumes, 0);
    assert_eq!(net.wire(0).dropped(Client), None);
}

#[tokio::test(start_paused = true)]
async fn a_changed_network_casts_doubt_on_a_link_that_looks_alive() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut client, mut server) = net.open(&plain()).await;
    net.newest().cut(Fault::Stall);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(net.dials().len(), 1);
    let changed = Instant::now();
    client.handle().network_changed();
    resumed(&client.handle(), 1).await;
    assert_eq!(net.dials()[1], changed);
    exchange(&mut client, &mut server).await;
    // At the other end it does nothing.
    server.handle().network_changed();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(net.dials().len(), 2);
    exchange(&mut client, &mut server).await;
}

/// The server's message proves nothing: whoever answered, its own server may yet be had.
#[tokio::test(start_paused = true)]
async fn counts_that_cannot_be_end_the_attempt_and_not_the_session() {
    let mut net = Net::new(&plain(), ROOMY);
    let (mut client, mut server) = net.open(&plain()).await;
    exchange(&mut client, &mut server).await;
    // Received more than was sent; sent less than was received.
    for [sent, received] in [[u64::MAX, u64::MAX], [0, 0]] {
        net.plan([Dial::Ignore]);
        net.lose(&client, &server).await;
        let mut impostor = net.ignored().await;
        let mut request = [0; 41];
        within("a request", impostor.read_exact(&mut request))
            .await
            .expect("a request");
        let reply = [sent, received, 1].map(u64::to_le_bytes).concat();
        impostor.write_all(&reply).await.expect("room");
        assert!(
            within("the end", raw_peer::closes_silently(&mut impostor)).await,
            "it proves nothing to such a server"
        );
        net.set(Dial::Serve);
        exchange(&mut client, &mut server).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_goes_out_as_it_did_the_first_time() {
    let config = Config::new().snet(Snet::rc4().silence(None));
    let mut net = Net::new(&config, ROOMY);
    let (mut client, mut server) = net.open(&config).await;
    exchange(&mut client, &mut server).await;
    net.newest().cut(Fault::Deaf);
    let (up, down) = (pattern(1, 500), pattern(2, 500));
    send(&mut client, &up).await;
    send(&mut server, &down).await;
    net.cut_and_resume(&client, &server).await;
    expect(&mut server, &up).await;
    expect(&mut client, &down).await;
    for (side, clear) in [(Client, &up), (Server, &down)] {
        let first = &stream(&net.wire(0), side)[300..];
        assert_eq!(first, stream(&net.wire(1), side));
        assert_ne!(first, clear);
    }
    // The keystreams go on where they were.
    exchange(&mut client, &mut server).await;
    net.cut_and_resume(&client, &server).await;
    exchange(&mut client, &mut server).await;
}

/// The application may ask for bytes before anything else has happened to its session.
#[tokio::test(start_paused = true)]
async fn a_session_whose_first_link_is_lost_can_be_read_at_once() {
    let mut net = Net::new(&plain(), ROOMY);
    net.plan([Dial::CutAt(Server, REPLY)]);
    let connector = Connector::new(net.dialer(), plain());
    let mut client = connector.oneshot(()).await.expect("it is named");
    let early = timeout(Duration::from_secs(1), client.read(&mut [0])).await;
    assert!(early.is_err(), "nothing was sent");
    let mut server = within("the session", net.session()).await;
    exchange(&mut client, &mut server).await;
}
