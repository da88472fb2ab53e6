//! What the timeouts of hyper do to sessions.

use std::time::Duration;

use http::Version;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto,
};
use unbroken::LinkState;

use super::{
    Pooled, echo, full,
    pool::{assert_is_session, attach, detach},
    post, single,
    site::Server,
    until_over, warm_up_with_cuts,
};
use crate::bed::{Bed, Spoken, within};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_pings_that_are_less_patient_than_the_session_end_it() {
    let spoken = Spoken::Native;
    let (bed, listener) = Bed::start(spoken, 1 << 10).await;
    let mut server = Server::lenient(listener);
    let gate = server.gate.clone();
    let client: Pooled = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(SHORT)
        .http2_keep_alive_timeout(3 * SHORT)
        .build(bed.connector());
    let work = async {
        warm_up_with_cuts(&client, &bed).await;
        let session = bed.sessions()[0].clone();
        let request = tokio::spawn(client.request(post(bed.uri("/gate"), full(""))));
        gate.arrived(1).await;
        detach(&bed, &session).await;
        let answered = request.await.expect("no panic");
        let error = answered.expect_err("the pings are not answered");
        println!("{error:?}");
        assert!(unbroken::Error::find(&error).is_none());
        assert!(matches!(session.state(), LinkState::Reconnecting { .. }));
        attach(&bed);
        until_over(&session).await;
        echo(&client, bed.uri("/echo"), "after").await;
    };
    within(server.beside(work)).await;
    bed.assert_cut(5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_read_timeout_ends_idle_http1_sessions() {
    let spoken = Spoken::Native;
    let (bed, listener) = Bed::start(spoken, 1 << 10).await;
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(3 * SHORT);
    let client = single(Version::HTTP_11, &bed, spoken.config());
    let work = async {
        warm_up_with_cuts(&client, &bed).await;
        let session = bed.sessions()[0].clone();
        until_over(&session).await;
        let response = echo(&client, bed.uri("/echo"), "after").await;
        assert_is_session(&response, &bed, 1);
    };
    within(Server::with(http, listener).beside(work)).await;
    bed.assert_cut(5);
}
