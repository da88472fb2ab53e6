//! Long bodies both ways, and many at once.

use http::Version;
use tokio::task::JoinSet;

use super::{
    DIGEST, DOWN, LONG, NOISE, Pooled, UP, client, cut, digest, digest_of, echo, fed, feed, post,
    site::Server,
};
use crate::bed::{Bed, Spoken, over_each};

over_each!(
    http1_streams_bodies_both_ways_at_once,
    http2_streams_bodies_both_ways_at_once,
    http2_carries_a_hundred_streams_at_once,
);

async fn http1_streams_bodies_both_ways_at_once(spoken: Spoken) {
    let (bed, listener) = Bed::paced(spoken).await;
    let work = exchange(&bed, Version::HTTP_11);
    Server::strict(spoken, listener).beside(work).await;
    bed.assert_cut(30);
}

async fn http2_streams_bodies_both_ways_at_once(spoken: Spoken) {
    let (bed, listener) = Bed::paced(spoken).await;
    let work = exchange(&bed, Version::HTTP_2);
    Server::strict(spoken, listener).beside(work).await;
    assert_eq!(bed.sessions().len(), 1);
    bed.assert_cut(30);
}

/// Streams long bodies both ways at once.
async fn exchange(bed: &Bed, version: Version) {
    let client: Pooled = client(version, bed.connector());
    let (mut sender, body) = fed();
    let upload = async move { feed(&mut sender, UP).await };
    let download = async {
        let response = client.request(post(bed.uri("/exchange"), body)).await;
        digest(response.expect("a response").into_body(), LONG).await
    };
    let (uploaded, (downloaded, received)) = tokio::join!(upload, download);
    assert_eq!(uploaded, received, "the server's digest of the upload");
    assert_eq!(downloaded, digest_of(DOWN).await, "the download's digest");
    assert_eq!(received.len(), DIGEST);
}

async fn http2_carries_a_hundred_streams_at_once(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 64 << 10).await;
    let mut server = Server::strict(spoken, listener);
    let gate = server.gate.clone();
    let client: Pooled = client(Version::HTTP_2, bed.connector());
    let work = async {
        // Of requests that come at once while there is none, more than one may open a session.
        echo(&client, bed.uri("/echo"), "first").await;
        let mut streams = JoinSet::new();
        for stream in 0..100 {
            let (client, uri) = (client.clone(), bed.uri("/gate"));
            let body = NOISE.slice(stream * 1024..stream * 1024 + 64 * 1024);
            streams.spawn(async move { echo(&client, uri, body).await });
        }
        // All are open at once.
        gate.arrived(100).await;
        for _ in 0..30 {
            cut(&bed, &bed.sessions()[0]).await;
        }
        gate.release(100);
        streams.join_all().await;
    };
    server.beside(work).await;
    assert_eq!(bed.sessions().len(), 1);
    bed.assert_cut(30);
}
