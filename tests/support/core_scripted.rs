//! One end of a native session, opposite a script that says whatever frames it likes and hears what the session says.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use unbroken::{
    ProtocolError, ResumeError,
    protocol::{
        Arrived, Handshake, LinkId, Role, Session,
        native::{
            Binding, CONFIRM_LEN, ClientProtection, ClientResume, Decoder, Frame, Head, Hello,
            Identity, Item, MAX_DATA, NativeSession, ServerHandshake, ServerProtection,
            SessionSecret, Settings,
        },
    },
};

pub(crate) const WINDOW: usize = 64;
pub(crate) const RESUME_WINDOW: Duration = Duration::from_secs(300);
pub(crate) const LINGER: Duration = Duration::from_secs(60);
pub(crate) const PING_AFTER: Duration = Duration::from_secs(15);
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(30);
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(25);
/// A moment.
pub(crate) const MS: Duration = Duration::from_millis(1);

pub(crate) const BOTH: [Role; 2] = [Role::Client, Role::Server];

pub(crate) fn settings(window: usize) -> Settings {
    Settings {
        window,
        max_window: window,
        resume_window: RESUME_WINDOW,
        linger: LINGER,
        ping_after: PING_AFTER,
        dead_after: DEAD_AFTER,
        handshake_timeout: HANDSHAKE_TIMEOUT,
        max_frame: MAX_DATA,
    }
}

/// `count` bytes of a stream from `offset` on.
pub(crate) fn bytes(offset: usize, count: usize) -> Vec<u8> {
    (offset..offset + count)
        .map(|at| (at * 7 + at / 256) as u8)
        .collect()
}

/// What a session says: DATA with its payload, as far as that went, and every other frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Frame(Frame),
    Data(Vec<u8>),
    /// A CONFIRM, and what it says to have received if it is right. On the first link nobody looks into it.
    Confirm(Option<u64>),
}

pub(crate) use Said::{Confirm, Data};

/// A frame that is not DATA.
pub(crate) const fn said(frame: Frame) -> Said {
    Said::Frame(frame)
}

pub(crate) const fn ack(received: u64, limit: u64) -> Frame {
    Frame::Ack { received, limit }
}

pub(crate) const fn attach(from: u64, received: u64, limit: u64) -> Frame {
    Frame::Attach {
        from,
        received,
        limit,
    }
}

/// What the script has heard on a link.
#[derive(Default)]
struct Ear {
    /// A CONFIRM that is to come first, as far as it has, and who knows whether it is right.
    confirm: Option<(Vec<u8>, Option<ServerHandshake>)>,
    decoder: Decoder,
}

/// The end, its peer's script, and their clock.
pub(crate) struct Scripted {
    pub(crate) session: NativeSession,
    pub(crate) now: Instant,
    /// The newest link.
    pub(crate) link: LinkId,
    ears: BTreeMap<LinkId, Ear>,
    /// The number of a client's last attempt, and what it said to have received.
    pub(crate) asked: Option<(u32, u64)>,
}

impl Scripted {
    /// A session that has just been given its first link. Nobody has said anything.
    pub(crate) fn new(role: Role, settings: Settings, peer_window: u64) -> Self {
        let now = Instant::now();
        let identity = Identity {
            id: [7; 16],
            secret: SessionSecret::new([9; 32]),
            binding: Binding::NONE,
            route: 0,
            peer_window,
        };
        let mut session = NativeSession::new(role, identity, settings, now);
        let mut ear = Ear::default();
        match role {
            Role::Client => {
                session.attach_opened([0x14; CONFIRM_LEN], now);
                ear.confirm = Some((Vec::new(), None));
            }
            Role::Server => session.attach(0, 0, now).expect("it is the first"),
        }
        Self {
            session,
            now,
            link: 0,
            ears: BTreeMap::from([(0, ear)]),
            asked: None,
        }
    }

    /// A session whose first link is in use at both ends, which have the same window, and which has had an answer to its first PING.
    pub(crate) fn attached(role: Role) -> Self {
        Self::attached_with(role, settings(WINDOW), WINDOW as u64)
    }

