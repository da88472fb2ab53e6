//! How sessions behave, at either end.

mod snet;
mod valid;

use std::time::Duration;

pub use snet::Snet;
pub(crate) use valid::Valid;

use crate::{protocol::native, security::Security, transport::MemoryBudget};

/// What is kept of each direction unless it is configured, in bytes, and how far that grows.
const WINDOW: usize = 1 << 20;
const MAX_WINDOW: usize = 8 << 20;
/// What the longest payload of a frame may be: that of DATA, to the longest a header can announce.
const FRAME: std::ops::RangeInclusive<usize> = native::MAX_DATA..=native::MAX_FRAME;

/// How a session behaves, for either end of it.
///
/// A plain builder: it is checked where it is used, with an [error](crate::Error::Config) that names the setting.
///
/// ```
/// use std::time::Duration;
/// use unbroken::Config;
///
/// let config = Config::new().resume_window(Duration::from_secs(60));
/// ```
///
/// | setting | default |
/// |---|---|
/// | [`snet`](Self::snet) | not spoken |
/// | [`security`](Self::security) | [`Security::anonymous`]: encrypted, nobody authenticated |
/// | [`window`](Self::window) | 1 MiB |
/// | [`max_window`](Self::max_window) | 8 MiB, or the window if that is set |
/// | [`keepalive`](Self::keepalive) | ping after 15 seconds of silence, dead after 30 |
/// | [`resume_window`](Self::resume_window) | 5 minutes |
/// | [`handshake_timeout`](Self::handshake_timeout) | 10 seconds |
/// | [`linger`](Self::linger) | 60 seconds |
/// | [`retry`](Self::retry) | 50 milliseconds, doubling up to 10 seconds |
/// | [`max_frame`](Self::max_frame) | 65,536 bytes |
/// | [`memory_budget`](Self::memory_budget) | 1 GiB, for this configuration and its clones |
/// | [`max_sessions`](Self::max_sessions) | 100,000 |
/// | [`max_sessions_per_address`](Self::max_sessions_per_address) | 20,000 |
/// | [`max_sessions_per_identity`](Self::max_sessions_per_identity) | 1,024 |
/// | [`max_handshakes`](Self::max_handshakes) | 16,384 |
/// | [`max_handshakes_per_address`](Self::max_handshakes_per_address) | 12,288 |
/// | [`max_resumes_per_second`](Self::max_resumes_per_second) | 10,000 for each address |
/// | [`route`](Self::route) | 0 |
#[derive(Clone, Debug)]
pub struct Config {
    snet: Option<Snet>,
    security: Security,
    window: Option<usize>,
    max_window: Option<usize>,
    ping_after: Duration,
    dead_after: Duration,
    resume_window: Duration,
    handshake_timeout: Duration,
    linger: Duration,
    retry_first: Duration,
    retry_cap: Duration,
    max_frame: usize,
    memory: MemoryBudget,
    max_sessions: usize,
    max_sessions_per_address: usize,
    max_sessions_per_identity: usize,
    max_handshakes: usize,
    max_handshakes_per_address: usize,
    max_resumes_per_second: u32,
    route: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            snet: None,
            security: Security::default(),
            window: None,
            max_window: None,
            ping_after: Duration::from_secs(15),
            dead_after: Duration::from_secs(30),
            resume_window: Duration::from_secs(5 * 60),
            handshake_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(60),
            retry_first: Duration::from_millis(50),
            retry_cap: Duration::from_secs(10),
            max_frame: *FRAME.start(),
            memory: MemoryBudget::new(1 << 30),
            max_sessions: 100_000,
            max_sessions_per_address: 20_000,
            max_sessions_per_identity: 1024,
            max_handshakes: 16_384,
            max_handshakes_per_address: 12_288,
            max_resumes_per_second: 10_000,
            route: 0,
        }
    }
}

impl Config {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client speaks snet, the protocol of the Go and C# libraries of that name, in place of the native one; a server accepts it as
    /// well as the native one, on the same port.
    ///
    /// A server that does bounds the buffers of all the sockets it accepts as snet's history demands.
    #[must_use]
    pub fn snet(mut self, snet: Snet) -> Self {
        self.snet = Some(snet);
        self
    }

