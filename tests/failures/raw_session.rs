//! A raw client of either protocol, which stops wherever it likes.

use std::io;

use unbroken::protocol::{
    Handshake,
    native::{self, Answer},
    snet,
};

use super::{
    memory_link::MemoryLink,
    memory_net::{NATIVE_OPENED, NATIVE_RESUMED, Net, Protocol, send},
    raw_native::{self, Frames},
    raw_peer, setup,
};

/// What a raw client knows of its session.
pub(super) enum RawSession {
    Snet(snet::Opened),
    Native(native::Opened),
}

/// Opens a session; the server's end is to be held so that it lives.
pub(super) async fn raw_session(
    protocol: Protocol,
    net: &mut Net,
) -> (RawSession, unbroken::ResumableTransport) {
    let (mut link, _) = net.raw_link();
    let session = match protocol {
        Protocol::Snet => {
            let opened = raw_peer::open(&mut link).await.expect("a session");
            RawSession::Snet(opened)
        }
        Protocol::Native => {
            let opened = raw_native::open(&mut link).await.expect("a session");
            RawSession::Native(opened)
        }
    };
    (session, net.opened().await)
}

/// A session being opened, byte by byte.
pub(super) enum RawOpen {
    Snet(snet::ClientOpen),
    Native(native::ClientOpen),
}

impl RawOpen {
    pub(super) fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Snet => Self::Snet(raw_peer::client_open()),
            Protocol::Native => Self::Native(raw_native::open_machine(1000)),
        }
    }

    /// Sends the next byte of the first message.
    pub(super) async fn send_byte(&mut self, link: &mut MemoryLink) {
        let machine: &mut dyn Handshake = match self {
            Self::Snet(machine) => machine,
            Self::Native(machine) => machine,
        };
        send(link, &machine.transmit()[..1]).await;
        machine.transmitted(1);
    }

    /// Sends the rest of it, and message 3 when it is due.
    pub(super) async fn finish(&mut self, link: &mut MemoryLink) {
        match self {
            Self::Snet(machine) => raw_peer::drive(link, machine).await.expect("a session"),
            Self::Native(machine) => {
                raw_native::drive(link, machine).await.expect("OPENED");
                send(link, &machine.confirm().expect("a session")).await;
            }
        }
    }
}

/// How many points of a handshake there are at which a peer can [stop](RawSession::stop_at).
pub(super) const STOPS: usize = 6;

impl RawSession {
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::Snet(_) => Protocol::Snet,
            Self::Native(_) => Protocol::Native,
        }
    }

    /// The same session under a name that no server knows.
    pub(super) fn unknown(&self) -> Self {
        match self {
            Self::Snet(opened) => Self::Snet(snet::Opened {
                id: opened.id ^ 1,
                key: opened.key.clone(),
            }),
            Self::Native(opened) => Self::Native(native::Opened {
                id: [1; 16],
                ..opened.clone()
            }),
        }
    }

    /// The first message of an open, and of a resume; the attempt is native's.
    fn firsts(&self, attempt: u32) -> [Vec<u8>; 2] {
        match self {
            Self::Snet(opened) => {
                let resume = snet::ClientResume::new(opened, snet::Counts::default());
                [raw_peer::client_open().transmit(), resume.transmit()].map(<[u8]>::to_vec)
            }
            Self::Native(opened) => {
                let open = raw_native::open_machine(1000);
                let resume = raw_native::resume_machine(opened, attempt, 0);
                [open.transmit(), resume.transmit()].map(<[u8]>::to_vec)
            }
        }
    }

    /// Opens up to message 2, and gives message 3.
    pub(super) async fn begin_open(&self, link: &mut MemoryLink) -> Vec<u8> {
        match self {
            Self::Snet(_) => {
                let machine = raw_peer::begin_open(link).await.expect("message 2");
                machine.transmit().to_vec()
            }
            Self::Native(_) => {
                let machine = raw_native::begin_open(link).await.expect("OPENED");
                machine.confirm().expect("a session").to_vec()
            }
        }
    }

    /// Asks to resume, and gives message 3 if the server agrees.
    pub(super) async fn request(&self, link: &mut MemoryLink) -> Option<Vec<u8>> {
        match self {
            Self::Snet(opened) => {
                let (mut machine, reply) = raw_peer::request(link, opened, 0, 0)
                    .await
                    .expect("an answer");
                machine.confirm();
                let granted = matches!(reply, snet::ResumeReply::Granted { .. });
                granted.then(|| machine.transmit().to_vec())
            }
            Self::Native(opened) => {
                let (machine, answer) = raw_native::request(link, opened, 1, 0)
                    .await
                    .expect("an answer");
                let agreed = matches!(answer, Answer::Resumed { .. });
                agreed.then(|| machine.confirm(0).expect("it agreed").to_vec())
            }
        }
    }

    /// Resumes, and reads what the server sends first.
    pub(super) async fn resume_and_read(
        &self,
        mut link: MemoryLink,
        count: usize,
    ) -> io::Result<Vec<u8>> {
        match self {
            Self::Snet(opened) => {
                raw_peer::resume(&mut link, opened, 0, 0).await?;
                let mut bytes = vec![0; count];
                tokio::io::AsyncReadExt::read_exact(&mut link, &mut bytes).await?;
                Ok(bytes)
            }
            Self::Native(opened) => {
                let mut frames = Frames::resume(link, opened, 1, 0).await?;
                Ok(frames.take(count).await)
            }
        }
    }

    /// Brings a handshake to one of the points at which a peer can stop.
    pub(super) async fn stop_at(&self, stop: usize, link: &mut MemoryLink) {
        let [open, resume] = self.firsts(1);
        match stop % STOPS {
            0 => {}
            1 => send(link, &open[..4]).await,
            2 => send(link, &resume[..resume.len() - 1]).await,
            3 => {
                self.begin_open(link).await;
            }
            4 => {
                let proof = self.begin_open(link).await;
                send(link, &proof[..proof.len() - 1]).await;
            }
            _ => {
                self.request(link).await.expect("it agrees");
            }
        }
    }

    /// All that can be sent of a first message without its being whole.
    pub(super) fn partial_firsts(&self) -> Vec<Vec<u8>> {
        let firsts = self.firsts(1);
        let parts = |first: &Vec<u8>| {
            let cuts = [1, first.len() / 2, first.len() - 1];
            cuts.map(|cut| first[..cut].to_vec())
        };
        firsts.iter().flat_map(parts).collect()
    }

    /// The first message of an open, whole.
    pub(super) fn open(&self) -> Vec<u8> {
        let [open, _] = self.firsts(1);
        open
    }

    /// Whether a server that wrote this on a link has said nothing final to its client.
    pub(super) fn is_nothing_final(&self, written: &[u8]) -> bool {
        written.is_empty()
            || match self {
                Self::Snet(_) => written.len() == 24 && written != [0; 24],
                Self::Native(_) if setup::READABLE => matches!(written[0], 0x11 | 0x13),
                // A REJECT inside Noise has another length, and one outside has none.
                Self::Native(_) => [NATIVE_OPENED, NATIVE_RESUMED]
                    .iter()
                    .any(|len| written.starts_with(&((len - 2) as u16).to_be_bytes())),
            }
    }
}
