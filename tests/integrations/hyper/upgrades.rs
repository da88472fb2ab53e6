//! Other protocols on a connection that began with HTTP.

use http::{Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, upgrade};
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split};
use unbroken::ResumableTransport;

use super::{AnyBody, LONG, NOISE, Pooled, client, echo, full, post, site::Server};
use crate::bed::{Bed, Spoken, over_each};

over_each!(
    an_upgraded_connection_carries_bytes_both_ways_and_ends_in_order,
    a_tunnel_through_http2_carries_bytes_both_ways_and_ends_in_order,
);

const PROTOCOL: &str = "echo";

/// Changes to the protocol that sends back what comes, until it ends.
pub(super) fn answer(request: Request<Incoming>) -> Response<AnyBody> {
    let mut response = Response::new(full(""));
    let over_http2 = request.method() == Method::CONNECT;
    if !over_http2 {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, PROTOCOL.parse().expect("a value"));
        headers.insert(header::CONNECTION, "upgrade".parse().expect("a value"));
    }
    tokio::spawn(async move {
        let upgraded = upgrade::on(request).await.expect("it is upgraded");
        if over_http2 {
            return send_back(TokioIo::new(upgraded), &[]).await;
        }
        let parts = auto::upgrade::downcast::<ResumableTransport>(upgraded);
        let parts = parts.expect("a transport is what was served");
        send_back(parts.io, &parts.read_buf).await;
    });
    response
}

async fn send_back(stream: impl AsyncRead + AsyncWrite, first: &[u8]) {
    let (mut from_client, mut to_client) = split(stream);
    to_client.write_all(first).await.expect("the client reads");
    let copied = copy(&mut from_client, &mut to_client).await;
    copied.expect("the client ends in order");
    to_client.shutdown().await.expect("the client is there");
}

/// Sends noise, and compares what comes back.
async fn converse(spoken: Spoken, stream: impl AsyncRead + AsyncWrite, first: &[u8]) {
    let (from_server, mut to_server) = split(stream);
    let up = async {
        for _ in 0..LONG / NOISE.len() {
            to_server.write_all(&NOISE).await.expect("the server reads");
        }
        to_server.flush().await.expect("the server reads");
        if spoken.tells_the_end() {
            to_server.shutdown().await.expect("it takes the end");
        }
    };
    let down = async {
        let mut from_server = first.chain(from_server);
        let mut back = vec![0; NOISE.len()];
        for _ in 0..LONG / NOISE.len() {
            let read = from_server.read_exact(&mut back).await;
            read.expect("as much as was sent");
            assert!(back == *NOISE, "other bytes came back");
        }
        if spoken.tells_the_end() {
            let more = from_server.read(&mut back).await.expect("an end");
            assert_eq!(more, 0);
        }
    };
    tokio::join!(up, down);
}

async fn an_upgraded_connection_carries_bytes_both_ways_and_ends_in_order(spoken: Spoken) {
    let (bed, listener) = Bed::paced(spoken).await;
    let client: Pooled = client(Version::HTTP_11, bed.connector());
    let work = async {
        echo(&client, bed.uri("/echo"), "before").await;
        let mut request = post(bed.uri("/upgrade"), full(""));
        let headers = request.headers_mut();
        headers.insert(header::UPGRADE, PROTOCOL.parse().expect("a value"));
        headers.insert(header::CONNECTION, "upgrade".parse().expect("a value"));
        let response = client.request(request).await.expect("a response");
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let upgraded = upgrade::on(response).await.expect("it is upgraded");
        let parts = upgraded.downcast::<ResumableTransport>();
        let parts = parts.expect("a transport is what was connected");
        let transport = parts.io;
        let session = transport.handle().id();
        assert!(bed.sessions().iter().any(|handle| handle.id() == session));
        converse(spoken, transport, &parts.read_buf).await;
    };
    Server::strict(spoken, listener).beside(work).await;
    bed.assert_cut(20);
}

async fn a_tunnel_through_http2_carries_bytes_both_ways_and_ends_in_order(spoken: Spoken) {
    let (bed, listener) = Bed::paced(spoken).await;
    let client: Pooled = client(Version::HTTP_2, bed.connector());
    let work = async {
        let mut request = post(bed.uri("/upgrade"), full(""));
        *request.method_mut() = Method::CONNECT;
        let response = client.request(request).await.expect("a response");
        assert_eq!(response.status(), StatusCode::OK);
        let upgraded = upgrade::on(response).await.expect("it is upgraded");
        // The connection below is HTTP/2's, which carries other streams as well: its end is told over snet too.
        converse(Spoken::Native, TokioIo::new(upgraded), &[]).await;
        echo(&client, bed.uri("/echo"), "after").await;
    };
    Server::strict(spoken, listener).beside(work).await;
    assert_eq!(bed.sessions().len(), 1);
    bed.assert_cut(20);
}
