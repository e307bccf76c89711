use super::*;

fn disk() -> (CrashDisk, Handle) {
    let disk = CrashDisk::new(Draw::new(1, "disk"));
    let (owner, clean) = disk.take_over();
    assert!(clean, "a new disk has no unclean past");
    let file = disk.file(owner, File::Tree);
    (disk, file)
}

fn read(file: &Handle, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    file.read(0, &mut out).unwrap();
    out
}

fn after(disk: &CrashDisk) -> Handle {
    let (owner, _) = disk.take_over();
    disk.file(owner, File::Tree)
}

#[test]
fn a_power_cut_takes_some_of_what_was_not_synced_and_nothing_of_what_was() {
    let (disk, file) = disk();
    let blocks = 64;
    file.write(0, &vec![1; blocks * BLOCK_BYTES]).unwrap();
    file.sync_data().unwrap();
    for at in 0..blocks {
        file.write((at * BLOCK_BYTES) as u64, &[2; BLOCK_BYTES]).unwrap();
    }
    disk.end(true);
    let left = read(&after(&disk), blocks * BLOCK_BYTES);
    let kept = left.chunks(BLOCK_BYTES).filter(|block| block[0] == 2).count();
    assert!((1..blocks).contains(&kept), "{kept} of {blocks}");
    assert!(left.iter().all(|byte| [1, 2].contains(byte)));
}

#[test]
fn a_killed_process_leaves_what_it_wrote_and_writes_no_more() {
    let (disk, file) = disk();
    file.write(0, b"written").unwrap();
    disk.end(false);
    assert!(file.write(0, b"posthum").is_err());
    assert_eq!(read(&after(&disk), 7), b"written");
}

#[test]
fn what_a_failed_sync_covered_reads_well_and_is_not_durable() {
    let (disk, file) = disk();
    file.write(0, b"first").unwrap();
    file.sync_data().unwrap();
    file.write(0, b"other").unwrap();
    disk.set_sync_fails(true);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(read(&file, 5), b"other");
    disk.end(true);
    assert_eq!(read(&after(&disk), 5), b"first");
}

#[test]
fn a_fuse_ends_a_process_at_its_operation() {
    let (disk, file) = disk();
    disk.set_fuse(Some(2));
    file.write(0, b"a").unwrap();
    assert!(!disk.is_fuse_blown());
    file.sync_data().unwrap();
    assert!(disk.is_fuse_blown());
    assert!(file.write(0, b"b").is_err());
}

#[test]
fn what_was_cut_off_and_written_anew_is_not_what_it_was() {
    let (disk, file) = disk();
    file.write(0, &[1; 20]).unwrap();
    file.sync_data().unwrap();
    file.set_len(10).unwrap();
    file.set_len(20).unwrap();
    file.sync_data().unwrap();
    disk.end(true);
    assert_eq!(read(&after(&disk), 20), [[1; 10], [0; 10]].concat());
}

#[test]
fn a_power_cut_brings_nothing_back_that_was_cut_off() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let disk = CrashDisk::new(Draw::new(seed, "disk"));
        let (owner, _) = disk.take_over();
        let file = disk.file(owner, File::Tree);
        file.write(0, &[1; 8]).unwrap();
        file.sync_data().unwrap();
        file.write(0, &[2; 8]).unwrap();
        file.set_len(4).unwrap();
        file.set_len(6).unwrap();
        assert_eq!(read(&file, 6), [2, 2, 2, 2, 0, 0]);
        disk.end(true);
        let file = after(&disk);
        let len = usize::try_from(file.len().unwrap()).unwrap();
        let left = read(&file, len);
        assert!(len != 6 || left[4..] == [0; 2], "{left:?}");
        lengths.insert(len);
    }
    assert_eq!(lengths, [4, 6, 8].into(), "any part of what was not synced, in its order");
}

#[test]
fn a_misdirected_write_is_found_elsewhere_once_the_cache_is_gone() {
    let (disk, file) = disk();
    let blocks = 16;
    file.write(0, &vec![1; blocks * BLOCK_BYTES]).unwrap();
    file.sync_data().unwrap();
    disk.set_misdirects(true);
    file.write(3 * BLOCK_BYTES as u64, &[2; BLOCK_BYTES]).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read(&file, 4 * BLOCK_BYTES)[3 * BLOCK_BYTES], 2, "the cache shows it where it was to be");
    disk.end(true);
    let left = read(&after(&disk), blocks * BLOCK_BYTES);
    let found: Vec<usize> = (0..blocks).filter(|at| left[at * BLOCK_BYTES] == 2).collect();
    assert!(found.len() == 1 && found != [3], "{found:?}");
}

#[test]
fn rot_flips_bits_of_what_is_used() {
    let (disk, file) = disk();
    file.write(5 * BLOCK_BYTES as u64, &[255; BLOCK_BYTES]).unwrap();
    file.sync_data().unwrap();
    disk.end(true);
    disk.rot(3);
    let left = read(&after(&disk), 6 * BLOCK_BYTES);
    let zeros: u32 = left[5 * BLOCK_BYTES..].iter().map(|byte| byte.count_zeros()).sum();
    assert!(zeros == 3 || zeros == 1, "{zeros}");
    assert!(left[..5 * BLOCK_BYTES].iter().all(|byte| *byte == 0));
}
