//! What is measured: sessions of each kind, and TCP beside them.

// Each of its users takes a part of it.
#![allow(dead_code)]

use clap::ValueEnum;
use unbroken::{Config, Security, Snet};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// No session at all.
    Tcp,
    /// Native, with `Security::none()`.
    None,
    /// Native, with the defaults: Noise, nobody authenticated.
    Noise,
    /// snet without a cipher.
    Plain,
    /// snet with RC4.
    Rc4,
}

impl Kind {
    /// As it stands in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::None => "native, none",
            Self::Noise => "native, Noise",
            Self::Plain => "snet, plain",
            Self::Rc4 => "snet, RC4",
        }
    }

    /// As it stands on command lines and in files.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::None => "none",
            Self::Noise => "noise",
            Self::Plain => "plain",
            Self::Rc4 => "rc4",
        }
    }

    pub(crate) fn is_snet(self) -> bool {
        matches!(self, Self::Plain | Self::Rc4)
    }

    /// The defaults of its sessions; those of `Noise` for TCP, which has none.
    pub(crate) fn config(self) -> Config {
        match self {
            Self::Tcp | Self::Noise => Config::new(),
            Self::None => Config::new().security(Security::none()),
            Self::Plain => Config::new().snet(Snet::plain()),
            Self::Rc4 => Config::new().snet(Snet::rc4()),
        }
    }
}
