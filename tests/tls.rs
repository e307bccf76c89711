//! Clusters whose HTTP API runs with TLS, asked with the command line: certificates that servers make for themselves, and
//! certificates of an authority.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::ops::Add;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::authority::Authority;
use support::cluster::{JOIN_TIMEOUT, SPREAD_TIMEOUT};
use support::{START_TIMEOUT, Server, Setup, wait_for};

/// How long a changed certificate may take to be shown.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Less than what is warned of.
const DAYS: Duration = Duration::from_secs(3 * 24 * 3_600);

/// Runs a command far from any configuration, with the certificate to trust where one is named.
fn knot(arguments: &[&str], cacert: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knot"));
    command.args(arguments).env_clear().current_dir("/").stdin(Stdio::null());
    command.envs(cacert.map(|path| ("KNOT_CACERT", path))).output().unwrap()
}

/// What a command that succeeds prints as JSON.
#[track_caller]
fn said(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {said}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[track_caller]
fn expect_refusal(output: &Output, code: i32, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "{words:?} is not in {said}");
}

/// Starts servers and waits until each, asked by its own configuration, lists all of them as alive.
fn start(setups: Vec<Setup>, cacert: Option<&Path>) -> Vec<Server> {
    let mut servers: Vec<Server> = setups.into_iter().map(Server::prepare).collect();
    servers.iter_mut().for_each(Server::spawn);
    for server in &mut servers {
        wait_for("the server lists three alive members", START_TIMEOUT + JOIN_TIMEOUT, || {
            assert_eq!(server.exit_status(), None, "{}", server.log());
            let list =
                knot(&["cluster", "members", "--status=alive", "--json", "--config", text(&server.config())], cacert);
            (list.status.success() && said(&list)["total"] == 3).then_some(())
        });
    }
    servers
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Writes on each server, reads on every other, and asks about zones; each server is named by its configuration alone.
fn exercise(servers: &[Server], cacert: Option<&Path>) {
    let ask = |server: &Server, arguments: &[&str]| {
        knot(&[arguments, &["--json", "--config", text(&server.config())]].concat(), cacert)
    };
    for server in servers {
        let document = format!("users/of-{}", server.setup.name);
        let value = json!({"written_on": server.setup.name});
        let put = ["doc", "put", &document, &value.to_string(), "--replicas", "2", "--timeout", "10000"];
        assert_eq!(said(&ask(server, &put))["held_by"], json!(2));
        for other in servers {
            wait_for("the document arrives", SPREAD_TIMEOUT, || {
                let got = ask(other, &["doc", "get", &document]);
                (got.status.success() && said(&got)["value"] == value).then_some(())
            });
        }
    }
    let pong = said(&ask(&servers[0], &["ping"]));
    assert_eq!(pong["url"], json!(servers[0].setup.url()));
    assert!(pong["url"].as_str().unwrap().starts_with("https://"), "{pong}");
    for row in said(&ask(&servers[1], &["cluster", "members"]))["data"].as_array().unwrap() {
        let server = servers.iter().find(|server| row["name"] == server.setup.name).unwrap();
        assert_eq!(row["url"], json!(server.setup.url()));
    }
    let feed = ask(&servers[2], &["doc", "watch", "users", "--once"]);
    assert_eq!(String::from_utf8(feed.stdout).unwrap().lines().count(), 3);
    expect_refusal(&ask(&servers[0], &["doc", "get", "users/ann", "--zone", "us"]), 1, &servers[2].setup.url());
}

#[test]
fn servers_with_certificates_of_their_own_are_found_and_trusted_by_their_folders() {
    let mut setups = Setup::cluster(&["au", "gb", "us"]);
    for setup in &mut setups {
        setup.tls = Some("use_tls = true".to_owned());
    }
    let servers = start(setups, None);
    exercise(&servers, None);

    let (url, token) = (servers[0].setup.url(), servers[0].setup.token.clone().unwrap());
    let elsewhere = ["cluster", "status", "--json", "--server", &url, "--token", &token];
    expect_refusal(&knot(&elsewhere, None), 3, "--cacert");
    let cert = |server: &Server| server.data_dir().join("cert.pem");
    expect_refusal(&knot(&elsewhere, Some(&cert(&servers[1]))), 3, "cannot trust");
    assert_eq!(said(&knot(&elsewhere, Some(&cert(&servers[0]))))["name"], json!("n0"));
    let plain = url.replace("https://", "http://");
    expect_refusal(&knot(&["ping", "--server", &plain], None), 3, &format!("try {url}"));
}

#[test]
fn servers_with_certificates_of_an_authority_are_trusted_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let (ca, signed) = (authority.file.clone(), authority.sign("all", "127.0.0.1", |_| {}));
    let mut setups = Setup::cluster(&["au", "gb", "us"]);
    for setup in &mut setups {
        setup.tls = Some(signed.toml());
    }
    let servers = start(setups, Some(&ca));
    exercise(&servers, Some(&ca));
    let config = servers[0].config();
    expect_refusal(&knot(&["ping", "--config", text(&config)], None), 3, "--cacert");
    let localhost = servers[0].setup.url().replace("127.0.0.1", "localhost");
    expect_refusal(&knot(&["ping", "--server", &localhost], Some(&ca)), 3, "ask by a name that the certificate is for");
    for server in &servers {
        assert!(!server.data_dir().join("cert.pem").exists(), "none is made where one is named");
    }

    let fingerprint = || {
        let status = ["cluster", "status", "--json", "--config", text(&config)];
        said(&knot(&status, Some(&ca)))["tls"]["fingerprint"].as_str().unwrap().to_owned()
    };
    let before = fingerprint();
    let soon = |params: &mut rcgen::CertificateParams| params.not_after = SystemTime::now().add(DAYS).into();
    authority.sign("all", "127.0.0.1", soon);
    wait_for("the new certificate is shown", RENEWAL_TIMEOUT, || (fingerprint() != before).then_some(()));
    wait_for("it is warned of", RENEWAL_TIMEOUT, || servers[0].log().contains("expires soon").then_some(()));
    std::fs::write(&signed.key, "half of a ke").unwrap();
    wait_for("what is broken is named", RENEWAL_TIMEOUT, || {
        servers[0].log().contains("the certificate stays as it was").then_some(())
    });
    said(&knot(&["ping", "--json", "--config", text(&config)], Some(&ca)));
}

