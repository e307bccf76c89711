//! Asking a server over its HTTP API: which one, with which token, trusting whom.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode};
use rustls::CertificateError;
use serde_json::Value;

use super::Exit;
use super::connect::{Answer, Connection, Endpoint};
use super::login;
use super::output::printable;
use crate::api::BODY_BYTES_MAX;
use crate::api::path::encode;
use crate::config::{Config, ConfigError, HostPort, TlsConfig};
use crate::storage::{ADMIN_TOKEN_FILE, SecretError, read_admin_token};
use crate::tls::{CERT_FILE, TlsError};

/// How long an answer may take, besides what the request itself asks the server to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read, in bytes. The server's pages end at 4 MiB and one document more.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Which server to ask, and as whom.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Server")]
pub struct ClientArgs {
    /// The server's URL [default: this machine's, from the configuration]
    #[arg(long, env = "KNOT_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// The token [default: <data_dir>/admin.token]
    #[arg(long, env = "KNOT_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The data folder of this machine's server
    #[arg(long, value_name = "PATH")]
    pub data_dir: Option<PathBuf>,
    /// The configuration of this machine's server
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A certificate to trust, PEM, besides the system's and <data_dir>/cert.pem
    #[arg(long, env = "KNOT_CACERT", value_name = "FILE", value_parser = path_or_nothing())]
    pub cacert: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl ClientArgs {
    /// A variable that is set to nothing is as one that is not set.
    fn given(&self) -> Self {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Self {
            server: given(&self.server),
            token: given(&self.token),
            cacert: self.cacert.clone().filter(|path| !path.as_os_str().is_empty()),
            ..self.clone()
        }
    }
}

/// Takes an empty path too, as a variable may have.
fn path_or_nothing() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Why the server could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL is none, or names more than a server.
    #[error("`{0}` is not a server's URL such as http://127.0.0.1:3000")]
    BadUrl(String),
    /// Nothing answers.
    #[error("cannot reach {url}: {source}")]
    Unreachable {
        /// The server.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// The certificate does not prove that it is the server that was asked for.
    #[error("cannot trust {url}: {source}")]
    Untrusted {
        /// The server.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// What answers does not speak what the URL says.
    #[error("what answers at {url} does not speak {}", if url.starts_with("https:") { "TLS" } else { "HTTP" })]
    WrongScheme {
        /// The server.
        url: String,
    },
    /// The server answered with an error.
    #[error("{error}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// What it said.
        error: String,
        /// What it advises.
        hint: Option<String>,
    },
    /// The answer is not what a knot server says.
    #[error("{url} does not answer like a knot server: {what}")]
    Malformed {
        /// The server.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// A header's value cannot be sent.
    #[error("{0} holds characters that cannot be sent")]
    Unsendable(&'static str),
    /// A certificate to trust cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token's file cannot be read.
    #[error(transparent)]
    Token(#[from] SecretError),
    /// The configuration that names the server is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl ClientError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::BadUrl(_) | Self::Unsendable(_) | Self::Config(_) => Exit::Usage,
            Self::Unreachable { .. } | Self::Untrusted { .. } | Self::WrongScheme { .. } => Exit::Unreachable,
            Self::Malformed { .. } | Self::Tls(_) | Self::Token(_) => Exit::Failure,
            Self::Refused { status, .. } => match *status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Denied,
                StatusCode::NOT_FOUND | StatusCode::GONE => Exit::NotFound,
                StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Exit::Conflict,
                _ => Exit::Failure,
            },
        }
    }

    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => hint.clone(),
            Self::Unreachable { .. } => Some("is it running? start one with `knot server` or `knot demo`".to_owned()),
            Self::Untrusted { source, .. } => Some(
                match source.get_ref().and_then(|inner| inner.downcast_ref()) {
                    Some(rustls::Error::InvalidCertificate(
                        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                    )) => "ask by a name that the certificate is for, or set `url` there and remove its certificate",
                    _ => "name the server's certificate with --cacert <data_dir>/cert.pem",
                }
                .to_owned(),
            ),
            Self::WrongScheme { url } => Some(match url.split_once("://") {
                Some(("https", rest)) => format!("perhaps it is a server without TLS: try http://{rest}"),
                Some((_, rest)) => format!("perhaps it is a server with TLS: try https://{rest}"),
                None => return None,
            }),
            Self::BadUrl(_)
            | Self::Malformed { .. }
            | Self::Unsendable(_)
            | Self::Tls(_)
            | Self::Token(_)
            | Self::Config(_) => None,
        }
    }
}

