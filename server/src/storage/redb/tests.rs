use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::super::testing::{Disk, all, put, read, remove};
use super::*;

/// A store of format 1 as knot 0.1.0 wrote it, compressed with LZ4 because redb's smallest file is mostly zeros. It holds
/// [`fixture_writes`]. A later format must go on reading it.
const FIXTURE_V1: &[u8] = include_bytes!("../../../fixtures/format-1.redb.lz4");

fn fixture_writes() -> Vec<Write> {
    vec![
        put(Table::Meta, "cluster", "0123456789abcdef"),
        put(Table::Documents, "users/alice", "heads"),
        put(Table::Documents, "users/bob", ""),
        put(Table::Changes, "a1", "first change"),
        put(Table::Changes, "a2", "second change"),
    ]
}

fn on_disk(disk: &Arc<Disk>) -> RedbStorage {
    RedbStorage::on_backend(disk.clone(), false).expect("it opens")
}

#[test]
fn batches_apply_in_order_and_ranges_read_in_key_order() {
    let store = on_disk(&Arc::default());
    let first = [put(Table::Meta, "b", "1"), put(Table::Meta, "a", "2"), put(Table::Changes, "a", "log")];
    let second = [put(Table::Meta, "c", "3"), remove(Table::Meta, "b"), put(Table::Meta, "a", "4")];
    store.commit(&[&first, &second]).expect("committed");
    assert_eq!(all(&store, Table::Meta), "a=4 c=3");
    assert_eq!(all(&store, Table::Changes), "a=log");
    assert_eq!(all(&store, Table::Documents), "");
    assert_eq!(read(&store, Table::Meta, "b", "", 100), ("c=3".into(), true));
    assert_eq!(read(&store, Table::Meta, "a", "c", 100), ("a=4".into(), true));
    assert_eq!(read(&store, Table::Meta, "c", "a", 100), (String::new(), true));
    assert_eq!(read(&store, Table::Meta, "", "", 1), ("a=4".into(), false));
    assert_eq!(read(&store, Table::Meta, "", "", 0), ("a=4".into(), false));
    assert_eq!(read(&store, Table::Meta, "c", "", 0), ("c=3".into(), true));
}

#[test]
fn a_commit_is_one_sync_and_survives_a_power_cut() {
    let disk = Arc::<Disk>::default();
    let store = on_disk(&disk);
    let before = disk.syncs();
    let batch = [put(Table::Meta, "a", "1"), put(Table::Documents, "d", "1")];
    store.commit(&[&batch, &batch, &batch]).expect("committed");
    assert_eq!(disk.syncs() - before, 1);
    assert_eq!(all(&on_disk(&disk.after_power_cut()), Table::Documents), "d=1");
}

#[test]
fn a_full_disk_refuses_writes_keeps_reading_and_recovers_unaided() {
    let disk = Arc::<Disk>::default();
    let store = on_disk(&disk);
    store.commit(&[&[put(Table::Meta, "kept", "1")]]).expect("committed");
    disk.set(|state| state.full = true);
    for _ in 0..3 {
        let error = store.commit(&[&[put(Table::Meta, "lost", "1")]]).expect_err("there is no space");
        assert!(matches!(error, StorageError::Full) && !error.is_fatal(), "{error}");
    }
    disk.set(|state| state.full = false);
    assert_eq!(all(&store, Table::Meta), "kept=1");
    store.commit(&[&[put(Table::Meta, "later", "1")]]).expect("there is space again");
    assert_eq!(all(&on_disk(&disk.after_power_cut()), Table::Meta), "kept=1 later=1");
}

#[test]
fn the_first_failed_sync_is_the_last() {
    let disk = Arc::<Disk>::default();
    let store = on_disk(&disk);
    disk.set(|state| state.syncs_fail = true);
    let error = store.commit(&[&[put(Table::Meta, "a", "1")]]).expect_err("the sync failed");
    assert!(matches!(error, StorageError::Failed(_)) && error.is_fatal(), "{error}");
    disk.set(|state| state.syncs_fail = false);
    let error = store.commit(&[&[put(Table::Meta, "a", "1")]]).expect_err("nobody knows what is on the disk");
    assert!(matches!(error, StorageError::Failed(_)), "{error}");
}

