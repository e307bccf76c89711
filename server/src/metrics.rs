//! What Prometheus reads: counts of requests, and a sample of the engine taken for each scrape.
//!
//! Each server has its own; nothing is global, so that many servers can run in one process.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::api::status_name;
use crate::handle::ServerEngine;

/// Upper bounds of the request latency histogram, in seconds.
const LATENCY_BUCKETS_S: [f64; 12] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// A request as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Route {
    method: &'static str,
    route: &'static str,
}

impl Route {
    /// A request of this method to an operation's path, as it is written with its names and keys left out.
    #[must_use]
    pub fn new(method: &Method, route: &'static str) -> Self {
        const METHODS: [&str; 6] = ["GET", "PUT", "PATCH", "DELETE", "POST", "HEAD"];
        Self { method: METHODS.into_iter().find(|name| *name == method.as_str()).unwrap_or("other"), route }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    method: &'static str,
    route: &'static str,
    status: u16,
}

/// One server's metrics.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<Answer, Counter>,
    latency: Histogram,
    /// Connections that are open.
    connections: Gauge,
    /// Connections that were refused, the cap being reached.
    refused: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            latency: Histogram::new(LATENCY_BUCKETS_S),
            connections: Gauge::default(),
            refused: Counter::default(),
        }
    }
}

impl Metrics {
    /// Counts a request that was answered.
    pub fn on_response(&self, Route { method, route }: Route, status: StatusCode, took: Duration) {
        self.requests.get_or_create(&Answer { method, route, status: status.as_u16() }).inc();
        self.latency.observe(took.as_secs_f64());
    }

