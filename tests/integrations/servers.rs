//! Servers of others that are installed on this machine, each started for a test, out of reach of the network, and stopped with it.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    os::unix::{fs::chown, net::UnixStream as StdUnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::UnixStream,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use unbroken::Listener;

/// After which time a server that has not started counts as hung.
const HUNG: Duration = Duration::from_secs(30);

/// How often to look for what nothing announces: that a log has grown, say.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// Where a program is, if it is installed. A test that gets none is skipped, which is said here, unless
/// `UNBROKEN_SERVERS=required` forbids it.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .chain(of_postgresql())
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    if found.is_none() {
        let required = env::var_os("UNBROKEN_SERVERS").is_some_and(|servers| servers == "required");
        assert!(
            !required,
            "no {program} here, and UNBROKEN_SERVERS=required"
        );
        // Past the test harness, which keeps what tests that pass have printed.
        writeln!(io::stderr(), "skipped: no {program} here").expect("standard error");
    }
    found
}

/// Debian keeps PostgreSQL's programs out of the PATH, those of several versions next to each other.
fn of_postgresql() -> Vec<PathBuf> {
    let Ok(versions) = fs::read_dir("/usr/lib/postgresql") else {
        return Vec::new();
    };
    let mut versions: Vec<(u32, PathBuf)> = versions
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, bin)| bin).collect()
}

/// What a test and its server need to write.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// The number of a user or a group, as `id` tells it.
fn id(arguments: &[&str]) -> u32 {
    let id = run(Command::new("id").args(arguments));
    id.trim().parse().expect("a number")
}

pub(crate) fn is_root() -> bool {
    id(&["-u"]) == 0
}

/// A command that works in `folder`, and is nobody's if it were root's: PostgreSQL refuses to be.
pub(crate) fn unprivileged(program: &Path, folder: &TempDir) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    if is_root() {
        let (user, group) = (id(&["-u", "nobody"]), id(&["-g", "nobody"]));
        chown(folder, Some(user), Some(group)).expect("root may give it away");
        command.uid(user).gid(group);
    }
    command
}

/// What a command that succeeds prints.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().expect("a program to run");
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs what it is given, until its own standard input ends.
const RUN: &str = r#"
exec 3<&0
"$@" &
server=$!
{ read -r _ <&3; kill -INT $server; } &
wait $server
"#;

/// A running server. It is stopped when it is dropped, and when this process ends, however it does.
pub(crate) struct Server {
    shell: Child,
    socket: PathBuf,
    folder: TempDir,
}

impl Server {
    /// Starts one that will listen on the Unix socket of that name in its folder, and say in its log that it is ready.
    pub(crate) fn start(program: &Path, args: &[&str], folder: TempDir, socket: &str) -> Self {
        let log = File::create(folder.path().join("log")).expect("a log");
        let same = log.try_clone().expect("a descriptor");
        let mut command = unprivileged(Path::new("sh"), &folder);
        command.args(["-c", RUN, "sh"]).arg(program).args(args);
        command.stdin(Stdio::piped()).stdout(log).stderr(same);
        let mut server = Self {
            shell: command.spawn().expect("a shell"),
            socket: folder.path().join(socket),
            folder,
        };
        let deadline = Instant::now() + HUNG;
        while !server.log().contains("ready to accept connections") {
            let gone = server.shell.try_wait().expect("a child");
            let alive = gone.is_none() && Instant::now() < deadline;
            assert!(alive, "{command:?} did not start:\n{}", server.log());
            std::thread::sleep(LOOK);
        }
        server
    }

    /// A connection, without a session below it.
    pub(crate) fn connect(&self) -> io::Result<StdUnixStream> {
        StdUnixStream::connect(&self.socket)
    }

    /// What it has printed so far.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.folder.path().join("log")).expect("the log");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits for a line in the log with all of `words`.
    pub(crate) async fn has_logged(&self, words: &[&str]) {
        let has = |line: &str| words.iter().all(|word| line.contains(word));
        while !self.log().lines().any(has) {
            sleep(LOOK).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // A shell that is gone has nothing running.
        let _ = self.shell.wait();
    }
}

/// What stands before a server that knows nothing of sessions: each session is carried to a connection of its own.
pub(crate) struct Gateway {
    accepting: JoinHandle<()>,
    ended: UnboundedReceiver<io::Result<(u64, u64)>>,
}

impl Gateway {
    pub(crate) fn start(
        mut listener: Listener,
        connect: impl Fn() -> io::Result<StdUnixStream> + Send + 'static,
    ) -> Self {
        let (tell, ended) = unbounded_channel();
        let accepting = tokio::spawn(async move {
            // Aborted with this task.
            let mut carried = JoinSet::new();
            while let Ok((mut session, _peer)) = listener.accept().await {
                let server = connect().expect("the server takes connections");
                server.set_nonblocking(true).expect("it is a socket");
                let mut server = UnixStream::from_std(server).expect("it is a socket");
                let tell = tell.clone();
                carried.spawn(async move {
                    let end = copy_bidirectional(&mut session, &mut server).await;
                    // Nobody may be listening any more.
                    let _ = tell.send(end);
                });
            }
        });
        Self { accepting, ended }
    }

    /// How the next session to end has ended.
    pub(crate) async fn ended(&mut self) -> io::Result<(u64, u64)> {
        self.ended.recv().await.expect("it carries on")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