/// A request in the making.
#[derive(Clone, Debug)]
pub struct Ask {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    wait: Duration,
}

impl Ask {
    /// A request without a body. `path` is percent-encoded already and may hold a query.
    #[must_use]
    pub fn new(method: Method, path: String) -> Self {
        Self { method, path, headers: HeaderMap::new(), body: Bytes::new(), wait: ANSWER_TIMEOUT }
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, kind: &'static str, body: impl Into<Bytes>) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        self.body = body.into();
        self
    }

    /// With a header, where there is a value for it.
    ///
    /// # Errors
    /// When the value holds characters that a header may not.
    pub fn header(mut self, name: &'static str, value: Option<&str>) -> Result<Self, ClientError> {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value).map_err(|_| ClientError::Unsendable(name))?;
            self.headers.insert(HeaderName::from_static(name), value);
        }
        Ok(self)
    }

    /// Lets the server take this much longer to answer.
    #[must_use]
    pub fn waiting(mut self, wait: Duration) -> Self {
        self.wait += wait;
        self
    }
}

/// A server's answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status, a success.
    pub status: StatusCode,
    /// The document's etag, without quotes.
    pub etag: Option<String>,
    /// The body; null where there is none.
    pub body: Value,
}

/// As whom to ask where no token is given.
#[derive(Clone, Copy, Debug)]
enum Whose {
    /// Who has logged in, else the machine.
    Login,
    Machine,
    Nobody,
}

/// A client of one server. Each request has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    token: Option<HeaderValue>,
    trusted: Vec<PathBuf>,
}

impl Client {
    /// A client of the server at `url`.
    ///
    /// # Errors
    /// When the URL is none, or the token cannot be sent.
    pub fn new(url: &str, token: Option<&str>, trusted: Vec<PathBuf>) -> Result<Self, ClientError> {
        let token = token
            .map(|token| HeaderValue::from_str(&format!("Bearer {token}")))
            .transpose()
            .map_err(|_| ClientError::Unsendable("the token"))?
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        Ok(Self { endpoint: Endpoint::parse(url)?, token, trusted })
    }

    /// The client that the arguments, the variables and the configuration describe.
    ///
    /// # Errors
    /// When the configuration is needed and wrong, or the token's file is unreadable.
    pub fn from_args(args: &ClientArgs) -> Result<Self, ClientError> {
        Self::of(args, Whose::Login)
    }

    /// The same, as the machine: with its own token, whoever is logged in.
    ///
    /// # Errors
    /// When the configuration is needed and wrong, or the token's file is unreadable.
    pub(super) fn of_machine(args: &ClientArgs) -> Result<Self, ClientError> {
        Self::of(args, Whose::Machine)
    }

    /// The same, as nobody.
    ///
    /// # Errors
    /// When the configuration is needed and wrong.
    pub(super) fn of_nobody(args: &ClientArgs) -> Result<Self, ClientError> {
        Self::of(args, Whose::Nobody)
    }

    fn of(args: &ClientArgs, whose: Whose) -> Result<Self, ClientError> {
        let args = &args.given();
        let local = Local::of(args)?;
        let url = match &args.server {
            Some(url) => url.clone(),
            None => local.url.clone(),
        };
        let endpoint = Endpoint::parse(&url)?;
        let mut trusted: Vec<PathBuf> = args.cacert.iter().cloned().collect();
        let own = local.data_dir.join(CERT_FILE);
        if endpoint.tls && own.is_file() {
            trusted.push(own);
        }
        let ours = may_have_our_token(args, &endpoint);
        let own = || if ours { read_admin_token(&local.data_dir) } else { Ok(None) };
        let token = match (&args.token, whose) {
            (_, Whose::Nobody) => None,
            (Some(token), _) => Some(token.trim().to_owned()),
            (None, Whose::Machine) => own()?,
            // A session is kept by server, so it goes to no other.
            (None, Whose::Login) => match login::kept(&endpoint.url) {
                Some(session) => Some(session),
                None => own()?,
            },
        };
        Self::new(&url, token.as_deref(), trusted)
    }

