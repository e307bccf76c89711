//! Bodies of PUT and PATCH, from the HTTP API's router through a whole server's driver into a document.
//!
//! The first byte of an input chooses what the document is before, the second the kind of request; the rest is the body.
//! The server answers with what its manual has, never with a failure of its own. What it took reads back, and what it
//! refused has changed nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use knot_engine::{Faults, NodeKey, Wall};
use knot_server::api::{self, ApiState};
use knot_server::config::{Config, Trust};
use knot_server::metrics::Metrics;
use knot_server::net::{Datagrams, Listener, Network};
use knot_server::simulated::Simulated;
use knot_server::storage::{Query, Scan, Storage, StorageError, Table, Write};
use knot_server::websocket::Dialer;
use knot_server::{Platform, run as run_server};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tower::ServiceExt;

use crate::Target;

/// What a body becomes as JSON, as a document, in its trials and as an answer.
pub const TARGET: Target = Target { name: "body", run, memory_bytes_max: 48 << 20, memory_bytes_per_byte: 4_096 };

/// Inputs after which the server is replaced by a new one: what it holds grows.
const INPUTS_A_SERVER: u32 = 2_000;
const TOKEN: &str = "the-token";

/// What a request is.
const KINDS: [(Method, &str); 6] = [
    (Method::PUT, "application/json"),
    (Method::PATCH, "application/merge-patch+json"),
    (Method::PATCH, "application/json-patch+json"),
    (Method::PATCH, "application/vnd.knot.increment+json"),
    (Method::PATCH, "text/plain"),
    (Method::PUT, ""),
];

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

/// 1 where the body was taken.
fn run(input: &[u8]) -> usize {
    let [before, kind, body @ ..] = input else { return 0 };
    SERVER.with_borrow_mut(|server| {
        if server.as_ref().is_none_or(|server| server.inputs >= INPUTS_A_SERVER) {
            *server = None;
        }
        server.get_or_insert_with(Server::start).take(*before, &KINDS[usize::from(*kind) % KINDS.len()], body)
    })
}

/// A server without sockets, on one thread.
struct Server {
    runtime: Runtime,
    router: Router,
    inputs: u32,
    _shutdown: watch::Sender<bool>,
    _stopping: watch::Sender<bool>,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let variables = BTreeMap::from([("KNOT_LISTEN".to_owned(), "127.0.0.1:3000".to_owned())]);
        let config = Config::parse(Some((Path::new("knot.toml"), "")), &variables, "fuzzed").expect("a configuration");
        let simulated = Simulated {
            commit_takes: Arc::new(|| Duration::ZERO),
            tune: Arc::new(|_| {}),
            faults: Faults::default(),
            defect: None,
            containers: None,
        };
        let platform = Platform {
            network: Nowhere,
            storage: Arc::new(Memory::default()),
            node_key: NodeKey::from_bytes([1; 32]),
            token: TOKEN.into(),
            tls: None,
            reload: None,
            dialer: Dialer::new(&Trust { skip_verify: true, ..Trust::default() }).expect("it reads nothing"),
            seed: [2; 32],
            wall: Arc::new(|| Wall(1)),
            simulated: Some(simulated),
        };
        let (shutdown, down) = watch::channel(false);
        let (stopping, stopped) = watch::channel(false);
        let (ready, running) = oneshot::channel();
        runtime.spawn(run_server(config.config, platform, ready, down));
        let running = runtime.block_on(running).expect("the server starts");
        let router = runtime.block_on(async {
            api::router(ApiState {
                handle: running.handle,
                accounts: running.accounts,
                spaces: running.spaces,
                trusted_proxies: [].into(),
                token: TOKEN.into(),
                name: "fuzzed".into(),
                zone: "fuzzed".into(),
                version: "0".into(),
                started: tokio::time::Instant::now(),
                wall: Arc::new(|| Wall(1)),
                metrics: Arc::new(Metrics::default()),
                stopping: stopped,
                stream_prefixes: Vec::new(),
                is_clustered: true,
                certificate: None,
                reload: None,
                limits: api::Limits::default(),
            })
        });
        Self { runtime, router, inputs: 0, _shutdown: shutdown, _stopping: stopping }
    }

    fn take(&mut self, before: u8, (method, content): &(Method, &str), body: &[u8]) -> usize {
        self.inputs += 1;
        let path = format!("/api/documents/fuzzed/{}", self.inputs);
        let base = base(before);
        if let Some(base) = &base {
            let put = self.ask(Method::PUT, &path, "application/json", base.to_string().into_bytes());
            assert_eq!(put.0, StatusCode::CREATED);
        }
        let (status, answer) = self.ask(method.clone(), &path, content, body.to_vec());
        assert!(!status.is_server_error(), "{status}: {}", String::from_utf8_lossy(&answer));
        let answer: Value = serde_json::from_slice(&answer).expect("answers are JSON");
        let (read, value) = self.ask(Method::GET, &path, "", Vec::new());
        let value: Value = serde_json::from_slice(&value).expect("answers are JSON");
        if !status.is_success() {
            assert!(answer["error"].is_string() && answer["hint"].is_string(), "{answer}");
            match base {
                None => assert_eq!(read, StatusCode::NOT_FOUND),
                Some(base) => assert_eq!(value, base, "a refused edit changed something"),
            }
            return 0;
        }
        assert_eq!(read, StatusCode::OK);
        assert!(value.is_object());
        if *method == Method::PUT {
            let sent: Value = serde_json::from_slice(body).expect("what was taken is JSON");
            assert!(is_same(&sent, &value), "{sent} was put and {value} is read");
        }
        1
    }

    fn ask(&self, method: Method, path: &str, content: &str, body: Vec<u8>) -> (StatusCode, Bytes) {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
        if !content.is_empty() {
            request = request.header(header::CONTENT_TYPE, content);
        }
        let request = request.body(Body::from(body)).expect("a request");
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.expect("a router has no errors of its own");
            let status = response.status();
            (status, response.into_body().collect().await.expect("a body").to_bytes())
        })
    }
}

