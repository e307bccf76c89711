//! A server is shut out of its cluster although it holds the key, and let in again.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::cluster::{
    self, HEAL_TIMEOUT, SPREAD_TIMEOUT, wait_for_status, wait_until_alive, wait_until_equal, wait_until_reads,
};
use support::{Reply, Server, Setup, wait_for};

/// How long a refused server may wait until it tries again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

fn post(server: &Server, path: &str, body: &Value) -> Reply {
    let json = ("Content-Type", "application/json");
    server.client().request("POST", path, &[json], Some(body.to_string().as_bytes()))
}

/// Waits until a server says that another refuses it, and returns since when it does.
fn refused(server: &Server, by: &Server) -> String {
    let address = &by.setup.cluster.as_ref().unwrap().address;
    wait_for("the one that is shut out says who refuses it", RETRY_TIMEOUT, || {
        let list = server.client().get("/api/cluster").json();
        let trouble = list["troubles"].as_array()?.iter().find(|trouble| trouble["address"] == **address)?.clone();
        let is_it = trouble["error"].as_str()?.contains("which was evicted from the cluster");
        is_it.then(|| trouble["since"].as_str().map(str::to_owned))?
    })
}

#[test]
fn an_evicted_server_is_refused_by_all_until_it_is_readmitted() {
    let mut servers = cluster::start(Setup::cluster(&["au", "gb", "us"]));
    let evict = json!({"name": "n2", "reason": "stolen"});
    let answer = post(&servers[0], "/api/cluster/evict", &evict).expect(200).json();
    assert_eq!((&answer["name"], &answer["status"]), (&json!("n2"), &json!("evicted")));
    let id = answer["id"].as_str().unwrap().to_owned();
    for server in &servers[..2] {
        wait_for_status(server, "n2", "evicted", SPREAD_TIMEOUT);
        assert_eq!(server.client().get("/api/cluster/status").json()["evicted"], json!([id]));
        let listed = server.client().get("/api/cluster?status=evicted").expect(200).json();
        assert_eq!((&listed["total"], &listed["data"][0]["name"]), (&json!(1), &json!("n2")));
        let others = server.client().get("/api/cluster?status=alive").expect(200).json();
        assert_eq!(others["total"], json!(2), "{others}");
    }
    wait_for("it is told", SPREAD_TIMEOUT, || servers[2].log().contains("evicted from the cluster").then_some(()));

    // Neither side hears of the other, nobody waits for it, and a restart of either changes nothing.
    servers[2].client().put("/api/documents/users/from-outside", &json!({"n": 1})).expect(201);
    servers[0].client().put("/api/documents/users/inside?w=1", &json!({"n": 2})).expect(201);
    servers[2].stop();
    servers[2].restart();
    let since = refused(&servers[2], &servers[1]);
    let refusals = || servers[1].log().matches("refused a server that was evicted").count();
    let before = refusals();
    wait_for("it tries again", RETRY_TIMEOUT, || (refusals() > before).then_some(()));
    assert_eq!(refused(&servers[2], &servers[1]), since, "it is the same trouble as before");
    servers[1].kill();
    servers[1].restart();
    wait_until_alive(&servers[..2]);
    assert_eq!(servers[1].client().get("/api/cluster/status").json()["evicted"], json!([id]));
    refused(&servers[2], &servers[1]);
    servers[2].client().get("/api/documents/users/inside").expect(404);
    for server in &servers[..2] {
        server.client().get("/api/documents/users/from-outside").expect(404);
        assert!(server.log().contains("refused a server that was evicted"), "{}", server.log());
    }

    let readmit = json!({"id": id});
    post(&servers[1], "/api/cluster/readmit", &readmit).expect(200);
    post(&servers[1], "/api/cluster/readmit", &readmit).expect(404);
    for server in &servers[..2] {
        wait_for_status(server, "n2", "alive", RETRY_TIMEOUT);
    }
    wait_until_reads(&servers, "/api/documents/users/from-outside", &json!({"n": 1}));
    wait_until_equal(&servers, HEAL_TIMEOUT);
}

#[test]
fn who_is_meant_has_to_be_clear() {
    let server = Server::start(Setup::cluster(&["au"]).remove(0));
    let ask = |path: &str, body: Value| post(&server, path, &body);
    let me = server.client().get("/api/cluster/status").json()["id"].clone();
    assert!(ask("/api/cluster/evict", json!({"id": me})).expect(409).text().contains("the server that you are asking"));
    ask("/api/cluster/evict", json!({"name": "nobody"})).expect(404);
    ask("/api/cluster/evict", json!({"name": "n1", "id": "00"})).expect(400);
    ask("/api/cluster/readmit", json!({"name": "nobody"})).expect(404);
    let own = server.client().put(&format!("/api/documents/knot.evicted/{}", me.as_str().unwrap()), &json!({}));
    assert!(own.expect(403).text().contains("the cluster's own"));
    // Whoever it is that has this id, it shall not come.
    let nobody = "00".repeat(16);
    ask("/api/cluster/evict", json!({"id": nobody})).expect(200);
    assert_eq!(server.client().get("/api/cluster/status").json()["evicted"], json!([nobody]));
    let listed = server.client().get("/api/cluster?status=evicted").expect(200).json();
    let [row] = &listed["data"].as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!((&row["id"], &row["status"], &row["name"]), (&json!(nobody), &json!("evicted"), &Value::Null));
    assert_eq!(server.client().get("/api/cluster").json()["total"], json!(2));
    ask("/api/cluster/readmit", json!({"id": nobody})).expect(200);
    assert_eq!(server.client().get("/api/cluster/status").json()["evicted"], json!([]));
}
