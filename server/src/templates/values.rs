//! What stands behind the keys of a job: how each value is written, and what it means.

use std::net::IpAddr;

/// Least memory of a container, in bytes; below it Docker refuses.
const MEMORY_BYTES_MIN: i64 = 6 << 20;

pub(super) fn container_name(text: &str) -> Result<(), String> {
    let is_name = text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_name { Ok(()) } else { Err("is no name: use letters, digits, '.', '_' and '-'".to_owned()) }
}

pub(super) fn is_volume_name(text: &str) -> bool {
    text.len() >= 2 && container_name(text).is_ok()
}

pub(super) fn image(text: &str) -> Result<(), String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte));
    // It becomes part of a path that the runtime is asked for.
    if is_plain && !text.contains("..") && text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        Ok(())
    } else {
        Err("is no image: write `name:tag` or `registry.example/name:tag`".to_owned())
    }
}

pub(super) fn environment(text: &str) -> Result<(), String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() && !name.contains(char::is_whitespace) => Ok(()),
        _ => Err("is no variable: write `NAME=value`".to_owned()),
    }
}

pub(super) fn capability(text: &str) -> Result<(), String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_') {
        Ok(())
    } else {
        Err("is no capability: write it in capitals, as `CAP_NET_ADMIN`".to_owned())
    }
}

pub(super) fn address(text: &str) -> Result<(), String> {
    text.parse::<IpAddr>().map(drop).map_err(|_| "is no address: write it as `10.0.0.53`".to_owned())
}

pub(super) fn extra_host(text: &str) -> Result<(), String> {
    match text.split_once(':') {
        Some((name, to)) if !name.is_empty() && (to == "host-gateway" || to.parse::<IpAddr>().is_ok()) => Ok(()),
        _ => Err("is no host: write `name:10.0.0.5`".to_owned()),
    }
}

/// A port of the server that leads to one of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// On the server.
    pub host: u16,
    /// In the container.
    pub container: u16,
    /// Of both.
    pub protocol: Protocol,
}

/// What a port takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Reads `8080:80` or `5353:53/udp`.
pub(crate) fn port_mapping(text: &str) -> Result<PortMapping, String> {
    let wrong = || "is no port: write `host:container`, as `8080:80` or `5353:53/udp`".to_owned();
    let (ports, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some(_) => return Err(wrong()),
    };
    let (host, container) = ports.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong);
    Ok(PortMapping { host: number(host)?, container: number(container)?, protocol })
}

/// What a container sees of a volume or a folder of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// A volume's name, or a path on the server.
    pub source: String,
    /// Where it is in the container.
    pub target: String,
    /// As the runtime takes them: `ro`.
    pub options: Option<String>,
}

/// Reads `name:/path`, `/path:/path` or either with `:ro`.
pub(crate) fn bind(text: &str) -> Result<Bind, String> {
    let wrong =
        || "is no volume: write `name:/path` or `/path/on/the/server:/path`, with `:ro` to only read".to_owned();
    let mut parts = text.split(':');
    let (source, target, options) = (parts.next().unwrap_or_default(), parts.next().ok_or_else(wrong)?, parts.next());
    let known = ["ro", "rw", "z", "Z", "U", "nocopy", "private", "rprivate", "shared", "rshared", "slave", "rslave"];
    let is_source = source.starts_with('/') || is_volume_name(source);
    let are_options = options.is_none_or(|options| options.split(',').all(|option| known.contains(&option)));
    let climbs = |path: &str| path.split('/').any(|part| part == "..");
    if parts.next().is_some()
        || !is_source
        || !target.starts_with('/')
        || !are_options
        || climbs(source)
        || climbs(target)
    {
        return Err(wrong());
    }
    Ok(Bind { source: source.to_owned(), target: target.to_owned(), options: options.map(str::to_owned) })
}

/// A device of the server inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// On the server.
    pub host: String,
    /// In the container.
    pub container: String,
}

/// Reads `/dev/a:/dev/b`.
pub(crate) fn device(text: &str) -> Result<Device, String> {
    match text.split_once(':') {
        Some((host, container)) if host.starts_with('/') && container.starts_with('/') && !container.contains(':') => {
            Ok(Device { host: host.to_owned(), container: container.to_owned() })
        }
        _ => Err("is no device: write `/dev/name:/dev/name`".to_owned()),
    }
}

