//! When the pool takes the session it has, and when another.

use http::{Request, Version};
use http_body_util::BodyExt;
use hyper_util::client::legacy::{ResponseFuture, connect::capture_connection};
use tokio::time::sleep;
use unbroken::{Handle, LinkState};

use super::{AnyBody, Pooled, client, echo, full, post, single, site::Server, warm_up, with_both};
use crate::{
    bed::{Bed, POLL, Spoken, over_each, within},
    cutting_proxy::Close,
};

over_each!(
    http1_sends_all_requests_over_one_pooled_session,
    http2_sends_all_requests_over_one_pooled_session,
    requests_wait_for_a_detached_session_and_http1_opens_another_for_those_at_once,
    a_cancelled_request_costs_http1_the_session_and_http2_nothing,
);

async fn http1_sends_all_requests_over_one_pooled_session(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 1 << 10).await;
    let client = single(Version::HTTP_11, &bed, spoken.config());
    let work = async {
        for number in 0..1000 {
            let response = echo(&client, bed.uri("/echo"), number.to_string()).await;
            assert_is_session(&response, &bed, 0);
        }
    };
    Server::strict(spoken, listener).beside(work).await;
    assert_eq!(bed.sessions().len(), 1);
    bed.assert_cut(30);
}

async fn http2_sends_all_requests_over_one_pooled_session(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 1 << 10).await;
    let client = client(Version::HTTP_2, bed.connector());
    let work = async {
        for number in 0..2000 {
            let response = echo(&client, bed.uri("/echo"), number.to_string()).await;
            assert_is_session(&response, &bed, 0);
        }
    };
    Server::strict(spoken, listener).beside(work).await;
    assert_eq!(bed.sessions().len(), 1);
    bed.assert_cut(25);
}

/// The response came over the bed's session of that number, and has its [`Handle`].
pub(super) fn assert_is_session<B>(response: &http::Response<B>, bed: &Bed, number: usize) {
    assert_eq!(handle(response).id(), bed.sessions()[number].id());
}

pub(super) fn handle<B>(response: &http::Response<B>) -> &Handle {
    let handle = response.extensions().get();
    handle.expect("each response has the session's handle")
}

/// Sends a request, and tells the session that it goes over before there is an answer.
fn captured(
    client: &Pooled,
    mut request: Request<AnyBody>,
) -> (ResponseFuture, impl Future<Output = Handle>) {
    let mut connection = capture_connection(&mut request);
    let session = async move {
        let mut extensions = http::Extensions::new();
        let connected = connection.wait_for_connection_metadata().await;
        let connected = connected.as_ref().expect("a connection");
        connected.get_extras(&mut extensions);
        extensions.remove().expect("a handle")
    };
    (client.request(request), session)
}

/// Takes the session's links away until [`attach`].
pub(super) async fn detach(bed: &Bed, session: &Handle) {
    bed.proxy.set_refusing(true);
    bed.proxy.cut_now(Close::Reset);
    while bed.proxy.stats().live > 0 {
        sleep(POLL).await;
    }
    let mut state = session.subscribe();
    let lost = state.wait_for(|state| matches!(state, LinkState::Reconnecting { .. }));
    lost.await.expect("it lives");
}

pub(super) fn attach(bed: &Bed) {
    bed.proxy.set_refusing(false);
}

/// Until the session has been given something to send, which no watch announces.
pub(super) async fn until_sent(session: &Handle, before: u64) {
    while session.stats().sent == before {
        sleep(POLL).await;
    }
}

async fn requests_wait_for_a_detached_session_and_http1_opens_another_for_those_at_once(
    spoken: Spoken,
) {
    with_both(async |version| {
        let (bed, listener) = Bed::start(spoken, 1 << 10).await;
        let mut server = Server::strict(spoken, listener);
        let gate = server.gate.clone();
        let client: Pooled = client(version, bed.connector());
        let work = async {
            for number in 0..10 {
                let (first, session) = captured(&client, post(bed.uri("/gate"), full("first")));
                let first = tokio::spawn(first);
                let session = session.await;
                gate.arrived(1).await;
                detach(&bed, &session).await;
                let sent = session.stats().sent;
                let second = echo(&client, bed.uri("/echo"), number.to_string());
                let attached = async {
                    if version == Version::HTTP_2 {
                        until_sent(&session, sent).await;
                    }
                    attach(&bed);
                };
                let (second, ()) = tokio::join!(second, attached);
                let same = handle(&second).id() == session.id();
                assert_eq!(same, version == Version::HTTP_2);
                gate.release(1);
                let first = first.await.expect("no panic").expect("a response");
                assert_eq!(handle(&first).id(), session.id());
                let body = first.into_body().collect().await.expect("a whole body");
                assert_eq!(body.to_bytes(), "first");
            }
        };
        server.beside(work).await;
        bed.assert_cut(10);
    })
    .await;
}

async fn a_cancelled_request_costs_http1_the_session_and_http2_nothing(spoken: Spoken) {
    with_both(async |version| {
        let (bed, listener) = Bed::start(spoken, 1 << 10).await;
        let mut server = Server::lenient(listener);
        let gate = server.gate.clone();
        let client = single(version, &bed, spoken.config());
        let work = async {
            warm_up(&client, &bed).await;
            let cancelled = client.request(post(bed.uri("/gate"), full("never")));
            tokio::select! {
                response = cancelled => panic!("nobody let it go: {response:?}"),
                () = gate.arrived(1) => {}
            }
            let response = echo(&client, bed.uri("/echo"), "after").await;
            let session = usize::from(version == Version::HTTP_11);
            assert_is_session(&response, &bed, session);
        };
        server.beside(work).await;
        bed.assert_cut(5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisoned_session_takes_no_more_requests_and_ends_those_it_has() {
    let spoken = Spoken::Native;
    let (bed, listener) = Bed::start(spoken, 1 << 10).await;
    let mut server = Server::strict(spoken, listener);
    let gate = server.gate.clone();
    let client: Pooled = client(Version::HTTP_2, bed.connector());
    let work = async {
        warm_up(&client, &bed).await;
        let mut request = post(bed.uri("/gate"), full("patience"));
        let connection = capture_connection(&mut request);
        let patient = tokio::spawn(client.request(request));
        gate.arrived(1).await;
        let metadata = connection.connection_metadata();
        metadata.as_ref().expect("a connection").poison();
        drop(metadata);
        let response = echo(&client, bed.uri("/echo"), "after").await;
        assert_is_session(&response, &bed, 1);
        gate.release(1);
        let response = patient.await.expect("no panic").expect("a response");
        assert_is_session(&response, &bed, 0);
    };
    within(server.beside(work)).await;
    assert_eq!(bed.sessions().len(), 2);
    bed.assert_cut(5);
}
