//! The README's tour and the examples of the HTTP API work as they are pasted: their `sh` blocks run, in order and in one
//! shell, against a real demo and a real server.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use support::{Server, Setup};

mod support;

const README: &str = include_str!("../README.md");
const HTTP_API: &str = include_str!("../docs/http-api.md");
const DEMO_TIMEOUT: Duration = Duration::from_secs(90);
const TOUR_TIMEOUT: Duration = Duration::from_secs(120);
/// Where the README says the demo's servers are.
const WRITTEN: [&str; 3] = ["http://127.0.0.1:3000", "http://127.0.0.1:3001", "http://127.0.0.1:3002"];

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The fenced blocks marked `sh`, one after the other.
fn blocks(text: &'static str) -> String {
    let mut script = String::new();
    let mut label = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), label) {
            (Some(opening), None) => label = Some(opening),
            (Some(_), Some(_)) => label = None,
            (None, Some("sh")) => {
                script.push_str(line);
                script.push('\n');
            }
            (None, _) => {}
        }
    }
    script
}

/// Starts the demo in `folder` and reads where its servers are.
fn demo(folder: &Path) -> (Running, Vec<String>) {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_knot"))
        .args(["demo", "--dir", "knot-demo"])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let running = Running(demo);
    let (said, hear) = mpsc::channel();
    // It reads to the end, so that the demo never waits for a reader.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(said.send(line))));
    let deadline = Instant::now() + DEMO_TIMEOUT;
    let mut urls = Vec::new();
    loop {
        let line = hear.recv_timeout(deadline.saturating_duration_since(Instant::now())).expect("the demo comes up");
        if let Some(at) = line.find("http://")
            && line.contains("zone ")
        {
            urls.push(line[at..].split_whitespace().next().unwrap().to_owned());
        }
        if line.contains("Ctrl-C") {
            return (running, urls);
        }
    }
}

#[test]
fn the_tour_works_as_it_is_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let (_demo, urls) = demo(folder.path());
    assert_eq!(urls.len(), WRITTEN.len(), "{urls:?}");
    let mut script = blocks(README);
    for written in WRITTEN {
        assert!(script.contains(written), "the README names {written}");
    }
    // All at once: a server may have a port that the README gives to another.
    for (at, written) in WRITTEN.iter().enumerate() {
        script = script.replace(written, &format!("<{at}>"));
    }
    for (at, url) in urls.iter().enumerate() {
        script = script.replace(&format!("<{at}>"), url);
    }
    let bin = Path::new(env!("CARGO_BIN_EXE_knot")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    // The last server is stopped as the README says, and by force where a step before it failed.
    let script = format!("set -euo pipefail\ntrap 'kill ${{!:-}} || true; wait' EXIT\n{script}");
    let tour = Command::new("timeout")
        .arg(TOUR_TIMEOUT.as_secs().to_string())
        .args(["bash", "-xc", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("XDG_CONFIG_HOME", folder.path().join("config"))
        .output()
        .unwrap();
    let (said, trace) = (String::from_utf8_lossy(&tour.stdout), String::from_utf8_lossy(&tour.stderr));
    let log = fs::read_to_string(folder.path().join("knot3.log")).unwrap_or_default();
    assert!(tour.status.success(), "{:?}\n{trace}\n{said}\nknot3.log:\n{log}", tour.status);
    for shown in ["Perth", "ann@example.org", "user.login", "knot3", "\"visits\": 2", "Annie", "Ann Lee"] {
        assert!(said.contains(shown), "the tour does not show {shown}:\n{said}");
    }
}

#[test]
fn the_examples_of_the_http_api_work_as_they_are_pasted() {
    let mut server = Server::start(Setup::new("n1", "au"));
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(server.data_dir(), folder.path().join("knot-data")).unwrap();
    // A shell that runs a script has no aliases unless told, and the feed has no end.
    let script = blocks(HTTP_API).replace(WRITTEN[0], &server.setup.url()).replace("k -N ", "k --max-time 2 -N ");
    let examples = Command::new("timeout")
        .arg(TOUR_TIMEOUT.as_secs().to_string())
        .args(["bash", "-c", &format!("set -u\nshopt -s expand_aliases\n{script}")])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let (said, trace) = (String::from_utf8_lossy(&examples.stdout), String::from_utf8_lossy(&examples.stderr));
    assert!(examples.status.success(), "{trace}\n{said}");
    for shown in ["HTTP/1.1 201", "\"seq\":8", "\"kind\":\"delete\"", "snapshot-end", "\"status\":\"leaving\""] {
        assert!(said.contains(shown), "the examples do not show {shown}:\n{said}\n{trace}");
    }
    // The document is there already, and nobody is called n3 or has that id.
    let refused: Vec<&str> = said.lines().filter(|line| line.contains("\"error\":")).collect();
    let count = |words: &str| said.matches(words).count();
    let counts = (count("\"error\":"), count("no such member"), count("no such server is evicted"));
    assert_eq!(counts, (5, 3, 1), "{refused:#?}");
    assert!(server.wait_for_exit().success(), "the last example retires it");
}
