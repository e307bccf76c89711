//! Writers: so many connections, each with one write at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::nodes::{self, Node};

/// Bytes of each document's JSON.
pub(crate) const DOCUMENT_BYTES: usize = 300;
/// How often a replica is asked how far it is.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Elapsed(Duration),
    Written(usize),
}

/// What the writers saw.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) latencies: Vec<Duration>,
    /// When each write was acknowledged, in that order.
    pub(crate) acknowledged: Vec<Instant>,
    pub(crate) took: Duration,
}

impl Run {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}

/// Writes new documents to `node` over so many connections.
pub(crate) async fn write(node: &Node, collection: &'static str, connections: usize, until: Until) -> Run {
    let next = Arc::new(AtomicUsize::new(0));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut writers = JoinSet::new();
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(node.connect().await);
    }
    let start = Instant::now();
    for mut connection in open {
        let (next, acknowledged) = (next.clone(), acknowledged.clone());
        writers.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let more = match until {
                    Until::Elapsed(time) => start.elapsed() < time,
                    Until::Written(count) => number < count,
                };
                if !more {
                    return latencies;
                }
                let asked = Instant::now();
                let path = format!("/api/documents/{collection}/{number:07}");
                connection.put(&path, document(number).as_bytes()).await.expect("the write is taken");
                let now = Instant::now();
                latencies.push(now - asked);
                acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(now);
            }
        });
    }
    let latencies = writers.join_all().await.into_iter().flatten().collect();
    let took = start.elapsed();
    let acknowledged = std::mem::take(&mut *acknowledged.lock().unwrap_or_else(PoisonError::into_inner));
    Run { latencies, acknowledged, took }
}

/// Notes how many documents `node` holds, again and again, until it holds `goal` more than at the start. A goal that is
/// not known yet is none.
pub(crate) async fn watch(node: &Node, goal: Arc<Mutex<Option<usize>>>) -> Vec<(Instant, usize)> {
    let mut connection = node.connect().await;
    let (before, _) = nodes::global(&mut connection).await;
    let mut seen = Vec::new();
    loop {
        let (documents, _) = nodes::global(&mut connection).await;
        let new = documents - before;
        seen.push((Instant::now(), new));
        if goal.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|goal| new >= goal) {
            return seen;
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// How long the oldest acknowledged write that a replica did not have had been waiting, at worst.
pub(crate) fn greatest_lag(acknowledged: &[Instant], seen: &[(Instant, usize)]) -> Duration {
    let lag =
        |(at, count): &(Instant, usize)| acknowledged.get(*count).map(|first| at.saturating_duration_since(*first));
    seen.iter().filter_map(lag).max().unwrap_or_default()
}

/// A user of [`DOCUMENT_BYTES`] bytes, most of them text that does not compress well.
pub(crate) fn document(number: usize) -> String {
    let head = format!(
        r#"{{"name":"User {number:07}","email":"user{number:07}@example.org","active":true,"roles":["editor","viewer"],"quota":{{"spaces":{},"hours":40}},"note":""#,
        number % 10
    );
    let mut text = head;
    let mut state = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while text.len() < DOCUMENT_BYTES - 2 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push(char::from(b"abcdefghijklmnopqrstuvwxyz 012345"[(state % 33) as usize]));
    }
    text + "\"}"
}
