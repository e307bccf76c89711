//! Servers that reach each other by WebSocket inside TLS, through what stands in between, beside others that do not; and
//! certificates that will not do.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use support::authority::Authority;
use support::between::Between;
use support::cluster::{self, JOIN_TIMEOUT, member, wait_for_status, wait_until_equal, wait_until_reads};
use support::{Server, Setup, free_port, wait_for};

/// How long all may take to agree again after one was cut off.
const HEAL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a server that has fallen silent may count as alive.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(45);
/// What must not be seen by who stands in between.
const CANARIES: [&str; 3] = ["canary-in-a-key", "canary-in-a-value", "canary-in-a-name"];

/// What a server knows of another: how it speaks with it.
fn via(server: &Server, name: &str) -> Option<String> {
    member(&server.client(), name)?["via"].as_str().map(str::to_owned)
}

#[track_caller]
fn wait_for_via(server: &Server, name: &str, wanted: &[&str]) {
    let what = format!("{} speaks with {name} by one of {wanted:?}", server.setup.name);
    wait_for(&what, JOIN_TIMEOUT, || via(server, name).filter(|via| wanted.contains(&via.as_str())).map(drop));
}

fn trust(authority: &Authority) -> String {
    format!("[server.cluster.tls]\nca_file = {:?}\n", authority.file)
}

#[test]
fn a_proxy_that_ends_tls_and_takes_a_prefix_off_reads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let signed = authority.sign("gate", "127.0.0.1", |_| {});
    let mut setups = Setup::cluster(&["au", "gb"]);
    let proxies: Vec<Between> = setups
        .iter()
        .map(|setup| Between::ending_tls(&signed, "/gate/knot", (setup.host, setup.port).into()))
        .collect();
    let addresses: Vec<String> = proxies.iter().map(|proxy| format!("https://{}/gate/knot/", proxy.address)).collect();
    for (setup, address) in setups.iter_mut().zip(&addresses) {
        setup.extra = trust(&authority);
        let cluster = setup.cluster.as_mut().unwrap();
        (cluster.address, cluster.peers) = (address.clone(), addresses.clone());
    }
    setups[0].name = CANARIES[2].to_owned();
    let servers = cluster::start(setups);
    let path = format!("/api/documents/{}/a", CANARIES[0]);
    servers[0].client().put(&path, &json!({"text": CANARIES[1]})).expect(201);
    wait_until_reads(&servers, &path, &json!({"text": CANARIES[1]}));
    wait_for_via(&servers[1], CANARIES[2], &["wss"]);
    let seen: Vec<u8> = proxies.iter().flat_map(|proxy| proxy.seen.lock().unwrap().clone()).collect();
    assert!(seen.len() > 1_000, "it went through");
    for canary in CANARIES.iter().chain(&[support::KEY]) {
        let found = seen.windows(canary.len()).any(|window| window == canary.as_bytes());
        assert!(!found, "{canary} was seen in between");
    }
}

#[test]
fn servers_go_through_the_proxy_that_the_environment_names() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let signed = authority.sign("gate", "127.0.0.1", |_| {});
    let through = Between::connecting();
    let mut setups = Setup::cluster(&["au", "gb"]);
    let gates: Vec<Between> =
        setups.iter().map(|setup| Between::ending_tls(&signed, "", (setup.host, setup.port).into())).collect();
    let addresses: Vec<String> = gates.iter().map(|gate| format!("wss://{}", gate.address)).collect();
    for (setup, address) in setups.iter_mut().zip(&addresses) {
        setup.extra = trust(&authority);
        setup.variables.push(("HTTPS_PROXY", format!("http://user:word@{}", through.address)));
        let cluster = setup.cluster.as_mut().unwrap();
        (cluster.address, cluster.peers) = (address.clone(), addresses.clone());
    }
    let servers = cluster::start(setups);
    servers[1].client().put("/api/documents/users/a", &json!({"n": 1})).expect(201);
    wait_until_reads(&servers, "/api/documents/users/a", &json!({"n": 1}));
    assert!(!through.seen.lock().unwrap().is_empty(), "they went around it");
    drop(through);
    wait_for("who lost the proxy says so", JOIN_TIMEOUT, || {
        let list = servers[0].client().get("/api/cluster").json().to_string();
        list.contains("that HTTPS_PROXY names").then_some(())
    });
}

#[test]
fn some_by_tcp_and_udp_one_by_wss_alone_and_one_by_both_are_one_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let signed = authority.sign("gate", "127.0.0.1", |_| {});
    let mut setups = Setup::cluster(&["au", "gb", "us", "us"]);
    let gates: Vec<Between> =
        setups[2..].iter().map(|setup| Between::ending_tls(&signed, "", (setup.host, setup.port).into())).collect();
    let addresses: Vec<String> = gates.iter().map(|gate| format!("wss://{}", gate.address)).collect();
    // n0 and n1 by TCP and UDP, n2 by wss, n3 by both.
    setups[2].cluster.as_mut().unwrap().address.clone_from(&addresses[0]);
    setups[3].cluster.as_mut().unwrap().also = Some(addresses[1].clone());
    let peers = vec![addresses[1].clone(), setups[3].cluster.as_ref().unwrap().address.clone()];
    for setup in &mut setups {
        setup.extra = trust(&authority);
        setup.cluster.as_mut().unwrap().peers.clone_from(&peers);
    }
    let servers = cluster::start(setups);
    wait_for_via(&servers[0], "n1", &["tcp+udp"]);
    // n2 has no address for n0 to send datagrams to; which of them opened the stream is chance.
    wait_for_via(&servers[0], "n2", &["wss", "tcp"]);
    wait_for_via(&servers[1], "n3", &["tcp+udp", "wss+udp"]);
    for (at, server) in servers.iter().enumerate() {
        let name = &server.setup.name;
        let others: Vec<&Server> = servers.iter().filter(|other| other.setup.name != *name).collect();
        server.signal("STOP");
        for other in &others {
            wait_for_status(other, name, "failed", NOTICE_TIMEOUT);
            let path = format!("/api/documents/cut/{at}-{}?w=2", other.setup.name);
            other.client().put(&path, &json!({"without": name})).expect(201);
        }
        server.signal("CONT");
        wait_until_equal(&servers, HEAL_TIMEOUT);
        for other in &others {
            wait_for_status(other, name, "alive", HEAL_TIMEOUT);
        }
    }
}

