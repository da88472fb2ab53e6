//! How sessions begin and end, and the calls that are on them.

use std::{future::pending, time::Duration};

use futures_util::stream;
use tokio::sync::oneshot;
use tonic::{Code, Status, transport::Server};
use tower::{ServiceExt, service_fn};
use unbroken::{CloseReason, Connector, LinkState, Refusal, TcpConnector};

use super::{
    Echo, channel, cut_off, endpoint,
    numbers::{self, Number, Numbers},
    serve, until_open,
};
use crate::bed::{Bed, Spoken, over_each};

over_each!(
    calls_fail_with_a_session_that_is_closed_and_the_next_opens_another,
    calls_fail_with_a_session_that_expires_and_the_next_opens_another,
    a_lazy_channel_connects_at_its_first_call,
    a_session_that_cannot_be_opened_fails_one_call,
    a_connection_that_has_come_of_age_ends_with_its_last_call,
    a_server_that_is_shut_down_ends_what_it_is_at_though_links_are_cut,
);

async fn calls_fail_with_a_session_that_is_closed_and_the_next_opens_another(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 1 << 20).await;
    bed.proxy.stop_faults();
    let sessions = listener.sessions();
    let (_serving, _) = serve(Server::builder(), listener);
    let client = Numbers::new(channel(&bed).await);
    let expected = match spoken {
        Spoken::Snet => CloseReason::Refused(Refusal::Unexplained),
        _ => CloseReason::Reset(42),
    };
    for round in 1..=3 {
        both_fail(&bed, client.clone(), expected, async || {
            let session = bed.sessions().pop().expect("a session");
            assert!(sessions.close(session.id(), 42));
        })
        .await;
        assert_eq!(bed.sessions().len(), round);
    }
}

async fn calls_fail_with_a_session_that_expires_and_the_next_opens_another(spoken: Spoken) {
    const WINDOW: Duration = Duration::from_millis(100);
    let (bed, listener) = Bed::start(spoken, 1 << 20).await;
    bed.proxy.stop_faults();
    let (_serving, _) = serve(Server::builder(), listener);
    let config = spoken.config().resume_window(WINDOW);
    let connector = bed.patient(Connector::new(TcpConnector::new(), config));
    let channel = endpoint(&bed).connect_with_connector_lazy(connector);
    let client = Numbers::new(channel);
    for round in 1..=3 {
        let expected = CloseReason::Expired;
        both_fail(&bed, client.clone(), expected, async || {
            cut_off(&bed).await;
        })
        .await;
        bed.proxy.set_refusing(false);
        assert_eq!(bed.sessions().len(), round);
    }
}

/// A stream, and a call that has no answer yet, fail when their session is ended.
async fn both_fail(bed: &Bed, mut client: Numbers, expected: CloseReason, end: impl AsyncFnOnce()) {
    until_open(&mut client).await;
    let mut echo = Echo::open(&mut client).await;
    let (begin, begun) = oneshot::channel();
    let numbers = stream::once(async {
        begin.send(()).expect("a test");
        pending().await
    });
    let call = tokio::spawn(async move { client.sum(numbers).await });
    begun.await.expect("a call");
    end().await;
    let stream = echo.from.message().await.expect_err("no number");
    let call = call.await.expect("a call").expect_err("no answer");
    let session = bed.sessions().pop().expect("a session");
    assert_eq!(session.state(), LinkState::Closed(expected));
    for status in [stream, call] {
        assert_eq!(status.code(), Code::Unknown, "{status:?}");
        // HTTP/2 keeps an error of the network in words at most.
        assert!(unbroken::Error::find(&status).is_none(), "{status:?}");
    }
}

async fn a_lazy_channel_connects_at_its_first_call(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 1 << 10).await;
    let (_serving, _) = serve(Server::builder(), listener);
    let channel = endpoint(&bed).connect_with_connector_lazy(bed.connector());
    let mut client = Numbers::new(channel);
    assert_eq!(bed.proxy.stats().accepted, 0);
    assert_eq!(bed.sessions().len(), 0);
    let mut echo = Echo::open(&mut client).await;
    echo.go_on(500).await;
    echo.end().await;
    bed.assert_cut(5);
    assert_eq!(bed.sessions().len(), 1);
}

async fn a_session_that_cannot_be_opened_fails_one_call(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 1 << 20).await;
    bed.proxy.stop_faults();
    bed.proxy.set_refusing(true);
    let (_serving, _) = serve(Server::builder(), listener);
    let impatient = || Connector::new(TcpConnector::new(), spoken.config());
    let endpoint = endpoint(&bed);
    let failed = endpoint.connect_with_connector(impatient()).await;
    let failed = Status::from_error(failed.expect_err("no session").into());
    let mut client = Numbers::new(endpoint.connect_with_connector_lazy(impatient()));
    for round in 1..=3 {
        let call = client.next(Number::from(round)).await;
        for status in [&failed, &call.expect_err("no answer")] {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            let error = unbroken::Error::find(status).expect("why there is no session");
            assert!(
                matches!(error, unbroken::Error::Dial(_) | unbroken::Error::Link(_)),
                "{error:?}"
            );
        }
    }
    bed.proxy.set_refusing(false);
    let next = client.next(Number::from(1)).await.expect("an answer");
    assert_eq!(next.into_inner(), 2.into());
}

async fn a_connection_that_has_come_of_age_ends_with_its_last_call(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 2 << 10).await;
    let server = Server::builder().max_connection_age(Duration::from_millis(50));
    let (_serving, _) = serve(server, listener);
    let mut client = Numbers::new(channel(&bed).await);
    for _ in 0..3 {
        // What begins in the moment in which the connection ends may fail, unprocessed.
        let mut echo = loop {
            if let Ok(echo) = Echo::try_open(&mut client).await {
                break echo;
            }
        };
        let sessions = bed.sessions().len();
        while bed.sessions().len() == sessions {
            echo.go_on(100).await;
            let _ = client.next(Number::from(1)).await;
        }
        echo.go_on(100).await;
        echo.end().await;
    }
    bed.assert_cut(10);
}

async fn a_server_that_is_shut_down_ends_what_it_is_at_though_links_are_cut(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 1 << 10).await;
    let (shut_down, asked) = oneshot::channel();
    // tonic drops the listener when it is asked.
    let serving = tokio::spawn(async move {
        let asked = async move { asked.await.expect("a test") };
        let service = service_fn(numbers::serve);
        let server = Server::builder();
        let served = server.serve_with_incoming_shutdown(service, listener, asked);
        served.await
    });
    let mut client = Numbers::new(channel(&bed).await);
    let mut echo = Echo::open(&mut client).await;
    echo.go_on(100).await;
    shut_down.send(()).expect("a server");
    echo.go_on(1_000).await;
    assert!(!serving.is_finished());
    // To the others it is closed.
    let connector = Connector::new(TcpConnector::new(), spoken.config());
    let refused = connector.oneshot(bed.addr()).await;
    assert!(refused.is_err(), "{refused:?}");
    echo.end().await;
    serving.await.expect("a server").expect("a clean end");
    bed.assert_cut(10);
    assert_eq!(bed.sessions().len(), 1);
}