    pub(crate) fn attached_with(role: Role, settings: Settings, peer_window: u64) -> Self {
        let mut script = Self::new(role, settings, peer_window);
        script.hear();
        script.say(attach(0, 0, peer_window));
        script.say(Frame::Pong(1));
        assert_eq!(script.hear(), []);
        script
    }

    /// A frame comes in on the newest link; of DATA the header.
    pub(crate) fn say(&mut self, frame: Frame) -> Arrived {
        self.say_on(self.link, frame)
    }

    pub(crate) fn say_on(&mut self, link: LinkId, frame: Frame) -> Arrived {
        self.give(link, &wire(&[frame]))
    }

    /// DATA comes in, whole.
    pub(crate) fn say_data(&mut self, data: &[u8]) -> Arrived {
        self.say_data_on(self.link, data)
    }

    pub(crate) fn say_data_on(&mut self, link: LinkId, data: &[u8]) -> Arrived {
        self.give(
            link,
            &[wire(&[Frame::Data { len: data.len() }]), data.to_vec()].concat(),
        )
    }

    /// Bytes come in; what is fresh of them waits for the application.
    pub(crate) fn give(&mut self, link: LinkId, bytes: &[u8]) -> Arrived {
        let mut bytes = bytes.to_vec();
        let arrived = self.session.receive(link, &mut bytes, self.now);
        self.session.store(&bytes[arrived.fresh.clone()]);
        arrived
    }

    /// The peer does wrong.
    pub(crate) fn give_wrong(&mut self, bytes: &[u8]) -> Option<ProtocolError> {
        self.give(self.link, bytes).broken
    }

    /// All that the session says now.
    pub(crate) fn hear(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        loop {
            let more = self.hear_some(usize::MAX);
            if more.is_empty() && self.session.transmit(self.now).concat().is_empty() {
                return said;
            }
            append(&mut said, more);
        }
    }

    /// At most `most` bytes of what the session hands to its link now.
    pub(crate) fn hear_some(&mut self, most: usize) -> Vec<Said> {
        let handed = self.hand(most);
        // A fallback speaks on the link before.
        let mut links: Vec<LinkId> = self.ears.keys().copied().collect();
        links.retain(|link| self.session.holds(*link));
        let Some(newest) = links.last() else {
            assert!(handed.is_empty(), "said to nobody");
            return Vec::new();
        };
        self.ears
            .get_mut(newest)
            .expect("it is one of them")
            .take(&handed)
    }

    /// Hands at most `most` bytes to the link, unheard.
    pub(crate) fn hand(&mut self, most: usize) -> Vec<u8> {
        let pieces = self.session.transmit(self.now).concat();
        let handed = pieces[..pieces.len().min(most)].to_vec();
        self.session.transmitted(handed.len());
        handed
    }

