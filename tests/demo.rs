//! `knot demo` as a newcomer meets it, in a folder whose name is a hard one.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Client, wait_for};

/// How long servers may take to start and to find each other, and to stop.
const DEMO_TIMEOUT: Duration = Duration::from_secs(90);

/// A demo that is stopped in order when a test ends early, so that its servers do not stay.
struct Demo(Child);

impl Demo {
    fn spawn(arguments: &[&str], folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knot"));
        command.arg("demo").args(arguments).current_dir(folder);
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([format!("-{name}"), self.0.id().to_string()]).status().unwrap().success());
    }

    /// What it says once its servers are up.
    fn up(&mut self) -> Value {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn end(&mut self) -> Option<i32> {
        wait_for("the demo ends", DEMO_TIMEOUT, || self.0.try_wait().unwrap()).code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.signal("TERM");
            let _ = self.0.wait();
        }
    }
}

fn clients(said: &Value) -> Vec<Client> {
    let token = std::fs::read_to_string(said["token_file"].as_str().unwrap()).unwrap();
    let address = |server: &Value| -> SocketAddr {
        server["url"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap()
    };
    said["servers"].as_array().unwrap().iter().map(|s| Client::new(address(s), Some(token.trim()))).collect()
}

fn assert_gone(said: &Value) {
    for client in clients(said) {
        assert!(client.try_request("GET", "/livez", &[], None).is_err(), "a server outlives its demo");
    }
}

// One test: two demos at once look for ports in the same place.
#[test]
fn a_demo_ends_with_its_servers_keeps_its_data_and_its_folder_to_itself() {
    let folder = tempfile::tempdir().unwrap();
    let hard = "it's a \"folder\" $HOME";
    let mut first = Demo::spawn(&["--nodes", "2", "--dir", hard, "--json"], folder.path());
    let said = first.up();
    assert_eq!(said["servers"].as_array().unwrap().len(), 2);
    for (server, zone) in said["servers"].as_array().unwrap().iter().zip(["au", "gb"]) {
        assert!(server["zone"] == zone && server["shown_after_ms"].is_number(), "{server}");
    }
    let config = std::fs::read(said["servers"][0]["config"].as_str().unwrap()).unwrap();
    clients(&said)[1].put("/api/documents/users/ann?w=1", &json!({"name": "Ann"})).expect(201);

    let second = Command::new(env!("CARGO_BIN_EXE_knot"))
        .args(["demo", "--nodes", "1", "--for", "1s", "--dir", hard])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let refusal = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.code() == Some(1) && refusal.contains("already; name another --dir"), "{refusal}");
    assert_eq!(std::fs::read(said["servers"][0]["config"].as_str().unwrap()).unwrap(), config);

    // As when its terminal is closed.
    first.signal("HUP");
    assert_eq!(first.end(), Some(0));
    assert_gone(&said);

    let began = Instant::now();
    let mut again = Demo::spawn(&["--nodes", "2", "--dir", hard, "--json", "--for", "2s"], folder.path());
    let said = again.up();
    assert_eq!(clients(&said)[0].get("/api/documents/users/ann").expect(200).json(), json!({"name": "Ann"}));
    assert_eq!(again.end(), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_gone(&said);
}
