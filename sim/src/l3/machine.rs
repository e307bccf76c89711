//! One server's machine: a folder, a namespace, and the process of the real binary that runs there.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use knot_server::storage::ADMIN_TOKEN_FILE;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::unready::{At, Unready};
use crate::servers::TOKEN;

/// How long a process that was told to leave may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process may take to stand still: a thread may have to wait for the disk first.
const STILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is seen whether it does.
const STILL_EVERY: Duration = Duration::from_millis(1);
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
    /// Until when its process may take to leave, if it was told to.
    leaves_by: Option<Instant>,
    /// How much keeps it down: faults, a supervisor that waits, and that its time has not come.
    held_down: u32,
    /// Faults that keep it from being scheduled.
    paused: u32,
}

impl Machine {
    /// A machine in `folder` with this `knot.toml`. Its process does not run before it is [released](Self::release).
    pub(super) fn new(binary: &Path, namespace: &str, folder: PathBuf, config: &str) -> Result<Self, Unready> {
        let machine = Self {
            binary: binary.to_owned(),
            namespace: namespace.to_owned(),
            folder,
            process: None,
            leaves_by: None,
            held_down: 1,
            paused: 0,
        };
        machine.make_disk()?;
        let file = machine.folder.join(CONFIG);
        fs::write(&file, config).at_path(&file)?;
        Ok(machine)
    }

    /// An empty disk, but for the token that clients have.
    fn make_disk(&self) -> Result<(), Unready> {
        let data = data_folder(&self.folder);
        remove(&data)?;
        fs::create_dir_all(&data).at_path(&data)?;
        let token = data.join(ADMIN_TOKEN_FILE);
        fs::write(&token, TOKEN).at_path(&token)
    }

    /// Starts its process, unless one runs or something keeps it down.
    fn start(&mut self) -> Result<(), Unready> {
        if self.process.is_some() || self.held_down > 0 {
            return Ok(());
        }
        let path = self.folder.join(LOG);
        let log = fs::OpenOptions::new().create(true).append(true).open(&path).at_path(&path)?;
        // Each of these becomes the next, so all are one process. The kernel kills it when whoever starts it here ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "ip", "netns", "exec", &self.namespace])
            .arg(&self.binary)
            .args(["server", "--config"])
            .arg(self.folder.join(CONFIG))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().at_path(&path)?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .at("setpriv")?;
        self.process = Some(child);
        if self.paused > 0 {
            self.signal(Signal::STOP);
        }
        Ok(())
    }

