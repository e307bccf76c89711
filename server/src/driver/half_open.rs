//! How many streams may be shaking hands at once: in all, and from one host, so that one cannot keep all others out.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::hosts::{Counted, Hosts};

/// Streams that are shaking hands at once, accepted ones; one beyond is closed at once.
const HANDSHAKES_MAX: usize = 256;
/// Of these, streams from one host.
const HANDSHAKES_A_HOST_MAX: usize = 32;

/// Counts accepted streams until they have shaken hands.
#[derive(Clone, Debug)]
pub(super) struct HalfOpen {
    all: Arc<Semaphore>,
    hosts: Hosts,
}

/// One stream's place among those that are shaking hands, which it gives back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _one_of_all: OwnedSemaphorePermit,
    _one_of_its_host: Counted,
}

impl HalfOpen {
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(HANDSHAKES_MAX)), hosts: Hosts::new(HANDSHAKES_A_HOST_MAX) }
    }

    /// For streams that may all come from the host of one proxy.
    pub(super) fn behind_proxies() -> Self {
        Self { hosts: Hosts::new(HANDSHAKES_MAX), ..Self::new() }
    }

    /// A place for a stream from there; none where there are as many as may be.
    pub(super) fn enter(&self, from: IpAddr) -> Option<Place> {
        let one_of_all = self.all.clone().try_acquire_owned().ok()?;
        Some(Place { _one_of_all: one_of_all, _one_of_its_host: self.hosts.enter(from)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(half_open: &HalfOpen, from: &str, count: usize) -> Vec<Place> {
        (0..count).filter_map(|_| half_open.enter(from.parse().unwrap())).collect()
    }

    #[test]
    fn one_host_leaves_room_for_others() {
        let half_open = HalfOpen::new();
        let first = enter(&half_open, "192.0.2.1", 100);
        assert_eq!(first.len(), HANDSHAKES_A_HOST_MAX);
        assert_eq!(enter(&half_open, "192.0.2.2", 1).len(), 1);
    }

    #[test]
    fn behind_a_proxy_all_are_one_host() {
        let half_open = HalfOpen::behind_proxies();
        let all = enter(&half_open, "192.0.2.1", 2 * HANDSHAKES_MAX);
        assert_eq!(all.len(), HANDSHAKES_MAX);
    }

    #[test]
    fn all_hosts_together_are_bounded() {
        let half_open = HalfOpen::new();
        let held: Vec<Place> = (0..20).flat_map(|n| enter(&half_open, &format!("192.0.2.{n}"), 20)).collect();
        assert_eq!(held.len(), HANDSHAKES_MAX);
    }
}
