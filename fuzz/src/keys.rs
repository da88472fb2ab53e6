//! What both ends hold here, and nobody else.

use std::hash::{DefaultHasher, Hasher};

use unbroken::protocol::{
    native::SessionSecret,
    noise::{ClientKeys, Key, Pattern, SecretKey, ServerKeys, public_key},
};

/// Other keys for every input: what was sealed or proved in one run opens nothing in another. libFuzzer sees what is compared, so that it
/// comes to know what is made with keys that do not change, and says it as if it had them.
#[derive(Clone, Copy)]
pub struct Keys {
    input: u64,
}

impl Keys {
    /// Those of an input.
    pub fn of(input: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(input);
        Self {
            input: hasher.finish(),
        }
    }

    fn key(self, name: u8) -> Key {
        let mut key = [0; 32];
        for (part, bytes) in key.chunks_exact_mut(8).enumerate() {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(self.input);
            hasher.write(&[name, part as u8]);
            bytes.copy_from_slice(&hasher.finish().to_le_bytes());
        }
        key
    }

    /// A client's.
    pub fn client(self, pattern: Pattern) -> ClientKeys {
        match pattern {
            Pattern::Nn => ClientKeys::Anonymous,
            Pattern::NnPsk0 => ClientKeys::Preshared(self.key(0).into()),
            Pattern::Nk => ClientKeys::Server(public_key(&self.key(1))),
            Pattern::Ik => ClientKeys::Mutual {
                private: self.key(2).into(),
                server: public_key(&self.key(1)),
            },
        }
    }

    /// A server's.
    pub fn server(self, pattern: Pattern) -> ServerKeys {
        match pattern {
            Pattern::Nn => ServerKeys::Anonymous,
            Pattern::NnPsk0 => ServerKeys::Preshared(self.key(0).into()),
            Pattern::Nk => ServerKeys::Private(self.key(1).into()),
            Pattern::Ik => ServerKeys::Mutual(self.key(1).into()),
        }
    }

    /// A session's secret.
    pub fn session(self) -> SessionSecret {
        SessionSecret::new(self.key(5))
    }

    /// What a client with [`Pattern::Ik`] shows.
    pub fn shown(self) -> Key {
        public_key(&self.key(2))
    }

    /// A client's, and a server's, for one link.
    pub fn ephemeral(self) -> [SecretKey; 2] {
        [self.key(3).into(), self.key(4).into()]
    }
}
