//! [`Storage`] with a journal in front of the tree: a commit is one write and one sync, and the tree follows behind.
//!
//! What is in the journal only is kept in memory too, and laid over the tree when something is read. A thread brings a
//! full half of the journal into the tree in one transaction. Bulk goes to the tree at once: a journal would only write
//! it twice.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use redb::StorageBackend;

use super::backend::Watched;
use super::journal::{JOURNAL_BYTES, Journal, payload_bytes};
use super::redb::RedbStorage;
use super::{Query, Scan, Storage, StorageError, Table, Write};
use crate::simulated::Defect;

/// Bytes of writes after which the journal's half is turned over, if the other is free by then.
const TURN_BYTES: usize = 512 << 10;
/// How long nothing may be committed before the half is turned over, however little is in it: whoever copies the data
/// file, or reads much, is better off without a journal to lay over it.
const QUIET: Duration = Duration::from_secs(1);
/// A commit of at least this many bytes goes to the tree at once.
const BULK_BYTES: usize = 256 << 10;

/// Writes by key, the last of each; none removes.
type Writes = BTreeMap<(Table, Bytes), Option<Bytes>>;

/// The store of a server.
#[derive(Debug)]
pub struct JournaledStorage {
    shared: Arc<Shared>,
    follower: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    tree: RedbStorage,
    /// Locked before the others.
    journal: Mutex<Journal>,
    overlay: RwLock<Overlay>,
    work: Mutex<Work>,
    changed: Condvar,
    /// Whether a thread brings over what leaves the journal.
    threaded: bool,
}

/// What the journal holds and the tree may not.
#[derive(Debug, Default)]
struct Overlay {
    /// Of the half that takes records.
    active: Writes,
    /// Their bytes, counted again for each write of a key.
    active_bytes: usize,
    /// Of the other half, on their way into the tree.
    leaving: Arc<Writes>,
}

/// What the thread that follows with the tree has to do.
#[derive(Debug)]
struct Work {
    /// The generation that the tree has all of once `leaving` is in it.
    generation: u64,
    state: State,
    stop: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing leaves the journal.
    Idle,
    /// Waiting for a first commit or another try: what was left by another run, or found no space.
    Held,
    /// The thread is to do it, or does.
    Busy,
    /// The tree failed; the journal has what it lacks.
    Failed,
}

impl JournaledStorage {
    /// Opens the store in `data_dir`, making it where it is missing, and holds the folder's lock until dropped.
    ///
    /// # Errors
    /// When another process has the folder, the disk is full or failing, or what is stored is damaged or too new.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        let tree = RedbStorage::open(data_dir)?;
        let journal = tree.journal_file()?;
        Self::start(tree, journal, true)
    }

    /// Opens the store on disks of the caller's, such as ones that a simulator can cut.
    ///
    /// # Errors
    /// As for [`JournaledStorage::open`].
    pub fn on_backends(
        tree: Arc<dyn StorageBackend>,
        journal: Arc<dyn StorageBackend>,
        unclean: bool,
    ) -> Result<Self, StorageError> {
        Self::start(RedbStorage::on_backend(tree, unclean)?, Watched::new(journal), true)
    }

    /// As [`JournaledStorage::on_backends`], with no thread of its own: a commit that fills a half of the journal brings it
    /// into the data file itself, so that the order of all writes and syncs follows from the calls alone.
    ///
    /// # Errors
    /// As for [`JournaledStorage::open`].
    pub fn on_backends_simulated(
        tree: Arc<dyn StorageBackend>,
        journal: Arc<dyn StorageBackend>,
        unclean: bool,
        defect: Option<Defect>,
    ) -> Result<Self, StorageError> {
        let storage = Self::start(RedbStorage::on_backend(tree, unclean)?, Watched::new(journal), false)?;
        storage.shared.journal().plant(defect);
        Ok(storage)
    }

    fn start(tree: RedbStorage, journal: Watched, threaded: bool) -> Result<Self, StorageError> {
        if tree.was_unclean() {
            journal.rewrite()?;
        }
        let (key, applied) = tree.journal_state()?;
        let (journal, left) = Journal::open(journal, key, applied)?;
        let state = if left.is_empty() { State::Idle } else { State::Held };
        let mut overlay = Overlay::default();
        overlay.add(left);
        overlay.leave();
        let shared = Arc::new(Shared {
            tree,
            overlay: RwLock::new(overlay),
            work: Mutex::new(Work { generation: journal.generation(), state, stop: false }),
            journal: Mutex::new(journal),
            changed: Condvar::new(),
            threaded,
        });
        let follower = if threaded {
            let following = shared.clone();
            let thread = std::thread::Builder::new().name("checkpoints".to_owned());
            Some(thread.spawn(move || following.follow()).map_err(StorageError::Failed)?)
        } else {
            None
        };
        Ok(Self { shared, follower })
    }
}

