//! The committed corpora: what their seeds are made of, that they still reach what they were made to reach, and that every
//! input runs within its target's bounds.
//!
//! `KNOT_WRITE_CORPUS=1 cargo test -p knot-fuzz` writes the seeds anew after a change of a format.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod seeds;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use knot_fuzz::{TARGETS, target};

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target)
}

#[test]
fn every_committed_seed_does_what_it_was_made_for() {
    let mut wrong = Vec::new();
    for (name, seeds) in seeds::all() {
        let (target, folder) = (target(name), folder(name));
        for (seed, input, expected) in seeds {
            let file = folder.join(seed);
            if std::env::var_os("KNOT_WRITE_CORPUS").is_some() {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&file, &input).unwrap();
            }
            let came_of_it = target.run_bounded(&input);
            if came_of_it != expected {
                wrong.push(format!("{name}/{seed}: {came_of_it}, not {expected}"));
            }
            if fs::read(&file).ok() != Some(input) {
                wrong.push(format!("{name}/{seed} is out of date"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_of_a_corpus_runs_within_its_targets_bounds() {
    for target in TARGETS {
        for entry in fs::read_dir(folder(target.name)).unwrap() {
            target.run_bounded(&fs::read(entry.unwrap().path()).unwrap());
        }
    }
}

#[test]
fn every_target_has_seeds_and_a_binary() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(seeds::all().iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), names);
    for name in names {
        let binary = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz_targets").join(format!("{name}.rs"));
        assert!(fs::read_to_string(binary).unwrap().contains(&format!("knot_fuzz::{name}::TARGET")));
    }
}
