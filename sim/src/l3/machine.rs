//! One server's machine: a folder, a namespace, and the process of the real binary that runs there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use knot_server::storage::ADMIN_TOKEN_FILE;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::servers::TOKEN;

/// How long a process that was told to leave may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
const CONFIG: &str = "knot.toml";
const DATA: &str = "data";
const COPY: &str = "copy";
const LOG: &str = "log";

/// A machine and its process.
#[derive(Debug)]
pub(super) struct Machine {
    binary: PathBuf,
    namespace: String,
    folder: PathBuf,
    process: Option<Child>,
    /// How much keeps it down: faults, a supervisor that waits, and that its time has not come.
    held_down: u32,
    /// Faults that keep it from being scheduled.
    paused: u32,
}

impl Machine {
    /// A machine in `folder` with this `knot.toml`. Its process does not run before it is [released](Self::release).
    pub(super) fn new(binary: &Path, namespace: &str, folder: PathBuf, config: &str) -> io::Result<Self> {
        let machine = Self {
            binary: binary.to_owned(),
            namespace: namespace.to_owned(),
            folder,
            process: None,
            held_down: 1,
            paused: 0,
        };
        machine.make_disk()?;
        fs::write(machine.folder.join(CONFIG), config)?;
        Ok(machine)
    }

    /// An empty disk, but for the token that clients have.
    fn make_disk(&self) -> io::Result<()> {
        let data = data_folder(&self.folder);
        remove(&data)?;
        fs::create_dir_all(&data)?;
        fs::write(data.join(ADMIN_TOKEN_FILE), TOKEN)
    }

    /// Starts its process, unless one runs or something keeps it down.
    fn start(&mut self) -> io::Result<()> {
        if self.process.is_some() || self.held_down > 0 {
            return Ok(());
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join(LOG))?;
        // `ip` becomes the server: both are one process.
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespace])
            .arg(&self.binary)
            .args(["server", "--config"])
            .arg(self.folder.join(CONFIG))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.process = Some(child);
        if self.paused > 0 {
            self.signal(Signal::STOP);
        }
        Ok(())
    }

    /// How its process has ended by itself, if it has.
    pub(super) fn ended(&mut self) -> Option<String> {
        let ended = match self.process.as_mut()?.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        self.process = None;
        Some(ended)
    }

    /// One thing more keeps it down.
    pub(super) fn hold_down(&mut self) {
        self.held_down += 1;
    }

    /// One fault more keeps it down. Its process is gone when this returns.
    pub(super) async fn kill(&mut self) -> io::Result<()> {
        self.hold_down();
        match self.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// One fault more keeps it down. Its process is told to leave, and killed if it does not.
    pub(super) async fn stop(&mut self) -> io::Result<()> {
        self.hold_down();
        self.signal(Signal::TERM);
        let Some(mut process) = self.process.take() else { return Ok(()) };
        match tokio::time::timeout(LEAVE_TIMEOUT, process.wait()).await {
            Ok(status) => status.map(|_| ()),
            Err(_) => process.kill().await,
        }
    }

    /// One thing fewer keeps it down; the last starts it.
    pub(super) fn release(&mut self) -> io::Result<()> {
        self.held_down = self.held_down.saturating_sub(1);
        self.start()
    }

    /// Its process is not scheduled, or is again.
    pub(super) fn pause(&mut self, on: bool) {
        self.paused = if on { self.paused + 1 } else { self.paused.saturating_sub(1) };
        self.signal(if self.paused > 0 { Signal::STOP } else { Signal::CONT });
    }

    /// Copies its data, at one moment.
    pub(super) fn back_up(&mut self) -> io::Result<()> {
        self.signal(Signal::STOP);
        let copied = replace(&self.folder.join(DATA), &self.folder.join(COPY));
        if self.paused == 0 {
            self.signal(Signal::CONT);
        }
        copied
    }

    /// Puts the copy of its data in the place of its data. No process may run.
    pub(super) fn restore(&self) -> io::Result<()> {
        replace(&self.folder.join(COPY), &self.folder.join(DATA))
    }

    /// Loses its data. No process may run.
    pub(super) fn lose_disk(&self) -> io::Result<()> {
        self.make_disk()
    }

    fn signal(&self, signal: Signal) {
        let pid = self.process.as_ref().and_then(Child::id).and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            // One that has ended hears nothing.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Where a machine's configuration says that its data is.
pub(super) fn data_folder(folder: &Path) -> PathBuf {
    folder.join(DATA)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes `to` a copy of the folder `from`.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    remove(to)?;
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
