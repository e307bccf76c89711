//! Real servers on loopback, and a client that sees exactly what goes over the wire.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test binary uses its own part of this module")]
#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

pub mod authority;
pub mod between;
pub mod client;
pub mod cluster;
pub mod intruder;
pub mod load;
#[cfg(target_os = "linux")]
pub mod netns;
#[cfg(target_os = "linux")]
pub mod podman;
pub mod proxy;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use self::client::{Client, Events, Reply};

/// How long a server may take to be ready, on a machine that is busy.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a server may take to stop after SIGTERM.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The key of every cluster that does not say otherwise.
pub const KEY: &str = "0123456789abcdefghijklmnopqrstuv";
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` gives a value.
///
/// # Panics
/// When it has not within `timeout`.
pub fn wait_for<T>(what: &str, timeout: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {timeout:?}");
        std::thread::sleep(POLL);
    }
}

/// Says something that is seen without `--nocapture` and in tests that pass: a skipped check, a measured time.
pub fn say(text: &str) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Ports that are handed out: below those that the kernel picks for outgoing connections, one of which could otherwise
/// take the port of a server that is down.
const PORTS: std::ops::Range<u32> = 20_000..32_000;

/// A port of 127.0.0.1 that nothing listens on, for TCP and UDP. No two calls give the same.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    // Test binaries that run side by side begin at different places.
    let first = std::process::id().wrapping_mul(389);
    for _ in 0..count {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(PORTS.start + first.wrapping_add(step) % count).unwrap();
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

/// What goes into a `knot.toml`.
#[derive(Clone, Debug)]
pub struct Setup {
    pub name: String,
    pub zone: String,
    /// Where the HTTP API listens.
    pub host: Ipv4Addr,
    pub port: u16,
    /// The network namespace to run in, where it is not the test's own.
    pub netns: Option<String>,
    /// Lines of `[server.cluster]`; none for a standalone server.
    pub cluster: Option<Cluster>,
    /// Lines of `[server.tls]`; none for plain HTTP.
    pub tls: Option<String>,
    /// Set where several servers share one.
    pub token: Option<String>,
    /// Appended as it is.
    pub extra: String,
    /// Variables for the process.
    pub variables: Vec<(&'static str, String)>,
    /// File descriptors that the process may have, where it is not as many as the test.
    pub descriptors: Option<u32>,
}

/// The cluster part of a [`Setup`].
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Each 32 characters; one is written as `key`, several as `keys`.
    pub keys: Vec<String>,
    /// Where this server takes its peers' streams: `host:port` to listen at, or where its HTTP API is, as `wss://`.
    pub address: String,
    /// Where else.
    pub also: Option<String>,
    /// What others are told instead of all these.
    pub advertised: Option<String>,
    /// Addresses of some others.
    pub peers: Vec<String>,
}

impl Setup {
    /// A standalone server on a free port.
    pub fn new(name: &str, zone: &str) -> Self {
        Self {
            name: name.to_owned(),
            zone: zone.to_owned(),
            host: Ipv4Addr::LOCALHOST,
            port: free_port(),
            netns: None,
            cluster: None,
            tls: None,
            token: None,
            extra: String::new(),
            // Nobody else's containers are looked at.
            variables: vec![("KNOT_SPACES_RUNTIME", "none".to_owned())],
            descriptors: None,
        }
    }

    /// Servers that know each other, on free ports, with one key and one token. Names are `n0`, `n1` and so on. Each
    /// lists all as peers, itself too, so that one list serves all.
    pub fn cluster(zones: &[&str]) -> Vec<Self> {
        let addresses: Vec<String> = zones.iter().map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let setup = |(index, zone): (usize, &&str)| {
            let mut setup = Self::new(&format!("n{index}"), zone);
            setup.token = Some("a-token-that-all-of-them-share".to_owned());
            setup.cluster = Some(Cluster {
                keys: vec![KEY.to_owned()],
                address: addresses[index].clone(),
                also: None,
                advertised: None,
                peers: addresses.clone(),
            });
            setup
        };
        zones.iter().enumerate().map(setup).collect()
    }

