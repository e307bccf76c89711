//! Which settings exist, and what the file and the variables say of each, with the place it was said at.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Excerpt};
use super::nearest::nearest;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its dotted path in the file.
    pub path: &'static str,
    /// The variable that overrides it.
    pub variable: &'static str,
    /// One line for people.
    pub help: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Flag,
    List,
    /// One text, or a list of them.
    Texts,
    /// A whole number.
    Number,
}

macro_rules! settings {
    ($($path:literal $variable:literal $kind:ident $help:literal),+ $(,)?) => {
        &[$(Setting { path: $path, variable: $variable, help: $help, kind: Kind::$kind }),+]
    };
}

/// Every setting there is.
pub const SETTINGS: &[Setting] = settings![
    "server.listen" "KNOT_LISTEN" Text "where the HTTP API listens (127.0.0.1:3000)",
    "server.url" "KNOT_URL" Text "the URL people reach it at",
    "server.zone" "KNOT_ZONE" Text "the zone this server is in (host name)",
    "server.name" "KNOT_NAME" Text "what this server is called (host name)",
    "server.data_dir" "KNOT_DATA_DIR" Text "where everything is kept (./knot-data)",
    "server.log" "KNOT_LOG" Text "\"text\" or \"json\"",
    "server.trusted_proxies" "KNOT_TRUSTED_PROXIES" List "reverse proxies whose X-Forwarded-For counts (none)",
    "server.accounts.argon2_memory_kib" "KNOT_ACCOUNTS_ARGON2_MEMORY_KIB" Number "memory a password's hash takes (47104)",
    "server.accounts.argon2_passes" "KNOT_ACCOUNTS_ARGON2_PASSES" Number "passes a password's hash takes (1)",
    "server.accounts.reveal_tokens" "KNOT_ACCOUNTS_REVEAL_TOKENS" Flag "tokens can be kept, to be shown again to who knows the password (false)",
    "server.spaces.runtime" "KNOT_SPACES_RUNTIME" Text "what runs spaces: \"auto\", \"none\" or a socket's path (auto)",
    "server.tls.cert_file" "KNOT_TLS_CERT_FILE" Text "certificate chain, PEM (self-signed)",
    "server.tls.key_file" "KNOT_TLS_KEY_FILE" Text "its private key, PEM",
    "server.tls.use_tls" "KNOT_TLS_USE_TLS" Flag "TLS on the HTTP API (true, false on loopback)",
    "server.cluster.name" "KNOT_CLUSTER_NAME" Text "the cluster's name (knot)",
    "server.cluster.advertise_addr" "KNOT_CLUSTER_ADVERTISE_ADDR" Texts "the address other servers use, or several",
    "server.cluster.bind_addr" "KNOT_CLUSTER_BIND_ADDR" Text "where TCP and UDP are bound (0.0.0.0:3100)",
    "server.cluster.key" "KNOT_CLUSTER_KEY" Text "the shared key, from `knot genkey`",
    "server.cluster.keys" "KNOT_CLUSTER_KEYS" List "in place of key while one replaces another",
    "server.cluster.peers" "KNOT_CLUSTER_PEERS" List "servers to find the cluster by, comma-separated",
    "server.cluster.compression" "KNOT_CLUSTER_COMPRESSION" Flag "compress between servers (true)",
    "server.cluster.failed_retention" "KNOT_CLUSTER_FAILED_RETENTION" Text "how long failed servers are kept (72h)",
    "server.cluster.allow_leaf_nodes" "KNOT_CLUSTER_ALLOW_LEAF_NODES" Flag "accept leaves (true)",
    "server.cluster.tls.ca_file" "KNOT_CLUSTER_TLS_CA_FILE" Text "authorities to trust at wss:// addresses, PEM",
    "server.cluster.tls.pins" "KNOT_CLUSTER_TLS_PINS" List "SHA-256 of the only certificates to trust there",
    "server.cluster.tls.skip_verify" "KNOT_CLUSTER_TLS_SKIP_VERIFY" Flag "trust any certificate there (false)",
];

/// Variables of the command line, which are no settings of a server.
const OTHER_VARIABLES: &[&str] = &["KNOT_CONFIG", "KNOT_SERVER", "KNOT_TOKEN", "KNOT_CACERT", "KNOT_LOG_FILTER"];

/// Where a value was given.
#[derive(Clone, Debug)]
pub(super) enum Place<'a> {
    File { path: &'a Path, text: &'a str, span: Range<usize> },
    Variable(&'static str),
}

