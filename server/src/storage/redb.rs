//! [`Storage`] on redb, one file in the data folder: the tree behind the journal.
//!
//! One-phase commits: one sync a transaction, and a checksum over the tree tells a torn commit from a whole one at the
//! next open. A crash in redb's first create leaves a file that does not open, so the file is made under another name,
//! synced and renamed.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableDefinition, TableError, WriteTransaction};
use rustix::fs::FallocateFlags;

use super::backend::{DataFile, Fault, Watched, copy, is_no_space};
use super::journal::JournalKey;
use super::verify::verify;
use super::{Query, Scan, Storage, StorageError, Table, Write};

/// The data file's name in the data folder.
pub const FILE_NAME: &str = "knot.redb";
/// The journal's name beside it.
pub const JOURNAL_NAME: &str = "knot.journal";
/// The format that this version writes. 1 had no journal.
pub const FORMAT_VERSION: u32 = 2;
/// The oldest format that this version reads; it becomes the newest when it is opened.
const FORMAT_VERSION_MIN: u32 = 1;
/// Memory that redb may use for pages. The kernel's page cache stands behind it, and the whole process is to stay under
/// 100 MB with 100,000 documents.
pub const CACHE_BYTES: usize = 8 << 20;

const NEW_FILE_NAME: &str = "knot.redb.new";
const LOCK_NAME: &str = "knot.lock";
const PROBE_NAME: &str = "space.probe";
/// What the lock file says after a clean end; while a server runs it holds its pid.
const CLEAN: &str = "clean\n";
/// Space that must be free before a full disk is tried again: each try that fails costs a repair of the database.
const PROBE_BYTES: u64 = 1 << 20;
/// Times that one call goes back to a reopened database before it gives up.
const ATTEMPTS_MAX: usize = 4;

const FORMAT: TableDefinition<'_, &str, u32> = TableDefinition::new("format");
const FORMAT_KEY: &str = "version";
/// What ties the journal to this file.
const JOURNAL: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("journal");
/// The key of the journal's checksums.
const JOURNAL_KEY: &str = "key";
/// The last generation of the journal that is in this file, 8 bytes, little-endian.
const JOURNAL_APPLIED: &str = "applied";

type Bin = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// A store that is one redb file.
#[derive(Debug)]
pub struct RedbStorage {
    backend: Watched,
    /// `None` once closed, and between a failure and the reopening after it.
    database: RwLock<Option<Database>>,
    /// The first failure that no retry can mend.
    failed: OnceLock<io::Error>,
    /// The first damage that was met.
    damage: OnceLock<String>,
    full: AtomicBool,
    closed: OnceLock<()>,
    unclean: bool,
    folder: Option<Folder>,
}

