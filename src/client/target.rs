//! Where to dial.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use http::Uri;

use crate::Error;

/// Where to dial: an address, or a host name and a port to be looked up at each dial.
///
/// Made from a `SocketAddr`, from a host or an `IpAddr` with a port, and, where that can fail, from a string
/// (`"host:port"`, `"1.2.3.4:5"`, `"[::1]:7"`) or an [`http::Uri`]. A URI needs a host; its port defaults to 80 for `http`
/// and `ws` and to 443 for `https` and `wss`, and is needed with any other scheme or none. Everything else in a URI is left
/// aside. `Display` gives back the form for strings.
///
/// A host that is an IP address, in brackets or not, becomes [`Target::Address`]. Names are not looked up here, and those
/// given apart from their port are not even checked: a name that cannot be is the dial's error.
///
/// # Errors
///
/// [`Error::Target`], with what was given (of a URI no more than scheme, host and port, since the rest may be secret) and
/// what is wrong with it.
///
/// # Example
///
/// ```
/// use unbroken::Target;
///
/// let target: Target = "example.com:7000".parse()?;
/// assert_eq!(target, Target::from(("example.com", 7000)));
/// assert_eq!(Target::try_from("[::1]:7")?.to_string(), "[::1]:7");
/// assert_eq!(Target::try_from(http::Uri::from_static("wss://example.com/chat"))?.to_string(), "example.com:443");
/// assert!(Target::try_from("example.com").is_err());
/// # Ok::<(), unbroken::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// An address, dialled as it is.
    Address(SocketAddr),
    /// A host name, looked up at each dial, so that a redial follows a change of its addresses.
    Name {
        /// The name, without port or brackets.
        host: String,
        /// The TCP port.
        port: u16,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<(IpAddr, u16)> for Target {
    fn from(address: (IpAddr, u16)) -> Self {
        Self::Address(address.into())
    }
}

impl From<(String, u16)> for Target {
    fn from((host, port): (String, u16)) -> Self {
        let ip = match bracketed(&host) {
            Some(inside) => inside.parse().map(IpAddr::V6),
            None => host.parse(),
        };
        match ip {
            Ok(ip) => Self::from((ip, port)),
            Err(_) => Self::Name { host, port },
        }
    }
}

impl From<(&str, u16)> for Target {
    fn from((host, port): (&str, u16)) -> Self {
        Self::from((host.to_owned(), port))
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(target: &str) -> Result<Self, Error> {
        let parse = || {
            // First, because only this form knows the scope of an IPv6 address.
            if let Ok(address) = target.parse::<SocketAddr>() {
                return Ok(Self::Address(address));
            }
            if target.parse::<Ipv6Addr>().is_ok() {
                return Err("an IPv6 address goes in brackets, with a port after them");
            }
            // A colon inside brackets belongs to the address.
            match target.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => {
                    named(checked_host(host)?, checked_port(port)?)
                }
                _ => Err("it has no port"),
            }
        };
        parse().map_err(|problem| Error::Target {
            target: target.to_owned(),
            problem,
        })
    }
}

impl TryFrom<&str> for Target {
    type Error = Error;

    fn try_from(target: &str) -> Result<Self, Error> {
        target.parse()
    }
}

impl TryFrom<String> for Target {
    type Error = Error;

    fn try_from(target: String) -> Result<Self, Error> {
        target.parse()
    }
}

impl TryFrom<&String> for Target {
    type Error = Error;

    fn try_from(target: &String) -> Result<Self, Error> {
        target.parse()
    }
}

impl TryFrom<Uri> for Target {
    type Error = Error;

    fn try_from(uri: Uri) -> Result<Self, Error> {
        Self::try_from(&uri)
    }
}

impl TryFrom<&Uri> for Target {
    type Error = Error;

    fn try_from(uri: &Uri) -> Result<Self, Error> {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host_and_port = authority
            .rsplit_once('@')
            .map_or(authority, |(_user, rest)| rest);
        let parse = || {
            let host = checked_host(uri.host().unwrap_or_default())?;
            // Not `Uri::port_u16`, for which a port that is no `u16` is no port: the default would be dialled instead.
            let port = match host_and_port
                .strip_prefix(host)
                .and_then(|rest| rest.strip_prefix(':'))
            {
                Some(port) if !port.is_empty() => checked_port(port)?,
                _ => default_port(uri).ok_or("it has no port, and its scheme implies none")?,
            };
            named(host, port)
        };
        parse().map_err(|problem| {
            let scheme = uri
                .scheme_str()
                .map(|scheme| format!("{scheme}://"))
                .unwrap_or_default();
            Error::Target {
                target: format!("{scheme}{host_and_port}"),
                problem,
            }
        })
    }
}

fn named(host: &str, port: u16) -> Result<Target, &'static str> {
    match Target::from((host, port)) {
        Target::Name { host, .. } if host.starts_with('[') => {
            Err("what is in brackets is not an IPv6 address")
        }
        target => Ok(target),
    }
}

