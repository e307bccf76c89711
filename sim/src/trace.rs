//! A running hash over everything that happens, so that two runs can be compared, and whoever watches.

use std::fmt;

use knot_engine::Instant;

use crate::watch::{Observed, Observer, Watch};

/// Bytes gathered before they are hashed together.
const BUFFER_BYTES: usize = 8_192;

/// Where log lines go.
pub type Sink = Box<dyn FnMut(&str)>;

/// The trace of one run.
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    events: u64,
    log: Option<Sink>,
    every_event: bool,
    observer: Option<Box<dyn Observer>>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("events", &self.events).finish_non_exhaustive()
    }
}

impl Trace {
    /// An empty trace that also tells `watch`.
    #[must_use]
    pub(crate) fn new(watch: Watch) -> Self {
        let Watch { log, every_event, observer, until: _ } = watch;
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Self { hasher: blake3::Hasher::new(), buffer, events: 0, log, every_event, observer }
    }

    /// Adds an event: when, where, what and its content.
    pub(crate) fn add(&mut self, now: Instant, node: usize, what: &str, content: &[u8]) {
        self.events += 1;
        self.buffer.extend_from_slice(&now.as_micros().to_le_bytes());
        self.buffer.extend_from_slice(&(node as u64).to_le_bytes());
        self.buffer.extend_from_slice(what.as_bytes());
        self.buffer.extend_from_slice(&(content.len() as u64).to_le_bytes());
        self.buffer.extend_from_slice(content);
        if self.buffer.len() >= BUFFER_BYTES {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
        if self.every_event {
            self.log(now, node, || event_line(what, content));
        }
    }

    /// Writes a line to the log, if there is one. The text is made only then.
    pub(crate) fn log(&mut self, now: Instant, node: usize, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log(&format!("{now:>14} n{node:<2} {}", line()));
        }
    }

    /// Tells the observer, if there is one. What it is told is made only then.
    pub(crate) fn observe(&mut self, now: Instant, what: impl FnOnce() -> Observed) {
        if let Some(observer) = &mut self.observer {
            observer.observe(now, what());
        }
    }

    /// Whether anybody is told what happens as data.
    #[must_use]
    pub(crate) fn is_observed(&self) -> bool {
        self.observer.is_some()
    }

    /// How many events there were.
    #[must_use]
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// The hash of all events so far.
    #[must_use]
    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.buffer);
        *hasher.finalize().as_bytes()
    }
}

/// An event of the hash as a line: short content in full, longer by its length and the start of its hash.
fn event_line(what: &str, content: &[u8]) -> String {
    match content.len() {
        0 => format!("| {what}"),
        1..=8 => format!("| {what} {}", content.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        bytes => format!("| {what} {bytes} B {}", &blake3::hash(content).to_hex()[..12]),
    }
}