impl RedbStorage {
    /// Opens the store in `data_dir`, making both where they are missing, and holds the folder's lock until dropped.
    ///
    /// # Errors
    /// When another process has the folder, the disk is full or failing, or what is stored is damaged or too new.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        let (folder, unclean) = Folder::claim(data_dir)?;
        let file = folder.data_file()?;
        let unclean = unclean && file.existed;
        Self::start(Arc::new(DataFile(file.file)), unclean, Some(folder))
    }

    /// Opens the store on a disk of the caller's, such as one that a simulator can cut.
    ///
    /// # Errors
    /// As for [`RedbStorage::open`].
    pub fn on_backend(backend: Arc<dyn StorageBackend>, unclean: bool) -> Result<Self, StorageError> {
        Self::start(backend, unclean, None)
    }

    fn start(backend: Arc<dyn StorageBackend>, unclean: bool, folder: Option<Folder>) -> Result<Self, StorageError> {
        let backend = Watched::new(backend);
        if unclean {
            tracing::info!("the last run did not end cleanly: the data is written once more");
            // Before redb builds on what it reads.
            backend.rewrite()?;
        } else {
            let begun = Instant::now();
            verify(&backend)?;
            tracing::debug!(took = ?begun.elapsed(), "the data is what was written");
        }
        let database = open_database(&backend)?;
        Ok(Self {
            backend,
            database: RwLock::new(Some(database)),
            failed: OnceLock::new(),
            damage: OnceLock::new(),
            full: AtomicBool::new(false),
            closed: OnceLock::new(),
            unclean,
            folder,
        })
    }

    /// Whether the run before this one ended without [`Storage::close`].
    pub(super) fn was_unclean(&self) -> bool {
        self.unclean
    }

    /// Opens the file of the journal, beside the data.
    pub(super) fn journal_file(&self) -> Result<Watched, StorageError> {
        let path = self.folder.as_ref().map(|folder| folder.path.join(JOURNAL_NAME)).unwrap_or_default();
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.and_then(|file| self.folder.as_ref().map_or(Ok(()), Folder::sync).map(|()| file));
        let file = file.map_err(|error| no_space_or(error, |source| StorageError::Unavailable { path, source }))?;
        Ok(Watched::new(Arc::new(DataFile(file))))
    }

    /// The key of the journal that belongs to this file, and the last of its generations that is in here.
    pub(super) fn journal_state(&self) -> Result<(JournalKey, u64), StorageError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(JOURNAL)?;
            let key = table.get(JOURNAL_KEY)?.and_then(|key| key.value().try_into().ok()).unwrap_or_default();
            let applied = table.get(JOURNAL_APPLIED)?.and_then(|applied| applied.value().try_into().ok());
            Ok((key, u64::from_le_bytes(applied.unwrap_or_default())))
        })
    }

    /// Makes `writes`, and that the journal's `generation` is in here now, durable in one transaction.
    pub(super) fn apply(
        &self,
        writes: &BTreeMap<(Table, Bytes), Option<Bytes>>,
        generation: u64,
    ) -> Result<(), StorageError> {
        let of_table = |table: Table| {
            let of_table = writes.iter().filter(move |((of, _), _)| *of == table);
            of_table.map(|((_, key), value)| (key, value.as_ref()))
        };
        self.transact(|transaction| {
            for table in Table::ALL {
                write_all(transaction, table, of_table(table))?;
            }
            transaction.open_table(JOURNAL)?.insert(JOURNAL_APPLIED, &generation.to_le_bytes()[..])?;
            Ok(())
        })
    }

    fn transact(&self, work: impl Fn(&WriteTransaction) -> Result<(), redb::Error>) -> Result<(), StorageError> {
        self.check()?;
        if !self.has_space() {
            return Err(StorageError::Full);
        }
        self.with(|database| {
            let transaction = database.begin_write()?;
            work(&transaction)?;
            Ok(transaction.commit()?)
        })
    }

    /// Takes note of a failure beside this file, after which it must not go on either.
    pub(super) fn give_up(&self, error: StorageError) -> StorageError {
        if let StorageError::Failed(error) = error { self.fail(error) } else { error }
    }

    pub(super) fn check(&self) -> Result<(), StorageError> {
        if let Some(error) = self.failed.get() {
            return Err(StorageError::Failed(copy(error)));
        }
        match self.closed.get() {
            Some(()) => Err(StorageError::Closed),
            None => Ok(()),
        }
    }

    /// Runs `work` on the open database, opening it first where an earlier failure closed it. `work` may run twice: redb
    /// fails every transaction that is under way when one of them meets a fault.
    fn with<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, StorageError> {
        for _ in 0..ATTEMPTS_MAX {
            self.check()?;
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let Some(open) = database.as_ref() else {
                drop(database);
                self.reopen()?;
                continue;
            };
            let error = match catch_unwind(AssertUnwindSafe(|| work(open))) {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => error,
                Err(_) => return Err(self.damaged(senseless())),
            };
            // Left for whoever else met it: it is forgotten when the database is opened again, which cannot be yet.
            let bystander = matches!(error, redb::Error::PreviousIo);
            match &*self.backend.fault() {
                Some(Fault::Failed(error)) => return Err(self.fail(copy(error))),
                None if !bystander => return Err(self.damaged(plain(error))),
                Some(Fault::Full) | None => {}
            }
            drop(database);
            shut(self.database.write().unwrap_or_else(PoisonError::into_inner).take())?;
            if !bystander {
                self.full.store(true, Ordering::Release);
                return Err(StorageError::Full);
            }
        }
        Err(StorageError::Full)
    }

    /// Remembers a failure that nothing mends, so that everything after it fails as well.
    fn fail(&self, error: io::Error) -> StorageError {
        self.failed.get_or_init(|| copy(&error));
        StorageError::Failed(error)
    }

    /// Remembers an error, if it tells of damage.
    fn damaged(&self, error: StorageError) -> StorageError {
        if let StorageError::Corrupt(why) = &error {
            self.damage.get_or_init(|| why.clone());
        }
        error
    }

    fn reopen(&self) -> Result<(), StorageError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        if database.is_none() {
            if let Some(Fault::Failed(error)) = self.backend.take_fault() {
                return Err(self.fail(error));
            }
            match open_database(&self.backend) {
                Ok(opened) => *database = Some(opened),
                Err(StorageError::Failed(error)) => return Err(self.fail(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether a disk that was full has space again.
    fn has_space(&self) -> bool {
        if !self.full.load(Ordering::Acquire) {
            return true;
        }
        let space = self.folder.as_ref().is_none_or(Folder::has_space);
        self.full.store(!space, Ordering::Release);
        space
    }
}

impl Storage for RedbStorage {
    fn commit(&self, batches: &[&[Write]]) -> Result<(), StorageError> {
        let of_table = |table: Table| {
            let writes = batches.iter().flat_map(|batch| batch.iter()).filter(move |write| write.table == table);
            writes.map(|write| (&write.key, write.value.as_ref()))
        };
        self.transact(|transaction| {
            Table::ALL.into_iter().try_for_each(|table| write_all(transaction, table, of_table(table)))
        })
    }

    fn scan(&self, query: &Query) -> Result<Scan, StorageError> {
        if !query.end.is_empty() && query.end <= query.start {
            self.check()?;
            return Ok(Scan { entries: Vec::new(), complete: true });
        }
        self.with(|database| {
            let table = match database.begin_read()?.open_table(definition(query.table)) {
                Err(TableError::TableDoesNotExist(_)) => {
                    return Ok(Scan { entries: Vec::new(), complete: true });
                }
                table => table?,
            };
            let range = if query.end.is_empty() {
                table.range(&*query.start..)?
            } else {
                table.range(&*query.start..&*query.end)?
            };
            let mut scan = Scan::default();
            let mut bytes = 0;
            for entry in range {
                if bytes >= query.bytes_max && !scan.entries.is_empty() {
                    return Ok(scan);
                }
                let (key, value) = entry?;
                let (key, value) = (Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value()));
                bytes += key.len() + value.len();
                scan.entries.push((key, value));
            }
            scan.complete = true;
            Ok(scan)
        })
    }

    fn close(&self) -> Result<(), StorageError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        self.closed.get_or_init(|| ());
        if let Some(Fault::Failed(error)) = self.backend.take_fault() {
            return Err(self.fail(error));
        }
        let shut = shut(database.take());
        drop(database);
        shut?;
        match (self.backend.take_fault(), &self.folder) {
            (Some(Fault::Full), _) => Err(StorageError::Full),
            (Some(Fault::Failed(error)), _) => Err(StorageError::Failed(error)),
            (None, Some(folder)) => folder.mark(CLEAN).map_err(StorageError::Failed),
            (None, None) => Ok(()),
        }
    }

    fn size_bytes(&self) -> u64 {
        self.backend.len().unwrap_or(0)
    }

    fn damage(&self) -> Option<StorageError> {
        self.damage.get().cloned().map(StorageError::Corrupt)
    }
}

impl Drop for RedbStorage {
    fn drop(&mut self) {
        let database = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Err(error) = shut(database) {
            tracing::error!(%error, "cannot close the data file");
        }
    }
}

/// The data folder, locked by this process.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    lock: File,
}

