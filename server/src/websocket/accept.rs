//! The side that is asked: a request of the HTTP API that turns into a stream.

use std::fmt;
use std::net::SocketAddr;

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::server::create_response;

use super::WebSocket;

/// Bytes both ways, through whatever.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// A WebSocket that another server, or whoever says to be one, has opened.
pub struct Arrival {
    /// What goes through it.
    pub stream: WebSocket<Box<dyn Pipe>>,
    /// From where; where a proxy stands in between, that proxy.
    pub from: SocketAddr,
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival").field("from", &self.from).finish_non_exhaustive()
    }
}

impl Arrival {
    /// Goes on where HTTP has ended; `early` is what has been read of what follows.
    pub(crate) async fn over(stream: impl Pipe + 'static, early: Bytes, from: SocketAddr) -> Self {
        let stream: Box<dyn Pipe> = Box::new(stream);
        Self { stream: WebSocket::accepted(stream, early).await, from }
    }
}

/// Marks the answer after which a connection speaks WebSocket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switched;

/// Answers a request to speak WebSocket from here on; an error says in what it is none.
pub(crate) fn switch(request: &Request<Body>) -> Result<Response, String> {
    let mut asked = Request::new(());
    *asked.method_mut() = request.method().clone();
    *asked.version_mut() = request.version();
    *asked.headers_mut() = request.headers().clone();
    let (mut head, ()) = create_response(&asked).map_err(|error| error.to_string())?.into_parts();
    head.extensions.insert(Switched);
    Ok(Response::from_parts(head, Body::empty()))
}
