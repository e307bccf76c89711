//! The scenarios that come with the simulator, by name.

use crate::scenario::{Scenario, ScenarioError};

/// A scenario that has a name.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Its name: its file's, without the ending.
    pub name: &'static str,
    /// Its file.
    pub text: &'static str,
}

macro_rules! library {
    ($($name:literal),* $(,)?) => {
        /// Every scenario that has a name, in the order of names.
        pub const LIBRARY: &[Named] = &[$(Named {
            name: $name,
            text: include_str!(concat!("../scenarios/", $name, ".toml")),
        }),*];
    };
}

library! {
    "backup-restored",
    "brief-outage",
    "clock-in-2099",
    "disk-full",
    "evicted-server",
    "few-streams",
    "flapping-link",
    "folder-copied",
    "forty-servers",
    "gateway-killed",
    "gray-link",
    "half-upgraded",
    "hears-but-cannot-speak",
    "hostile-member",
    "laptop-asleep",
    "lists-edited-everywhere",
    "machine-replaced",
    "mass-restart",
    "no-udp",
    "no-way-between",
    "nothing-wrong",
    "region-lost",
    "rolling-restart",
    "seeds-gone",
    "slow-disk",
    "thundering-herd",
    "zone-split",
}

/// The scenario of that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Named> {
    LIBRARY.iter().find(|known| known.name == name)
}

impl Named {
    /// What it is about: the comment that its file begins with.
    #[must_use]
    pub fn about(&self) -> String {
        about(self.text)
    }

    /// The scenario.
    ///
    /// # Errors
    /// When its file does not fit this version.
    pub fn scenario(&self) -> Result<Scenario, ScenarioError> {
        Scenario::from_toml(self.text)
    }
}

/// The comment that a scenario's file begins with, as one line.
#[must_use]
pub fn about(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
    lines.collect::<Vec<&str>>().join(" ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_name_and_a_description_and_is_a_scenario() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|found| found == "toml"))
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        files.sort_unstable();
        let names: Vec<&str> = LIBRARY.iter().map(|named| named.name).collect();
        assert_eq!(files, names, "each file is in the list above, in order");
        for named in LIBRARY {
            assert!(!named.about().is_empty(), "{} says what it is about first", named.name);
            assert!(named.scenario().is_ok(), "{}: {:?}", named.name, named.scenario().err());
        }
    }
}
