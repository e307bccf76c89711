//! The server's own `run`, HTTP and sessions and all, on turmoil's clock and network: three servers are cut apart, take
//! writes on both sides, and hold the same when the network is whole again.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use knot_engine::{NodeKey, Query, Table, Wall, Write};
use knot_server::config::Config;
use knot_server::net::{Datagrams, Listener, Network};
use knot_server::simulated::Simulated;
use knot_server::storage::{Scan, Storage, StorageError};
use knot_server::{Platform, run};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{oneshot, watch};
use turmoil::net::{TcpListener, TcpStream, UdpSocket};

const SERVERS: [(&str, &str); 3] = [("knot1", "au"), ("knot2", "gb"), ("knot3", "us")];
const TOKEN: &str = "a-token-of-more-than-thirty-two-characters";
const HTTP_PORT: u16 = 3000;
/// Longer than it takes to declare a member failed.
const PARTITION: Duration = Duration::from_secs(60);
/// Within this long of the healing, all hold the same.
const CONVERGENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
struct TurmoilNetwork;

struct TurmoilListener(TcpListener);

#[derive(Debug)]
struct TurmoilDatagrams(UdpSocket);

impl Network for TurmoilNetwork {
    type Datagrams = TurmoilDatagrams;
    type Listener = TurmoilListener;
    type Stream = TcpStream;

    async fn bind(&self, to: SocketAddr) -> io::Result<TurmoilDatagrams> {
        UdpSocket::bind(to).await.map(TurmoilDatagrams)
    }

    async fn listen(&self, on: SocketAddr) -> io::Result<TurmoilListener> {
        TcpListener::bind(on).await.map(TurmoilListener)
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(to).await
    }

    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
        let port = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(vec![SocketAddr::new(turmoil::lookup(host), port)])
    }
}

impl Datagrams for TurmoilDatagrams {
    fn send(&self, bytes: &[u8], to: SocketAddr) {
        let _ = self.0.try_send_to(bytes, to);
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.recv_from(buffer).await
    }
}

impl Listener for TurmoilListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A disk that loses nothing: this test is about the network.
#[derive(Debug, Default)]
struct Memory(Mutex<BTreeMap<(Table, Bytes), Bytes>>);

impl Storage for Memory {
    fn commit(&self, batches: &[&[Write]]) -> Result<(), StorageError> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for write in batches.iter().copied().flatten() {
            let key = (write.table, write.key.clone());
            match &write.value {
                Some(value) => entries.insert(key, value.clone()),
                None => entries.remove(&key),
            };
        }
        Ok(())
    }

    fn scan(&self, query: &Query) -> Result<Scan, StorageError> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scan = Scan { entries: Vec::new(), complete: true };
        let mut bytes = 0;
        for ((table, key), value) in entries.range((query.table, query.start.clone())..) {
            if *table != query.table || (!query.end.is_empty() && *key >= query.end) {
                break;
            }
            if bytes >= query.bytes_max {
                scan.complete = false;
                break;
            }
            bytes += key.len() + value.len();
            scan.entries.push((key.clone(), value.clone()));
        }
        Ok(scan)
    }

    fn close(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        0
    }
}

fn config(name: &str, zone: &str) -> Config {
    let text = format!(
        "[server]\nname = '{name}'\nzone = '{zone}'\nlisten = '0.0.0.0:{HTTP_PORT}'\n\
         [server.tls]\nuse_tls = false\n\
         [server.cluster]\nadvertise_addr = '{name}:3100'\nbind_addr = '0.0.0.0:3100'\n\
         key = 'NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl'\npeers = ['knot1:3100', 'knot2:3100', 'knot3:3100']\n"
    );
    let file = std::path::Path::new("knot.toml");
    Config::parse(Some((file, &text)), &BTreeMap::new(), name).expect("the configuration is right").config
}

