use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use knot_engine::{Random, Seed};

use super::super::testing::{Disk, all, put, read, remove};
use super::super::{FILE_NAME, JOURNAL_NAME};
use super::*;

/// The two files of a store, on disks of their own.
#[derive(Clone, Debug, Default)]
struct Disks {
    tree: Arc<Disk>,
    journal: Arc<Disk>,
}

impl Disks {
    fn open(&self) -> Result<JournaledStorage, StorageError> {
        JournaledStorage::on_backends(self.tree.clone(), self.journal.clone(), true)
    }

    fn after_power_cut(&self) -> Self {
        Self { tree: self.tree.after_power_cut(), journal: self.journal.after_power_cut() }
    }

    fn after_torn_power_cut(&self, random: &mut Random) -> Self {
        let mut survives = || random.below(2) == 0;
        Self {
            tree: self.tree.after_torn_power_cut(&mut survives),
            journal: self.journal.after_torn_power_cut(&mut survives),
        }
    }
}

/// The model: what a store that lost nothing holds.
type Model = BTreeMap<(Table, Bytes), Bytes>;

fn apply(model: &mut Model, writes: &[Write]) {
    for Write { table, key, value } in writes {
        match value {
            Some(value) => drop(model.insert((*table, key.clone()), value.clone())),
            None => drop(model.remove(&(*table, key.clone()))),
        }
    }
}

fn contents(store: &JournaledStorage, bytes_max: usize) -> Result<Model, StorageError> {
    let mut contents = Model::new();
    for table in Table::ALL {
        let mut query = Query { table, start: Bytes::new(), end: Bytes::new(), bytes_max };
        loop {
            let scan = store.scan(&query)?;
            assert!(scan.complete || !scan.entries.is_empty(), "a scan that does not end must bring something");
            assert!(scan.entries.is_sorted_by(|(one, _), (next, _)| one < next), "in key order");
            if let Some((last, _)) = scan.entries.last() {
                query.start = after(last);
            }
            contents.extend(scan.entries.into_iter().map(|(key, value)| ((table, key), value)));
            if scan.complete {
                break;
            }
        }
    }
    Ok(contents)
}

/// A few writes of one commit, now and then so many that they go past the journal.
fn some_writes(random: &mut Random) -> Vec<Write> {
    let (count, bytes) = match random.below(16) {
        0 => (4, BULK_BYTES / 3),
        1..8 => (20, 4_000),
        8 => (0, 0),
        _ => (1 + random.below(5), 300),
    };
    let one = |random: &mut Random| {
        let key = format!("{:03}", random.below(200));
        let table = Table::ALL[usize::try_from(random.below(3)).expect("small")];
        let value = [u8::try_from(random.below(256)).expect("a byte")].repeat(bytes);
        let value = (random.below(5) > 0).then(|| Bytes::from(value));
        Write { table, key: key.into(), value }
    };
    (0..count).map(|_| one(random)).collect()
}

#[test]
fn a_commit_is_one_sync_and_survives_a_power_cut() {
    let disks = Disks::default();
    let store = disks.open().expect("made");
    store.commit(&[&[put(Table::Meta, "first", "1")]]).expect("committed");
    let before = (disks.journal.syncs(), disks.tree.syncs());
    let batch = [put(Table::Meta, "a", "1"), put(Table::Documents, "d", "1"), remove(Table::Meta, "first")];
    store.commit(&[&batch, &batch]).expect("committed");
    assert_eq!((disks.journal.syncs() - before.0, disks.tree.syncs() - before.1), (1, 0));
    let restarted = disks.after_power_cut().open().expect("opened");
    assert_eq!((all(&restarted, Table::Meta), all(&restarted, Table::Documents)), ("a=1".into(), "d=1".into()));
}

