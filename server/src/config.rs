//! `knot.toml`: what a server is told before it starts.
//!
//! The core is pure: text and variables in, a checked [`Config`] out, so nothing here depends on the process it runs in
//! except [`Config::load`]. Every complaint names the file, the line and the key, or the variable. Variables win over
//! the file.

mod address;
mod endpoint;
mod error;
mod keys;
mod nearest;
mod settings;
mod value;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use knot_engine::documents::{ZONE_BYTES_MAX, is_label};
use knot_engine::membership::ADDRESSES_MAX;

pub use self::address::{CLUSTER_PORT, HTTP_PORT, HostPort, first_address};
pub use self::endpoint::{Endpoint, WebSocketUrl};
pub use self::error::ConfigError;
pub(crate) use self::error::Excerpt;
pub use self::keys::{ChangedKeys, KeyChange, KeyChangeError, change_keys};
pub(crate) use self::nearest::nearest;
pub use self::settings::{SETTINGS, Setting};
pub use self::value::parse_duration;
pub use knot_engine::seal::{ClusterKey, KeyRing};

use self::settings::{Raw, Settings, is_set};
use crate::accounts::PasswordCost;
use crate::spaces::Sockets;

/// The name of the file that is looked for.
pub const FILE_NAME: &str = "knot.toml";
/// How long a failed member is remembered unless told otherwise (serf's `reconnect_timeout`).
pub const FAILED_RETENTION: Duration = Duration::from_secs(72 * 3600);
/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
const NAME_BYTES_MAX: usize = 128;
/// Keys that a server may hold at once.
const KEYS_MAX: usize = 8;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the HTTP API listens.
    pub listen: HostPort,
    /// How browsers and other servers' clients reach that API, if it was said.
    pub url: Option<String>,
    /// The zone this server is in.
    pub zone: String,
    /// What this server is called.
    pub name: String,
    /// Where everything it keeps is.
    pub data_dir: PathBuf,
    /// How it logs.
    pub log: LogFormat,
    /// TLS of the HTTP API; `None` is plain HTTP.
    pub tls: Option<TlsConfig>,
    /// `None` is a server on its own.
    pub cluster: Option<ClusterConfig>,
    /// What passwords cost to check.
    pub password_cost: PasswordCost,
    /// Whether users may have tokens kept, sealed with their passwords, to see them again.
    pub reveal_tokens: bool,
    /// Reverse proxies whose word counts on where a request comes from.
    pub trusted_proxies: Vec<IpNet>,
    /// Where a runtime for spaces is looked for.
    pub spaces: Sockets,
}

/// What a log line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Where the HTTP API's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsConfig {
    /// Made at first start in the data folder.
    SelfSigned,
    /// Named files, PEM.
    Files {
        /// The chain, own certificate first.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// What makes a server part of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The cluster's name; with the key, what its identity is derived from.
    pub name: String,
    /// The addresses that others use, best first; none is the first non-loopback one, found at start.
    pub advertise_addr: Vec<Endpoint>,
    /// Where TCP and UDP are bound; `None` where others come by WebSocket alone.
    pub bind_addr: Option<HostPort>,
    /// The shared keys: the first is the one to begin with, any is taken from others.
    pub keys: KeyRing,
    /// Servers to ask at start and while alone.
    pub peers: Vec<Endpoint>,
    /// Whom to take at `wss://` addresses for who is meant.
    pub trust: Trust,
    /// Whether frames are compressed where that helps.
    pub compression: bool,
    /// How long a failed member is remembered and retried.
    pub failed_retention: Duration,
    /// Whether leaves may connect.
    pub allow_leaf_nodes: bool,
}

/// Which certificates prove that a WebSocket leads to the server that was meant. What goes through it is sealed
/// between the two servers in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// An authority to trust besides the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// Where there are any, the only certificates to trust, by whomever they are signed: SHA-256, as
    /// [`Identity::fingerprint`](crate::tls::Identity::fingerprint) writes it.
    pub pins: Vec<String>,
    /// Whether any certificate will do.
    pub skip_verify: bool,
}

