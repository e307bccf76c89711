//! How long an empty server takes to hold what another does, and what both then take of memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::load::{self, Until};
use crate::nodes::{self, Node, Paths, Place};
use crate::report::{Better, Report};

const DOCUMENTS: usize = 100_000;
const CONNECTIONS: usize = 32;
const PART: &str = "catchup";
/// How long catching up may take.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(20);
/// How long a server is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(2);
const MEGABYTE: f64 = 1e6;

pub(crate) async fn run(report: &mut Report) {
    let place = Place::new(Paths::Proxied(Duration::ZERO));
    let address = place.advertised();
    let full = Node::start("full", nodes::ZONES[0], place, &[]);
    tokio::time::sleep(SETTLE).await;
    memory(report, "empty", &full, &[("bound", 25.0), ("Corrosion", 35.0)]);

    Report::progress("100,000 documents written");
    let run = load::write(&full, "users", CONNECTIONS, Until::Written(DOCUMENTS)).await;
    report.add(PART, "writes while alone, 32 connections", run.per_second(), "/s", Better::More, &[]);
    tokio::time::sleep(SETTLE).await;
    let bounds = [("bound", 100.0), ("Corrosion", 111.0)];
    memory(report, "100,000 written", &full, &bounds);

    Report::progress("an empty server catches up");
    let mut empty = Node::prepare("empty", nodes::ZONES[1], Place::new(Paths::Proxied(Duration::ZERO)), &[address]);
    let before = full.proxied_bytes();
    let start = Instant::now();
    empty.spawn();
    empty.wait_until_ready();
    let took = caught_up(&full, &empty, start).await;
    report.add(
        PART,
        "empty server, from its start",
        took.as_secs_f64(),
        "s",
        Better::Less,
        &[("bound", 10.0), ("Corrosion", 13.2)],
    );
    let wire = full.proxied_bytes() - before + empty.proxied_bytes();
    report.add(PART, "on the wire, both ways", bytes(wire) / MEGABYTE, "MB", Better::Less, &[("Corrosion", 26.9)]);
    for (kind, received) in received(&empty).await {
        report.add(PART, format!("received as {kind}, uncompressed"), received / MEGABYTE, "MB", Better::Less, &[]);
    }
    tokio::time::sleep(SETTLE).await;
    memory(report, "100,000 received", &empty, &bounds);
    memory(report, "100,000 written and sent", &full, &bounds);
}

fn memory(report: &mut Report, name: &str, node: &Node, against: &[(&'static str, f64)]) {
    report.add("memory", name, bytes(node.resident_bytes()) / MEGABYTE, "MB", Better::Less, against);
}

/// Waits until both have one root.
async fn caught_up(full: &Node, empty: &Node, start: Instant) -> Duration {
    let (_, root) = nodes::global(&mut full.connect().await).await;
    let mut connection = empty.connect().await;
    let wait = async {
        loop {
            let (_, found) = nodes::global(&mut connection).await;
            if found == root {
                return start.elapsed();
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("an empty server catches up")
}

/// Bytes by kind of message, from the server's own counters.
async fn received(node: &Node) -> BTreeMap<String, f64> {
    let text = node.connect().await.get("/metrics").await.expect("the server tells its metrics");
    let kind = |line: &str| {
        let (labels, count) = line.strip_prefix("knot_message_bytes_total{")?.split_once("} ")?;
        let kind = labels.contains(r#"direction="received""#).then(|| labels.split_once(r#"kind=""#))??.1;
        Some((kind.trim_end_matches('"').to_owned(), count.parse().ok()?))
    };
    text.lines().filter_map(kind).collect()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn bytes(count: u64) -> f64 {
    count as f64
}
