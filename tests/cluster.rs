//! Clusters of real servers on loopback: what they share, and what they do when one stops, crashes, moves or lies.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::cluster::{
    self, HEAL_TIMEOUT, JOIN_TIMEOUT, SPREAD_TIMEOUT, member, members, statuses, wait_for_status, wait_until_alive,
    wait_until_answers, wait_until_equal, wait_until_reads,
};
use support::load::{self, Bounds, Load};
use support::{Client, Cluster, Server, Setup, free_port, say, wait_for};

const ZONES: [&str; 3] = ["au", "gb", "us"];
const MERGE: &str = "application/merge-patch+json";
const INCREMENT: &str = "application/vnd.knot.increment+json";
/// How long the others may take to see a server leave that was asked to stop.
const LEFT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long they may take to see a crash. It takes 3 s where the host refuses reconnection; this machine is busy.
const FAILED_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the server is killed that is killed under load.
const KILLS: usize = 10;
/// Documents that an empty server has to catch up on.
const DOCUMENTS: usize = 1_500;

fn three() -> Vec<Server> {
    cluster::start(Setup::cluster(&ZONES))
}

fn force_leave(client: &Client, body: &Value) -> support::Reply {
    client.request("DELETE", "/api/cluster", &[], Some(body.to_string().as_bytes()))
}

/// What became of a server as another saw it, the first step first.
fn timeline(client: &Client, name: &str) -> Vec<Value> {
    let answer = client.get(&format!("/api/cluster/timeline?name={name}")).expect(200).json();
    let mut steps = answer["data"].as_array().unwrap().clone();
    assert!(steps.iter().all(|step| step["name"] == json!(name)) && answer["total"] == json!(steps.len()), "{answer}");
    steps.reverse();
    steps
}

/// Every file under `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn holds(dir: &Path, words: &str) -> bool {
    let within = |bytes: Vec<u8>| bytes.windows(words.len()).any(|window| window == words.as_bytes());
    files(dir).iter().any(|file| within(fs::read(file).unwrap()))
}

#[test]
fn servers_started_at_once_find_each_other_and_share_every_write() {
    let servers = three();
    for (index, server) in servers.iter().enumerate() {
        let path = format!("/api/documents/users/u{index}");
        let value = json!({"written_on": server.setup.name, "nested": {"list": [1, 2.5, null, "three"]}});
        server.client().put(&path, &value).expect(201);
        wait_until_reads(&servers, &path, &value);
    }
    wait_until_equal(&servers, SPREAD_TIMEOUT);

    for server in &servers {
        let client = server.client();
        // The round trips to both others are known after a probe of each.
        let rows = wait_for("round trips are known", JOIN_TIMEOUT, || {
            let rows = members(&client)?;
            (rows.iter().filter(|row| row["rtt_ms"].is_number()).count() >= 2).then_some(rows)
        });
        assert_eq!(client.get("/api/cluster").json()["total"], json!(3));
        for (row, other) in
            rows.iter().map(|row| (row, servers.iter().find(|other| row["name"] == other.setup.name).unwrap()))
        {
            assert_eq!(row["id"], other.client().get("/api/cluster/status").json()["id"]);
            assert_eq!((&row["zone"], &row["status"]), (&json!(other.setup.zone), &json!("alive")));
            assert_eq!(row["address"], json!(other.setup.cluster.as_ref().unwrap().address));
            assert_eq!(row["version"], json!(env!("CARGO_PKG_VERSION")));
            if row["name"] != server.setup.name {
                let [ahead, within] = ["clock_ahead_ms", "clock_within_ms"].map(|name| row[name].as_f64().unwrap());
                assert!(ahead.abs() <= within, "they have one clock: {row}");
            }
            assert!(row["incarnation"].is_string() && row["last_seen"].as_str().unwrap().ends_with('Z'), "{row}");
        }
        let status = client.get("/api/cluster/status").expect(200).json();
        assert_eq!(status["members"], json!({"alive": 3, "suspect": 0, "failed": 0, "left": 0}));
    }
}