fn platform(number: u8) -> Platform<TurmoilNetwork> {
    Platform {
        network: TurmoilNetwork,
        storage: Arc::new(Memory::default()),
        node_key: NodeKey::from_bytes([number; 32]),
        token: TOKEN.into(),
        tls: None,
        seed: [number + 100; 32],
        wall: Arc::new(|| Wall(i64::try_from(turmoil::elapsed().as_millis()).unwrap_or(i64::MAX))),
        simulated: Some(Simulated {
            commit_takes: Arc::new(|| Duration::ZERO),
            tune: Arc::new(|_| {}),
            faults: knot_engine::Faults::default(),
            defect: None,
        }),
    }
}

/// One request on a connection of its own.
async fn ask(server: &str, method: &str, path: &str, body: Option<Value>) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect((server, HTTP_PORT)).await?;
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {server}\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    let (head, body) = reply.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

async fn alive(server: &str) -> usize {
    match ask(server, "GET", "/api/cluster?status=alive", None).await {
        Ok((200, reply)) => reply["data"].as_array().map_or(0, Vec::len),
        Ok(_) | Err(_) => 0,
    }
}

async fn root(server: &str) -> Option<Value> {
    let (_, status) = ask(server, "GET", "/api/cluster/status", None).await.ok()?;
    let scopes = status["scopes"].as_array()?.clone();
    scopes.into_iter().find(|scope| scope["scope"] == "global").map(|scope| scope["root"].clone())
}

/// Polls in simulated time.
async fn until<F: Future<Output = bool>>(what: &str, limit: Duration, mut condition: impl FnMut() -> F) {
    let deadline = turmoil::elapsed() + limit;
    while !condition().await {
        assert!(turmoil::elapsed() < deadline, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn put(server: &str, key: &str) -> io::Result<u16> {
    let path = format!("/api/documents/writes/{key}");
    Ok(ask(server, "PUT", &path, Some(json!({"from": server, "shared": {server: key}}))).await?.0)
}

async fn scenario() -> turmoil::Result {
    until("every server sees three", Duration::from_secs(20), || async {
        let mut seen = 0;
        for (server, _) in SERVERS {
            seen += alive(server).await;
        }
        seen == 9
    })
    .await;
    let mut acknowledged = Vec::new();
    turmoil::partition("knot1", "knot2");
    turmoil::partition("knot1", "knot3");
    let healed_at = turmoil::elapsed() + PARTITION;
    let mut number = 0;
    while turmoil::elapsed() < healed_at {
        for (server, _) in SERVERS {
            // A key of its own, and one that both sides of the cut make at once.
            let shared = (server != "knot3").then(|| format!("shared-{number}"));
            for key in std::iter::once(format!("{server}-{number}")).chain(shared) {
                let status = put(server, &key).await?;
                assert!(matches!(status, 200 | 201), "{server} takes writes while it is cut off, not {status}");
                acknowledged.push(key);
            }
        }
        number += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(alive("knot1").await, 1, "the cut was noticed");
    turmoil::repair("knot1", "knot2");
    turmoil::repair("knot1", "knot3");
    until("equal roots after the healing", CONVERGENCE, || async {
        let roots = [root("knot1").await, root("knot2").await, root("knot3").await];
        roots.iter().all(|root| root.is_some() && *root == roots[0])
    })
    .await;
    for key in &acknowledged {
        for (server, _) in SERVERS {
            let (status, value) = ask(server, "GET", &format!("/api/documents/writes/{key}"), None).await?;
            assert_eq!(status, 200, "{server} has {key}");
            if key.starts_with("shared") {
                // Both sides made the nested map; a read shows their union.
                assert_eq!(value["shared"], json!({"knot1": key, "knot2": key}), "{server} merged {key}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_partition_heals_with_every_write_on_every_server() {
    let mut sim = turmoil::Builder::new()
        .simulation_duration(Duration::from_secs(300))
        .tick_duration(Duration::from_millis(5))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(4_096)
        .udp_capacity(4_096)
        .epoch(UNIX_EPOCH)
        .rng_seed(7)
        .build();
    for (number, (name, zone)) in (1..).zip(SERVERS) {
        sim.host(name, move || async move {
            let (ready, _) = oneshot::channel();
            let (_running, shutdown) = watch::channel(false);
            run(config(name, zone), platform(number), ready, shutdown).await?;
            Ok(())
        });
    }
    sim.client("client", scenario());
    sim.run().expect("the scenario holds");
}
