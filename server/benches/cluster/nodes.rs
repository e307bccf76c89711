//! Servers, each a process with its own folder, and what is asked of them from outside.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::http::Connection;
use crate::process;
use crate::proxy::Proxy;
use crate::support::{Server, Setup, free_port};

pub(crate) const ZONES: [&str; 3] = ["au", "gb", "us"];
const TOKEN: &str = "a-token-that-all-of-them-share";
const KEY: &str = "0123456789abcdefghijklmnopqrstuv";
/// How long anything that happens by itself may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server of the cluster and how the others reach it.
#[derive(Debug)]
pub(crate) struct Node {
    server: Server,
    proxy: Option<Proxy>,
}

/// How the servers reach each other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Paths {
    /// At their own addresses.
    Direct,
    /// Through proxies that pass everything on after this time, and count bytes.
    Proxied(Duration),
}

/// Where a server is to be, before it runs.
#[derive(Debug)]
pub(crate) struct Place {
    bind: SocketAddr,
    proxy: Option<Proxy>,
}

impl Place {
    pub(crate) fn new(paths: Paths) -> Self {
        let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let proxy = match paths {
            Paths::Direct => None,
            Paths::Proxied(delay) => Some(Proxy::start(bind, delay)),
        };
        Self { bind, proxy }
    }

    pub(crate) fn advertised(&self) -> SocketAddr {
        self.proxy.as_ref().map_or(self.bind, |proxy| proxy.address)
    }
}

impl Node {
    /// Starts a server in an empty folder and waits until it serves.
    pub(crate) fn start(name: &str, zone: &str, place: Place, peers: &[SocketAddr]) -> Self {
        let mut node = Self::prepare(name, zone, place, peers);
        node.server.restart();
        node
    }

    /// Writes the folder of a server without starting it.
    pub(crate) fn prepare(name: &str, zone: &str, place: Place, peers: &[SocketAddr]) -> Self {
        let mut setup = Setup::new(name, zone);
        setup.token = Some(TOKEN.to_owned());
        let peers: Vec<String> = peers.iter().map(SocketAddr::to_string).collect();
        setup.extra = format!(
            "\n[server.cluster]\nkey = \"{KEY}\"\nadvertise_addr = \"{}\"\nbind_addr = \"{}\"\npeers = {peers:?}\n",
            place.advertised(),
            place.bind,
        );
        Self { server: Server::prepare(setup), proxy: place.proxy }
    }

    /// Starts the process only.
    pub(crate) fn spawn(&mut self) {
        self.server.spawn();
    }

    pub(crate) fn wait_until_ready(&mut self) {
        self.server.wait_until_ready();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub(crate) fn resident_bytes(&self) -> u64 {
        process::resident_bytes(self.pid())
    }

    /// Bytes that went through its proxy.
    pub(crate) fn proxied_bytes(&self) -> u64 {
        self.proxy.as_ref().map_or(0, Proxy::bytes)
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.server.address(), TOKEN).await.expect("the server accepts a connection")
    }
}

/// Three servers in three zones that see each other.
pub(crate) async fn cluster(paths: Paths) -> Vec<Node> {
    let places = ZONES.map(|_| Place::new(paths));
    let addresses: Vec<SocketAddr> = places.iter().map(Place::advertised).collect();
    let others = |own: SocketAddr| addresses.iter().copied().filter(|address| *address != own).collect::<Vec<_>>();
    let start = |(zone, place): (&str, Place)| {
        let peers = others(place.advertised());
        Node::start(zone, zone, place, &peers)
    };
    let nodes: Vec<Node> = ZONES.into_iter().zip(places).map(start).collect();
    for node in &nodes {
        wait_for_members(&mut node.connect().await, nodes.len()).await;
    }
    nodes
}

/// Waits until a server sees so many alive, itself among them.
pub(crate) async fn wait_for_members(connection: &mut Connection, count: usize) {
    let wait = async {
        while status(connection).await["members"]["alive"].as_u64() < u64::try_from(count).ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the servers find each other");
}

pub(crate) async fn status(connection: &mut Connection) -> Value {
    connection.get_json("/api/cluster/status").await.expect("the server tells its status")
}

/// Documents and root of the scope that every server holds.
pub(crate) async fn global(connection: &mut Connection) -> (usize, String) {
    let status = status(connection).await;
    let scopes = status["scopes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(global) = scopes.iter().find(|scope| scope["scope"] == "global") else { return (0, String::new()) };
    let documents = global["documents"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    (documents, global["root"].as_str().unwrap_or_default().to_owned())
}

/// A counter from the server's metrics.
pub(crate) async fn counter(connection: &mut Connection, name: &str) -> f64 {
    let text = connection.get("/metrics").await.expect("the server tells its metrics");
    let count = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(count).unwrap_or_default()
}
