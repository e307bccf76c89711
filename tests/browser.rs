//! The pages in a browser: a real cluster of three, and headless Chromium driven by `tests/browser`.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use support::{Setup, cluster, say};

/// What the browser does, and the packages that it takes.
const FILES: [&str; 9] = [
    "package.json",
    "package-lock.json",
    "main.mjs",
    "steps.mjs",
    "people.mjs",
    "spaces.mjs",
    "templates.mjs",
    "cluster.mjs",
    "looks.mjs",
];
/// Names of the browser, the best first.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// A folder that pictures of all pages are written to.
const SCREENSHOTS: &str = "KNOT_SCREENSHOTS";

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The scripts with their packages, outside of the sources; the packages are fetched when their versions change.
fn prepare() -> Result<PathBuf, String> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/browser");
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    fs::create_dir_all(&to).unwrap();
    let lock = fs::read(from.join("package-lock.json")).unwrap();
    let is_fetched = fs::read(to.join("package-lock.json")).is_ok_and(|known| known == lock)
        && to.join("node_modules/playwright-core").is_dir();
    for file in FILES {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    if is_fetched {
        return Ok(to);
    }
    let npm = Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&to).output();
    match npm {
        Ok(npm) if npm.status.success() => Ok(to),
        Ok(npm) => Err(format!("npm ci: {}", String::from_utf8_lossy(&npm.stderr).trim())),
        Err(error) => Err(format!("npm: {error}")),
    }
}

#[test]
fn people_use_the_pages() {
    let browser = BROWSERS.iter().find_map(|name| find(name));
    let (Some(browser), Some(node)) = (browser, find("node")) else {
        return say("SKIPPED the pages in a browser: there is no Chromium here, or no Node.js");
    };
    let scripts = match prepare() {
        Ok(scripts) => scripts,
        Err(why) => return say(&format!("SKIPPED the pages in a browser: {why}").replace('\n', " ")),
    };
    let mut servers = cluster::start(Setup::cluster(&["au", "gb", "us"]));
    let urls: Vec<String> = servers.iter().map(|server| server.setup.url()).collect();
    let asked = json!({
        "servers": urls,
        "token": servers[0].setup.token,
        "executable": browser,
        "screenshots": std::env::var(SCREENSHOTS).ok(),
    });
    let mut child = Command::new(node)
        .arg(scripts.join("main.mjs"))
        .arg(asked.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answers = child.stdin.take().unwrap();
    let mut last = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["ask", "setup", server] => {
                let server = &servers[server.parse::<usize>().unwrap()];
                format!("{}/setup?code={}", server.setup.url(), server.setup_code())
            }
            ["ask", "kill", server] => {
                servers[server.parse::<usize>().unwrap()].kill();
                String::new()
            }
            ["ask", "restart", server] => {
                servers[server.parse::<usize>().unwrap()].restart();
                String::new()
            }
            ["say", ..] => {
                say(line.trim_start_matches("say "));
                continue;
            }
            _ => {
                last = line;
                continue;
            }
        };
        writeln!(answers, "done {answer}").unwrap();
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "the browser did not do what it should; its last word: {last}");
}
