//! The limits of a server: each refuses at its bound and lets in again below it, and nobody's flood costs anybody else. Over in-memory
//! links, in virtual time.

#![cfg(all(feature = "client", feature = "server"))]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use unbroken::{Config, Error, Limit, RejectCode, ResumableTransport};

#[path = "../support/memory_link.rs"]
mod memory_link;
#[path = "../support/memory_net.rs"]
mod memory_net;
#[path = "../support/raw_native.rs"]
mod raw_native;
#[path = "../support/raw_peer.rs"]
mod raw_peer;
#[path = "../support/setup_clear.rs"]
mod setup;

mod handshakes;
#[cfg(feature = "noise")]
mod identities;
mod resumes;
mod sessions;
mod wrapped;

use memory_net::{Net, Protocol, within};
use tower::ServiceExt;

/// An address of its own for each number, and a port that means nothing.
fn addr(number: u16) -> SocketAddr {
    let [a, b] = number.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(198, 18, a, b), rand::random()))
}

/// The same, as a socket for both kinds of IP shows it.
fn mapped(number: u16) -> SocketAddr {
    let addr = addr(number);
    match addr.ip() {
        std::net::IpAddr::V4(ip) => SocketAddr::from((ip.to_ipv6_mapped(), addr.port())),
        std::net::IpAddr::V6(_) => unreachable!("they are IPv4"),
    }
}

/// An address of the /64 with this number.
fn of_subnet(number: u16) -> SocketAddr {
    let [a, b, c, d] = rand::random();
    let ip = Ipv6Addr::new(0x2001, 0xdb8, 7, number, a, b, c, d);
    SocketAddr::from((ip, rand::random()))
}

/// Opens a session from an address: both ends of it, or how the client is turned away and what the server says of it.
async fn open_from(
    net: &mut Net,
    config: &Config,
    addr: SocketAddr,
) -> Result<(ResumableTransport, ResumableTransport), (Error, Error)> {
    let connector = unbroken::Connector::new(net.dialer_from(addr), config.clone());
    match within("opening", connector.oneshot(())).await {
        Ok(client) => Ok((client, net.session().await)),
        Err(error) => loop {
            match net.failure().await {
                // A session that is over, whose client came back to hear of it.
                Error::Resume(_) => {}
                refused => return Err((error, refused)),
            }
        },
    }
}

/// Sees that a client which wanted a session was turned away by this limit, and told what helps.
fn check_refused<T>(
    protocol: Protocol,
    opened: Result<T, (Error, Error)>,
    limit: Limit,
    what: &str,
) {
    let Err((client, server)) = opened else {
        panic!("{what}: let in");
    };
    match protocol {
        Protocol::Native => assert!(
            matches!(client, Error::Rejected { reason: RejectCode::Busy, retry_after } if retry_after.as_secs() == 1),
            "{what}: {client:?}"
        ),
        Protocol::Snet => assert!(matches!(client, Error::Link(_)), "{what}: {client:?}"),
    }
    assert!(
        matches!(server, Error::Overloaded(reached) if reached == limit),
        "{what}: {server:?}"
    );
}
