//! A real server whose disk is in use, full or broken.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use support::{Server, Setup, free_port, say, wait_for};

/// How long a server may take to notice that there is room again.
const ROOM_TIMEOUT: Duration = Duration::from_secs(15);
/// Size of the file system that is filled.
const DISK_BYTES: usize = 16 << 20;
/// Writes after which a disk without room must have been noticed: what is preallocated is used up by then.
const WRITES_MAX: usize = 2_000;

#[test]
fn a_folder_that_is_in_use_is_refused_and_says_by_whom() {
    let server = Server::start(Setup::new("n1", "au"));
    let (port, other) = (free_port(), server.config().with_file_name("other.toml"));
    let config =
        fs::read_to_string(server.config()).unwrap().replace(&server.setup.port.to_string(), &port.to_string());
    fs::write(&other, config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_knot")).args(["server", "--config"]).arg(&other).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    for words in ["in use by another knot server", &server.pid().to_string(), server.data_dir().to_str().unwrap()] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    server.client().put("/api/documents/users/ann", &json!({"still": "here"})).expect(201);
}

/// A small file system, mounted over a folder for as long as the value lives.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path) -> Result<Self, String> {
        let size = format!("size={DISK_BYTES},mode=0700");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        let output = mount.map_err(|error| format!("mount: {error}"))?;
        if output.status.success() {
            Ok(Self(path.to_owned()))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Takes all the room that is left.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = File::create(&ballast).unwrap();
        for size in [1 << 16, 1 << 10, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        ballast
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, since the server may still run.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_writes_and_recovers_by_itself() {
    let mut server = Server::prepare(Setup::new("n1", "au"));
    let disk = match Disk::mount(&server.data_dir()) {
        Ok(disk) => disk,
        Err(why) => {
            return say(&format!("SKIPPED the full disk: no small file system can be mounted here ({})", why.trim()));
        }
    };
    server.restart();
    let client = server.client();
    let put =
        |n: usize| client.put(&format!("/api/documents/notes/{n:05}"), &json!({"n": n, "text": "x".repeat(2_000)}));
    let mut acknowledged: Vec<usize> = (0..20).collect();
    acknowledged.iter().for_each(|n| drop(put(*n).expect(201)));

    let ballast = disk.fill();
    let refused = (20..WRITES_MAX).find_map(|n| {
        let reply = put(n);
        if reply.status == 201 {
            acknowledged.push(n);
            return None;
        }
        Some(reply)
    });
    refused.expect("the disk fills up").expect_error(507, "disk");
    for n in &acknowledged {
        client.get(&format!("/api/documents/notes/{n:05}")).expect(200);
    }
    client.get("/readyz").expect(200);
    assert_eq!(client.get("/api/cluster/status").json()["disk_full"], json!(true));
    put(WRITES_MAX).expect_error(507, "disk");

    fs::remove_file(ballast).unwrap();
    let mut n = WRITES_MAX;
    wait_for("writes are taken again", ROOM_TIMEOUT, || {
        n += 1;
        (put(n).status == 201).then(|| acknowledged.push(n))
    });
    assert_eq!(client.get("/api/cluster/status").json()["disk_full"], json!(false));
    server.kill();
    server.restart();
    for n in &acknowledged {
        server.client().get(&format!("/api/documents/notes/{n:05}")).expect(200);
    }
}

/// `strace`, which makes every sync of a process fail.
struct Saboteur(Child);

impl Saboteur {
    fn attach(pid: u32) -> Result<Self, String> {
        let injection = "inject=fsync,fdatasync:error=EIO";
        let mut child = Command::new("strace")
            .args(["-f", "-p", &pid.to_string(), "-e", "trace=fsync,fdatasync", "-e", injection])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("strace: {error}"))?;
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        let saboteur = Self(child);
        if !first.contains("attached") {
            return Err(first);
        }
        // Whoever stops reading stops strace, and with it the server.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(saboteur)
    }
}

impl Drop for Saboteur {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_first_failed_sync_ends_the_server_and_nothing_acknowledged_is_lost() {
    let mut server = Server::start(Setup::new("n1", "au"));
    let client = server.client();
    for n in 0..20 {
        client.put(&format!("/api/documents/notes/{n:05}"), &json!({"n": n})).expect(201);
    }
    let saboteur = match Saboteur::attach(server.pid()) {
        Ok(saboteur) => saboteur,
        Err(why) => return say(&format!("SKIPPED the failed sync: strace cannot attach here ({why})")),
    };
    let refused = client.try_request("PUT", "/api/documents/notes/refused", &[], Some(b"{}"));
    assert!(!refused.as_ref().is_ok_and(|reply| reply.status < 300), "{refused:?}");
    assert!(!server.wait_for_exit().success(), "{}", server.log());
    assert!(server.log().contains("storage failed"), "it says why: {}", server.log());
    drop(saboteur);
    server.restart();
    for n in 0..20 {
        let read = server.client().get(&format!("/api/documents/notes/{n:05}")).expect(200);
        assert_eq!(read.json(), json!({"n": n}));
    }
    server.client().put("/api/documents/notes/after", &json!({"n": 1})).expect(201);
}
