//! The keys that both ends of a Noise link hold here, the same every time.

use unbroken::protocol::noise::{ClientKeys, Key, Pattern, SecretKey, ServerKeys, public_key};

const CLIENT: Key = [0x11; 32];
const SERVER: Key = [0x22; 32];
const PRESHARED: Key = [0x33; 32];

/// A client's.
pub fn client(pattern: Pattern) -> ClientKeys {
    match pattern {
        Pattern::Nn => ClientKeys::Anonymous,
        Pattern::NnPsk0 => ClientKeys::Preshared(PRESHARED.into()),
        Pattern::Nk => ClientKeys::Server(public_key(&SERVER)),
        Pattern::Ik => ClientKeys::Mutual {
            private: CLIENT.into(),
            server: public_key(&SERVER),
        },
    }
}

/// A server's.
pub fn server(pattern: Pattern) -> ServerKeys {
    match pattern {
        Pattern::Nn => ServerKeys::Anonymous,
        Pattern::NnPsk0 => ServerKeys::Preshared(PRESHARED.into()),
        Pattern::Nk => ServerKeys::Private(SERVER.into()),
        Pattern::Ik => ServerKeys::Mutual(SERVER.into()),
    }
}

/// What a client with [`Pattern::Ik`] shows.
pub fn shown() -> Key {
    public_key(&CLIENT)
}

/// A client's, and a server's, for one link.
pub fn ephemeral() -> [SecretKey; 2] {
    [[0x44; 32].into(), [0x55; 32].into()]
}
