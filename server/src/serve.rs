//! The connection loop: HTTP/1.1 over whatever a [`Listener`] accepts, plain or inside TLS.
//!
//! hyper parses; this module owns what hyper leaves to its caller: who may connect, how long a peer may take over each
//! part of a conversation, and how it all ends. The waits are kept by one coarse ticker a connection that looks at a
//! `Pulse`, so that a request sets no timers of its own. Every task belongs to a set that is emptied before
//! [`serve`] returns.

mod pulse;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use self::pulse::{Overdue, Pulse, Watched};
use crate::api;
use crate::hosts::Hosts;
use crate::metrics::Metrics;
use crate::net::Listener;
use crate::websocket::{Arrival, Switched};

/// Most connections at a time. One beyond it is accepted, told 503 and closed.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Of these, connections from one host: one IPv4 address, or one /64 of IPv6. A reverse proxy is one host too, so this is
/// most of them; the rest is what other servers and clients come back by while one host holds all it can get. Connections
/// that have become WebSockets count no more.
pub const CONNECTIONS_A_HOST_MAX: usize = 768;
/// Most connections that are being told 503 at a time. One beyond it is closed without a word.
pub const REFUSALS_MAX: usize = 64;
/// How long a request's head may take to arrive, from its first byte; for a connection's first request, from the accept.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is kept between requests.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a peer may read nothing of what it is sent.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests in flight may take once the server stops.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest request head, in bytes; one beyond it is answered by hyper, without a body.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long a refusal may take to be read.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Most bytes read from a peer that is being refused. Closing with bytes unread would take the refusal back.
const REFUSAL_BYTES_MAX: u64 = 64 << 10;
/// How long to wait when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds on connections. The defaults are the constants of this module; tests shorten them, no configuration does.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// See [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// See [`CONNECTIONS_A_HOST_MAX`].
    pub connections_a_host_max: usize,
    /// See [`HEADER_TIMEOUT`].
    pub header_timeout: Duration,
    /// See [`IDLE_TIMEOUT`].
    pub idle_timeout: Duration,
    /// See [`WRITE_TIMEOUT`].
    pub write_timeout: Duration,
    /// See [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// See [`SHUTDOWN_TIMEOUT`].
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            connections_a_host_max: CONNECTIONS_A_HOST_MAX,
            header_timeout: HEADER_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            shutdown_timeout: SHUTDOWN_TIMEOUT,
        }
    }
}

/// How connections are served.
#[derive(Clone, Debug)]
pub struct Serving {
    /// What answers.
    pub router: Router,
    /// TLS, unless connections are plain.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Who takes connections that go on as WebSockets; one that finds no room is closed.
    pub arrivals: Option<mpsc::Sender<Arrival>>,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
    /// Bounds.
    pub limits: Limits,
}

