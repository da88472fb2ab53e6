//! Noise records on links that give and take as they like, that are tampered with, and that break the contract of their traits.

#![cfg(all(feature = "noise", feature = "transport"))]

#[path = "../support/memory_link.rs"]
mod memory_link;

mod contract;
mod handshakes;
mod pieces;
mod property;
mod wire;

use unbroken::{
    Error, HandshakeError,
    protocol::noise::{ClientKeys, Initiator, Records, Responder, ServerKeys, Suite},
};

/// The same records each time, the client's and the server's.
fn records(suite: Suite) -> (Records, Records) {
    let mut client = Initiator::new(ClientKeys::Anonymous, suite, b"", [1; 32].into());
    let mut server = Responder::new(ServerKeys::Anonymous, suite, b"", [2; 32].into());
    let first = client.first(b"").expect("it is the first message");
    server.first(&first).expect("it is unchanged");
    let (second, server) = server.second(b"").expect("the first is in");
    let (_, client) = client.second(&second).expect("it is unchanged");
    (client, server)
}

/// What is wrong with the peer's records, if the error says so.
fn found(error: &std::io::Error) -> Option<HandshakeError> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::Handshake(error) => Some(*error),
        _ => None,
    }
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}
