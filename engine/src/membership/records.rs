//! Records that engines of one process share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::Record;

/// Records nobody uses any more are dropped when so many have come.
const SWEEP_MIN: usize = 1_024;

/// Equal records of the machines that were given this, each kept once. A server has no use for it; a simulator that runs
/// engines by the thousand would otherwise hold each record as often as there are engines.
#[derive(Clone, Debug, Default)]
pub struct Records(Option<Arc<Mutex<Shared>>>);

#[derive(Debug, Default)]
struct Shared {
    records: BTreeSet<Arc<Record>>,
    sweep_at: usize,
}

impl Records {
    /// Shares records among all machines that get a clone of this. The default shares nothing.
    #[must_use]
    pub fn shared() -> Self {
        Self(Some(Arc::default()))
    }

    /// The record equal to this one that others use already, or else this one.
    pub(super) fn share(&self, record: Arc<Record>) -> Arc<Record> {
        let Some(shared) = &self.0 else { return record };
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shared.records.get(&record) {
            return Arc::clone(known);
        }
        if shared.records.len() >= shared.sweep_at {
            shared.records.retain(|record| Arc::strong_count(record) > 1);
            shared.sweep_at = (2 * shared.records.len()).max(SWEEP_MIN);
        }
        shared.records.insert(Arc::clone(&record));
        record
    }
}

/// Two are equal that share with each other.
impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl Eq for Records {}
