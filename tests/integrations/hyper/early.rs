//! Answers that do not wait for the request.

use http::{StatusCode, Version};
use http_body_util::BodyExt;

use super::{NOISE, Pooled, UP, client, echo, fed, feed, post, site::Server, with_both};
use crate::bed::{Bed, Spoken, within};

// Over HTTP/1 the server ends the connection behind its answer: over snet that is an error, for which hyper gives up what it has read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_the_end_of_the_upload_arrives_whole() {
    within(with_both(async |version| {
        let spoken = Spoken::Native;
        let (bed, listener) = Bed::start(spoken, 16 << 10).await;
        let client: Pooled = client(version, bed.connector());
        let work = async {
            for _ in 0..2 {
                let (mut sender, body) = fed();
                let upload = tokio::spawn(async move { feed(&mut sender, UP).await });
                let response = client.request(post(bed.uri("/early"), body)).await;
                let response = response.expect("a response");
                assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
                let body = response.into_body().collect().await;
                assert!(body.expect("a whole body").to_bytes() == *NOISE);
                upload.abort();
                echo(&client, bed.uri("/echo"), "after").await;
            }
        };
        Server::lenient(listener).beside(work).await;
        if version == Version::HTTP_2 {
            assert_eq!(bed.sessions().len(), 1);
        }
        bed.assert_cut(5);
    }))
    .await;
}
