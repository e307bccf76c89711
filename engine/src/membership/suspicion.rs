//! How long a suspicion lasts (Lifeguard, section IV-B).

use std::collections::BTreeSet;
use std::time::Duration;

use super::config::Config;
use crate::identity::{Boot, Incarnation, NodeId};
use crate::time::Instant;

/// Most accusers remembered of one suspicion.
const ACCUSERS_MAX: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    /// The statement of the member that is doubted; a higher one ends the suspicion.
    pub(super) version: (Incarnation, Boot),
    pub(super) since: Instant,
    pub(super) accusers: BTreeSet<NodeId>,
    /// Those accusers whom the member's own host refused.
    pub(super) refused: BTreeSet<NodeId>,
    /// Whether it was drawn out once because the member was heard meanwhile.
    pub(super) extended: bool,
}

impl Suspicion {
    pub(super) fn new(version: (Incarnation, Boot), since: Instant) -> Self {
        Self { version, since, accusers: BTreeSet::new(), refused: BTreeSet::new(), extended: false }
    }

    /// Notes an accuser; true when that is news.
    pub(super) fn accuse(&mut self, accuser: NodeId, refused: bool) -> bool {
        let mut news = self.accusers.len() < ACCUSERS_MAX && self.accusers.insert(accuser);
        if refused && self.refused.len() < ACCUSERS_MAX {
            news |= self.refused.insert(accuser);
        }
        news
    }

    pub(super) fn deadline(&self, config: &Config, live: usize) -> Instant {
        self.since + lasts(config, live, self.accusers.len().saturating_sub(1))
    }
}

/// How long a suspicion lasts that nobody confirms.
pub(super) fn longest(config: &Config, live: usize) -> Duration {
    config.suspicion_min * log10_permille(live.max(10)) / 1000 * config.suspicion_max_factor
}

/// From the longest wait with no confirmation down to the least, by log(confirmations + 1) / log(wanted + 1).
fn lasts(config: &Config, live: usize, confirmations: usize) -> Duration {
    let least = config.suspicion_min * log10_permille(live.max(10)) / 1000;
    // Neither the suspect nor the first accuser can confirm.
    let wanted = config.suspicion_confirmations.min(live.saturating_sub(2));
    if confirmations >= wanted {
        return least;
    }
    let most = least * config.suspicion_max_factor;
    let shrunk = log10_permille(confirmations + 1) * 1000 / log10_permille(wanted + 1).max(1);
    most.saturating_sub((most - least) * shrunk / 1000)
}

/// 1000 log10(n) to within one percent of a decade, in integers so that every platform agrees.
fn log10_permille(n: usize) -> u32 {
    let n = u64::try_from(n.max(1)).unwrap_or(u64::MAX);
    let power = n.ilog2();
    let below = 1_u64 << power;
    let fraction = (u128::from(n - below) * 1000) / u128::from(below);
    let log2 = u128::from(power) * 1000 + fraction;
    u32::try_from(log2 * 30_103 / 100_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspicion_shrinks_with_confirmations_and_grows_with_the_cluster() {
        let config = Config::default();
        let of = |live, confirmations| lasts(&config, live, confirmations);
        assert!(of(30, 0) > of(30, 1) && of(30, 1) > of(30, 2) && of(30, 2) > of(30, 3));
        assert_eq!(of(30, 3), of(30, 9));
        assert!(of(1000, 3) > of(30, 3));
        assert!(of(30, 0).as_millis() / of(30, 3).as_millis() >= 5);
        assert_eq!(of(2, 0), of(10, 3));
    }
}