#[test]
fn whoever_cannot_be_trusted_is_named_with_what_would_help() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(dir.path(), "ours"), Authority::new(dir.path(), "theirs"));
    let to = ([127, 0, 0, 1], free_port()).into();
    let gate = |signed| Between::ending_tls(&signed, "", to);
    let expired = gate(ours.sign("expired", "127.0.0.1", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)));
    let misnamed = gate(ours.sign("misnamed", "knot1.internal", |_| {}));
    let unknown = gate(theirs.sign("unknown", "127.0.0.1", |_| {}));
    let mut other = Setup::cluster(&["gb"]).remove(0);
    other.cluster.as_mut().unwrap().keys = vec!["NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl".to_owned()];
    other.name = "holds-another-key".to_owned();
    let other = Server::start(other);
    let closed = format!("127.0.0.1:{}", free_port());
    let mut alone = Setup::cluster(&["au"]).remove(0);
    alone.extra = trust(&ours);
    let another_key = other.setup.cluster.as_ref().unwrap().address.clone();
    let at = |gate: &Between| format!("wss://{}", gate.address);
    let expected = [
        (at(&expired), "its certificate has expired"),
        (at(&misnamed), "its certificate is not for `127.0.0.1` but for"),
        (at(&unknown), "`ca_file` in [server.cluster.tls]"),
        (another_key, "does it hold the same key"),
        (closed, "refused"),
    ];
    alone.cluster.as_mut().unwrap().peers = expected.iter().map(|(address, _)| address.clone()).collect();
    let alone = Server::start(alone);
    let list = || {
        let args = ["cluster", "members", "--config", alone.config().to_str().unwrap()].map(str::to_owned);
        let output = Command::new(env!("CARGO_BIN_EXE_knot")).args(args).env_clear().current_dir("/").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for (address, why) in expected {
        wait_for(&format!("{address} is named with {why}"), JOIN_TIMEOUT, || {
            let list = list();
            let line = list.lines().find(|line| line.starts_with(&format!("no stream with {address} since ")))?;
            assert!(line.contains(why), "{line}");
            Some(())
        });
    }
    // Who holds the other key is told as well, and so is its log.
    wait_for("the other says whom it refused", JOIN_TIMEOUT, || {
        let list = other.client().get("/api/cluster").json();
        let trouble = list["troubles"].as_array()?.iter().find(|trouble| trouble["address"] == "127.0.0.1")?.clone();
        trouble["error"].as_str()?.contains("key").then_some(())
    });
    assert!(other.log().contains("holds another cluster key"), "{}", other.log());
}

#[test]
fn a_pinned_certificate_is_taken_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = Authority::new(dir.path(), "nobody-knows");
    let (meant, other) = (nobody.sign("meant", "a.internal", |_| {}), nobody.sign("other", "b.internal", |_| {}));
    let mut setups = Setup::cluster(&["au", "gb"]);
    let gate = |signed, setup: &Setup| Between::ending_tls(signed, "", (setup.host, setup.port).into());
    let gates = [gate(&meant, &setups[1]), gate(&other, &setups[1])];
    let addresses = gates.each_ref().map(|gate| format!("wss://{}", gate.address));
    setups[0].cluster.as_mut().unwrap().peers = vec![addresses[1].clone()];
    setups[1].cluster.as_mut().unwrap().address.clone_from(&addresses[0]);
    setups[1].cluster.as_mut().unwrap().peers.clear();
    let [asked, answering] = setups.try_into().unwrap();
    let answering = Server::start(answering);
    let mut asking = Server::start(asked);
    let fingerprint = |server: &Server, address: &str| {
        wait_for("the certificate is refused", JOIN_TIMEOUT, || {
            let list = server.client().get("/api/cluster").json();
            let error =
                list["troubles"].as_array()?.iter().find(|trouble| trouble["address"] == address)?["error"].clone();
            error.as_str()?.rsplit(' ').next().map(str::to_owned)
        })
    };
    let of_other = fingerprint(&asking, &addresses[1]);
    let mut restart = |pin: &str, peer: &str| {
        asking.stop();
        asking.configure(|setup| {
            setup.extra = format!("[server.cluster.tls]\npins = [{pin:?}]\n");
            setup.cluster.as_mut().unwrap().peers = vec![peer.to_owned()];
        });
        asking.restart();
        fingerprint(&asking, peer)
    };
    let of_meant = restart(&of_other, &addresses[0]);
    assert_ne!(of_meant, of_other);
    asking.stop();
    asking.configure(|setup| setup.extra = format!("[server.cluster.tls]\npins = [{of_meant:?}]\n"));
    asking.restart();
    wait_for_via(&asking, &answering.setup.name, &["wss"]);
}
