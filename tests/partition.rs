//! Real servers on a network that is cut: each in a network namespace of its own, with clients that reach them all
//! throughout. Where the machine does not allow namespaces (they need root and `ip`) this says so and checks nothing.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::cluster::{self, HEAL_TIMEOUT, statuses, wait_for_status, wait_until_equal, wait_until_reads};
use support::load::{self, Bounds, Load};
use support::netns::Net;
use support::{Cluster, Server, Setup, say};

/// How long all servers are cut off from each other.
const PARTITION: Duration = Duration::from_secs(60);
/// How long one server cannot be heard by another.
const ONE_WAY: Duration = Duration::from_secs(20);
/// How long all are cut off and back before any counts another as failed: what was sent into their streams is then sent
/// again less and less often.
const SHORT: Duration = Duration::from_secs(14);
/// How long a server that is cut off may take to count the others as failed.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(45);
/// How long some acknowledged edits may take.
const EDITS_TIMEOUT: Duration = Duration::from_secs(20);
const CLUSTER_PORT: u16 = 3100;
const HTTP_PORT: u16 = 3000;
const ZONES: [&str; 3] = ["au", "gb", "us"];
const MERGE: &str = "application/merge-patch+json";

const BOUNDS: Bounds = Bounds { edits: 6_000, time: Duration::from_secs(150), pause: Duration::from_millis(20) };

