//! Bugs on purpose, and how many seeds it takes to find each.

use knot_engine::Faults;
use serde::Serialize;

use crate::campaign::run_seed;
use crate::checker::Invariant;
use crate::scenario::{DocumentKind, Shape};

/// One planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    /// The flag's name.
    pub name: &'static str,
    /// What is replicated in the runs that look for it.
    pub document: DocumentKind,
    set: fn(&mut Faults),
}

impl Planted {
    /// Only this bug.
    #[must_use]
    pub fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        (self.set)(&mut faults);
        faults
    }
}

macro_rules! planted {
    ($($name:ident: $document:ident),* $(,)?) => {
        /// Every bug that can be planted.
        pub const PLANTED: &[Planted] = &[$(Planted {
            name: stringify!($name),
            document: DocumentKind::$document,
            set: |faults| faults.$name = true,
        }),*];
    };
}

planted! {
    ack_before_persist: Model,
    push_before_persist: Model,
    gap_accepted: Model,
    suspicion_unchecked: Model,
    tombstone_dropped: Model,
    stale_returnee: Model,
    actor_reused: Model,
    genesis_unshared: Automerge,
    incarnation_not_raised: Model,
    dirty_tail_trusted: Model,
    split_off_by_one: Model,
    window_truncated: Model,
    held_on_send: Model,
    scope_ignored: Model,
}

/// How a planted bug was found.
#[derive(Clone, Debug, Serialize)]
pub struct Detection {
    /// The flag's name.
    pub name: &'static str,
    /// How many seeds it took; none when none of them found it.
    pub seeds: Option<u64>,
    /// The seed that found it.
    pub seed: Option<u64>,
    /// The promise that it broke.
    pub invariant: Option<Invariant>,
    /// How.
    pub detail: Option<String>,
}

/// Looks for `planted` from seed `first` on, in at most `seeds_max` seeds.
#[must_use]
pub fn detect(planted: &Planted, first: u64, seeds_max: u64) -> Detection {
    let shape = Shape { document: planted.document, ..Shape::default() };
    let found = (first..first + seeds_max).find_map(|seed| {
        let report = run_seed(seed, &shape, planted.faults(), None);
        let violation = report.violations.into_iter().next()?;
        Some((seed, violation))
    });
    let (seed, violation) = found.map_or((None, None), |(seed, violation)| (Some(seed), Some(violation)));
    Detection {
        name: planted.name,
        seeds: seed.map(|seed| seed - first + 1),
        seed,
        invariant: violation.as_ref().map(|violation| violation.invariant),
        detail: violation.map(|violation| violation.detail),
    }
}