#[test]
fn what_is_in_the_journal_only_is_read_over_what_is_in_the_tree() {
    let disks = Disks::default();
    let store = disks.open().expect("made");
    let old: Vec<Write> = ["a", "b", "c", "d"].iter().map(|key| put(Table::Meta, key, "old")).collect();
    store.commit(&[&old]).expect("committed");
    store.shared.drain(&mut store.shared.journal()).expect("in the tree");
    store.commit(&[&[put(Table::Meta, "b", "new"), remove(Table::Meta, "c"), put(Table::Meta, "e", "new")]]).expect("");
    assert_eq!(all(&store, Table::Meta), "a=old b=new d=old e=new");
    assert_eq!(read(&store, Table::Meta, "b", "e", 100), ("b=new d=old".into(), true));
    assert_eq!(read(&store, Table::Meta, "b", "d", 1), ("b=new".into(), false));
    assert_eq!(read(&store, Table::Meta, "", "", 1), ("a=old".into(), false));
    assert_eq!(read(&store, Table::Meta, "c", "", 0), ("d=old".into(), false));
    assert_eq!(contents(&store, 0).expect("readable"), contents(&store, usize::MAX).expect("readable"));
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_is_cut() {
    for seed in 0..60_u8 {
        let mut random = Random::new(&Seed::from([seed; 32]), "power");
        let mut disks = Disks::default();
        let mut model = Model::new();
        for _life in 0..4 {
            let store = match disks.open() {
                Ok(store) => store,
                Err(error) => panic!("seed {seed}: {error}"),
            };
            assert!(contents(&store, 1 << 12).expect("readable") == model, "seed {seed}");
            let fuse = usize::try_from(random.below(120)).expect("small");
            let disk = if random.below(2) == 0 { &disks.tree } else { &disks.journal };
            disk.set(|state| state.fuse = Some(fuse));
            let mut in_doubt = model.clone();
            for _ in 0..400 {
                let writes = some_writes(&mut random);
                in_doubt = model.clone();
                apply(&mut in_doubt, &writes);
                if store.commit(&[&writes]).is_err() {
                    break;
                }
                model = in_doubt.clone();
                if random.below(20) == 0
                    && let Ok(found) = contents(&store, 1 << 12)
                {
                    assert!(found == model, "seed {seed}");
                }
            }
            drop(store);
            disks = disks.after_torn_power_cut(&mut random);
            let found = contents(&disks.open().expect("what a power cut leaves opens"), usize::MAX).expect("readable");
            assert!(found == model || found == in_doubt, "seed {seed}: {} of {}", found.len(), model.len());
            model = found;
        }
    }
}

#[test]
fn what_nothing_follows_is_soon_in_the_tree() {
    let disks = Disks::default();
    let store = disks.open().expect("made");
    store.commit(&[&[put(Table::Meta, "a", "1")]]).expect("committed");
    assert_eq!(all(&store.shared.tree, Table::Meta), "");
    while all(&store.shared.tree, Table::Meta) != "a=1" {
        std::thread::sleep(QUIET / 10);
    }
    store.commit(&[&[put(Table::Meta, "b", "2")]]).expect("committed");
    let restarted = disks.after_power_cut().open().expect("opened");
    assert_eq!(all(&restarted, Table::Meta), "a=1 b=2");
}

#[test]
fn a_half_is_not_written_over_before_the_tree_has_it() {
    let disks = Disks::default();
    let store = disks.open().expect("made");
    disks.tree.set(|state| state.sync_takes = Duration::from_millis(300));
    let value = "x".repeat(100_000);
    let records = 2 * JOURNAL_BYTES / value.len();
    for number in 0..records {
        store.commit(&[&[put(Table::Meta, &format!("{number:03}"), &value)]]).expect("committed");
    }
    let restarted = disks.after_power_cut().open().expect("opened");
    assert_eq!(all(&restarted, Table::Meta).split(' ').count(), records);
}

#[test]
fn a_clean_stop_leaves_all_of_it_in_the_tree() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = JournaledStorage::open(dir.path()).expect("made");
    store.commit(&[&[put(Table::Meta, "a", "1")]]).expect("committed");
    assert!(store.size_bytes() > JOURNAL_BYTES as u64);
    let mode = fs::metadata(dir.path().join(JOURNAL_NAME)).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    store.close().expect("closed");
    assert!(matches!(store.commit(&[]), Err(StorageError::Closed)));
    drop(store);
    fs::remove_file(dir.path().join(JOURNAL_NAME)).expect("it was there");
    let store = JournaledStorage::open(dir.path()).expect("opened");
    assert!(!store.shared.tree.was_unclean());
    assert_eq!(all(&store, Table::Meta), "a=1");
    store.commit(&[&[put(Table::Meta, "b", "2")]]).expect("committed");
    drop(store);
    let store = JournaledStorage::open(dir.path()).expect("opened");
    assert!(store.shared.tree.was_unclean());
    assert_eq!(all(&store, Table::Meta), "a=1 b=2");
}