struct OpenedFile {
    file: File,
    existed: bool,
}

impl Folder {
    /// Locks `path`, and tells whether the last run in it ended without a clean mark.
    fn claim(path: &Path) -> Result<(Self, bool), StorageError> {
        let unavailable = |path: &Path| {
            let path = path.to_owned();
            move |source| StorageError::Unavailable { path, source }
        };
        if path.exists() && !path.is_dir() {
            let not_a_folder = io::Error::other("it is a file; name a folder as data_dir");
            return Err(unavailable(path)(not_a_folder));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unavailable(path))?;
        let lock_path = path.join(LOCK_NAME);
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(unavailable(&lock_path))?;
        let folder = Self { path: path.to_owned(), lock };
        match folder.lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StorageError::Locked {
                    data_dir: path.to_owned(),
                    pid: folder.said().and_then(|said| said.trim().parse().ok()),
                });
            }
            Err(TryLockError::Error(source)) => return Err(unavailable(&lock_path)(source)),
        }
        let unclean = folder.said().as_deref() != Some(CLEAN);
        folder
            .mark(&format!("{}\n", std::process::id()))
            .and_then(|()| File::open(path)?.sync_all())
            .map_err(|error| no_space_or(error, unavailable(&lock_path)))?;
        Ok((folder, unclean))
    }

    fn said(&self) -> Option<String> {
        let mut text = String::new();
        let mut lock = &self.lock;
        lock.rewind().ok()?;
        lock.take(64).read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// Says `text` in the lock file, durably.
    fn mark(&self, text: &str) -> io::Result<()> {
        let mut lock = &self.lock;
        lock.rewind()?;
        lock.write_all(text.as_bytes())?;
        lock.set_len(text.len() as u64)?;
        lock.sync_all()
    }

    /// Opens the data file, making a whole one first where there is none.
    fn data_file(&self) -> Result<OpenedFile, StorageError> {
        let path = self.path.join(FILE_NAME);
        let existed = path.exists();
        if !existed {
            self.create(&path)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| StorageError::Unavailable { path, source })?;
        Ok(OpenedFile { file, existed })
    }

    fn create(&self, path: &Path) -> Result<(), StorageError> {
        let new_path = self.path.join(NEW_FILE_NAME);
        let made = (|| {
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new_path)?;
            Ok::<_, io::Error>(Watched::new(Arc::new(DataFile(file))))
        })()
        .map_err(|error| no_space_or(error, |source| StorageError::Unavailable { path: new_path.clone(), source }))?;
        shut(Some(open_database(&made)?))?;
        match made.take_fault() {
            Some(Fault::Full) => return Err(StorageError::Full),
            Some(Fault::Failed(error)) => return Err(StorageError::Failed(error)),
            None => {}
        }
        made.sync_data()
            .and_then(|()| fs::rename(&new_path, path))
            .and_then(|()| self.sync())
            .map_err(StorageError::Failed)
    }

    /// Makes durable which files are in it.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Tries to claim a little space. A file system that cannot say is taken to have some.
    fn has_space(&self) -> bool {
        let path = self.path.join(PROBE_NAME);
        let probed = File::create(&path).and_then(|probe| {
            rustix::fs::fallocate(&probe, FallocateFlags::empty(), 0, PROBE_BYTES).map_err(io::Error::from)
        });
        let _ = fs::remove_file(&path);
        !probed.is_err_and(|error| is_no_space(&error))
    }
}

