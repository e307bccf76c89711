//! A whole server: storage, driver, cluster sockets, HTTP. The binary runs one; a simulation runs several in a process.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use knot_engine::{
    Address, Corrupt, Engine, Faults, Instant, Limits, NodeKey, Query, Random, Recovered, Seed, Table, Wall, membership,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::accounts::{Accounts, Passwords};
use crate::api::{self, ApiState};
use crate::config::{self, ClusterConfig, Config, Endpoint, HostPort};
use crate::driver::{Driver, Parts, SessionConfig, Stop};
use crate::handle::Handle;
use crate::metrics::Metrics;
use crate::net::{Listener, Network};
use crate::serve::{self, Serving};
use crate::simulated::Simulated;
use crate::spaces::{Source, Spaces};
use crate::storage::{Storage, StorageError};
use crate::tls::ServerTls;
use crate::websocket::{Arrival, Dialer};

/// Bytes of records read at once when a server starts.
const RECOVERY_BYTES: usize = 4 << 20;

/// WebSockets that have just opened and wait for the driver; one beyond is closed.
const ARRIVALS_MAX: usize = 64;

/// What a server runs on.
pub struct Platform<N> {
    /// Sockets and names.
    pub network: N,
    /// Its disk.
    pub storage: Arc<dyn Storage>,
    /// Who it is.
    pub node_key: NodeKey,
    /// The HTTP API's admin token.
    pub token: Arc<str>,
    /// TLS of the HTTP API; none for plain HTTP.
    pub tls: Option<ServerTls>,
    /// Opens WebSockets to other servers.
    pub dialer: Dialer,
    /// Fresh randomness: 32 bytes that no other start has.
    pub seed: Seed,
    /// The wall clock. It labels changes; nothing is decided by it.
    pub wall: WallClock,
    /// Who reads the configuration again when asked to; none where there is none to read.
    pub reload: Option<Reload>,
    /// What only a simulator asks for.
    pub simulated: Option<Simulated>,
}

/// Asks for the configuration to be read again, and hears what came of it: whether all of it is in force now, or what is
/// wrong with it.
pub type Reload = mpsc::Sender<oneshot::Sender<Result<Reloaded, String>>>;

/// How much of a configuration that was read again is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// All of it.
    Whole,
    /// The cluster's keys; what else has changed waits for a restart.
    Keys,
}

/// Says what time it is to people.
pub type WallClock = Arc<dyn Fn() -> Wall + Send + Sync>;

impl<N> std::fmt::Debug for Platform<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform").field("node_key", &self.node_key).finish_non_exhaustive()
    }
}

/// A server that is up.
#[derive(Clone, Debug)]
pub struct Running {
    /// The way to its driver.
    pub handle: Handle,
    /// Its accounts.
    pub accounts: Arc<Accounts>,
    /// Its spaces.
    pub spaces: Arc<Spaces>,
    /// Where its HTTP API listens.
    pub http: SocketAddr,
    /// The API's URL.
    pub url: String,
    /// Where it is reached by other servers, if it has a cluster; best first.
    pub advertised: Vec<Address>,
}

/// Why a server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The API's address cannot be used.
    #[error("cannot listen on {address} for HTTP: {source}; change `listen` in [server], or stop what uses it")]
    Http {
        /// That address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The cluster's address cannot be used.
    #[error(
        "cannot listen on {address} for other servers: {source}; change `bind_addr` in [server.cluster], or stop what uses it"
    )]
    Cluster {
        /// That address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// What the configuration says of passwords cannot be done.
    #[error("passwords cannot be hashed so: {0}; change [server.accounts]")]
    Passwords(#[from] argon2::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// What is stored cannot be read, or is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What is stored does not decode.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// A part of the server panicked: a bug in knot.
    #[error("a part of the server panicked, which is a bug in knot: {0}")]
    Panicked(String),
    /// Storage failed while the server ran.
    #[error(
        "storage failed: nothing after the failure was acknowledged; start the server again to recover what is durable"
    )]
    StorageFailed,
}

