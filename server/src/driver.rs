//! The one task that owns the engine: turns what happens into calls, and outputs into deeds.
//!
//! Nothing here decides anything about the protocol. Everything that can wait, waits elsewhere: streams, names and
//! trials have tasks of their own, durable writes a thread. What they report comes back through one bounded channel.

mod acceptor;
mod circuit;
mod committer;
mod half_open;
mod rate_limited;
mod resolver;
mod stream;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use knot_engine::DocumentView;
use knot_engine::documents::AutomergeDocument;
use knot_engine::seal::{KeyId, KeyRing};
use knot_engine::session::{self, Role, Session, SessionError};
use knot_engine::{
    Address, EditError, EditId, Edited, Event, HistoryEntry, Instant, NodeId, Output, PeerIdentity, Random, ReadError,
    ReadId, ReviewError, Reviewed, SessionEvent, SessionId, Step, StorageEvent, Verdict, VersionView,
};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};

use self::acceptor::Acceptor;
use self::circuit::CircuitHandle;
use self::committer::{Batch, Committer};
use self::rate_limited::RateLimited;
use self::resolver::Resolver;
use self::stream::{HANDSHAKE_TIMEOUT, StreamError, StreamHandle};
use crate::config::Endpoint;
use crate::handle::{Command, ServerEngine};
use crate::links::{Links, Pipe};
use crate::net::{Datagrams, Network};
use crate::run::WallClock;
use crate::simulated::Simulated;
use crate::storage::Storage;
use crate::transitions::Transitions;
use crate::websocket::{self, Arrival, Dialer};

/// What happens, as the driver's tasks report it; a reporter beyond waits.
const INPUTS_MAX: usize = 8_192;
/// Datagrams that may wait for the driver; one beyond is lost, as datagrams may be.
const DATAGRAMS_MAX: usize = 4_096;
/// Inputs handled before outputs are: more are gathered into one batch of writes and one push.
const INPUTS_AT_ONCE: usize = 256;
/// Longest datagram.
const DATAGRAM_BYTES_MAX: usize = 1_500;
/// How long a goodbye may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a retiring server waits for another to hold all that it does.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it looks.
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);

/// What the driver's tasks report.
#[derive(Debug)]
pub(in crate::driver) enum Input {
    /// What happened on a stream, and the stream's leave to have that much unhandled.
    Session(SessionId, SessionEvent, Option<OwnedSemaphorePermit>),
    /// A stream is over, with where it went to or came from and the reason.
    Ended(SessionId, String, Role, StreamError),
    /// A stream was accepted and has a number now.
    Accepted(StreamHandle, SessionId),
    /// A session has done something with the stream below it, which the engine carries.
    Circuit(SessionId, Step),
    /// A stream's two ends have agreed under this cluster key.
    Agreed(SessionId, KeyId),
    Storage(StorageEvent),
    Verdict(Box<Verdict<AutomergeDocument>>),
    Resolved(Address, Option<SocketAddr>),
}

/// Why the driver stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It was asked to, and said goodbye.
    Asked,
    /// It retired from the cluster.
    Retired,
    /// Storage failed; a restart recovers.
    StorageFailed,
}

/// What the driver needs besides the engine.
pub(crate) struct Parts<N> {
    pub(crate) network: N,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) wall: WallClock,
    pub(crate) random: Random,
    /// Sessions' configuration; none without a cluster.
    pub(crate) session: Option<SessionConfig>,
    /// Opens WebSockets.
    pub(crate) dialer: Dialer,
    /// What people are shown of streams.
    pub(crate) links: Links,
    /// What they are shown of comings and goings.
    pub(crate) transitions: Transitions,
    /// Where the server is one of a simulator's.
    pub(crate) simulated: Option<Simulated>,
}

/// What all sessions share.
#[derive(Clone, Debug)]
pub(crate) struct SessionConfig {
    /// Those that are held now.
    pub(crate) keys: watch::Sender<KeyRing>,
    /// The cluster's name.
    pub(crate) cluster: String,
    pub(crate) node_key: knot_engine::NodeKey,
    pub(crate) compression: bool,
    /// Bytes that wait for a peer from which on the engine sends it no more before it is told that they are gone.
    pub(crate) peer_queue_bytes: usize,
}