    /// Says how many connections are open.
    pub fn set_connections(&self, open: usize) {
        self.connections.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Counts a connection that was refused.
    pub fn on_connection_refused(&self) {
        self.refused.inc();
    }

    /// All metrics in the OpenMetrics text format, which Prometheus reads; among them when the API's certificate expires, in
    /// seconds since 1970, where there is one.
    #[must_use]
    pub fn encode(&self, engine: EngineSample, certificate_expires_s: Option<u64>) -> String {
        let mut registry = Registry::with_prefix("knot");
        self.register(&mut registry);
        if let Some(expires_s) = certificate_expires_s {
            let help = "When the certificate of the HTTP API expires, since 1970";
            let gauge = WideGauge::default();
            gauge.set(expires_s);
            registry.register_with_unit("tls_certificate_expiry_timestamp", help, Unit::Seconds, gauge);
        }
        engine.register(&mut registry);
        let mut text = String::with_capacity(16 << 10);
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &registry);
        text
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("http_requests", "HTTP requests answered", self.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from a request's head to its answer's",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register("http_connections", "HTTP connections open", self.connections.clone());
        registry.register("http_connections_refused", "HTTP connections refused at the cap", self.refused.clone());
        if let Some(bytes) = resident_bytes() {
            gauge(registry, "process_resident_memory_bytes", "Memory the process holds", bytes);
        }
    }
}

/// What the engine counts, copied at one moment.
#[derive(Debug, Default)]
pub struct EngineSample {
    traffic: Vec<(&'static str, &'static str, u64, u64)>,
    drops: Vec<(&'static str, u64)>,
    work: Vec<(&'static str, &'static str, u64)>,
    queues: Vec<(&'static str, u64, u64)>,
    scopes: Vec<(String, u64, u64)>,
    members: BTreeMap<&'static str, u64>,
    quarantined: u64,
    sequence: u64,
    disk_full: bool,
}

impl EngineSample {
    /// Copies what `engine` counts.
    #[must_use]
    pub fn of(engine: &ServerEngine) -> Self {
        let stats = engine.stats();
        let sent = stats.sent.iter().map(|(kind, traffic)| ("sent", *kind, traffic.messages, traffic.bytes));
        let received =
            stats.received.iter().map(|(kind, traffic)| ("received", *kind, traffic.messages, traffic.bytes));
        let mut members = BTreeMap::from([("alive", 0), ("suspect", 0), ("failed", 0), ("left", 0)]);
        for member in engine.members() {
            *members.entry(status_name(member.status)).or_insert(0) += 1;
        }
        Self {
            traffic: sent.chain(received).collect(),
            drops: stats.drops.iter().map(|(reason, count)| (*reason, *count)).collect(),
            work: vec![
                ("edits", "Edits asked for", stats.edits),
                ("reads", "Reads asked for", stats.reads),
                ("changes_authored", "Changes made here that became durable", stats.changes_authored),
                ("changes_received", "Changes from other servers that became durable", stats.changes_received),
                ("batches", "Batches that became durable", stats.batches),
                ("repairs", "Repairs begun", stats.repairs),
                ("quarantines", "Changes put in quarantine", stats.quarantined),
            ],
            queues: engine.queues().iter().map(|queue| (queue.name, wide(queue.depth), wide(queue.limit))).collect(),
            scopes: engine.scopes().into_iter().map(|scope| (scope.scope, scope.documents, scope.deleted)).collect(),
            members,
            quarantined: engine.quarantined_changes(),
            sequence: engine.sequence(),
            disk_full: engine.is_disk_full(),
        }
    }

    fn register(self, registry: &mut Registry) {
        let messages = counters(registry, "messages", "Protocol messages by direction and kind");
        let bytes = counters(registry, "message_bytes", "Bytes of protocol messages by direction and kind");
        for (direction, kind, count, length) in self.traffic {
            let labels = [("direction", direction), ("kind", kind)];
            messages.get_or_create(&labels.into()).inc_by(count);
            bytes.get_or_create(&labels.into()).inc_by(length);
        }
        let drops = counters(registry, "drops", "What was dropped, by reason");
        for (reason, count) in self.drops {
            drops.get_or_create(&vec![("reason", reason)]).inc_by(count);
        }
        for (name, help, count) in self.work {
            let counter: Counter = Counter::default();
            counter.inc_by(count);
            registry.register(name, help, counter);
        }
        let depth = gauges(registry, "queue_depth", "Entries in each bounded queue");
        let limit = gauges(registry, "queue_limit", "The bound of each queue");
        for (name, entries, most) in self.queues {
            set(&depth, [("queue", name.to_owned())], entries);
            set(&limit, [("queue", name.to_owned())], most);
        }
        let documents = gauges(registry, "documents", "Documents by scope and state");
        for (scope, live, deleted) in self.scopes {
            set(&documents, [("scope", scope.clone()), ("state", "live".to_owned())], live);
            set(&documents, [("scope", scope), ("state", "deleted".to_owned())], deleted);
        }
        let members = gauges(registry, "members", "Members by status as this server sees them");
        for (status, count) in self.members {
            set(&members, [("status", status.to_owned())], count);
        }
        gauge(registry, "quarantined_changes", "Changes in quarantine", self.quarantined);
        gauge(registry, "sequence", "Document updates that became durable here", self.sequence);
        gauge(registry, "disk_full", "1 while there is no room for writes", u64::from(self.disk_full));
    }
}

type Labels = Vec<(&'static str, &'static str)>;
type OwnedLabels = Vec<(&'static str, String)>;
type WideGauge = Gauge<u64, AtomicU64>;

fn counters(registry: &mut Registry, name: &str, help: &str) -> Family<Labels, Counter> {
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

fn gauges(registry: &mut Registry, name: &str, help: &str) -> Family<OwnedLabels, WideGauge> {
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

fn set<const N: usize>(family: &Family<OwnedLabels, WideGauge>, labels: [(&'static str, String); N], value: u64) {
    family.get_or_create(&labels.into()).set(value);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = WideGauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The process's resident memory, where the system says it in `/proc`.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_not_by_key() {
        let metrics = Metrics::default();
        for _ in 0..2 {
            let route = Route::new(&Method::PUT, "/api/documents/{collection}/{key}");
            metrics.on_response(route, StatusCode::CREATED, Duration::from_micros(300));
        }
        let text = metrics.encode(EngineSample::default(), Some(7));
        let line = r#"knot_http_requests_total{method="PUT",route="/api/documents/{collection}/{key}",status="201"} 2"#;
        assert!(text.contains(line), "{text}");
        assert!(text.contains("knot_http_request_duration_seconds_count 2"), "{text}");
        assert!(text.contains("knot_tls_certificate_expiry_timestamp_seconds 7"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn what_is_unknown_is_counted_as_other() {
        let method = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(Route::new(&method, "other"), Route { method: "other", route: "other" });
    }
}
