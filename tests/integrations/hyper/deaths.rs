//! A session that died is an error to those who were on it, and is not reused.

use std::{error::Error, iter::successors, mem::replace, net::Ipv4Addr, time::Duration};

use http::Version;
use http_body_util::BodyExt;
use hyper_util::client::legacy;
use tokio::task::JoinHandle;
use unbroken::{CloseReason, Handle, LinkState, Listener, Refusal};

use super::{
    Single, echo, full,
    pool::{assert_is_session, attach, detach, until_sent},
    post, single,
    site::Server,
    until_over, warm_up, warm_up_with_cuts, with_both,
};
use crate::{
    bed::{Bed, Spoken, is_without_cause, over_each},
    cutting_proxy::Close,
};

over_each!(
    a_session_that_died_is_not_reused,
    an_idle_http1_session_that_ends_costs_no_request,
    a_session_that_dies_unnoticed_costs_the_request_that_finds_out,
    a_body_on_a_session_that_dies_is_an_error_and_not_an_end,
);

const CODE: u32 = 42;

/// What h2 says to its streams when writing failed.
const H2_WRITING: &str = "stream closed because of a broken pipe";

/// Long enough to dial again.
const RESUME_WINDOW: Duration = Duration::from_millis(1500);

/// What a reset by the server is to the client.
fn reset_by_server(spoken: Spoken) -> CloseReason {
    match spoken {
        Spoken::Snet => CloseReason::Refused(Refusal::Unexplained),
        _ => CloseReason::Reset(CODE),
    }
}

/// A client that has had a hundred requests answered over one session.
struct Used {
    bed: Bed,
    server: Server,
    client: Single,
}

impl Used {
    async fn start(spoken: Spoken, version: Version) -> Self {
        let (bed, listener) = Bed::start(spoken, 1 << 10).await;
        let client = single(version, &bed, spoken.config());
        let mut server = Server::lenient(listener);
        server.beside(warm_up(&client, &bed)).await;
        Self {
            bed,
            server,
            client,
        }
    }

    /// One whose session expires soon, and so meets no faults but cuts.
    async fn with_short_window(spoken: Spoken, version: Version) -> Self {
        let (bed, listener) = Bed::start(spoken, 1 << 10).await;
        let config = spoken.config().resume_window(RESUME_WINDOW);
        let client = single(version, &bed, config);
        let mut server = Server::lenient(listener);
        server.beside(warm_up_with_cuts(&client, &bed)).await;
        Self {
            bed,
            server,
            client,
        }
    }

    /// A request that has reached the server and stays there.
    async fn in_flight(&mut self) -> JoinHandle<Result<(), legacy::Error>> {
        let request = post(self.bed.uri("/gate"), full("in flight"));
        let answered = self.client.request(request);
        let request = tokio::spawn(async move { answered.await.map(|_| ()) });
        let gate = self.server.gate.clone();
        self.server.beside(gate.arrived(1)).await;
        request
    }

    /// The next requests get a session of their own, and the session's end was this.
    async fn assert_replaced(&mut self, reason: CloseReason) {
        assert_eq!(until_over(&self.bed.sessions()[0]).await, reason);
        let Self {
            bed,
            server,
            client,
        } = self;
        let work = async {
            for number in 0..10 {
                let response = echo(client, bed.uri("/echo"), number.to_string()).await;
                assert_is_session(&response, bed, 1);
            }
        };
        server.beside(work).await;
        bed.assert_cut(5);
    }
}

/// The request failed because the session did, and tells of it as its version can.
fn assert_failed_by(error: &legacy::Error, version: Version, dead: &Handle, reason: CloseReason) {
    let of_session = unbroken::Error::find(error);
    if version == Version::HTTP_2 {
        // h2 keeps the error's text at most, for it has to give it to every stream; what a write runs into, not even that.
        assert!(of_session.is_none(), "{error:?}");
        let text = unbroken::Error::Closed(reason).to_string();
        let chain = successors(error.source(), |&error| error.source());
        let texts: Vec<_> = chain.map(ToString::to_string).collect();
        assert!(
            texts.contains(&text) || texts.contains(&H2_WRITING.into()),
            "{texts:?}"
        );
    } else {
        assert!(
            matches!(of_session, Some(unbroken::Error::Closed(of)) if *of == reason),
            "{error:?}"
        );
    }
    let mut extensions = http::Extensions::new();
    let connection = error.connect_info().expect("it had a connection");
    connection.get_extras(&mut extensions);
    let handle = extensions.get::<Handle>().expect("a handle");
    assert_eq!(handle.id(), dead.id());
    assert_eq!(handle.state(), LinkState::Closed(reason));
}

