//! Server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use unbroken::{Error, LinkState};

use super::*;
use crate::{bed::is_without_cause, cutting_proxy::Close, websocket::is_reset};

over_each!(
    numbered_events_arrive_in_order_between_comments,
    a_session_that_dies_is_an_error_of_the_body,
);

const EVENTS: u32 = 200;

/// After how many events the server waits until a comment has been heard.
const BATCH: u32 = 20;

/// After which time without an event axum sends a comment.
const QUIET: Duration = Duration::from_millis(5);

fn data(number: u32) -> String {
    format!("{number} of many, ").repeat(1 + number as usize % 40)
}

/// Takes a body apart into events and comments, as far as they are whole.
fn blocks(
    response: http::Response<Incoming>,
) -> impl Stream<Item = Result<String, hyper::Error>> + Unpin {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let begun = (response.into_body(), Vec::new());
    Box::pin(stream::unfold(begun, async |(mut body, mut bytes)| {
        loop {
            let end = bytes.windows(2).position(|two| two == b"\n\n");
            if let Some(end) = end {
                let block = bytes.drain(..end + 2).collect();
                let block = String::from_utf8(block).expect("text");
                return Some((Ok(block), (body, bytes)));
            }
            match body.frame().await {
                Some(Ok(frame)) => bytes.extend(frame.into_data().expect("data")),
                Some(Err(error)) => return Some((Err(error), (body, bytes))),
                None => {
                    assert!(bytes.is_empty(), "a part of an event at the end");
                    return None;
                }
            }
        }
    }))
}

/// Takes the events in, and cuts the link at the comments which say that the server waits. Returns how many comments there were.
async fn expect_events(
    bed: &Bed,
    blocks: &mut (impl Stream<Item = Result<String, hyper::Error>> + Unpin),
    heard: &Semaphore,
) -> u32 {
    let mut comments = 0;
    let mut number = 0;
    let mut awaited = BATCH - 1;
    while number < EVENTS {
        let block = blocks.next().await.expect("an event");
        let block = block.expect("a whole one");
        if block.starts_with(':') {
            assert_eq!(block, ": still here\n\n");
            comments += 1;
            if number == awaited {
                bed.proxy.cut_now(Close::Reset);
                heard.add_permits(1);
                awaited += BATCH;
            }
        } else {
            assert_eq!(block, format!("id: {number}\ndata: {}\n\n", data(number)));
            number += 1;
        }
    }
    comments
}

/// Numbered events, a batch whenever a comment has been heard.
fn numbered(heard: Arc<Semaphore>) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    stream::iter(0..EVENTS).then(move |number| {
        let heard = heard.clone();
        async move {
            if number % BATCH == BATCH - 1 {
                heard.acquire().await.expect("it is open").forget();
            }
            Ok(Event::default().id(number.to_string()).data(data(number)))
        }
    })
}

fn keep_alive() -> KeepAlive {
    KeepAlive::new().interval(QUIET).text("still here")
}

async fn numbered_events_arrive_in_order_between_comments(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 8 << 10).await;
    let heard = Arc::new(Semaphore::new(0));
    let send = async |State(heard): State<Arc<Semaphore>>| {
        Sse::new(numbered(heard)).keep_alive(keep_alive())
    };
    let app = Router::new().route("/events", get(send));
    let _serving = serve(listener, app.with_state(heard.clone()));
    for http in [Http::One, Http::Two] {
        let browser = Browser::new(&bed, http);
        let mut blocks = blocks(browser.get("/events").await);
        let comments = expect_events(&bed, &mut blocks, &heard).await;
        assert!(comments >= EVENTS / BATCH, "{comments} comments");
        let end = blocks.next().await;
        assert!(end.is_none(), "{end:?}");
    }
    bed.assert_cut(15);
}

async fn a_session_that_dies_is_an_error_of_the_body(spoken: Spoken) {
    let (bed, listener) = Bed::start(spoken, 8 << 10).await;
    let sessions = listener.sessions();
    let heard = Arc::new(Semaphore::new(0));
    // Its clones go when the streams do.
    let (stream_lives, mut streams) = mpsc::channel::<Infallible>(1);
    let for_streams = (heard.clone(), stream_lives.downgrade());
    type Shared = (Arc<Semaphore>, mpsc::WeakSender<Infallible>);
    let send = async |State((heard, lives)): State<Shared>| {
        let lives = lives.upgrade();
        let events = numbered(heard).chain(stream::pending());
        let events = events.inspect(move |_| assert!(lives.is_some()));
        Sse::new(events).keep_alive(keep_alive())
    };
    let app = Router::new().route("/events", get(send));
    let _serving = serve(listener, app.with_state(for_streams));
    for http in [Http::One, Http::Two] {
        let browser = Browser::new(&bed, http);
        let response = browser.get("/events").await;
        let session = response.extensions().get::<Handle>();
        let session = session.expect("the session's handle").clone();
        let mut blocks = blocks(response);
        expect_events(&bed, &mut blocks, &heard).await;
        assert!(sessions.close(session.id(), 7));
        let error = loop {
            match blocks.next().await.expect("no end") {
                Ok(comment) => assert!(comment.starts_with(':'), "{comment}"),
                Err(error) => break error,
            }
        };
        let LinkState::Closed(why) = session.state() else {
            panic!("the session goes on");
        };
        let why = Error::Closed(why);
        match http {
            Http::One => {
                let told = is_reset(&error, 7, spoken) || is_without_cause(&error);
                assert!(told, "{error:?}");
            }
            // h2 keeps but the text of an error.
            Http::Two => {
                assert!(unbroken::Error::find(&error).is_none(), "{error:?}");
                let text = format!("{error:?}");
                assert!(text.contains(&why.to_string()), "{text}");
            }
        }
        assert!(is_reset(&io::Error::from(why), 7, spoken));
    }
    drop(stream_lives);
    assert!(streams.recv().await.is_none(), "the server's streams go on");
    bed.assert_cut(15);
}
