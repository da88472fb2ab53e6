//! What anybody can say in the clear ends an attempt, and no session.

use std::time::Duration;

use tokio::time::Instant;
use tower::ServiceExt;
use unbroken::{
    Connector, Error, RejectCode,
    protocol::native::{Frame, Reject},
};

use super::{
    choices::Fitting,
    memory_link::{Fault, MemoryLink},
    memory_net::{Dial, Net, ROOMY, connected, exchange, send, within},
    raw_native::frame,
};

/// Two zero bytes, then a REJECT that asks the client to stay away for as long as can be said.
fn in_the_clear(code: u16) -> Vec<u8> {
    let mut reject = frame(Frame::Reject(Reject {
        code: RejectCode::from(code),
        retry_after: Duration::ZERO,
    }));
    let retry_after = reject.len() - 4;
    reject[retry_after..].fill(0xff);
    [&[0, 0], &reject[..]].concat()
}

/// The link of the client's next attempt, and how long that was in coming.
async fn next_attempt(net: &Net) -> (MemoryLink, Duration) {
    let began = Instant::now();
    let link = within("another attempt", net.ignored()).await;
    (link, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_resume_that_is_refused_in_the_clear_is_tried_again_without_the_delay_asked_for() {
    const CAP: Duration = Duration::from_millis(100);
    for fitting in Fitting::ALL {
        let mut net = Net::new(&fitting.server(), ROOMY);
        let config = fitting.client().retry(Duration::from_millis(10), CAP);
        let (mut client, mut server) = net.open(&config).await;
        exchange(&mut client, &mut server).await;
        net.set(Dial::Ignore);
        net.newest().cut(Fault::Reset);
        for code in 1..=12 {
            let (mut link, waited) = next_attempt(&net).await;
            assert!(waited <= 2 * CAP, "{code}: {waited:?}");
            send(&mut link, &in_the_clear(code)).await;
            // Read to the end by whoever has said it: the client closes the link.
        }
        // A REJECT as it stands without a security, which is no length of a message.
        let (mut link, _) = next_attempt(&net).await;
        send(&mut link, &in_the_clear(1)[2..]).await;
        let (link, _) = next_attempt(&net).await;
        net.set(Dial::Serve);
        drop(link);
        connected(&client.handle()).await;
        exchange(&mut client, &mut server).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_that_is_refused_in_the_clear_leaves_the_link_as_it_is() {
    for code in 1..=12 {
        let mut net = Net::new(&Fitting::ServerKey.server(), ROOMY);
        let (mut client, mut server) = net.open(&Fitting::ServerKey.client()).await;
        net.plan([Dial::Ignore]);
        let handle = client.handle();
        let (moved, ()) = tokio::join!(handle.migrate(), async {
            let (mut link, _) = next_attempt(&net).await;
            send(&mut link, &in_the_clear(code)).await;
        });
        let error = moved.expect_err("it is refused");
        assert!(
            matches!(&error, Error::Rejected { reason, retry_after }
                if *reason == RejectCode::from(code) && retry_after.is_zero()),
            "{error:?}"
        );
        exchange(&mut client, &mut server).await;
        assert_eq!(client.handle().stats().resumes, 0);
    }
}

/// Of an open it is an error like any other that ends the attempt.
#[tokio::test(start_paused = true)]
async fn an_open_that_is_refused_in_the_clear_says_so() {
    for code in 1..=12 {
        let net = Net::new(&Fitting::Psk.server(), ROOMY);
        net.set(Dial::Ignore);
        let opening = Connector::new(net.dialer(), Fitting::Psk.client()).oneshot(());
        let (opened, ()) = tokio::join!(opening, async {
            let (mut link, _) = next_attempt(&net).await;
            send(&mut link, &in_the_clear(code)).await;
        });
        let error = opened.expect_err("it is refused");
        assert!(
            matches!(&error, Error::Rejected { reason, .. } if *reason == RejectCode::from(code)),
            "{error:?}"
        );
    }
}
