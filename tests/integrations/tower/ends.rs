//! What both ends are opened from.

use std::net::Ipv4Addr;

use futures_util::StreamExt;
use http::Uri;
use unbroken::{Error, Listener, connect};

use super::{echo, echo_behind_a_proxy, quiet, round_trip};
use crate::bed::{Spoken, over_each};

over_each!(
    connect_takes_every_kind_of_target,
    a_listener_is_a_stream_of_transports,
);

async fn connect_takes_every_kind_of_target(spoken: Spoken) {
    let (proxy, _echo) = echo_behind_a_proxy(spoken).await;
    let addr = proxy.addr();
    let text = addr.to_string();
    let uri: Uri = format!("http://{addr}/path").parse().expect("a URI");
    let host = (addr.ip().to_string(), addr.port());
    let transports = [
        connect(text.as_str(), quiet(spoken)).await,
        connect(text.clone(), quiet(spoken)).await,
        connect(addr, quiet(spoken)).await,
        connect(host, quiet(spoken)).await,
        connect(("localhost", addr.port()), quiet(spoken)).await,
        connect((addr.ip(), addr.port()), quiet(spoken)).await,
        connect(uri, quiet(spoken)).await,
    ];
    for transport in transports {
        round_trip(&mut transport.expect("a session"), b"hello").await;
    }
    for target in ["", "host", "host:port"] {
        let refused = connect(target, quiet(spoken)).await;
        assert!(
            matches!(&refused, Err(Error::Target { target: named, .. }) if named == target),
            "{refused:?}"
        );
    }
}

async fn a_listener_is_a_stream_of_transports(spoken: Spoken) {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0), quiet(spoken)).await;
    let listener = listener.expect("a free port");
    let addr = listener.local_addr().expect("its address");
    let clients = async {
        for message in [b"one".as_slice(), b"two"] {
            let transport = connect(addr, quiet(spoken)).await;
            round_trip(&mut transport.expect("a session"), message).await;
        }
    };
    let server = listener.for_each_concurrent(None, |transport| async {
        echo(transport.expect("a session")).await;
    });
    tokio::select! {
        () = clients => {}
        () = server => panic!("the stream ended"),
    }
}