/// A configuration with where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What to run with.
    pub config: Config,
    /// The file that was read, if any.
    pub source: Option<PathBuf>,
    /// What is accepted but probably not meant, for the log.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the file given, else the first `knot.toml` found in `.`, `~`, `~/.config/knot` and `/etc/knot`, else
    /// nothing, and the process's `KNOT_*` variables over it.
    ///
    /// # Errors
    /// When the file given cannot be read, or anything in it or in the variables is not understood.
    pub fn load(file: Option<&Path>) -> Result<Loaded, ConfigError> {
        let variables = variables();
        let home = variables.get("HOME").map(PathBuf::from);
        let file = match file {
            Some(file) => Some(file.to_owned()),
            None => variables.get("KNOT_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from),
        };
        let source = file.or_else(|| candidates(home.as_deref()).into_iter().find(|p| p.is_file()));
        let text = source.as_deref().map(read).transpose()?;
        let given = source.as_deref().zip(text.as_deref());
        Self::parse(given, &variables, &host_name())
    }

    /// The pure core of [`Config::load`]: a file's path and text, variables (`HOME` expands `~/`), and the name that
    /// stands for an absent zone and name.
    ///
    /// # Errors
    /// When anything in the text or in the variables is not understood.
    pub fn parse(
        file: Option<(&Path, &str)>,
        variables: &BTreeMap<String, String>,
        host: &str,
    ) -> Result<Loaded, ConfigError> {
        let mut warnings = Vec::new();
        let settings = Settings::gather(file, variables, &mut warnings)?;
        let home = variables.get("HOME").map(PathBuf::from);
        let config = build(&settings, home.as_deref(), host, &mut warnings)?;
        Ok(Loaded { config, source: file.map(|(path, _)| path.to_owned()), warnings })
    }

    /// The URL that the HTTP API answers at: the one configured, else one made of the listen address, where an
    /// unspecified address becomes `host`.
    #[must_use]
    pub fn url_at(&self, host: &str) -> String {
        if let Some(url) = &self.url {
            return url.clone();
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let at =
            if self.listen.is_unspecified() { HostPort::new(host, self.listen.port()) } else { self.listen.clone() };
        format!("{scheme}://{at}")
    }
}

/// The process's variables that say something about a configuration.
fn variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("KNOT_") || name == "HOME")
        .collect()
}

/// Where a `knot.toml` is looked for, in this order.
#[must_use]
pub fn candidates(home: Option<&Path>) -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from(".")];
    if let Some(home) = home {
        folders.push(home.to_owned());
        folders.push(home.join(".config/knot"));
    }
    folders.push(PathBuf::from("/etc/knot"));
    folders.iter().map(|folder| folder.join(FILE_NAME)).collect()
}

/// This machine's name, made fit for a zone's: characters a zone may not have become `-`.
#[must_use]
pub fn host_name() -> String {
    let uname = rustix::system::uname();
    let name: String = uname
        .nodename()
        .to_string_lossy()
        .chars()
        .take(ZONE_BYTES_MAX)
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes_max: FILE_BYTES_MAX });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn build(
    settings: &Settings<'_>,
    home: Option<&Path>,
    host: &str,
    warnings: &mut Vec<String>,
) -> Result<Config, ConfigError> {
    let listen = match settings.get("server.listen") {
        Some(raw) => raw.check(|text| HostPort::parse_local(text, HTTP_PORT))?,
        None => HostPort::new("127.0.0.1", HTTP_PORT),
    };
    let label = |path: &str, what: &str| match settings.get(path) {
        Some(raw) => raw.check(|text| {
            is_label(text, ZONE_BYTES_MAX)
                .then(|| text.to_owned())
                .ok_or_else(|| format!("a {what} is 1 to {ZONE_BYTES_MAX} letters, digits, `.`, `_` or `-`"))
        }),
        None => Ok(host.to_owned()),
    };
    let path = |path: &str| settings.get(path).map(|raw| raw.check(|text| file_path(text, home))).transpose();
    Ok(Config {
        tls: tls(settings, &listen, path("server.tls.cert_file")?, path("server.tls.key_file")?, warnings)?,
        cluster: cluster(settings, &listen, path("server.cluster.tls.ca_file")?, warnings)?,
        url: settings.get("server.url").map(|raw| raw.check(web_url)).transpose()?,
        zone: label("server.zone", "zone")?,
        name: match settings.get("server.name") {
            Some(raw) => raw.check(node_name)?,
            None => host.to_owned(),
        },
        data_dir: path("server.data_dir")?.unwrap_or_else(|| PathBuf::from("knot-data")),
        log: match settings.get("server.log") {
            Some(raw) => raw.check(log_format)?,
            None => LogFormat::default(),
        },
        password_cost: password_cost(settings)?,
        reveal_tokens: settings.get("server.accounts.reveal_tokens").map_or(Ok(false), |raw| raw.flag())?,
        trusted_proxies: match settings.get("server.trusted_proxies") {
            Some(raw) => raw.check_each(network)?,
            None => Vec::new(),
        },
        spaces: match settings.get("server.spaces.runtime") {
            Some(raw) => raw.check(sockets)?,
            None => Sockets::Usual,
        },
        listen,
    })
}

