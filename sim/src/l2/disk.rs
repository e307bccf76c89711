//! `CrashDisk`: the files of one server, which forget what was not synced.
//!
//! A file is a durable image and the operations since its last sync. A process that dies leaves both to the next; a
//! machine that loses power keeps of those operations what chance lets through: each on its own, so they may be lost or
//! come out of order, and block by block, so one may be torn.

mod image;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use self::image::{BLOCK_BYTES, Image};
use crate::draw::Draw;

/// No space, as Linux numbers it: the server tells it from other failures by its number.
const ENOSPC: i32 = 28;
/// An I/O error.
const EIO: i32 = 5;

/// The files of one server.
#[derive(Clone, Debug)]
struct Files {
    /// The data file; none before it was made.
    tree: Option<Image>,
    /// The data file while it is made, under another name.
    new_tree: Image,
    journal: Image,
}

#[derive(Debug)]
struct State {
    files: Files,
    backup: Option<Files>,
    /// Its own files while others are in their place, and whether they were closed well.
    own: Option<(Files, bool)>,
    /// The process whose writes count; those of earlier ones come to nothing.
    owner: u64,
    full: bool,
    reads_fail: bool,
    sync_fails: bool,
    /// Whether the next write of a block or more goes elsewhere.
    misdirects: bool,
    /// Writes and syncs until the process dies.
    fuse: Option<u64>,
    clean: bool,
    draw: Draw,
}

/// One server's disk.
#[derive(Clone, Debug)]
pub(super) struct CrashDisk(Arc<Mutex<State>>);

/// Which file.
#[derive(Clone, Copy, Debug)]
pub(super) enum File {
    /// The data file.
    Tree,
    /// The data file before it has its name.
    NewTree,
    /// The journal.
    Journal,
}

impl Files {
    fn new() -> Self {
        Self { tree: None, new_tree: Image::default(), journal: Image::default() }
    }

    fn get(&mut self, file: File) -> &mut Image {
        match file {
            File::Tree => self.tree.get_or_insert_default(),
            File::NewTree => &mut self.new_tree,
            File::Journal => &mut self.journal,
        }
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Image> {
        [&mut self.journal, &mut self.new_tree].into_iter().chain(self.tree.as_mut())
    }
}

impl CrashDisk {
    pub(super) fn new(draw: Draw) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: Files::new(),
            backup: None,
            own: None,
            owner: 0,
            full: false,
            reads_fail: false,
            sync_fails: false,
            misdirects: false,
            fuse: None,
            clean: true,
            draw,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another process takes the disk over; whether the one before ended well.
    pub(super) fn take_over(&self) -> (u64, bool) {
        let mut state = self.state();
        state.owner += 1;
        let clean = std::mem::replace(&mut state.clean, false);
        (state.owner, clean)
    }

    /// A file as process `owner` sees it.
    pub(super) fn file(&self, owner: u64, file: File) -> Handle {
        Handle { disk: self.clone(), owner, file }
    }

    /// Whether there is a data file.
    pub(super) fn has_tree(&self) -> bool {
        self.state().files.tree.is_some()
    }

    /// Gives the new data file its name, durably; false when the process is gone.
    pub(super) fn name_tree(&self, owner: u64) -> bool {
        let mut state = self.state();
        let runs = state.owner == owner && state.fuse != Some(0);
        if runs {
            state.files.tree = Some(std::mem::take(&mut state.files.new_tree));
        }
        runs
    }

    /// The process is gone. What it still does, as its memory is cleared away, comes to nothing.
    pub(super) fn end(&self, power: bool) {
        let mut state = self.state();
        state.owner += 1;
        state.fuse = None;
        if power {
            let State { files, draw, .. } = &mut *state;
            files.each().for_each(|file| file.cut(draw));
        }
        // Whoever makes a data file begins anew.
        state.files.new_tree = Image::default();
    }

    /// The process has ended by itself, after it had closed its store.
    pub(super) fn end_well(&self) {
        self.state().clean = true;
    }

