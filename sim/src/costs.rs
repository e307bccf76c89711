//! What a run cost: numbers of which a user would rather have less, by name.
//!
//! No checker reads them: a single run may have reasons to cost much. Runs of one scenario with many seeds cost much the
//! same, though, so a change of the engine that makes them dearer shows where they are added up.

use std::collections::BTreeMap;

use serde::Serialize;

/// Whether costs are added up: only where somebody looks at them, since it takes time.
pub(crate) const WEIGHED: bool = cfg!(feature = "mutation");

/// The costs of a run, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Costs(BTreeMap<String, u64>);

impl Costs {
    /// Something has cost so much more.
    pub(crate) fn add(&mut self, name: &str, amount: u64) {
        match self.0.get_mut(name) {
            Some(cost) => *cost = cost.saturating_add(amount),
            None => {
                self.0.insert(name.to_owned(), amount);
            }
        }
    }

    /// At some moment something cost so much; what counts is the most.
    pub(crate) fn peak(&mut self, name: &str, amount: u64) {
        let cost = self.0.entry(name.to_owned()).or_default();
        *cost = amount.max(*cost);
    }

    /// Adds the costs of another run.
    pub fn add_all(&mut self, other: &Self) {
        other.iter().for_each(|(name, amount)| self.add(name, amount));
    }

    /// Each cost, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// One of them.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}