    /// What protects the links of native sessions. Both ends have to choose what fits together; [`Security`] says what each protects
    /// from. Default: [`Security::anonymous`]. Without the feature `noise` there is only [`Security::none`], which has to be chosen.
    #[must_use]
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// How many bytes are kept in each direction of a native session: of those sent, until the peer has acknowledged them; of those
    /// received, until the application has read them. A writer waits when the window is full. Default: 1 MiB.
    ///
    /// The memory is taken as it is needed and given back when nothing is under way: twice this for each session at the most. On a path
    /// with a round trip of *t* seconds, one session carries at most window ÷ *t* bytes a second, so a window that limits a transfer
    /// grows, up to [`max_window`](Self::max_window); one that is set does not unless that is set too. From 64 bytes to 2 GiB, and at
    /// most half the [memory budget](Self::memory_budget); when that is short, windows are smaller.
    #[must_use]
    pub fn window(mut self, bytes: usize) -> Self {
        self.window = Some(bytes);
        self
    }

    /// How far the [window](Self::window) grows, in bytes. Default: 8 MiB, or the window where only that is set.
    ///
    /// The window for receiving doubles each time the application takes a whole one of it within four round trips, for then it may be
    /// what holds the transfer up; and the end that sends keeps as much as it may have under way, as long as the link takes it. So a
    /// transfer over a path of 100 milliseconds comes to fill what TCP itself can: some megabytes under the usual limits of its buffers. Windows that have grown
    /// shrink again, and what is little used of their memory is given back, after one interval of [`keepalive`](Self::keepalive)
    /// in which they were not needed. At least the window, and at most 2 GiB.
    ///
    /// What growth allows peers to send stays within three eighths of the [memory budget](Self::memory_budget).
    #[must_use]
    pub fn max_window(mut self, bytes: usize) -> Self {
        self.max_window = Some(bytes);
        self
    }

    /// What the windows are at first, and at most.
    fn windows(&self) -> (usize, usize) {
        match (self.window, self.max_window) {
            (None, None) => (WINDOW, MAX_WINDOW),
            (None, Some(most)) => (most.min(WINDOW), most),
            (Some(window), most) => (window, most.unwrap_or(window)),
        }
    }

    /// How the silence of a native peer is told from the death of the link: when nothing has come from it for `ping_after` it is pinged,
    /// and when nothing has for `dead_after` the link is given up, and replaced by a client. Default: 15 and 30 seconds.
    ///
    /// What the application does or does not read plays no part in it. snet has no pings; see [`Snet::silence`].
    #[must_use]
    pub fn keepalive(mut self, ping_after: Duration, dead_after: Duration) -> Self {
        self.ping_after = ping_after;
        self.dead_after = dead_after;
        self
    }

    /// How long a session is kept without a link. A client gives up when it has passed, a server forgets the session.
    ///
    /// It costs a server what the session has under way for as long, and with snet the history.
    #[must_use]
    pub fn resume_window(mut self, window: Duration) -> Self {
        self.resume_window = window;
        self
    }

    /// How long the handshake on a new link may take, and how long a client that resumes waits for a new link to be dialled. The
    /// very first link is dialled without this limit: that is for a timeout below the [`Connector`](crate::Connector).
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// How long a session goes on after its transport was dropped, until both ends are done with it: what was written has to reach the
    /// peer, redialling if need be, and the peer's end of its stream this end.
    ///
    /// It has to exceed the time after which a silent link is given up ([`keepalive`](Self::keepalive), [`Snet::silence`]), the
    /// handshake timeout and the cap of the [retry](Self::retry) delays together, so that a
    /// link which died as the transport was dropped is still noticed and replaced.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// How long a client waits between its attempts to resume. The first attempt is made at once, the second after about `first`; then
    /// the delay doubles, with random jitter, up to `cap`. Both in whole milliseconds.
    #[must_use]
    pub fn retry(mut self, first: Duration, cap: Duration) -> Self {
        self.retry_first = first;
        self.retry_cap = cap;
        self
    }

    /// The longest payload of a frame, in bytes, that this end takes from a native peer. Default: 65,536. From that to 2^24 − 1.
    ///
    /// It concerns frames of types that this version does not know and that may be skipped, which some later one may send: data
    /// comes in at most 65,536 bytes a frame, and everything else is shorter. A longer frame ends its link, as
    /// [`ProtocolError::TooLong`](crate::ProtocolError::TooLong). Whatever is skipped takes time to read, and no memory.
    #[must_use]
    pub fn max_frame(mut self, bytes: usize) -> Self {
        self.max_frame = bytes;
        self
    }