#[test]
fn the_first_failed_sync_is_the_last() {
    let disks = Disks::default();
    let store = disks.open().expect("made");
    store.commit(&[&[put(Table::Meta, "a", "1")]]).expect("committed");
    disks.journal.set(|state| state.syncs_fail = true);
    let error = store.commit(&[&[put(Table::Meta, "b", "1")]]).expect_err("the sync failed");
    assert!(matches!(error, StorageError::Failed(_)) && error.is_fatal(), "{error}");
    disks.journal.set(|state| state.syncs_fail = false);
    let error = store.commit(&[&[put(Table::Meta, "b", "1")]]).expect_err("nobody knows what is on the disk");
    assert!(matches!(error, StorageError::Failed(_)), "{error}");
}

#[test]
fn a_tree_that_fails_behind_the_journal_ends_the_store_and_loses_nothing() {
    let disks = Disks::default();
    let store = disks.open().expect("made");
    disks.tree.set(|state| state.syncs_fail = true);
    let value = "x".repeat(10_000);
    let mut written = 0;
    let error = loop {
        match store.commit(&[&[put(Table::Meta, &format!("{written:03}"), &value)]]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1_000, "the journal was never turned over");
    };
    assert!(matches!(error, StorageError::Failed(_)), "{error}");
    drop(store);
    disks.tree.set(|state| state.syncs_fail = false);
    let restarted = disks.after_power_cut().open().expect("opened");
    assert_eq!(all(&restarted, Table::Meta).split(' ').count(), written);
}

#[test]
fn a_full_disk_refuses_writes_keeps_reading_and_recovers_unaided() {
    let disks = Disks::default();
    let store = disks.open().expect("made");
    disks.tree.set(|state| state.full = true);
    let value = "x".repeat(10_000);
    let mut written = 0;
    while store.commit(&[&[put(Table::Meta, &format!("{written:03}"), &value)]]).is_ok() {
        written += 1;
        assert!(written < 1_000, "the disk never filled up");
    }
    for _ in 0..3 {
        let error = store.commit(&[&[put(Table::Meta, "lost", "1")]]).expect_err("there is no space");
        assert!(matches!(error, StorageError::Full) && !error.is_fatal(), "{error}");
    }
    disks.tree.set(|state| state.full = false);
    assert_eq!(all(&store, Table::Meta).split(' ').count(), written);
    store.commit(&[&[put(Table::Meta, "later", "1")]]).expect("there is space again");
    assert_eq!(all(&store, Table::Meta).split(' ').count(), written + 1);
    // A file system that copies on write has no space for what is allocated either.
    disks.journal.set(|state| state.full = true);
    let error = store.commit(&[&[put(Table::Meta, "lost", "1")]]).expect_err("there is no space");
    assert!(matches!(error, StorageError::Full), "{error}");
    disks.journal.set(|state| state.full = false);
    store.commit(&[&[put(Table::Meta, "latest", "1")]]).expect("there is space again");
    let restarted = disks.after_power_cut().open().expect("opened");
    assert_eq!(all(&restarted, Table::Meta).split(' ').count(), written + 2);
}

#[test]
fn damage_before_the_journals_end_is_told_from_a_torn_end() {
    let disks = Disks::default();
    let store = disks.open().expect("made");
    for key in ["a", "b", "c"] {
        store.commit(&[&[put(Table::Meta, key, "1")]]).expect("committed");
    }
    drop(store);
    // The first generation begins in the second half.
    let block = |number: usize| JOURNAL_BYTES / 2 + number * 4_096;
    let torn = disks.after_power_cut();
    torn.journal.rot(block(2) + 50);
    assert_eq!(all(&torn.open().expect("the end is torn"), Table::Meta), "a=1 b=1");
    for number in [0, 1] {
        let damaged = disks.after_power_cut();
        damaged.journal.rot(block(number) + 50);
        let error = damaged.open().expect_err("a record is missing");
        assert!(matches!(error, StorageError::Corrupt(_)), "{error}");
    }
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join(FILE_NAME);
    let store = JournaledStorage::open(dir.path()).expect("made");
    store.commit(&[&[put(Table::Meta, "a", "1")]]).expect("committed");
    store.close().expect("closed");
    drop(store);
    let backup = fs::read(&data).expect("readable");
    for _ in 0..3 {
        let store = JournaledStorage::open(dir.path()).expect("opened");
        store.commit(&[&[put(Table::Meta, "a", "2")]]).expect("committed");
        store.close().expect("closed");
    }
    fs::write(&data, backup).expect("restored without its journal");
    let error = JournaledStorage::open(dir.path()).expect_err("what is between them is missing").to_string();
    assert!(error.contains("both files belong together"), "{error}");
    fs::remove_file(dir.path().join(JOURNAL_NAME)).expect("removed");
    assert_eq!(all(&JournaledStorage::open(dir.path()).expect("opened"), Table::Meta), "a=1");
}

