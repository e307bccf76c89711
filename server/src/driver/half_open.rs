//! How many streams may be shaking hands at once: in all, and from one host, so that one cannot keep all others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Streams that are shaking hands at once, accepted ones; one beyond is closed at once.
const HANDSHAKES_MAX: usize = 256;
/// Of these, streams from one host: one address, or a network of IPv6 that one customer is given whole.
const HANDSHAKES_A_HOST_MAX: usize = 32;

/// A host that one person may be behind: an IPv4 address, or the first 64 bits of another.
type Host = [u8; 8];

/// Counts accepted streams until they have shaken hands.
#[derive(Clone, Debug)]
pub(super) struct HalfOpen {
    all: Arc<Semaphore>,
    a_host_max: usize,
    hosts: Hosts,
}

#[derive(Clone, Debug, Default)]
struct Hosts(Arc<Mutex<HashMap<Host, usize>>>);

/// One stream's place among those that are shaking hands, which it gives back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    host: Host,
    hosts: Hosts,
    _one_of_all: OwnedSemaphorePermit,
}

impl HalfOpen {
    pub(super) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            a_host_max: HANDSHAKES_A_HOST_MAX,
            hosts: Hosts::default(),
        }
    }

    /// For streams that may all come from the host of one proxy.
    pub(super) fn behind_proxies() -> Self {
        Self { a_host_max: HANDSHAKES_MAX, ..Self::new() }
    }

    /// A place for a stream from there; none where there are as many as may be.
    pub(super) fn enter(&self, from: IpAddr) -> Option<Place> {
        let host = host(from);
        let one_of_all = self.all.clone().try_acquire_owned().ok()?;
        let mut counts = self.hosts.lock();
        let count = counts.entry(host).or_insert(0);
        if *count >= self.a_host_max {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Place { host, hosts: self.hosts.clone(), _one_of_all: one_of_all })
    }
}

impl Hosts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Host, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.hosts.lock();
        if let Some(count) = counts.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.host);
            }
        }
    }
}

fn host(address: IpAddr) -> Host {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            // No network of IPv6 that is in use begins with zeros.
            [0, 0, 0, 0, a, b, c, d]
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h, ..] = address.octets();
            [a, b, c, d, e, f, g, h]
        }
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
        assert_eq!(enter(&half_open, "::ffff:192.0.2.1", 1).len(), 0, "the same address");
        assert_eq!(enter(&half_open, "192.0.2.2", 1).len(), 1);
        drop(first);
        assert_eq!(enter(&half_open, "192.0.2.1", 1).len(), 1);
        assert!(half_open.hosts.lock().is_empty(), "who has left is forgotten");
    }

    #[test]
    fn behind_a_proxy_all_are_one_host() {
        let half_open = HalfOpen::behind_proxies();
        let all = enter(&half_open, "192.0.2.1", 2 * HANDSHAKES_MAX);
        assert_eq!(all.len(), HANDSHAKES_MAX);
    }

    #[test]
    fn a_network_of_ipv6_is_one_host() {
        let half_open = HalfOpen::new();
        let held: Vec<Place> = (0..100).flat_map(|n| enter(&half_open, &format!("2001:db8:1:2::{n:x}"), 1)).collect();
        assert_eq!(held.len(), HANDSHAKES_A_HOST_MAX);
        assert_eq!(enter(&half_open, "2001:db8:1:3::1", 1).len(), 1);
    }

    #[test]
    fn all_hosts_together_are_bounded() {
        let half_open = HalfOpen::new();
        let held: Vec<Place> = (0..20).flat_map(|n| enter(&half_open, &format!("192.0.2.{n}"), 20)).collect();
        assert_eq!(held.len(), HANDSHAKES_MAX);
    }
}
