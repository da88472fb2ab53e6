//! Servers that go in order.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::TokioExecutor,
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{sync::oneshot, task::JoinSet};
use unbroken::{BoxError, Listener};

use super::{
    NOISE, Pooled, client, cut, echo,
    site::{Gate, answer},
    with_both,
};
use crate::{
    bed::{Bed, Spoken, over_native},
    cutting_proxy::Close,
};

// Over snet nobody is told that a connection has ended.
over_native!(a_server_that_shuts_down_answers_what_is_in_flight_and_resets_nothing);

/// How many are in flight when the server begins to stop.
const REQUESTS: usize = 10;

/// Serves until it is told to stop, and returns how many sessions had to be reset.
async fn serve(
    mut listener: Listener,
    gate: Arc<Gate>,
    mut stop: oneshot::Receiver<Infallible>,
) -> usize {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (transport, _) = accepted.expect("the listener works");
                let (watcher, gate) = (graceful.watcher(), gate.clone());
                connections.spawn(async move {
                    let answer = service_fn(|request| answer(request, gate.clone()));
                    let http = auto::Builder::new(TokioExecutor::new());
                    let connection = http.serve_connection(transport, answer);
                    watcher.watch(connection).await
                });
            }
            _ = &mut stop => break,
        }
    }
    let patience = Duration::from_secs(30);
    let ((), reset) = tokio::join!(graceful.shutdown(), listener.shutdown(patience));
    while let Some(ended) = connections.join_next().await {
        match ended.expect("no panic") {
            Ok(()) => {}
            // The pool had opened it, and nothing was ever sent on it.
            Err(error) if is_cancelled(&error) => {}
            Err(error) => panic!("a connection ended: {error:?}"),
        }
    }
    reset
}

/// What `auto` says of a connection that ends before it knows the version.
fn is_cancelled(error: &BoxError) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::Interrupted)
}

async fn a_server_that_shuts_down_answers_what_is_in_flight_and_resets_nothing(spoken: Spoken) {
    with_both(async |version| {
        let (bed, listener) = Bed::start(spoken, 8 << 10).await;
        let gate = Gate::new();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(listener, gate.clone(), stopped));
        let client: Pooled = client(version, bed.connector());
        for number in 0..20 {
            echo(&client, bed.uri("/echo"), number.to_string()).await;
        }
        // As many sessions as requests over HTTP/1, and each cut is for all of them: other faults on top keep a slow machine busy for ever.
        bed.proxy.stop_faults();
        let mut requests = JoinSet::new();
        for number in 0..REQUESTS {
            let (client, uri) = (client.clone(), bed.uri("/gate"));
            let body = NOISE.slice(number * 1024..number * 1024 + 64 * 1024);
            requests.spawn(async move { echo(&client, uri, body).await });
        }
        gate.arrived(REQUESTS as u32).await;
        for _ in 0..5 {
            cut(&bed, &bed.sessions()[0]).await;
        }
        drop(stop);
        bed.proxy.cut_now(Close::Reset);
        gate.release(REQUESTS);
        assert_eq!(requests.join_all().await.len(), REQUESTS);
        let reset = server.await.expect("no panic");
        assert_eq!(reset, 0, "{version:?}");
        bed.assert_cut(5);
    })
    .await;
}
