//! Scenarios as TOML, to be read, written and edited by people.

use super::{Action, FORMAT, Fault, FaultKind, Scenario, Target};

/// Most servers of a scenario.
const NODES_MAX: usize = 64;
/// How long after the last fault the last operation may come, in milliseconds.
const LATE_MAX_MS: u64 = 1_000;
/// Longest scenario, in milliseconds: a week.
const LENGTH_MAX_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Most operations, those of clients among them: what the time of a change has room for.
const OPERATIONS_MAX: u32 = 1 << 20;
/// How often a fault may recur.
const TIMES_MAX: u64 = 10_000;
/// Most bits that flip at once.
const BITS_MAX: u64 = 10_000;
/// Furthest that a clock is off, in seconds: a century and some days.
const CLOCK_MAX_S: u64 = 3_200_000_000;
/// Most that a clock runs fast or slow, in millionths.
const DRIFT_MAX_PPM: u64 = 100_000;

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
    /// Reads a scenario.
    ///
    /// # Errors
    /// With the line for what does not parse, with the entry for what makes no sense.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        let mut scenario: Self = toml::from_str(text).map_err(Box::new)?;
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

    /// Whether it makes sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format is {}; this version reads {FORMAT}", self.format));
        }
        let count = self.nodes.len();
        if !(2..=NODES_MAX).contains(&count) {
            return Err(format!("there are {count} [[nodes]]; a scenario has 2 to {NODES_MAX}"));
        }
        if self.quiet_at_ms > LENGTH_MAX_MS {
            return Err(format!("quiet_at_ms is {}, and at most {LENGTH_MAX_MS}", self.quiet_at_ms));
        }
        self.check_nodes()?;
        self.check_links()?;
        self.faults.iter().enumerate().try_for_each(|(index, fault)| {
            let checked = self
                .check_fault(fault)
                .and_then(|()| self.check_clone(index, fault))
                .and_then(|()| self.check_evict(fault));
            checked.map_err(|why| format!("[[faults]] number {index}: {why}"))
        })?;
        self.check_clients()?;
        self.check_operations()
    }

    fn known(&self, node: usize) -> Result<(), String> {
        let count = self.nodes.len();
        if node < count { Ok(()) } else { Err(format!("there is no node {node}, only 0 to {}", count - 1)) }
    }

    fn check_nodes(&self) -> Result<(), String> {
        for node in &self.nodes {
            let name = &node.name;
            if self.nodes.iter().filter(|other| other.name == *name).count() > 1 {
                return Err(format!("two [[nodes]] are called {name:?}"));
            }
            if node.clock_offset_s.unsigned_abs() > CLOCK_MAX_S {
                return Err(format!("[[nodes]] {name:?}: clock_offset_s is at most {CLOCK_MAX_S} either way"));
            }
            if node.clock_drift_ppm.unsigned_abs() > DRIFT_MAX_PPM {
                return Err(format!("[[nodes]] {name:?}: clock_drift_ppm is at most {DRIFT_MAX_PPM} either way"));
            }
        }
        self.core.iter().try_for_each(|&node| self.known(node).map_err(|why| format!("core: {why}")))
    }

    fn check_links(&self) -> Result<(), String> {
        let zones = self.zones();
        for link in &self.network.links {
            for zone in &link.between {
                if !zones.contains(&zone.as_str()) {
                    return Err(format!(
                        "[[network.links]]: no node is in zone {zone:?}; there are {}",
                        zones.join(", ")
                    ));
                }
            }
            if link.bytes_per_s == Some(0) {
                return Err("[[network.links]]: bytes_per_s is at least 1".to_owned());
            }
        }
        Ok(())
    }

    fn check_fault(&self, fault: &Fault) -> Result<(), String> {
        fault.kind.nodes().into_iter().try_for_each(|node| self.known(node))?;
        let may_last = matches!(fault.kind, FaultKind::Crash { .. } | FaultKind::Stop { .. });
        if fault.for_ms.is_none() && !may_last && self.core.is_empty() {
            return Err("for_ms is missing; only a crash or a stop may last for ever".to_owned());
        }
        if fault.ends_at_ms().unwrap_or(fault.at_ms) > self.quiet_at_ms && self.core.is_empty() {
            return Err(format!("it ends after quiet_at_ms, {}", self.quiet_at_ms));
        }
        if fault.times > TIMES_MAX {
            return Err(format!("times is at most {TIMES_MAX}"));
        }
        if fault.every_ms > 0 && fault.for_ms.is_none_or(|lasting| lasting > fault.every_ms) {
            return Err("it recurs before it ends: for_ms is at most every_ms".to_owned());
        }
        if matches!(fault.kind, FaultKind::Corrupt { .. }) && !self.sealed {
            return Err("only sealed datagrams are known from corrupt ones: add sealed = true at the top".to_owned());
        }
        if let FaultKind::Throttle { bytes_per_s: 0, .. } | FaultKind::SlowReader { bytes_per_s: 0, .. } = fault.kind {
            return Err("bytes_per_s is at least 1".to_owned());
        }
        if let FaultKind::BitRot { bits, .. } = fault.kind
            && !(1..=BITS_MAX).contains(&bits)
        {
            return Err(format!("bits is 1 to {BITS_MAX}"));
        }
        if let FaultKind::Clock { offset_s, .. } = fault.kind
            && offset_s.unsigned_abs() > CLOCK_MAX_S
        {
            return Err(format!("offset_s is at most {CLOCK_MAX_S} either way"));
        }
        Ok(())
    }

    fn check_evict(&self, fault: &Fault) -> Result<(), String> {
        let FaultKind::Evict { node, by } = fault.kind else { return Ok(()) };
        if node == by {
            return Err("a server is shut out by another: node and by differ".to_owned());
        }
        if !self.core.is_empty() {
            return Err("a server is let in again in the end, and with a core nothing else is mended".to_owned());
        }
        Ok(())
    }

    fn check_clone(&self, index: usize, fault: &Fault) -> Result<(), String> {
        let FaultKind::Clone { node, to } = fault.kind else { return Ok(()) };
        if node == to {
            return Err("a folder is copied to another machine: node and to differ".to_owned());
        }
        if self.nodes[node].zone != self.nodes[to].zone {
            return Err("both machines are in one zone: the documents of a zone do not leave it".to_owned());
        }
        if !self.core.is_empty() {
            return Err("a copy is deleted in the end, and with a core nothing else is mended".to_owned());
        }
        let mut others = self.faults.iter().enumerate().filter(|(other, _)| *other != index);
        match others.find(|(_, other)| fault.contends_with(other)) {
            Some((other, _)) => Err(format!("number {other} takes the disk of one of them meanwhile")),
            None => Ok(()),
        }
    }

    fn check_clients(&self) -> Result<(), String> {
        let mut operations = self.operations.len() as u64;
        for (index, client) in self.clients.iter().enumerate() {
            let what = format!("[[clients]] number {index}");
            client.nodes.iter().try_for_each(|&node| self.known(node).map_err(|why| format!("{what}: {why}")))?;
            if client.every_ms == 0 || client.actions.is_empty() {
                return Err(format!("{what}: every_ms is at least 1, and actions names at least one"));
            }
            let target =
                Target { zone: client.zone.clone(), collection: client.collection.clone(), key: "k0".to_owned() };
            check_target(&target, &client.actions).map_err(|why| format!("{what}: {why}"))?;
            operations += 2 * self.quiet_at_ms / client.every_ms;
        }
        if operations > u64::from(OPERATIONS_MAX) {
            return Err(format!("that is about {operations} operations, and at most {OPERATIONS_MAX} are possible"));
        }
        Ok(())
    }

    fn check_operations(&self) -> Result<(), String> {
        let mut ids = std::collections::BTreeSet::new();
        for operation in &self.operations {
            let what = format!("[[operations]] with id {}", operation.id);
            self.known(operation.node).map_err(|why| format!("{what}: {why}"))?;
            check_target(&operation.target, &[operation.action]).map_err(|why| format!("{what}: {why}"))?;
            if !ids.insert(operation.id) {
                return Err(format!("{what}: another has this id"));
            }
            if operation.id >= OPERATIONS_MAX {
                return Err(format!("{what}: an id is less than {OPERATIONS_MAX}"));
            }
            if operation.at_us > (self.quiet_at_ms + LATE_MAX_MS) * 1_000 {
                return Err(format!("{what}: at_us is over {LATE_MAX_MS} ms after quiet_at_ms, {}", self.quiet_at_ms));
            }
        }
        Ok(())
    }
}

