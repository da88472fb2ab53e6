//! What protects a session's links: which handshake, with which keys.

use std::fmt;
#[cfg(feature = "noise")]
use std::sync::Arc;

#[cfg(feature = "noise")]
use super::keys::{KeyPair, PresharedKey, PublicKey};
#[cfg(feature = "noise")]
use crate::protocol::noise::{ClientKeys, SecretKey, ServerKeys, Suite};
use crate::protocol::{
    Role,
    native::{ClientProtection, Prelude, ServerProtection},
};

/// What protects the links of a session that speaks native.
///
/// Each link runs a handshake of its own, by the [Noise](https://noiseprotocol.org/noise.html) protocol framework, with fresh keys: what is
/// recorded today is not opened by a key that leaks tomorrow. A session keeps to the security it was opened with, and with
/// [`mutual`](Self::mutual) to the client that opened it. Both ends have to choose what fits together; a server takes nothing else, and a
/// client gives itself to nothing less.
///
/// | client | server | Noise | who only listens | who is in between |
/// |---|---|---|---|---|
/// | [`none`](Self::none) | `none` | | reads everything, and can take the session | can do as they like |
/// | [`anonymous`](Self::anonymous), the default | `anonymous` | NN | reads no byte of the stream | at the open, can pass for either end from then on; later, can end the session |
/// | [`psk`](Self::psk) | `psk`, of the same key | NNpsk0 | reads nothing | can cut links |
/// | [`server_key`](Self::server_key) | [`key_pair`](Self::key_pair) | NK | reads nothing | can cut links, or be a client |
/// | [`mutual`](Self::mutual) | `key_pair` with [`authorize`](Self::authorize) | IK | reads nothing | can cut links |
///
/// How much is sent, and when, shows in any case; and with `anonymous` the first message of each link, which holds counts and a session's
/// id, but no secret. Whatever is chosen, both ends prove to each other on every resume that they hold the
/// session's secret, and a resume that does not prove it touches nothing.
///
/// Of the suites, a client takes the one that its processor is fast at, AES-256-GCM with SHA-256 or ChaCha20-Poly1305 with BLAKE2s, and a
/// server either; see [`suite`](Self::suite).
#[derive(Clone)]
pub struct Security {
    kind: Kind,
    #[cfg(feature = "noise")]
    authorize: Option<Authorize>,
    #[cfg(feature = "noise")]
    suite: Option<Suite>,
}

#[derive(Clone)]
enum Kind {
    /// The default where there is no Noise: to go without a security has to be somebody's choice.
    #[cfg(not(feature = "noise"))]
    Unchosen,
    None,
    #[cfg(feature = "noise")]
    Anonymous,
    #[cfg(feature = "noise")]
    Psk(PresharedKey),
    #[cfg(feature = "noise")]
    ServerKey(PublicKey),
    #[cfg(feature = "noise")]
    KeyPair(KeyPair),
    #[cfg(feature = "noise")]
    Mutual(KeyPair, PublicKey),
}

#[cfg(feature = "noise")]
type Authorize = Arc<dyn Fn(&PublicKey) -> bool + Send + Sync>;

impl Security {
    /// None: TLS, a Unix socket or loopback is below. Whoever is on the path reads and changes everything, the session's secret included.
    pub fn none() -> Self {
        Self::of(Kind::None)
    }

    /// Encrypted, and nobody authenticated: the default. Who only listens reads no byte of the stream. Whoever is in between as the
    /// session is opened can pass for the server, and for the client; whoever comes in between later cannot, but can refuse a resume
    /// for good, in the server's name.
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    pub fn anonymous() -> Self {
        Self::of(Kind::Anonymous)
    }

    /// Both ends hold the same key, and nobody else does: 32 bytes, or a [`PresharedKey`].
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    pub fn psk(key: impl Into<PresharedKey>) -> Self {
        Self::of(Kind::Psk(key.into()))
    }

    /// For a client: the server has to be the one with this key. Whose the client is, the server does not learn.
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    pub fn server_key(server: PublicKey) -> Self {
        Self::of(Kind::ServerKey(server))
    }