impl Storage for JournaledStorage {
    fn commit(&self, batches: &[&[Write]]) -> Result<(), StorageError> {
        let mut journal = self.shared.journal();
        self.shared.tree.check()?;
        self.shared.resume()?;
        let bytes = payload_bytes(batches);
        if bytes == 0 {
            return Ok(());
        }
        if bytes >= BULK_BYTES {
            self.shared.drain(&mut journal)?;
            return self.shared.tree.commit(batches);
        }
        let due = self.shared.read_overlay().active_bytes >= TURN_BYTES && self.shared.is_idle();
        if due || !journal.has_room(bytes) {
            self.shared.turn(&mut journal)?;
        }
        if let Err(error) = journal.append(batches) {
            return Err(self.shared.tree.give_up(error));
        }
        let mut overlay = self.shared.overlay.write().unwrap_or_else(PoisonError::into_inner);
        overlay.add(batches.iter().flat_map(|batch| batch.iter().cloned()));
        Ok(())
    }

    fn scan(&self, query: &Query) -> Result<Scan, StorageError> {
        // Held throughout: what is read of the tree is as it was before or after the overlay's writes, and reads alike.
        let overlay = self.shared.read_overlay();
        let recent = overlay.range(query);
        if recent.is_empty() { self.shared.tree.scan(query) } else { laid_over(&self.shared.tree, recent, query) }
    }

    fn close(&self) -> Result<(), StorageError> {
        self.shared.tree.check()?;
        match self.shared.resume().and_then(|()| self.shared.drain(&mut self.shared.journal())) {
            // The journal keeps what does not fit into the tree.
            Ok(()) | Err(StorageError::Full) => self.shared.tree.close(),
            Err(error) => Err(error),
        }
    }

    fn size_bytes(&self) -> u64 {
        self.shared.tree.size_bytes() + JOURNAL_BYTES as u64
    }

    fn damage(&self) -> Option<StorageError> {
        self.shared.tree.damage()
    }
}

impl Drop for JournaledStorage {
    fn drop(&mut self) {
        self.shared.work().stop = true;
        self.shared.changed.notify_all();
        if let Some(follower) = self.follower.take()
            && follower.join().is_err()
        {
            tracing::error!("the thread that writes checkpoints panicked");
        }
    }
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what is in the journal's half brought into the tree, and goes on in the other. Waits until that is free.
    fn turn(&self, journal: &mut Journal) -> Result<(), StorageError> {
        self.settle()?;
        let mut overlay = self.overlay.write().unwrap_or_else(PoisonError::into_inner);
        if !overlay.active.is_empty() {
            overlay.leave();
            drop(overlay);
            self.begin(journal.generation());
        }
        journal.turn();
        Ok(())
    }

    /// Brings everything into the tree.
    fn drain(&self, journal: &mut Journal) -> Result<(), StorageError> {
        self.settle()?;
        if !self.read_overlay().active.is_empty() {
            self.turn(journal)?;
            self.settle()?;
        }
        Ok(())
    }

    fn read_overlay(&self) -> std::sync::RwLockReadGuard<'_, Overlay> {
        self.overlay.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_idle(&self) -> bool {
        self.work().state == State::Idle
    }

    /// Lets the thread begin with what leaves the journal.
    fn begin(&self, generation: u64) {
        let mut work = self.work();
        (work.generation, work.state) = (generation, State::Busy);
        drop(work);
        self.go();
    }

    /// Has a thread bring over what leaves the journal, or does so.
    fn go(&self) {
        if self.threaded {
            self.changed.notify_all();
            return;
        }
        let generation = self.work().generation;
        let state = self.bring_over(generation);
        self.work().state = state;
    }

    /// Goes on with what has waited for a commit. What found no space before is tried again, and nothing is taken
    /// before it succeeds.
    fn resume(&self) -> Result<(), StorageError> {
        let mut work = self.work();
        if work.state != State::Held {
            return Ok(());
        }
        work.state = State::Busy;
        drop(work);
        self.go();
        self.settle()
    }

