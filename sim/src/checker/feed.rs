//! The change feed has every document once, by its latest state.

use std::collections::BTreeSet;

use knot_engine::{Instant, Summary};

use super::{Checkers, Invariant};

impl Checkers {
    /// A server that holds `documents`, deleted ones included, gives this feed.
    pub(crate) fn check_feed(&mut self, node: usize, documents: u64, feed: &[Summary], now: Instant) {
        let named: BTreeSet<_> = feed.iter().map(|summary| &summary.id).collect();
        let rises = feed.is_sorted_by(|one, next| one.sequence < next.sequence);
        if named.len() as u64 != documents || feed.len() != named.len() || !rises {
            let (named, entries) = (named.len(), feed.len());
            self.report(Invariant::FeedComplete, now, node, || {
                format!("{documents} documents are held; the feed has {entries} entries for {named} of them, in order: {rises}")
            });
        }
    }
}