    /// For a server: it has this key, which its clients know the public part of. It takes clients that show no key of their own, or, with
    /// [`authorize`](Self::authorize), those alone whose key it lets in.
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    pub fn key_pair(keys: KeyPair) -> Self {
        Self::of(Kind::KeyPair(keys))
    }

    /// For a client: it has these keys, and shows the public one to the server, which has to be the one with that key.
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    pub fn mutual(keys: KeyPair, server: PublicKey) -> Self {
        Self::of(Kind::Mutual(keys, server))
    }

    /// For a server with a [`key_pair`](Self::key_pair): its clients have to show a key, and `authorize` says which are let in. It is
    /// asked on every link, so that a session whose key is let in no more ends with its next resume. It should be quick: a link waits
    /// for it. That the client holds the private key is proved right after.
    ///
    /// ```
    /// use std::collections::HashSet;
    /// use unbroken::{Config, KeyPair, PublicKey, Security};
    ///
    /// fn config(keys: KeyPair, members: HashSet<PublicKey>) -> Config {
    ///     Config::new().security(Security::key_pair(keys).authorize(move |key| members.contains(key)))
    /// }
    /// ```
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    #[must_use]
    pub fn authorize(
        mut self,
        authorize: impl Fn(&PublicKey) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.authorize = Some(Arc::new(authorize));
        self
    }

