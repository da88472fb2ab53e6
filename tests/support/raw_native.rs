//! A native peer that does what it likes: handshakes step by step and frames one by one, on any link.

// Each of its users takes a part of it.
#![allow(dead_code)]

use std::{collections::VecDeque, io, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use unbroken::{
    RejectCode,
    protocol::native::{
        Answer, ClientOpen, ClientResume, Decoder, Frame, Head, Hello, Item, Opened,
        ServerHandshake, SessionSecret,
    },
};

use super::setup::{self, GoesOn};

/// The window raw ends state: as much as there is.
pub(crate) const WINDOW: u64 = 1 << 40;

/// Carries a handshake on until it wants nothing more, under the security that [`setup`] says.
pub(crate) async fn drive<L>(link: &mut L, machine: &mut impl GoesOn) -> io::Result<()>
where
    L: AsyncRead + AsyncWrite + Unpin + 'static,
{
    loop {
        while !machine.transmit().is_empty() {
            let count = link.write(machine.transmit()).await?;
            machine.transmitted(count);
        }
        let mut bytes = [0; 128];
        let wanted = machine.wanted().min(bytes.len());
        if wanted == 0 {
            if machine.go_on(link).map_err(io::Error::other)? {
                continue;
            }
            return Ok(());
        }
        match link.read(&mut bytes[..wanted]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                if let Err(error) = machine.receive(&bytes[..count]) {
                    // Who wants to can talk on.
                    let _ = machine.go_on(link);
                    return Err(io::Error::other(error));
                }
            }
        }
    }
}

/// The machine of a client that opens a session.
pub(crate) fn open_machine(window: u64) -> ClientOpen {
    ClientOpen::new(window, setup::client())
}

/// Hears what whoever dials wants.
pub(crate) async fn hear<L>(link: &mut L) -> io::Result<ServerHandshake>
where
    L: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut machine = ServerHandshake::new();
    drive(link, &mut machine).await?;
    Ok(machine)
}

/// Opens up to OPENED: what is left to send is CONFIRM.
pub(crate) async fn begin_open<L>(link: &mut L) -> io::Result<ClientOpen>
where
    L: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut machine = open_machine(WINDOW);
    drive(link, &mut machine).await?;
    Ok(machine)
}

/// The session that the server has named.
pub(crate) fn named(machine: &ClientOpen) -> Opened {
    machine
        .opened()
        .expect("the server names a session")
        .clone()
}

/// Opens a session. ATTACH is still to be sent.
pub(crate) async fn open<L>(link: &mut L) -> io::Result<Opened>
where
    L: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let machine = begin_open(link).await?;
    let confirm = machine
        .confirm()
        .ok_or_else(|| io::Error::other("there is no session"))?;
    link.write_all(&confirm).await?;
    Ok(named(&machine))
}

/// The first message of a resume.
pub(crate) fn resume_machine(session: &Opened, attempt: u32, received: u64) -> ClientResume {
    ClientResume::new(
        session.id,
        &session.secret,
        session.route,
        attempt,
        rand::random(),
        received,
        setup::client(),
    )
}

/// Asks to resume, and gives what came of it: what is left to send, if the server agrees, is CONFIRM.
pub(crate) async fn request<L>(
    link: &mut L,
    session: &Opened,
    attempt: u32,
    received: u64,
) -> io::Result<(ClientResume, Answer)>
where
    L: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut machine = resume_machine(session, attempt, received);
    drive(link, &mut machine).await?;
    let answer = machine
        .answer()
        .ok_or_else(|| io::Error::other("the handshake ended without an answer"))?;
    Ok((machine, answer))
}

/// Resumes, and gives how much the server has received. ATTACH is still to be sent.
pub(crate) async fn resume<L>(
    link: &mut L,
    session: &Opened,
    attempt: u32,
    received: u64,
) -> io::Result<u64>
where
    L: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (machine, answer) = request(link, session, attempt, received).await?;
    let Answer::Resumed { received: server } = answer else {
        return Err(io::Error::other(format!("{answer:?}")));
    };
    let confirm = machine
        .confirm(received)
        .ok_or_else(|| io::Error::other("there is no CONFIRM"))?;
    link.write_all(&confirm).await?;
    Ok(server)
}

/// Answers whoever dials with a REJECT.
pub(crate) async fn reject<L>(link: &mut L, code: RejectCode, retry_after: Duration) -> Hello
where
    L: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut machine = hear(link).await.expect("a first message");
    let hello = machine.hello().expect("a first message");
    machine.reject(code, retry_after);
    drive(link, &mut machine).await.expect("room");
    hello
}

/// A frame as it stands on the wire; of DATA the header.
pub(crate) fn frame(frame: Frame) -> Vec<u8> {
    let mut head = Head::new();
    assert!(head.push(&frame));
    head.as_bytes().to_vec()
}

/// DATA with its payload.
pub(crate) fn data(payload: &[u8]) -> Vec<u8> {
    let len = payload.len();
    [&frame(Frame::Data { len })[..], payload].concat()
}

