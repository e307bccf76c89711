//! Counters. They only rise, and nothing in the engine reads them.

use std::collections::BTreeMap;

use serde::Serialize;

/// Messages of one kind and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// How many.
    pub messages: u64,
    /// How many bytes, before sealing and compression.
    pub bytes: u64,
}

/// What the engine has done since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Sent, by kind of message.
    pub sent: BTreeMap<&'static str, Traffic>,
    /// Received, by kind of message.
    pub received: BTreeMap<&'static str, Traffic>,
    /// What was dropped, by reason. Each is something that repair or a retry makes up for, or a peer's fault.
    pub drops: BTreeMap<&'static str, u64>,
    /// Edits asked for.
    pub edits: u64,
    /// Reads asked for.
    pub reads: u64,
    /// Changes made here that became durable.
    pub changes_authored: u64,
    /// Changes from peers that became durable.
    pub changes_received: u64,
    /// Batches that became durable.
    pub batches: u64,
    /// Repairs begun.
    pub repairs: u64,
    /// Changes put in quarantine.
    pub quarantined: u64,
}

impl Stats {
    pub(crate) fn sent(&mut self, kind: &'static str, bytes: usize) {
        self.sent.entry(kind).or_default().add(bytes);
    }

    pub(crate) fn received(&mut self, kind: &'static str, bytes: usize) {
        self.received.entry(kind).or_default().add(bytes);
    }

    pub(crate) fn dropped(&mut self, reason: &'static str) {
        *self.drops.entry(reason).or_default() += 1;
    }

    /// Takes over what is counted elsewhere.
    pub(crate) fn dropped_so_far(&mut self, reason: &'static str, count: u64) {
        if count > 0 {
            self.drops.insert(reason, count);
        }
    }
}

impl Traffic {
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }
}

/// A queue or cache and its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Its name, with its unit.
    pub name: &'static str,
    /// What is in it.
    pub depth: usize,
    /// What may be.
    pub limit: usize,
}
