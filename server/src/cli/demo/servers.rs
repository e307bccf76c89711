//! The demo's processes and their folders.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::config::FILE_NAME;
use crate::genkey::generate_key;
use crate::storage::{ADMIN_TOKEN_FILE, admin_token, write_private};

/// Zones that the servers are spread over.
const ZONES: [&str; 3] = ["au", "gb", "us"];
/// Where ports are looked for; a taken one is stepped over.
const HTTP_PORT: u16 = 3000;
const CLUSTER_PORT: u16 = 3100;
/// Ports that are tried.
const PORTS_TRIED: u16 = 2_000;
/// How long a server may take to say goodbye.
const STOP_TIMEOUT: Duration = Duration::from_secs(6);
/// How often it is looked at meanwhile.
const STOP_POLL: Duration = Duration::from_millis(20);
/// The cluster's key, in a folder that is kept.
const KEY_FILE: &str = "cluster.key";

/// One server's process.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) zone: &'static str,
    pub(super) url: String,
    pub(super) token: String,
    pub(super) data_dir: PathBuf,
    folder: PathBuf,
    process: Option<Child>,
    /// Its end was told.
    told: bool,
}

/// All of them, and where they live.
#[derive(Debug)]
pub(super) struct Demo {
    pub(super) dir: PathBuf,
    pub(super) servers: Vec<Server>,
}

impl Demo {
    /// Makes the folders, keys and configurations, or goes on with those that are there.
    pub(super) fn prepare(dir: Option<&Path>, nodes: usize) -> io::Result<Self> {
        let dir = match dir {
            Some(dir) => dir.to_owned(),
            None => std::env::temp_dir().join(format!("knot-demo-{}", std::process::id())),
        };
        fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        let key = key(&dir)?;
        let http = free_ports(HTTP_PORT, nodes)?;
        let cluster = free_ports(CLUSTER_PORT, nodes)?;
        let peers: Vec<String> = cluster.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
        let peers = peers.join(", ");
        let mut servers: Vec<Server> = Vec::new();
        for (at, ((http, cluster), zone)) in http.iter().zip(&cluster).zip(ZONES.iter().cycle()).enumerate() {
            let name = format!("knot{}", at + 1);
            let folder = dir.join(&name);
            let data_dir = folder.join("data");
            let config = format!(
                "[server]\nname = '{name}'\nzone = '{zone}'\nlisten = '127.0.0.1:{http}'\ndata_dir = '{}'\n\n\
                 [server.cluster]\nbind_addr = '127.0.0.1:{cluster}'\nadvertise_addr = '127.0.0.1:{cluster}'\nkey = '{key}'\npeers = [{peers}]\n",
                data_dir.display(),
            );
            private_folder(&data_dir)?;
            write_private(&folder.join(FILE_NAME), config.as_bytes())?;
            // One token opens all of them.
            let token = match servers.first() {
                Some(first) => {
                    write_private(&data_dir.join(ADMIN_TOKEN_FILE), first.token.as_bytes())?;
                    first.token.clone()
                }
                None => admin_token(&data_dir).map_err(io::Error::other)?,
            };
            let url = format!("http://127.0.0.1:{http}");
            servers.push(Server { name, zone, url, token, data_dir, folder, process: None, told: false });
        }
        Ok(Self { dir, servers })
    }

    pub(super) fn spawn(&mut self) -> io::Result<()> {
        let knot = std::env::current_exe()?;
        for server in &mut self.servers {
            let log = fs::File::create(server.folder.join("log"))?;
            let mut command = Command::new(&knot);
            command.arg("server").arg("--config").arg(server.folder.join(FILE_NAME));
            for (name, _) in std::env::vars_os() {
                if name.to_string_lossy().starts_with("KNOT_") {
                    command.env_remove(name);
                }
            }
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            // Ctrl-C goes to the terminal's whole group; the servers are stopped in order instead.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            server.process = Some(command.spawn()?);
        }
        Ok(())
    }

    /// Says which server ended before it was of use, and why.
    pub(super) fn check(&mut self) -> Result<(), String> {
        for server in &mut self.servers {
            if let Some(status) = server.ended() {
                let log = fs::read_to_string(server.folder.join("log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or_default();
                return Err(format!("{} did not start ({status}): {last}", server.name));
            }
        }
        Ok(())
    }

    /// News of servers that have ended.
    pub(super) fn gone(&mut self) -> Vec<String> {
        let mut news = Vec::new();
        for server in &mut self.servers {
            let Some(status) = server.ended() else { continue };
            if !std::mem::replace(&mut server.told, true) {
                let config = server.folder.join(FILE_NAME);
                let name = &server.name;
                news.push(format!(
                    "{name} is gone ({status}); bring it back with: knot server --config {}",
                    config.display()
                ));
            }
        }
        news
    }

    /// Stops all of them as an operator would, and by force whoever does not listen.
    pub(super) async fn stop(&mut self) {
        for server in &mut self.servers {
            server.terminate();
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline && self.servers.iter_mut().any(|server| server.ended().is_none()) {
            tokio::time::sleep(STOP_POLL).await;
        }
        for server in &mut self.servers {
            server.kill();
        }
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.dir)
    }
}

impl Server {
    pub(super) fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    /// How it ended, if it has; one that never ran has.
    fn ended(&mut self) -> Option<ExitStatus> {
        match &mut self.process {
            Some(process) => process.try_wait().ok().flatten(),
            None => Some(ExitStatus::default()),
        }
    }

    fn terminate(&mut self) {
        if self.ended().is_none()
            && let Some(pid) = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw)
        {
            // It may just have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        for server in &mut self.servers {
            server.kill();
        }
    }
}

fn key(dir: &Path) -> io::Result<String> {
    let path = dir.join(KEY_FILE);
    match fs::read_to_string(&path) {
        Ok(key) => Ok(key.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = generate_key().map_err(io::Error::other)?;
            write_private(&path, key.as_bytes())?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    std::os::unix::fs::DirBuilderExt::mode(fs::DirBuilder::new().recursive(true), 0o700).create(path)
}

/// Ports of 127.0.0.1 from `first` on that nothing uses, for TCP and UDP.
fn free_ports(first: u16, count: usize) -> io::Result<Vec<u16>> {
    let is_free = |port: &u16| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok() && UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
    };
    let step = if first == HTTP_PORT { CLUSTER_PORT - HTTP_PORT } else { PORTS_TRIED };
    let ports: Vec<u16> = (first..first + step).filter(is_free).take(count).collect();
    if ports.len() < count {
        return Err(io::Error::other(format!("no {count} free ports from {first} on")));
    }
    Ok(ports)
}
