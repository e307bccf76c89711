//! `knot-sim scale`.

use std::time::Duration;

use clap::Args;
use knot_engine::membership::MEMBERS_MAX;

use super::output::{number, print, print_json, table, text_of};
use super::{CliError, Exit};
use crate::scale::{JOIN_MAX, Meter, Row, measure};

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  knot-sim scale
  knot-sim scale --nodes 3000,10000 --json";

#[derive(Debug, Args)]
pub(super) struct ScaleArgs {
    /// Servers of each cluster to measure
    #[arg(long, value_delimiter = ',', default_value = "10,30,100,300,1000")]
    nodes: Vec<usize>,
    /// Zones; 3 to 19 otherwise, more in larger clusters
    #[arg(long)]
    zones: Option<usize>,
    /// Where every draw comes from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn perform(args: &ScaleArgs) -> Result<Exit, CliError> {
    if let Some(nodes) = args.nodes.iter().find(|nodes| !(NODES_MIN..=MEMBERS_MAX).contains(*nodes)) {
        let message = format!("a cluster to measure has {NODES_MIN} to {MEMBERS_MAX} servers, not {nodes}");
        return Err(CliError::Usage(message));
    }
    let mut rows = Vec::new();
    for &nodes in &args.nodes {
        let zones = args.zones.unwrap_or_else(|| zones_of(nodes));
        rows.push(measure(nodes, zones, args.seed, &Process));
        eprintln!("{nodes} servers are measured");
    }
    if args.json {
        print_json(&rows)?;
    } else {
        print_table(&rows)?;
    }
    Ok(Exit::held(rows.iter().all(|row| row.broken.is_none())))
}

const NODES_MIN: usize = 4;

/// 3 zones for 10 servers, one more for each doubling or so, 19 for 10,000.
fn zones_of(nodes: usize) -> usize {
    match nodes {
        0..=10 => 3,
        11..=30 => 4,
        31..=100 => 5,
        101..=300 => 7,
        301..=1_000 => 10,
        1_001..=3_000 => 14,
        _ => 19,
    }
}

const HEADS: [&str; 13] = [
    "nodes", "zones", "join all", "join one", "crash", "record", "push", "B/s", "most", "frames", "streams", "kB/node",
    "CPU/s",
];

fn print_table(rows: &[Row]) -> Result<(), CliError> {
    let mut lines = table(&HEADS);
    for row in rows {
        let time = |ms: Option<u64>| match ms {
            Some(ms) => format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10),
            None => "-".to_owned(),
        };
        let join = if row.nodes > JOIN_MAX { "met".to_owned() } else { time(row.join_all_ms) };
        let cells = [
            row.nodes.to_string(),
            row.zones.to_string(),
            join,
            time(row.join_one_ms),
            time(row.crash_ms),
            time(row.record_ms),
            time(row.push_ms),
            row.idle_bytes.0.to_string(),
            row.idle_bytes.1.to_string(),
            row.idle_frame_bytes.to_string(),
            row.streams.to_string(),
            (row.memory_bytes / 1_000).to_string(),
            format!("{} ms", row.cpu_ms),
        ];
        lines.add_row(cells.map(number));
    }
    print(text_of(lines))?;
    for row in rows.iter().filter(|row| row.false_failures > 0) {
        print(format!("{} times one of {} was declared failed that was well", row.false_failures, row.nodes))?;
    }
    for (nodes, broken) in rows.iter().filter_map(|row| Some((row.nodes, row.broken.as_ref()?))) {
        print(format!("{nodes} servers broke a promise: {broken}"))?;
    }
    print(NOTES)
}

const NOTES: &str = "\
Times are simulated, to 10 ms: all start at once and see all; one more starts; one is killed and all see it failed; it
starts elsewhere and all know where; a change is on every disk. B/s are bytes of datagrams that an idle server sends, the
mean and the most of any; frames are those in streams. kB/node is resident memory over servers, simulator and disks
included. CPU/s is processor time for a simulated second of the idle cluster. Where it says met, the servers know each
other from the start, as after a long time; nobody joins but the one.";

/// This process, as Linux tells.
struct Process;

impl Meter for Process {
    fn cpu(&self) -> Duration {
        // User and system time in ticks, of which every Linux has a hundred in a second.
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
        kib.unwrap_or(0) * 1_024
    }
}
