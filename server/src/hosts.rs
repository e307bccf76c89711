//! How many of something each host has, so that one cannot take what all others need.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A host that one person may be behind: an IPv4 address, or the first 64 bits of another, which one customer is given
/// whole.
type Host = [u8; 8];

/// Counts by host. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    a_host_max: usize,
    counts: Arc<Mutex<HashMap<Host, usize>>>,
}

/// One that counts, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    host: Host,
    hosts: Hosts,
}

impl Hosts {
    pub(crate) fn new(a_host_max: usize) -> Self {
        Self { a_host_max, counts: Arc::default() }
    }

    /// Counts one from there; none where there are as many as may be.
    pub(crate) fn enter(&self, from: IpAddr) -> Option<Counted> {
        let host = host(from);
        let mut counts = self.lock();
        let count = counts.entry(host).or_insert(0);
        if *count >= self.a_host_max {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Counted { host, hosts: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Host, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
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

pub(crate) fn host(address: IpAddr) -> Host {
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

    fn enter(hosts: &Hosts, from: &str, count: usize) -> Vec<Counted> {
        (0..count).filter_map(|_| hosts.enter(from.parse().unwrap())).collect()
    }

    #[test]
    fn one_host_leaves_room_for_others() {
        let hosts = Hosts::new(32);
        let first = enter(&hosts, "192.0.2.1", 100);
        assert_eq!(first.len(), 32);
        assert_eq!(enter(&hosts, "::ffff:192.0.2.1", 1).len(), 0, "the same address");
        assert_eq!(enter(&hosts, "192.0.2.2", 1).len(), 1);
        drop(first);
        assert_eq!(enter(&hosts, "192.0.2.1", 1).len(), 1);
        assert!(hosts.lock().is_empty(), "who has left is forgotten");
    }

    #[test]
    fn a_network_of_ipv6_is_one_host() {
        let hosts = Hosts::new(32);
        let held: Vec<Counted> = (0..100).flat_map(|n| enter(&hosts, &format!("2001:db8:1:2::{n:x}"), 1)).collect();
        assert_eq!(held.len(), 32);
        assert_eq!(enter(&hosts, "2001:db8:1:3::1", 1).len(), 1);
    }
}
