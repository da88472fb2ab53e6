//! Sessions in all and from each address.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::io::AsyncWriteExt;
use tower::Service;
use unbroken::{CloseReason, Error, Limit, ResumableTransport, reset};

use super::{
    addr, check_refused, mapped,
    memory_link::Fault,
    memory_net::{Dial, Net, Protocol, ROOMY, closed, exchange, over_both, resumed, within},
    of_subnet, open_from,
    raw_native::{self, Frames},
};

over_both!(
    an_address_opens_as_many_sessions_as_it_may_and_others_are_not_concerned,
    a_host_has_the_addresses_of_one_slash_64,
    links_without_an_address_count_for_none,
    however_a_session_ends_there_is_room_for_another,
    a_session_counts_for_the_address_that_opened_it_wherever_it_roams,
);

type Ends = (ResumableTransport, ResumableTransport);

/// Ends a session in order, and waits until the server has forgotten it.
async fn leave((client, server): Ends) {
    drop((client, server));
    // snet's are kept for as long as they may linger.
    tokio::time::sleep(Duration::from_secs(100)).await;
}

async fn an_address_opens_as_many_sessions_as_it_may_and_others_are_not_concerned(
    protocol: Protocol,
) {
    let config = protocol
        .config()
        .max_sessions_per_address(3)
        .max_sessions(7);
    let mut net = Net::new(&config, ROOMY);
    let mut open = Vec::new();
    for address in [1, 2] {
        for _ in 0..3 {
            open.push(
                open_from(&mut net, &config, addr(address))
                    .await
                    .expect("room"),
            );
        }
        for again in 0..3 {
            let more = open_from(&mut net, &config, addr(address)).await;
            check_refused(
                protocol,
                more,
                Limit::SessionsPerAddress,
                &format!("{again}"),
            );
        }
        let more = open_from(&mut net, &config, mapped(address)).await;
        check_refused(protocol, more, Limit::SessionsPerAddress, "mapped");
    }
    // Those that were refused have left nothing behind.
    open.push(open_from(&mut net, &config, mapped(3)).await.expect("room"));
    let more = open_from(&mut net, &config, addr(3)).await;
    check_refused(protocol, more, Limit::Sessions, "in all");
    for (client, server) in &mut open {
        exchange(client, server).await;
    }
    // One of the first address's leaves, and one of the first address's is let in.
    leave(open.remove(0)).await;
    let more = open_from(&mut net, &config, addr(2)).await;
    check_refused(
        protocol,
        more,
        Limit::SessionsPerAddress,
        "the other address",
    );
    open.push(open_from(&mut net, &config, mapped(1)).await.expect("room"));
    let more = open_from(&mut net, &config, addr(1)).await;
    assert!(more.is_err(), "there was room for one");
}

async fn a_host_has_the_addresses_of_one_slash_64(protocol: Protocol) {
    let config = protocol.config().max_sessions_per_address(2);
    let mut net = Net::new(&config, ROOMY);
    let mut open = Vec::new();
    for subnet in 0..10 {
        for _ in 0..2 {
            open.push(
                open_from(&mut net, &config, of_subnet(subnet))
                    .await
                    .expect("room"),
            );
        }
        let more = open_from(&mut net, &config, of_subnet(subnet)).await;
        check_refused(protocol, more, Limit::SessionsPerAddress, "the /64");
    }
}

async fn links_without_an_address_count_for_none(protocol: Protocol) {
    let config = protocol.config().max_sessions_per_address(1);
    let mut net = Net::new(&config, ROOMY);
    let mut open = vec![open_from(&mut net, &config, addr(1)).await.expect("room")];
    for _ in 0..5 {
        open.push(net.open(&config).await);
    }
    for (client, server) in &mut open {
        exchange(client, server).await;
    }
}