#[test]
fn a_journal_that_was_cut_short_is_refused_if_it_held_anything() {
    let dir = tempfile::tempdir().expect("a folder");
    let journal = dir.path().join(JOURNAL_NAME);
    fs::write(&journal, [0; 100]).expect("a crash while it was made");
    let store = JournaledStorage::open(dir.path()).expect("made anew");
    store.commit(&[&[put(Table::Meta, "a", "1")]]).expect("committed");
    drop(store);
    let whole = fs::read(&journal).expect("readable");
    fs::write(&journal, &whole[..whole.len() - 1]).expect("cut");
    let error = JournaledStorage::open(dir.path()).expect_err("it was cut").to_string();
    assert!(error.contains("cut short"), "{error}");
}

/// What the disks do in one life of a store.
fn trouble(disks: &Disks, random: &mut Random) {
    for disk in [&disks.tree, &disks.journal] {
        let fuse = |random: &mut Random, below: u64| usize::try_from(random.below(below)).expect("small");
        disk.set(|state| {
            state.full = false;
            state.fuse = (random.below(3) == 0).then(|| fuse(random, 120));
            state.sync_fuse = (random.below(4) == 0).then(|| fuse(random, 40));
        });
    }
}

#[test]
fn lives_of_all_kinds_lose_nothing_acknowledged_and_keep_nothing_refused() {
    for seed in 0..40_u8 {
        let mut random = Random::new(&Seed::from([seed; 32]), "lives");
        let mut disks = Disks::default();
        // What may be found: until something is acknowledged, an unsynced end may come and go.
        let mut possible = vec![Model::new()];
        for life in 0..12 {
            let at = format!("seed {seed}, life {life}");
            let early = random.below(4) == 0;
            if early {
                trouble(&disks, &mut random);
            }
            'life: {
                let store = match disks.open() {
                    Ok(store) => store,
                    Err(StorageError::Failed(_)) if early => break 'life,
                    Err(error) => panic!("{at}: {error}"),
                };
                let mut found = match contents(&store, 1 << 12) {
                    Ok(found) => found,
                    Err(StorageError::Failed(_)) if early => break 'life,
                    Err(error) => panic!("{at}: {error}"),
                };
                assert!(possible.contains(&found), "{at}: {} entries", found.len());
                if !early {
                    trouble(&disks, &mut random);
                }
                for _ in 0..random.below(200) {
                    if random.below(20) == 0 {
                        let full = random.below(2) == 0;
                        disks.tree.set(|state| state.full = full);
                    }
                    let full = random.below(20) == 0;
                    disks.journal.set(|state| state.full = full);
                    let writes = some_writes(&mut random);
                    let mut after = found.clone();
                    apply(&mut after, &writes);
                    match store.commit(&[&writes]) {
                        Ok(()) => (possible, found) = (vec![after.clone()], after),
                        Err(StorageError::Full) => {}
                        Err(_) => {
                            possible.push(after);
                            break 'life;
                        }
                    }
                    if random.below(20) == 0 {
                        match contents(&store, 1 << 12) {
                            Ok(read) => assert!(read == found, "{at}"),
                            Err(error) => assert!(error.is_fatal() || disks.tree.is_full(), "{at}: {error}"),
                        }
                    }
                }
                if random.below(4) == 0 && store.close().is_ok() {
                    possible = vec![found];
                }
            }
            disks = if random.below(2) == 0 { disks.after_torn_power_cut(&mut random) } else { disks };
            for disk in [&disks.tree, &disks.journal] {
                disk.set(|state| (state.fuse, state.sync_fuse, state.full) = (None, None, false));
            }
        }
    }
}