fn password_cost(settings: &Settings<'_>) -> Result<PasswordCost, ConfigError> {
    let defaults = PasswordCost::default();
    let number = |path: &str, bounds, default| settings.get(path).map_or(Ok(default), |raw| raw.number(bounds));
    let memory = PasswordCost::MEMORY_KIB_MIN..=PasswordCost::MEMORY_KIB_MAX;
    Ok(PasswordCost {
        memory_kib: number("server.accounts.argon2_memory_kib", memory, defaults.memory_kib)?,
        passes: number("server.accounts.argon2_passes", 1..=PasswordCost::PASSES_MAX, defaults.passes)?,
    })
}

fn sockets(text: &str) -> Result<Sockets, String> {
    match text.strip_prefix("unix://").unwrap_or(text) {
        "auto" => Ok(Sockets::Usual),
        "none" => Ok(Sockets::None),
        path if path.starts_with('/') => Ok(Sockets::At(PathBuf::from(path))),
        _ => Err(format!("`{text}` is not \"auto\", \"none\" or the path of a socket such as /run/podman/podman.sock")),
    }
}

/// An address, or a network such as `10.0.0.0/8`.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse()
        .ok()
        .or_else(address)
        .ok_or_else(|| format!("`{text}` is not an address or a network such as 10.0.0.0/8"))
}

fn tls(
    settings: &Settings<'_>,
    listen: &HostPort,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    warnings: &mut Vec<String>,
) -> Result<Option<TlsConfig>, ConfigError> {
    let wanted = settings.get("server.tls.use_tls").map(Raw::flag).transpose()?;
    let named = match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsConfig::Files { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            return Err(settings.incomplete("server.tls.cert_file", "needs `key_file` beside it"));
        }
        (None, Some(_)) => {
            return Err(settings.incomplete("server.tls.key_file", "needs `cert_file` beside it"));
        }
    };
    if !wanted.unwrap_or(!listen.is_loopback()) {
        if named.is_some() && wanted.is_none() {
            warnings.push(format!(
                "a certificate is named but {listen} is a loopback address, where TLS is off unless `use_tls = true`"
            ));
        }
        return Ok(None);
    }
    Ok(Some(named.unwrap_or(TlsConfig::SelfSigned)))
}