    /// Looks after its process; how it has ended, if not as it was told to. One that was told to leave and does not is
    /// killed, and when it is gone, and nothing keeps the machine down, there is another.
    pub(super) fn look_after(&mut self) -> Result<Option<String>, Unready> {
        let Some(process) = &mut self.process else { return Ok(None) };
        let ended = process.try_wait().at_path(&self.folder)?;
        match (ended, self.leaves_by) {
            (None, None) => Ok(None),
            (None, Some(by)) => {
                if Instant::now() >= by {
                    process.start_kill().at_path(&self.folder)?;
                }
                Ok(None)
            }
            (Some(status), leaving) => {
                (self.process, self.leaves_by) = (None, None);
                if leaving.is_none() || !has_left(status) {
                    return Ok(Some(status.to_string()));
                }
                self.start()?;
                Ok(None)
            }
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// One thing more keeps it down.
    pub(super) fn hold_down(&mut self) {
        self.held_down += 1;
    }

    /// One fault more keeps it down. Its process is gone when this returns.
    pub(super) async fn kill(&mut self) -> Result<(), Unready> {
        self.hold_down();
        self.leaves_by = None;
        match self.process.take() {
            Some(mut process) => process.kill().await.at_path(&self.folder),
            None => Ok(()),
        }
    }

    /// One fault more keeps it down. Its process is told to leave, which [takes a while](Self::look_after).
    pub(super) fn stop(&mut self) {
        self.hold_down();
        self.signal(Signal::TERM);
        if self.process.is_some() && self.leaves_by.is_none() {
            self.leaves_by = Some(Instant::now() + LEAVE_TIMEOUT);
        }
    }

    /// One thing fewer keeps it down; the last starts it.
    pub(super) fn release(&mut self) -> Result<(), Unready> {
        self.held_down = self.held_down.saturating_sub(1);
        self.start()
    }

    /// Its process is not scheduled, or is again.
    pub(super) fn pause(&mut self, on: bool) {
        self.paused = if on { self.paused + 1 } else { self.paused.saturating_sub(1) };
        self.signal(if self.paused > 0 { Signal::STOP } else { Signal::CONT });
    }

    /// Copies its data, at one moment: no thread of its process runs meanwhile.
    pub(super) async fn back_up(&mut self) -> Result<(), Unready> {
        self.signal(Signal::STOP);
        let copied = match self.process.as_ref().and_then(Child::id) {
            Some(pid) => stands_still(pid).await,
            None => Ok(()),
        };
        let copied = copied.and_then(|()| replace(&self.folder.join(DATA), &self.folder.join(COPY)));
        if self.paused == 0 {
            self.signal(Signal::CONT);
        }
        copied
    }

    /// Puts the copy of its data in the place of its data. No process may run.
    pub(super) fn restore(&self) -> Result<(), Unready> {
        replace(&self.folder.join(COPY), &self.folder.join(DATA))
    }

    /// Loses its data. No process may run.
    pub(super) fn lose_disk(&self) -> Result<(), Unready> {
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

/// Whether a process that was told to leave has done so, before it knew how to, or after it was given up.
fn has_left(status: ExitStatus) -> bool {
    let told = [Signal::TERM, Signal::KILL].map(Signal::as_raw);
    status.success() || status.signal().is_some_and(|signal| told.contains(&signal))
}

/// Where a machine's configuration says that its data is.
pub(super) fn data_folder(folder: &Path) -> PathBuf {
    folder.join(DATA)
}

/// Waits until no thread of a process runs, which comes some time after the signal that asks for it.
async fn stands_still(pid: u32) -> Result<(), Unready> {
    let threads = PathBuf::from(format!("/proc/{pid}/task"));
    let still = async {
        while !are_stopped(&threads)? {
            sleep(STILL_EVERY).await;
        }
        Ok(())
    };
    timeout(STILL_TIMEOUT, still).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).at_path(&threads)
}

fn are_stopped(threads: &Path) -> io::Result<bool> {
    let gone = |error: &io::Error| {
        // A thread that has ended has no folder, or one that cannot be read any more.
        error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
    };
    let entries = match fs::read_dir(threads) {
        Err(error) if gone(&error) => return Ok(true),
        entries => entries?,
    };
    for entry in entries {
        match fs::read_to_string(entry?.path().join("stat")) {
            Err(error) if gone(&error) => {}
            stat => {
                if !is_stopped(&stat?) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// Whether a thread stands still for good or has ended, by its line of proc_pid_stat(5): the state follows its name, which
/// stands in brackets and may hold some.
fn is_stopped(stat: &str) -> bool {
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| "TZX".contains(state))
}

fn remove(folder: &Path) -> Result<(), Unready> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at_path(folder),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes `to` a copy of the folder `from`.
fn replace(from: &Path, to: &Path) -> Result<(), Unready> {
    remove(to)?;
    fs::create_dir_all(to).at_path(to)?;
    for entry in fs::read_dir(from).at_path(from)? {
        let entry = entry.at_path(from)?;
        let path = entry.path();
        if entry.file_type().at_path(&path)?.is_file() {
            fs::copy(&path, to.join(entry.file_name())).at_path(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// A machine whose process is a shell that does this when it is told to leave, and knows so by now.
    async fn process(leaving: &str) -> (Machine, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut machine = Machine::new(Path::new("none"), "none", folder.path().to_owned(), "").unwrap();
        let script = format!("trap '{leaving}' TERM; echo; while :; do :; done");
        let mut child =
            Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        child.stdout.take().unwrap().read_u8().await.unwrap();
        machine.process = Some(child);
        (machine, folder)
    }

    /// Looks until its process is gone; how that ended, if not as it was told to.
    async fn ended(machine: &mut Machine) -> Option<String> {
        while machine.is_running() {
            if let Some(ended) = machine.look_after().unwrap() {
                return Some(ended);
            }
            tokio::task::yield_now().await;
        }
        None
    }

    #[test]
    fn a_stopped_thread_is_told_by_its_state() {
        assert!(is_stopped("12 (knot) T 1 12"));
        assert!(is_stopped("12 (a) R (b) T 1 12"));
        assert!(!is_stopped("12 (knot) S 1 12"));
        assert!(!is_stopped("12 (T) R 1 12"));
        assert!(!is_stopped(""));
    }

    #[tokio::test]
    async fn a_copy_is_made_while_nothing_runs() {
        let (mut machine, _folder) = process("").await;
        let pid = machine.process.as_ref().and_then(Child::id).unwrap();
        machine.signal(Signal::STOP);
        stands_still(pid).await.unwrap();
        assert!(are_stopped(Path::new(&format!("/proc/{pid}/task"))).unwrap());
        machine.back_up().await.unwrap();
        assert!(machine.folder.join(COPY).join(ADMIN_TOKEN_FILE).is_file());
        machine.kill().await.unwrap();
    }

    #[tokio::test]
    async fn who_does_not_leave_keeps_nobody_waiting_and_is_killed_in_the_end() {
        let (mut machine, _folder) = process("").await;
        machine.stop();
        assert_eq!(machine.look_after().unwrap(), None);
        assert!(machine.is_running());
        // Its time is over.
        machine.leaves_by = Some(Instant::now());
        assert_eq!(ended(&mut machine).await, None);
    }

    #[tokio::test]
    async fn who_leaves_with_an_error_is_noticed() {
        for (leaving, how) in [("exit 0", None), ("exit 3", Some("exit status: 3"))] {
            let (mut machine, _folder) = process(leaving).await;
            machine.stop();
            assert_eq!(ended(&mut machine).await.as_deref(), how);
        }
    }
}
