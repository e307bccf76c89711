//! What a run came to.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use knot_engine::Stats;
use serde::Serialize;

use crate::checker::{Account, Invariant, Violation};
use crate::costs::{Costs, WEIGHED};

/// What a run did, in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Of these, those that did not arrive.
    pub datagrams_lost: u64,
    /// Frames sent.
    pub frames: u64,
    /// Connections tried.
    pub connects: u64,
    /// Edits acknowledged.
    pub acknowledged: u64,
    /// Edits refused.
    pub refused: u64,
    /// Edits whose server died first.
    pub unknown: u64,
    /// Faults that began.
    pub faults: u64,
    /// Processes that were ended by a fault.
    pub crashes: u64,
    /// Changes on disks.
    pub changes: u64,
    /// Repairs begun.
    pub repairs: u64,
    /// What the engines dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// What it cost.
    #[serde(skip)]
    pub costs: Costs,
}

impl Counts {
    /// Adds what an engine dropped in its life.
    pub(crate) fn add_drops(&mut self, stats: &Stats) {
        for (reason, count) in &stats.drops {
            *self.drops.entry((*reason).to_owned()).or_default() += count;
        }
    }

    /// Adds to the costs what is known at the end.
    pub(crate) fn weigh(&mut self, account: &Account, settled: Option<Duration>) {
        if !WEIGHED {
            return;
        }
        let costs = &mut self.costs;
        if let Some(settled) = settled {
            costs.add("milliseconds until settled", u64::try_from(settled.as_millis()).unwrap_or(u64::MAX));
        }
        costs.add("events", self.events);
        costs.add("stale writes", account.stale);
        costs.add("writes not kept", account.acknowledged - account.kept);
        costs.add("writes without an answer", self.unknown);
        for (reason, count) in &self.drops {
            costs.add(&format!("dropped: {reason}"), *count);
        }
    }

    /// Adds another run's.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self {
            events,
            datagrams,
            datagrams_lost,
            frames,
            connects,
            acknowledged,
            refused,
            unknown,
            faults,
            crashes,
            changes,
            repairs,
            drops,
            costs,
        } = other;
        self.costs.add_all(costs);
        self.events += events;
        self.datagrams += datagrams;
        self.datagrams_lost += datagrams_lost;
        self.frames += frames;
        self.connects += connects;
        self.acknowledged += acknowledged;
        self.refused += refused;
        self.unknown += unknown;
        self.faults += faults;
        self.crashes += crashes;
        self.changes += changes;
        self.repairs += repairs;
        for (reason, count) in drops {
            *self.drops.entry(reason.clone()).or_default() += count;
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// How many servers.
    pub nodes: usize,
    /// What did not hold; empty when all is well.
    pub violations: Vec<Violation>,
    /// The hash of all that happened.
    pub trace: String,
    /// How much virtual time passed, in microseconds.
    pub simulated_us: u64,
    /// How long the cluster took to settle once faults had stopped, in microseconds; none when it did not.
    pub settled_us: Option<u64>,
    /// Numbers.
    pub counts: Counts,
    /// What became of the writes that were acknowledged.
    pub account: Account,
    /// States that the engines came by.
    pub marks: Vec<&'static str>,
    /// The folder with what the servers left behind, their logs too, where there were processes and a promise broke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_behind: Option<PathBuf>,
}

impl Report {
    /// Of a run that ended in a panic.
    pub(crate) fn panicked(seed: u64, nodes: usize, panic: &(dyn Any + Send)) -> Self {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let detail = said.unwrap_or("a panic without words").to_owned();
        let violation = Violation { invariant: Invariant::NoPanic, at_us: 0, node: 0, detail };
        Self {
            seed,
            nodes,
            violations: vec![violation],
            trace: String::new(),
            simulated_us: 0,
            settled_us: None,
            counts: Counts::default(),
            account: Account::default(),
            marks: Vec::new(),
            left_behind: None,
        }
    }
}
