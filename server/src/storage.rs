//! The disk behind the engine: ordered bytes, atomic durable batches, and nothing else.
//!
//! [`Storage`] is small so that a simulator's disk can stand in for [`JournaledStorage`]. What a key or a value means is the
//! engine's affair.
//!
//! Two promises hold for every implementation. A commit that returned `Ok` survives a power cut. A commit that returned
//! an error has left nothing behind once the store is next read, unless the error is [`StorageError::Failed`]: then
//! nobody knows, and the process must stop acknowledging and exit.

mod backend;
mod journal;
mod journaled;
mod redb;
mod secrets;
#[cfg(test)]
mod testing;
mod verify;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
pub use knot_engine::storage::{Query, Table, Write};

pub use self::journaled::JournaledStorage;
pub use self::redb::{CACHE_BYTES, FILE_NAME, FORMAT_VERSION, JOURNAL_NAME, RedbStorage};
pub(crate) use self::secrets::base64url;
pub use self::secrets::{
    ADMIN_TOKEN_FILE, NODE_KEY_FILE, SecretError, admin_token, node_key, read_admin_token, write_private, write_whole,
};

/// An ordered key-value store with durable batches. Whatever can be read of it is durable, from the moment it is open.
pub trait Storage: Send + Sync + 'static {
    /// Applies every batch, in order, in one transaction with one sync. On `Ok` all of it is durable.
    ///
    /// # Errors
    /// [`StorageError::Full`] has changed nothing, and a later call may succeed with no help. After
    /// [`StorageError::Failed`] every later call fails as well.
    fn commit(&self, batches: &[&[Write]]) -> Result<(), StorageError>;

    /// Reads a range in key order, from one snapshot.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan(&self, query: &Query) -> Result<Scan, StorageError>;

    /// Ends the run cleanly. Every later call fails.
    ///
    /// # Errors
    /// When the mark cannot be made durable; the next start is then an unclean one.
    fn close(&self) -> Result<(), StorageError>;

    /// Bytes that the store takes on disk.
    fn size_bytes(&self) -> u64;

    /// The damage to what is stored that some call has met, if one has: no later start can do better.
    fn damage(&self) -> Option<StorageError>;
}

/// What a range held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Keys with values, in key order.
    pub entries: Vec<(Bytes, Bytes)>,
    /// False when `bytes_max` cut the range short: go on after the last key.
    pub complete: bool,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another process has the folder.
    #[error("{} is in use by another knot server{}", data_dir.display(), Pid(*pid))]
    Locked {
        /// The folder.
        data_dir: PathBuf,
        /// The other process, where it said so.
        pid: Option<u32>,
    },
    /// The disk, or the quota on it, is full. Nothing was changed.
    #[error("no space left for the data")]
    Full,
    /// The disk failed a write or a sync: what is on it is unknown until the next start.
    #[error("the disk failed: {0}")]
    Failed(#[source] io::Error),
    /// What is stored cannot be read as a store.
    #[error(
        "the stored data is damaged: {0}; move {FILE_NAME} and {JOURNAL_NAME} out of the data folder and start again: \
         everything comes back from the other servers, or restore both from a copy"
    )]
    Corrupt(String),
    /// The store was written by another version of knot.
    #[error("the data has format {found}, and this version of knot knows up to {known}")]
    Version {
        /// The format found.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// The folder cannot be made or opened.
    #[error("cannot open {}: {source}", path.display())]
    Unavailable {
        /// What was being opened.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store was closed before.
    #[error("the store is closed")]
    Closed,
}

impl StorageError {
    /// Whether the process must stop acknowledging, and exit.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Full)
    }
}

struct Pid(Option<u32>);

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, " (pid {pid})"),
            None => Ok(()),
        }
    }
}
