//! One cluster key takes the place of another in servers that run, by SIGHUP.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use knot_engine::seal::ClusterKey;
use serde_json::json;
use support::cluster::{
    self, HEAL_TIMEOUT, JOIN_TIMEOUT, statuses, wait_for_status, wait_until_alive, wait_until_equal,
};
use support::{Client, Server, Setup, say, wait_for};

const OLD: &str = "0123456789abcdefghijklmnopqrstuv";
const NEW: &str = "NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl";
/// Between two writes, which go on all through a test and are not to load the machine.
const PAUSE: Duration = Duration::from_millis(5);

/// Gives a server these keys while it runs, and waits until it holds them.
fn give(server: &mut Server, keys: &[&str]) {
    configure(server, keys);
    server.signal("HUP");
    let ids: Vec<String> = keys.iter().map(|key| ClusterKey::new(key).unwrap().id().to_string()).collect();
    let client = server.client();
    wait_for("the keys are held", JOIN_TIMEOUT, || {
        let status = client.get("/api/cluster/status").expect(200).json();
        (status["keys"] == json!(ids)).then_some(())
    });
}

fn configure(server: &mut Server, keys: &[&str]) {
    let keys = keys.iter().map(|&key| key.to_owned()).collect();
    server.configure(|setup| setup.cluster.as_mut().unwrap().keys = keys);
}

/// Writes that each have to be answered as durable; most of them by one more server too, but for those that are on their
/// way while a stream changes keys. Returns how many those were.
fn write_on(client: Client, writer: usize, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> usize {
    let mut alone = 0;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let path = format!("/api/documents/rotation/w{writer}-{number}?w=1&timeout=500");
        let reply = client.put(&path, &json!({"n": number}));
        assert!([201, 202].contains(&reply.status), "{}", reply.text());
        alone += usize::from(reply.status == 202);
        done.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
    }
    alone
}

#[test]
fn a_key_is_replaced_under_load_with_a_server_down_throughout() {
    let mut setups = Setup::cluster(&["au", "gb", "us"]);
    setups.iter_mut().for_each(|setup| setup.cluster.as_mut().unwrap().keys = vec![OLD.to_owned()]);
    let mut servers = cluster::start(setups);
    servers[2].kill();
    wait_for_status(&servers[0], "n2", "failed", Duration::from_secs(30));
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let (client, stop, done) = (servers[writer].client(), stop.clone(), done.clone());
            std::thread::spawn(move || write_on(client, writer, stop, done))
        })
        .collect();
    for keys in [&[OLD, NEW][..], &[NEW, OLD]] {
        for server in &mut servers[..2] {
            give(server, keys);
            let before = done.load(Ordering::Relaxed);
            wait_for("writes go on", JOIN_TIMEOUT, || (done.load(Ordering::Relaxed) > before + 50).then_some(()));
        }
    }
    // It was away for all that, and holds the old key alone.
    servers[2].restart();
    wait_until_alive(&servers);
    give(&mut servers[2], &[NEW, OLD]);
    for server in &mut servers {
        give(server, &[NEW]);
    }
    stop.store(true, Ordering::Relaxed);
    let alone: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    wait_until_alive(&servers);
    let took = wait_until_equal(&servers, HEAL_TIMEOUT);
    let writes = done.load(Ordering::Relaxed);
    for server in &servers {
        let held = cluster::documents(&server.client(), "rotation").len();
        assert_eq!(held, writes, "every write that was answered is there");
    }
    assert!(alone * 20 < writes, "{alone} of {writes} writes waited in vain for a second server");
    say(&format!(
        "{writes} writes answered while a key was replaced, {alone} of them before a second server held them; equal after {took:.1?}"
    ));
}

#[test]
fn a_straggler_is_refused_and_both_sides_say_why() {
    let mut setups = Setup::cluster(&["au", "gb"]);
    setups.iter_mut().for_each(|setup| setup.cluster.as_mut().unwrap().keys = vec![NEW.to_owned(), OLD.to_owned()]);
    let mut servers = cluster::start(setups);
    configure(&mut servers[1], &[OLD]);
    servers[1].stop();
    servers[1].restart();
    wait_until_alive(&servers);
    // The stream was opened under the old key; it does not outlive it.
    give(&mut servers[0], &[NEW]);
    wait_for("it is seen as gone", Duration::from_secs(30), || {
        let status = statuses(&servers[0].client())?.get("n1").cloned()?;
        (status != "alive").then_some(())
    });
    let says = |server: &Server, what: &str| {
        wait_for(what, Duration::from_secs(30), || server.log().contains(what).then_some(()));
    };
    says(&servers[0], "refused a server that holds another cluster key");
    says(&servers[1], "does it hold the same key");
}

