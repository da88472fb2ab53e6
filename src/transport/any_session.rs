//! A session of either protocol.

use std::ops::{Deref, DerefMut};

use super::SessionId;
use crate::protocol::{Role, Session, native::NativeSession, snet::SnetSession};

/// What is the same for both is reached by dereferencing.
pub(crate) enum AnySession {
    Native(Box<NativeSession>),
    Snet(Box<SnetSession>),
}

impl AnySession {
    pub(super) fn id(&self) -> SessionId {
        match self {
            Self::Native(session) => SessionId::native(session.identity().id),
            Self::Snet(session) => SessionId::snet(session.opened().id),
        }
    }

    /// What it speaks, for logs and numbers.
    pub(super) fn protocol(&self) -> &'static str {
        match self {
            Self::Native(_) => "native",
            Self::Snet(_) => "snet",
        }
    }
}

/// Which end of a session it is, for logs and numbers.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
    }
}

impl Deref for AnySession {
    type Target = dyn Session;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Native(session) => &**session,
            Self::Snet(session) => &**session,
        }
    }
}

impl DerefMut for AnySession {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Self::Native(session) => &mut **session,
            Self::Snet(session) => &mut **session,
        }
    }
}

impl From<NativeSession> for AnySession {
    fn from(session: NativeSession) -> Self {
        Self::Native(Box::new(session))
    }
}

impl From<SnetSession> for AnySession {
    fn from(session: SnetSession) -> Self {
        Self::Snet(Box::new(session))
    }
}
