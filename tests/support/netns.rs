//! Network namespaces: servers on a network of their own that a test can cut, while its clients still reach them all.
//!
//! Each node has two links. One ends in a bridge, where the servers find each other; the other ends in the namespace
//! called the hub, where the test and its clients are. Nothing is forwarded between them, and the machine's own network
//! is not touched. Everything goes when the value does.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Begins the name of every namespace, before the process id.
const PREFIX: &str = "knot-test-";
const BRIDGE: &str = "bridge";
/// The node's end of its link to the bridge, and of its link to the hub.
const CLUSTER: &str = "cluster";
const CLIENT: &str = "client";
/// No interface has it, so what is sent there is lost without a sound.
const NOWHERE: &str = "02:00:00:00:00:99";

/// A hub and some nodes.
#[derive(Debug)]
pub struct Net {
    prefix: String,
    nodes: u8,
}

impl Net {
    /// Makes the namespaces.
    ///
    /// # Errors
    /// Why this machine does not let us.
    pub fn new(nodes: u8) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_stale();
        let prefix = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let net = Self { prefix, nodes };
        let hub = net.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "set", "lo", "up"])?;
        ip(&["-n", &hub, "link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", BRIDGE, "up"])?;
        for node in 0..nodes {
            net.add(node)?;
        }
        Ok(net)
    }

    fn add(&self, node: u8) -> Result<(), String> {
        let (hub, name) = (self.hub(), self.node(node));
        let (port, wire) = (port(node), wire(node));
        ip(&["netns", "add", &name])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        for (ours, theirs) in [(&port, CLUSTER), (&wire, CLIENT)] {
            ip(&["-n", &hub, "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", &name])?;
        }
        ip(&["-n", &hub, "link", "set", &port, "master", BRIDGE, "up"])?;
        ip(&["-n", &hub, "address", "add", &format!("{}/24", hub_end(node)), "dev", &wire])?;
        ip(&["-n", &hub, "link", "set", &wire, "up"])?;
        for (device, address) in [(CLUSTER, self.cluster_address(node)), (CLIENT, self.client_address(node))] {
            ip(&["-n", &name, "address", "add", &format!("{address}/24"), "dev", device])?;
            ip(&["-n", &name, "link", "set", device, "up"])?;
        }
        Ok(())
    }

    /// Moves the calling thread to the hub, and with it all threads and processes that it starts.
    pub fn enter(&self) {
        let hub = File::open(format!("/var/run/netns/{}", self.hub())).unwrap();
        move_into_link_name_space(hub.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// The namespace of a node.
    pub fn node(&self, node: u8) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// Where other nodes reach this one.
    pub fn cluster_address(&self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, node + 1)
    }

    /// Where clients in the hub reach a node.
    pub fn client_address(&self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, node + 1, 2)
    }

    /// Pulls a node's cable to the others. Its link stays up: what is sent is lost without a sound.
    pub fn isolate(&self, node: u8) {
        ip(&["-n", &self.hub(), "link", "set", &port(node), "nomaster"]).unwrap();
    }

    /// Undoes [`Net::isolate`].
    pub fn rejoin(&self, node: u8) {
        ip(&["-n", &self.hub(), "link", "set", &port(node), "master", BRIDGE]).unwrap();
    }

    /// Loses what `from` sends to `to`. The other direction goes on.
    pub fn block(&self, from: u8, to: u8) {
        let (name, to) = (self.node(from), self.cluster_address(to).to_string());
        ip(&["-n", &name, "neigh", "replace", &to, "lladdr", NOWHERE, "nud", "permanent", "dev", CLUSTER]).unwrap();
    }

    /// Undoes [`Net::block`].
    pub fn unblock(&self, from: u8, to: u8) {
        let (name, to) = (self.node(from), self.cluster_address(to).to_string());
        ip(&["-n", &name, "neigh", "del", &to, "dev", CLUSTER]).unwrap();
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in (0..self.nodes).map(|node| self.node(node)).chain([self.hub()]) {
            // Making them may have stopped half-way.
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

/// The hub's end of a node's link to the bridge.
fn port(node: u8) -> String {
    format!("port{node}")
}

/// The hub's end of a node's link to the hub.
fn wire(node: u8) -> String {
    format!("wire{node}")
}

fn hub_end(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, node + 1, 1)
}

/// Removes what runs left behind that were killed and so could not.
fn remove_stale() {
    for entry in fs::read_dir("/var/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true)) {
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let line = format!("ip {}", arguments.join(" "));
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("{line}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
