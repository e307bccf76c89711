//! What the engine asks of a disk: an ordered key-value store with atomic, durable batches.
//!
//! The layout of keys and values is the engine's (see `replication/records.rs`), so a store has nothing to know but
//! bytes, and a simulator's disk is as good as a real one.

use bytes::Bytes;

/// A namespace of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// This node's own facts: cluster id, starts, members.
    Meta,
    /// One record a document: its name, heads and counts. Read whole at a start.
    Documents,
    /// The log: raw changes by document, in an order in which each follows its dependencies.
    Changes,
}

impl Table {
    /// All tables, in the order in which a start reads them.
    pub const ALL: [Self; 3] = [Self::Meta, Self::Documents, Self::Changes];
}

/// One key's new value, or its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub table: Table,
    /// At most 64 bytes.
    pub key: Bytes,
    /// None removes the key.
    pub value: Option<Bytes>,
}

/// A range of keys to read, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Where.
    pub table: Table,
    /// The first key.
    pub start: Bytes,
    /// The end, which is not read; empty for no end.
    pub end: Bytes,
    /// Stop after the entry that brings keys and values to this many bytes. At least one entry is read.
    pub bytes_max: usize,
}
