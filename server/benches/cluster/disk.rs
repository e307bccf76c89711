//! What the machine's disk can do: the floor under every durable write.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::report::{Report, percentile};

const APPEND_BYTES: usize = 4 << 10;
const APPENDS: usize = 500;

pub(crate) fn run(report: &mut Report) {
    Report::progress("the disk");
    let mut samples = appends();
    report.time("fsync", "4 KiB append made durable, p50", percentile(&mut samples, 50), &[]);
    report.time("fsync", "4 KiB append made durable, p99", percentile(&mut samples, 99), &[]);
}

/// The median time of one append and its `fdatasync`.
pub(crate) fn fsync() -> Duration {
    percentile(&mut appends(), 50)
}

fn appends() -> Vec<Duration> {
    let mut file = tempfile::tempfile().expect("a temporary file can be made");
    let block = [0x5a; APPEND_BYTES];
    let append = |_| {
        let start = Instant::now();
        file.write_all(&block).and_then(|()| file.sync_data()).expect("the temporary file can be written");
        start.elapsed()
    };
    (0..APPENDS).map(append).collect()
}