#[test]
fn a_configuration_that_is_wrong_changes_nothing() {
    let mut servers = cluster::start(Setup::cluster(&["au", "gb"]));
    configure(&mut servers[0], &["short", NEW]);
    servers[0].signal("HUP");
    wait_for("the error is logged", JOIN_TIMEOUT, || {
        let log = servers[0].log();
        (log.contains("the configuration stays as it was") && log.contains("has 5 bytes")).then_some(())
    });
    assert!(!servers[0].log().contains(NEW), "a log is read by more people than a key is for");
    wait_until_alive(&servers);
    servers[0].configure(|setup| {
        setup.cluster.as_mut().unwrap().keys = vec![OLD.to_owned()];
        setup.zone = "us".to_owned();
    });
    servers[0].signal("HUP");
    wait_for("what needs a restart is said", JOIN_TIMEOUT, || {
        servers[0].log().contains("that need a restart").then_some(())
    });
}

/// Runs `knot cluster keys …` on the machine of a server.
fn keys(server: &Server, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knot"));
    command.args(["cluster", "keys"]).args(arguments).arg("--config").arg(server.config());
    command.env_clear().current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn expect_refusal(output: &Output, code: i32, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "{words:?} is not in {said}");
}

#[test]
fn a_key_is_replaced_by_the_command_line_without_a_restart() {
    let mut servers = cluster::start(Setup::cluster(&["au", "gb"]));
    let id = |key: &str| ClusterKey::new(key).unwrap().id().to_string();
    let (old, new) = (support::KEY.to_owned(), said(&keys(&servers[0], &["add"], "")).trim().to_owned());
    said(&keys(&servers[1], &["add", "-"], &format!("{new}\n")));
    expect_refusal(&keys(&servers[0], &["remove", &id(&old)], ""), 2, "n1 still speak with this server");
    expect_refusal(&keys(&servers[0], &["remove", "--force", &id(&old)], ""), 2, "promote another one first");
    expect_refusal(&keys(&servers[0], &["promote", "00000000"], ""), 2, &id(&new));
    for server in &servers {
        said(&keys(server, &["promote", &id(&new)], ""));
    }
    // A stream keeps the key that it began with until it is opened again.
    servers[1].kill();
    wait_for_status(&servers[0], "n1", "failed", Duration::from_secs(30));
    servers[1].restart();
    wait_until_alive(&servers);
    for server in &servers {
        wait_for("nobody speaks under the old one", JOIN_TIMEOUT, || {
            let removed = keys(server, &["remove", &id(&old)], "");
            removed.status.success().then_some(())
        });
        assert_eq!(said(&keys(server, &["list", "--json"], "")).matches(&id(&new)).count(), 1);
        let file = std::fs::read_to_string(server.config()).unwrap();
        assert!(file.contains(&new) && !file.contains(&old), "{file}");
    }
    servers[0].client().put("/api/documents/users/a?w=1", &json!({"n": 1})).expect(201);

    servers[0].stop();
    expect_refusal(&keys(&servers[0], &["add"], ""), 3, "is changed, but the server does not know yet");
    servers[0].restart();
    wait_until_alive(&servers);
    assert_eq!(said(&keys(&servers[0], &["list"], "")).lines().count(), 3, "it took the new one over when it started");
}

#[test]
fn commands_at_once_lose_no_key() {
    // One is held already, and eight may be.
    const AT_ONCE: usize = 7;
    let server = cluster::start(Setup::cluster(&["au"])).remove(0);
    let added: Vec<String> = std::thread::scope(|scope| {
        let adding: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| said(&keys(&server, &["add"], "")))).collect();
        adding.into_iter().map(|one| one.join().unwrap().trim().to_owned()).collect()
    });
    let file = std::fs::read_to_string(server.config()).unwrap();
    for key in &added {
        assert!(file.contains(key), "{key} is not in {file}");
    }
    let held = server.client().get("/api/cluster/status").expect(200).json()["keys"].clone();
    assert_eq!(held.as_array().unwrap().len(), 1 + AT_ONCE, "{held}");
}
