//! Links that are not TCP, or are dialled by others.

use std::{
    future::ready,
    io,
    sync::{Arc, Mutex},
};

use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{
    io::{copy_bidirectional, duplex},
    task::{AbortHandle, JoinSet},
};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use unbroken::{Accepted, Acceptor, Connector, ResumableLayer};

use super::{echo, echo_behind_a_proxy, quiet, survives_many};
use crate::{
    bed::{Spoken, over_each},
    cutting_proxy::Close,
};

over_each!(
    a_session_runs_over_links_in_memory,
    a_session_runs_over_what_hypers_connector_dials,
);
#[cfg(unix)]
over_each!(a_session_runs_over_a_unix_socket);

async fn a_session_runs_over_links_in_memory(spoken: Spoken) {
    let acceptor = Acceptor::new(quiet(spoken));
    let tasks = Arc::new(Mutex::new(JoinSet::new()));
    let newest = Arc::new(Mutex::new(None::<AbortHandle>));
    let dial = {
        let (tasks, newest) = (tasks.clone(), newest.clone());
        service_fn(move |capacity: usize| {
            let (client, mut near) = duplex(capacity);
            let (mut far, server) = duplex(capacity);
            let acceptor = acceptor.clone();
            let mut tasks = tasks.lock().expect("no panic");
            tasks.spawn(async move {
                if let Ok(Accepted::New(transport)) = acceptor.accept(server).await {
                    echo(transport).await;
                }
            });
            let wire = tasks.spawn(async move {
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
            *newest.lock().expect("no panic") = Some(wire);
            ready(io::Result::Ok(client))
        })
    };
    let transport = Connector::new(dial, quiet(spoken)).oneshot(700).await;
    let cut = || {
        let wire = newest.lock().expect("no panic").take();
        wire.expect("a link").abort();
    };
    survives_many(transport.expect("a session"), cut).await;
}

#[cfg(unix)]
async fn a_session_runs_over_a_unix_socket(spoken: Spoken) {
    use std::net::Shutdown;
    use tokio::net::{UnixListener, UnixStream};

    let name = format!("unbroken-{:016x}", rand::random::<u64>());
    let path = std::env::temp_dir().join(name);
    let listener = UnixListener::bind(&path).expect("a free path");
    let acceptor = Acceptor::new(quiet(spoken));
    let newest = Mutex::new(None);
    let serving = async {
        let mut sessions = JoinSet::new();
        loop {
            let (link, _) = listener.accept().await.expect("a link");
            let link = link.into_std().expect("a socket");
            let cut = link.try_clone().expect("a descriptor");
            *newest.lock().expect("no panic") = Some(cut);
            let link = UnixStream::from_std(link).expect("a socket");
            let acceptor = acceptor.clone();
            sessions.spawn(async move {
                match acceptor.accept(link).await {
                    Ok(Accepted::New(transport)) => echo(transport).await,
                    Ok(_) => {}
                    Err(error) => panic!("{error}"),
                }
            });
        }
    };
    let client = async {
        let dial = service_fn(UnixStream::connect::<std::path::PathBuf>);
        let transport = Connector::new(dial, quiet(spoken))
            .oneshot(path.clone())
            .await;
        let cut = || {
            let link = newest.lock().expect("no panic").take();
            let link: std::os::unix::net::UnixStream = link.expect("a link");
            link.shutdown(Shutdown::Both).expect("a socket");
        };
        survives_many(transport.expect("a session"), cut).await;
    };
    tokio::select! {
        () = serving => {}
        () = client => {}
    }
    std::fs::remove_file(path).expect("the socket's file");
}

async fn a_session_runs_over_what_hypers_connector_dials(spoken: Spoken) {
    let (proxy, _echo) = echo_behind_a_proxy(spoken).await;
    let connect = ServiceBuilder::new()
        .layer(ResumableLayer::new(quiet(spoken)))
        .map_response(TokioIo::new)
        .service(HttpConnector::new());
    let uri: Uri = format!("http://{}/", proxy.addr()).parse().expect("a URI");
    let transport = connect.oneshot(uri).await.expect("a session");
    survives_many(transport, || proxy.cut_now(Close::Reset)).await;
}
