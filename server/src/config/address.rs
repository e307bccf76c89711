//! Hosts with ports, as people write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The port that servers talk to each other on.
pub const CLUSTER_PORT: u16 = 3100;
/// The port of the HTTP API.
pub const HTTP_PORT: u16 = 3000;
/// Longest host name (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// A name, an IPv4 address or an IPv6 address, with a port. Resolved by whoever connects, anew each time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// A host, IPv6 without brackets, and a port.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port }
    }

    /// Reads `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address.
    ///
    /// # Errors
    /// When the host is empty or holds a character it may not, or the port is not 1 to 65535.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        if let Ok(v6) = text.parse::<Ipv6Addr>() {
            return Ok(Self::new(&v6.to_string(), default_port));
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => bracketed(rest).ok_or_else(|| wrong(text, default_port))?,
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("`{port}` is not a port from 1 to 65535"))?,
            None => default_port,
        };
        if !text.starts_with('[') && !is_host(host) {
            return Err(wrong(text, default_port));
        }
        Ok(Self::new(host, port))
    }

    /// As [`HostPort::parse`], for an address of this machine: `:3000` is port 3000 on every interface, and port 0 is
    /// one that the system chooses.
    ///
    /// # Errors
    /// As for [`HostPort::parse`].
    pub fn parse_local(text: &str, default_port: u16) -> Result<Self, String> {
        if let Some(host) = text.strip_suffix(":0")
            && text.parse::<Ipv6Addr>().is_err()
        {
            let any = Self::parse_local(&format!("{host}:1"), default_port)?;
            return Ok(Self { port: 0, ..any });
        }
        match text.strip_prefix(':') {
            Some(port) if !port.contains(':') => Self::parse(&format!("0.0.0.0:{port}"), default_port),
            _ => Self::parse(text, default_port),
        }
    }

    /// The host, IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, where the host is one already and needs no resolving.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.ip() {
            Some(ip) => ip.is_loopback(),
            None => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }

    /// Whether it stands for every interface.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self::new(&address.ip().to_string(), address.port())
    }
}

/// The address that other machines most likely see this one at: the source address of its default route, IPv4 before
/// IPv6, else loopback. Connecting a UDP socket only asks the routing table; no packet is sent.
#[must_use]
pub fn first_address() -> IpAddr {
    // Documentation addresses (RFC 5737, RFC 3849): routed by default, owned by nobody.
    let v4 = source_towards((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into());
    let v6 = || {
        source_towards((Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into())
    };
    v4.or_else(v6).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn source_towards(from: SocketAddr, to: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

fn wrong(text: &str, default_port: u16) -> String {
    format!("`{text}` is not an address such as `knot1.internal:{default_port}` or `[::1]:{default_port}`")
}

/// Splits what follows an opening bracket: an IPv6 address, a closing bracket and perhaps a port.
fn bracketed(rest: &str) -> Option<(&str, Option<&str>)> {
    let (host, tail) = rest.split_once(']')?;
    host.parse::<Ipv6Addr>().ok()?;
    match tail.strip_prefix(':') {
        Some(port) => Some((host, Some(port))),
        None => tail.is_empty().then_some((host, None)),
    }
}

fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= HOST_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        HostPort::parse(text, CLUSTER_PORT).map(|address| address.to_string())
    }

    #[test]
    fn names_and_both_families_are_read_and_the_port_is_filled_in() {
        assert_eq!(read("knot1.internal:3100"), Ok("knot1.internal:3100".into()));
        assert_eq!(read("knot1"), Ok("knot1:3100".into()));
        assert_eq!(read("10.0.0.1:7"), Ok("10.0.0.1:7".into()));
        assert_eq!(read("[::1]:3200"), Ok("[::1]:3200".into()));
        assert_eq!(read("[fd00::2]"), Ok("[fd00::2]:3100".into()));
        assert_eq!(read("fd00::2"), Ok("[fd00::2]:3100".into()));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for wrong in [
            "",
            ":3100",
            "a b:1",
            "knot1:",
            "knot1:0",
            "knot1:70000",
            "[::1",
            "[knot]:1",
            "[::1]x",
            "a:b:c",
            "wss://knot",
        ] {
            assert!(read(wrong).is_err(), "{wrong} was read");
        }
    }

    #[test]
    fn local_addresses_may_leave_out_the_host_or_the_choice_of_port() {
        let read = |text| HostPort::parse_local(text, HTTP_PORT).map(|address| address.to_string());
        assert_eq!(read(":8080"), Ok("0.0.0.0:8080".into()));
        assert_eq!(read("127.0.0.1:0"), Ok("127.0.0.1:0".into()));
        assert_eq!(read("[::]:0"), Ok("[::]:0".into()));
        assert_eq!(read(":0"), Ok("0.0.0.0:0".into()));
    }

    #[test]
    fn loopback_is_told_by_address_and_by_name() {
        let loopback = |text| HostPort::parse(text, 1).expect("valid").is_loopback();
        assert!(loopback("127.8.0.1") && loopback("[::1]") && loopback("localhost"));
        assert!(!loopback("0.0.0.0") && !loopback("knot1.internal"));
        assert!(HostPort::parse("0.0.0.0", 1).expect("valid").is_unspecified());
    }

    #[test]
    fn the_first_address_can_be_bound() {
        UdpSocket::bind((first_address(), 0)).expect("it belongs to this machine");
    }
}