    /// Waits until the tree has caught up with what leaves the journal.
    fn settle(&self) -> Result<(), StorageError> {
        let mut work = self.work();
        while work.state == State::Busy && !work.stop {
            work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
        match work.state {
            State::Idle => Ok(()),
            State::Held => Err(StorageError::Full),
            State::Busy | State::Failed => self.tree.check().and(Err(StorageError::Closed)),
        }
    }

    /// The thread: brings what leaves the journal into the tree, each time there is something.
    fn follow(&self) {
        let mut work = self.work();
        let mut place = (0, 0);
        loop {
            while work.state != State::Busy && !work.stop {
                let waited = self.changed.wait_timeout(work, QUIET).unwrap_or_else(PoisonError::into_inner);
                work = waited.0;
                if waited.1.timed_out() && work.state == State::Idle {
                    drop(work);
                    self.turn_if_still_at(&mut place);
                    work = self.work();
                }
            }
            if work.stop {
                return;
            }
            let generation = work.generation;
            drop(work);
            let state = self.bring_over(generation);
            work = self.work();
            work.state = state;
            self.changed.notify_all();
        }
    }

    /// Brings what leaves the journal into the tree.
    fn bring_over(&self, generation: u64) -> State {
        let leaving = self.read_overlay().leaving.clone();
        match self.tree.apply(&leaving, generation) {
            Ok(()) => {
                self.overlay.write().unwrap_or_else(PoisonError::into_inner).leaving = Arc::default();
                State::Idle
            }
            Err(StorageError::Full) => State::Held,
            Err(error) => {
                tracing::error!(%error, "cannot bring the journal into the data file");
                self.tree.give_up(StorageError::Failed(io::Error::other(error.to_string())));
                State::Failed
            }
        }
    }
}

impl Shared {
    /// Turns the half over when no record has come since it was at `place`.
    fn turn_if_still_at(&self, place: &mut (u64, u32)) {
        // Whoever holds the journal commits.
        let Ok(mut journal) = self.journal.try_lock() else { return };
        let now = journal.place();
        if std::mem::replace(place, now) == now && !self.read_overlay().active.is_empty() {
            // Nothing leaves the journal now, so this does not wait, and cannot fail.
            let _ = self.turn(&mut journal);
        }
    }
}

impl Overlay {
    fn add(&mut self, writes: impl IntoIterator<Item = Write>) {
        for Write { table, key, value } in writes {
            self.active_bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            self.active.insert((table, key), value);
        }
    }

    fn leave(&mut self) {
        self.leaving = Arc::new(std::mem::take(&mut self.active));
        self.active_bytes = 0;
    }

    /// What a query would find here, in key order.
    fn range(&self, query: &Query) -> Vec<(Bytes, Option<Bytes>)> {
        let start = Bound::Included((query.table, query.start.clone()));
        let in_range = |key: &Bytes| query.end.is_empty() || key < &query.end;
        let of = |writes: &Writes| {
            let range = writes.range((start.clone(), Bound::Unbounded));
            let range = range.take_while(|((table, key), _)| *table == query.table && in_range(key));
            range.map(|((_, key), value)| (key.clone(), value.clone())).collect::<Vec<_>>()
        };
        let mut found = of(&self.active);
        let newer = found.len();
        found.extend(of(&self.leaving));
        if newer > 0 && newer < found.len() {
            // Stable: of two writes of one key the newer stays in front, and stays.
            found.sort_by(|(one, _), (other, _)| one.cmp(other));
            found.dedup_by(|(later, _), (earlier, _)| later == earlier);
        }
        found
    }
}

/// What a query finds in the tree with `recent` over it, which is in key order.
fn laid_over(tree: &RedbStorage, recent: Vec<(Bytes, Option<Bytes>)>, query: &Query) -> Result<Scan, StorageError> {
    let mut found = Scan::default();
    let mut bytes = 0;
    let mut rest = query.clone();
    let mut recent = recent.into_iter().peekable();
    loop {
        let scan = tree.scan(&rest)?;
        let last = if scan.complete { None } else { scan.entries.last().map(|(key, _)| key.clone()) };
        let mut stored = scan.entries.into_iter().peekable();
        loop {
            let order = match (stored.peek(), recent.peek()) {
                (Some((stored, _)), Some((recent, _))) => stored.cmp(recent),
                (Some(_), None) => Ordering::Less,
                (None, Some((recent, _))) if last.as_ref().is_none_or(|last| recent <= last) => Ordering::Greater,
                (None, _) => break,
            };
            let covered = if order.is_gt() { None } else { stored.next() };
            let next = if order.is_lt() { covered.map(|(key, value)| (key, Some(value))) } else { recent.next() };
            let Some((key, Some(value))) = next else { continue };
            if bytes >= query.bytes_max && !found.entries.is_empty() {
                return Ok(found);
            }
            bytes += key.len() + value.len();
            found.entries.push((key, value));
        }
        let Some(last) = last else { break };
        if bytes >= query.bytes_max && !found.entries.is_empty() {
            return Ok(found);
        }
        rest.start = after(&last);
    }
    found.complete = true;
    Ok(found)
}

/// The least key above `key`.
fn after(key: &Bytes) -> Bytes {
    [key, &[0][..]].concat().into()
}

#[cfg(test)]
mod tests;
