//! A network namespace of this program's own, and the path in it. Nothing outside is touched.

use std::{
    ffi::OsStr,
    fs, io,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
};

use tappers::Tun;
use unbroken::BoxError;

use crate::path::{self, DEVICE, MTU, NEAR};

const NAMESPACE: &str = "/proc/self/ns/net";
/// Makes its user the namespaces' root, who needs to be nobody outside.
const AS_ANYBODY: &[&str] = &["--user", "--map-root-user", "--net"];
/// Where user namespaces are switched off, and for root alone.
const AS_ROOT: &[&str] = &["--net"];
/// Packets that wait for the path: more than a send buffer of Linux's default size holds, so that none is lost there.
const DEVICE_QUEUE: usize = 10_000;

/// Runs this program again in a new namespace, and gives its exit code.
pub(crate) fn enter() -> Result<ExitCode, BoxError> {
    fs::metadata("/dev/net/tun").map_err(|error| format!("there is no /dev/net/tun: {error}"))?;
    for (program, of) in [("unshare", "util-linux"), ("ip", "iproute2")] {
        let found = Command::new(program)
            .arg("-V")
            .stdout(Stdio::null())
            .status();
        found.map_err(|error| format!("`{program}` (of {of}) cannot be run: {error}"))?;
    }

    let works = |how: &&&[&str]| {
        let tried = Command::new("unshare").args(**how).arg("true").output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let how = [AS_ANYBODY, AS_ROOT];
    let how = how.iter().find(works).ok_or(
        "`unshare` can make no network namespace: neither with a user namespace nor as this user",
    )?;
    let status = Command::new("unshare")
        .args(*how)
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("--inside")
        .arg(fs::read_link(NAMESPACE)?)
        .status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Lays the path, in a namespace that must not be `outside`.
pub(crate) fn lay_path(outside: &OsStr) -> Result<Arc<Tun>, BoxError> {
    if fs::read_link(NAMESPACE)? == outside {
        return Err("this is no network namespace of its own".into());
    }
    ip(&["link", "set", "lo", "up"])?;
    let device =
        path::device().map_err(|error| format!("/dev/net/tun gives no device: {error}"))?;
    ip(&["addr", "add", &format!("{NEAR}/24"), "dev", DEVICE])?;
    let (mtu, queue) = (MTU.to_string(), DEVICE_QUEUE.to_string());
    ip(&[
        "link",
        "set",
        DEVICE,
        "mtu",
        &mtu,
        "txqueuelen",
        &queue,
        "up",
    ])?;
    for settings in ["all", DEVICE] {
        // What comes from the other end's address comes over the only device that leads there, but not every system asks that.
        set(&format!("conf/{settings}/rp_filter"), "0")?;
    }
    // Otherwise a connection starts with what the one before it has learnt of the path.
    set("tcp_no_metrics_save", "1")?;
    Ok(Arc::new(device))
}

fn ip(arguments: &[&str]) -> Result<(), BoxError> {
    let done = Command::new("ip").args(arguments).output()?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(format!("`ip {}`: {}", arguments.join(" "), said.trim()).into())
}

fn set(setting: &str, value: &str) -> Result<(), BoxError> {
    let file = format!("/proc/sys/net/ipv4/{setting}");
    fs::write(&file, value).map_err(|error| format!("{file}: {error}").into())
}

/// A setting of IPv4's in this namespace.
pub(crate) fn get(setting: &str) -> io::Result<String> {
    let value = fs::read_to_string(format!("/proc/sys/net/ipv4/{setting}"))?;
    Ok(value.trim().to_owned())
}
