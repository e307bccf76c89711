//! One HTTP/1.1 connection to a server, with or without TLS.
//!
//! Built on the hyper and rustls that the server has anyway: a client library would bring a second HTTP implementation
//! for the sake of these lines.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::client::ClientError;
use crate::tls::client_tls;

/// How long a connection and its TLS handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// As it was given, for messages.
    pub(super) url: String,
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoint {
    pub(super) fn parse(url: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::BadUrl(url.to_owned());
        let uri: hyper::Uri = url.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        if !uri.path().trim_end_matches('/').is_empty() || uri.query().is_some() {
            return Err(wrong());
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let port = match authority.strip_prefix(host).ok_or_else(wrong)? {
            "" if tls => 443,
            "" => 80,
            port => port.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|p| *p != 0).ok_or_else(wrong)?,
        };
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
        })
    }

    /// What the `Host` header says.
    pub(super) fn authority(&self) -> &str {
        self.url.split_once("://").map_or("", |(_, authority)| authority)
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        ClientError::Unreachable { url: self.url.clone(), source }
    }
}

/// A connection, driven for as long as this lives.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinSet<()>,
}

/// An answer whose body is still to come. The connection lives as long as it does.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: hyper::http::response::Parts,
    pub(super) body: Incoming,
    _driver: JoinSet<()>,
}

impl Connection {
    pub(super) async fn open(endpoint: &Endpoint, trusted: &[PathBuf]) -> Result<Self, ClientError> {
        timeout(CONNECT_TIMEOUT, Self::connect(endpoint, trusted))
            .await
            .unwrap_or_else(|_| Err(endpoint.unreachable(io::ErrorKind::TimedOut.into())))
    }

    async fn connect(endpoint: &Endpoint, trusted: &[PathBuf]) -> Result<Self, ClientError> {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
            .await
            .map_err(|source| endpoint.unreachable(source))?;
        // A request is one write; waiting to join it with a next one only costs time.
        let _ = stream.set_nodelay(true);
        if !endpoint.tls {
            return Self::over(endpoint, stream).await;
        }
        let connector = TlsConnector::from(client_tls(trusted)?);
        let name =
            ServerName::try_from(endpoint.host.clone()).map_err(|_| ClientError::BadUrl(endpoint.url.clone()))?;
        let stream = connector.connect(name, stream).await.map_err(|source| {
            let url = endpoint.url.clone();
            match source.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(rustls::Error::InvalidMessage(_)) => ClientError::WrongScheme { url },
                Some(_) => ClientError::Untrusted { url, source },
                None => endpoint.unreachable(source),
            }
        })?;
        Self::over(endpoint, stream).await
    }

    async fn over(
        endpoint: &Endpoint,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self, ClientError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| endpoint.unreachable(io::Error::other(error)))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its errors reach whoever waits for the answer.
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }

    /// Sends the connection's one request.
    pub(super) async fn send(
        mut self,
        endpoint: &Endpoint,
        request: Request<Full<Bytes>>,
        wait: Duration,
    ) -> Result<Answer, ClientError> {
        let answered = timeout(wait, self.sender.send_request(request)).await;
        let response =
            answered.map_err(|_| endpoint.unreachable(io::ErrorKind::TimedOut.into()))?.map_err(|error| match error
                .is_parse()
            {
                true => ClientError::WrongScheme { url: endpoint.url.clone() },
                false => endpoint.unreachable(io::Error::other(error)),
            })?;
        let (head, body) = response.into_parts();
        Ok(Answer { head, body, _driver: self.driver })
    }
}
