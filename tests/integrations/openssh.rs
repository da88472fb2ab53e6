//! OpenSSH's client and server: neither knows of sessions.

use std::{
    fs::{self, DirBuilder},
    io,
    net::Ipv4Addr,
    os::{
        fd::OwnedFd,
        unix::{fs::DirBuilderExt, net::UnixStream},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

use crate::{
    bed::{Bed, Spoken, over_each},
    servers::{Gateway, folder, installed, is_root, run},
};

over_each!(
    a_command_gets_its_input_to_the_end_and_gives_its_output_and_status,
    a_session_that_dies_ends_the_client_with_its_own_status,
);

/// Who is let in where, without a file of this machine's configuration playing a part in it.
struct Keys {
    sshd: PathBuf,
    ssh: PathBuf,
    user: String,
    folder: TempDir,
}

impl Keys {
    fn make() -> Option<Self> {
        let (sshd, ssh) = (installed("sshd")?, installed("ssh")?);
        let folder = folder();
        for name in ["host", "user"] {
            let mut keygen = Command::new(ssh.with_file_name("ssh-keygen"));
            let keygen = keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            run(keygen.arg(folder.path().join(name)));
        }
        if is_root() {
            // Where root's sshd puts itself before it knows who is there; Debian makes it when it starts its own.
            let made = DirBuilder::new().mode(0o755).create("/run/sshd");
            made.or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            })
            .expect("root may");
        }
        let keys = Self {
            sshd,
            ssh,
            user: run(Command::new("id").arg("-un")).trim().to_owned(),
            folder,
        };
        let host = fs::read_to_string(keys.file("host.pub")).expect("a key");
        keys.write("known_hosts", &format!("host {host}"));
        let at = keys.folder.path().display();
        keys.write(
            "sshd_config",
            &format!(
                "HostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\nPidFile none\nUsePAM no\nStrictModes no\n\
                 PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            ),
        );
        Some(keys)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.file(name), content).expect("the folder takes it");
    }

    /// What both ends have to say.
    fn logs(&self) -> String {
        let logs = ["ssh.log", "sshd.log"].map(|log| fs::read_to_string(self.file(log)));
        format!("{logs:#?}")
    }

    /// A server for one connection, and that.
    fn serve(&self) -> io::Result<(Child, UnixStream)> {
        let (near, far) = UnixStream::pair()?;
        let child = Command::new(&self.sshd)
            .arg("-if")
            .arg(self.file("sshd_config"))
            .arg("-E")
            .arg(self.file("sshd.log"))
            .stdin(OwnedFd::from(far.try_clone()?))
            .stdout(OwnedFd::from(far))
            .spawn()?;
        Ok((child, near))
    }

    /// A client that runs `command` through `port`.
    fn client(&self, port: u16, command: &str) -> tokio::process::Command {
        let mut client = tokio::process::Command::new(&self.ssh);
        client.args(["-F", "none", "-T", "-p", &port.to_string()]);
        client.arg("-i").arg(self.file("user"));
        client.arg("-E").arg(self.file("ssh.log"));
        let known = self.file("known_hosts");
        for option in [
            "BatchMode=yes",
            "GlobalKnownHostsFile=none",
            "HostKeyAlias=host",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=yes",
            &format!("UserKnownHostsFile={}", known.display()),
        ] {
            client.args(["-o", option]);
        }
        client.arg(format!("{}@{}", self.user, Ipv4Addr::LOCALHOST));
        client.arg(command);
        client.stdin(Stdio::piped()).stdout(Stdio::piped());
        client.kill_on_drop(true);
        client
    }
}

/// The gateway before sshd, and a child for each session.
fn gateway(keys: &Arc<Keys>, listener: unbroken::Listener) -> (Gateway, UnboundedReceiver<Child>) {
    let (tell, children) = unbounded_channel();
    let keys = keys.clone();
    let gateway = Gateway::start(listener, move || {
        let (child, stream) = keys.serve()?;
        tell.send(child).expect("the test waits for them");
        Ok(stream)
    });
    (gateway, children)
}

/// A port next to the client, whose connections become sessions.
async fn forward(bed: Arc<Bed>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut transport = bed.connect().await;
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut transport).await });
        }
    });
    port
}

async fn a_command_gets_its_input_to_the_end_and_gives_its_output_and_status(spoken: Spoken) {
    let Some(keys) = Keys::make() else { return };
    let keys = Arc::new(keys);
    let (bed, listener) = Bed::start(spoken, 16 << 10).await;
    let bed = Arc::new(bed);
    let (mut gateway, mut children) = gateway(&keys, listener);
    let port = forward(bed.clone()).await;

    let mut input = vec![0; 3 << 20];
    StdRng::seed_from_u64(3).fill_bytes(&mut input);
    let copy = keys.file("copy");
    let command = format!("tee {}; exit 7", copy.display());
    let mut client = keys.client(port, &command).spawn().expect("ssh runs");
    let mut to_command = client.stdin.take().expect("a pipe");
    let mut from_command = client.stdout.take().expect("a pipe");
    // A part of it piece by piece, so that both directions are needed all the time.
    let mut output = Vec::new();
    let (pieces, rest) = input.split_at(192 << 10);
    for piece in pieces.chunks(8 << 10) {
        to_command.write_all(piece).await.expect("it reads");
        let from = output.len();
        output.resize(from + piece.len(), 0);
        let read = from_command.read_exact(&mut output[from..]).await;
        assert!(read.is_ok(), "{read:?} {}", keys.logs());
    }
    let (written, read) = tokio::join!(
        async {
            to_command.write_all(rest).await?;
            // Its end is what `tee` waits for.
            drop(to_command);
            io::Result::Ok(())
        },
        from_command.read_to_end(&mut output)
    );
    written.expect("the command reads");
    read.expect("the command writes");
    let status = client.wait().await.expect("it ends");
    assert_eq!(status.code(), Some(7), "{}", keys.logs());
    assert!(output == input, "{} bytes came back", output.len());
    assert!(fs::read(copy).expect("a file") == input);
    bed.assert_cut(8);

    if spoken.tells_the_end() {
        gateway.ended().await.expect("an orderly end");
        let mut child = children.recv().await.expect("an sshd");
        child.wait().expect("it ends");
    }
}

async fn a_session_that_dies_ends_the_client_with_its_own_status(spoken: Spoken) {
    let Some(keys) = Keys::make() else { return };
    let keys = Arc::new(keys);
    let (bed, listener) = Bed::start(spoken, 64 << 10).await;
    let bed = Arc::new(bed);
    let sessions = listener.sessions();
    let (mut gateway, mut children) = gateway(&keys, listener);
    let port = forward(bed.clone()).await;

    let mut client = keys.client(port, "echo up; cat").spawn().expect("ssh runs");
    let mut output = client.stdout.take().expect("a pipe");
    let mut line = [0; 3];
    let read = output.read_exact(&mut line).await;
    assert!(read.is_ok(), "{read:?} {}", keys.logs());
    assert_eq!(&line, b"up\n");

    let id = bed.sessions()[0].id();
    assert!(sessions.close(id, 7), "it is there");
    let status = client.wait().await.expect("it ends");
    assert_eq!(status.code(), Some(255), "{}", keys.logs());
    gateway.ended().await.expect_err("it is dead");
    let mut child = children.recv().await.expect("an sshd");
    child.wait().expect("it ends");
}