/// Serves what `listener` accepts until `shutdown` turns true (or its sender is gone), then lets requests in flight
/// finish, within [`Limits::shutdown_timeout`].
pub async fn serve<L: Listener>(mut listener: L, serving: Serving, mut shutdown: watch::Receiver<bool>) {
    let serving = Arc::new(serving);
    let mut connections = JoinSet::new();
    let mut refusals = JoinSet::new();
    let Limits { connections_max, connections_a_host_max, .. } = serving.limits;
    let hosts = Hosts::new(connections_a_host_max);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(_) = connections.join_next() => {
                serving.metrics.set_connections(connections.len());
                continue;
            }
            Some(_) = refusals.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((io, peer)) => {
                let is_full = connections.len() >= connections_max;
                if let Some(place) = (!is_full).then(|| hosts.enter(peer.ip())).flatten() {
                    let connection = connect(io, peer, Arc::clone(&serving), shutdown.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                    serving.metrics.set_connections(connections.len());
                    continue;
                }
                tracing::debug!(%peer, is_full, "refused a connection: too many are open");
                serving.metrics.on_connection_refused();
                if serving.tls.is_none() && refusals.len() < REFUSALS_MAX {
                    let answer = if is_full {
                        api::too_many_connections(connections_max)
                    } else {
                        api::too_many_of_one_host(connections_a_host_max)
                    };
                    refusals.spawn(refuse(io, answer));
                }
            }
            // The peer has gone again, or the process is out of files; the latter passes when connections close.
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if timeout(serving.limits.shutdown_timeout, finish).await.is_err() {
        tracing::info!(open = connections.len(), "closing connections whose requests did not finish in time");
    }
    connections.shutdown().await;
    refusals.shutdown().await;
}

/// Waits until `shutdown` turns true, or its sender is gone.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Shakes hands where that is asked for, then converses.
async fn connect<I>(io: I, peer: SocketAddr, serving: Arc<Serving>, shutdown: watch::Receiver<bool>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(config) = &serving.tls else {
        return converse(io, peer, &serving, shutdown).await;
    };
    let handshake = TlsAcceptor::from(Arc::clone(config)).accept(io);
    match timeout(serving.limits.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => Box::pin(converse(stream, peer, &serving, shutdown)).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// Answers the requests of one connection, up to one after which it goes on as a WebSocket.
async fn converse<I>(io: I, peer: SocketAddr, serving: &Serving, mut shutdown: watch::Receiver<bool>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pulse = Arc::new(Pulse::new());
    let io = TokioIo::new(Watched::new(io, Arc::clone(&pulse)));
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(io, service(serving.router.clone(), peer, Arc::clone(&pulse)));
    let mut ticks =
        interval((serving.limits.header_timeout / 10).clamp(Duration::from_millis(10), Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = Pin::new(&mut connection) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                } else if pulse.has_switched() {
                    let parts = connection.into_parts();
                    let stream = parts.io.into_inner().into_inner();
                    return pass_on(stream, parts.read_buf, peer, serving).await;
                }
                return;
            }
            () = stopped(&mut shutdown), if !stopping => {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            _ = ticks.tick() => match pulse.overdue(&serving.limits) {
                None => {}
                Some(Overdue::Head) => {
                    let io = connection.into_parts().io.into_inner();
                    return refuse(io, api::head_timeout(serving.limits.header_timeout)).await;
                }
                Some(Overdue::Silent) => return,
            },
        }
    }
}

fn service(
    router: Router,
    peer: SocketAddr,
    pulse: Arc<Pulse>,
) -> impl Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send> {
    let router = TowerToHyperService::new(router);
    service_fn(move |mut request: hyper::Request<Incoming>| {
        pulse.on_request();
        request.extensions_mut().insert(api::Peer(peer));
        let answer = router.call(request);
        let pulse = Arc::clone(&pulse);
        async move {
            let answer = answer.await;
            if let Ok(answer) = &answer
                && answer.extensions().get::<Switched>().is_some()
            {
                pulse.on_switch();
            }
            pulse.on_answer();
            answer
        }
    })
}

/// Hands over a connection that has ceased to be HTTP.
async fn pass_on<I>(stream: I, early: Bytes, peer: SocketAddr, serving: &Serving)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(arrivals) = &serving.arrivals else { return };
    let Ok(room) = arrivals.try_reserve() else {
        tracing::debug!(%peer, "closed a WebSocket: too many have just opened");
        return;
    };
    room.send(Arrival::over(stream, early, peer).await);
}

/// Sends a last answer, and reads a little so that it arrives.
async fn refuse<I: AsyncRead + AsyncWrite + Unpin>(mut io: I, answer: Vec<u8>) {
    let farewell = async {
        io.write_all(&answer).await?;
        io.shutdown().await?;
        tokio::io::copy(&mut (&mut io).take(REFUSAL_BYTES_MAX), &mut tokio::io::sink()).await
    };
    if let Ok(Err(error)) = timeout(REFUSAL_TIMEOUT, farewell).await {
        tracing::trace!(%error, "a peer did not wait for its refusal");
    }
}
