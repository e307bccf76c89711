//! Streams that others open, over TCP or by WebSocket: a number, a handshake within its time, and on to the driver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use knot_engine::session::{Role, Session};
use knot_engine::{PeerIdentity, Random, SessionId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::half_open::{HalfOpen, Place};
use super::stream::{self, HANDSHAKE_TIMEOUT, StreamHandle};
use super::{Input, SessionConfig};
use crate::links::Pipe;
use crate::net::Listener;
use crate::websocket::Arrival;

/// How long the acceptor waits after the system refused it a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes streams and shakes hands on them.
#[derive(Clone)]
pub(super) struct Acceptor {
    config: SessionConfig,
    identity: watch::Receiver<PeerIdentity>,
    inputs: mpsc::Sender<Input>,
    random: Random,
    half_open: HalfOpen,
    behind_proxies: HalfOpen,
    /// The number of the next stream, in steps of two.
    next: Arc<AtomicU64>,
}

impl Acceptor {
    pub(super) fn new(
        config: SessionConfig,
        identity: watch::Receiver<PeerIdentity>,
        inputs: mpsc::Sender<Input>,
        random: Random,
    ) -> Self {
        Self {
            config,
            identity,
            inputs,
            random,
            half_open: HalfOpen::new(),
            behind_proxies: HalfOpen::behind_proxies(),
            next: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Takes what comes over TCP.
    pub(super) async fn listen<L: Listener>(mut self, mut listener: L) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let place = self.half_open.enter(from.ip());
                    self.take(stream, from, Pipe::Tcp, place);
                }
                // Out of file descriptors, most likely: wait for some to come back.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// Takes what comes by way of the HTTP API.
    pub(super) async fn take_arrivals(mut self, mut arrivals: mpsc::Receiver<Arrival>) {
        while let Some(Arrival { stream, from }) = arrivals.recv().await {
            let place = self.behind_proxies.enter(from.ip());
            self.take(stream, from, Pipe::WebSocket, place);
        }
    }

    /// Takes a stream, where there is a place for it among those that are shaking hands.
    fn take<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &mut self,
        stream: S,
        from: SocketAddr,
        pipe: Pipe,
        place: Option<Place>,
    ) {
        let Some(place) = place else { return };
        let session = SessionId(self.next.fetch_add(2, Ordering::Relaxed));
        let (handle, outbox) = StreamHandle::new(self.config.peer_queue_bytes, pipe, from.ip().to_string());
        let config = self.config.clone().with(self.identity.borrow().clone());
        let (random, inputs) = (self.random.bytes(), self.inputs.clone());
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        tokio::spawn(async move {
            if inputs.send(Input::Accepted(handle, session)).await.is_err() {
                return;
            }
            let machine = Session::new(Role::Responder, config, random);
            let error = stream::run(stream, session, machine, outbox, inputs.clone(), deadline, Some(place)).await;
            let _ = inputs.send(Input::Ended(session, from.to_string(), Role::Responder, error)).await;
        });
    }
}