    /// Time passes, and what is due is done.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        assert!(
            !self.session.handle_timeout(self.now),
            "native asks for no link"
        );
        let due = self.session.poll_timeout();
        assert!(due.is_none_or(|at| at > self.now), "left undone");
    }

    /// In how long something is due.
    pub(crate) fn due(&self) -> Option<Duration> {
        let at = self.session.poll_timeout()?;
        Some(at.saturating_duration_since(self.now))
    }

    /// What waits for the application, which takes it.
    pub(crate) fn read(&mut self) -> Vec<u8> {
        self.read_some(self.session.waiting())
    }

    pub(crate) fn read_some(&mut self, most: usize) -> Vec<u8> {
        let mut out = vec![0; most];
        let count = self.session.read(&mut out, self.now);
        out.truncate(count);
        out
    }

    pub(crate) fn lose_link(&mut self) {
        self.session.link_failed(self.link, self.now);
    }

    /// A new link, on which the peer has shown that it received so much. What it says first is up to the script.
    pub(crate) fn resume(&mut self, received: u64) -> Result<(), ResumeError> {
        let next = self.link + 1;
        match self.session.role() {
            Role::Server => {
                let attempt = u32::try_from(next).expect("few are made");
                self.session.attach(attempt, received, self.now)?;
                self.link = next;
                self.ears.insert(next, Ear::default());
            }
            Role::Client => {
                let nonce = [next as u8; 16];
                let resume = self.session.resume(nonce, ClientProtection::None);
                let resume = resume.expect("few are made");
                self.answer(resume, received)?;
            }
        }
        Ok(())
    }

    /// The server answers to what a client has asked.
    pub(crate) fn answer(
        &mut self,
        mut resume: ClientResume,
        received: u64,
    ) -> Result<(), ResumeError> {
        let mut server = ServerHandshake::new();
        let request = resume.transmit().to_vec();
        resume.transmitted(request.len());
        for byte in request {
            server
                .receive(&[byte])
                .expect("a client's request is right");
            server
                .proceed(ServerProtection::None)
                .expect("it asks for no protection");
        }
        self.asked = match server.hello() {
            Some(Hello::Resume {
                attempt, received, ..
            }) => Some((attempt, received)),
            other => panic!("a client that resumes says {other:?}"),
        };
        server.resume(&self.session.identity().secret, [0x5e; 16], received);
        resume
            .receive(server.transmit())
            .expect("the server's answer is right");
        server.transmitted(server.transmit().len());
        self.link = self.session.attach_resumed(&resume, self.now)?;
        let confirm = Some((Vec::new(), Some(server)));
        let decoder = Decoder::new();
        self.ears.insert(self.link, Ear { confirm, decoder });
        Ok(())
    }

    /// A new link as of [`resume`](Self::resume), on which the peer says its ATTACH with the right counts, and answers the first PING.
    pub(crate) fn resume_attached(&mut self, from: u64, received: u64, limit: u64) -> Vec<Said> {
        self.resume(received).expect("it can go on");
        // A server has nothing to say before it has seen the CONFIRM.
        let mut said = self.hear();
        self.say(attach(from, received, limit));
        append(&mut said, self.hear());
        for said in &said {
            if let Said::Frame(Frame::Ping(ping)) = said {
                self.say(Frame::Pong(*ping));
            }
        }
        said
    }
}

impl Ear {
    fn take(&mut self, mut bytes: &[u8]) -> Vec<Said> {
        let mut said = Vec::new();
        if let Some((confirm, server)) = &mut self.confirm {
            let (more, rest) = bytes.split_at(bytes.len().min(CONFIRM_LEN - confirm.len()));
            confirm.extend(more);
            bytes = rest;
            if confirm.len() < CONFIRM_LEN {
                return said;
            }
            said.push(Confirm(server.as_mut().and_then(|server| {
                let received = server.receive(confirm);
                received.ok().and(server.proved())
            })));
            self.confirm = None;
        }
        while !bytes.is_empty() {
            let decoded = self.decoder.decode(bytes);
            let (used, item) = decoded.expect("what a session says is right");
            match item {
                Some(Item::Payload(count)) => said.push(Data(bytes[..count].to_vec())),
                Some(Item::Frame(Frame::Data { .. })) | None => {}
                Some(Item::Frame(frame)) => said.push(Said::Frame(frame)),
            }
            bytes = &bytes[used..];
        }
        said
    }
}

/// What was said after the rest, with DATA that follows DATA as one.
fn append(said: &mut Vec<Said>, more: Vec<Said>) {
    for more in more {
        match (said.last_mut(), more) {
            (Some(Data(before)), Data(more)) => before.extend(more),
            (_, more) => said.push(more),
        }
    }
}

/// Frames as they stand on the wire; of DATA the header.
pub(crate) fn wire(frames: &[Frame]) -> Vec<u8> {
    let mut wire = Vec::new();
    for frame in frames {
        let mut head = Head::new();
        assert!(head.push(frame));
        wire.extend(head.as_bytes());
    }
    wire
}

/// What the session said without its PINGs, which say nothing of the streams.
pub(crate) fn but_pings(said: Vec<Said>) -> Vec<Said> {
    said.into_iter()
        .filter(|said| !matches!(said, Said::Frame(Frame::Ping(_))))
        .collect()
}
