//! Deadlines and cancellation, while there is no link.

use std::time::Duration;

use futures_util::stream;
use tokio::time::{Instant, timeout};
use tonic::{Code, Request, transport::Server};

use super::{Echo, channel, cut_off, endpoint, numbers::Numbers, serve, until};
use crate::bed::{Bed, Spoken, over_each};

over_each!(
    a_deadline_holds_while_there_is_no_link_and_the_other_calls_go_on,
    a_call_that_is_dropped_without_a_link_is_cancelled_once_there_is_one,
);

/// Longer than a call may take, shorter than a test.
const LATE: Duration = Duration::from_secs(5);

async fn a_deadline_holds_while_there_is_no_link_and_the_other_calls_go_on(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 1 << 20).await;
    bed.proxy.stop_faults();
    let (_serving, mut at) = serve(Server::builder(), listener);
    let endpoint = endpoint(&bed).timeout(Duration::from_millis(200));
    let channel = endpoint.connect_with_connector(bed.connector()).await;
    let mut client = Numbers::new(channel.expect("a session"));
    let mut echo = Echo::open(&mut client).await;
    for round in 1..=5 {
        let under_way = tokio::spawn({
            let mut client = client.clone();
            async move { client.sum(stream::pending()).await }
        });
        until(&mut at, 2).await;
        let session = cut_off(&bed).await;
        echo.send();
        let mut request = Request::new(stream::pending());
        request.set_timeout(Duration::from_millis(50));
        let began = Instant::now();
        // One started without a link, one with.
        for call in [client.sum(request).await, under_way.await.expect("a call")] {
            let status = call.expect_err("no answer");
            assert_eq!(status.code(), Code::Cancelled, "{status:?}");
            assert_eq!(status.message(), "Timeout expired");
        }
        assert!(began.elapsed() < LATE, "{:?}", began.elapsed());
        assert_eq!(session.stats().resumes, round - 1);
        bed.proxy.set_refusing(false);
        echo.receive().await;
        until(&mut at, 1).await;
    }
    bed.assert_cut(5);
    assert_eq!(bed.sessions().len(), 1);
}

async fn a_call_that_is_dropped_without_a_link_is_cancelled_once_there_is_one(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 1 << 20).await;
    bed.proxy.stop_faults();
    let (_serving, mut at) = serve(Server::builder(), listener);
    let mut client = Numbers::new(channel(&bed).await);
    let mut echo = Echo::open(&mut client).await;
    for _ in 0..5 {
        let dropped = Echo::open(&mut client).await;
        let aborted = tokio::spawn({
            let mut client = client.clone();
            async move { client.sum(stream::pending()).await }
        });
        until(&mut at, 3).await;
        cut_off(&bed).await;
        drop(dropped);
        aborted.abort();
        assert!(aborted.await.expect_err("no answer").is_cancelled());
        assert_eq!(*at.borrow(), 3);
        bed.proxy.set_refusing(false);
        let cancelled = timeout(LATE, until(&mut at, 1)).await;
        cancelled.expect("the end of both at the server");
        echo.go_on(1).await;
    }
    bed.assert_cut(5);
    assert_eq!(bed.sessions().len(), 1);
}
