//! The committed corpora, altered by chance: no panic, no hang, no memory beyond the target's bounds. The same inputs in
//! every run; a fuzzer, which learns, goes further (`just fuzz`). Where one ends the process, for more memory than its
//! target allows, it is found in the folder for temporary files.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use knot_fuzz::alter::Alterer;
use knot_fuzz::{TARGETS, target};

/// Longest that an input may take, on a machine that does other things as well.
const LONGEST: Duration = Duration::from_secs(10);

/// What is committed of the corpus of a target, in the order of names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    // What a fuzzer has found here is named by its SHA-1.
    files.retain(|file| file.file_name().is_some_and(|name| name.len() != 40));
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Runs so many inputs. One that fails is left in a file for `cargo fuzz run`.
fn try_altered(name: &str, count: usize) {
    let (target, corpus, mut alterer) = (target(name), corpus(name), Alterer::new(name));
    assert!(corpus.len() > 2, "{name} has hardly a corpus");
    let file = std::env::temp_dir().join(format!("knot-fuzz-{name}-{}", std::process::id()));
    let kept = File::create(&file).unwrap();
    let mut reached = 0;
    for _ in 0..count {
        let input = alterer.alter(&corpus);
        kept.set_len(input.len() as u64).and_then(|()| kept.write_all_at(&input, 0)).unwrap();
        let began = Instant::now();
        let came_of_it = std::panic::catch_unwind(|| target.run_bounded(&input));
        assert!(came_of_it.is_ok(), "{name} fails; `cargo fuzz run --sanitizer none {name} {}` again", file.display());
        assert!(began.elapsed() < LONGEST, "{name} takes too long over {}", file.display());
        reached += usize::from(came_of_it.unwrap_or_default() > 0);
    }
    fs::remove_file(&file).unwrap();
    assert!(reached > 0, "{name}: nothing came of any of {count} inputs");
}

// One test, since targets run one at a time: the wait of one would count as the time of another.
#[test]
fn altered_inputs_stay_within_their_targets_bounds() {
    let counts = [
        ("wire", 200_000),
        ("session", 3_000),
        ("gate", 1_000),
        ("repair", 1_500),
        ("disk", 3_000),
        ("config", 10_000),
        ("body", 2_500),
        ("scenario", 30_000),
    ];
    assert_eq!(counts.map(|(name, _)| name), TARGETS.map(|target| target.name));
    for (name, count) in counts {
        let began = Instant::now();
        try_altered(name, count);
        println!("{name}: {count} inputs in {:.1?}", began.elapsed());
    }
}