impl Place<'_> {
    pub(super) fn refuse(&self, setting: &str, message: &str, hint: Option<String>) -> ConfigError {
        match self {
            Self::File { path, text, span } => ConfigError::File {
                excerpt: Box::new(Excerpt::new(path, text, span.clone(), format!("`{setting}`: {message}"), hint)),
            },
            Self::Variable(name) => ConfigError::Variable { name, message: message.to_owned() },
        }
    }

    fn at(&self, span: Range<usize>) -> Self {
        match self {
            Self::File { path, text, .. } => Self::File { path, text, span },
            Self::Variable(name) => Self::Variable(name),
        }
    }
}

/// A value of the right type, not yet checked further.
#[derive(Clone, Debug)]
pub(super) struct Raw<'a> {
    setting: &'static Setting,
    place: Place<'a>,
    value: Value<'a>,
}

#[derive(Clone, Debug)]
enum Value<'a> {
    Text(Cow<'a, str>),
    Flag(bool),
    List(Vec<(Cow<'a, str>, Place<'a>)>),
    Number(i64),
}

impl Raw<'_> {
    /// Parses a text.
    pub(super) fn check<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        match &self.value {
            Value::Text(text) => parse(text).map_err(|message| self.place.refuse(self.name(), &message, None)),
            Value::Flag(_) | Value::List(_) | Value::Number(_) => Err(self.mistyped()),
        }
    }

    /// Parses each text of a list.
    pub(super) fn check_each<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, ConfigError> {
        match &self.value {
            Value::List(items) => items
                .iter()
                .map(|(text, place)| parse(text).map_err(|message| place.refuse(self.name(), &message, None)))
                .collect(),
            Value::Text(_) | Value::Flag(_) | Value::Number(_) => Err(self.mistyped()),
        }
    }

    /// The flag.
    pub(super) fn flag(&self) -> Result<bool, ConfigError> {
        match self.value {
            Value::Flag(flag) => Ok(flag),
            Value::Text(_) | Value::List(_) | Value::Number(_) => Err(self.mistyped()),
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, bounds: RangeInclusive<u32>) -> Result<u32, ConfigError> {
        let Value::Number(number) = self.value else { return Err(self.mistyped()) };
        let number = u32::try_from(number).ok().filter(|number| bounds.contains(number));
        let wrong = || format!("must be {} to {}", bounds.start(), bounds.end());
        number.ok_or_else(|| self.place.refuse(self.name(), &wrong(), None))
    }

    fn name(&self) -> &'static str {
        self.setting.path.rsplit('.').next().unwrap_or(self.setting.path)
    }

    fn mistyped(&self) -> ConfigError {
        self.place.refuse(self.name(), self.setting.kind.expected(), None)
    }
}

impl Kind {
    fn expected(self) -> &'static str {
        match self {
            Self::Text => "must be a string",
            Self::Flag => "must be true or false",
            Self::List => "must be a list of strings",
            Self::Texts => "must be a string or a list of strings",
            Self::Number => "must be a whole number",
        }
    }
}

/// Whether a setting says anything: an empty list does not.
pub(super) fn is_set(raw: Option<&Raw<'_>>) -> bool {
    raw.is_some_and(|raw| !matches!(&raw.value, Value::List(items) if items.is_empty()))
}

/// Everything that was said, by setting; a variable has replaced what the file says.
#[derive(Debug, Default)]
pub(super) struct Settings<'a> {
    given: BTreeMap<&'static str, Raw<'a>>,
}

