//! TCP socket options, the same at both ends.

use std::{io, time::Duration};

use socket2::{Socket, TcpKeepalive};

/// The most seconds of idle time that Linux takes (`MAX_TCP_KEEPIDLE`); it refuses more.
const MAX_KEEPALIVE_SECS: u64 = 32_767;

/// Turns Nagle's algorithm off (`true`) or on.
pub(crate) fn set_nodelay(socket: &Socket, nodelay: bool) -> io::Result<()> {
    socket.set_tcp_nodelay(nodelay)
}

/// Turns TCP keepalive on, with the first probe after `idle` without traffic, or off.
///
/// The kernel counts in whole seconds: `idle` is rounded up, and kept within what Linux takes (1 s to 32,767 s). Interval
/// and number of the probes stay the system's.
pub(crate) fn set_keepalive(socket: &Socket, idle: Option<Duration>) -> io::Result<()> {
    let Some(idle) = idle else {
        return socket.set_keepalive(false);
    };
    let secs = idle
        .as_secs()
        .saturating_add(u64::from(idle.subsec_nanos() > 0));
    let secs = secs.clamp(1, MAX_KEEPALIVE_SECS);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(secs)))
}

/// Makes `SO_SNDBUF` and `SO_RCVBUF`, each as read back, as large as they go without exceeding `limit` bytes.
///
/// Call it before `connect` or `listen`: the window scale is settled in the handshake, accepted sockets inherit from the
/// listening one, and a size that was set by hand is what stops the kernel from growing the buffer by itself.
///
/// # Errors
///
/// `InvalidInput` if the kernel's minimum is above `limit`; whatever the system says if it lets no size be set.
pub(crate) fn bound_buffers(socket: &Socket, limit: usize) -> io::Result<()> {
    bound(
        "SO_SNDBUF",
        limit,
        |size| socket.set_send_buffer_size(size),
        || socket.send_buffer_size(),
    )?;
    bound(
        "SO_RCVBUF",
        limit,
        |size| socket.set_recv_buffer_size(size),
        || socket.recv_buffer_size(),
    )
}

/// Asks for half, of which Linux reads back twice as much; for the whole where half is read back as it is; and for less and less until
/// what is read back fits. That assumes nothing about the system: some refuse what is above their maximum where Linux cuts it down
/// silently.
fn bound(
    option: &str,
    limit: usize,
    set: impl Fn(usize) -> io::Result<()>,
    read_back: impl Fn() -> io::Result<usize>,
) -> io::Result<()> {
    // The option is a C `int`; a larger request would wrap around.
    let whole = limit.min(i32::MAX as usize);
    let mut request = whole / 2;
    loop {
        let outcome = set(request);
        let size = read_back()?;
        if outcome.is_ok() && size <= limit {
            if size > request || request < whole / 2 {
                return Ok(());
            }
            // Refused, it leaves what has been set.
            let _ = set(whole);
            if read_back()? <= limit {
                return Ok(());
            }
            return set(request);
        }
        if request == 0 {
            // Even the smallest request was refused or exceeded.
            outcome?;
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "socket buffers limited to {limit} bytes, but the system's smallest {option} is {size}"
                ),
            ));
        }
        request /= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use socket2::{Domain, Type};

    use super::*;

    fn socket() -> Socket {
        Socket::new(Domain::IPV4, Type::STREAM, None).expect("a TCP socket")
    }

    #[test]
    fn options_are_set() -> io::Result<()> {
        let socket = socket();
        set_nodelay(&socket, true)?;
        assert!(socket.tcp_nodelay()?);
        for idle in [Duration::ZERO, Duration::from_millis(1_500), Duration::MAX] {
            set_keepalive(&socket, Some(idle))?;
            assert!(socket.keepalive()?);
        }
        set_keepalive(&socket, None)?;
        assert!(!socket.keepalive()?);
        Ok(())
    }

    #[test]
    fn buffers_read_back_within_the_limit() -> io::Result<()> {
        for limit in [16 * 1024, 65_537, 224 * 1024, usize::MAX] {
            let socket = socket();
            bound_buffers(&socket, limit)?;
            for size in [socket.send_buffer_size()?, socket.recv_buffer_size()?] {
                assert!(size <= limit, "{size} > {limit}");
                assert!(
                    size >= limit.min(65_536) / 2,
                    "{size} is needlessly small for {limit}"
                );
            }
        }
        Ok(())
    }

    #[test]
    fn a_limit_below_the_minimum_is_an_error_that_names_it() {
        let error = bound_buffers(&socket(), 7).expect_err("no system has buffers of 7 bytes");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("limited to 7 bytes"), "{error}");
    }

    #[test]
    fn every_kind_of_system_gives_the_largest_size_that_fits() {
        // (name, size read back for a request or `None` for a refusal, limit, expected size)
        type System = fn(usize) -> Option<usize>;
        let systems: [(&str, System, usize, usize); 5] = [
            ("doubles", |request| Some(2 * request), 1_000, 1_000),
            ("takes as is", Some, 1_000, 1_000),
            (
                "takes as is, up to an int",
                Some,
                usize::MAX,
                i32::MAX as usize,
            ),
            (
                "doubles, cut down to a maximum",
                |request| Some(2 * request.min(300)),
                1_000,
                600,
            ),
            (
                "refuses above a maximum",
                |request| (request <= 300).then_some(request),
                1_000,
                250,
            ),
        ];
        for (name, system, limit, expected) in systems {
            // A default below the limit is no reason to leave it: a size never set grows by itself.
            let size = Cell::new(10);
            let set = |request| {
                system(request)
                    .map(|new| size.set(new))
                    .ok_or(io::ErrorKind::OutOfMemory.into())
            };
            bound(name, limit, set, || Ok(size.get()))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(size.get(), expected, "{name}");
        }
    }
}
