//! What is configured of snet alone.

use std::time::Duration;

use crate::protocol::snet::{CipherChoice, Direction, StreamCipher};

/// After how long without a byte a client doubts its link.
pub(super) const DEFAULT_SILENCE: Duration = Duration::from_secs(30);

/// How a session speaks snet.
///
/// Both ends have to choose the same cipher, and should have the same history: nothing on the wire tells either.
///
/// **This is not security.** A 64-bit Diffie-Hellman is broken by a laptop, RC4 by less, nobody is authenticated, and both directions
/// use one keystream. Use it to talk to peers that speak nothing else, over networks you trust or under TLS.
///
/// # How large a history
///
/// snet acknowledges nothing. A session survives the loss of a link if what was on its way then is still in the history, and our
/// ends see to that: of the history N, at most half may be on its way, and to that end each socket buffer is kept at
/// N/4 − 32 KiB at most. **With something in between that buffers too** (a proxy, a load balancer, a tunnel), take the bytes it can hold in
/// one direction, kernel buffers included, and choose the history and a smaller [`socket_buffer`](Self::socket_buffer) such that
/// twice the latter, 64 KiB and the bytes in between stay within N/2. What does overflow ends the session with
/// [`CloseReason::Gap`](crate::CloseReason::Gap).
///
/// Links that are dialled by something other than [`TcpConnector`](crate::TcpConnector), or accepted by something other than
/// [`Listener`](crate::Listener), need their buffers bounded there.
#[derive(Clone, Debug)]
pub struct Snet {
    pub(super) cipher: CipherChoice,
    pub(super) history: usize,
    pub(super) socket_buffer: Option<usize>,
    /// `None` for the default.
    pub(super) silence: Option<Option<Duration>>,
    pub(super) fin_is_close: bool,
    pub(super) unauthenticated: bool,
}

impl Snet {
    /// The bytes go over the link as they are.
    pub fn plain() -> Self {
        Self::with(CipherChoice::Plain)
    }

    /// The bytes are encrypted with RC4, as Go and C# peers do.
    pub fn rc4() -> Self {
        Self::with(CipherChoice::Rc4)
    }

    /// The bytes are encrypted with a stream cipher of your own, which `factory` makes from the session's key for each direction.
    ///
    /// ```
    /// use unbroken::{Snet, protocol::snet::{Direction, StreamCipher}};
    ///
    /// struct Mask(u8);
    ///
    /// impl StreamCipher for Mask {
    ///     fn apply(&mut self, bytes: &mut [u8]) {
    ///         bytes.iter_mut().for_each(|byte| *byte ^= self.0);
    ///     }
    /// }
    ///
    /// let snet = Snet::cipher(|key: &[u8; 8], direction| {
    ///     Mask(key[usize::from(direction == Direction::ClientToServer)])
    /// });
    /// ```
    pub fn cipher<F, C>(factory: F) -> Self
    where
        F: Fn(&[u8; 8], Direction) -> C + Send + Sync + 'static,
        C: StreamCipher + 'static,
    {
        Self::with(CipherChoice::custom(factory))
    }

    fn with(cipher: CipherChoice) -> Self {
        Self {
            cipher,
            history: 1 << 20,
            socket_buffer: None,
            silence: None,
            fin_is_close: false,
            unauthenticated: false,
        }
    }

    /// How many of the last sent bytes each end keeps, and how many received bytes may wait for the application. Default: 1 MiB.
    ///
    /// The memory is taken as it is needed, and the history's is kept: a session that has sent this much holds it until it ends.
    /// From 64 bytes to 2 GiB, and at most half the [memory budget](crate::Config::memory_budget); over TCP sockets of ours at least about 150 KiB, for the socket buffers to have room.
    #[must_use]
    pub fn history(mut self, bytes: usize) -> Self {
        self.history = bytes;
        self
    }

    /// The bound in bytes on either socket buffer, as the system reads it back (Linux: twice what is set). Default and maximum: a
    /// quarter of the history less 32 KiB.
    #[must_use]
    pub fn socket_buffer(mut self, bytes: usize) -> Self {
        self.socket_buffer = Some(bytes);
        self
    }

    /// After how long without a byte from the server a client resumes on a new link; `None` for never. Default: 30 seconds, or never
    /// with [`fin_is_close`](Self::fin_is_close).
    ///
    /// snet has no pings: where the server has nothing to say, this costs a link each time. The clock stands while the application does
    /// not read. A server cannot dial and has no such clock.
    #[must_use]
    pub fn silence(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.silence = Some(silence.into());
        self
    }

    /// Whether the orderly end of a link (a FIN) is taken for the peer's close, and so for a clean end of the stream. Default: `false`.
    ///
    /// snet has no close, so this is the only way to learn of one at once. But anything in between that closes a link in order then
    /// ends the session, and a stream that was cut off looks complete. So does a client that moves to a new link while the old one
    /// works: let the clients of a server that does this neither [probe](Self::silence), nor migrate, nor report network changes.
    #[must_use]
    pub fn fin_is_close(mut self, yes: bool) -> Self {
        self.fin_is_close = yes;
        self
    }

    /// For a server whose [`security`](crate::Config::security) authenticates its native clients: that those who speak snet prove nothing is
    /// meant. Without it such a configuration is refused, since whoever speaks snet would get past what was asked for.
    #[must_use]
    pub fn unauthenticated(mut self) -> Self {
        self.unauthenticated = true;
        self
    }

    pub(super) fn effective_silence(&self) -> Option<Duration> {
        let default = (!self.fin_is_close).then_some(DEFAULT_SILENCE);
        self.silence.unwrap_or(default)
    }

    pub(super) fn largest_socket_buffer(&self) -> usize {
        (self.history / 4).saturating_sub(32 * 1024)
    }
}