async fn however_a_session_ends_there_is_room_for_another(protocol: Protocol) {
    let window = Duration::from_secs(20);
    let config = protocol
        .config()
        .resume_window(window)
        .max_sessions_per_address(1);
    let mut net = Net::new(&config, ROOMY);
    let sessions = net.acceptor().sessions().expect("a right configuration");
    for round in 0..6 {
        let (mut client, mut server) = open_from(&mut net, &config, addr(1))
            .await
            .unwrap_or_else(|errors| panic!("{round}: {errors:?}"));
        exchange(&mut client, &mut server).await;
        let wire = net.newest();
        let refused = open_from(&mut net, &config, addr(1)).await;
        check_refused(protocol, refused, Limit::SessionsPerAddress, "one is open");
        let handle = server.handle();
        match round {
            0 => drop((client, server)),
            1 => {
                client.shutdown().await.expect("the server takes it");
                drop((client, server));
            }
            2 => assert!(sessions.close(handle.id(), 5)),
            3 => handle.close(6),
            4 => client.handle().close(7),
            _ => {
                // Nobody comes back for it.
                net.set(Dial::Refuse);
                wire.cut(Fault::Reset);
                assert_eq!(closed(&handle).await, CloseReason::Expired);
                net.set(Dial::Serve);
            }
        }
        // snet has no close: its client's end of it is an expiry.
        tokio::time::sleep(window * 4).await;
        assert_eq!(sessions.count(), 0, "{round}");
    }
    // The server goes, and with it what it held.
    let ends = open_from(&mut net, &config, addr(1)).await.expect("room");
    assert_eq!(sessions.shutdown(Duration::ZERO).await, 1);
    assert_eq!(sessions.count(), 0);
    let end = ends.1.handle();
    assert_eq!(
        closed(&end).await,
        CloseReason::LocalReset(reset::SHUTTING_DOWN)
    );
}

async fn a_session_counts_for_the_address_that_opened_it_wherever_it_roams(protocol: Protocol) {
    let config = protocol.config().max_sessions_per_address(1);
    let mut net = Net::new(&config, ROOMY);
    let homes = [addr(1), addr(2)].map(|home| net.dialer_from(home));
    let dials = Arc::new(AtomicUsize::new(0));
    let dialer = tower::service_fn(move |()| {
        let number = dials.fetch_add(1, Ordering::Relaxed);
        homes[number].clone().call(())
    });
    let connector = unbroken::Connector::new(dialer, config.clone());
    let client = tower::ServiceExt::oneshot(connector, ())
        .await
        .expect("room");
    let server = net.opened().await;
    net.newest().cut(Fault::Reset);
    resumed(&client.handle(), 1).await;
    resumed(&server.handle(), 1).await;
    net.outcome().await.expect("a resume");
    let sessions = net.acceptor().sessions().expect("a right configuration");
    let at = sessions.list()[0].peer_addr.expect("it is known");
    assert_eq!(at.ip(), addr(2).ip());

    let more = open_from(&mut net, &config, addr(1)).await;
    check_refused(protocol, more, Limit::SessionsPerAddress, "where it was");
    let mut other = open_from(&mut net, &config, addr(2)).await.expect("room");
    exchange(&mut other.0, &mut other.1).await;
    leave((client, server)).await;
    let mut new = open_from(&mut net, &config, addr(1)).await.expect("room");
    exchange(&mut new.0, &mut new.1).await;
}

/// Named while there was room, which is taken by the time it proves itself.
#[tokio::test(start_paused = true)]
async fn a_proof_that_comes_too_late_is_refused_and_a_resume_may_open_the_session_later() {
    let config = Protocol::Native.config().max_sessions_per_address(1);
    let mut net = Net::new(&config, ROOMY);
    let (mut first, _) = net.raw_link_from(addr(1));
    let open = raw_native::begin_open(&mut first).await.expect("OPENED");
    let named = raw_native::named(&open);
    let ends = open_from(&mut net, &config, addr(1)).await.expect("room");
    let confirm = open.confirm().expect("a session");
    first.write_all(&confirm).await.expect("room");
    drop(first);
    let error = net.failure().await;
    assert!(
        matches!(error, Error::Overloaded(Limit::SessionsPerAddress)),
        "{error:?}"
    );
    // From elsewhere there is room for it, and that is whom it counts for.
    let (link, _) = net.raw_link_from(addr(2));
    let frames = within("a resume", Frames::resume(link, &named, 1, 0)).await;
    let opened = net.opened().await;
    let more = open_from(&mut net, &config, addr(2)).await;
    check_refused(
        Protocol::Native,
        more,
        Limit::SessionsPerAddress,
        "it counts",
    );
    drop((frames, opened, ends));
}