#[test]
fn scans_beside_checkpoints_and_a_full_disk_miss_nothing() {
    let disks = Disks::default();
    let store = disks.open().expect("made");
    let value = "x".repeat(3_000);
    let keys: Vec<Write> = (0..2_000).map(|n| put(Table::Meta, &format!("{n:04}"), &value)).collect();
    for some in keys.chunks(20) {
        store.commit(&[some]).expect("committed");
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for bytes_max in [1 << 12, 1 << 16] {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    assert_eq!(contents(store, bytes_max).expect("readable").len(), 2_000);
                }
            });
        }
        let mut random = Random::new(&Seed::from([7; 32]), "beside");
        for round in 0..600 {
            if round % 50 == 20 {
                disks.tree.set(|state| state.full_for = 1);
            }
            let at = usize::try_from(random.below(1_900)).expect("small");
            let many = if round % 7 == 0 { 100 } else { 20 };
            match store.commit(&[&keys[at..at + many]]) {
                Ok(()) | Err(StorageError::Full) => {}
                Err(error) => {
                    done.store(true, Relaxed);
                    panic!("round {round}: {error}");
                }
            }
        }
        done.store(true, Relaxed);
    });
}

#[test]
fn commits_of_nothing_do_not_pass_for_damage() {
    let disks = Disks::default();
    let store = disks.open().expect("made");
    store.commit(&[&[put(Table::Meta, "a", "1")]]).expect("committed");
    store.shared.drain(&mut store.shared.journal()).expect("in the tree");
    for _ in 0..1_100 {
        store.commit(&[&[]]).expect("nothing to do");
    }
    assert_eq!(all(&disks.after_power_cut().open().expect("it is whole"), Table::Meta), "a=1");
}

#[test]
fn a_generation_that_lost_its_end_is_damage_when_another_follows() {
    let disks = Disks::default();
    let store = disks.open().expect("made");
    let value = "x".repeat(200_000);
    let mut journal = store.shared.journal();
    journal.turn();
    for key in ["a", "b"] {
        journal.append(&[&[put(Table::Meta, key, &value)]]).expect("written");
    }
    journal.turn();
    journal.append(&[&[put(Table::Meta, "c", &value)]]).expect("written");
    drop(journal);
    let damaged = disks.after_power_cut();
    damaged.journal.rot(JOURNAL_BYTES / 2 + 50 * 4_096 + 100);
    let error = damaged.open().expect_err("a record is missing");
    assert!(matches!(error, StorageError::Corrupt(_)), "{error}");
}

#[test]
fn a_tree_that_makes_no_sense_ends_the_store() {
    let disks = Disks::default();
    let store = disks.open().expect("made");
    disks.tree.set(|state| state.syncs_panic = true);
    let value = "x".repeat(10_000);
    let error = (0..1_000).find_map(|n| store.commit(&[&[put(Table::Meta, &format!("{n:03}"), &value)]]).err());
    assert!(error.expect("the journal was turned over").is_fatal());
    disks.tree.set(|state| state.syncs_panic = false);
}

#[test]
fn a_journal_that_was_never_written_gets_its_blocks() {
    let dir = tempfile::tempdir().expect("a folder");
    let journal = dir.path().join(JOURNAL_NAME);
    fs::File::create(&journal).and_then(|file| file.set_len(JOURNAL_BYTES as u64)).expect("no space for more");
    JournaledStorage::open(dir.path()).expect("made");
    assert!(fs::metadata(&journal).expect("it is there").blocks() * 512 >= JOURNAL_BYTES as u64);
}

#[test]
fn what_found_no_space_half_way_never_comes_back() {
    let disks = Disks::default();
    let store = disks.open().expect("made");
    disks.journal.set(|state| state.full = true);
    // Its end is what is on the disk already.
    let zeros = put(Table::Meta, "a", &"\0".repeat(BULK_BYTES / 2));
    let error = store.commit(&[&[zeros]]).expect_err("there is no space");
    assert!(matches!(error, StorageError::Full), "{error}");
    let newer: Vec<Write> = ["a", "b"].iter().map(|key| put(Table::Meta, key, &"x".repeat(BULK_BYTES))).collect();
    store.commit(&[&newer]).expect("past the journal");
    let stored = all(&store, Table::Meta);
    drop(store);
    disks.journal.set(|state| state.full = false);
    assert!(all(&disks.open().expect("opened"), Table::Meta) == stored);
}
