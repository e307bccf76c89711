//! House rules that the compiler and Clippy do not know.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 800;
/// Folders that hold what was made, not what was written.
const SKIPPED: [&str; 5] = [".git", "target", "corpus", "artifacts", "knot-data"];
/// The engine is handed the time, randomness, the disk and the network; and it iterates over nothing without an order.
const NOT_IN_ENGINE: [&str; 12] = [
    "HashMap",
    "HashSet",
    "Instant::now",
    "SystemTime",
    "getrandom",
    "rand::",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "tokio",
];

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn is(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|found| found == extension)
    }

    /// Numbered lines without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every text file of the repository but this one, which has to spell out what it looks for.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
                folders.push(path);
            } else if path.is_file()
                && name != "tidy.rs"
                && let Ok(text) = fs::read_to_string(&path)
            {
                found.push(Source { path: path.strip_prefix(root()).unwrap().to_owned(), text });
            }
        }
    }
    assert!(found.len() > 50, "the repository is not where it was expected: {}", root().display());
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn check(broken: impl Fn(&Source, &mut Vec<String>)) {
    let mut complaints = Vec::new();
    for source in sources() {
        let mut found = Vec::new();
        broken(&source, &mut found);
        complaints.extend(found.into_iter().map(|complaint| format!("{}:{complaint}", source.path.display())));
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn files_are_short_enough_to_read() {
    check(|source, complaints| {
        let lines = source.text.lines().count();
        if source.is("rs") && lines > LINES_MAX {
            complaints.push(format!("{lines}: more than {LINES_MAX} lines; name the second concept and move it out"));
        }
    });
}

#[test]
fn nothing_is_left_for_later() {
    const LEFT: [&str; 6] = ["todo!", "unimplemented!", "dbg!", "#[ignore", "TODO", "FIXME"];
    check(|source, complaints| {
        if !source.is("rs") {
            return;
        }
        for (number, line) in source.text.lines().enumerate() {
            for left in LEFT.iter().filter(|left| line.contains(**left)) {
                complaints.push(format!("{}: {left}", number + 1));
            }
        }
    });
}

#[test]
fn lints_are_silenced_with_a_reason() {
    check(|source, complaints| {
        if !source.is("rs") {
            return;
        }
        for opening in ["[allow(", "[expect("] {
            for (at, _) in source.text.match_indices(opening) {
                let attribute = &source.text[at..];
                let attribute = &attribute[..attribute.find(")]").unwrap_or(attribute.len())];
                if !attribute.contains("reason = \"") {
                    let number = source.text[..at].lines().count();
                    complaints.push(format!("{number}: {opening}..)] without a reason"));
                }
            }
        }
    });
}

#[test]
fn the_engine_reads_no_clock_and_iterates_over_no_hash_map() {
    check(|source, complaints| {
        if !source.is("rs") || !source.path.starts_with("engine/src") {
            return;
        }
        for (number, line) in source.code() {
            for banned in NOT_IN_ENGINE.iter().filter(|banned| line.contains(**banned)) {
                complaints.push(format!("{number}: {banned} in the engine"));
            }
        }
    });
}

#[test]
fn lines_end_where_they_end() {
    const WRITTEN: [&str; 4] = ["rs", "md", "toml", "sh"];
    check(|source, complaints| {
        if !WRITTEN.iter().any(|extension| source.is(extension)) {
            return;
        }
        for (number, line) in source.text.split('\n').enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                complaints.push(format!("{}: whitespace at the end", number + 1));
            }
        }
        if !source.text.ends_with('\n') || source.text.ends_with("\n\n") {
            complaints.push("the file does not end with one line break".to_owned());
        }
    });
}

#[test]
fn links_between_documents_lead_somewhere() {
    check(|source, complaints| {
        if !source.is("md") {
            return;
        }
        let ends = [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"')];
        let begun = ends.iter().flat_map(|(begins, ends)| {
            source.text.match_indices(begins).map(|(at, begins)| (at, &source.text[at + begins.len()..], *ends))
        });
        for (at, target, ends) in begun {
            let target = &target[..target.find(ends).unwrap_or(0)];
            let path = target.split('#').next().unwrap_or_default();
            let folder = root().join(&source.path);
            if !path.is_empty() && !path.contains("://") && !folder.with_file_name(path).exists() {
                complaints.push(format!("{}: no {path}", source.text[..at].lines().count()));
            }
        }
    });
}