#[test]
fn what_only_the_page_cache_holds_is_on_the_disk_once_it_is_open() {
    let disk = Arc::<Disk>::default();
    let store = on_disk(&disk);
    store.commit(&[&[put(Table::Meta, "a", "1")]]).expect("committed");
    disk.set(|state| state.syncs_fail = true);
    store.commit(&[&[put(Table::Meta, "b", "2")]]).expect_err("the sync failed");
    drop(store);
    disk.set(|state| state.syncs_fail = false);

    let restarted = RedbStorage::on_backend(disk.clone(), true).expect("the page cache reads well");
    assert_eq!(all(&restarted, Table::Meta), "a=1 b=2");
    assert_eq!(all(&on_disk(&disk.after_power_cut()), Table::Meta), "a=1 b=2");
    drop(restarted);
    assert_eq!(all(&on_disk(&disk.after_power_cut()), Table::Meta), "a=1 b=2");
}

#[test]
fn a_failed_sync_is_told_from_a_lack_of_space_before_it() {
    let disk = Arc::<Disk>::default();
    let store = on_disk(&disk);
    let value = "x".repeat(1 << 20);
    let many: Vec<Write> = (0..12).map(|n| put(Table::Changes, &format!("{n:02}"), &value)).collect();
    store.commit(&[&many]).expect("the file has grown");
    store.commit(&[&[put(Table::Meta, "a", "1")]]).expect("committed");
    // redb writes ahead of time what does not fit into its memory, and carries on where that fails.
    disk.set(|state| state.full_for = 1);
    store.commit(&[&many]).expect("there was space in time");
    disk.set(|state| state.syncs_fail = true);
    let error = store.commit(&[&[put(Table::Meta, "b", "1")]]).expect_err("the sync failed");
    assert!(matches!(error, StorageError::Failed(_)), "{error}");
}

#[test]
fn a_store_is_unclean_unless_it_was_closed() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = RedbStorage::open(dir.path()).expect("made");
    assert!(!store.was_unclean(), "a new store has no past");
    store.commit(&[&[put(Table::Meta, "a", "1")]]).expect("committed");
    drop(store);

    let store = RedbStorage::open(dir.path()).expect("opened");
    assert!(store.was_unclean());
    assert_eq!(all(&store, Table::Meta), "a=1");
    store.close().expect("closed");
    assert!(matches!(store.commit(&[]), Err(StorageError::Closed)));
    drop(store);
    assert!(!RedbStorage::open(dir.path()).expect("opened").was_unclean());
}

#[test]
fn a_folder_in_use_is_refused_with_its_name_and_the_pid() {
    let dir = tempfile::tempdir().expect("a folder");
    let _held = RedbStorage::open(dir.path()).expect("made");
    let error = RedbStorage::open(dir.path()).expect_err("it is in use").to_string();
    let expected = format!("{} is in use by another knot server (pid {})", dir.path().display(), std::process::id());
    assert_eq!(error, expected);
}

#[test]
fn a_file_in_place_of_the_folder_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("data");
    fs::write(&path, "").expect("written");
    let error = RedbStorage::open(&path).expect_err("it is a file").to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains("name a folder"), "{error}");
}

#[test]
fn only_the_owner_can_read_the_data() {
    let dir = tempfile::tempdir().expect("a folder");
    let data_dir = dir.path().join("a/b");
    let store = RedbStorage::open(&data_dir).expect("made");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&data_dir), 0o700);
    assert_eq!(mode(&data_dir.join(FILE_NAME)), 0o600);
    assert_eq!(mode(&data_dir.join(LOCK_NAME)), 0o600);
    assert!(store.size_bytes() > 0);
}

#[test]
fn a_crash_while_the_file_was_made_is_started_over() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join(NEW_FILE_NAME), b"torn").expect("written");
    RedbStorage::open(dir.path()).expect("made anew");
    assert!(!dir.path().join(NEW_FILE_NAME).exists());
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let rubbish = vec![7; 1 << 16];
    fs::write(dir.path().join(FILE_NAME), &rubbish).expect("written");
    let error = RedbStorage::open(dir.path()).expect_err("it is rubbish");
    assert!(matches!(error, StorageError::Corrupt(_)), "{error}");
    assert!(fs::read(dir.path().join(FILE_NAME)).expect("readable") == rubbish);
}

