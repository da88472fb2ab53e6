//! Sessions over Noise links, joined without a handshake.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    time::sleep,
};

use super::Shared;
use crate::{
    config::Config,
    protocol::{
        Role,
        native::{Binding, CONFIRM_LEN, Identity, NativeSession, SessionSecret},
        noise::{ClientKeys, Initiator, Records, Responder, ServerKeys, Suite},
    },
    transport::{AnyLink, Peer, ResumableTransport, clock::now, keep, wakers::lock},
};

fn records() -> (Records, Records) {
    let mut client = Initiator::new(ClientKeys::Anonymous, Suite::AesGcm, b"", [1; 32].into());
    let mut server = Responder::new(ServerKeys::Anonymous, Suite::AesGcm, b"", [2; 32].into());
    let first = client.first(b"").expect("it is the first message");
    server.first(&first).expect("it is unchanged");
    let (second, server) = server.second(b"").expect("the first is in");
    let (_, client) = client.second(&second).expect("it is unchanged");
    (client, server)
}

fn session(role: Role) -> Arc<Shared> {
    let config = Config::new()
        .validate(Role::Client)
        .expect("these are the defaults");
    let identity = Identity {
        binding: Binding::NONE,
        id: [1; 16],
        secret: SessionSecret::new([2; 32]),
        route: 0,
        peer_window: config.native.window as u64,
    };
    let session = NativeSession::new(role, identity, config.native, now());
    Shared::new(
        session,
        Duration::from_secs(1),
        &config.memory,
        Peer::default(),
    )
}

fn allocated(session: &Shared) -> usize {
    lock(&session.io).buffered()
}

#[tokio::test(start_paused = true)]
async fn an_idle_sessions_noise_link_holds_no_memory_and_goes_on() {
    const BULK: usize = 300_000;
    let (near, far) = duplex(1 << 16);
    let (client_records, server_records) = records();
    let near = AnyLink::Plain(Box::new(near)).protect(Some(client_records));
    let mut far = AnyLink::Plain(Box::new(far)).protect(Some(server_records));

    let (client, server) = (session(Role::Client), session(Role::Server));
    tokio::spawn(keep(client.clone(), None, ()));
    client
        .attach_opened(near, [0; CONFIRM_LEN])
        .expect("it is the first link");
    far.read_exact(&mut [0; CONFIRM_LEN])
        .await
        .expect("the client sends it first");
    tokio::spawn(keep(server.clone(), None, ()));
    let attached = server.attach_native(far, 0, 0);
    attached.map_err(|(error, _)| error).expect("it is valid");
    let mut near = ResumableTransport::new(client.clone());
    let mut far = ResumableTransport::new(server.clone());

    for _ in 0..2 {
        let (bytes, mut read) = (vec![7; BULK], vec![0; BULK]);
        let (written, result) = tokio::join!(near.write_all(&bytes), far.read_exact(&mut read));
        written.expect("the session goes on");
        result.expect("the session goes on");
        let (written, result) = tokio::join!(far.write_all(&bytes), near.read_exact(&mut read));
        written.expect("the session goes on");
        result.expect("the session goes on");
        assert!(allocated(&client) > 0 && allocated(&server) > 0);
        // Each end is pinged many times, and answers, whether its application reads or not.
        let reading = tokio::spawn(async move {
            let byte = near.read_u8().await;
            (near, byte)
        });
        sleep(Duration::from_secs(300)).await;
        assert_eq!((allocated(&client), allocated(&server)), (0, 0));
        far.write_u8(1).await.expect("the session goes on");
        let byte;
        (near, byte) = reading.await.expect("it does not panic");
        assert_eq!(byte.expect("the session goes on"), 1);
    }
}
