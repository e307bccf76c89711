//! Scenarios as TOML, to be read, written and edited by people.

use super::{FaultKind, Scenario, Target};

/// One way between zones where a file does not say, in microseconds.
const FAR_US: u64 = 40_000;
/// Most servers of a scenario.
const NODES_MAX: usize = 64;
/// How long after the last fault the last operation may come, in milliseconds.
const LATE_MAX_MS: u64 = 1_000;
/// Longest scenario, in milliseconds: a day.
const LENGTH_MAX_MS: u64 = 24 * 60 * 60 * 1_000;

/// Why a text is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is not TOML, or not a scenario's.
    #[error("{0}")]
    Toml(#[from] Box<toml::de::Error>),
    /// It contradicts itself.
    #[error("{0}")]
    Invalid(String),
}

impl Scenario {
    /// Reads a scenario, and fills in what may be left out.
    ///
    /// # Errors
    /// With the line for what does not parse, with the entry for what makes no sense.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        let mut scenario: Self = toml::from_str(text).map_err(Box::new)?;
        let zones = scenario.zones().len();
        let far = &mut scenario.network.far_us;
        far.resize(far.len().max(zones), Vec::new());
        for (zone, lesser) in far.iter_mut().enumerate() {
            lesser.resize(lesser.len().max(zone), FAR_US);
        }
        scenario.operations.sort_by_key(|operation| operation.at_us);
        scenario.check().map_err(ScenarioError::Invalid)?;
        Ok(scenario)
    }

    /// The scenario as a file, which [`Scenario::from_toml`] reads back.
    ///
    /// # Errors
    /// When a number is greater than TOML holds, 2^63 - 1.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    fn check(&self) -> Result<(), String> {
        let count = self.nodes.len();
        if !(2..=NODES_MAX).contains(&count) {
            return Err(format!("there are {count} [[nodes]]; a scenario has 2 to {NODES_MAX}"));
        }
        if self.quiet_at_ms > LENGTH_MAX_MS {
            return Err(format!("quiet_at_ms is {}, and at most {LENGTH_MAX_MS}", self.quiet_at_ms));
        }
        let known = |what: &str, node: usize| {
            if node < count { Ok(()) } else { Err(format!("{what}: there is no node {node}, only 0 to {}", count - 1)) }
        };
        for (index, fault) in self.faults.iter().enumerate() {
            let what = format!("[[faults]] number {index}");
            fault.kind.nodes().into_iter().try_for_each(|node| known(&what, node))?;
            if fault.for_ms.is_none() && !matches!(fault.kind, FaultKind::Crash { .. }) {
                return Err(format!("{what}: for_ms is missing; only a crash may last for ever"));
            }
            if fault.ends_at_ms().unwrap_or(fault.at_ms) > self.quiet_at_ms {
                return Err(format!("{what}: it ends after quiet_at_ms, {}", self.quiet_at_ms));
            }
        }
        let mut ids = std::collections::BTreeSet::new();
        for operation in &self.operations {
            let what = format!("[[operations]] with id {}", operation.id);
            known(&what, operation.node)?;
            check_target(&operation.target).map_err(|why| format!("{what}: {why}"))?;
            if !ids.insert(operation.id) {
                return Err(format!("{what}: another has this id"));
            }
            if operation.at_us > (self.quiet_at_ms + LATE_MAX_MS) * 1_000 {
                return Err(format!("{what}: at_us is over {LATE_MAX_MS} ms after quiet_at_ms, {}", self.quiet_at_ms));
            }
        }
        Ok(())
    }
}

fn check_target(target: &Target) -> Result<(), String> {
    let id = knot_engine::documents::DocumentId::new(target.scope(), &target.collection, &target.key);
    id.map(drop).map_err(|error| error.to_string())
}

impl FaultKind {
    /// The servers that it names.
    pub(crate) fn nodes(&self) -> Vec<usize> {
        match self {
            Self::Partition { left, right, .. } => left.iter().chain(right).copied().collect(),
            Self::Crash { node, .. }
            | Self::Stop { node, .. }
            | Self::Restore { node, .. }
            | Self::Pause { node }
            | Self::Lag { node, .. }
            | Self::FsyncFails { node, .. }
            | Self::DiskFull { node }
            | Self::SlowDisk { node, .. }
            | Self::Reset { node } => vec![*node],
            Self::Loss { .. } | Self::Duplicate { .. } | Self::Reorder { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Shape;

    #[test]
    fn a_seeds_scenario_comes_back_from_its_file() {
        for seed in 0..50 {
            let scenario = Scenario::generate(seed, &Shape::default());
            let text = scenario.to_toml().unwrap();
            assert_eq!(Scenario::from_toml(&text).unwrap(), scenario, "{text}");
        }
    }

    const SMALL: &str = r#"
quiet_at_ms = 5000
nodes = [{ name = "a", zone = "gb" }, { name = "b", zone = "us" }]
faults = [{ at_ms = 3000, for_ms = 1000, kind = "partition", left = [0], right = [1], one_way = false }]
operations = [{ id = 1, at_us = 3500000, node = 0, action = "put", target = { collection = "c", key = "k" } }]
"#;

    #[test]
    fn a_short_file_is_a_whole_scenario() {
        let scenario = Scenario::from_toml(SMALL).unwrap();
        assert_eq!(scenario.network.far_us, [vec![], vec![FAR_US]]);
        assert_eq!((scenario.faults.len(), scenario.operations.len()), (1, 1));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let cases = [
            ("left = [0]", "left = [7]", "there is no node 7"),
            ("for_ms = 1000, ", "", "for_ms is missing"),
            ("for_ms = 1000", "for_ms = 9000", "ends after quiet_at_ms"),
            ("node = 0,", "node = 2,", "there is no node 2"),
            ("key = \"k\"", "key = \"\"", "id 1"),
            ("at_us = 3500000", "at_us = 9500000", "ms after quiet_at_ms"),
            ("zone = \"gb\" }, { name = \"b\", zone = \"us\" }", "zone = \"gb\" }", "there are 1 [[nodes]]"),
            ("quiet_at_ms = 5000", "quiet_at_ms = 5000\nquite = 1", "unknown field `quite`"),
            ("kind = \"partition\"", "kind = \"partion\"", "unknown variant `partion`"),
        ];
        for (from, to, expected) in cases {
            let error = Scenario::from_toml(&SMALL.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected:?} is not in {error}");
        }
    }
}
