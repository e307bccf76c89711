//! A network namespace for each server and one for their clients, each with one line: a TUN device whose other end is
//! held here. The machine's own network is not touched, and everything goes when the value does.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{AsyncDevice, DeviceBuilder};

/// Begins the name of every namespace, before the process id.
const PREFIX: &str = "knot-sim-";
const FOLDER: &str = "/var/run/netns";
/// The device in each of them.
const LINE: &str = "line";
/// As on most networks.
const MTU: &str = "1500";

/// Namespaces and their lines: of all servers in order, then that of their clients.
#[derive(Debug)]
pub(super) struct Namespaces {
    names: Vec<String>,
}

impl Namespaces {
    /// Makes namespaces for so many servers and their clients.
    ///
    /// # Errors
    /// Why this machine does not let us.
    pub(super) fn new(servers: usize) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_stale();
        let prefix = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut made = Self { names: Vec::new() };
        for place in 0..=servers {
            let name = format!("{prefix}-{place}");
            ip(&["netns", "add", &name])?;
            made.names.push(name);
            let name = &made.names[place];
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "tuntap", "add", "dev", LINE, "mode", "tun"])?;
            ip(&["-n", name, "link", "set", "dev", LINE, "mtu", MTU])?;
            ip(&["-n", name, "address", "add", &format!("{}/24", address(place)), "dev", LINE])?;
            ip(&["-n", name, "link", "set", "dev", LINE, "up"])?;
        }
        Ok(made)
    }

    /// The namespace of a server.
    pub(super) fn name(&self, place: usize) -> &str {
        &self.names[place]
    }

    /// The near end of each line. Needs a runtime.
    ///
    /// # Errors
    /// When a device cannot be had.
    pub(super) fn lines(&self) -> io::Result<Vec<AsyncDevice>> {
        // A device belongs to the namespace in which it was made, so a thread goes there for it.
        let line = |name: &String| {
            let name = name.clone();
            let made = std::thread::spawn(move || {
                enter(&name)?;
                DeviceBuilder::new().name(LINE).build_sync()
            });
            AsyncDevice::new(made.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?)
        };
        self.names.iter().map(line).collect()
    }

    /// Moves the calling thread to where the clients are, and with it all that it starts.
    pub(super) fn enter_as_client(&self) -> io::Result<()> {
        self.names.last().map_or(Ok(()), |name| enter(name))
    }
}

/// The address at a place.
pub(super) fn address(place: usize) -> Ipv4Addr {
    let last = u8::try_from(place + 1).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 78, 0, last)
}

/// The place of an address.
pub(super) fn place_of(address: Ipv4Addr) -> Option<usize> {
    let [10, 78, 0, last] = address.octets() else { return None };
    usize::from(last).checked_sub(1)
}

fn enter(name: &str) -> io::Result<()> {
    let namespace = File::open(format!("{FOLDER}/{name}"))?;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            // Nobody is left to tell.
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

/// Removes what runs left behind that were killed and so could not.
fn remove_stale() {
    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
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
