//! A client that does what it likes: handshakes step by step, on any link.

// Each of its users takes a part of it.
#![allow(dead_code)]

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use unbroken::protocol::{
    Handshake,
    snet::{ClientOpen, ClientResume, Counts, KeyAgreement, Opened, PrivateKey, ResumeReply},
};

/// Carries a handshake on until it wants nothing more.
pub(crate) async fn drive<L>(link: &mut L, machine: &mut impl Handshake) -> io::Result<()>
where
    L: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        while !machine.transmit().is_empty() {
            let count = link.write(machine.transmit()).await?;
            machine.transmitted(count);
        }
        let mut bytes = [0; 64];
        let wanted = machine.wanted().min(bytes.len());
        if wanted == 0 {
            return Ok(());
        }
        match link.read(&mut bytes[..wanted]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => machine.receive(&bytes[..count]).map_err(io::Error::other)?,
        }
    }
}

/// The machine of a client with a random key.
pub(crate) fn client_open() -> ClientOpen {
    let private = PrivateKey::new(rand::random::<u64>() | 1).expect("an odd number is not 0");
    ClientOpen::new(KeyAgreement::Private(private))
}

/// Opens up to message 2: what is left to send is the proof.
pub(crate) async fn begin_open<L>(link: &mut L) -> io::Result<ClientOpen>
where
    L: AsyncRead + AsyncWrite + Unpin,
{
    let mut machine = client_open();
    while machine.opened().is_none() {
        while !machine.transmit().is_empty() {
            let count = link.write(machine.transmit()).await?;
            machine.transmitted(count);
        }
        let mut bytes = [0; 24];
        let wanted = machine.wanted();
        match link.read(&mut bytes[..wanted]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => machine.receive(&bytes[..count]).map_err(io::Error::other)?,
        }
    }
    Ok(machine)
}

/// Opens a session.
pub(crate) async fn open<L>(link: &mut L) -> io::Result<Opened>
where
    L: AsyncRead + AsyncWrite + Unpin,
{
    let mut machine = client_open();
    drive(link, &mut machine).await?;
    machine
        .opened()
        .cloned()
        .ok_or_else(|| io::Error::other("the handshake ended without a session"))
}

/// Asks to resume, and gives the server's answer.
pub(crate) async fn request<L>(
    link: &mut L,
    session: &Opened,
    sent: u64,
    received: u64,
) -> io::Result<(ClientResume, ResumeReply)>
where
    L: AsyncRead + AsyncWrite + Unpin,
{
    let mut machine = ClientResume::new(session, Counts { sent, received });
    drive(link, &mut machine).await?;
    let reply = machine
        .reply()
        .ok_or_else(|| io::Error::other("the handshake ended without an answer"))?;
    Ok((machine, reply))
}

/// Resumes, and gives the server's counts.
pub(crate) async fn resume<L>(
    link: &mut L,
    session: &Opened,
    sent: u64,
    received: u64,
) -> io::Result<Counts>
where
    L: AsyncRead + AsyncWrite + Unpin,
{
    let (mut machine, reply) = request(link, session, sent, received).await?;
    let ResumeReply::Granted { counts, .. } = reply else {
        return Err(io::Error::other("the resume was refused"));
    };
    machine.confirm();
    drive(link, &mut machine).await?;
    Ok(counts)
}

/// Whether the other end closes the link without another byte.
pub(crate) async fn closes_silently(link: &mut (impl AsyncRead + Unpin)) -> bool {
    matches!(link.read(&mut [0]).await, Ok(0) | Err(_))
}
