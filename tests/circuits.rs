//! Two servers that find no way to each other speak through a third, until there is one.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::authority::Authority;
use support::between::Between;
use support::cluster::{self, JOIN_TIMEOUT, member, wait_until_equal, wait_until_reads};
use support::{Server, Setup, free_port, say, wait_for};

/// How long two may take to find a third, and to find it again once it was gone.
const DETOUR_TIMEOUT: Duration = Duration::from_secs(40);
/// How long they may take to leave it once there is a straight way: it is tried every minute at least.
const STRAIGHT_TIMEOUT: Duration = Duration::from_secs(75);

/// By which way a server speaks with another, and through whom.
fn way(server: &Server, name: &str) -> Option<(Value, Value)> {
    let member = member(&server.client(), name)?;
    Some((member["via"].clone(), member["through"].clone()))
}

#[track_caller]
fn wait_for_way(server: &Server, name: &str, wanted: (Value, Value), timeout: Duration) -> Duration {
    let begun = Instant::now();
    let what = format!("{} speaks with {name} by {wanted:?}", server.setup.name);
    wait_for(&what, timeout, || way(server, name).filter(|way| *way == wanted).map(drop));
    begun.elapsed()
}

fn carried(server: &Server) -> u64 {
    let queues = server.client().get("/api/cluster/status").json()["queues"].clone();
    let carried = queues.as_array().unwrap().iter().find(|queue| queue["name"] == "circuits_carried").unwrap().clone();
    carried["depth"].as_u64().unwrap()
}

#[test]
fn what_two_cannot_say_to_each_other_a_third_carries() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| Authority::new(dir.path(), name));
    let mut setups = Setup::cluster(&["au", "gb", "us"]);
    let port = |setup: &Setup| (setup.host, setup.port).into();
    // n0 trusts what `one` signs, n1 what `two` signs, n2 both. Nobody but n2 trusts n0, and the way to n1 is closed yet.
    let door = ([127, 0, 0, 1], free_port()).into();
    let gates = [
        Between::ending_tls(&one.sign("n0", "127.0.0.1", |_| {}), "", port(&setups[0])),
        Between::ending_tls(&one.sign("n1", "127.0.0.1", |_| {}), "", door),
    ];
    let addresses = gates.each_ref().map(|gate| format!("wss://{}", gate.address));
    let both = dir.path().join("both.pem");
    fs::write(&both, [fs::read(&one.file).unwrap(), fs::read(&two.file).unwrap()].concat()).unwrap();
    let in_the_open = setups[2].cluster.as_ref().unwrap().address.clone();
    for (at, trusted) in [&one.file, &two.file, &both].into_iter().enumerate() {
        setups[at].extra = format!("[server.cluster.tls]\nca_file = {trusted:?}\n");
        let cluster = setups[at].cluster.as_mut().unwrap();
        cluster.peers = vec![in_the_open.clone()];
        if let Some(address) = addresses.get(at) {
            cluster.address.clone_from(address);
        }
    }
    let to = port(&setups[1]);
    let mut servers = cluster::start(setups);
    let through = (json!("circuit"), json!("n2"));
    for (server, other) in [(&servers[0], "n1"), (&servers[1], "n0")] {
        wait_for_way(server, other, through.clone(), DETOUR_TIMEOUT);
    }
    // Each is told by the other itself that it holds what the first wrote: the third counts once.
    for (at, server) in servers[..2].iter().enumerate() {
        let path = format!("/api/documents/ways/{at}?w=2");
        server.client().put(&path, &json!({"by": at})).expect(201);
    }
    let large = json!({"text": "a".repeat(600_000)});
    servers[0].client().put("/api/documents/ways/large?w=2", &large).expect(201);
    wait_until_reads(&servers, "/api/documents/ways/large", &large);
    assert!(carried(&servers[2]) > 0);

    servers[2].kill();
    servers[0].client().put("/api/documents/ways/alone", &json!({"n": 1})).expect(201);
    servers[2].restart();
    for (server, other) in [(&servers[0], "n1"), (&servers[1], "n0")] {
        wait_for_way(server, other, through.clone(), DETOUR_TIMEOUT);
    }
    wait_until_equal(&servers, JOIN_TIMEOUT);

    let _open = Between::passing(door, to);
    let took = wait_for_way(&servers[0], "n1", (json!("wss"), Value::Null), STRAIGHT_TIMEOUT);
    say(&format!("a straight way was taken {took:.1?} after it had opened"));
    wait_for_way(&servers[1], "n0", (json!("wss"), Value::Null), JOIN_TIMEOUT);
    wait_for("nobody carries for anybody", JOIN_TIMEOUT, || (carried(&servers[2]) == 0).then_some(()));
    servers[1].client().put("/api/documents/ways/straight?w=2", &json!({"n": 2})).expect(201);
}
