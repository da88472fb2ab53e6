//! A way from a client to its server with somebody on it, who changes what passes.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tower::Service;

use super::{
    memory_link::{Fault, MemoryLink, Side, Wire, link},
    memory_net::{Dialer, ROOMY},
};

/// What is done to the bytes of one direction of one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attack {
    /// The link's number, from 0.
    pub(super) link: usize,
    pub(super) from: Side,
    /// Of the first byte concerned.
    pub(super) offset: usize,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// These bits of the byte are changed.
    Flip(u8),
    /// So many bytes do not pass.
    Drop(usize),
    /// So many bytes pass twice.
    Repeat(usize),
    /// So many bytes pass behind as many that come after them.
    Swap(usize),
    /// Nothing more passes, and both ends see the link end in order.
    End,
    /// Nothing more passes this way, and whoever reads sees the end of that direction.
    EndHere,
}

/// A dialler, on the other side of whose links the attacker sits.
#[derive(Clone)]
pub(super) struct Path(Arc<Mutex<State>>);

struct State {
    dialer: Dialer,
    attack: Option<Attack>,
    /// The attack came about.
    hit: bool,
    /// The client's ends, and how much has come from each side.
    links: Vec<(Wire, [usize; 2])>,
}

impl Path {
    pub(super) fn new(dialer: Dialer, attack: Option<Attack>) -> Self {
        Self(Arc::new(Mutex::new(State {
            dialer,
            attack,
            hit: false,
            links: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics under this lock")
    }

    pub(super) fn hit(&self) -> bool {
        self.lock().hit
    }

    /// How many links there have been.
    pub(super) fn links(&self) -> usize {
        self.lock().links.len()
    }

    /// How much has passed on each link, from the client and from the server.
    pub(super) fn passed(&self) -> Vec<[usize; 2]> {
        self.lock()
            .links
            .iter()
            .map(|(_, passed)| *passed)
            .collect()
    }

    /// Resets the newest link.
    pub(super) fn cut(&self) {
        let wire = self.lock().links.last().map(|(wire, _)| wire.clone());
        wire.expect("a link").cut(Fault::Reset);
    }

    /// Carries what one side sends to the other, until there is no more or the attacker has both links end.
    async fn carry(
        &self,
        number: usize,
        from: Side,
        mut reading: impl AsyncRead + Unpin,
        mut writing: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let attack = self.lock().attack;
        let mut tamper = Tamper {
            attack: attack.filter(|attack| (attack.link, attack.from) == (number, from)),
            at: 0,
            held: Vec::new(),
        };
        let mut bytes = [0; 4096];
        loop {
            let count = reading.read(&mut bytes).await?;
            if count == 0 {
                writing.write_all(&tamper.held).await?;
                return writing.shutdown().await;
            }
            self.lock().links[number].1[from as usize] += count;
            let (passed, hit) = tamper.pass(&bytes[..count]);
            writing.write_all(&passed).await?;
            self.lock().hit |= hit.is_some() || !tamper.held.is_empty();
            if let Some(what) = hit {
                match what {
                    What::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                    What::EndHere => {
                        writing.shutdown().await?;
                        tokio::io::copy(&mut reading, &mut tokio::io::sink()).await?;
                        return Ok(());
                    }
                    _ => {}
                }
            }
        }
    }
}

/// One direction.
struct Tamper {
    /// Until it has come about.
    attack: Option<Attack>,
    /// The offset of what is held.
    at: usize,
    /// What has come, and what becomes of it hangs on what comes next.
    held: Vec<u8>,
}

impl Tamper {
    /// What goes on of what has come, and what has been done if anything was.
    fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, Option<What>) {
        self.held.extend(bytes);
        let mut passed = Vec::new();
        let Some(Attack { offset, what, .. }) = self.attack else {
            passed.append(&mut self.held);
            return (passed, None);
        };
        let before = (offset - self.at).min(self.held.len());
        passed.extend(self.held.drain(..before));
        self.at += before;
        let needed = match what {
            What::Flip(_) | What::End | What::EndHere => 1,
            What::Drop(count) | What::Repeat(count) => count,
            What::Swap(count) => 2 * count,
        };
        if self.held.len() < needed {
            return (passed, None);
        }
        let mut concerned: Vec<u8> = self.held.drain(..needed).collect();
        match what {
            What::Flip(bits) => concerned[0] ^= bits,
            What::Drop(_) => concerned.clear(),
            What::Repeat(_) => concerned.extend_from_within(..),
            What::Swap(count) => concerned.rotate_left(count),
            What::End | What::EndHere => {
                self.held.clear();
                concerned.clear();
            }
        }
        passed.extend(concerned);
        passed.append(&mut self.held);
        self.attack = None;
        (passed, Some(what))
    }
}

impl Service<()> for Path {
    type Response = MemoryLink;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<MemoryLink>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let path = self.clone();
        Box::pin(async move {
            let dialling = path.lock().dialer.call(());
            let far = dialling.await?;
            let (client, near, wire) = link(ROOMY);
            let number = {
                let mut state = path.lock();
                state.links.push((wire, [0, 0]));
                state.links.len() - 1
            };
            tokio::spawn(async move {
                let (from_client, to_client) = split(near);
                let (from_server, to_server) = split(far);
                // An error ends both, and with them both links.
                let _ = tokio::try_join!(
                    path.carry(number, Side::Client, from_client, to_server),
                    path.carry(number, Side::Server, from_server, to_client),
                );
            });
            Ok(client)
        })
    }
}