#[test]
fn servers_speak_over_wss_alone_under_a_private_authority() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let (ca, signed) = (authority.file.clone(), authority.sign("all", "127.0.0.1", |_| {}));
    let mut setups = Setup::cluster(&["au", "gb", "us"]);
    let addresses: Vec<String> = setups.iter().map(|setup| format!("wss://127.0.0.1:{}", setup.port)).collect();
    for (setup, address) in setups.iter_mut().zip(&addresses) {
        setup.tls = Some(signed.toml());
        setup.extra = format!("[server.cluster.tls]\nca_file = {ca:?}\n");
        let cluster = setup.cluster.as_mut().unwrap();
        (cluster.address, cluster.peers) = (format!("{address}/"), addresses.clone());
    }
    let mut servers = start(setups, Some(&ca));
    exercise(&servers, Some(&ca));
    for row in said(&members(&servers[0], &ca))["data"].as_array().unwrap() {
        let via = if row["name"] == "n0" { json!(null) } else { json!("wss") };
        assert_eq!(row["via"], via, "{row}");
    }
    // It comes back where it was, and is found there.
    servers[2].kill();
    let status = |server: &Server, status| {
        let listed = said(&members(server, &ca));
        let row = listed["data"].as_array().unwrap().iter().find(|row| row["name"] == "n2").cloned();
        row.is_some_and(|row| row["status"] == status)
    };
    wait_for("n2 is failed", Duration::from_secs(60), || status(&servers[0], "failed").then_some(()));
    servers[2].spawn();
    for at in [0, 1] {
        wait_for("n2 is back", START_TIMEOUT + JOIN_TIMEOUT, || status(&servers[at], "alive").then_some(()));
    }
    let config = servers[2].config();
    let get = ["doc", "get", "users/of-n0", "--json", "--config", text(&config)];
    wait_for("n2 answers", START_TIMEOUT, || knot(&get, Some(&ca)).status.success().then_some(()));
}

fn members(server: &Server, ca: &Path) -> Output {
    knot(&["cluster", "members", "--json", "--config", text(&server.config())], Some(ca))
}