/// What the document is before.
fn base(choice: u8) -> Option<Value> {
    match choice % 3 {
        0 => None,
        1 => Some(json!({"name": "Ann", "visits": 3, "tags": ["a", "b"], "m": {"k": [1, {"x": null}]}, "f": 1.5})),
        _ => Some(json!({"a/b": {"~": 1, "": {"": 2}}, "list": [[], {}, [[1]]], "n": -7})),
    }
}

/// Numbers that are not whole are read by serde to within their last digit.
fn is_same(sent: &Value, read: &Value) -> bool {
    match (sent, read) {
        (Value::Object(sent), Value::Object(read)) => {
            sent.len() == read.len()
                && sent.iter().all(|(key, sent)| read.get(key).is_some_and(|read| is_same(sent, read)))
        }
        (Value::Array(sent), Value::Array(read)) => {
            sent.len() == read.len() && sent.iter().zip(read).all(|(sent, read)| is_same(sent, read))
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
            (a - b).abs() <= a.abs() * 1e-15
        }
        (sent, read) => sent == read,
    }
}

/// A disk in memory.
#[derive(Debug, Default)]
struct Memory(Mutex<BTreeMap<(Table, Bytes), Bytes>>);

impl Storage for Memory {
    fn commit(&self, batches: &[&[Write]]) -> Result<(), StorageError> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Write { table, key, value } in batches.iter().copied().flatten() {
            match value {
                Some(value) => entries.insert((*table, key.clone()), value.clone()),
                None => entries.remove(&(*table, key.clone())),
            };
        }
        Ok(())
    }

    fn scan(&self, query: &Query) -> Result<Scan, StorageError> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scan = Scan { entries: Vec::new(), complete: true };
        let mut bytes = 0;
        for ((_, key), value) in entries
            .range((query.table, query.start.clone())..)
            .take_while(|((table, key), _)| *table == query.table && (query.end.is_empty() || *key < query.end))
        {
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

    fn damage(&self) -> Option<StorageError> {
        None
    }
}

/// A network with nobody on it.
#[derive(Clone, Copy, Debug)]
struct Nowhere;

impl Network for Nowhere {
    type Datagrams = Self;
    type Listener = Self;
    type Stream = DuplexStream;

    async fn bind(&self, _to: SocketAddr) -> io::Result<Self> {
        Ok(Self)
    }

    async fn listen(&self, _on: SocketAddr) -> io::Result<Self> {
        Ok(Self)
    }

    async fn connect(&self, _to: SocketAddr) -> io::Result<DuplexStream> {
        std::future::pending().await
    }

    async fn resolve(&self, _address: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(Vec::new())
    }
}

impl Datagrams for Nowhere {
    fn send(&self, _bytes: &[u8], _to: SocketAddr) {}

    async fn receive(&self, _buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        std::future::pending().await
    }
}

impl Listener for Nowhere {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 3000).into())
    }
}
