//! How a single transfer does over a round trip with loss: TCP, TLS on it, and sessions. Linux only.
//!
//! The path is this program's own, a TUN device in a network namespace that it makes for itself (`unshare`, `ip`, `/dev/net/tun`; no
//! rights are needed outside of it), so the kernel needs no netem. TCP is the kernel's at both ends. Packets are of 1,500 bytes, nothing
//! is segmented or summed by a device, and there is no rate but what the processor gives: without a round trip that is what is measured.
//!
//! `cargo bench --bench network -- --help` lists what can be chosen. Every measurement also goes into `bench/network.csv` in the target
//! directory.

#[cfg(target_os = "linux")]
mod kinds;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod path;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
#[path = "../support/tls.rs"]
mod tls;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    run::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this needs Linux: a TUN device in a network namespace");
}