    /// Where its HTTP API is.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    fn toml(&self, data_dir: &Path) -> String {
        let Self { name, zone, host, port, .. } = self;
        let mut text = format!(
            "[server]\nlisten = \"{host}:{port}\"\nurl = \"{}\"\nname = \"{name}\"\nzone = \"{zone}\"\ndata_dir = {:?}\n",
            self.url(),
            data_dir.to_str().unwrap()
        );
        if let Some(tls) = &self.tls {
            let _ = write!(text, "\n[server.tls]\n{tls}\n");
        }
        if let Some(Cluster { keys, address, also, advertised, peers }) = &self.cluster {
            let keys = match keys.as_slice() {
                [key] => format!("key = {key:?}"),
                keys => format!("keys = {keys:?}"),
            };
            let own = || std::iter::once(address).chain(also).collect();
            let advertised: Vec<_> = advertised.as_ref().map_or_else(own, |told| vec![told]);
            let is_direct = !address.contains("://");
            let bind = if is_direct { format!("bind_addr = \"{address}\"\n") } else { String::new() };
            let _ =
                write!(text, "\n[server.cluster]\n{keys}\nadvertise_addr = {advertised:?}\n{bind}peers = {peers:?}\n");
        }
        text + &self.extra
    }
}

/// A running `knot server` with a folder of its own. Killed when dropped; its log is shown when the test panics.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    dir: tempfile::TempDir,
    pub setup: Setup,
}

impl Server {
    /// Starts a server in a fresh folder and waits until it is ready.
    pub fn start(setup: Setup) -> Self {
        let mut server = Self::prepare(setup);
        server.restart();
        server
    }

    /// Writes the folder of a server without starting it.
    pub fn prepare(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Self { child: None, dir, setup };
        fs::create_dir_all(server.data_dir()).unwrap();
        server.write_config();
        if let Some(token) = &server.setup.token {
            fs::write(server.data_dir().join("admin.token"), token).unwrap();
        }
        server
    }

    /// Changes the configuration that the next start will find.
    pub fn configure(&mut self, change: impl FnOnce(&mut Setup)) {
        change(&mut self.setup);
        self.write_config();
    }

    fn write_config(&self) {
        fs::write(self.config(), self.setup.toml(&self.data_dir())).unwrap();
    }

    /// Starts the server on what its folder holds, and waits until it is ready.
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_until_ready();
    }

    /// Starts the process only.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let child = self
            .command()
            .args(["server", "--config"])
            .arg(self.config())
            .current_dir(self.dir.path())
            .envs(self.setup.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    fn command(&self) -> Command {
        const KNOT: &str = env!("CARGO_BIN_EXE_knot");
        if let Some(descriptors) = self.setup.descriptors {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("ulimit -n {descriptors}; exec {KNOT} \"$@\""), "knot"]);
            return command;
        }
        let Some(netns) = &self.setup.netns else { return Command::new(KNOT) };
        // It executes the server in its own place, so that the process is the server's.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", netns, KNOT]);
        command
    }

    /// Polls `/readyz`.
    pub fn wait_until_ready(&mut self) {
        let address = self.address();
        wait_for("the server is ready", START_TIMEOUT, || {
            if let Some(status) = self.exit_status() {
                panic!("the server ended with {status}");
            }
            let reply = Client::new(address, None).try_request("GET", "/readyz", &[], None).ok()?;
            (reply.status == 200).then_some(())
        });
    }

    /// Kills the process as a power cut would, and waits for its end.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks the process to stop and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_for_exit()
    }

    /// Sends a signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Waits until the process has ended by itself.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let status = wait_for("the server has stopped", STOP_TIMEOUT, || self.exit_status());
        self.child = None;
        status
    }

    /// How the process ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }

    /// A client that holds the admin token.
    pub fn client(&self) -> Client {
        let token = fs::read_to_string(self.data_dir().join("admin.token")).unwrap();
        Client::new(self.address(), Some(token.trim()))
    }

    /// The code of the link that a server without users prints soon after its start.
    pub fn setup_code(&self) -> String {
        wait_for("a server without users prints a setup link", START_TIMEOUT, || {
            let log = self.log();
            let (_, rest) = log.split_once("/setup?code=")?;
            rest.split_once('\n').map(|(code, _)| code.to_owned())
        })
    }

    pub fn address(&self) -> SocketAddr {
        (self.setup.host, self.setup.port).into()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("knot.toml")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself; either way it is reaped.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.setup.name, self.log());
        }
    }
}