/// A session dies with a request in flight: `kill` sees to that.
async fn dies(spoken: Spoken, reason: CloseReason, kill: impl AsyncFn(&mut Used, &Handle)) {
    with_both(async |version| {
        let mut used = match reason {
            CloseReason::Expired => Used::with_short_window(spoken, version).await,
            _ => Used::start(spoken, version).await,
        };
        let request = used.in_flight().await;
        let session = used.bed.sessions()[0].clone();
        kill(&mut used, &session).await;
        let answered = request.await.expect("no panic");
        let error = answered.expect_err("the session is dead");
        assert_failed_by(&error, version, &session, reason);
        used.assert_replaced(reason).await;
    })
    .await;
}

async fn a_session_that_died_is_not_reused(spoken: Spoken) {
    tokio::join!(
        ended_by_the_server(spoken),
        ended_by_the_client(spoken),
        expired(spoken),
        lost_with_the_server(spoken),
    );
}

async fn ended_by_the_server(spoken: Spoken) {
    dies(spoken, reset_by_server(spoken), async |used, session| {
        assert!(used.server.sessions.close(session.id(), CODE));
    })
    .await;
}

async fn ended_by_the_client(spoken: Spoken) {
    let reason = CloseReason::LocalReset(CODE);
    dies(spoken, reason, async |_, session| session.close(CODE)).await;
}

async fn expired(spoken: Spoken) {
    dies(spoken, CloseReason::Expired, async |used, session| {
        detach(&used.bed, session).await;
        until_over(session).await;
        attach(&used.bed);
    })
    .await;
}

async fn lost_with_the_server(spoken: Spoken) {
    let reason = CloseReason::Refused(match spoken {
        Spoken::Snet => Refusal::Unexplained,
        _ => Refusal::Unknown,
    });
    dies(spoken, reason, async |used, session| {
        detach(&used.bed, session).await;
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), spoken.config()).await;
        let listener = listener.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        // The old one says nothing any more, as after a crash.
        let old = replace(&mut used.server, Server::lenient(listener));
        used.bed.proxy.set_upstream(addr);
        attach(&used.bed);
        until_over(session).await;
        drop(old);
    })
    .await;
}

async fn an_idle_http1_session_that_ends_costs_no_request(spoken: Spoken) {
    let mut used = Used::start(spoken, Version::HTTP_11).await;
    let session = used.bed.sessions()[0].clone();
    assert!(used.server.sessions.close(session.id(), CODE));
    used.bed.proxy.cut_now(Close::Reset);
    until_over(&session).await;
    used.assert_replaced(reset_by_server(spoken)).await;
}

async fn a_session_that_dies_unnoticed_costs_the_request_that_finds_out(spoken: Spoken) {
    with_both(async |version| {
        let mut used = Used::start(spoken, version).await;
        let session = used.bed.sessions()[0].clone();
        detach(&used.bed, &session).await;
        assert!(used.server.sessions.close(session.id(), CODE));
        let sent = session.stats().sent;
        let request = post(used.bed.uri("/echo"), full("to nobody"));
        let request = tokio::spawn(used.client.request(request));
        until_sent(&session, sent).await;
        attach(&used.bed);
        let answered = request.await.expect("no panic");
        let error = answered.expect_err("the session is dead");
        let LinkState::Closed(reason) = session.state() else {
            panic!("the session lives");
        };
        println!("{reason:?}");
        assert_failed_by(&error, version, &session, reason);
        used.assert_replaced(reason).await;
    })
    .await;
}

async fn a_body_on_a_session_that_dies_is_an_error_and_not_an_end(spoken: Spoken) {
    with_both(async |version| {
        let mut used = Used::start(spoken, version).await;
        let Used {
            bed,
            server,
            client,
        } = &mut used;
        let work = async {
            let response = client.request(post(bed.uri("/begun"), full("")));
            let response = response.await.expect("a response");
            let session = bed.sessions()[0].clone();
            assert_is_session(&response, bed, 0);
            let mut body = response.into_body();
            let first = body.frame().await.expect("a frame").expect("a whole one");
            assert_eq!(first.into_data().expect("data"), "begun");
            session.close(CODE);
            let error = body.frame().await.expect("no end").expect_err("no data");
            let of_session = unbroken::Error::find(&error);
            let told = of_session.is_some() || is_without_cause(&error);
            assert_eq!(told, version != Version::HTTP_2, "{error:?}");
        };
        server.beside(work).await;
        used.assert_replaced(CloseReason::LocalReset(CODE)).await;
    })
    .await;
}