/// Opens redb over `backend`, checks the format, and makes the tables where they are missing.
fn open_database(backend: &Watched) -> Result<Database, StorageError> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend.clone())?;
        let found = read_format(&database)?;
        if found.is_none_or(|found| (FORMAT_VERSION_MIN..FORMAT_VERSION).contains(&found)) {
            write_format(&database)?;
        }
        Ok::<_, redb::Error>((database, found.unwrap_or(FORMAT_VERSION)))
    }));
    match opened {
        Ok(Ok((database, FORMAT_VERSION_MIN..=FORMAT_VERSION))) => Ok(database),
        Ok(Ok((database, found))) => {
            shut(Some(database)).and(Err(StorageError::Version { found, known: FORMAT_VERSION }))
        }
        Ok(Err(error)) => Err(match backend.take_fault() {
            Some(Fault::Full) => StorageError::Full,
            Some(Fault::Failed(error)) => StorageError::Failed(error),
            None => plain(error),
        }),
        Err(_) => Err(senseless()),
    }
}

/// Closes the database, which writes and syncs, and reports nothing.
fn shut(database: Option<Database>) -> Result<(), StorageError> {
    catch_unwind(AssertUnwindSafe(|| drop(database))).map_err(|_| senseless())
}

/// What redb panics over.
pub(super) fn senseless() -> StorageError {
    StorageError::Corrupt("redb cannot make sense of the file".to_owned())
}

/// Applies writes to one table, in their order.
fn write_all<'a>(
    transaction: &WriteTransaction,
    table: Table,
    writes: impl Iterator<Item = (&'a Bytes, Option<&'a Bytes>)>,
) -> Result<(), redb::Error> {
    let mut writes = writes.peekable();
    if writes.peek().is_none() {
        return Ok(());
    }
    let mut open = transaction.open_table(definition(table))?;
    for (key, value) in writes {
        match value {
            Some(value) => open.insert(&**key, &**value)?,
            None => open.remove(&**key)?,
        };
    }
    Ok(())
}

fn read_format(database: &Database) -> Result<Option<u32>, redb::Error> {
    match database.begin_read()?.open_table(FORMAT) {
        Ok(table) => Ok(table.get(FORMAT_KEY)?.map(|version| version.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn write_format(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(FORMAT)?.insert(FORMAT_KEY, FORMAT_VERSION)?;
    for table in Table::ALL {
        transaction.open_table(definition(table))?;
    }
    let mut key: JournalKey = Default::default();
    getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
    transaction.open_table(JOURNAL)?.insert(JOURNAL_KEY, &key[..])?;
    Ok(transaction.commit()?)
}

fn definition(table: Table) -> Bin {
    TableDefinition::new(match table {
        Table::Meta => "meta",
        Table::Documents => "documents",
        Table::Changes => "changes",
    })
}

/// An error in which the backend had no part.
pub(super) fn plain(error: redb::Error) -> StorageError {
    if let redb::Error::Io(error) = error {
        if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) {
            return StorageError::Corrupt(error.to_string());
        }
        return StorageError::Failed(error);
    }
    StorageError::Corrupt(error.to_string())
}

fn no_space_or(error: io::Error, otherwise: impl FnOnce(io::Error) -> StorageError) -> StorageError {
    if is_no_space(&error) { StorageError::Full } else { otherwise(error) }
}

#[cfg(test)]
mod tests;
