//! Addresses of datagrams: a numeric one is used as it is, a name is looked up beside the driver and kept for a while.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use knot_engine::Address;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Input;
use crate::net::Network;

/// How long a looked-up address is used before it is looked up anew.
const FRESH: Duration = Duration::from_secs(30);
/// Names that are remembered.
const NAMES_MAX: usize = 16_384;

#[derive(Debug)]
pub(super) struct Resolver<N> {
    network: N,
    names: HashMap<Address, Entry>,
    inputs: mpsc::Sender<Input>,
}

#[derive(Debug)]
struct Entry {
    address: Option<SocketAddr>,
    asked: Instant,
}

impl<N: Network> Resolver<N> {
    pub(super) fn new(network: N, inputs: mpsc::Sender<Input>) -> Self {
        Self { network, names: HashMap::new(), inputs }
    }

    /// Where to send a datagram; none while a name is being looked up for the first time.
    pub(super) fn datagram_address(&mut self, address: &Address) -> Option<SocketAddr> {
        if let Ok(numeric) = address.0.parse() {
            return Some(numeric);
        }
        let now = Instant::now();
        let known = self.names.get(address);
        let found = known.and_then(|entry| entry.address);
        if known.is_none_or(|entry| now.duration_since(entry.asked) > FRESH) && self.names.len() < NAMES_MAX {
            self.names.insert(address.clone(), Entry { address: found, asked: now });
            let (network, address, inputs) = (self.network.clone(), address.clone(), self.inputs.clone());
            tokio::spawn(async move {
                let found = network.resolve(&address.0).await.ok().and_then(|found| found.first().copied());
                let _ = inputs.send(Input::Resolved(address, found)).await;
            });
        }
        found
    }

    pub(super) fn resolved(&mut self, address: &Address, found: Option<SocketAddr>) {
        if let (Some(entry), Some(found)) = (self.names.get_mut(address), found) {
            entry.address = Some(found);
        }
    }
}
