//! The change feed has every document once, by its latest state.

use std::collections::BTreeSet;

use knot_engine::{Instant, Summary};

use super::{Checkers, Invariant};
use crate::hostile::is_name;

impl Checkers {
    /// A server that holds `documents`, deleted ones included, gives this feed. What it names can be named.
    pub(crate) fn check_feed(&mut self, node: usize, documents: u64, feed: &[Summary], now: Instant) {
        if let Some(odd) = feed.iter().find(|summary| !is_name(&summary.id)) {
            self.report(Invariant::ForgedJudged, now, node, || format!("it took {:?}, which is no name", odd.id));
        }
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
