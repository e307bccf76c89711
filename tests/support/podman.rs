//! Podman, with folders of its own, where this machine can run it. Nothing comes from a registry: the image is a static
//! busybox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{say, wait_for};

pub const IMAGE: &str = "localhost/knot-test:1";
pub const BUSYBOX: &str = "/bin/busybox";
/// How long Podman's service may take to listen, on a machine that is busy.
pub const SERVICE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one of its commands may take, in seconds.
const COMMAND_SECONDS: &str = "120";

/// Podman as a service of one test alone.
#[derive(Debug)]
pub struct Podman {
    folder: tempfile::TempDir,
    service: Child,
}

impl Podman {
    /// `None` where this machine cannot run any, which is said.
    pub fn start() -> Option<Self> {
        let started = Self::try_start();
        started.map_err(|why| say(&format!("SKIPPED spaces in a real container runtime: {why}"))).ok()
    }

    fn try_start() -> Result<Self, String> {
        if !Path::new(BUSYBOX).exists() {
            return Err(format!("there is no {BUSYBOX} to make an image of; apt-get install busybox-static"));
        }
        if Command::new("podman").arg("--version").output().is_err() {
            return Err("there is no podman; apt-get install podman runc".to_owned());
        }
        let temporary = tempfile::Builder::new().prefix("knot-podman-").tempdir().map_err(|error| error.to_string())?;
        let folder = temporary.path();
        // Where containers are nested, limits can only be lowered.
        let configuration = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
            [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
        fs::write(folder.join("containers.conf"), configuration).unwrap();
        fs::create_dir_all(folder.join("image/bin")).unwrap();
        fs::copy(BUSYBOX, folder.join("image/bin/busybox")).unwrap();
        output(
            Command::new("tar").arg("-C").arg(folder.join("image")).arg("-cf").arg(folder.join("image.tar")).arg("."),
        )?;
        output(podman(folder, "timeout").arg("import").arg(folder.join("image.tar")).arg(IMAGE))?;
        output(podman(folder, "timeout").args(["run", "--rm", "--network=none", IMAGE, BUSYBOX, "true"]))?;
        let socket = folder.join("podman.sock");
        let service = podman(folder, "podman")
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{}", socket.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let podman = Self { folder: temporary, service };
        wait_for("Podman's socket", SERVICE_TIMEOUT, || socket.exists().then_some(()));
        Ok(podman)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("podman.sock")
    }

    /// Podman behind knot's back.
    pub fn run(&self, arguments: &[&str]) -> String {
        output(podman(self.folder.path(), "timeout").args(arguments)).unwrap()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = output(podman(self.folder.path(), "timeout").args(["rm", "--all", "--force", "--time=0"]));
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

/// Podman with folders of its own, by itself or within a time.
fn podman(folder: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    if program == "timeout" {
        command.args([COMMAND_SECONDS, "podman"]);
    }
    command.env("CONTAINERS_CONF", folder.join("containers.conf"));
    command.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
    command.args(["--storage-driver", "vfs"]).stdin(Stdio::null());
    // Where cgroups are of two kinds at once, no other runtime works.
    if Command::new("runc").arg("--version").output().is_ok() {
        command.args(["--runtime", "runc"]);
    }
    command
}

/// What a command says, or what it complains of.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr).replace('\n', " ")) }
}
