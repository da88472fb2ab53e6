//! Trailers, behind bodies in chunks, both ways.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, Version, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::{
    AnyBody, DOWN, LONG, Pooled, UP, client, cut, digest_of, fed, feed, post, site::Server,
    with_both,
};
use crate::bed::{Bed, POLL, Spoken, over_each};

over_each!(trailers_follow_long_bodies_both_ways);

const DIGEST: HeaderName = HeaderName::from_static("x-digest");

fn hex(digest: &Bytes) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn trailers(digest: &Bytes) -> HeaderMap {
    let value = hex(digest).parse().expect("a header's value");
    HeaderMap::from_iter([(DIGEST, value)])
}

/// The digest of a long body and what its trailers say of it.
async fn digest_and_trailers(body: Incoming) -> (String, String) {
    let collected = body.collect().await.expect("a whole body");
    let trailers = collected.trailers().expect("trailers").clone();
    assert_eq!(trailers.len(), 1);
    let told = trailers[DIGEST].to_str().expect("text").to_owned();
    let bytes = collected.to_bytes();
    assert_eq!(bytes.len(), LONG);
    (hex(&Bytes::copy_from_slice(&Sha256::digest(&bytes))), told)
}

/// A long body that ends in its digest.
fn signed(seed: u64) -> AnyBody {
    let (mut sender, body) = fed();
    tokio::spawn(async move {
        let digest = feed(&mut sender, seed).await;
        let sent = sender.send_trailers(trailers(&digest)).await;
        sent.expect("somebody takes them");
    });
    body
}

/// Takes the upload in, and sends one back as long.
pub(super) async fn answer(request: Request<Incoming>) -> Result<Response<AnyBody>, hyper::Error> {
    let (found, told) = digest_and_trailers(request.into_body()).await;
    assert_eq!(found, told);
    let mut response = Response::new(signed(DOWN));
    // HTTP/1 sends those that were announced.
    let headers = response.headers_mut();
    headers.insert(header::TRAILER, DIGEST.into());
    Ok(response)
}

async fn trailers_follow_long_bodies_both_ways(spoken: Spoken) {
    with_both(async |version| {
        let (bed, listener) = Bed::start(spoken, 64 << 10).await;
        let client: Pooled = client(version, bed.connector());
        let work = async {
            let mut request = post(bed.uri("/trailers"), signed(UP));
            if version == Version::HTTP_11 {
                let headers = request.headers_mut();
                headers.insert(header::TRAILER, DIGEST.into());
                // A server sends them to those only who say that they take them.
                headers.insert(header::TE, "trailers".parse().expect("a value"));
            }
            let response = client.request(request).await.expect("a response");
            let (found, told) = digest_and_trailers(response.into_body()).await;
            assert_eq!(found, told);
            assert_eq!(found, hex(&digest_of(DOWN).await));
        };
        let cuts = async {
            let session = loop {
                match bed.sessions().first() {
                    Some(session) => break session.clone(),
                    None => sleep(POLL).await,
                }
            };
            for due in (0..2 * LONG as u64).step_by(LONG / 4) {
                let carried = || session.stats().sent + session.stats().received;
                while carried() < due {
                    sleep(POLL).await;
                }
                cut(&bed, &session).await;
            }
        };
        let work = async { tokio::join!(work, cuts) };
        Server::strict(spoken, listener).beside(work).await;
        assert_eq!(bed.sessions().len(), 1);
        bed.assert_cut(8);
    })
    .await;
}