#[test]
fn a_newer_format_is_refused() {
    let disk = Arc::<Disk>::default();
    drop(on_disk(&disk));
    let database = Builder::new().create_with_backend(Watched::new(disk.clone())).expect("opened");
    let transaction = database.begin_write().expect("begun");
    let newer = FORMAT_VERSION + 1;
    transaction.open_table(FORMAT).expect("there").insert(FORMAT_KEY, newer).expect("set");
    transaction.commit().expect("committed");
    drop(database);
    let error = RedbStorage::on_backend(disk, false).expect_err("it is newer");
    assert!(matches!(error, StorageError::Version { found, known: FORMAT_VERSION } if found == newer), "{error}");
}

#[test]
fn a_store_of_an_older_version_is_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = lz4_flex::decompress_size_prepended(FIXTURE_V1).expect("the fixture is whole");
    fs::write(dir.path().join(FILE_NAME), file).expect("written");
    let store = RedbStorage::open(dir.path()).expect("opened");
    assert_eq!(
        read_format(store.database.read().expect("unpoisoned").as_ref().expect("open")).expect("readable"),
        Some(FORMAT_VERSION)
    );
    for table in Table::ALL {
        let expected: Vec<_> = fixture_writes()
            .iter()
            .filter(|write| write.table == table)
            .map(|write| {
                let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
                format!("{}={}", text(&write.key), write.value.as_ref().map(text).unwrap_or_default())
            })
            .collect();
        assert_eq!(all(&store, table), expected.join(" "));
    }
    store.commit(&[&[put(Table::Meta, "new", "1")]]).expect("and written");
}

/// A small file system of its own, for as long as the value lives.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(megabytes: usize) -> Option<Self> {
        let dir = tempfile::tempdir().ok()?;
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_real_disk_that_fills_up_recovers_unaided() {
    let Some(disk) = Tmpfs::mount(12) else {
        eprintln!("skipped: mounting a tmpfs is not allowed here");
        return;
    };
    let data_dir = disk.0.path().join("data");
    let store = RedbStorage::open(&data_dir).expect("made");
    store.commit(&[&[put(Table::Meta, "kept", "1")]]).expect("committed");
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![1; 6 << 20]).expect("it fits");

    let value = "x".repeat(100_000);
    let mut written = 0;
    let error = loop {
        match store.commit(&[&[put(Table::Changes, &format!("{written:04}"), &value)]]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 200, "the disk never filled up");
    };
    assert!(matches!(error, StorageError::Full), "{error}");
    let again = store.commit(&[&[put(Table::Changes, "again", &value)]]).expect_err("it is full");
    assert!(matches!(again, StorageError::Full), "{again}");
    assert_eq!(all(&store, Table::Meta), "kept=1");

    fs::remove_file(&ballast).expect("removed");
    store.commit(&[&[put(Table::Meta, "later", "1")]]).expect("there is space again");
    drop(store);
    let store = RedbStorage::open(&data_dir).expect("opened");
    assert_eq!(all(&store, Table::Meta), "kept=1 later=1");
    assert_eq!(all(&store, Table::Changes).split(' ').count(), written);
}

#[test]
fn a_bit_that_flips_after_a_clean_stop_is_found_at_every_start_or_changes_nothing() {
    let disk = Arc::<Disk>::default();
    let store = on_disk(&disk);
    for number in 0..40 {
        let write = put(Table::Changes, &format!("key {number}"), &format!("value {number}"));
        store.commit(&[&[write]]).expect("committed");
    }
    let whole = all(&store, Table::Changes);
    store.close().expect("closed");
    drop(store);
    let end = usize::try_from(disk.len().expect("memory")).expect("it fits");
    let mut refused = 0;
    for offset in (0..end).step_by(53) {
        let damaged = disk.after_power_cut();
        damaged.rot(offset);
        match RedbStorage::on_backend(damaged.clone(), false) {
            Ok(store) => assert_eq!(all(&store, Table::Changes), whole, "offset {offset}"),
            Err(StorageError::Corrupt(_) | StorageError::Version { .. }) => {
                refused += 1;
                RedbStorage::on_backend(damaged, false).expect_err("the first start has not made it look whole");
            }
            Err(error) => panic!("offset {offset}: {error}"),
        }
    }
    assert!(refused > 20, "{refused}");
}
