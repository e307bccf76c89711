//! A copy of the workspace, which may be changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failed;

#[derive(Debug)]
pub(crate) struct Tree {
    workspace: PathBuf,
    copy: PathBuf,
    /// As they were at the start: somebody may go on working.
    files: BTreeMap<String, Vec<u8>>,
}

impl Tree {
    /// Copies what git knows of, beside what is built.
    pub(crate) fn new(workspace: &Path) -> Result<Self, Failed> {
        let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let output = Command::new("git").args(arguments).current_dir(workspace).output()?;
        if !output.status.success() {
            return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let names = String::from_utf8(output.stdout)?;
        let names = names.split_terminator('\0').filter(|name| workspace.join(name).is_file());
        let files: Result<_, Failed> =
            names.map(|name| Ok((name.to_owned(), std::fs::read(workspace.join(name))?))).collect();
        let copy = workspace.join("target/mutants-tree");
        Ok(Self { workspace: workspace.to_owned(), copy, files: files? })
    }

    /// Makes the copy the workspace with these files changed. What is so already stays untouched, or cargo would build it
    /// again.
    pub(crate) fn lay(&self, changed: &BTreeMap<String, String>) -> Result<(), Failed> {
        let same = self.files.iter().filter(|(name, _)| !changed.contains_key(*name));
        let same = same.map(|(name, text)| (name, &text[..]));
        for (name, text) in same.chain(changed.iter().map(|(name, text)| (name, text.as_bytes()))) {
            let copy = self.copy.join(name);
            if std::fs::read(&copy).is_ok_and(|there| there == text) {
                continue;
            }
            std::fs::create_dir_all(copy.parent().unwrap_or(&self.copy))?;
            std::fs::write(copy, text)?;
        }
        Ok(())
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.copy
    }

    /// What is built of the copy lies where the workspace's own does: what others wrote is built once.
    pub(crate) fn target(&self) -> PathBuf {
        self.workspace.join("target")
    }

    /// Where campaigns write what they say, and what is known from earlier runs.
    pub(crate) fn notes(&self) -> Result<PathBuf, Failed> {
        let notes = self.target().join("mutants-notes");
        std::fs::create_dir_all(&notes)?;
        Ok(notes)
    }

    /// A file's text, in short.
    pub(crate) fn digest(&self, file: &str) -> Result<String, Failed> {
        Ok(blake3::hash(self.original(file)?.as_bytes()).to_hex()[..16].to_owned())
    }

    pub(crate) fn original(&self, file: &str) -> Result<&str, Failed> {
        let text = self.files.get(file).ok_or_else(|| format!("git does not know of {file}"))?;
        Ok(std::str::from_utf8(text)?)
    }
}
