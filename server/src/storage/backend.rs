//! Where redb's bytes go, watched: redb keeps no account of which operation failed it or why, and that decides
//! whether the server carries on (no space) or stops (anything else).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use rustix::io::Errno;

use super::StorageError;

/// Bytes read and written back at a time.
const REWRITE_BYTES: usize = 256 << 10;

/// What failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// A write or a growth that had no space.
    Full,
    /// Any other failed read, write, growth or sync.
    Failed(io::Error),
}

/// A backend that several databases use one after another: redb gives up on a database after any failure, so it is
/// opened again over the same backend. Remembers the worst fault until it is taken.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    inner: Arc<dyn StorageBackend>,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl Watched {
    pub(super) fn new(inner: Arc<dyn StorageBackend>) -> Self {
        Self { inner, fault: Arc::default() }
    }

    /// What failed since it was last taken.
    pub(super) fn take_fault(&self) -> Option<Fault> {
        self.fault().take()
    }

    pub(super) fn fault(&self) -> MutexGuard<'_, Option<Fault>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes every byte back over itself, and syncs. After an unclean stop the page cache may hold what a failed sync
    /// never brought to the disk: it reads back well, and a later sync would not write it (Rebello et al., "Can
    /// Applications Recover from fsync Failures?", ATC 2020). Zeros are left alone: every page of redb's begins with its
    /// kind, so they hold none, and most are holes that would start to take space.
    pub(super) fn rewrite(&self) -> Result<(), StorageError> {
        self.write_back().map_err(full_or_failed)?;
        self.inner.sync_data().map_err(StorageError::Failed)
    }

    fn write_back(&self) -> io::Result<()> {
        let end = self.inner.len()?;
        let mut buffer = vec![0; REWRITE_BYTES];
        let mut offset = 0;
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let chunk = &mut buffer[..left.min(REWRITE_BYTES)];
            self.inner.read(offset, chunk)?;
            if chunk.iter().any(|byte| *byte != 0) {
                self.inner.write(offset, chunk)?;
            }
            offset += chunk.len() as u64;
        }
        Ok(())
    }

    // redb carries on after a write that it tries ahead of time and that finds no space, so a failure may follow.
    fn note(&self, result: io::Result<()>, syncing: bool) -> io::Result<()> {
        let Err(error) = result else { return Ok(()) };
        if syncing || !is_no_space(&error) {
            *self.fault() = Some(Fault::Failed(copy(&error)));
        } else {
            self.fault().get_or_insert(Fault::Full);
        }
        Err(error)
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let result = self.inner.read(offset, out);
        match &result {
            // Reading past the end is damage, which is told apart by not being the system's error.
            Err(error) if error.raw_os_error().is_none() => result,
            _ => self.note(result, false),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(self.inner.set_len(len), false)
    }

    // A sync that finds no space has dropped pages already, so it is as bad as any failed sync.
    fn sync_data(&self) -> io::Result<()> {
        self.note(self.inner.sync_data(), true)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(self.inner.write(offset, data), false)
    }
}

/// The file itself. Who may open it is settled by the folder's lock, so redb is given none.
#[derive(Debug)]
pub(super) struct DataFile(pub(super) File);

impl StorageBackend for DataFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// Whether the disk or the quota on it is full.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(Errno::NOSPC.raw_os_error()) || code == Some(Errno::DQUOT.raw_os_error())
}

pub(super) fn full_or_failed(error: io::Error) -> StorageError {
    if is_no_space(&error) { StorageError::Full } else { StorageError::Failed(error) }
}

pub(super) fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