    /// What the buffers of all its sessions count against, and those of every other configuration that is given a clone of it. Default:
    /// each `Config::new()` has one of 1 GiB, which its clones share.
    ///
    /// A process with more than one listener or connector gives all of them the same. It has to be 64 KiB at least, and twice the
    /// [window](Self::window) and the [history](Snet::history).
    #[must_use]
    pub fn memory_budget(mut self, memory: MemoryBudget) -> Self {
        self.memory = memory;
        self
    }

    /// How many sessions a server has at most, attached or detached. Default: 100,000.
    ///
    /// Clients that would open one more are told that it is [busy](crate::RejectCode::Busy), and may try again in a second; where they
    /// speak snet, the link is just closed.
    #[must_use]
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }

    /// How many of them one address may have opened. Default: 20,000, which is a large office or mobile carrier behind one
    /// NAT, and leaves four fifths of [`max_sessions`](Self::max_sessions) to everybody else.
    ///
    /// A session counts for the address of the link that opened it, wherever it roams later, until it is over. Of IPv6 a /64 counts as
    /// one address, since a single host has all of it; an IPv4-mapped address is the IPv4 address. Links whose address is not known
    /// ([`Acceptor::accept`](crate::Acceptor::accept)) count for none. **Behind a proxy or a load balancer** that does not
    /// pass the client's address on, all clients have the same: set this to `max_sessions` there. Refused as that is.
    #[must_use]
    pub fn max_sessions_per_address(mut self, sessions: usize) -> Self {
        self.max_sessions_per_address = sessions;
        self
    }

    /// How many of them a client may have opened that shows a key of its own, whatever its addresses. Default: 1,024. Refused as
    /// [`max_sessions`](Self::max_sessions) is.
    #[must_use]
    pub fn max_sessions_per_identity(mut self, sessions: usize) -> Self {
        self.max_sessions_per_identity = sessions;
        self
    }

    /// How many links may be in their handshake at a server at once. When that many are, the one whose peer has been silent for
    /// longest makes room for a new one. Default: 16,384.
    ///
    /// Each takes a file descriptor and some kilobytes, besides what the system keeps of a connection. When a
    /// [`Listener`](crate::Listener) runs out of file descriptors before this is reached, the handshake makes room that has been
    /// silent longest, and for more than a second. The other sockets and files of the process get none of them: where they have to,
    /// keep this well below the process's limit.
    ///
    /// Four times as many sessions, at about 250 bytes each, may stand named but unproved: their clients have not been heard since
    /// they were told the session's id.
    #[must_use]
    pub fn max_handshakes(mut self, handshakes: usize) -> Self {
        self.max_handshakes = handshakes;
        self
    }

    /// How many of them may come from one address, counted as [above](Self::max_sessions_per_address). When that many do, the one
    /// of that address whose peer has been silent for longest makes room. Default: 12,288.
    ///
    /// So an address that floods costs nobody else's handshake. The default lets 10,000 clients behind one NAT or load balancer, all
    /// cut off at once, come back at once: were there fewer places, those that came last would push out those that came first, and
    /// merely wait for their turn. More than [`max_handshakes`](Self::max_handshakes) is no limit.
    #[must_use]
    pub fn max_handshakes_per_address(mut self, handshakes: usize) -> Self {
        self.max_handshakes_per_address = handshakes;
        self
    }

    /// How often in a second an address, counted as [above](Self::max_sessions_per_address), may try to resume sessions at a server,
    /// whatever comes of it; a second's worth may come at once. Links whose address is not known share one account. Default:
    /// 10,000, so that everybody behind a NAT can be back within seconds after their network was gone.
    ///
    /// Those beyond that are told to come again in a second; where they speak snet, the link is just closed.
    #[must_use]
    pub fn max_resumes_per_second(mut self, resumes: u32) -> Self {
        self.max_resumes_per_second = resumes;
        self
    }

    /// A server's place among several: every resume of its sessions carries it, so that a load balancer can send it to the server that has
    /// the session.
    ///
    /// In native these are bytes 8 to 11 (counted from 0) of a link, big-endian; a link that opens a session has zeros there. In snet these are the top 16 bits of the connection id, bytes 7 and 8 (counted from 0) of a resume request, little-endian;
    /// greater numbers are refused.
    #[must_use]
    pub fn route(mut self, route: u32) -> Self {
        self.route = route;
        self
    }
}
