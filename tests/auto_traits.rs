//! Whether each public type can move between threads, be shared by them, and be moved while pinned. Losing one of these
//! breaks users without a line of theirs changing, so each loss has to be meant.

use unbroken::{
    BoxError, CloseReason, ConfigError, Error, HandshakeError, Limit, ProtocolError, Refusal,
    RejectCode, ResumeError,
    protocol::{
        Arrived, Phase, ReplayBuffer, Role, ServerHandshake, Session, Stats, native,
        snet::{
            Challenge, CipherChoice, ClientOpen, ClientResume, Counts, Direction, Hello,
            KeyAgreement, Opened, PrivateKey, Proof, PublicKey, ResumeReply, ResumeRequest,
            SessionKey, Settings, SnetSession, StreamCipher,
        },
    },
};

fn assert_send<T: Send>() {}
fn assert_sync<T: Sync>() {}
fn assert_unpin<T: Unpin>() {}
fn assert_static<T: 'static>() {}

/// All four.
macro_rules! assert_all {
    ($($type:ty),+ $(,)?) => {$(
        assert_send::<$type>();
        assert_sync::<$type>();
        assert_unpin::<$type>();
        assert_static::<$type>();
    )+};
}

#[test]
fn errors_are_send_sync_unpin_and_static() {
    assert_all!(
        BoxError,
        CloseReason,
        ConfigError,
        Error,
        HandshakeError,
        Limit,
        ProtocolError,
        Refusal,
        RejectCode,
        ResumeError
    );
}

#[test]
fn the_core_is_send_sync_unpin_and_static() {
    assert_all!(Arrived, Phase, ReplayBuffer, Role, Settings, Stats);
    assert_all!(Challenge, CipherChoice, Counts, Direction, Hello);
    assert_all!(ServerHandshake);
    assert_all!(ClientOpen, ClientResume, Opened);
    assert_all!(KeyAgreement, PrivateKey, PublicKey, SessionKey);
    assert_all!(Proof, ResumeReply, ResumeRequest);
}

#[cfg(feature = "noise")]
#[test]
fn keys_are_send_sync_unpin_and_static() {
    use unbroken::{KeyError, KeyKind, KeyPair, PresharedKey, PublicKey};
    assert_all!(KeyError, KeyKind, KeyPair, PresharedKey, PublicKey);
}

#[test]
fn the_native_wire_is_send_sync_unpin_and_static() {
    use native::{
        Answer, ClientOpen, ClientResume, Decoder, Frame, Head, Hello, Identity, Item, Kind,
        NativeSession, Opened, Prelude, Reject, RejectCode, SessionSecret, Settings, Tombstone,
    };

    assert_all!(
        Answer,
        ClientOpen,
        ClientResume,
        Hello,
        Opened,
        SessionSecret
    );
    assert_all!(Decoder, Frame, Head, Item, Reject, RejectCode);
    assert_all!(Kind, Prelude);
    assert_all!(Identity, NativeSession, Settings, Tombstone);
    assert_all!(
        native::Binding,
        native::ClientProtection,
        native::ServerProtection
    );
}

#[cfg(feature = "noise")]
#[test]
fn noise_and_its_keys_are_send_sync_unpin_and_static() {
    use unbroken::{
        KeyError, KeyKind, KeyPair, PresharedKey, PublicKey,
        protocol::noise::{ClientKeys, Initiator, Pattern, Records, Responder, ServerKeys, Suite},
    };

    assert_all!(KeyError, KeyKind, KeyPair, PresharedKey, PublicKey);
    assert_all!(ClientKeys, Pattern, ServerKeys, Suite);
    assert_all!(Initiator, Records, Responder);
}

#[cfg(all(feature = "noise", feature = "transport"))]
#[test]
fn a_noise_link_is_what_its_link_is() {
    assert_all!(unbroken::NoiseLink<tokio::net::TcpStream>);
}

/// It holds ciphers, which need not be `Sync`: each has one user.
#[test]
fn an_snet_session_is_send_unpin_and_static() {
    assert_send::<SnetSession>();
    assert_unpin::<SnetSession>();
    assert_static::<SnetSession>();
    assert_send::<Box<dyn StreamCipher>>();
    assert_send::<Box<dyn Session>>();
}

#[cfg(feature = "transport")]
#[test]
fn the_transport_is_send_sync_unpin_and_static() {
    use unbroken::{Config, Handle, LinkState, MemoryBudget, ResumableTransport, SessionId, Snet};

    assert_all!(ResumableTransport, Handle, LinkState, SessionId);
    // At the root as well.
    assert_all!(unbroken::Stats);
    assert_all!(Config, MemoryBudget, Snet, unbroken::Security);
}

#[cfg(feature = "client")]
#[test]
fn the_client_is_send_sync_unpin_and_static() {
    use unbroken::{Connecting, Connector, ResumableLayer, Target, TcpConnector, connect};

    assert_all!(
        Connector<TcpConnector>,
        ResumableLayer,
        Target,
        TcpConnector
    );
    // A future is polled by its one owner.
    assert_send::<Connecting>();
    assert_unpin::<Connecting>();
    assert_static::<Connecting>();
    let _ = || {
        fn is_send(_: impl Send + 'static) {}
        is_send(connect("a.example:1", unbroken::Config::new()));
    };
}

#[cfg(feature = "server")]
#[test]
fn the_server_is_send_sync_unpin_and_static() {
    use unbroken::{Accepted, Acceptor, Config, Listener, SessionInfo, Sessions};

    assert_all!(Accepted, Acceptor, Listener, SessionInfo, Sessions);
    // Whatever is accepted may be accepted, and served, in a task of its own.
    let _ = |acceptor: Acceptor, mut listener: Listener| {
        fn is_send(_: impl Send) {}
        is_send(acceptor.accept(tokio::io::empty()));
        is_send(listener.accept());
    };
    let _ = |listener: Listener, sessions: &Sessions| {
        fn is_a_task_of_its_own(_: impl Send + 'static) {}
        is_a_task_of_its_own(Listener::bind("127.0.0.1:0", Config::new()));
        let wrap = |stream| std::future::ready(Ok::<tokio::net::TcpStream, _>(stream));
        is_a_task_of_its_own(Listener::bind_with("127.0.0.1:0", Config::new(), wrap));
        is_a_task_of_its_own(sessions.shutdown(std::time::Duration::ZERO));
        is_a_task_of_its_own(listener.shutdown(std::time::Duration::ZERO));
    };
}

#[cfg(feature = "axum")]
#[test]
fn what_axum_hands_out_is_send_sync_unpin_and_static() {
    assert_all!(unbroken::PeerAddr);
}

#[cfg(feature = "transport")]
#[test]
fn what_a_handle_returns_is_send() {
    let _ = |handle: unbroken::Handle| {
        fn is_send(_: impl Send) {}
        is_send(handle.migrate());
        is_send(handle.subscribe());
    };
}
