//! Settings of HTTP/2 that outages meet.

use std::time::Duration;

use futures_util::stream;
use tokio::{sync::watch, task::JoinSet};
use tonic::{Code, Request, Status, body::Body, transport::Server};
use unbroken::Listener;

use super::{
    Echo, channel, cut_off, endpoint,
    numbers::{self, Number, Numbers},
    serve, serve_with, until, until_open,
};
use crate::bed::{Bed, Spoken, over_each};

over_each!(
    a_clients_keepalive_with_less_patience_than_the_session_ends_its_calls,
    a_servers_keepalive_with_less_patience_than_the_session_ends_its_calls,
    many_calls_given_up_in_an_outage_need_a_server_that_allows_for_them,
    answers_to_calls_given_up_in_an_outage_need_a_client_that_remembers_them,
);

const SHORT: Duration = Duration::from_millis(50);

async fn a_clients_keepalive_with_less_patience_than_the_session_ends_its_calls(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 1 << 20).await;
    bed.proxy.stop_faults();
    let (_serving, _) = serve(Server::builder(), listener);
    let endpoint = endpoint(&bed)
        .http2_keep_alive_interval(SHORT)
        .keep_alive_timeout(SHORT);
    let channel = endpoint.connect_with_connector(bed.connector()).await;
    let mut client = Numbers::new(channel.expect("a session"));
    let mut echo = Echo::open(&mut client).await;
    let session = cut_off(&bed).await;
    let status = echo.from.message().await.expect_err("no number");
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
    assert_eq!(session.stats().resumes, 0);
    bed.proxy.set_refusing(false);
    until_open(&mut client).await;
    assert_eq!(bed.sessions().len(), 2);
}

async fn a_servers_keepalive_with_less_patience_than_the_session_ends_its_calls(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 1 << 20).await;
    bed.proxy.stop_faults();
    let server = Server::builder()
        .http2_keepalive_interval(Some(SHORT))
        .http2_keepalive_timeout(Some(SHORT));
    let (_serving, mut at) = serve(server, listener);
    let mut client = Numbers::new(channel(&bed).await);
    let mut echo = Echo::open(&mut client).await;
    cut_off(&bed).await;
    until(&mut at, 0).await;
    bed.proxy.set_refusing(false);
    let status = echo.from.message().await.expect_err("no number");
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
}

async fn many_calls_given_up_in_an_outage_need_a_server_that_allows_for_them(spoken: Spoken) {
    const GIVEN_UP: usize = 100;
    for allowed in [None, Some(GIVEN_UP)] {
        let (bed, listener) = Bed::start(spoken, 1 << 20).await;
        bed.proxy.stop_faults();
        let server = Server::builder().http2_max_pending_accept_reset_streams(allowed);
        let (_serving, mut at) = serve(server, listener);
        let mut client = Numbers::new(channel(&bed).await);
        let mut echo = Echo::open(&mut client).await;
        cut_off(&bed).await;
        let mut calls = JoinSet::new();
        for _ in 0..GIVEN_UP {
            let mut client = client.clone();
            calls.spawn(async move {
                let mut request = Request::new(stream::pending());
                request.set_timeout(SHORT);
                let status = client.sum(request).await.expect_err("no answer");
                assert_eq!(status.code(), Code::Cancelled, "{status:?}");
            });
        }
        calls.join_all().await;
        bed.proxy.set_refusing(false);
        if allowed.is_some() {
            echo.go_on(10).await;
            until(&mut at, 1).await;
        } else {
            // The server takes it for an attack on it.
            echo.send();
            let status = echo.from.message().await.expect_err("no number");
            assert_eq!(status.code(), Code::Unknown, "{status:?}");
        }
        bed.assert_cut(1);
    }
}

async fn answers_to_calls_given_up_in_an_outage_need_a_client_that_remembers_them(spoken: Spoken) {
    const GIVEN_UP: usize = 10;
    for remembered in [Duration::ZERO, Duration::from_secs(300)] {
        let (bed, listener) = Bed::start(spoken, 1 << 20).await;
        bed.proxy.stop_faults();
        let (_serving, mut at, answer) = serve_late(listener);
        let endpoint = endpoint(&bed)
            .http2_reset_stream_duration(remembered)
            .http2_max_local_error_reset_streams(GIVEN_UP / 2);
        let channel = endpoint.connect_with_connector(bed.connector()).await;
        let mut client = Numbers::new(channel.expect("a session"));
        let mut echo = Echo::open(&mut client).await;
        let mut calls = JoinSet::new();
        for _ in 0..GIVEN_UP {
            let mut client = client.clone();
            calls.spawn(async move { client.next(Number::from(1)).await });
        }
        until(&mut at, GIVEN_UP + 1).await;
        cut_off(&bed).await;
        calls.shutdown().await;
        // Not having heard of it, the server answers.
        answer.send_replace(true);
        until(&mut at, 1).await;
        bed.proxy.set_refusing(false);
        if remembered.is_zero() {
            echo.send();
            let status = echo.from.message().await.expect_err("no number");
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        } else {
            echo.go_on(10).await;
        }
        bed.assert_cut(1);
    }
}

/// Answers calls to `Next` once it may, whether or not all of them has arrived.
fn serve_late(listener: Listener) -> (JoinSet<()>, watch::Receiver<usize>, watch::Sender<bool>) {
    let (answer, may) = watch::channel(false);
    let late = move |request: http::Request<Body>| {
        let mut may = may.clone();
        async move {
            if !request.uri().path().ends_with("/Next") {
                return numbers::serve(request).await;
            }
            may.wait_for(|may| *may).await.expect("a test");
            Ok(Status::aborted("too late").into_http())
        }
    };
    let (serving, at) = serve_with(Server::builder(), listener, late);
    (serving, at, answer)
}
