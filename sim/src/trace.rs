//! A running hash over everything that happens, so that two runs can be compared, and a log for people.

use std::fmt;

use knot_engine::Instant;

/// Bytes gathered before they are hashed together.
const BUFFER_BYTES: usize = 8_192;

/// Where log lines go.
pub type Sink = Box<dyn FnMut(&str)>;

/// The trace of one run.
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    events: u64,
    sink: Option<Sink>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("events", &self.events).finish_non_exhaustive()
    }
}

impl Trace {
    /// An empty trace that also writes its events to `sink`, if there is one.
    #[must_use]
    pub(crate) fn new(sink: Option<Sink>) -> Self {
        Self { hasher: blake3::Hasher::new(), buffer: Vec::with_capacity(BUFFER_BYTES), events: 0, sink }
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
    }

    /// Writes a line to the log, if there is one. The text is made only then.
    pub(crate) fn log(&mut self, now: Instant, node: usize, line: impl FnOnce() -> String) {
        if let Some(sink) = &mut self.sink {
            sink(&format!("{now:>14} n{node:<2} {}", line()));
        }
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
