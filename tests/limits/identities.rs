//! Sessions of each client.

use std::time::Duration;

use unbroken::{Config, KeyPair, Limit, Security};

use super::{
    addr, check_refused,
    memory_net::{Net, Protocol, ROOMY, exchange},
    open_from,
};

#[tokio::test(start_paused = true)]
async fn a_client_opens_as_many_sessions_as_it_may_from_wherever_it_is() {
    let server = KeyPair::from_private_bytes([1; 32]);
    let public = server.public();
    let config = Config::new()
        .security(Security::key_pair(server).authorize(|_| true))
        .max_sessions_per_identity(2);
    let client = |key: u8| {
        let keys = KeyPair::from_private_bytes([key; 32]);
        Config::new().security(Security::mutual(keys, public))
    };
    let mut net = Net::new(&config, ROOMY);
    let mut open = Vec::new();
    for key in [2, 3] {
        for session in 0..2 {
            let ends = open_from(&mut net, &client(key), addr(session)).await;
            open.push(ends.expect("room"));
        }
        let more = open_from(&mut net, &client(key), addr(key.into())).await;
        check_refused(
            Protocol::Native,
            more,
            Limit::SessionsPerIdentity,
            "elsewhere",
        );
    }
    for (client, server) in &mut open {
        exchange(client, server).await;
    }
    // One of the first client's leaves: the first client is let in again, and the second is not.
    drop(open.remove(0));
    tokio::time::sleep(Duration::from_secs(100)).await;
    let more = open_from(&mut net, &client(3), addr(0)).await;
    check_refused(
        Protocol::Native,
        more,
        Limit::SessionsPerIdentity,
        "another's",
    );
    open_from(&mut net, &client(2), addr(0))
        .await
        .expect("room");
}