impl<'a> Settings<'a> {
    pub(super) fn gather(
        file: Option<(&'a Path, &'a str)>,
        variables: &'a BTreeMap<String, String>,
        warnings: &mut Vec<String>,
    ) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        if let Some((path, text)) = file {
            let whole = Place::File { path, text, span: 0..0 };
            let table = DeTable::parse(text).map_err(|error| ConfigError::File {
                excerpt: Box::new(Excerpt::new(
                    path,
                    text,
                    error.span().unwrap_or(0..0),
                    error.message().to_owned(),
                    None,
                )),
            })?;
            settings.read_table("", table.get_ref(), &whole)?;
        }
        settings.read_variables(variables, warnings)?;
        Ok(settings)
    }

    pub(super) fn get(&self, path: &str) -> Option<&Raw<'a>> {
        debug_assert!(SETTINGS.iter().any(|setting| setting.path == path), "{path} is no setting");
        self.given.get(path)
    }

    /// The error of a setting that needs another beside it.
    pub(super) fn incomplete(&self, path: &str, message: &str) -> ConfigError {
        match self.given.get(path) {
            Some(raw) => raw.place.refuse(raw.name(), message, None),
            None => Place::Variable("KNOT_*").refuse(path, message, None),
        }
    }

    fn read_table(&mut self, prefix: &str, table: &DeTable<'_>, whole: &Place<'a>) -> Result<(), ConfigError> {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            let place = whole.at(key.span());
            if path == "server.origin" {
                return Err(place.refuse(
                    "server.origin",
                    "leaves do not exist yet in this version",
                    Some("remove [server.origin] to run a server of its own".to_owned()),
                ));
            }
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.path == path) {
                self.read_value(setting, value, whole)?;
            } else if is_section(&path) {
                let Some(table) = value.get_ref().as_table() else {
                    return Err(place.refuse(name, "must be a table", Some(format!("write [{path}]"))));
                };
                self.read_table(&path, table, whole)?;
            } else {
                return Err(unknown(prefix, name, &place));
            }
        }
        Ok(())
    }

    fn read_value(
        &mut self,
        setting: &'static Setting,
        value: &Spanned<DeValue<'_>>,
        whole: &Place<'a>,
    ) -> Result<(), ConfigError> {
        let place = whole.at(value.span());
        let name = setting.path.rsplit('.').next().unwrap_or(setting.path);
        let mistyped = |at: &Spanned<DeValue<'_>>| {
            let found = format!("{}, found {}", setting.kind.expected(), with_article(at.get_ref().type_str()));
            whole.at(at.span()).refuse(name, &found, None)
        };
        let text = |at: &Spanned<DeValue<'_>>| {
            at.get_ref().as_str().map(|text| Cow::Owned(text.to_owned())).ok_or_else(|| mistyped(at))
        };
        let value = match setting.kind {
            Kind::Text => Value::Text(text(value)?),
            Kind::Flag => Value::Flag(value.get_ref().as_bool().ok_or_else(|| mistyped(value))?),
            Kind::Number => {
                let number = value.get_ref().as_integer().ok_or_else(|| mistyped(value))?;
                Value::Number(i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| mistyped(value))?)
            }
            Kind::Texts if value.get_ref().as_str().is_some() => Value::List(vec![(text(value)?, place.clone())]),
            Kind::List | Kind::Texts => {
                let items = value.get_ref().as_array().ok_or_else(|| mistyped(value))?;
                let item = |at: &Spanned<DeValue<'_>>| Ok((text(at)?, whole.at(at.span())));
                Value::List(items.iter().map(item).collect::<Result<_, ConfigError>>()?)
            }
        };
        self.given.insert(setting.path, Raw { setting, place, value });
        Ok(())
    }

    fn read_variables(
        &mut self,
        variables: &'a BTreeMap<String, String>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ConfigError> {
        for (name, value) in variables.iter().filter(|(name, _)| name.starts_with("KNOT_")) {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.variable == name) else {
                let known = SETTINGS.iter().map(|setting| setting.variable).chain(OTHER_VARIABLES.iter().copied());
                if !OTHER_VARIABLES.contains(&name.as_str())
                    && let Some(near) = nearest(name, known)
                {
                    warnings.push(format!("variable {name} means nothing to knot: did you mean {near}?"));
                }
                continue;
            };
            let place = Place::Variable(setting.variable);
            let value = match setting.kind {
                Kind::Text => Value::Text(Cow::Borrowed(value)),
                Kind::Number => {
                    Value::Number(value.parse().map_err(|_| place.refuse(name, setting.kind.expected(), None))?)
                }
                Kind::Flag => Value::Flag(match value.as_str() {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err(place.refuse(name, setting.kind.expected(), None)),
                }),
                Kind::List | Kind::Texts => Value::List(
                    value
                        .split(',')
                        .map(str::trim)
                        .filter(|item| !item.is_empty())
                        .map(|item| (Cow::Borrowed(item), place.clone()))
                        .collect(),
                ),
            };
            self.given.insert(setting.path, Raw { setting, place, value });
        }
        Ok(())
    }
}

fn is_section(path: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

fn unknown(prefix: &str, name: &str, place: &Place<'_>) -> ConfigError {
    let inside = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
    let siblings = SETTINGS
        .iter()
        .map(|setting| setting.path)
        .chain(["server.origin"])
        .filter_map(|path| path.strip_prefix(inside.as_str()))
        .filter_map(|rest| rest.split('.').next());
    let section = if prefix.is_empty() { "at the top".to_owned() } else { format!("in [{prefix}]") };
    let hint = match nearest(name, siblings) {
        Some(near) => format!("did you mean `{near}`?"),
        None => match SETTINGS.iter().find(|setting| setting.path.rsplit('.').next() == Some(name)) {
            Some(elsewhere) => format!("did you mean `{}`?", elsewhere.path),
            None => format!("see `knot server --help` for every key there is {section}"),
        },
    };
    place.refuse(name, &format!("unknown key {section}"), Some(hint))
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}
