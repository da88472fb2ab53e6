//! Noise links that carry no sessions: a handshake of their own, since there is no prelude to announce it.

use std::{future::poll_fn, io, pin::Pin};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{NoiseLink, PublicKey, Security};
use crate::{
    error::{ConfigError, Error, HandshakeError},
    link,
    protocol::{
        Role,
        noise::{Initiator, KEY_LEN, Responder, SecretKey, Suite},
    },
};

/// Length of what the client says of the handshake before it: the pattern, and the suite.
const PROLOGUE_LEN: usize = 2;
/// Length of what goes before a message: how long it is.
const HEAD_LEN: usize = 2;
/// No message is longer.
const LONGEST: usize = 96;

impl<L: AsyncRead + AsyncWrite + Unpin> NoiseLink<L> {
    /// Runs a handshake on `link` with a peer that [accepts](Self::accept) it, as a client with this security.
    ///
    /// # Errors
    ///
    /// - [`Error::Config`] if it is a server's security, or none;
    /// - [`Error::Link`] if the link fails or ends; the peer ends it too if it does not take this security;
    /// - [`Error::Handshake`] if the peer has other keys than these, or is no such peer;
    /// - [`Error::Random`] if no key can be drawn.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the link, in the middle of the handshake. It waits as long as the peer lets it: bound it by a timeout.
    ///
    /// # Examples
    ///
    /// ```
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// use unbroken::{NoiseLink, PresharedKey, Security};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let security = Security::psk(PresharedKey::generate()?); // Known to both.
    /// let (client, server) = tokio::io::duplex(1024);
    /// let (client, server) = tokio::join!(
    ///     NoiseLink::connect(client, &security),
    ///     NoiseLink::accept(server, &security),
    /// );
    /// let (mut client, (mut server, _)) = (client?, server?);
    ///
    /// client.write_all(b"whoever listens").await?;
    /// client.shutdown().await?;
    /// let mut text = String::new();
    /// server.read_to_string(&mut text).await?;
    /// assert_eq!(text, "whoever listens");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(mut link: L, security: &Security) -> Result<Self, Error> {
        security.check(Role::Client).map_err(config)?;
        let (keys, suite) = security.client_keys().ok_or(NONE).map_err(config)?;
        let pattern = keys.pattern();
        let prologue = [pattern.code(), suite.code()];
        let mut machine = Initiator::new(keys, suite, &prologue, ephemeral()?);
        let first = machine.first(&[])?;
        write_message(&mut link, &prologue, &first).await?;
        let mut bytes = [0; LONGEST];
        let second = read_message(&mut link, pattern.second_len(0), &mut bytes).await?;
        let (_, records) = machine.second(second)?;
        Ok(Self::new(link, records))
    }

    /// Runs a handshake on `link` with a peer that [connects](Self::connect), as a server with this security. Also returns the client's
    /// public key, if it had to show one: once the first record has been read, the client has proved that it holds the private one, and
    /// no sooner.
    ///
    /// # Errors
    ///
    /// - [`Error::Config`] if it is a client's security, or none;
    /// - [`Error::Link`] if the link fails or ends;
    /// - [`Error::Handshake`] if the peer asks for another pattern or suite ([`HandshakeError::Security`]), has other keys than these
    ///   ([`HandshakeError::Decrypt`]), is not let in ([`HandshakeError::NotAuthorised`]), or is no such peer;
    /// - [`Error::Random`] if no key can be drawn.
    ///
    /// The peer is told by the end of the link.
    ///
    /// # Cancel safety
    ///
    /// As with [`connect`](Self::connect).
    pub async fn accept(
        mut link: L,
        security: &Security,
    ) -> Result<(Self, Option<PublicKey>), Error> {
        security.check(Role::Server).map_err(config)?;
        let keys = security.server_keys().ok_or(NONE).map_err(config)?;
        let mut prologue = [0; PROLOGUE_LEN];
        read_exact(&mut link, &mut prologue).await?;
        let pattern = keys.pattern();
        let suite = Suite::ALL
            .into_iter()
            .find(|suite| prologue == [pattern.code(), suite.code()])
            .filter(|suite| security.takes(*suite))
            .ok_or(HandshakeError::Security)?;
        let mut bytes = [0; LONGEST];
        let first = read_message(&mut link, pattern.first_len(0), &mut bytes).await?;
        let mut machine = Responder::new(keys, suite, &prologue, ephemeral()?);
        machine.first(first)?;
        let client = machine.client_key();
        if !security.admits(client) {
            return Err(HandshakeError::NotAuthorised.into());
        }
        let (second, records) = machine.second(&[])?;
        write_message(&mut link, &[], &second).await?;
        Ok((Self::new(link, records), client.map(PublicKey::shown)))
    }
}

/// What is wrong with [`Security::none`] for a link that is to be protected.
const NONE: &str = "a Noise link cannot do without";

fn config(problem: &'static str) -> Error {
    Error::Config(ConfigError {
        field: "security",
        problem: problem.into(),
    })
}

fn ephemeral() -> Result<SecretKey, Error> {
    let mut key = SecretKey::new([0; KEY_LEN]);
    getrandom::fill(&mut *key).map_err(|error| Error::Random(error.into()))?;
    Ok(key)
}

/// Sends `before`, and a message behind its length.
async fn write_message(
    link: &mut (impl AsyncWrite + Unpin),
    before: &[u8],
    message: &[u8],
) -> Result<(), Error> {
    let len = u16::try_from(message.len()).expect("no message is longer than `LONGEST`");
    let bytes = [before, &len.to_be_bytes(), message].concat();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let taken = poll_fn(|cx| link::poll_write(link, cx, [rest])).await;
        rest = &rest[taken.map_err(Error::Link)?..];
    }
    poll_fn(|cx| Pin::new(&mut *link).poll_flush(cx))
        .await
        .map_err(Error::Link)
}

/// Receives a message that has to be `len` bytes long, which is not more than `LONGEST`.
async fn read_message<'a>(
    link: &mut (impl AsyncRead + Unpin),
    len: usize,
    bytes: &'a mut [u8; LONGEST],
) -> Result<&'a [u8], Error> {
    let mut head = [0; HEAD_LEN];
    read_exact(link, &mut head).await?;
    let said = u16::from_be_bytes(head);
    if usize::from(said) != len {
        return Err(HandshakeError::MessageLength(said).into());
    }
    let message = &mut bytes[..len];
    read_exact(link, message).await?;
    Ok(message)
}

/// Fills `bytes` without reading a byte beyond them.
async fn read_exact(link: &mut (impl AsyncRead + Unpin), bytes: &mut [u8]) -> Result<(), Error> {
    let mut buf = ReadBuf::new(bytes);
    while buf.remaining() > 0 {
        let count = poll_fn(|cx| link::poll_read(link, cx, &mut buf)).await;
        if count.map_err(Error::Link)? == 0 {
            return Err(Error::Link(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(())
}
