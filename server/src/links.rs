//! What people are shown of the streams between servers: what each goes through, and why those are missing that are.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use knot_engine::seal::KeyId;
use knot_engine::{NodeId, SessionId, Wall};

/// Addresses whose troubles are remembered; the one that was heard of longest ago makes room.
const TROUBLES_MAX: usize = 64;
/// A trouble that has not come back for so long, in milliseconds, is over: attempts are at most minutes apart.
const OVER_AFTER_MS: i64 = 15 * 60_000;

/// A stream that two ends agree on and that is closed within so long, in milliseconds, has not ended what stood in its way:
/// a server that refuses another does so once it knows who it is.
const LASTING_MS: i64 = 30_000;

/// What a stream goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipe {
    /// TCP.
    Tcp,
    /// A WebSocket inside TLS.
    WebSocket,
    /// A stream that another member carries.
    Circuit {
        /// That member.
        carrier: NodeId,
    },
}

impl Pipe {
    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::WebSocket => "wss",
            Self::Circuit { .. } => "circuit",
        }
    }
}

/// A stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it goes through.
    pub pipe: Pipe,
    /// The cluster key under which its two ends have agreed, once they have.
    pub key: Option<KeyId>,
}

/// Why there is no stream with whoever is at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Where this server connects to, or the host that something came from that it refused.
    pub address: String,
    /// What stands in the way.
    pub error: String,
    /// When it was met first.
    pub since: Wall,
    /// When it was met last.
    pub last: Wall,
    /// When a stream came about after all, of which it is not known yet whether it lasts.
    well: Option<Wall>,
}

/// Kept by the driver, read by the API.
#[derive(Clone, Debug, Default)]
pub struct Links(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// With the address that each goes to, or the host that it came from.
    streams: HashMap<SessionId, (Link, String)>,
    troubles: BTreeMap<String, Trouble>,
}

impl Links {
    /// What there is to know of a stream.
    #[must_use]
    pub fn get(&self, session: SessionId) -> Option<Link> {
        self.state().streams.get(&session).map(|(link, _)| *link)
    }

    /// The address that a stream goes to, or the host that it came from.
    #[must_use]
    pub fn address(&self, session: SessionId) -> Option<String> {
        self.state().streams.get(&session).map(|(_, address)| address.clone())
    }

    /// What stands in the way of streams at present, by address.
    #[must_use]
    pub fn troubles(&self, now: Wall) -> Vec<Trouble> {
        let is_present =
            |trouble: &&Trouble| trouble.well.is_none() && now.0.saturating_sub(trouble.last.0) < OVER_AFTER_MS;
        self.state().troubles.values().filter(is_present).cloned().collect()
    }

    pub(crate) fn opened(&self, session: SessionId, pipe: Pipe, address: String) {
        self.state().streams.insert(session, (Link { pipe, key: None }, address));
    }

    pub(crate) fn agreed(&self, session: SessionId, agreed: KeyId) {
        if let Some((link, _)) = self.state().streams.get_mut(&session) {
            link.key = Some(agreed);
        }
    }

    pub(crate) fn closed(&self, session: SessionId) {
        self.state().streams.remove(&session);
    }

    /// Nothing stands in the way any more, unless the same is met again before long.
    pub(crate) fn well(&self, address: &str, now: Wall) {
        if let Some(known) = self.state().troubles.get_mut(address) {
            known.well = known.well.or(Some(now));
        }
    }

    pub(crate) fn trouble(&self, address: &str, error: String, now: Wall) {
        let mut state = self.state();
        if let Some(known) = state.troubles.get_mut(address) {
            let is_over = known.well.take().is_some_and(|well| now.0.saturating_sub(well.0) >= LASTING_MS);
            if known.error != error || is_over {
                (known.error, known.since) = (error, now);
            }
            known.last = now;
            return;
        }
        if state.troubles.len() >= TROUBLES_MAX {
            let oldest = state.troubles.values().min_by_key(|trouble| trouble.last.0);
            if let Some(oldest) = oldest.map(|trouble| trouble.address.clone()) {
                state.troubles.remove(&oldest);
            }
        }
        let trouble = Trouble { address: address.to_owned(), error, since: now, last: now, well: None };
        state.troubles.insert(address.to_owned(), trouble);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_kept_until_they_are_over() {
        let links = Links::default();
        links.trouble("a:1", "refused".to_owned(), Wall(1));
        links.trouble("a:1", "refused".to_owned(), Wall(5));
        let [trouble] = &links.troubles(Wall(6))[..] else { panic!("one") };
        assert_eq!((trouble.since, trouble.last), (Wall(1), Wall(5)));
        links.trouble("a:1", "expired".to_owned(), Wall(7));
        assert_eq!(links.troubles(Wall(7))[0].since, Wall(7), "another trouble is a new one");
        assert!(links.troubles(Wall(7 + OVER_AFTER_MS)).is_empty());
        links.well("a:1", Wall(8));
        assert!(links.troubles(Wall(8)).is_empty());
    }

    #[test]
    fn a_trouble_that_each_stream_meets_soon_after_it_has_opened_is_one() {
        let links = Links::default();
        let refused = |at: i64| links.trouble("a:1", "evicted".to_owned(), Wall(at));
        refused(1);
        for at in [10_000, 70_000] {
            links.well("a:1", Wall(at));
            refused(at + 5);
            assert_eq!(links.troubles(Wall(at + 5))[0].since, Wall(1));
        }
        links.well("a:1", Wall(90_000));
        refused(90_000 + LASTING_MS);
        assert_eq!(
            links.troubles(Wall(90_000 + LASTING_MS))[0].since,
            Wall(90_000 + LASTING_MS),
            "a stream has lasted"
        );
    }

    #[test]
    fn only_so_many_are_kept() {
        let links = Links::default();
        for at in 0..200 {
            links.trouble(&format!("host{at}"), "refused".to_owned(), Wall(at));
        }
        let kept = links.troubles(Wall(200));
        assert_eq!(kept.len(), TROUBLES_MAX);
        assert!(kept.iter().any(|trouble| trouble.address == "host199"));
    }
}
