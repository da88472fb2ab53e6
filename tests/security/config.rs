//! What cannot be meant is refused before a link is made; and how snet goes beside it.

use std::{net::Ipv4Addr, time::Duration};

use tower::ServiceExt;
use unbroken::{Acceptor, Config, Connector, Error, Listener, Security, Snet};

use super::{
    choices::{Fitting, MEMBER, SERVER, for_members, keys, psk, public},
    memory_net::{Net, ROOMY, exchange},
};

/// Which setting a client is refused for.
async fn client_refused(config: &Config) -> Option<&'static str> {
    let net = Net::new(&Config::new(), ROOMY);
    let opened = Connector::new(net.dialer(), config.clone())
        .oneshot(())
        .await;
    match opened {
        Err(Error::Config(error)) => {
            assert_eq!(net.links(), 0);
            Some(error.field)
        }
        _ => None,
    }
}

/// Which setting a server is refused for, the same by all its ways in.
async fn server_refused(config: &Config) -> Option<&'static str> {
    let acceptor = Acceptor::new(config.clone());
    let bound = Listener::bind((Ipv4Addr::LOCALHOST, 0), config.clone()).await;
    let refused = [
        acceptor.sessions().err(),
        acceptor.accept(tokio::io::empty()).await.err(),
        bound.err().and_then(|error| error.downcast().ok()),
    ];
    let [sessions, accept, bind] = refused.map(|error| match error {
        Some(Error::Config(error)) => Some(error.field),
        _ => None,
    });
    assert_eq!((sessions, sessions), (accept, bind));
    sessions
}

#[tokio::test]
async fn an_end_is_refused_the_other_ends_security() {
    for (security, client, server) in [
        (Security::none(), true, true),
        (Security::anonymous(), true, true),
        (psk(), true, true),
        (Security::server_key(public(SERVER)), true, false),
        (Security::mutual(keys(MEMBER), public(SERVER)), true, false),
        (Security::key_pair(keys(SERVER)), false, true),
        (for_members(), false, true),
        // `authorize` where no key is shown.
        (Security::none().authorize(|_| true), false, false),
        (Security::anonymous().authorize(|_| true), false, false),
        (psk().authorize(|_| true), false, false),
        (
            Security::server_key(public(SERVER)).authorize(|_| true),
            false,
            false,
        ),
        (
            Security::mutual(keys(MEMBER), public(SERVER)).authorize(|_| true),
            false,
            false,
        ),
    ] {
        let config = Config::new().security(security);
        let refused = |allowed: bool| (!allowed).then_some("security");
        assert_eq!(client_refused(&config).await, refused(client), "{config:?}");
        assert_eq!(server_refused(&config).await, refused(server), "{config:?}");
    }
}

#[tokio::test]
async fn snet_beside_a_security_that_authenticates_has_to_be_meant_and_never_is_at_a_client() {
    for fitting in Fitting::ALL {
        let authenticates = fitting != Fitting::Anonymous;
        let refused = authenticates.then_some("snet");
        let (client, server) = (fitting.client(), fitting.server());
        let (plain, meant) = (Snet::plain, || Snet::plain().unauthenticated());
        assert_eq!(client_refused(&client.clone().snet(plain())).await, refused);
        assert_eq!(client_refused(&client.snet(meant())).await, refused);
        assert_eq!(server_refused(&server.clone().snet(plain())).await, refused);
        assert_eq!(server_refused(&server.snet(meant())).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn where_it_is_meant_both_protocols_work_on_one_port() {
    for fitting in Fitting::ALL {
        let snet = || Snet::rc4().silence(None);
        let mut net = Net::new(&fitting.server().snet(snet().unauthenticated()), ROOMY);
        for (client, known) in [
            (fitting.client(), fitting == Fitting::Mutual),
            (Config::new().snet(snet()), false),
        ] {
            let (mut client, mut server) = net.open(&client).await;
            exchange(&mut client, &mut server).await;
            net.cut_and_resume(&client, &server).await;
            exchange(&mut client, &mut server).await;
            assert_eq!(server.peer_identity(), known.then(|| public(MEMBER)));
            // Each says goodbye for itself, so that the next has the newest link.
            client.handle().close(0);
            drop(server);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
