use bytes::Bytes;
use knot_engine::{BatchId, LoadId, Query, StorageEvent, Table, Write};

use super::{Batch, Disk};
use crate::draw::Draw;
use crate::scenario::DiskSpec;

fn disk(seed: u64) -> Disk {
    let spec = DiskSpec { commit_min_us: 60, commit_max_us: 600 };
    Disk::new(spec, Draw::new(seed, "disk"))
}

fn batch(id: u64, epoch: u32, rewrite_tail: bool) -> Batch {
    let key = Bytes::from(format!("k{id}"));
    let write = Write { table: Table::Changes, key, value: Some(Bytes::from_static(b"value")) };
    Batch { id: BatchId(id), epoch, rewrite_tail, writes: vec![write] }
}

fn commit(disk: &mut Disk, batch: Batch) -> Vec<StorageEvent> {
    assert!(disk.persist(batch).is_some(), "the disk was idle");
    disk.finish_commit().0.events
}

fn keys(disk: &Disk) -> Vec<String> {
    let query = Query { table: Table::Changes, start: Bytes::new(), end: Bytes::new(), bytes_max: usize::MAX };
    let StorageEvent::Loaded { entries, .. } = disk.load(LoadId(1), &query) else {
        panic!("a load is answered");
    };
    entries.into_iter().map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect()
}

#[test]
fn what_was_synced_survives_a_power_cut() {
    let mut disk = disk(1);
    commit(&mut disk, batch(1, 0, false));
    disk.crash(true);
    assert_eq!(keys(&disk), ["k1"]);
}

#[test]
fn batches_that_wait_are_committed_together() {
    let mut disk = disk(1);
    assert!(disk.persist(batch(1, 0, false)).is_some());
    assert!(disk.persist(batch(2, 0, false)).is_none());
    assert!(disk.persist(batch(3, 0, false)).is_none());
    let (commit, next) = disk.finish_commit();
    assert_eq!(commit.durable.len(), 1);
    assert!(next.is_some());
    assert_eq!(disk.finish_commit().0.durable.len(), 2);
    assert!(disk.is_idle());
}

#[test]
fn a_crash_keeps_a_prefix_of_what_was_under_way() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let mut disk = disk(seed);
        assert!(disk.persist(batch(1, 0, false)).is_some());
        for id in 2..5 {
            disk.persist(batch(id, 0, false));
        }
        disk.finish_commit();
        disk.crash(false);
        let kept = keys(&disk);
        let all = ["k1", "k2", "k3", "k4"];
        assert_eq!(kept, all[..kept.len()], "in order");
        seen.insert(kept.len());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn a_failed_sync_leaves_what_a_power_cut_takes() {
    let mut disk = disk(1);
    disk.fails_next = true;
    assert!(matches!(commit(&mut disk, batch(1, 0, false))[..], [StorageEvent::Failed(_)]));
    disk.crash(false);
    assert_eq!(keys(&disk), ["k1"], "it can be read");
    disk.crash(true);
    assert!(keys(&disk).is_empty(), "it was not durable");
}

#[test]
fn writing_the_tail_again_makes_it_durable() {
    let mut disk = disk(1);
    disk.fails_next = true;
    commit(&mut disk, batch(1, 0, false));
    disk.crash(false);
    commit(&mut disk, batch(2, 0, true));
    disk.crash(true);
    assert_eq!(keys(&disk), ["k1", "k2"]);
}

#[test]
fn a_full_disk_refuses_the_rest_of_the_epoch() {
    let mut disk = disk(1);
    disk.full = true;
    assert!(matches!(commit(&mut disk, batch(1, 0, false))[..], [StorageEvent::Full(_)]));
    disk.full = false;
    assert!(matches!(commit(&mut disk, batch(2, 0, false))[..], [StorageEvent::Full(_)]));
    assert!(matches!(commit(&mut disk, batch(3, 1, false))[..], [StorageEvent::Persisted(_)]));
    assert_eq!(keys(&disk), ["k3"]);
}

#[test]
fn a_restore_forgets_what_came_after_the_copy() {
    let mut disk = disk(1);
    commit(&mut disk, batch(1, 0, false));
    disk.back_up();
    commit(&mut disk, batch(2, 0, false));
    assert!(disk.restore());
    assert_eq!(keys(&disk), ["k1"]);
}

#[test]
fn nothing_is_written_behind_a_failed_sync() {
    for power in [false, true] {
        let mut disk = disk(1);
        disk.fails_next = true;
        assert!(disk.persist(batch(1, 0, false)).is_some());
        assert!(disk.persist(batch(2, 0, false)).is_none());
        assert!(disk.finish_commit().1.is_some(), "the second waits for its answer");
        assert!(matches!(disk.finish_commit().0.events[..], [StorageEvent::Failed(_)]));
        disk.persist(batch(3, 0, false));
        disk.crash(power);
        assert!(keys(&disk).iter().all(|key| key == "k1"), "{:?}", keys(&disk));
        assert!(matches!(commit(&mut disk, batch(4, 0, false))[..], [StorageEvent::Persisted(_)]), "a start mends it");
    }
}