    /// For a client, this suite in place of the one that its processor is fast at; for a server, this one alone in place of either.
    #[cfg(feature = "noise")]
    #[cfg_attr(docsrs, doc(cfg(feature = "noise")))]
    #[must_use]
    pub fn suite(mut self, suite: Suite) -> Self {
        self.suite = Some(suite);
        self
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            #[cfg(feature = "noise")]
            authorize: None,
            #[cfg(feature = "noise")]
            suite: None,
        }
    }

    /// What is wrong with it at this end, if anything is.
    pub(crate) fn check(&self, role: Role) -> Result<(), &'static str> {
        #[cfg(feature = "noise")]
        if self.authorize.is_some() && !matches!(self.kind, Kind::KeyPair(_)) {
            return Err("`authorize` goes with `key_pair`: no other has clients show a key");
        }
        match (&self.kind, role) {
            #[cfg(not(feature = "noise"))]
            (Kind::Unchosen, _) => Err(
                "without the feature `noise` there is only `Security::none()`, which has to be chosen",
            ),
            #[cfg(feature = "noise")]
            (Kind::ServerKey(_) | Kind::Mutual(..), Role::Server) => {
                Err("`server_key` and `mutual` are a client's; a server has a `key_pair`")
            }
            #[cfg(feature = "noise")]
            (Kind::KeyPair(_), Role::Client) => {
                Err("`key_pair` is a server's; a client has a `server_key`, or is `mutual`")
            }
            _ => Ok(()),
        }
    }

    /// Whether either end proves to the other who it is.
    pub(crate) fn authenticates(&self) -> bool {
        match self.kind {
            Kind::None => false,
            #[cfg(not(feature = "noise"))]
            Kind::Unchosen => false,
            #[cfg(feature = "noise")]
            Kind::Anonymous => false,
            #[cfg(feature = "noise")]
            _ => true,
        }
    }

    /// What a client runs its handshakes with, if there are any.
    #[cfg(feature = "noise")]
    pub(super) fn client_keys(&self) -> Option<(ClientKeys, Suite)> {
        let keys = match &self.kind {
            Kind::None | Kind::KeyPair(_) => return None,
            Kind::Anonymous => ClientKeys::Anonymous,
            Kind::Psk(key) => ClientKeys::Preshared(SecretKey::new(*key.bytes())),
            Kind::ServerKey(server) => ClientKeys::Server(*server.as_bytes()),
            Kind::Mutual(keys, server) => ClientKeys::Mutual {
                private: SecretKey::new(*keys.private()),
                server: *server.as_bytes(),
            },
        };
        Some((keys, self.suite.unwrap_or_else(Suite::fastest)))
    }

    /// What a server answers handshakes with, if there are any.
    #[cfg(feature = "noise")]
    pub(super) fn server_keys(&self) -> Option<ServerKeys> {
        Some(match &self.kind {
            Kind::None | Kind::ServerKey(_) | Kind::Mutual(..) => return None,
            Kind::Anonymous => ServerKeys::Anonymous,
            Kind::Psk(key) => ServerKeys::Preshared(SecretKey::new(*key.bytes())),
            Kind::KeyPair(keys) if self.authorize.is_some() => {
                ServerKeys::Mutual(SecretKey::new(*keys.private()))
            }
            Kind::KeyPair(keys) => ServerKeys::Private(SecretKey::new(*keys.private())),
        })
    }

    /// Whether a server takes handshakes with this suite.
    #[cfg(feature = "noise")]
    pub(super) fn takes(&self, suite: Suite) -> bool {
        self.suite.is_none_or(|only| only == suite)
    }

    /// What protects a client's next link. `ephemeral` is random, and new for each.
    #[cfg_attr(
        not(feature = "noise"),
        allow(unused_variables, reason = "no key is drawn")
    )]
    pub(crate) fn for_client(&self, ephemeral: [u8; 32]) -> ClientProtection {
        #[cfg(feature = "noise")]
        if let Some((keys, suite)) = self.client_keys() {
            return ClientProtection::Noise {
                keys,
                suite,
                ephemeral: SecretKey::new(ephemeral),
            };
        }
        ClientProtection::None
    }

    /// What a server protects a link with that starts with this prelude; it may not be what the client asks for. `None` if the client
    /// asks for a suite that is not taken.
    #[cfg_attr(
        not(feature = "noise"),
        allow(unused_variables, reason = "no key is drawn")
    )]
    pub(crate) fn for_server(
        &self,
        prelude: &Prelude,
        ephemeral: [u8; 32],
    ) -> Option<ServerProtection> {
        #[cfg(feature = "noise")]
        if let Some(keys) = self.server_keys() {
            let mut taken = Suite::ALL.into_iter().filter(|suite| self.takes(*suite));
            return taken.any(|suite| suite.code() == prelude.suite).then(|| {
                ServerProtection::Noise {
                    keys,
                    ephemeral: SecretKey::new(ephemeral),
                }
            });
        }
        Some(ServerProtection::None)
    }

    /// Whether a client that has shown this key, or none, is let in.
    #[cfg_attr(
        not(feature = "noise"),
        allow(unused_variables, reason = "no key is shown")
    )]
    pub(crate) fn admits(&self, client_key: Option<[u8; 32]>) -> bool {
        #[cfg(feature = "noise")]
        match (&self.authorize, client_key) {
            // Anybody can pass for the owner of a key of low order.
            (Some(authorize), Some(key)) => {
                PublicKey::from_bytes(key).is_ok_and(|key| authorize(&key))
            }
            (None, None) => true,
            _ => false,
        }
        #[cfg(not(feature = "noise"))]
        client_key.is_none()
    }

    /// The key that a client knows its server by.
    pub(crate) fn known_server(&self) -> Option<[u8; 32]> {
        match &self.kind {
            #[cfg(feature = "noise")]
            Kind::ServerKey(server) | Kind::Mutual(_, server) => Some(*server.as_bytes()),
            _ => None,
        }
    }
}

/// [`Security::anonymous`]; without the feature `noise` none, which a configuration is refused for.
impl Default for Security {
    fn default() -> Self {
        #[cfg(feature = "noise")]
        return Self::anonymous();
        #[cfg(not(feature = "noise"))]
        Self::of(Kind::Unchosen)
    }
}

/// Without the keys, but for public ones.
impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printed = f.debug_tuple("Security");
        match &self.kind {
            #[cfg(not(feature = "noise"))]
            Kind::Unchosen => printed.field(&"unchosen"),
            Kind::None => printed.field(&"none"),
            #[cfg(feature = "noise")]
            Kind::Anonymous => printed.field(&"anonymous"),
            #[cfg(feature = "noise")]
            Kind::Psk(_) => printed.field(&"psk"),
            #[cfg(feature = "noise")]
            Kind::ServerKey(server) => printed.field(&"server_key").field(server),
            #[cfg(feature = "noise")]
            Kind::KeyPair(keys) => printed.field(&"key_pair").field(&keys.public()),
            #[cfg(feature = "noise")]
            Kind::Mutual(keys, server) => {
                printed.field(&"mutual").field(&keys.public()).field(server)
            }
        };
        printed.finish()
    }
}