    /// The same client with another token.
    ///
    /// # Errors
    /// When the token cannot be sent.
    pub fn with_token(&self, token: &str) -> Result<Self, ClientError> {
        Self::new(&self.endpoint.url, Some(token), self.trusted.clone())
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.endpoint.url
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or answers what is no JSON.
    pub async fn ask(&self, ask: Ask) -> Result<Reply, ClientError> {
        let answer = self.send(ask).await?;
        let (status, etag) = (answer.head.status, etag(&answer.head.headers));
        let body = self.read(answer).await?;
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body).map_err(|error| self.malformed(format!("its answer is no JSON ({error})")))?
        };
        Ok(Reply { status, etag, body })
    }

    /// Asks for an answer that is read as it comes.
    pub(super) async fn send(&self, ask: Ask) -> Result<Answer, ClientError> {
        let mut request = Request::builder()
            .method(ask.method)
            .uri(ask.path)
            .body(Full::new(ask.body))
            .map_err(|_| ClientError::Unsendable("the path"))?;
        *request.headers_mut() = ask.headers;
        let host = HeaderValue::from_str(self.endpoint.authority());
        request.headers_mut().insert(HOST, host.map_err(|_| ClientError::Unsendable("the URL"))?);
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        let connection = Connection::open(&self.endpoint, &self.trusted).await?;
        let answer = connection.send(&self.endpoint, request, ask.wait).await?;
        if answer.head.status.is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
    }

    pub(super) fn malformed(&self, what: String) -> ClientError {
        ClientError::Malformed { url: self.endpoint.url.clone(), what }
    }

    async fn read(&self, answer: Answer) -> Result<Bytes, ClientError> {
        let reading = Limited::new(answer.body, ANSWER_BYTES_MAX).collect();
        match tokio::time::timeout(ANSWER_TIMEOUT, reading).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(self.malformed(format!("its answer broke off ({error})"))),
            Err(_) => Err(self.malformed("its answer does not end".to_owned())),
        }
    }

    async fn refusal(&self, answer: Answer) -> ClientError {
        let status = answer.head.status;
        let body = self.read(answer).await.unwrap_or_default();
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |name: &str| said.get(name).and_then(Value::as_str).map(printable);
        let hint = match status {
            StatusCode::UNAUTHORIZED if said.get("error") == Some(&Value::from("wrong name or password")) => {
                text("hint")
            }
            StatusCode::UNAUTHORIZED if self.token.is_none() => Some(format!(
                "give --token, log in with `knot login NAME`, or give --data-dir where {ADMIN_TOKEN_FILE} is"
            )),
            StatusCode::UNAUTHORIZED => Some(format!(
                "the token is not this server's, or the login is over: `knot login NAME` again, or `knot logout`; the machine's own is in {ADMIN_TOKEN_FILE} in its data folder"
            )),
            StatusCode::MISDIRECTED_REQUEST => said.get("urls").and_then(Value::as_array).map(|urls| {
                let urls: Vec<_> = urls.iter().filter_map(Value::as_str).map(printable).collect();
                format!("ask a server inside the zone with --server: {}", urls.join(" "))
            }),
            _ => text("hint"),
        };
        ClientError::Refused {
            status,
            error: text("error").unwrap_or_else(|| format!("{} answered {status}", self.endpoint.url)),
            hint,
        }
    }
}

/// Whether a token found on this machine may be sent. It is not for whatever server is named, only for this machine's
/// own, or where both were named together.
fn may_have_our_token(args: &ClientArgs, endpoint: &Endpoint) -> bool {
    args.server.is_none()
        || args.data_dir.is_some()
        || args.config.is_some()
        || HostPort::new(&endpoint.host, endpoint.port).is_loopback()
}

/// This machine's server, as far as the arguments and the configuration tell.
struct Local {
    url: String,
    data_dir: PathBuf,
}

impl Local {
    fn of(args: &ClientArgs) -> Result<Self, ClientError> {
        // With a server and a token named, a broken file nearby is not this command's business.
        let needed = args.config.is_some() || args.server.is_none() || args.token.is_none();
        let config = if needed {
            Config::load(args.config.as_deref())?.config
        } else {
            Config::parse(None, &std::collections::BTreeMap::new(), "localhost")?.config
        };
        let url = local_url(&config);
        let data_dir = args.data_dir.clone().unwrap_or(config.data_dir);
        Ok(Self { url, data_dir })
    }
}

