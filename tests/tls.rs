//! Clusters whose HTTP API runs with TLS, asked with the command line: certificates that servers make for themselves, and
//! certificates of an authority.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use support::cluster::{JOIN_TIMEOUT, SPREAD_TIMEOUT};
use support::{START_TIMEOUT, Server, Setup, wait_for};

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

/// An authority's certificate, and a chain and key that it has signed for loopback, as files.
fn authority(dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&params, &ca_key)).unwrap();
    (write("ca.pem", ca.pem()), write("chain.pem", leaf.pem()), write("chain.key", key.serialize_pem()))
}

#[test]
fn servers_with_certificates_of_an_authority_are_trusted_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, chain, key) = authority(dir.path());
    let mut setups = Setup::cluster(&["au", "gb", "us"]);
    for setup in &mut setups {
        setup.tls = Some(format!("use_tls = true\ncert_file = {:?}\nkey_file = {:?}", text(&chain), text(&key)));
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
}
