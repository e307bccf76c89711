//! How many durable writes a second one server of three takes, and what each costs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::disk;
use crate::load::{self, Run, Until};
use crate::nodes::{self, Node, Paths};
use crate::process::Cpu;
use crate::report::{Better, Report, millis, percentile};

const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
const TIME: Duration = Duration::from_secs(10);
const PART: &str = "writes";
/// The thread that writes to disk.
const COMMITTER: &str = "committer";

pub(crate) async fn run(report: &mut Report) {
    let fsync = millis(disk::fsync());
    let nodes = nodes::cluster(Paths::Direct).await;
    load::write(&nodes[0], "warm", CONNECTIONS, Until::Elapsed(WARM_UP)).await;

    Report::progress("durable writes, one connection");
    let mut one = load::write(&nodes[0], "one", 1, Until::Elapsed(TIME / 2)).await;
    let against = [("bound", fsync + 0.5), ("Corrosion", 0.93), ("etcd", 0.82), ("fsync", fsync)];
    report.time(PART, "1 connection, p50", percentile(&mut one.latencies, 50), &against);
    report.time(PART, "1 connection, p99", percentile(&mut one.latencies, 99), &[]);

    Report::progress("durable writes, 32 connections");
    let before = Costs::of(&nodes).await;
    let (mut many, lag) = watched(&nodes).await;
    let after = Costs::of(&nodes).await;
    let against = [("bound", 5_500.0), ("aim", 8_000.0), ("Corrosion", 704.0), ("etcd", 5_058.0)];
    report.add(PART, "32 connections", many.per_second(), "/s", Better::More, &against);
    report.time(PART, "32 connections, p50", percentile(&mut many.latencies, 50), &[]);
    report.time(PART, "32 connections, p99", percentile(&mut many.latencies, 99), &[]);
    report.add(PART, "greatest lag of a replica", lag.as_secs_f64(), "s", Better::Less, &[("bound", 1.0)]);
    costs(report, &before, &after, many.latencies.len());
}

/// Writes to the first server while the others are asked how far they are.
async fn watched(nodes: &[Node]) -> (Run, Duration) {
    let goal = Arc::new(Mutex::new(None));
    let writing = async {
        let run = load::write(&nodes[0], "many", CONNECTIONS, Until::Elapsed(TIME)).await;
        *goal.lock().unwrap_or_else(PoisonError::into_inner) = Some(run.latencies.len());
        run
    };
    let (first, second) = (load::watch(&nodes[1], goal.clone()), load::watch(&nodes[2], goal.clone()));
    let (run, first, second) = tokio::join!(writing, first, second);
    let lag = [first, second].iter().map(|seen| load::greatest_lag(&run.acknowledged, seen)).max();
    (run, lag.unwrap_or_default())
}

/// What a server has used so far.
#[derive(Clone, Copy, Debug)]
struct Costs {
    whole: Cpu,
    committer: Cpu,
    /// Transactions of its storage, each with one sync.
    commits: f64,
}

impl Costs {
    async fn of(nodes: &[Node]) -> Vec<Self> {
        let mut all = Vec::new();
        for node in nodes {
            let commits = nodes::counter(&mut node.connect().await, "knot_batches_total").await;
            let (whole, committer) = (Cpu::of(node.pid()), Cpu::of_threads(node.pid(), COMMITTER));
            all.push(Self { whole, committer, commits });
        }
        all
    }
}

/// Processor time a write, by server, and how much of it the committer's thread took.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn costs(report: &mut Report, before: &[Costs], after: &[Costs], writes: usize) {
    let each = |micros: u64| micros as f64 / writes.max(1) as f64;
    for ((role, before), after) in ["writer", "replica 1", "replica 2"].iter().zip(before).zip(after) {
        for (what, cpu) in
            [("all threads", after.whole.since(before.whole)), ("committer", after.committer.since(before.committer))]
        {
            for (kind, micros) in [("user", cpu.user_us), ("system", cpu.system_us)] {
                report.add("cpu", format!("{role}, {what}, {kind}"), each(micros), "us/write", Better::Less, &[]);
            }
        }
        let commits = (after.commits - before.commits).max(1.0);
        report.add("cpu", format!("{role}, writes a commit"), writes as f64 / commits, "", Better::More, &[]);
    }
}