/// Runs `test` with a server in each of three namespaces, in a thread that is in the hub.
fn with_servers(name: &str, test: impl FnOnce(&Net, &mut [Server]) + Send) {
    let net = match Net::new(3) {
        Ok(net) => net,
        Err(why) => return say(&format!("SKIPPED {name}: no network namespaces here ({why})")),
    };
    let run = || {
        net.enter();
        let mut servers = cluster::start(setups(&net));
        test(&net, &mut servers);
    };
    let ended = std::thread::scope(|scope| scope.spawn(run).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

fn setups(net: &Net) -> Vec<Setup> {
    let mut setups = Setup::cluster(&ZONES);
    let addresses: Vec<String> = (0..3).map(|node| format!("{}:{CLUSTER_PORT}", net.cluster_address(node))).collect();
    for (node, setup) in (0..3).zip(&mut setups) {
        setup.host = net.client_address(node);
        setup.port = HTTP_PORT;
        setup.netns = Some(net.node(node));
        setup.extra = "[server.tls]\nuse_tls = false\n".to_owned();
        let Cluster { address, peers, .. } = setup.cluster.as_mut().unwrap();
        address.clone_from(&addresses[usize::from(node)]);
        peers.clone_from(&addresses);
    }
    setups
}

#[test]
fn all_sides_of_a_partition_take_writes_and_none_is_lost() {
    with_servers("the partition", |net, servers| {
        let (au, gb, us) = (servers[0].client(), servers[1].client(), servers[2].client());
        au.put("/api/documents/plans/trip", &json!({"to": "Rome", "days": 3})).expect(201);
        au.put("/api/documents/plans/old", &json!({"to": "Oslo"})).expect(201);
        wait_until_equal(&*servers, HEAL_TIMEOUT);
        let load = Load::start(servers, BOUNDS);
        load.wait_for_more(&[0, 1, 2], 10, EDITS_TIMEOUT);

        (0..3).for_each(|node| net.isolate(node));
        let cut = Instant::now();
        au.patch("/api/documents/plans/trip", MERGE, &json!({"to": "Pisa", "by": "train"})).expect(200);
        gb.patch("/api/documents/plans/trip", MERGE, &json!({"to": "Bari", "days": 4})).expect(200);
        us.patch("/api/documents/plans/old", MERGE, &json!({"note": "not this one"})).expect(200);
        gb.delete("/api/documents/plans/old").expect(200);
        au.put("/api/documents/plans/new", &json!({"from": {"au": true}})).expect(201);
        us.put("/api/documents/plans/new", &json!({"from": {"us": true}})).expect(201);
        for (server, other) in [(0, 1), (1, 2), (2, 0)] {
            wait_for_status(&servers[server], &servers[other].setup.name, "failed", NOTICE_TIMEOUT);
        }
        while cut.elapsed() < PARTITION {
            load.wait_for_more(&[0, 1, 2], 20, EDITS_TIMEOUT);
            for client in [&au, &gb, &us] {
                client.get("/readyz").expect(200);
            }
        }
        assert_eq!(us.get("/api/documents/plans/trip").json(), json!({"to": "Rome", "days": 3}), "the partition leaks");

        (0..3).for_each(|node| net.rejoin(node));
        let healed = Instant::now();
        let records = load.stop();
        wait_until_equal(&*servers, HEAL_TIMEOUT.saturating_sub(healed.elapsed()));
        let took = healed.elapsed();
        servers.iter().for_each(|server| load::check(&records, server));
        say(&format!(
            "a partition of {PARTITION:?}: {} edits, all roots equal {took:.1?} after it",
            load::total(&records)
        ));
        cluster::wait_until_alive(&*servers);

        let trip = au.get("/api/documents/plans/trip?conflicts=true").expect(200).json();
        assert_eq!((&trip["value"]["days"], &trip["value"]["by"]), (&json!(4), &json!("train")));
        assert_eq!(trip["conflicts"].as_array().unwrap().len(), 1, "{trip}");
        for client in [&gb, &us] {
            assert_eq!(client.get("/api/documents/plans/trip?conflicts=true").json(), trip);
            let old = client.get("/api/documents/plans/old?conflicts=true").expect(200).json();
            assert_eq!(old["revived"], json!(true), "an edit that the delete had not seen revives the document: {old}");
        }
        wait_until_reads(&*servers, "/api/documents/plans/old", &json!({"to": "Oslo", "note": "not this one"}));
        wait_until_reads(&*servers, "/api/documents/plans/new", &json!({"from": {"au": true, "us": true}}));
    });
}

#[test]
fn a_server_that_one_other_cannot_hear_is_not_failed_and_loses_nothing() {
    with_servers("the one-way partition", |net, servers| {
        let load = Load::start(servers, BOUNDS);
        load.wait_for_more(&[0, 1, 2], 10, EDITS_TIMEOUT);
        net.block(0, 1);
        let cut = Instant::now();
        servers[0].client().put("/api/documents/notes/unheard", &json!({"said": true})).expect(201);
        wait_until_reads(&*servers, "/api/documents/notes/unheard", &json!({"said": true}));
        say(&format!("what one server cannot send to another reached it through the third in {:.1?}", cut.elapsed()));
        while cut.elapsed() < ONE_WAY {
            load.wait_for_more(&[0, 1, 2], 20, EDITS_TIMEOUT);
            for server in &*servers {
                let statuses = statuses(&server.client()).unwrap();
                assert!(!statuses.values().any(|status| status == "failed"), "{}: {statuses:?}", server.setup.name);
            }
        }
        net.unblock(0, 1);
        let healed = Instant::now();
        let records = load.stop();
        wait_until_equal(&*servers, HEAL_TIMEOUT.saturating_sub(healed.elapsed()));
        let took = healed.elapsed();
        servers.iter().for_each(|server| load::check(&records, server));
        say(&format!(
            "{ONE_WAY:?} of one way only: {} edits, all roots equal {took:.1?} after it",
            load::total(&records)
        ));
        cluster::wait_until_alive(&*servers);
    });
}

#[test]
fn a_short_cut_heals_as_fast_as_a_long_one() {
    with_servers("the short partition", |net, servers| {
        let load = Load::start(servers, BOUNDS);
        load.wait_for_more(&[0, 1, 2], 10, EDITS_TIMEOUT);
        (0..3).for_each(|node| net.isolate(node));
        let cut = Instant::now();
        while cut.elapsed() < SHORT {
            load.wait_for_more(&[0, 1, 2], 10, EDITS_TIMEOUT);
        }
        (0..3).for_each(|node| net.rejoin(node));
        let healed = Instant::now();
        let records = load.stop();
        wait_until_equal(&*servers, HEAL_TIMEOUT.saturating_sub(healed.elapsed()));
        let took = healed.elapsed();
        servers.iter().for_each(|server| load::check(&records, server));
        say(&format!("a partition of {SHORT:?}: {} edits, all roots equal {took:.1?} after it", load::total(&records)));
        cluster::wait_until_alive(&*servers);
    });
}
