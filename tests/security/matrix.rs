//! Which two ends open a session, and what the others are told.

use std::time::Duration;

use tower::ServiceExt;
use unbroken::{
    Config, Connector, Error, HandshakeError, PublicKey, RejectCode, ResumableTransport, Security,
    Suite,
};

use super::{
    choices::{MEMBER, SERVER, STRANGER, for_members, keys, public},
    memory_link::Client as ClientSide,
    memory_net::{Net, ROOMY, exchange, within},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    None,
    Anonymous,
    Psk(u8),
    /// That knows this server.
    ServerKey(u8),
    /// With this key, that knows this server.
    Mutual(u8, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    None,
    Anonymous,
    Psk(u8),
    KeyPair,
    ForMembers,
}

const CLIENTS: [Client; 9] = [
    Client::None,
    Client::Anonymous,
    Client::Psk(8),
    Client::Psk(9),
    Client::ServerKey(SERVER),
    Client::ServerKey(STRANGER),
    Client::Mutual(MEMBER, SERVER),
    Client::Mutual(MEMBER, STRANGER),
    Client::Mutual(STRANGER, SERVER),
];

const SERVERS: [Server; 6] = [
    Server::None,
    Server::Anonymous,
    Server::Psk(8),
    Server::Psk(9),
    Server::KeyPair,
    Server::ForMembers,
];

const SUITES: [Option<Suite>; 3] = [None, Some(Suite::AesGcm), Some(Suite::ChaChaPoly)];

fn with_suite(security: Security, suite: Option<Suite>) -> Config {
    Config::new().security(match suite {
        Some(suite) => security.suite(suite),
        None => security,
    })
}

impl Client {
    fn config(self, suite: Option<Suite>) -> Config {
        let security = match self {
            Self::None => Security::none(),
            Self::Anonymous => Security::anonymous(),
            Self::Psk(key) => Security::psk([key; 32]),
            Self::ServerKey(server) => Security::server_key(public(server)),
            Self::Mutual(own, server) => Security::mutual(keys(own), public(server)),
        };
        with_suite(security, suite)
    }
}

impl Server {
    fn config(self, suite: Option<Suite>) -> Config {
        let security = match self {
            Self::None => Security::none(),
            Self::Anonymous => Security::anonymous(),
            Self::Psk(key) => Security::psk([key; 32]),
            Self::KeyPair => Security::key_pair(keys(SERVER)),
            Self::ForMembers => for_members(),
        };
        with_suite(security, suite)
    }
}

/// Whom both ends take each other for, or what the client is told and what the server finds.
type Outcome = Result<[Option<PublicKey>; 2], (RejectCode, HandshakeError)>;

fn expected(client: (Client, Option<Suite>), server: (Server, Option<Suite>)) -> Outcome {
    const NOT_OFFERED: Outcome = Err((RejectCode::SecurityNotOffered, HandshakeError::Security));
    const OTHER_KEYS: Outcome = Err((RejectCode::NotAuthorised, HandshakeError::Decrypt));
    const NOT_LET_IN: Outcome = Err((RejectCode::NotAuthorised, HandshakeError::NotAuthorised));
    let chosen = client.1.unwrap_or_else(Suite::fastest);
    let other_suite = server.1.is_some_and(|suite| suite != chosen);
    match (client.0, server.0) {
        // Without Noise there is no suite.
        (Client::None, Server::None) => Ok([None, None]),
        (Client::Anonymous, Server::Anonymous)
        | (Client::Psk(_), Server::Psk(_))
        | (Client::ServerKey(_), Server::KeyPair)
        | (Client::Mutual(..), Server::ForMembers)
            if other_suite =>
        {
            NOT_OFFERED
        }
        (Client::Anonymous, Server::Anonymous) => Ok([None, None]),
        (Client::Psk(a), Server::Psk(b)) if a == b => Ok([None, None]),
        (Client::Psk(_), Server::Psk(_)) => OTHER_KEYS,
        (Client::ServerKey(SERVER), Server::KeyPair) => Ok([Some(public(SERVER)), None]),
        (Client::ServerKey(_), Server::KeyPair) => OTHER_KEYS,
        (Client::Mutual(MEMBER, SERVER), Server::ForMembers) => {
            Ok([Some(public(SERVER)), Some(public(MEMBER))])
        }
        (Client::Mutual(_, SERVER), Server::ForMembers) => NOT_LET_IN,
        (Client::Mutual(..), Server::ForMembers) => OTHER_KEYS,
        _ => NOT_OFFERED,
    }
}

#[tokio::test(start_paused = true)]
async fn ends_that_fit_open_a_session_and_all_others_are_told_why_not() {
    let mut opened = 0;
    for (client, server) in CLIENTS
        .iter()
        .flat_map(|client| SERVERS.map(|server| (*client, server)))
    {
        for suites in SUITES
            .iter()
            .flat_map(|client| SUITES.map(|server| (*client, server)))
        {
            let what = format!("{client:?} and {server:?}, {suites:?}");
            let mut net = Net::new(&server.config(suites.1), ROOMY);
            let connector = Connector::new(net.dialer(), client.config(suites.0));
            let connected = within("opening", connector.oneshot(())).await;
            let prelude = net.wire(0).written(ClientSide);
            let suite = match client {
                Client::None => 0,
                _ => suites.0.unwrap_or_else(Suite::fastest).code(),
            };
            assert_eq!(prelude[7], suite, "{what}");
            match expected((client, suites.0), (server, suites.1)) {
                Ok(peers) => {
                    let client = connected.unwrap_or_else(|error| panic!("{what}: {error}"));
                    let server = net.session().await;
                    check(&net, client, server, peers, &what).await;
                    opened += 1;
                }
                Err((code, found)) => {
                    let error = connected.expect_err(&what);
                    assert!(
                        matches!(&error, Error::Rejected { reason, retry_after }
                            if *reason == code && *retry_after == Duration::ZERO),
                        "{what}: {error:?}"
                    );
                    let failure = net.failure().await;
                    assert!(
                        matches!(&failure, Error::Handshake(error) if *error == found),
                        "{what}: {failure:?}"
                    );
                    let sessions = net.acceptor().sessions().expect("it can be used");
                    assert_eq!(sessions.list().len(), 0, "{what}");
                    assert_eq!(net.links(), 1, "{what}: one attempt is made");
                }
            }
        }
    }
    // Without Noise all pairs of suites fit; with it, those where the server forces no other than the client takes.
    let fitting = 9 + 5 * SUITES
        .iter()
        .flat_map(|client| SUITES.map(|server| (client.unwrap_or_else(Suite::fastest), server)))
        .filter(|(client, server)| server.is_none_or(|server| server == *client))
        .count();
    assert_eq!(opened, fitting);
}

/// The session carries bytes both ways, on another link as well, and says all along who is at its other end.
async fn check(
    net: &Net,
    mut client: ResumableTransport,
    mut server: ResumableTransport,
    peers: [Option<PublicKey>; 2],
    what: &str,
) {
    for _ in 0..2 {
        exchange(&mut client, &mut server).await;
        let told =
            [&client, &server].map(|end| [end.peer_identity(), end.handle().peer_identity()]);
        assert_eq!(told, peers.map(|peer| [peer, peer]), "{what}");
        let sessions = net.acceptor().sessions().expect("it can be used");
        let listed: Vec<_> = sessions
            .list()
            .iter()
            .map(|info| info.peer_identity)
            .collect();
        assert_eq!(listed, [peers[1]], "{what}");
        net.cut_and_resume(&client, &server).await;
    }
    let handle = server.handle();
    drop((client, server));
    // It says so of a session that is over, too.
    assert_eq!(handle.peer_identity(), peers[1], "{what}");
}