/// An attached link, frame by frame.
pub(crate) struct Frames<L> {
    pub(crate) link: L,
    decoder: Decoder,
    read: VecDeque<u8>,
    /// Bytes of the stream that came, all that were not taken.
    pub(crate) stream: Vec<u8>,
}

impl<L: AsyncRead + AsyncWrite + Unpin + 'static> Frames<L> {
    /// A link whose handshake is over.
    pub(crate) fn new(link: L) -> Self {
        Self {
            link,
            decoder: Decoder::new(),
            read: VecDeque::new(),
            stream: Vec::new(),
        }
    }

    /// Opens a session and attaches the link.
    pub(crate) async fn open(mut link: L) -> io::Result<(Self, Opened)> {
        let opened = open(&mut link).await?;
        let mut frames = Self::new(link);
        frames.attach(0, 0, WINDOW).await?;
        Ok((frames, opened))
    }

    /// Resumes a session of which so much was sent and received, and attaches the link.
    pub(crate) async fn resume(
        mut link: L,
        session: &Opened,
        attempt: u32,
        received: u64,
    ) -> io::Result<Self> {
        let from = resume(&mut link, session, attempt, received).await?;
        let mut frames = Self::new(link);
        frames.attach(from, received, WINDOW + received).await?;
        Ok(frames)
    }

    pub(crate) async fn attach(&mut self, from: u64, received: u64, limit: u64) -> io::Result<()> {
        self.send(Frame::Attach {
            from,
            received,
            limit,
        })
        .await
    }

    pub(crate) async fn send(&mut self, what: Frame) -> io::Result<()> {
        self.link.write_all(&frame(what)).await
    }

    pub(crate) async fn send_data(&mut self, payload: &[u8]) -> io::Result<()> {
        self.link.write_all(&data(payload)).await
    }

    /// What comes next. Payload is added to what came of the stream. `None` at the link's end.
    async fn item(&mut self) -> Option<Item> {
        loop {
            let (front, _) = self.read.as_slices();
            let (used, item) = self.decoder.decode(front).expect("right frames");
            let taken = self.read.drain(..used);
            if let Some(Item::Payload(_)) = item {
                self.stream.extend(taken);
            } else {
                drop(taken);
            }
            if item.is_some() {
                return item;
            }
            if self.read.is_empty() {
                let mut bytes = [0; 4096];
                match self.link.read(&mut bytes).await {
                    Ok(count @ 1..) => self.read.extend(&bytes[..count]),
                    _ => return None,
                }
            }
        }
    }

    /// The next frame, of DATA the header. `None` at the link's end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Item::Frame(frame) = self.item().await? {
                return Some(frame);
            }
        }
    }

    /// Passes frames over until one like this.
    pub(crate) async fn until<R>(&mut self, mut like: impl FnMut(Frame) -> Option<R>) -> R {
        loop {
            let frame = self.next().await.expect("the link goes on");
            if let Some(found) = like(frame) {
                return found;
            }
        }
    }

    /// Waits until so many bytes of the stream have come and gives them. Frames are passed over.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.stream.len() < count {
            self.item().await.expect("the link goes on");
        }
        let rest = self.stream.split_off(count);
        std::mem::replace(&mut self.stream, rest)
    }
}

/// The payload of all DATA among frames, the last of which may be cut short.
pub(crate) fn payload(mut frames: &[u8]) -> Vec<u8> {
    let (mut decoder, mut stream) = (Decoder::new(), Vec::new());
    while !frames.is_empty() {
        let (used, item) = decoder.decode(frames).expect("right frames");
        if let Some(Item::Payload(_)) = item {
            stream.extend(&frames[..used]);
        }
        frames = &frames[used..];
    }
    stream
}

/// Gives whoever dials a session, and attaches the link. The id and the secret are random.
pub(crate) async fn serve_open<L>(mut link: L, window: u64) -> (Frames<L>, Opened)
where
    L: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut machine = hear(&mut link).await.expect("an OPEN");
    let opened = Opened {
        id: rand::random(),
        secret: SessionSecret::new(rand::random()),
        route: 0,
        window,
        resume_window: Duration::from_secs(300),
    };
    machine.open(&opened);
    drive(&mut link, &mut machine).await.expect("a CONFIRM");
    assert_eq!(machine.proved(), Some(0));
    let mut frames = Frames::new(link);
    frames.attach(0, 0, window).await.expect("room");
    (frames, opened)
}

/// Lets whoever dials resume `session`, saying to have received so much. Returns the link, ATTACH still to be sent, and how much the
/// client has received.
pub(crate) async fn serve_resume<L>(
    mut link: L,
    session: &Opened,
    received: u64,
) -> (Frames<L>, u64)
where
    L: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut machine = hear(&mut link).await.expect("a RESUME");
    machine.resume(&session.secret, rand::random(), received);
    drive(&mut link, &mut machine).await.expect("a CONFIRM");
    let confirmed = machine.proved().expect("a proof");
    (Frames::new(link), confirmed)
}