#[test]
fn a_token_that_is_there_is_used_and_nobody_else_can_read_the_data() {
    let servers = three();
    for server in &servers {
        let client = server.client().with_token(Some("a-token-that-all-of-them-share"));
        client.put("/api/documents/users/ann", &json!({"on": server.setup.name}));
        client.get("/api/documents/users/ann").expect(200);
        client.with_token(Some("another")).get("/api/documents/users/ann").expect(401);
    }
    #[cfg(unix)]
    for server in &servers {
        use std::os::unix::fs::PermissionsExt;
        let written = files(&server.data_dir()).into_iter().filter(|file| !file.ends_with("admin.token"));
        for file in written {
            let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{} has mode {mode:o}", file.display());
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_a_server_is_killed_ten_times() {
    let mut servers = three();
    let load =
        Load::start(&servers, Bounds { edits: 4_000, time: Duration::from_secs(100), pause: Duration::from_millis(4) });
    let victim = 1;
    for _ in 0..KILLS {
        load.wait_for_more(&[0, 1, 2], 20, Duration::from_secs(30));
        servers[victim].kill();
        load.wait_for_more(&[0, 2], 10, Duration::from_secs(30));
        servers[victim].restart();
    }
    load.wait_for_more(&[victim], 20, Duration::from_secs(30));
    let records = load.stop();
    let took = wait_until_equal(&servers, HEAL_TIMEOUT);
    servers.iter().for_each(|server| load::check(&records, server));
    let edits = load::total(&records);
    say(&format!(
        "{KILLS} kills under load: {edits} acknowledged edits, all roots equal {took:.1?} after the last one"
    ));
    wait_until_alive(&servers);
}

#[test]
fn an_empty_server_joins_by_one_seed_and_catches_up() {
    let setups = Setup::cluster(&["au", "gb", "us", "nz"]);
    let (mut founders, mut newcomer) = (setups[..3].to_vec(), setups[3].clone());
    let known: Vec<String> = founders.iter().map(|setup| setup.cluster.as_ref().unwrap().address.clone()).collect();
    founders.iter_mut().for_each(|setup| setup.cluster.as_mut().unwrap().peers.clone_from(&known));
    newcomer.cluster.as_mut().unwrap().peers = vec![known[2].clone()];

    let mut servers = cluster::start(founders);
    let writers = servers.iter().map(Server::client).enumerate();
    std::thread::scope(|scope| {
        for (writer, client) in writers {
            scope.spawn(move || {
                for n in (writer..DOCUMENTS).step_by(3) {
                    client
                        .put(&format!("/api/documents/many/{n:05}"), &json!({"n": n, "text": "some text to carry"}))
                        .expect(201);
                }
            });
        }
    });
    servers[0].client().delete("/api/documents/many/00000").expect(200);
    wait_until_equal(&servers, SPREAD_TIMEOUT);

    let started = Instant::now();
    servers.push(Server::start(newcomer));
    wait_until_equal(&servers, JOIN_TIMEOUT);
    say(&format!("an empty server has caught up on {DOCUMENTS} documents {:.1?} after its start", started.elapsed()));
    wait_until_alive(&servers);
    let held = cluster::documents(&servers[3].client(), "many");
    assert_eq!(held.len(), DOCUMENTS - 1);
    assert!(held.iter().all(|(key, value)| key.parse() == Ok(value["n"].as_u64().unwrap())), "{held:?}");
    servers[3].client().get("/api/documents/many/00000").expect(410);
    servers[3].client().put("/api/documents/many/new", &json!({"from": "nz"})).expect(201);
    wait_until_reads(&servers, "/api/documents/many/new", &json!({"from": "nz"}));
}

#[test]
fn a_server_with_another_key_is_never_listed_and_the_reason_is_logged_once() {
    let mut setups = Setup::cluster(&ZONES);
    setups[2].cluster.as_mut().unwrap().keys = vec!["vutsrqponmlkjihgfedcba9876543210".to_owned()];
    let mut stranger = Server::prepare(setups.pop().unwrap());
    let servers = cluster::start(setups);
    let started = Instant::now();
    stranger.restart();
    stranger.client().put("/api/documents/users/eve", &json!({"from": "outside"})).expect(201);
    let refusals = |server: &Server| server.log().lines().filter(|line| line.contains("another cluster key")).count();
    for server in &servers {
        wait_for("the reason is logged", JOIN_TIMEOUT, || (refusals(server) > 0).then_some(()));
    }
    // Both sides try each other again every few seconds; the line comes once in ten, with what it stands for.
    wait_for("the stranger has tried again", Duration::from_secs(30), || {
        let suppressed = |server: &Server| {
            server.log().lines().any(|line| line.contains("another cluster key") && !line.contains("suppressed=0"))
        };
        servers.iter().all(suppressed).then_some(())
    });
    let most = 1 + usize::try_from(started.elapsed().as_secs()).unwrap() / 10;
    for server in &servers {
        assert!((2..=most).contains(&refusals(server)), "{} lines in {:?}", refusals(server), started.elapsed());
        assert_eq!(statuses(&server.client()).unwrap().len(), 2, "the stranger is not listed");
        server.client().get("/api/documents/users/eve").expect(404);
    }
    assert_eq!(statuses(&stranger.client()).unwrap().len(), 1, "the stranger lists nobody");
}

#[test]
fn a_stop_shows_as_left_a_crash_as_failed_and_both_come_back() {
    let mut servers = three();
    let name = servers[2].setup.name.clone();
    let id = member(&servers[0].client(), &name).unwrap()["id"].clone();

    let asked = Instant::now();
    servers[2].signal("TERM");
    for server in &servers[..2] {
        wait_for_status(server, &name, "left", LEFT_TIMEOUT.saturating_sub(asked.elapsed()));
    }
    assert!(servers[2].wait_for_exit().success(), "a stop that was asked for is no failure");
    servers[0].client().put("/api/documents/notes/while-away", &json!({"n": 1})).expect(201);
    servers[2].restart();
    wait_until_alive(&servers);
    wait_until_reads(&servers, "/api/documents/notes/while-away", &json!({"n": 1}));

    servers[2].kill();
    let seen =
        servers[..2].iter().map(|server| wait_for_status(server, &name, "failed", FAILED_TIMEOUT)).max().unwrap();
    say(&format!("a crash is listed as failed by all after {seen:.1?}"));
    servers[1].client().put("/api/documents/notes/while-dead", &json!({"n": 2})).expect(201);

    let address = format!("127.0.0.1:{}", free_port());
    servers[2].configure(|setup| {
        setup.port = free_port();
        setup.cluster.as_mut().unwrap().address.clone_from(&address);
    });
    servers[2].restart();
    wait_until_alive(&servers);
    for server in &servers {
        let moved = wait_for("the new address is listed", JOIN_TIMEOUT, || {
            member(&server.client(), &name).filter(|member| member["address"] == json!(address))
        });
        assert_eq!((&moved["id"], &moved["status"]), (&id, &json!("alive")));
        assert_eq!(members(&server.client()).unwrap().len(), 3);
    }
    wait_until_reads(&servers, "/api/documents/notes/while-dead", &json!({"n": 2}));
    wait_until_equal(&servers, SPREAD_TIMEOUT);

    let names: Vec<&str> = servers[..2].iter().map(|server| server.setup.name.as_str()).collect();
    for server in &servers[..2] {
        let steps = timeline(&server.client(), &name);
        // On a busy machine somebody may have been suspected who denied it.
        let is_lasting = |step: &&Value| step["to"] != "suspect" && step["evidence"] != "denied";
        let lasting: Vec<&Value> = steps.iter().filter(is_lasting).collect();
        let expected =
            [("alive", "met"), ("left", "goodbye"), ("alive", "started"), ("failed", "accused"), ("alive", "started")];
        let seen: Vec<_> =
            lasting.iter().filter_map(|step| Some((step["to"].as_str()?, step["evidence"].as_str()?))).collect();
        assert_eq!(seen, expected, "{steps:#?}");
        let failure = lasting[3];
        let by = failure["by"]["name"].as_str().unwrap();
        assert!(names.contains(&by) && failure["why"].as_str().unwrap().contains(by), "{failure:#}");
        assert!(failure["unheard_ms"].as_u64().is_some_and(|ms| ms < 60_000), "{failure:#}");
        assert_ne!(failure["refused"], json!([]), "the host of a killed process refuses: {failure:#}");
        assert!(timeline(&server.client(), &server.setup.name).is_empty(), "of itself there is nothing to tell");
    }
    servers[0].client().get("/api/cluster/timeline?name=nobody").expect_error(404, "no such member");
    servers[0].client().get("/api/cluster/timeline?name=a&id=b").expect_error(400, "name one server");
}

#[test]
fn a_failed_server_is_forced_out_and_a_live_one_only_on_insistence() {
    let mut servers = three();
    let (client, name) = (servers[0].client(), servers[2].setup.name.clone());
    force_leave(&client, &json!({"name": "nobody"})).expect_error(404, "no such member");
    force_leave(&client, &json!({"name": name})).expect_error(409, "force");
    servers[2].kill();
    wait_for_status(&servers[0], &name, "failed", FAILED_TIMEOUT);
    force_leave(&client, &json!({"name": name})).expect(200);
    for server in &servers[..2] {
        wait_for_status(server, &name, "left", SPREAD_TIMEOUT);
        let steps = timeline(&server.client(), &name);
        let last = steps.last().unwrap();
        let asked = &servers[0].setup.name;
        assert_eq!((&last["evidence"], &last["by"]["name"]), (&json!("taken_out"), &json!(asked)), "{last:#}");
        assert_eq!(last["why"], json!(format!("taken out by {asked}")));
    }
    let other = member(&client, &servers[1].setup.name).unwrap()["id"].clone();
    force_leave(&client, &json!({"id": other})).expect_error(409, "force");
    assert_eq!(force_leave(&client, &json!({"id": other, "force": true})).expect(200).json()["status"], json!("left"));
}

#[test]
fn a_server_that_was_forced_out_is_a_member_again_when_it_comes_back() {
    let mut servers = three();
    let (client, name) = (servers[0].client(), servers[2].setup.name.clone());
    let others = |servers: &[Server]| servers[..2].iter().map(Server::client).collect::<Vec<_>>();

    // It was the only one to hold this when it was given up.
    servers[..2].iter().for_each(|server| server.signal("STOP"));
    servers[2].client().put("/api/documents/notes/alone", &json!({"by": "the third"})).expect(201);
    servers[2].kill();
    servers[..2].iter().for_each(|server| server.signal("CONT"));
    wait_for_status(&servers[0], &name, "failed", FAILED_TIMEOUT);
    force_leave(&client, &json!({"name": name})).expect(200);
    for server in &servers[..2] {
        wait_for_status(server, &name, "left", SPREAD_TIMEOUT);
    }
    client.put("/api/documents/notes/without", &json!({"by": "the others"})).expect(201);
    servers[2].restart();
    wait_until_alive(&servers);
    wait_until_reads(&servers, "/api/documents/notes/alone", &json!({"by": "the third"}));
    wait_until_reads(&servers, "/api/documents/notes/without", &json!({"by": "the others"}));
    wait_until_equal(&servers, SPREAD_TIMEOUT);

    // One that runs denies it.
    let incarnation = |client: &Client| member(client, &name).unwrap()["incarnation"].clone();
    let before = incarnation(&client);
    force_leave(&client, &json!({"name": name, "force": true})).expect(200);
    for client in others(&servers) {
        wait_for("it denies that it left", SPREAD_TIMEOUT, || {
            let row = member(&client, &name)?;
            (row["status"] == "alive" && row["incarnation"] != before).then_some(())
        });
    }
    servers[2].client().put("/api/documents/notes/back?w=2&timeout=10000", &json!({})).expect(201);

    // One that was stopped in order is still expected back, and can be taken out by its name.
    assert!(servers[2].stop().success());
    wait_for_status(&servers[0], &name, "left", LEFT_TIMEOUT);
    force_leave(&client, &json!({"name": name})).expect(200);
    force_leave(&client, &json!({"name": name})).expect(200);
    assert_eq!(member(&client, &name).unwrap()["status"], json!("left"));
    servers[2].restart();
    wait_until_alive(&servers);
    wait_until_equal(&servers, SPREAD_TIMEOUT);
}

#[test]
fn a_write_waits_for_as_many_others_as_it_asks_for() {
    let mut servers = three();
    let client = servers[0].client();
    let created = client.put("/api/documents/notes/a?w=2&timeout=10000", &json!({"n": 1})).expect(201);
    assert!(created.json()["held_by"].as_u64() >= Some(2), "{}", created.text());
    client.put("/api/documents/notes/a?w=2&timeout=10000", &json!({"n": 2})).expect(200);
    for server in &servers[1..] {
        assert_eq!(server.client().get("/api/documents/notes/a").expect(200).json(), json!({"n": 2}));
    }
    servers[2].kill();
    client.put("/api/documents/notes/a?w=1&timeout=10000", &json!({"n": 3})).expect(200);
    client.put("/api/documents/notes/a?w=2&timeout=300", &json!({"n": 4})).expect(202);
    servers[1].kill();
    let late = client.put("/api/documents/notes/a?w=2&timeout=300", &json!({"n": 5})).expect(202);
    assert_eq!(late.json()["held_by"], json!(0));
    servers[1..].iter_mut().for_each(Server::restart);
    wait_until_reads(&servers, "/api/documents/notes/a", &json!({"n": 5}));
    client.put("/api/documents/notes/a?w=2&timeout=20000", &json!({"n": 6})).expect(200);
}

/// Adds to `/n` on every server at once.
fn add_everywhere(servers: &[Server], path: &str, amounts: [i64; 3]) {
    let starting = std::sync::Barrier::new(servers.len());
    std::thread::scope(|scope| {
        for (server, by) in servers.iter().zip(amounts) {
            let (client, starting) = (server.client(), &starting);
            scope.spawn(move || {
                starting.wait();
                let done = client.patch(path, INCREMENT, &json!({"pointer": "/n", "by": by}));
                assert!(matches!(done.status, 200 | 201), "{} {}", done.status, done.text());
            });
        }
    });
}

#[test]
fn a_counter_that_was_made_once_adds_up() {
    let servers = three();
    let client = servers[0].client();
    let path = "/api/documents/counters/visits";
    // As docs/http-api.md says to make one; the number before it is none.
    client.put(path, &json!({"n": 5})).expect(201);
    client.patch(&format!("{path}?w=2&timeout=10000"), INCREMENT, &json!({"pointer": "/n", "by": 0})).expect(200);
    add_everywhere(&servers, path, [1, 10, 100]);
    wait_until_reads(&servers, path, &json!({"n": 116}));
    // A PUT that leaves the value leaves the counter.
    client.put(&format!("{path}?w=2&timeout=10000"), &json!({"n": 116, "name": "visits"})).expect(200);
    add_everywhere(&servers, path, [-1, -10, -100]);
    wait_until_reads(&servers, path, &json!({"n": 5, "name": "visits"}));
}

#[test]
fn counters_that_were_made_apart_are_a_conflict_not_a_sum() {
    let mut servers = three();
    let path = "/api/documents/counters/visits";
    // Each is alone when it adds for the first time.
    servers.iter_mut().for_each(|server| assert!(server.stop().success()));
    for (index, by) in [1, 10, 100].into_iter().enumerate() {
        servers[index].restart();
        servers[index].client().patch(path, INCREMENT, &json!({"pointer": "/n", "by": by})).expect(201);
        assert!(servers[index].stop().success());
    }
    servers.iter_mut().for_each(Server::spawn);
    servers.iter_mut().for_each(Server::wait_until_ready);
    wait_until_alive(&servers);
    wait_until_equal(&servers, SPREAD_TIMEOUT);
    let shown = servers[0].client().get(&format!("{path}?conflicts=true")).expect(200).json();
    let mut values: Vec<i64> =
        shown["conflicts"][0]["values"].as_array().unwrap().iter().map(|v| v["value"].as_i64().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, [1, 10, 100]);
    // Later steps count in each of them.
    add_everywhere(&servers, path, [1_000, 10_000, 100_000]);
    let sum = shown["value"]["n"].as_i64().unwrap() + 111_000;
    wait_until_reads(&servers, path, &json!({ "n": sum }));
}

#[test]
fn a_document_of_a_zone_stays_in_it() {
    const CANARY: &str = "the-canary-that-never-flies-abroad";
    let servers = cluster::start(Setup::cluster(&["au", "au", "gb"]));
    let (inside, outside) = (&servers[..2], &servers[2]);
    let path = "/api/zones/au/documents/users/ann";
    inside[0].client().put(path, &json!({"secret": CANARY})).expect(201);
    inside[1].client().put("/api/documents/users/ann", &json!({"secret": "none"})).expect(201);
    wait_until_reads(inside, path, &json!({"secret": CANARY}));
    wait_until_reads(&servers, "/api/documents/users/ann", &json!({"secret": "none"}));

    let url = |server: &Server| format!("http://{}", server.address());
    for method in ["GET", "PUT", "DELETE"] {
        let body = (method == "PUT").then_some(b"{}".as_slice());
        let refused = outside.client().request(method, path, &[], body).expect_error(421, "zone au").json();
        let mut urls: Vec<&str> = refused["urls"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
        urls.sort_unstable();
        let mut wanted: Vec<String> = inside.iter().map(url).collect();
        wanted.sort_unstable();
        assert_eq!(urls, wanted);
    }
    // Repair has had its turn too once the edited document has passed through it.
    inside[0].client().patch(path, MERGE, &json!({"more": true})).expect(200);
    wait_until_reads(inside, path, &json!({"secret": CANARY, "more": true}));
    wait_until_equal(&servers, SPREAD_TIMEOUT);
    let scopes = cluster::scopes(&outside.client()).unwrap();
    assert!(!scopes.contains_key("zone:au"), "{scopes:?}");
    for server in inside {
        assert!(holds(&server.data_dir(), CANARY), "the canary is stored in the clear, or this test proves nothing");
    }
    assert!(!holds(&outside.data_dir(), CANARY), "the zone's document has left it");
}

#[test]
fn deletes_and_edits_on_several_servers_converge() {
    let servers = three();
    let clients: Vec<Client> = servers.iter().map(Server::client).collect();
    let path = |n: usize| format!("/api/documents/notes/{n}");
    for n in 0..30 {
        clients[n % 3].put(&path(n), &json!({"n": n, "by": "first"})).expect(201);
    }
    wait_until_equal(&servers, SPREAD_TIMEOUT);
    std::thread::scope(|scope| {
        for (index, client) in clients.iter().enumerate() {
            scope.spawn(move || {
                for n in 0..30 {
                    // Who comes after the delete is told 410; all that matters is that everybody ends up alike.
                    let reply = match (n + index) % 3 {
                        0 => client.delete(&path(n)),
                        1 => client.patch(&path(n), MERGE, &json!({format!("by{index}"): n})),
                        _ => client.put(&path(n), &json!({"n": n, "put_by": index})),
                    };
                    assert!(matches!(reply.status, 200 | 201 | 410), "{} {}", reply.status, reply.text());
                }
            });
        }
    });
    wait_until_equal(&servers, SPREAD_TIMEOUT);
    for n in 0..30 {
        let answers: Vec<(u16, Value)> =
            clients.iter().map(|client| client.get(&path(n))).map(|reply| (reply.status, reply.json())).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{n}: {answers:?}");
    }

    clients[0].put("/api/documents/notes/gone", &json!({})).expect(201);
    wait_until_answers(&servers, "/api/documents/notes/gone", 200);
    clients[1].delete("/api/documents/notes/gone").expect(200);
    wait_until_answers(&servers, "/api/documents/notes/gone", 410);
    clients[2].put("/api/documents/notes/gone", &json!({"again": true})).expect(201);
    wait_until_reads(&servers, "/api/documents/notes/gone", &json!({"again": true}));
}

#[test]
fn servers_that_know_one_of_the_others_find_all() {
    let mut setups = Setup::cluster(&ZONES);
    let first = setups[0].cluster.as_ref().unwrap().address.clone();
    for setup in &mut setups {
        let Cluster { address, peers, .. } = setup.cluster.as_mut().unwrap();
        *peers = if *address == first { Vec::new() } else { vec![first.clone()] };
    }
    // The one that they know comes last.
    let mut servers: Vec<Server> = setups.into_iter().map(Server::prepare).collect();
    servers[1..].iter_mut().for_each(Server::restart);
    servers[1].client().put("/api/documents/notes/early", &json!({"n": 1})).expect(201);
    servers[2].client().put("/api/documents/notes/early", &json!({"m": 2})).expect(201);
    servers[0].restart();
    wait_until_alive(&servers);
    wait_until_reads(&servers, "/api/documents/notes/early", &json!({"n": 1, "m": 2}));
    wait_until_equal(&servers, SPREAD_TIMEOUT);
}