fn default_port(uri: &Uri) -> Option<u16> {
    match uri.scheme_str()?.to_ascii_lowercase().as_str() {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

fn bracketed(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

/// Keeps out what would only fail later and less clearly, such as a whole URL. Any other name is the resolver's to judge.
fn checked_host(host: &str) -> Result<&str, &'static str> {
    let name = bracketed(host).map_or(host, |_address| "");
    if host.is_empty() {
        Err("it has no host")
    } else if host.contains("://") {
        Err("a URL is to be given as an http::Uri")
    } else if name
        .contains(|c: char| "/?#@%[]:\\".contains(c) || c.is_whitespace() || c.is_control())
    {
        Err("the host is not a name, nor an IPv6 address in brackets")
    } else {
        Ok(host)
    }
}

fn checked_port(port: &str) -> Result<u16, &'static str> {
    // `u16::from_str` alone would take "+5".
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse().ok().filter(|_| digits);
    number.ok_or("the port is not a number from 0 to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(target: Result<Target, Error>) -> String {
        match target {
            Ok(Target::Address(address)) => format!("address {address}"),
            Ok(Target::Name { host, port }) => format!("name {host} {port}"),
            Err(Error::Target { problem, .. }) => format!("error: {problem}"),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn strings() {
        for (given, expected) in [
            ("example.com:7000", "name example.com 7000"),
            ("my_host.:0", "name my_host. 0"),
            ("1.2.3.4:5", "address 1.2.3.4:5"),
            ("[::1]:7", "address [::1]:7"),
            ("[fe80::1%3]:7", "address [fe80::1%3]:7"),
            ("", "error: it has no port"),
            ("host", "error: it has no port"),
            ("[::1]", "error: it has no port"),
            (
                "::1",
                "error: an IPv6 address goes in brackets, with a port after them",
            ),
            (
                "fe80::1:7000",
                "error: an IPv6 address goes in brackets, with a port after them",
            ),
            (":5", "error: it has no host"),
            ("host:", "error: the port is not a number from 0 to 65535"),
            ("host:+5", "error: the port is not a number from 0 to 65535"),
            (
                "host:65536",
                "error: the port is not a number from 0 to 65535",
            ),
            (
                "host:http",
                "error: the port is not a number from 0 to 65535",
            ),
            (
                "http://host:5",
                "error: a URL is to be given as an http::Uri",
            ),
            (
                "[host]:5",
                "error: what is in brackets is not an IPv6 address",
            ),
            (
                "[1.2.3.4]:5",
                "error: what is in brackets is not an IPv6 address",
            ),
            ("[]:5", "error: what is in brackets is not an IPv6 address"),
            (
                "[::1:7",
                "error: the host is not a name, nor an IPv6 address in brackets",
            ),
            (
                "a:b:5",
                "error: the host is not a name, nor an IPv6 address in brackets",
            ),
            (
                "user@host:5",
                "error: the host is not a name, nor an IPv6 address in brackets",
            ),
            (
                " host:5",
                "error: the host is not a name, nor an IPv6 address in brackets",
            ),
        ] {
            assert_eq!(outcome(given.parse()), expected, "{given:?}");
            assert_eq!(outcome(given.to_owned().try_into()), expected, "{given:?}");
            if let Ok(target) = Target::try_from(given) {
                assert_eq!(target.to_string(), given);
            }
        }
    }

    #[test]
    fn uris() {
        for (given, expected) in [
            ("http://example.com", "name example.com 80"),
            ("WS://example.com/chat?a:9", "name example.com 80"),
            ("https://example.com:/", "name example.com 443"),
            ("wss://[::1]/", "address [::1]:443"),
            ("http://user:9@example.com:7000/", "name example.com 7000"),
            ("http://user@[::1]:7/", "address [::1]:7"),
            ("tcp://1.2.3.4:5", "address 1.2.3.4:5"),
            ("example.com:7000", "name example.com 7000"),
            (
                "tcp://example.com",
                "error: it has no port, and its scheme implies none",
            ),
            (
                "example.com",
                "error: it has no port, and its scheme implies none",
            ),
            (
                "http://example.com:99999/",
                "error: the port is not a number from 0 to 65535",
            ),
            (
                "http://example.com:+5/",
                "error: the port is not a number from 0 to 65535",
            ),
            ("/path", "error: it has no host"),
        ] {
            let uri: Uri = given
                .parse()
                .unwrap_or_else(|error| panic!("{given}: {error}"));
            assert_eq!(outcome(Target::try_from(uri)), expected, "{given}");
        }
    }

    #[test]
    fn an_error_names_the_target_but_no_secret_of_a_uri() {
        let error = Target::try_from(Uri::from_static(
            "tcp://user:secret@example.com/secret?secret",
        ));
        assert_eq!(
            error.map_err(|error| error.to_string()),
            Err(
                r#"cannot dial "tcp://example.com": it has no port, and its scheme implies none"#
                    .to_owned()
            )
        );
    }

    #[test]
    fn hosts_with_a_port_apart() {
        assert_eq!(outcome(Ok(("example.com", 5).into())), "name example.com 5");
        for host in ["::1", "[::1]"] {
            assert_eq!(outcome(Ok((host.to_owned(), 5).into())), "address [::1]:5");
        }
        assert_eq!(
            outcome(Ok((IpAddr::from([1, 2, 3, 4]), 5).into())),
            "address 1.2.3.4:5"
        );
    }
}