/// Runs a server until `shutdown` turns true, it retires, or its storage fails. `ready` is told once it serves.
///
/// # Errors
/// When it cannot start, or storage fails.
pub async fn run<N: Network>(
    config: Config,
    platform: Platform<N>,
    ready: oneshot::Sender<Running>,
    shutdown: watch::Receiver<bool>,
) -> Result<Stop, RunError> {
    let network = platform.network.clone();
    let storage = platform.storage.clone();
    let http = listen(&network, &config.listen)
        .await
        .map_err(|source| RunError::Http { address: config.listen.to_string(), source })?;
    let http_addr =
        http.local_addr().map_err(|source| RunError::Http { address: config.listen.to_string(), source })?;
    let url = url(&config, http_addr);
    let mut advertised = Vec::new();
    let mut sockets = None;
    if let Some(cluster) = &config.cluster {
        let mut bound = None;
        if let Some(bind_addr) = &cluster.bind_addr {
            let (datagrams, listener, at) = bind_cluster(&network, bind_addr)
                .await
                .map_err(|source| RunError::Cluster { address: bind_addr.to_string(), source })?;
            bound = Some(at);
            sockets = Some((datagrams, listener));
        }
        advertised = advertise(cluster, bound);
    }
    let (handle, commands, feed) = Handle::new();
    let origin = tokio::time::Instant::now();
    let engine_config = engine_config(&config, &platform, &url, &advertised);
    let session = session_config(&config, &platform, &engine_config.limits);
    let mut engine = Engine::new(
        engine_config,
        recover(&*storage)?,
        platform.seed,
        platform.simulated.as_ref().map_or_else(Faults::default, |simulated| simulated.faults),
        Instant::ZERO,
    );
    if let Some(cluster) = &config.cluster {
        engine.join(cluster.peers.iter().map(Address::from).collect(), Instant::ZERO);
    }
    let parts = Parts {
        network,
        storage: storage.clone(),
        wall: platform.wall.clone(),
        random: Random::new(&platform.seed, "sessions"),
        session,
        dialer: platform.dialer.clone(),
        links: handle.links().clone(),
        transitions: handle.transitions().clone(),
        simulated: platform.simulated.clone(),
    };
    let mut driver = Driver::new(engine, parts, origin, commands, feed).map_err(RunError::Thread)?;
    let mut tasks = JoinSet::new();
    let (arrivals, arrived) = mpsc::channel(ARRIVALS_MAX);
    driver.listen(sockets, arrived, &mut tasks);
    let (stopping, stopped) = watch::channel(false);
    let accounts = accounts(&config, &platform, &handle)?;
    tasks.spawn(accounts.clone().follow());
    tasks.spawn(accounts.clone().keep());
    let node_id = platform.node_key.node_id().to_string();
    let spaces = Arc::new(Spaces::new(accounts.clone(), node_id, &config.zone, &url, platform.wall.clone()));
    if let Some(source) = source(&config, &platform) {
        tasks.spawn(spaces.clone().host(source, cluster_name(&config), config.cluster.is_none()));
    }
    let serving = serving(&config, &platform, &spaces, &accounts, arrivals, stopped.clone());
    let http_task = tokio::spawn(serve::serve(http, serving, stopped));
    // Whoever started the server may not care when it is up.
    let _ = ready.send(Running { handle, accounts, spaces, http: http_addr, url, advertised });
    let (leave, left) = watch::channel(false);
    let driving = tokio::spawn(driver.run(left));
    let stop = stop_in_order(shutdown, stopping, http_task, leave, driving).await?;
    tasks.shutdown().await;
    if stop == Stop::StorageFailed {
        return Err(storage.damage().map_or(RunError::StorageFailed, RunError::Storage));
    }
    storage.close()?;
    Ok(stop)
}

