//! What is due, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::scenario::Scenario;

/// A fault begins or ends, or a machine starts. Ends come first where both are at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cue {
    Ends(usize),
    Begins(usize),
    Start(usize),
    /// From now on nothing goes wrong with the core.
    Heal,
}

/// All cues of a run, in the order of their times, and how often each is due at its time.
#[derive(Clone, Debug)]
pub(crate) struct Cues(BTreeMap<(Duration, Cue), u32>);

impl Cues {
    /// The faults of a scenario, and the healing of its core.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let mut cues = Self(BTreeMap::new());
        for (index, fault) in scenario.faults.iter().enumerate() {
            for begins_ms in fault.begins_at_ms() {
                cues.add(Duration::from_millis(begins_ms), Cue::Begins(index));
                if let Some(lasting_ms) = fault.for_ms {
                    cues.add(Duration::from_millis(begins_ms.saturating_add(lasting_ms)), Cue::Ends(index));
                }
            }
        }
        if !scenario.core.is_empty() {
            cues.add(Duration::from_millis(scenario.quiet_at_ms), Cue::Heal);
        }
        cues
    }

    pub(crate) fn add(&mut self, at: Duration, cue: Cue) {
        *self.0.entry((at, cue)).or_default() += 1;
    }

    /// When the next is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.0.keys().next().map(|(at, _)| *at)
    }

    /// The next, if it is due by then.
    pub(crate) fn due(&mut self, now: Duration) -> Option<Cue> {
        let mut first = self.0.first_entry().filter(|first| first.key().0 <= now)?;
        let (_, cue) = *first.key();
        *first.get_mut() -= 1;
        if *first.get() == 0 {
            first.remove();
        }
        Some(cue)
    }
}
