//! How soon a write on one server can be read on all three.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::load;
use crate::nodes::{self, Node, Paths};
use crate::report::{Against, Report, percentile};

const WRITES: usize = 300;
const WARM_UP: usize = 20;
const PACE: Duration = Duration::from_millis(20);
/// How long a replica may take to hear of a write.
const PATIENCE: Duration = Duration::from_secs(30);
/// One way between two servers.
const DISTANCE: Duration = Duration::from_millis(40);

pub(crate) async fn near(report: &mut Report) {
    Report::progress("visible on all three");
    let nodes = nodes::cluster(Paths::Direct).await;
    let against = [("bound", 2.5), ("etcd", 2.95), ("Corrosion", 10.4)];
    measure(report, "visible", &nodes, &against, &[]).await;
}

pub(crate) async fn far(report: &mut Report) {
    Report::progress("visible on all three, 40 ms one way");
    let nodes = nodes::cluster(Paths::Proxied(DISTANCE)).await;
    let against = [("bound", 45.0), ("etcd", 123.0), ("Corrosion", 337.0), ("light", 40.0)];
    measure(report, "far", &nodes, &against, &[("etcd", 82.0)]).await;
}

async fn measure(report: &mut Report, part: &'static str, nodes: &[Node], visible: &[Against], write: &[Against]) {
    let mut samples = Samples::default();
    let mut readers = JoinSet::new();
    let mut heard = Vec::new();
    for node in &nodes[1..] {
        let mut feed = node.connect().await.changes().await.expect("the feed opens");
        feed.skip_snapshot().await.expect("the feed goes on");
        let (tell, told) = mpsc::channel(WRITES);
        heard.push(told);
        readers.spawn(async move {
            while let Ok(news) = feed.next().await {
                if tell.send(news).await.is_err() {
                    return;
                }
            }
        });
    }
    let mut connection = nodes[0].connect().await;
    for number in 0..WARM_UP + WRITES {
        let key = format!("{number:07}");
        let body = load::document(number);
        let start = Instant::now();
        connection.put(&format!("/api/documents/{part}/{key}"), body.as_bytes()).await.expect("the write is taken");
        let mut last = Instant::now();
        let acknowledged = last - start;
        for told in &mut heard {
            last = last.max(arrival(told, &key).await);
        }
        if number >= WARM_UP {
            samples.written.push(acknowledged);
            samples.visible.push(last - start);
        }
        tokio::time::sleep_until((start + PACE).into()).await;
    }
    readers.shutdown().await;
    report.time(part, "visible on all, p50", percentile(&mut samples.visible, 50), visible);
    report.time(part, "visible on all, p99", percentile(&mut samples.visible, 99), &[]);
    report.time(part, "the write itself, p50", percentile(&mut samples.written, 50), write);
}

#[derive(Debug, Default)]
struct Samples {
    written: Vec<Duration>,
    visible: Vec<Duration>,
}

/// When a feed told of `key`.
async fn arrival(told: &mut mpsc::Receiver<(String, Instant)>, key: &str) -> Instant {
    let wait = async {
        loop {
            let (found, at) = told.recv().await.expect("the feed goes on");
            if found == key {
                return at;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the write arrives")
}