/// How a process on the same machine reaches the server. A certificate of one's own names a host, so then its URL is
/// used where there is one; a self-signed one names loopback.
fn local_url(config: &Config) -> String {
    match (&config.url, &config.tls) {
        (Some(url), Some(TlsConfig::Files { .. })) => url.clone(),
        _ => {
            let scheme = if config.tls.is_some() { "https" } else { "http" };
            let at = match config.listen.ip() {
                Some(ip) if ip.is_unspecified() && ip.is_ipv6() => HostPort::new("::1", config.listen.port()),
                Some(ip) if ip.is_unspecified() => HostPort::new("127.0.0.1", config.listen.port()),
                _ => config.listen.clone(),
            };
            format!("{scheme}://{at}")
        }
    }
}

fn etag(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get(ETAG)?.to_str().ok()?;
    Some(tag.trim_start_matches("W/").trim_matches('"').to_owned())
}

/// A path with the query parameters that have values.
#[must_use]
pub fn with_query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let mut full = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            full.push(separator);
            full.push_str(name);
            full.push('=');
            full.push_str(&encode(value));
            separator = '&';
        }
    }
    full
}

/// The body that an argument stands for: `@file`, `-` or nothing for stdin, else the text itself. One that no server
/// takes is not read to its end: a server that refuses it may close before all of it is sent, and is not heard then.
pub(super) fn body_of(argument: Option<&str>) -> io::Result<String> {
    let body = match argument {
        None | Some("-") => at_most(io::stdin().lock())?,
        Some(text) => match text.strip_prefix('@') {
            Some(path) => at_most(File::open(path)?)?,
            None => text.as_bytes().to_vec(),
        },
    };
    if body.len() > BODY_BYTES_MAX {
        let why = format!("longer than {BODY_BYTES_MAX} bytes; split the document into several");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    String::from_utf8(body).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
}

fn at_most(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn queries_are_encoded() {
        let query = [("prefix", Some("a&b".to_owned())), ("after", None), ("limit", Some("5".to_owned()))];
        assert_eq!(with_query("/x", &query), "/x?prefix=a%26b&limit=5");
    }

    #[test]
    fn a_server_is_a_scheme_a_host_and_a_port() {
        let at = |url| Endpoint::parse(url).map(|e| (e.tls, e.host, e.port));
        assert_eq!(at("http://127.0.0.1:3000/").expect("valid"), (false, "127.0.0.1".to_owned(), 3000));
        assert_eq!(at("https://[::1]:3000").expect("valid"), (true, "::1".to_owned(), 3000));
        assert_eq!(at("https://knot1.internal").expect("valid"), (true, "knot1.internal".to_owned(), 443));
        for wrong in [
            "knot1:3000",
            "ftp://x",
            "http://",
            "http://x/api",
            "http://x?y",
            "http://x:99999",
            "http://x:0",
            "http://x:",
            "http://user@x:1",
        ] {
            assert!(at(wrong).is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn the_token_of_this_machine_is_not_sent_elsewhere_unasked() {
        let may = |args: ClientArgs| {
            let endpoint = Endpoint::parse(args.server.as_deref().unwrap_or("http://127.0.0.1:3000")).expect("valid");
            may_have_our_token(&args, &endpoint)
        };
        let at = |server: &str| ClientArgs { server: Some(server.to_owned()), ..ClientArgs::default() };
        assert!(may(ClientArgs::default()) && may(at("http://localhost:3000")) && may(at("https://[::1]:1")));
        assert!(!may(at("https://knot1.internal:3000")) && !may(at("http://127.0.0.1.example.org")));
        assert!(may(ClientArgs { data_dir: Some("data".into()), ..at("https://knot1.internal:3000") }));
    }

    #[test]
    fn this_machines_server_is_reached_on_loopback() {
        let url = |text: &str| {
            let config = Config::parse(Some((Path::new("k"), text)), &std::collections::BTreeMap::new(), "box");
            local_url(&config.expect("valid").config)
        };
        assert_eq!(url(""), "http://127.0.0.1:3000");
        assert_eq!(url("[server]\nlisten = '0.0.0.0:3000'"), "https://127.0.0.1:3000");
        assert_eq!(url("[server]\nlisten = '[::]:3000'"), "https://[::1]:3000");
        let own = "[server]\nlisten = ':3000'\nurl = 'https://k.internal'\n[server.tls]\ncert_file='c'\nkey_file='k'";
        assert_eq!(url(own), "https://k.internal");
    }
}