fn cluster(
    settings: &Settings<'_>,
    listen: &HostPort,
    ca_file: Option<PathBuf>,
    warnings: &mut Vec<String>,
) -> Result<Option<ClusterConfig>, ConfigError> {
    let Some(keys) = cluster_keys(settings)? else {
        for asked in ["server.cluster.peers", "server.cluster.bind_addr", "server.cluster.advertise_addr"] {
            if is_set(settings.get(asked)) {
                return Err(settings.incomplete(
                    asked,
                    "needs the cluster's `key` in [server.cluster]: make one with `knot genkey` and give every server the same",
                ));
            }
        }
        return Ok(None);
    };
    let flag = |path: &str| settings.get(path).map(Raw::flag).transpose();
    let each = |path: &str| settings.get(path).map_or(Ok(Vec::new()), |raw| raw.check_each(str::parse::<Endpoint>));
    let advertise_addr = each("server.cluster.advertise_addr")?;
    if advertise_addr.len() > ADDRESSES_MAX {
        return Err(
            settings.incomplete("server.cluster.advertise_addr", &format!("names more than {ADDRESSES_MAX} addresses"))
        );
    }
    if listen.is_loopback()
        && let Some(url) = advertise_addr.iter().find(|endpoint| endpoint.websocket().is_some())
    {
        warnings.push(format!(
            "others are told to come to {url} but the API listens at {listen} alone, where only what runs on this machine, such as a proxy, can pass them on; otherwise set `listen` in [server]"
        ));
    }
    let is_direct = advertise_addr.is_empty() || advertise_addr.iter().any(|endpoint| endpoint.websocket().is_none());
    let pins = settings.get("server.cluster.tls.pins").map_or(Ok(Vec::new()), |raw| raw.check_each(pin))?;
    let skip_verify = flag("server.cluster.tls.skip_verify")?.unwrap_or(false);
    if skip_verify && (ca_file.is_some() || !pins.is_empty()) {
        return Err(settings.incomplete(
            "server.cluster.tls.skip_verify",
            "stands beside `ca_file` or `pins`, which it would make void: remove one or the other",
        ));
    }
    Ok(Some(ClusterConfig {
        name: match settings.get("server.cluster.name") {
            Some(raw) => raw.check(node_name)?,
            None => "knot".to_owned(),
        },
        bind_addr: match settings.get("server.cluster.bind_addr") {
            Some(raw) => Some(raw.check(|text| HostPort::parse_local(text, CLUSTER_PORT))?),
            None => is_direct.then(|| HostPort::new("0.0.0.0", CLUSTER_PORT)),
        },
        advertise_addr,
        keys,
        peers: each("server.cluster.peers")?,
        trust: Trust { ca_file, pins, skip_verify },
        compression: flag("server.cluster.compression")?.unwrap_or(true),
        failed_retention: match settings.get("server.cluster.failed_retention") {
            Some(raw) => raw.check(parse_duration)?,
            None => FAILED_RETENTION,
        },
        allow_leaf_nodes: flag("server.cluster.allow_leaf_nodes")?.unwrap_or(true),
    }))
}

/// A certificate's fingerprint, with colons or without.
fn pin(text: &str) -> Result<String, String> {
    let digits: Vec<char> = text.chars().filter(|c| *c != ':').map(|c| c.to_ascii_uppercase()).collect();
    if digits.len() != 64 || !digits.iter().all(char::is_ascii_hexdigit) {
        return Err(format!(
            "`{text}` is not a certificate's SHA-256: 64 hexadecimal digits, which a server logs as `fingerprint` at its start"
        ));
    }
    Ok(digits.chunks(2).map(|byte| byte.iter().collect::<String>()).collect::<Vec<_>>().join(":"))
}

/// The cluster's `key`, or its `keys` while one takes the other's place.
fn cluster_keys(settings: &Settings<'_>) -> Result<Option<KeyRing>, ConfigError> {
    let parse = |text: &str| ClusterKey::new(text).map_err(|error| error.to_string());
    let several = match (settings.get("server.cluster.key"), settings.get("server.cluster.keys")) {
        (None, None) => return Ok(None),
        (None, Some(several)) => several,
        (Some(_), several) if is_set(several) => {
            return Err(settings.incomplete(
                "server.cluster.keys",
                "stands beside `key`, and one of them has to go: `keys` holds both while one replaces the other",
            ));
        }
        (Some(one), _) => return one.check(parse).map(|key| Some(key.into())),
    };
    let mut keys = several.check_each(parse)?.into_iter();
    let Some(first) = keys.next() else {
        return Err(settings.incomplete("server.cluster.keys", "is empty; `knot genkey` prints a key"));
    };
    if keys.len() >= KEYS_MAX {
        return Err(settings.incomplete("server.cluster.keys", &format!("holds more than {KEYS_MAX} keys")));
    }
    Ok(Some(KeyRing::new(first, keys)))
}

fn file_path(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    match (text.strip_prefix("~/"), home) {
        _ if text.is_empty() => Err("is empty where a path is expected".to_owned()),
        (Some(rest), Some(home)) => Ok(home.join(rest)),
        (Some(_), None) => Err("`~` needs the HOME variable".to_owned()),
        (None, _) => Ok(PathBuf::from(text)),
    }
}

fn web_url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.starts_with('/') => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err(format!("`{text}` is not a URL such as `https://knot1.internal:3000`")),
    }
}

fn node_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("a name is 1 to {NAME_BYTES_MAX} bytes of text without control characters"));
    }
    Ok(text.to_owned())
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("`{text}` is not a log format: \"text\" or \"json\"")),
    }
}

#[cfg(test)]
mod tests;