/// A retiring server's wait until another holds all that it does.
#[derive(Clone, Copy, Debug)]
struct Drain {
    until: Instant,
    /// When to look again.
    next: Instant,
}

pub(crate) struct Driver<N: Network> {
    engine: ServerEngine,
    parts: Parts<N>,
    origin: tokio::time::Instant,
    inputs: mpsc::Sender<Input>,
    reports: mpsc::Receiver<Input>,
    commands: mpsc::Receiver<Command>,
    feed: broadcast::Sender<knot_engine::Summary>,
    committer: Committer,
    resolver: Resolver<N>,
    datagrams: Option<Arc<N::Datagrams>>,
    /// Datagrams that have arrived; none without a cluster.
    arrived: Option<mpsc::Receiver<Bytes>>,
    identity: watch::Sender<PeerIdentity>,
    streams: HashMap<SessionId, StreamHandle>,
    circuits: HashMap<SessionId, CircuitHandle>,
    edits: HashMap<EditId, oneshot::Sender<Result<Edited, EditError>>>,
    reads: HashMap<ReadId, oneshot::Sender<Result<DocumentView, ReadError>>>,
    histories: HashMap<ReadId, oneshot::Sender<Result<Vec<HistoryEntry>, ReadError>>>,
    versions: HashMap<ReadId, oneshot::Sender<Result<VersionView, ReadError>>>,
    reviews: HashMap<ReadId, oneshot::Sender<Result<Vec<Reviewed>, ReviewError>>>,
    wrong_keys: RateLimited,
    failed_handshakes: RateLimited,
    closed_streams: RateLimited,
    quarantines: RateLimited,
    stop: Option<Stop>,
    leaving: Option<(bool, Instant)>,
    /// Nobody is left to give commands.
    is_abandoned: bool,
    draining: Option<Drain>,
}

impl<N: Network> Driver<N> {
    pub(crate) fn new(
        engine: ServerEngine,
        parts: Parts<N>,
        origin: tokio::time::Instant,
        commands: mpsc::Receiver<Command>,
        feed: broadcast::Sender<knot_engine::Summary>,
    ) -> std::io::Result<Self> {
        let (inputs, reports) = mpsc::channel(INPUTS_MAX);
        let (identity, _) = watch::channel(engine.identity());
        Ok(Self {
            committer: Committer::start(parts.storage.clone(), inputs.clone(), parts.simulated.clone())?,
            resolver: Resolver::new(parts.network.clone(), inputs.clone()),
            engine,
            parts,
            origin,
            inputs,
            reports,
            commands,
            feed,
            datagrams: None,
            arrived: None,
            identity,
            streams: HashMap::new(),
            circuits: HashMap::new(),
            edits: HashMap::new(),
            reads: HashMap::new(),
            histories: HashMap::new(),
            versions: HashMap::new(),
            reviews: HashMap::new(),
            wrong_keys: RateLimited::default(),
            failed_handshakes: RateLimited::default(),
            closed_streams: RateLimited::default(),
            quarantines: RateLimited::default(),
            stop: None,
            leaving: None,
            is_abandoned: false,
            draining: None,
        })
    }

    /// Takes the cluster's sockets, where it has any of its own, and begins to receive on them and on what the API passes
    /// on.
    pub(crate) fn listen(
        &mut self,
        sockets: Option<(N::Datagrams, N::Listener)>,
        arrivals: mpsc::Receiver<Arrival>,
        tasks: &mut tokio::task::JoinSet<()>,
    ) {
        let Some(config) = self.parts.session.clone() else { return };
        let random = self.parts.random.fork("accept");
        let acceptor = Acceptor::new(config, self.identity.subscribe(), self.inputs.clone(), random);
        if let Some((datagrams, listener)) = sockets {
            let datagrams = Arc::new(datagrams);
            let (arrivals, arrived) = mpsc::channel(DATAGRAMS_MAX);
            self.arrived = Some(arrived);
            self.datagrams = Some(datagrams.clone());
            tasks.spawn(receive(datagrams, arrivals));
            tasks.spawn(acceptor.clone().listen(listener));
        }
        tasks.spawn(acceptor.take_arrivals(arrivals));
    }

