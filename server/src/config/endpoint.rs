//! Where another server takes streams: straight, or inside a WebSocket inside TLS.

use std::fmt;
use std::str::FromStr;

use knot_engine::Address;

use super::address::{CLUSTER_PORT, HostPort};

/// The port of a URL that names none (RFC 6455, section 3).
const TLS_PORT: u16 = 443;
/// Longest path that may stand before knot's own, in bytes: an address is told to every member.
const PREFIX_BYTES_MAX: usize = 128;

/// How a server is reached by others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// Over TCP, and over UDP at the same port.
    Direct(HostPort),
    /// Over a WebSocket inside TLS, which passes where only HTTPS does. No datagrams go there.
    WebSocket(WebSocketUrl),
}

/// Where a server answers WebSockets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WebSocketUrl {
    /// Whom to connect to, and whom its certificate has to name.
    pub host: HostPort,
    /// What a proxy in between wants before the server's own paths: empty, or `/` and what follows it, without a `/` at
    /// its end.
    pub prefix: String,
}

impl Endpoint {
    /// The host and the port.
    #[must_use]
    pub fn host(&self) -> &HostPort {
        match self {
            Self::Direct(host) => host,
            Self::WebSocket(url) => &url.host,
        }
    }

    /// Where it is inside TLS.
    #[must_use]
    pub fn websocket(&self) -> Option<&WebSocketUrl> {
        match self {
            Self::Direct(_) => None,
            Self::WebSocket(url) => Some(url),
        }
    }
}

/// Reads `host:port` and what else [`HostPort::parse`] does, `wss://host[:port][/prefix]`, or the same as `https://`.
impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return HostPort::parse(text, CLUSTER_PORT).map(Self::Direct);
        };
        match scheme {
            "wss" | "https" => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let prefix = path.trim_end_matches('/');
                if prefix.len() > PREFIX_BYTES_MAX || !prefix.bytes().all(is_path) {
                    return Err(format!(
                        "`{text}` has a path that is no plain one of at most {PREFIX_BYTES_MAX} bytes, such as `/knot`"
                    ));
                }
                let host = HostPort::parse(authority, TLS_PORT)
                    .map_err(|_| format!("`{text}` is not an address such as `wss://knot1.internal`"))?;
                Ok(Self::WebSocket(WebSocketUrl { host, prefix: prefix.to_owned() }))
            }
            "ws" | "http" => Err(format!("`{scheme}://` is not encrypted: write `wss://{rest}`")),
            _ => Err(format!(
                "`{text}` is not an address such as `knot1.internal:{CLUSTER_PORT}` or `wss://knot1.internal`"
            )),
        }
    }
}

/// As every server writes it, so that the same place is the same text.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(host) => host.fmt(f),
            Self::WebSocket(url) => write!(f, "wss://{}{}", url.authority(), url.prefix),
        }
    }
}

impl From<&Endpoint> for Address {
    fn from(endpoint: &Endpoint) -> Self {
        Self::from(endpoint.to_string().as_str())
    }
}

impl WebSocketUrl {
    /// The host, and the port where it is not the usual one.
    #[must_use]
    pub fn authority(&self) -> String {
        let text = self.host.to_string();
        match text.strip_suffix(":443") {
            Some(host) => host.to_owned(),
            None => text,
        }
    }
}

fn is_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~' | b'%')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        text.parse().map(|endpoint: Endpoint| endpoint.to_string())
    }

    #[test]
    fn what_the_pages_show_is_read() {
        assert_eq!(read("knot1.internal:3100"), Ok("knot1.internal:3100".into()));
        assert_eq!(read("wss://knot1.internal/"), Ok("wss://knot1.internal".into()));
        assert_eq!(read("wss://knot1.internal"), Ok("wss://knot1.internal".into()));
    }

    #[test]
    fn one_place_is_one_text() {
        assert_eq!(read("https://knot1.internal:443/"), read("wss://knot1.internal"));
        assert_eq!(read("wss://gate.internal:8443/au/knot1/"), Ok("wss://gate.internal:8443/au/knot1".into()));
        assert_eq!(read("wss://[fd00::2]"), Ok("wss://[fd00::2]".into()));
        for text in ["wss://a", "wss://a:44300", "wss://[::1]:443/x", "a:1"] {
            let once = read(text).unwrap();
            assert_eq!(read(&once), Ok(once));
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused_with_what_would() {
        assert!(read("ws://knot1.internal").is_err_and(|e| e.contains("write `wss://knot1.internal`")));
        assert!(read("http://knot1.internal/a").is_err_and(|e| e.contains("write `wss://knot1.internal/a`")));
        assert!(read("udp://knot1.internal").is_err_and(|e| e.contains("`wss://knot1.internal`")));
        for wrong in ["wss://", "wss:///a", "wss://a b", "wss://a/?b", "wss://u@a", "wss://a:0", "wss://a/ü"] {
            assert!(read(wrong).is_err(), "{wrong} was read");
        }
        assert!(read(&format!("wss://a/{}", "b".repeat(PREFIX_BYTES_MAX))).is_err());
    }
}