fn check_target(target: &Target, actions: &[Action]) -> Result<(), String> {
    if target.only_grows() {
        let shrinks = |action: &&Action| matches!(action, Action::Put | Action::Delete | Action::Patch);
        if let Some(action) = actions.iter().find(shrinks) {
            return Err(format!(
                "documents of a collection whose name ends with {:?} are only added to, and {action:?} is not that",
                super::GROWING
            ));
        }
    }
    let id = knot_engine::documents::DocumentId::new(target.scope(), &target.collection, &target.key);
    id.map(drop).map_err(|error| error.to_string())
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

    #[test]
    fn the_files_in_the_manual_are_scenarios() {
        let manual = include_str!("../../../docs/scenarios.md");
        let blocks = manual.split("\n\n").filter(|block| block.starts_with("    "));
        let text: Vec<&str> = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("    ")).collect();
        let scenario = Scenario::from_toml(&text.join("\n")).unwrap();
        assert_eq!((scenario.nodes.len(), scenario.faults.len(), scenario.clients.len()), (2, 1, 1));
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
        assert_eq!((scenario.faults.len(), scenario.operations.len()), (1, 1));
    }

    #[test]
    fn a_folder_is_copied_within_a_zone_while_nobody_else_takes_the_disk() {
        let check = |clone: &str, more: &str| {
            let nodes = r#"[{ name = "a", zone = "gb" }, { name = "b", zone = "gb" }, { name = "c", zone = "us" }]"#;
            let fault = format!("[[faults]]\nat_ms = 1000\nfor_ms = 2000\nkind = \"clone\"\n{clone}\n");
            let read = Scenario::from_toml(&format!("quiet_at_ms = 9000\nnodes = {nodes}\n{fault}\n{more}"));
            read.map(drop).map_err(|error| error.to_string())
        };
        let lost = |at_ms| format!("[[faults]]\nat_ms = {at_ms}\nfor_ms = 9\nkind = \"disk_lost\"\nnode = 1\n");
        assert_eq!(check("node = 0\nto = 1", &lost(3_001)), Ok(()));
        let cases = [
            ("node = 0\nto = 0", String::new(), "node and to differ"),
            ("node = 0\nto = 2", String::new(), "in one zone"),
            ("node = 0\nto = 7", String::new(), "there is no node 7"),
            ("node = 1\nto = 0", lost(2_000), "number 1 takes the disk"),
        ];
        for (clone, more, expected) in cases {
            let error = check(clone, &more).unwrap_err();
            assert!(error.contains(expected), "{expected:?} is not in {error}");
        }
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