/// Lets requests in flight finish before the driver says goodbye; a driver that ends by itself ends them.
async fn stop_in_order(
    mut shutdown: watch::Receiver<bool>,
    stopping: watch::Sender<bool>,
    mut http: JoinHandle<()>,
    leave: watch::Sender<bool>,
    mut driving: JoinHandle<Stop>,
) -> Result<Stop, RunError> {
    let panicked = |error: tokio::task::JoinError| RunError::Panicked(error.to_string());
    let stop = tokio::select! {
        biased;
        stop = &mut driving => Some(stop.map_err(panicked)?),
        // A sender that is gone asks for the same.
        _ = shutdown.wait_for(|stop| *stop) => None,
        ended = &mut http => return Err(RunError::Panicked(format!("the HTTP server ended: {ended:?}"))),
    };
    stopping.send_replace(true);
    http.await.map_err(panicked)?;
    leave.send_replace(true);
    match stop {
        Some(stop) => Ok(stop),
        None => driving.await.map_err(panicked),
    }
}

/// Listens at the first address of a host that can be listened at.
async fn listen<N: Network>(network: &N, at: &HostPort) -> std::io::Result<N::Listener> {
    let mut failure = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in addresses(network, at).await? {
        match network.listen(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Binds TCP and UDP to one port; port 0 is one that is free for both.
async fn bind_cluster<N: Network>(
    network: &N,
    bind_addr: &HostPort,
) -> std::io::Result<(N::Datagrams, N::Listener, SocketAddr)> {
    let mut failure = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in addresses(network, bind_addr).await? {
        for _ in 0..if address.port() == 0 { PORT_TRIES } else { 1 } {
            let listener = match network.listen_for_servers(address).await {
                Ok(listener) => listener,
                Err(error) => {
                    failure = error;
                    continue;
                }
            };
            let bound = listener.local_addr()?;
            match network.bind(bound).await {
                Ok(datagrams) => return Ok((datagrams, listener, bound)),
                Err(error) => failure = error,
            }
        }
    }
    Err(failure)
}

/// How many free TCP ports are tried until one is free for UDP too.
const PORT_TRIES: usize = 16;

async fn addresses<N: Network>(network: &N, of: &HostPort) -> std::io::Result<Vec<SocketAddr>> {
    match of.ip() {
        Some(ip) => Ok(vec![SocketAddr::new(ip, of.port())]),
        None => network.resolve(&of.to_string()).await,
    }
}

/// The addresses that others are told: the configured ones, else the bound one, else the first that is not loopback.
fn advertise(cluster: &ClusterConfig, bound: Option<SocketAddr>) -> Vec<Address> {
    let configured: Vec<Address> = cluster.advertise_addr.iter().map(Address::from).collect();
    let Some(bound) = bound.filter(|_| configured.is_empty()) else { return configured };
    let ip = if bound.ip().is_unspecified() { config::first_address() } else { bound.ip() };
    let address = Address::from(SocketAddr::new(ip, bound.port()).to_string().as_str());
    tracing::info!(%address, "no `advertise_addr` in [server.cluster]: others are told this one");
    vec![address]
}

/// Reads what a start needs: the node's own records, and one record a document.
fn recover(storage: &dyn Storage) -> Result<Recovered, RunError> {
    // An open store holds nothing that is not durable.
    let mut recovered = Recovered::new(false);
    for table in [Table::Meta, Table::Documents] {
        let mut start = Bytes::new();
        loop {
            let query = Query { table, start: start.clone(), end: Bytes::new(), bytes_max: RECOVERY_BYTES };
            let scan = storage.scan(&query)?;
            for (key, value) in &scan.entries {
                recovered.push(table, key, value)?;
            }
            match scan.entries.last() {
                // The least key above the last one is that and a zero.
                Some((last, _)) if !scan.complete => start = [&last[..], &[0]].concat().into(),
                _ => break,
            }
        }
    }
    Ok(recovered)
}

fn engine_config<N>(config: &Config, platform: &Platform<N>, url: &str, advertised: &[Address]) -> knot_engine::Config {
    let defaults = membership::Config::default();
    let cluster = config.cluster.as_ref();
    let mut tuned = knot_engine::Config {
        node_key: platform.node_key.clone(),
        name: config.name.clone(),
        zone: config.zone.clone(),
        addresses: advertised.to_vec(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        url: url.to_owned(),
        cluster_name: cluster_name(config),
        cluster_keys: cluster.map(|cluster| cluster.keys.clone()),
        membership: membership::Config {
            failed_retention: cluster.map_or(defaults.failed_retention, |cluster| cluster.failed_retention),
            ..defaults
        },
        limits: Limits::default(),
    };
    if let Some(simulated) = &platform.simulated {
        (simulated.tune)(&mut tuned);
    }
    tuned
}

/// The name of the cluster, or what stands for it on a server of its own.
fn cluster_name(config: &Config) -> String {
    config.cluster.as_ref().map_or_else(|| "knot".to_owned(), |cluster| cluster.name.clone())
}

fn accounts<N>(config: &Config, platform: &Platform<N>, handle: &Handle) -> Result<Arc<Accounts>, RunError> {
    let passwords = Passwords::new(config.password_cost, platform.simulated.is_some())?;
    let wall = platform.wall.clone();
    let defect = platform.simulated.as_ref().and_then(|simulated| simulated.defect);
    let accounts = Accounts::new(handle.clone(), passwords, wall, &platform.seed, &config.zone);
    Ok(Arc::new(accounts.revealing_tokens(config.reveal_tokens).with(defect)))
}

/// What runs spaces here; none where a simulator has nothing for them.
fn source<N>(config: &Config, platform: &Platform<N>) -> Option<Source> {
    let Some(simulated) = &platform.simulated else {
        return Some(Source::Runtime(config.spaces.clone(), config.data_dir.clone()));
    };
    simulated.containers.clone().map(Source::Simulated)
}

fn session_config<N>(config: &Config, platform: &Platform<N>, limits: &Limits) -> Option<SessionConfig> {
    let cluster = config.cluster.as_ref()?;
    let (keys, cluster_name) = (watch::Sender::new(cluster.keys.clone()), cluster.name.clone());
    let node_key = platform.node_key.clone();
    let peer_queue_bytes = limits.peer_queue_bytes;
    let compression = cluster.compression;
    Some(SessionConfig { keys, cluster: cluster_name, node_key, compression, peer_queue_bytes })
}

fn serving<N>(
    config: &Config,
    platform: &Platform<N>,
    spaces: &Arc<Spaces>,
    accounts: &Arc<Accounts>,
    arrivals: mpsc::Sender<Arrival>,
    stopping: watch::Receiver<bool>,
) -> Serving {
    let mut stream_prefixes = Vec::new();
    for url in config.cluster.iter().flat_map(|cluster| &cluster.advertise_addr).filter_map(Endpoint::websocket) {
        // Whether a proxy takes the prefix off is its own affair.
        stream_prefixes.extend([String::new(), url.prefix.clone()]);
    }
    let metrics = Arc::new(Metrics::default());
    let router = api::router(ApiState {
        handle: accounts.handle().clone(),
        accounts: accounts.clone(),
        spaces: spaces.clone(),
        trusted_proxies: config.trusted_proxies.clone().into(),
        token: platform.token.clone(),
        name: config.name.as_str().into(),
        zone: config.zone.as_str().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        started: tokio::time::Instant::now(),
        wall: platform.wall.clone(),
        metrics: metrics.clone(),
        certificate: platform.tls.as_ref().map(|tls| tls.certificate.clone()),
        stopping,
        reload: platform.reload.clone(),
        stream_prefixes,
        is_clustered: config.cluster.is_some(),
        limits: api::Limits::default(),
    });
    Serving {
        router,
        tls: platform.tls.as_ref().map(|tls| tls.config.clone()),
        arrivals: Some(arrivals),
        metrics,
        limits: serve::Limits::default(),
    }
}

/// The API's URL as people and other servers use it.
fn url(config: &Config, bound: SocketAddr) -> String {
    if let Some(url) = &config.url {
        return url.clone();
    }
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let host =
        if bound.ip().is_unspecified() { config::first_address().to_string() } else { config.listen.host().to_owned() };
    format!("{scheme}://{}", HostPort::new(&host, bound.port()))
}