/// Reads `512M`, `2G` or a number of bytes.
pub(crate) fn memory(text: &str) -> Result<i64, String> {
    let units = [("k", 10), ("K", 10), ("m", 20), ("M", 20), ("g", 30), ("G", 30)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let bytes = digits.parse::<i64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes
        .filter(|bytes| *bytes >= MEMORY_BYTES_MIN)
        .ok_or_else(|| "is no amount of memory: write it as `512M` or `2G`, 6M or more".to_owned())
}

/// Reads `1.5` as billionths of a core.
pub(crate) fn cpus(text: &str) -> Result<i64, String> {
    let wrong = || "is no number of cores: write it as `2` or `0.5`".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 9 || !(whole.bytes().chain(part.bytes())).all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let part: i64 = format!("{part:0<9}").parse().map_err(|_| wrong())?;
    let nano = whole.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(part)).ok_or_else(wrong)?;
    if nano > 0 { Ok(nano) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_lead_from_the_server_into_the_container() {
        let mapping = |host, container, protocol| Some(PortMapping { host, container, protocol });
        for (text, read) in [
            ("8080:80", mapping(8080, 80, Protocol::Tcp)),
            ("8080:80/tcp", mapping(8080, 80, Protocol::Tcp)),
            ("5353:53/udp", mapping(5353, 53, Protocol::Udp)),
            ("80", None),
            ("0:80", None),
            ("80:65536", None),
            ("80:80/sctp", None),
            ("127.0.0.1:80:80", None),
        ] {
            assert_eq!(port_mapping(text).ok(), read, "{text}");
        }
    }

    #[test]
    fn volumes_are_names_or_paths_and_never_climb() {
        for (text, is_read) in [
            ("home:/home", true),
            ("/srv/data:/data:ro", true),
            ("home:/home:rw,Z", true),
            ("home", false),
            ("home:data", false),
            ("./data:/data", false),
            ("~/data:/data", false),
            ("/srv/../etc:/data", false),
            ("home:/home:exec", false),
            ("home:/home:ro:more", false),
            (":/data", false),
            ("h:/data", false),
        ] {
            assert_eq!(bind(text).is_ok(), is_read, "{text}");
        }
        assert_eq!(bind("home:/home:ro").unwrap().options.as_deref(), Some("ro"));
    }

    #[test]
    fn amounts_are_read_exactly() {
        for (text, bytes) in [
            ("512M", Some(512 << 20)),
            ("2g", Some(2 << 30)),
            ("8388608", Some(8 << 20)),
            ("5M", None),
            ("1T", None),
            ("-1G", None),
            ("9223372036854775807G", None),
            ("", None),
        ] {
            assert_eq!(memory(text).ok(), bytes, "{text}");
        }
        for (text, nano) in [
            ("2", Some(2_000_000_000)),
            ("0.5", Some(500_000_000)),
            (".25", Some(250_000_000)),
            ("1.000000001", Some(1_000_000_001)),
            ("0", None),
            ("1.0000000001", None),
            ("-1", None),
            ("9999999999999", None),
            ("two", None),
        ] {
            assert_eq!(cpus(text).ok(), nano, "{text}");
        }
    }

    #[test]
    fn what_is_written_otherwise_is_refused() {
        for (rule, good, bad) in [
            (image as fn(&str) -> Result<(), String>, "r.example:5000/a/b:1@sha256:0a", "-a"),
            (image, "php", "php/../containers"),
            (environment, "A=", "=a"),
            (capability, "CAP_NET_ADMIN", "net_admin"),
            (address, "fd00::1", "dns.example"),
            (extra_host, "db:10.0.0.5", "db"),
            (container_name, "ann-web.1", "ann web"),
        ] {
            assert_eq!(rule(good), Ok(()));
            assert!(rule(bad).is_err(), "{bad}");
        }
        assert!(device("/dev/a:/dev/b").is_ok() && device("/dev/a").is_err());
    }
}
