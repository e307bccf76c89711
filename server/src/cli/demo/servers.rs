//! The demo's processes and their folders.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

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
/// Held while a demo runs in a folder.
const LOCK_FILE: &str = "demo.lock";
/// Names tried for a folder that is not kept.
const FOLDERS_TRIED: u32 = 100;

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
    _lock: fs::File,
}

impl Demo {
    /// Makes the folders, keys and configurations, or goes on with those that are there.
    pub(super) fn prepare(dir: Option<&Path>, nodes: usize) -> io::Result<Self> {
        let dir = match dir {
            Some(dir) => {
                fs::create_dir_all(dir)?;
                dir.to_owned()
            }
            None => fresh_folder()?,
        };
        let dir = dir.canonicalize()?;
        let lock = lock(&dir)?;
        let key = key(&dir)?;
        let http = free_ports(HTTP_PORT, nodes)?;
        let cluster = free_ports(CLUSTER_PORT, nodes)?;
        let peers: Vec<String> = cluster.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut servers: Vec<Server> = Vec::new();
        for (at, ((http, cluster), zone)) in http.iter().zip(&cluster).zip(ZONES.iter().cycle()).enumerate() {
            let name = format!("knot{}", at + 1);
            let folder = dir.join(&name);
            let data_dir = folder.join("data");
            // JSON's strings and lists are TOML's too.
            let config = format!(
                "[server]\nname = '{name}'\nzone = '{zone}'\nlisten = '127.0.0.1:{http}'\ndata_dir = {}\n\n\
                 [server.cluster]\nbind_addr = '127.0.0.1:{cluster}'\nadvertise_addr = '127.0.0.1:{cluster}'\nkey = '{key}'\npeers = {}\n",
                json!(data_dir.display().to_string()),
                json!(peers),
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
        Ok(Self { dir, servers, _lock: lock })
    }

    pub(super) fn spawn(&mut self) -> io::Result<()> {
        let knot = std::env::current_exe()?;
        for server in &mut self.servers {
            let log = fs::File::create(server.folder.join("log"))?;
            let mut command = Command::new(&knot);
            command.arg("server").arg("--config").arg(server.config());
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
                // An error in the configuration has several lines.
                let why = log.rfind("error: ").map_or("", |at| log[at..].trim_end());
                return Err(format!("{} did not start ({status}): {why}", server.name));
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
                let (name, config) = (&server.name, pasted(&server.config()));
                news.push(format!("{name} is gone ({status}); bring it back with: knot server --config {config}"));
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

    pub(super) fn config(&self) -> PathBuf {
        self.folder.join(FILE_NAME)
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

/// A folder that nobody had before, and nobody else can look into.
fn fresh_folder() -> io::Result<PathBuf> {
    let base = std::env::temp_dir();
    let names = (0..FOLDERS_TRIED).map(|n| base.join(format!("knot-demo-{}-{n}", std::process::id())));
    for dir in names {
        match std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| dir),
        }
    }
    Err(io::Error::other(format!("every name for a folder in {} is taken", base.display())))
}

/// Two demos in one folder would rewrite each other's configurations.
fn lock(dir: &Path) -> io::Result<fs::File> {
    let file = fs::File::create(dir.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(io::Error::other(format!("a demo runs in {} already; name another --dir", dir.display())))
        }
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// A path as it can be pasted into a shell.
pub(super) fn pasted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_anything_in_it_can_be_pasted() {
        assert_eq!(pasted(Path::new("/tmp/knot-demo/a.b")), "/tmp/knot-demo/a.b");
        assert_eq!(pasted(Path::new("/tmp/it's one")), "'/tmp/it'\\''s one'");
    }
}
