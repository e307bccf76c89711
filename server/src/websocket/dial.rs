//! The side that asks: TCP, perhaps through a proxy, then TLS, then a request that turns into a stream.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, OtherError};
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error;

use super::accept::Pipe;
use super::frames::limits;
use super::{PATH, WebSocket};
use crate::config::{HostPort, Trust, WebSocketUrl};
use crate::net::Network;
use crate::tls::{self, TlsError};

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a proxy, TLS, the request and the session's handshake may take together, from when something took the
/// connection: as long as the handshake alone may over TCP.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens WebSockets to other servers.
#[derive(Clone)]
pub struct Dialer {
    tls: Arc<ClientConfig>,
    /// Which proxy leads where; none where there is no environment to ask.
    proxies: Option<Arc<Matcher>>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy's address may hold a password.
        f.debug_struct("Dialer").field("proxies", &self.proxies.is_some()).finish_non_exhaustive()
    }
}

/// Why no WebSocket was opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("cannot connect to the proxy {proxy} that HTTPS_PROXY names: {source}")]
    ProxyUnreachable { proxy: String, source: io::Error },
    #[error("HTTPS_PROXY names a {0} proxy; knot goes through http:// ones")]
    ProxyScheme(String),
    #[error("the proxy {proxy} that HTTPS_PROXY names does not let it through: {status}")]
    ProxyRefused { proxy: String, status: StatusCode },
    #[error("the proxy {proxy} that HTTPS_PROXY names does not answer like one: {source}")]
    ProxyBroken { proxy: String, source: hyper::Error },
    #[error("{0}")]
    Untrusted(Arc<dyn std::error::Error + Send + Sync>),
    #[error("what answers there speaks no TLS: {0}")]
    Tls(io::Error),
    #[error("what answers there closed the connection: is the address right?")]
    Eof,
    #[error("what answers there is no knot server of a cluster: it says {0}; is the address and its path right?")]
    NotKnot(StatusCode),
    #[error("what answers there speaks no WebSocket: {0}")]
    WebSocket(Error),
    #[error("no answer within {} s", OPEN_TIMEOUT.as_secs())]
    Timeout,
}

impl DialError {
    fn of_tls(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) => {
                Self::Untrusted(why.clone())
            }
            _ if error.kind() == io::ErrorKind::UnexpectedEof => Self::Eof,
            _ => Self::Tls(error),
        }
    }
}

type Open = WebSocket<TlsStream<Box<dyn Pipe>>>;

impl Dialer {
    /// One that trusts whom it is told to, and goes straight.
    ///
    /// # Errors
    /// When a certificate cannot be read.
    pub fn new(trust: &Trust) -> Result<Self, TlsError> {
        Ok(Self { tls: tls::peer_tls(trust)?, proxies: None })
    }

    /// Goes through the proxies that `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` name, in either case.
    #[must_use]
    pub fn with_proxies_of_environment(self) -> Self {
        Self { proxies: Some(Arc::new(Matcher::from_env())), ..self }
    }

    /// Opens a stream, and says until when the session that it is for may shake hands.
    pub(crate) async fn dial<N: Network>(&self, network: &N, url: &WebSocketUrl) -> Result<(Open, Instant), DialError> {
        let to = format!("https://{}/", url.host).parse().ok();
        let proxy = to.and_then(|to: Uri| self.proxies.as_ref()?.intercept(&to)).map(Proxy::of).transpose()?;
        let first = proxy.as_ref().map_or_else(|| url.host.to_string(), |proxy| proxy.name.clone());
        let (stream, _) = connect(network, &first).await.map_err(|source| match &proxy {
            Some(proxy) => DialError::ProxyUnreachable { proxy: proxy.name.clone(), source },
            None => DialError::Connect(source),
        })?;
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let opening = async {
            let stream: Box<dyn Pipe> = match &proxy {
                Some(proxy) => proxy.lead(stream, &url.host).await?,
                None => Box::new(stream),
            };
            self.open(stream, url).await
        };
        let opened = timeout_at(deadline, opening).await.map_err(|_| DialError::Timeout)?;
        Ok((opened?, deadline))
    }

    async fn open(&self, stream: Box<dyn Pipe>, url: &WebSocketUrl) -> Result<Open, DialError> {
        let host = ServerName::try_from(url.host.host().to_owned())
            .map_err(|error| DialError::Tls(io::Error::other(error)))?;
        let stream = TlsConnector::from(self.tls.clone()).connect(host, stream).await.map_err(DialError::of_tls)?;
        let uri = format!("wss://{}{}{PATH}", url.authority(), url.prefix).parse::<Uri>();
        let uri = uri.map_err(|error| DialError::WebSocket(Error::HttpFormat(error.into())))?;
        match client_async_with_config(uri, stream, Some(limits())).await {
            Ok((stream, _)) => Ok(WebSocket::new(stream)),
            Err(Error::Http(answer)) => Err(DialError::NotKnot(answer.status())),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(DialError::Eof),
            Err(error) => Err(DialError::WebSocket(error)),
        }
    }
}

/// An HTTP proxy that leads through to others when it is asked to connect.
struct Proxy {
    /// `host:port`.
    name: String,
    authorization: Option<HeaderValue>,
}

impl Proxy {
    fn of(intercept: Intercept) -> Result<Self, DialError> {
        let uri = intercept.uri();
        if uri.scheme_str() != Some("http") {
            return Err(DialError::ProxyScheme(uri.scheme_str().unwrap_or_default().to_owned()));
        }
        let name = format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
        Ok(Self { name, authorization: intercept.basic_auth().cloned() })
    }

    async fn lead(&self, stream: impl Pipe + 'static, to: &HostPort) -> Result<Box<dyn Pipe>, DialError> {
        let broken = |source| DialError::ProxyBroken { proxy: self.name.clone(), source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the stream that comes out of it.
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::connect(to.to_string()).header(HOST, to.to_string());
        if let Some(authorization) = &self.authorization {
            request = request.header(PROXY_AUTHORIZATION, authorization);
        }
        let request =
            request.body(Empty::<Bytes>::new()).map_err(|error| DialError::Connect(io::Error::other(error)))?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        if !answer.status().is_success() {
            return Err(DialError::ProxyRefused { proxy: self.name.clone(), status: answer.status() });
        }
        Ok(Box::new(TokioIo::new(hyper::upgrade::on(answer).await.map_err(broken)?)))
    }
}

/// Connects to the first of a name's addresses that takes a connection.
pub(crate) async fn connect<N: Network>(network: &N, to: &str) -> io::Result<(N::Stream, SocketAddr)> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let addresses = match to.parse() {
        Ok(numeric) => vec![numeric],
        Err(_) => network.resolve(to).await?,
    };
    for address in addresses {
        match timeout(CONNECT_TIMEOUT, network.connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}
