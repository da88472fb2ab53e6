//! Windows that grow while they limit a transfer, and shrink when they are not needed.

use std::{cell::Cell, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep},
};
use unbroken::{Config, MemoryBudget, ResumableTransport};

use super::{
    memory_link::Fault,
    memory_net::{Net, exchange, expect, expect_end, native, pattern, send, until, within},
};

/// One way. A round trip is twice as long.
const DELAY: Duration = Duration::from_millis(50);
const TRIP: Duration = Duration::from_millis(100);
const WINDOW: usize = 64 << 10;
const MOST: usize = 1 << 20;
const LEN: usize = 12 << 20;
/// What a link holds: more than there ever is.
const WIDE: usize = 64 << 20;
const PING_AFTER: Duration = Duration::from_secs(15);

fn growing() -> Config {
    native()
        .window(WINDOW)
        .max_window(MOST)
        .keepalive(PING_AFTER, 2 * PING_AFTER)
}

/// How a transfer went.
struct Went {
    took: Duration,
    /// The most that was ever sent and not acknowledged, and that the writer may still have sent.
    ahead: u64,
}

/// Sends so many bytes one way, with as many losses of the link spread over them.
async fn transfer(
    net: &Net,
    from: &mut ResumableTransport,
    to: &mut ResumableTransport,
    losses: usize,
) -> Went {
    let (bytes, handle) = (pattern(7, LEN), from.handle());
    let began = Instant::now();
    let mut ahead = 0;
    let sending = async {
        for piece in bytes.chunks(LEN / (losses + 1)) {
            for some in piece.chunks(16 << 10) {
                send(from, some).await;
                let stats = handle.stats();
                ahead = stats.unacknowledged.max(ahead);
            }
            if losses > 0 {
                net.newest().cut(Fault::Reset);
            }
        }
    };
    tokio::join!(sending, expect(to, &bytes));
    Went {
        took: began.elapsed(),
        ahead,
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_that_limits_a_transfer_grows_up_to_its_bound() {
    for upwards in [true, false] {
        let mut net = Net::slow(&growing(), WIDE, DELAY);
        let (mut client, mut server) = net.open(&growing()).await;
        let (from, to) = match upwards {
            true => (&mut client, &mut server),
            false => (&mut server, &mut client),
        };
        let went = transfer(&net, from, to, 0).await;
        assert!(went.ahead <= MOST as u64, "{}", went.ahead);
        assert!(went.ahead >= MOST as u64 * 3 / 4, "{}", went.ahead);
        // A window each round trip, and some for the growth; without growth it is 192.
        let most = TRIP * (LEN / MOST + 24) as u32;
        assert!(went.took <= most, "{:?}", went.took);
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_without_a_bound_of_its_own_stays() {
    let fixed = native().window(WINDOW);
    // Either end's is the limit: that of the receiver, and that of the sender.
    for (server, client) in [(&fixed, &growing()), (&growing(), &fixed)] {
        let mut net = Net::slow(server, WIDE, DELAY);
        let (mut client, mut server) = net.open(client).await;
        let went = transfer(&net, &mut client, &mut server, 0).await;
        assert!(went.ahead <= WINDOW as u64, "{}", went.ahead);
        assert!(went.took >= TRIP * (LEN / WINDOW - 1) as u32);
    }
}

/// Where it takes no time for credit to come back, no window limits anything.
#[tokio::test(start_paused = true)]
async fn a_window_does_not_grow_on_a_short_path() {
    let mut net = Net::new(&growing(), WIDE);
    let (mut client, mut server) = net.open(&growing()).await;
    let went = transfer(&net, &mut client, &mut server, 0).await;
    assert!(went.ahead <= WINDOW as u64, "{}", went.ahead);
}

/// Nor where the application is slow to take what comes.
#[tokio::test(start_paused = true)]
async fn a_window_does_not_grow_for_a_slow_reader() {
    let mut net = Net::slow(&growing(), WIDE, DELAY);
    let (mut client, mut server) = net.open(&growing()).await;
    let bytes = pattern(7, 40 * WINDOW);
    let (sent, read) = (Cell::new(0), Cell::new(0));
    let sending = async {
        for some in bytes.chunks(WINDOW / 4) {
            client.write_all(some).await.expect("writing");
            sent.set(sent.get() + some.len());
            // A window waits to be read, and another to be sent.
            assert!(sent.get() - read.get() <= 2 * WINDOW);
        }
        client.flush().await.expect("writing");
    };
    let reading = async {
        for some in bytes.chunks(WINDOW / 4) {
            expect(&mut server, some).await;
            read.set(read.get() + some.len());
            sleep(2 * TRIP).await;
        }
    };
    tokio::join!(sending, reading);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_in_a_grown_window_survives_the_links() {
    let mut net = Net::slow(&growing(), WIDE, DELAY);
    let (mut client, mut server) = net.open(&growing()).await;
    let went = transfer(&net, &mut client, &mut server, 20).await;
    assert!(went.ahead > 2 * WINDOW as u64, "{}", went.ahead);
    assert!(client.handle().stats().resumes >= 20);
    transfer(&net, &mut server, &mut client, 20).await;
    exchange(&mut client, &mut server).await;
}

#[tokio::test(start_paused = true)]
async fn windows_shrink_and_give_memory_back_when_they_are_not_needed() {
    let memory = MemoryBudget::new(1 << 30);
    let config = growing().memory_budget(memory.clone());
    let mut net = Net::slow(&config, WIDE, DELAY);
    let (mut client, mut server) = net.open(&config).await;
    transfer(&net, &mut client, &mut server, 0).await;
    let handle = client.handle();
    until("all is acknowledged", || {
        (handle.stats().unacknowledged == 0).then_some(())
    })
    .await;
    assert!(handle.stats().credit > 8 * WINDOW as u64);
    // It is not idle, but needs next to nothing: so little is kept for it.
    for _ in 0..40 {
        exchange(&mut client, &mut server).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert!(memory.used() <= 4 * 4096, "{}", memory.used());
    // Credit cannot be taken back. Once it is used, there is no more of it than at first.
    let bytes = pattern(3, WINDOW / 4);
    for _ in 0..MOST / bytes.len() {
        send(&mut client, &bytes).await;
        expect(&mut server, &bytes).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert!(handle.stats().credit <= WINDOW as u64);
}

/// What the windows of all sessions grow by fits into three eighths of the budget, and no session takes all of it.
#[tokio::test(start_paused = true)]
async fn windows_grow_as_far_as_the_budget_goes() {
    let memory = MemoryBudget::new(4 * MOST);
    let config = growing().memory_budget(memory.clone());
    let mut net = Net::slow(&config, WIDE, DELAY);
    let mut sessions = Vec::new();
    for _ in 0..6 {
        sessions.push(net.open(&growing()).await);
    }
    let mut granted = 0;
    for (client, server) in &mut sessions {
        transfer(&net, client, server, 0).await;
        let handle = client.handle();
        until("all is acknowledged", || {
            (handle.stats().unacknowledged == 0).then_some(())
        })
        .await;
        granted += handle.stats().credit - WINDOW as u64;
    }
    assert!(granted <= MOST as u64 * 3 / 2, "{granted}");
    assert!(granted >= MOST as u64 / 2, "{granted}");
    // Nobody reads. All of it is used, and the budget is not exceeded by more than it says.
    for (client, _) in &mut sessions {
        let mut left = client.handle().stats().credit as usize;
        while left > 0 {
            let some = vec![0; left.min(WINDOW)];
            let count = client.write(&some).await.expect("there is credit");
            left -= count;
        }
        client.flush().await.expect("there is credit");
    }
    sleep(10 * TRIP).await;
    let windows = sessions.len() * (WINDOW + (16 << 10));
    assert!(memory.used() <= memory.bytes() + windows);
}

/// Whether the peer has ended its stream, or the session is over and only a handle is left of it.
#[tokio::test(start_paused = true)]
async fn what_can_no_longer_be_sent_is_promised_to_nobody() {
    for ends in [false, true] {
        // So little that one session that has grown leaves the next no room.
        let memory = MemoryBudget::new(4 * MOST);
        let config = growing().memory_budget(memory.clone());
        let mut net = Net::slow(&config, WIDE, DELAY);
        let mut kept = Vec::new();
        let mut reached = Vec::new();
        for _ in 0..3 {
            let (mut client, mut server) = net.open(&growing()).await;
            let went = transfer(&net, &mut client, &mut server, 0).await;
            reached.push(went.ahead);
            let handle = server.handle();
            within("the end", client.shutdown())
                .await
                .expect("it arrives");
            expect_end(&mut server).await;
            if ends {
                within("the end", server.shutdown())
                    .await
                    .expect("it arrives");
                drop((client, server));
                kept.push((handle, None));
            } else {
                kept.push((handle, Some((client, server))));
            }
            // What it kept of it is given back.
            sleep(4 * PING_AFTER).await;
        }
        assert!(
            reached.iter().all(|ahead| *ahead == reached[0]),
            "{ends}: {reached:?}"
        );
    }
}
