//! A network namespace for each server and one for their clients, each with one line: a TUN device whose other end is
//! held here. The machine's own network is not touched, and everything goes when the value does.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{AsyncDevice, DeviceBuilder};

use super::unready::{At, Unready};

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
    /// When this machine does not let us.
    pub(super) fn new(servers: usize) -> Result<Self, Unready> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_stale();
        let prefix = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut made = Self { names: Vec::new() };
        for place in 0..=servers {
            let name = format!("{prefix}-{place}");
            ip(&["netns", "add", &name])?;
            made.names.push(name);
            let (name, address) = (&made.names[place], format!("{}/24", address(place)));
            for set in [
                &["-n", name, "link", "set", "lo", "up"][..],
                &["-n", name, "tuntap", "add", "dev", LINE, "mode", "tun"],
                &["-n", name, "link", "set", "dev", LINE, "mtu", MTU],
                &["-n", name, "address", "add", &address, "dev", LINE],
                &["-n", name, "link", "set", "dev", LINE, "up"],
            ] {
                ip(set)?;
            }
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
    pub(super) fn lines(&self) -> Result<Vec<AsyncDevice>, Unready> {
        // A device belongs to the namespace in which it was made, so a thread goes there for it.
        let line = |name: &String| {
            let place = format!("the device {LINE} of {name}");
            let made = std::thread::scope(|scope| {
                let made = scope.spawn(|| {
                    enter(name)?;
                    DeviceBuilder::new().name(LINE).build_sync().at(&place)
                });
                made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            AsyncDevice::new(made?).at(&place)
        };
        self.names.iter().map(line).collect()
    }

    /// Moves the calling thread to where the clients are, and with it all that it starts.
    ///
    /// # Errors
    /// When it cannot go there.
    pub(super) fn enter_as_client(&self) -> Result<(), Unready> {
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

fn enter(name: &str) -> Result<(), Unready> {
    let path = Path::new(FOLDER).join(name);
    let namespace = File::open(&path).at_path(&path)?;
    let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
    entered.map_err(std::io::Error::from).at_path(&path)
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            // Nobody is left to tell.
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

/// Removes what simulators left behind that were killed and so could not, and ends what still runs there.
fn remove_stale() {
    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if owner(&name).is_none_or(|owner| fs::exists(format!("/proc/{owner}")).unwrap_or(true)) {
            continue;
        }
        let inside = output(&["netns", "pids", &name]).unwrap_or_default();
        for pid in inside.lines().filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?)) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        // Another simulator that starts may have been faster.
        let _ = ip(&["netns", "delete", &name]);
    }
}

/// The process id of the simulator that gave a namespace its name; none where none did.
fn owner(name: &str) -> Option<u32> {
    let mut numbers = name.strip_prefix(PREFIX)?.split('-').map(|number| number.parse().ok());
    let [owner, _count, _place] = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(owner)
}

fn ip(arguments: &[&str]) -> Result<(), Unready> {
    output(arguments).map(|_| ())
}

/// What `ip` prints.
fn output(arguments: &[&str]) -> Result<String, Unready> {
    let line = format!("ip {}", arguments.join(" "));
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| Unready::NoNamespaces(format!("{line}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Unready::NoNamespaces(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_of_a_simulators_are_its_own() {
        assert_eq!(owner("knot-sim-4711-0-3"), Some(4711));
        for other in ["knot-sim-4711", "knot-sim-4711-0-3-x", "knot-sim-a-0-3", "knot-sim-4711-0-", "knot", "vpn"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }
}
