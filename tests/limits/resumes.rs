//! Attempts to resume, as often as they may come.

use std::time::Duration;

use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep},
};
use unbroken::{
    Config, Error, Limit, LinkState, RejectCode, ResumeError,
    protocol::{
        native::{self, Answer},
        snet,
    },
};

use super::{
    addr,
    memory_link::{Fault, MemoryLink},
    memory_net::{Net, Protocol, ROOMY, exchange, over_both, resumed, send, within},
    of_subnet, open_from, raw_native,
};

over_both!(
    attempts_beyond_the_rate_are_put_off_until_time_has_passed,
    links_without_an_address_share_one_account,
    a_flood_of_resumes_puts_off_none_but_those_who_share_its_address,
);

/// Whether a resume that nobody knows got as far as being looked for, from where `link` comes.
async fn is_looked_for(protocol: Protocol, net: &mut Net, mut link: MemoryLink) -> bool {
    let put_off = match protocol {
        Protocol::Native => {
            let unknown = native::Opened {
                id: rand::random(),
                secret: native::SessionSecret::new([7; 32]),
                route: 0,
                window: 1,
                resume_window: Duration::from_secs(1),
            };
            let (_, answer) = raw_native::request(&mut link, &unknown, 1, 0)
                .await
                .expect("an answer");
            match answer {
                Answer::Rejected(reject) if reject.code == RejectCode::Unknown => false,
                Answer::Rejected(reject) => {
                    let told = (reject.code, reject.retry_after.as_secs());
                    assert_eq!(told, (RejectCode::Busy, 1));
                    true
                }
                other => panic!("{other:?}"),
            }
        }
        Protocol::Snet => {
            let unknown = snet::Opened {
                id: rand::random(),
                key: snet::SessionKey::new([7; 8]),
            };
            let counts = snet::Counts::default();
            let machine = snet::ClientResume::new(&unknown, counts);
            let request = unbroken::protocol::Handshake::transmit(&machine).to_vec();
            send(&mut link, &request).await;
            let mut reply = Vec::new();
            within("the end", link.read_to_end(&mut reply))
                .await
                .expect("the end");
            // Zeros would be final.
            assert!([0, 24].contains(&reply.len()));
            reply.is_empty()
        }
    };
    drop(link);
    match net.failure().await {
        Error::Resume(ResumeError::Unknown) => assert!(!put_off),
        Error::Overloaded(Limit::ResumesPerSecond) => assert!(put_off),
        other => panic!("{other:?}"),
    }
    !put_off
}

async fn attempts_beyond_the_rate_are_put_off_until_time_has_passed(protocol: Protocol) {
    let config = protocol.config().max_resumes_per_second(5);
    let mut net = Net::new(&config, ROOMY);
    let passed = async |net: &mut Net, count: usize, from: fn() -> std::net::SocketAddr| {
        let mut passed = 0;
        for _ in 0..count {
            let (link, _) = net.raw_link_from(from());
            passed += usize::from(is_looked_for(protocol, net, link).await);
        }
        passed
    };
    let (here, there, subnet) = (|| addr(1), || addr(2), || of_subnet(3));
    assert_eq!(passed(&mut net, 9, here).await, 5);
    assert_eq!(passed(&mut net, 9, there).await, 5);
    assert_eq!(passed(&mut net, 9, subnet).await, 5);
    assert_eq!(passed(&mut net, 2, || of_subnet(4)).await, 2);
    for (pause, more) in [(190, 0), (10, 1), (399, 1), (1, 1), (0, 0), (10_000, 5)] {
        sleep(Duration::from_millis(pause)).await;
        assert_eq!(passed(&mut net, 6, here).await, more, "{pause} ms later");
    }
}

async fn links_without_an_address_share_one_account(protocol: Protocol) {
    let config = protocol.config().max_resumes_per_second(2);
    let mut net = Net::new(&config, ROOMY);
    for passes in [true, true, false] {
        let (link, _) = net.raw_link();
        assert_eq!(is_looked_for(protocol, &mut net, link).await, passes);
    }
    let (link, _) = net.raw_link_from(addr(1));
    assert!(is_looked_for(protocol, &mut net, link).await);
}

async fn a_flood_of_resumes_puts_off_none_but_those_who_share_its_address(protocol: Protocol) {
    let config: Config = protocol.config().max_resumes_per_second(10);
    let mut net = Net::new(&config, ROOMY);
    let mut beside = open_from(&mut net, &config, addr(1)).await.expect("room");
    let wire = net.newest();
    let mut elsewhere = open_from(&mut net, &config, addr(2)).await.expect("room");
    let elsewhere_wire = net.newest();
    // A flood that takes all there is, for a while.
    for _ in 0..100 {
        let (link, _) = net.raw_link_from(addr(1));
        is_looked_for(protocol, &mut net, link).await;
    }
    let began = Instant::now();
    wire.cut(Fault::Reset);
    elsewhere_wire.cut(Fault::Reset);
    resumed(&elsewhere.0.handle(), 1).await;
    assert!(began.elapsed() < Duration::from_millis(30));
    exchange(&mut elsewhere.0, &mut elsewhere.1).await;
    assert!(matches!(
        beside.0.handle().state(),
        LinkState::Reconnecting { .. }
    ));
    // Put off, not lost.
    resumed(&beside.0.handle(), 1).await;
    assert!(began.elapsed() < Duration::from_secs(12));
    exchange(&mut beside.0, &mut beside.1).await;
}