    /// Copies what is durable.
    pub(super) fn back_up(&self) {
        let mut state = self.state();
        let mut copy = state.files.clone();
        copy.each().for_each(Image::forget);
        state.backup = Some(copy);
    }

    /// Puts the copy in the files' place.
    pub(super) fn restore(&self) {
        let mut state = self.state();
        if let Some(backup) = state.backup.take() {
            state.files = backup;
        }
    }

    /// A copy of what is durable on another disk takes the place of its own files.
    pub(super) fn wear(&self, other: &Self) {
        let mut copy = other.state().files.clone();
        copy.each().for_each(Image::forget);
        copy.new_tree = Image::default();
        let mut state = self.state();
        let own = std::mem::replace(&mut state.files, copy);
        state.own = Some((own, std::mem::replace(&mut state.clean, false)));
    }

    /// The copy is deleted, and its own files are back.
    pub(super) fn take_off(&self) {
        let mut state = self.state();
        if let Some(own) = state.own.take() {
            (state.files, state.clean) = own;
        }
    }

    /// The files are gone, by the operator's hand or with the disk.
    pub(super) fn lose(&self) {
        let mut state = self.state();
        (state.files, state.clean) = (Files::new(), true);
    }

    /// Flips some bits of what is stored.
    pub(super) fn rot(&self, bits: u64) {
        let mut state = self.state();
        let State { files, draw, .. } = &mut *state;
        for _ in 0..bits {
            let mut used: Vec<&mut Image> = files.each().filter(|file| file.has_content()).collect();
            if used.is_empty() {
                return;
            }
            let file = draw.index(used.len());
            used[file].rot(draw);
        }
    }

    pub(super) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    pub(super) fn set_reads_fail(&self, fail: bool) {
        self.state().reads_fail = fail;
    }

    pub(super) fn set_sync_fails(&self, fails: bool) {
        self.state().sync_fails = fails;
    }

    pub(super) fn set_misdirects(&self, misdirects: bool) {
        self.state().misdirects = misdirects;
    }

    pub(super) fn set_fuse(&self, operations: Option<u64>) {
        self.state().fuse = operations;
    }

    /// Whether the process has come to the operation at which it dies.
    pub(super) fn is_fuse_blown(&self) -> bool {
        self.state().fuse == Some(0)
    }

    /// Nothing more goes wrong with it.
    pub(super) fn mend(&self) {
        let mut state = self.state();
        (state.full, state.reads_fail, state.sync_fails, state.misdirects) = (false, false, false, false);
        state.fuse = None;
    }
}

/// A file as one process sees it.
#[derive(Debug)]
pub(super) struct Handle {
    disk: CrashDisk,
    owner: u64,
    file: File,
}

impl Handle {
    /// The state, for an operation that changes it, if the process is still there.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.disk.state();
        if state.owner != self.owner || state.fuse == Some(0) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        state.fuse = state.fuse.map(|left| left - 1);
        Ok(state)
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(ENOSPC)
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files.get(self.file).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.reads_fail {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let stored = state.files.get(self.file).read(place(offset)?, out.len());
        out.copy_from_slice(stored.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.change()?;
        let (len, full) = (place(len)?, state.full);
        let file = state.files.get(self.file);
        if full && len > file.len() {
            return Err(no_space());
        }
        file.set_len(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.change()?;
        if std::mem::take(&mut state.sync_fails) {
            // The cache believes that all is written, and will not write it again.
            state.files.get(self.file).forget_pending();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        state.files.get(self.file).sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.change()?;
        let offset = place(offset)?;
        let State { files, draw, misdirects, full, .. } = &mut *state;
        let file = files.get(self.file);
        if *full {
            // Space may end in the middle of a write, and a file system that copies needs some to write in place.
            if let Some((first, [_, ..])) = data.split_at_checked(BLOCK_BYTES) {
                file.write(offset, first);
            }
            return Err(no_space());
        }
        if data.len() >= BLOCK_BYTES && std::mem::take(misdirects) {
            file.write_elsewhere(offset, data, draw);
        } else {
            file.write(offset, data);
        }
        Ok(())
    }
}
