//! Changes that were not noticed when they were last tried.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::Failed;

#[derive(Debug)]
pub(crate) struct Survivors {
    file: PathBuf,
    names: BTreeSet<String>,
}

impl Survivors {
    pub(crate) fn read(notes: &Path) -> Result<Self, Failed> {
        let file = notes.join("survivors.txt");
        let text = if file.exists() { std::fs::read_to_string(&file)? } else { String::new() };
        Ok(Self { file, names: text.lines().map(str::to_owned).collect() })
    }

    pub(crate) fn hold(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Written down at once: somebody may end the run.
    pub(crate) fn note(&mut self, name: String, survived: bool) -> Result<(), Failed> {
        let is_other = if survived { self.names.insert(name) } else { self.names.remove(&name) };
        if is_other {
            std::fs::write(&self.file, self.names.iter().map(|name| format!("{name}\n")).collect::<String>())?;
        }
        Ok(())
    }
}
