//! How a campaign goes, while it goes: one line that is written anew on a terminal, a line now and then elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use knot_engine::marks::MARKS;

use crate::campaign::Progress;

/// Between two lines where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// Between two states of the line on a terminal.
const LIVE_EVERY: Duration = Duration::from_millis(100);
/// Goes to the start of a line and clears it.
const AGAIN: &str = "\r\x1b[2K";

/// Where progress is shown.
#[derive(Debug)]
pub(super) struct ProgressLine {
    is_live: bool,
    shown: Mutex<Option<Instant>>,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        Self { is_live: std::io::stderr().is_terminal(), shown: Mutex::new(None) }
    }

    pub(super) fn show(&self, progress: &Progress) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let every = if self.is_live { LIVE_EVERY } else { PLAIN_EVERY };
        let is_last = progress.of == Some(progress.runs);
        // The first plain line comes when there is something to tell.
        let last = *shown.get_or_insert_with(|| if self.is_live { Instant::now() - every } else { Instant::now() });
        if last.elapsed() < every && !is_last {
            return;
        }
        *shown = Some(Instant::now());
        let line = text(progress);
        let mut err = std::io::stderr().lock();
        // Progress that nobody can see is no reason to stop.
        let _ = if self.is_live {
            write!(err, "{AGAIN}{line}").and_then(|()| err.flush())
        } else {
            writeln!(err, "{line}")
        };
    }

    /// Writes lines above the progress.
    pub(super) fn say(&self, lines: &str) {
        let _shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        self.clear();
        eprintln!("{lines}");
    }

    /// Takes the line off the terminal.
    pub(super) fn clear(&self) {
        if self.is_live {
            eprint!("{AGAIN}");
        }
    }
}

fn text(progress: &Progress) -> String {
    let mut line = match (progress.of, progress.lasting) {
        (Some(of), _) => format!("{} of {of} seeds", progress.runs),
        (None, Some(lasting)) => {
            format!("{} seeds in {} of {}", progress.runs, time(progress.elapsed), time(lasting))
        }
        (None, None) => format!("{} seeds", progress.runs),
    };
    let per_second = progress.simulated.as_secs_f64() / progress.elapsed.as_secs_f64().max(0.001);
    // Writing to a string does not fail.
    let _ = write!(line, " | {} simulated, {per_second:.0}x", time(progress.simulated));
    let _ = write!(line, " | {} faults | {} of {} marks", progress.faults, progress.marks, MARKS.len());
    let _ = write!(line, " | {} failed", progress.failures);
    line
}

/// A time as people say it: its two greatest units.
fn time(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {:02} min", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_a_campaign_is() {
        let progress = Progress {
            runs: 12,
            of: Some(100),
            elapsed: Duration::from_secs(4),
            lasting: None,
            simulated: Duration::from_secs(7_500),
            faults: 40,
            marks: 0,
            failures: 1,
        };
        let expected = format!(
            "12 of 100 seeds | 2 h 05 min simulated, 1875x | 40 faults | 0 of {} marks | 1 failed",
            MARKS.len()
        );
        assert_eq!(text(&progress), expected);
        let by_time = Progress { of: None, lasting: Some(Duration::from_secs(90)), ..progress };
        assert!(text(&by_time).starts_with("12 seeds in 4 s of 1 min 30 s | "), "{}", text(&by_time));
    }
}
