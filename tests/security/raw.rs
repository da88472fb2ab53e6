//! A native peer that does what it likes, under Noise.

use std::io;

use tokio::io::AsyncReadExt;
use unbroken::{
    NoiseLink, Suite,
    protocol::{
        Handshake,
        native::{
            Answer, ClientOpen, ClientProtection, ClientResume, Opened, PRELUDE_LEN,
            ServerHandshake, ServerProtection,
        },
        noise::{ClientKeys, Records, SecretKey, ServerKeys},
    },
};

use super::{
    choices::SERVER,
    memory_link::MemoryLink,
    memory_net::send,
    raw_native::{Frames, WINDOW, drive, named},
};

pub(super) type RawFrames = Frames<NoiseLink<MemoryLink>>;

pub(super) fn ephemeral() -> SecretKey {
    rand::random::<[u8; 32]>().into()
}

/// A client's, under this suite.
pub(super) fn with(keys: ClientKeys, suite: Suite) -> ClientProtection {
    ClientProtection::Noise {
        keys,
        suite,
        ephemeral: ephemeral(),
    }
}

pub(super) fn anonymous() -> ClientProtection {
    with(ClientKeys::Anonymous, Suite::fastest())
}

/// Of a client that has this key, and knows the server.
pub(super) fn mutual(own: u8) -> ClientProtection {
    let keys = ClientKeys::Mutual {
        private: [own; 32].into(),
        server: *super::choices::public(SERVER).as_bytes(),
    };
    with(keys, Suite::fastest())
}

/// The link under the records of its handshake.
pub(super) fn under(link: MemoryLink, records: Option<Records>) -> NoiseLink<MemoryLink> {
    NoiseLink::new(link, records.expect("the other end agrees"))
}

/// Opens a session and attaches the link.
pub(super) async fn open(
    mut link: MemoryLink,
    protection: ClientProtection,
) -> io::Result<(RawFrames, Opened)> {
    let mut machine = ClientOpen::new(WINDOW, protection);
    drive(&mut link, &mut machine).await?;
    let mut link = under(link, machine.take_records());
    send(&mut link, &machine.confirm().expect("it is opened")).await;
    let mut frames = Frames::new(link);
    frames.attach(0, 0, WINDOW).await?;
    Ok((frames, named(&machine)))
}

/// Asks to resume, and gives what came of it: what is left to send, if the server agrees, is CONFIRM.
pub(super) async fn request(
    link: &mut MemoryLink,
    session: &Opened,
    attempt: u32,
    received: u64,
    protection: ClientProtection,
) -> io::Result<(ClientResume, Answer)> {
    let mut machine = ClientResume::new(
        session.id,
        &session.secret,
        session.route,
        attempt,
        rand::random(),
        received,
        protection,
    );
    drive(link, &mut machine).await?;
    let answer = machine.answer().expect("it has come to an answer");
    Ok((machine, answer))
}

/// Resumes a session of which so much was received, and attaches the link.
pub(super) async fn resume(
    mut link: MemoryLink,
    session: &Opened,
    attempt: u32,
    received: u64,
    protection: ClientProtection,
) -> io::Result<RawFrames> {
    let (mut machine, answer) = request(&mut link, session, attempt, received, protection).await?;
    let Answer::Resumed { received: from } = answer else {
        return Err(io::Error::other(format!("{answer:?}")));
    };
    let mut link = under(link, machine.take_records());
    send(&mut link, &machine.confirm(received).expect("it agrees")).await;
    let mut frames = Frames::new(link);
    frames.attach(from, received, WINDOW + received).await?;
    Ok(frames)
}

/// Hears what whoever dials wants.
pub(super) async fn hear(link: &mut MemoryLink, keys: ServerKeys) -> io::Result<ServerHandshake> {
    let (mut machine, mut prelude) = (ServerHandshake::new(), [0; PRELUDE_LEN]);
    link.read_exact(&mut prelude).await?;
    machine.receive(&prelude).map_err(io::Error::other)?;
    let protection = ServerProtection::Noise {
        keys,
        ephemeral: ephemeral(),
    };
    machine.proceed(protection).map_err(io::Error::other)?;
    drive(link, &mut machine).await?;
    Ok(machine)
}