    /// Runs until asked to stop, or until storage fails.
    pub(crate) async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Stop {
        loop {
            self.engine.set_wall((self.parts.wall)(), self.now());
            self.perform();
            if let Some(stop) = self.stop {
                let Self { committer, reports, .. } = self;
                // Nobody reads reports any more, and the committer must not wait for room to make one.
                drop(reports);
                committer.finish().await;
                return stop;
            }
            let wake = self.engine.poll_timeout().map(|(at, _)| at).into_iter();
            let wake = wake.chain(self.leaving.map(|(_, at)| at)).chain(self.draining.map(|drain| drain.next)).min();
            let sleep = wake.map(|at| self.origin + Duration::from_micros(at.as_micros()));
            // In this order, so that a simulated run can be repeated. None starves: each takes along what waits behind it.
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop), if self.leaving.is_none() => self.leave(false),
                () = until(sleep) => {
                    self.on_time();
                    self.take_inputs();
                }
                input = self.reports.recv() => if let Some(input) = input { self.on_inputs(input) },
                command = self.commands.recv(), if !self.is_abandoned => match command {
                    Some(command) => self.on_commands(command),
                    None => {
                        // The API has stopped, and its end of the channel would be ready for ever.
                        self.is_abandoned = true;
                        self.leave(false);
                    }
                },
                Some(bytes) = next(&mut self.arrived) => self.on_datagrams(bytes),
            }
        }
    }

    fn now(&self) -> Instant {
        let micros = self.origin.elapsed().as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    fn on_inputs(&mut self, first: Input) {
        self.on_input(first);
        self.take_inputs();
    }

    fn take_inputs(&mut self) {
        for _ in 1..INPUTS_AT_ONCE {
            match self.reports.try_recv() {
                Ok(input) => self.on_input(input),
                Err(_) => break,
            }
        }
        self.take_commands();
        self.take_datagrams();
    }

    fn on_commands(&mut self, first: Command) {
        self.on_command(first);
        self.take_commands();
        self.take_datagrams();
    }

    fn take_commands(&mut self) {
        for _ in 1..INPUTS_AT_ONCE {
            match self.commands.try_recv() {
                Ok(command) => self.on_command(command),
                Err(_) => break,
            }
        }
    }

    fn on_datagrams(&mut self, first: Bytes) {
        let now = self.now();
        self.engine.handle_datagram(first, now);
        self.take_datagrams();
    }

    fn take_datagrams(&mut self) {
        let now = self.now();
        for _ in 1..INPUTS_AT_ONCE {
            let Some(bytes) = self.arrived.as_mut().and_then(|arrived| arrived.try_recv().ok()) else { break };
            self.engine.handle_datagram(bytes, now);
        }
    }

    fn on_input(&mut self, input: Input) {
        let now = self.now();
        match input {
            // What a stream had to say that was closed here is for nobody any more.
            Input::Session(session, ..) if !self.streams.contains_key(&session) => {}
            Input::Session(session, event, _room) => self.engine.handle_session(session, event, now),
            Input::Circuit(session, step) => {
                if step == Step::End {
                    self.circuits.remove(&session);
                }
                self.engine.handle_session(session, SessionEvent::Circuit(step), now);
            }
            Input::Accepted(handle, session) => self.hold(session, handle),
            Input::Agreed(session, key) => self.on_agreed(session, key),
            Input::Ended(session, peer, role, error) => self.on_ended(session, &peer, role, &error, now),
            Input::Storage(event) => self.engine.handle_storage(event, now),
            Input::Verdict(verdict) => self.engine.handle_verdict(*verdict, now),
            Input::Resolved(address, found) => self.resolver.resolved(&address, found),
        }
    }

    fn hold(&mut self, session: SessionId, handle: StreamHandle) {
        self.parts.links.opened(session, handle.pipe, handle.address.clone());
        self.streams.insert(session, handle);
    }

    /// Ends a stream, if it has not ended.
    fn let_go(&mut self, session: SessionId) -> Option<StreamHandle> {
        self.parts.links.closed(session);
        self.streams.remove(&session)
    }

    fn on_ended(&mut self, session: SessionId, peer: &str, role: Role, error: &StreamError, now: Instant) {
        let stream = self.let_go(session);
        // Why a circuit ends its carrier knows. A peer that went through one is as wrong as any.
        let is_circuit = stream.as_ref().is_some_and(|stream| matches!(stream.pipe, Pipe::Circuit { .. }));
        if !is_circuit || matches!(error, StreamError::Session(_)) {
            self.log_end(peer, role, error);
        }
        if let Some(stream) = stream.filter(|stream| stream.key.is_none() && !is_circuit)
            && error.is_trouble(role)
        {
            self.parts.links.trouble(&stream.address, error.to_string(), (self.parts.wall)());
        }
        self.engine.handle_session(session, SessionEvent::Closed(error.closed()), now);
    }

    fn log_end(&mut self, peer: &str, role: Role, error: &StreamError) {
        match error {
            StreamError::Session(SessionError::WrongKey { theirs, ours }) => self.wrong_keys.report(|suppressed| {
                tracing::warn!(peer, %theirs, %ours, suppressed, "refused a server that holds another cluster key; give both the same `key` in [server.cluster]");
            }),
            StreamError::Session(error @ SessionError::OtherCluster) => self.wrong_keys.report(|suppressed| {
                tracing::warn!(peer, suppressed, "{error}; give both the same `name` in [server.cluster]");
            }),
            StreamError::HandshakeEof | StreamError::HandshakeTimeout if role == Role::Initiator => {
                self.failed_handshakes.report(|suppressed| {
                    tracing::warn!(peer, suppressed, "{error}");
                });
            }
            StreamError::Dial(error) => self.failed_handshakes.report(|suppressed| {
                tracing::warn!(peer, suppressed, "{error}");
            }),
            // Anybody can send rubbish, as often as it is taken.
            StreamError::Session(_) | StreamError::Stalled | StreamError::Unread => self.closed_streams.report(|suppressed| {
                tracing::warn!(peer, %error, suppressed, "closed a stream");
            }),
            StreamError::Connect(_)
            | StreamError::Io(_)
            | StreamError::Eof
            | StreamError::HandshakeEof
            | StreamError::HandshakeTimeout
            | StreamError::Local => tracing::debug!(peer, %error, "stream ended"),
        }
    }

    fn on_command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Edit(request, answer) => {
                let id = self.engine.edit(request, (self.parts.wall)(), now);
                self.edits.insert(id, answer);
            }
            Command::Read(document, conflicts, answer) => {
                let id = self.engine.read(&document, conflicts, now);
                self.reads.insert(id, answer);
            }
            Command::History(document, answer) => {
                let id = self.engine.history(&document, now);
                self.histories.insert(id, answer);
            }
            Command::Version(document, heads, answer) => {
                let id = self.engine.version(&document, heads, now);
                self.versions.insert(id, answer);
            }
            Command::Review(document, review, answer) => {
                let id = self.engine.review(&document, review, now);
                self.reviews.insert(id, answer);
            }
            Command::Look(look) => look(&mut self.engine, now),
            Command::SetKeys(keys) => self.set_keys(keys),
            Command::Leave(retire) => self.leave(retire),
        }
    }

    /// Says goodbye. A server that retires first waits until another holds all that it does.
    fn leave(&mut self, retire: bool) {
        let now = self.now();
        if self.leaving.is_some() {
            return;
        }
        if retire && !self.engine.is_held_elsewhere() {
            let until = self.draining.map_or(now + DRAIN_TIMEOUT, |drain| drain.until);
            self.draining = Some(Drain { until, next: now + DRAIN_INTERVAL });
            return;
        }
        self.draining = None;
        self.leaving = Some((retire, now + LEAVE_TIMEOUT));
        self.engine.leave(retire, now);
    }

    fn on_time(&mut self) {
        let now = self.now();
        self.engine.handle_timeout(now);
        if let Some(drain) = self.draining
            && drain.next <= now
        {
            if drain.until <= now {
                self.draining = None;
                tracing::error!(
                    "stays in the cluster: no other server holds all that this one does; connect it and try again"
                );
            } else {
                self.leave(true);
            }
        }
        if let Some((retired, until)) = self.leaving
            && until <= now
        {
            self.stop = Some(if retired { Stop::Retired } else { Stop::Asked });
        }
    }

    /// Does everything that the engine wants done.
    fn perform(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::SendDatagram { to, bytes } => self.send_datagram(&to, &bytes),
                Output::OpenSession { session, address } => self.open(session, address),
                Output::OpenCircuit { session, carrier, opens } => self.open_circuit(session, carrier, opens),
                Output::Circuit { session, step } => {
                    if self.circuits.get(&session).is_some_and(|circuit| !circuit.tell(step)) {
                        self.circuits.remove(&session);
                    }
                }
                Output::SendFrame { session, frame } => self.send_frame(session, frame),
                Output::CloseSession { session, why } => {
                    tracing::debug!(session = session.0, why, "closing a stream");
                    if let Some(stream) = self.let_go(session) {
                        stream.finish();
                    }
                }
                Output::Persist { batch, epoch, writes, .. } => {
                    if !self.committer.commit(Batch { id: batch, epoch, writes }) {
                        let now = self.now();
                        self.engine.handle_storage(StorageEvent::Failed(batch), now);
                    }
                }
                Output::Load { load, query } => {
                    let event = match self.parts.storage.scan(&query) {
                        Ok(scan) => StorageEvent::Loaded { load, entries: scan.entries, complete: scan.complete },
                        Err(error) => {
                            tracing::error!(%error, "cannot read from storage");
                            StorageEvent::LoadFailed(load)
                        }
                    };
                    let now = self.now();
                    self.engine.handle_storage(event, now);
                }
                Output::Verify(job) => self.verify(job),
                Output::Event(event) => self.on_event(event),
            }
        }
        let identity = self.engine.identity();
        self.identity.send_if_modified(|known| {
            let changed = *known != identity;
            *known = identity;
            changed
        });
    }

    fn send_datagram(&mut self, to: &Address, bytes: &[u8]) {
        let Some(datagrams) = self.datagrams.clone() else { return };
        if let Some(to) = self.resolver.datagram_address(to) {
            datagrams.send(bytes, to);
        }
    }

    fn send_frame(&mut self, session: SessionId, frame: Bytes) {
        let Some(stream) = self.streams.get(&session) else { return };
        let now = self.now();
        match stream.send(frame) {
            Some(queued) => self.engine.handle_session(session, SessionEvent::Writable { queued }, now),
            None => {
                // Too far behind, or gone; repair brings what it missed once it is back.
                self.let_go(session);
                self.engine.handle_session(session, SessionEvent::Closed(knot_engine::membership::Closed::Local), now);
            }
        }
    }

    fn verify(&self, job: knot_engine::Job<AutomergeDocument>) {
        let inputs = self.inputs.clone();
        if self.parts.simulated.is_some() {
            tokio::spawn(async move {
                let _ = inputs.send(Input::Verdict(Box::new(job.run()))).await;
            });
        } else {
            tokio::task::spawn_blocking(move || {
                let _ = inputs.blocking_send(Input::Verdict(Box::new(job.run())));
            });
        }
    }

    /// Holds these cluster keys, and ends what was agreed under another.
    fn set_keys(&mut self, keys: KeyRing) {
        let is_gone = |stream: &StreamHandle| stream.key.is_some_and(|key| keys.by_id(key).is_none());
        let mut gone: Vec<SessionId> =
            self.streams.iter().filter(|(_, stream)| is_gone(stream)).map(|(session, _)| *session).collect();
        // In order, so that a simulated run can be repeated.
        gone.sort_unstable();
        for session in gone {
            self.let_go(session);
        }
        self.engine.set_keys(keys.clone());
        if let Some(session) = &self.parts.session {
            session.keys.send_replace(keys);
        }
    }

    /// The two ends of a stream have agreed under a key. It may have gone while they shook hands.
    fn on_agreed(&mut self, session: SessionId, key: KeyId) {
        let held = self.parts.session.as_ref().is_some_and(|config| config.keys.borrow().by_id(key).is_some());
        if !held {
            self.let_go(session);
        } else if let Some(stream) = self.streams.get_mut(&session) {
            stream.key = Some(key);
            self.parts.links.agreed(session, key);
            self.parts.links.well(&stream.address, (self.parts.wall)());
        }
    }

    fn open(&mut self, session: SessionId, address: Address) {
        let Some(config) = self.parts.session.clone() else { return };
        let endpoint: Result<Endpoint, String> = address.0.parse();
        let is_websocket = endpoint.as_ref().is_ok_and(|endpoint| endpoint.websocket().is_some());
        let pipe = if is_websocket { Pipe::WebSocket } else { Pipe::Tcp };
        let (handle, outbox) = StreamHandle::new(config.peer_queue_bytes, pipe, address.to_string());
        self.hold(session, handle);
        let config = config.with(self.identity.borrow().clone());
        let machine = Session::new(Role::Initiator, config, self.parts.random.bytes());
        let (network, dialer, inputs) = (self.parts.network.clone(), self.parts.dialer.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let (peer, error) = match endpoint {
                Ok(Endpoint::Direct(host)) => match websocket::connect(&network, &host.to_string()).await {
                    Ok((stream, at)) => {
                        let deadline = tokio::time::Instant::now() + HANDSHAKE_TIMEOUT;
                        let ended = stream::run(stream, session, machine, outbox, inputs.clone(), deadline, None).await;
                        (at.to_string(), ended)
                    }
                    Err(error) => (address.to_string(), StreamError::Connect(error)),
                },
                Ok(Endpoint::WebSocket(url)) => match dialer.dial(&network, &url).await {
                    Ok((stream, deadline)) => {
                        let ended = stream::run(stream, session, machine, outbox, inputs.clone(), deadline, None).await;
                        (address.to_string(), ended)
                    }
                    Err(error) => (address.to_string(), StreamError::Dial(error)),
                },
                Err(error) => {
                    let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, error);
                    (address.to_string(), StreamError::Connect(error))
                }
            };
            let _ = inputs.send(Input::Ended(session, peer, Role::Initiator, error)).await;
        });
    }

    /// Shakes hands on a stream that the engine carries through another member.
    fn open_circuit(&mut self, session: SessionId, carrier: NodeId, opens: bool) {
        let Some(config) = self.parts.session.clone() else { return };
        let name =
            self.engine.member(&carrier).map_or_else(|| carrier.to_string(), |member| member.record.name.clone());
        let peer = format!("through {name}");
        let (handle, outbox) = StreamHandle::new(config.peer_queue_bytes, Pipe::Circuit { carrier }, peer.clone());
        self.hold(session, handle);
        let role = if opens { Role::Initiator } else { Role::Responder };
        let config = config.with(self.identity.borrow().clone());
        let machine = Session::new(role, config, self.parts.random.bytes());
        let inputs = self.inputs.clone();
        let (stream, circuit) = CircuitHandle::open(session, inputs.clone());
        self.circuits.insert(session, circuit);
        let deadline = tokio::time::Instant::now() + HANDSHAKE_TIMEOUT;
        tokio::spawn(async move {
            let ended = stream::run(stream, session, machine, outbox, inputs.clone(), deadline, None).await;
            let _ = inputs.send(Input::Ended(session, peer, role, ended)).await;
        });
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Edited(id, answer) => tell(self.edits.remove(&id), answer),
            Event::Read(id, answer) => tell(self.reads.remove(&id), answer),
            Event::History(id, answer) => tell(self.histories.remove(&id), answer),
            Event::Version(id, answer) => tell(self.versions.remove(&id), answer),
            Event::Reviewed(id, answer) => tell(self.reviews.remove(&id), answer),
            Event::Changed(summary) => drop(self.feed.send(summary)),
            Event::Member(change) => {
                let from = change.from.map(|status| format!("{status:?}").to_lowercase());
                let to = format!("{:?}", change.to).to_lowercase();
                let (name, zone, node) = (change.name.clone(), change.zone.clone(), change.node);
                let name_of = |node| self.engine.member(&node).map(|member| member.record.name.clone());
                let why = self.parts.transitions.note(change, (self.parts.wall)(), name_of);
                tracing::info!(name, zone, %node, from, to, why, "member");
            }
            Event::AddressMoved { node, addresses } => {
                tracing::info!(%node, addresses = listed(&addresses), "member moved")
            }
            Event::NameTaken { name, addresses } => {
                let addresses = listed(&addresses);
                tracing::warn!(name, addresses, "several servers have one name; give each its own `name` in [server]");
            }
            Event::Quarantined { document, change, why } => {
                self.quarantines.report(|suppressed| {
                    tracing::warn!(%document, %change, %why, suppressed, "a change is in quarantine: it is kept and counted, and not applied");
                });
            }
            Event::ForeignCluster { node, theirs, ours } => {
                tracing::warn!(%node, %theirs, %ours, "a server holds the key but its data is another cluster's; empty its data_dir to let it join");
            }
            Event::Evicted { by: None } => tracing::error!(
                "this server was evicted from the cluster: no other takes anything from it; `knot cluster readmit` on another undoes that, and writes made here until then reach the others after it"
            ),
            Event::Evicted { by: Some((by, address)) } => {
                let known = self.engine.member(&by).and_then(|member| member.record.addresses.first().cloned());
                let address = address.or(known).map_or_else(|| by.to_string(), |address| address.to_string());
                let error = "it refuses this server, which was evicted from the cluster; `knot cluster readmit` there undoes that";
                self.parts.links.trouble(&address, error.to_owned(), (self.parts.wall)());
                self.failed_handshakes.report(|suppressed| tracing::error!(%by, suppressed, "{error}"));
            }
            Event::EvictedCame { node } => self.wrong_keys.report(|suppressed| {
                tracing::warn!(%node, suppressed, "refused a server that was evicted; stop it, or let it in again with `knot cluster readmit`");
            }),
            Event::Adopted(cluster) => tracing::info!(%cluster, "took over the cluster's identity"),
            Event::Fenced => {
                tracing::error!(
                    "another live server runs on a copy of this data: this one takes no more writes; remove node.key from one of the copies"
                );
            }
            Event::LeaveDone => {
                if let Some((retired, _)) = self.leaving {
                    self.stop = Some(if retired { Stop::Retired } else { Stop::Asked });
                }
            }
            Event::RepairStarted { peer, scope } => tracing::debug!(%peer, %scope, "repair"),
            Event::StorageFailed => self.stop = Some(Stop::StorageFailed),
        }
    }
}

impl SessionConfig {
    fn with(self, identity: PeerIdentity) -> session::Config {
        let Self { keys, cluster, node_key, compression, peer_queue_bytes: _ } = self;
        session::Config { keys: keys.borrow().clone(), cluster, identity, node_key, compression }
    }
}

/// Answers whoever asked; they may have gone, and nobody else wants the answer.
fn tell<T>(asked: Option<oneshot::Sender<T>>, answer: T) {
    if let Some(asked) = asked {
        let _ = asked.send(answer);
    }
}

fn listed(addresses: &[Address]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn next(arrived: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match arrived {
        Some(arrived) => arrived.recv().await,
        None => std::future::pending().await,
    }
}

async fn receive<T: Datagrams>(datagrams: Arc<T>, arrivals: mpsc::Sender<Bytes>) {
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    loop {
        match datagrams.receive(&mut buffer).await {
            Ok((len, _)) => {
                let bytes = Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default());
                // Losing a datagram is better than holding up those behind it.
                if let Err(mpsc::error::TrySendError::Closed(_)) = arrivals.try_send(bytes) {
                    return;
                }
            }
            // An ICMP error for an earlier datagram; the socket goes on.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}
