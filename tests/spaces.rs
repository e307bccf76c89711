//! Spaces of real servers: made, started, moved and deleted over HTTP; run by Podman where this machine can.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::cluster::{self, SPREAD_TIMEOUT};
use support::podman::{BUSYBOX, IMAGE, Podman};
use support::{Client, Reply, Server, Setup, wait_for};

const PASSWORD: &str = "correct horse battery";
const USE_SPACES: u16 = 7;
const TRANSFER_SPACES: u16 = 10;
const SHARE_SPACES: u16 = 11;
/// How long a container may take to come or go, on a machine that is busy.
const CONTAINER_TIMEOUT: Duration = Duration::from_secs(90);

fn post(client: &Client, path: &str, body: &Value) -> Reply {
    client.request("POST", path, &[], Some(body.to_string().as_bytes()))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Servers that share a token, with cheap passwords, each with this to run spaces on.
fn servers(zones: &[(&str, &str)]) -> Vec<Server> {
    let names: Vec<&str> = zones.iter().map(|(zone, _)| *zone).collect();
    let mut setups = Setup::cluster(&names);
    for (setup, (_, runtime)) in setups.iter_mut().zip(zones) {
        setup.extra += "\n[server.accounts]\nargon2_memory_kib = 64\n";
        setup.variables = vec![("KNOT_SPACES_RUNTIME", (*runtime).to_owned())];
    }
    cluster::start(setups)
}

/// A user who may use, give away and share spaces, and how this client asks as that user.
fn user(client: &Client, name: &str, facts: &Value) -> (String, Client) {
    let permissions = [USE_SPACES, TRANSFER_SPACES, SHARE_SPACES];
    let role = json!({"name": format!("of {name}"), "permissions": permissions});
    let role = text(&post(client, "/api/roles", &role).expect(201).json()["role_id"]);
    let mut body = json!({"username": name, "password": PASSWORD, "roles": [role]});
    body.as_object_mut().unwrap().extend(facts.as_object().unwrap().clone());
    let id = text(&post(client, "/api/users", &body).expect(201).json()["user_id"]);
    (id, log_in(client, name))
}

/// As soon as the server has heard of the user.
fn log_in(client: &Client, name: &str) -> Client {
    let ask = || post(&client.with_token(None), "/api/auth", &json!({"email": name, "password": PASSWORD}));
    let reply = wait_for("a login", SPREAD_TIMEOUT, || Some(ask()).filter(|reply| reply.status == 200));
    client.with_token(reply.json()["token"].as_str())
}

fn template(client: &Client, name: &str, more: &Value) -> String {
    let job = format!(
        "image: {IMAGE}\nnetwork: none\nvolumes:\n  - ${{{{ .space.id }}}}-home:/home\ncommand:\n  - {BUSYBOX}\n  - sh\n  - -c\n  - \"trap 'exit 0' TERM; echo ${{{{ .custom.word }}}} >> /home/words; while true; do {BUSYBOX} sleep 0.1; done\"\n"
    );
    let mut body = json!({
        "name": name, "platform": "container", "job": job, "volumes": "volumes:\n  ${{ .space.id }}-home: {}\n",
        "custom_fields": [{"name": "word", "description": "What to write"}],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    text(&post(client, "/api/templates", &body).expect(201).json()["template_id"])
}

fn make(client: &Client, name: &str, template: &str, more: &Value) -> String {
    let mut body = json!({"name": name, "template_id": template});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = || Some(post(client, "/api/spaces", &body)).filter(|reply| reply.status == 201);
    text(&wait_for("a space of a template that this server hears of", SPREAD_TIMEOUT, made).json()["space_id"])
}

fn space(client: &Client, id: &str) -> Value {
    client.get(&format!("/api/spaces/{id}")).expect(200).json()
}

fn act(client: &Client, id: &str, what: &str, body: &Value) -> Reply {
    post(client, &format!("/api/spaces/{id}/{what}"), body)
}

fn wait_for_state(client: &Client, id: &str, state: &str) -> Value {
    let look = || {
        let reply = client.get(&format!("/api/spaces/{id}"));
        (reply.status == 200).then(|| reply.json())
    };
    let mut last = Value::Null;
    wait_for(&format!("space {id} is {state}"), CONTAINER_TIMEOUT, || {
        last = look()?;
        assert!(state == "failed" || last["state"] != "failed", "{last}");
        (last["state"] == state).then(|| last.clone())
    })
}

#[test]
fn without_a_runtime_all_but_the_start_works_and_what_is_missing_is_said() {
    let servers = servers(&[("au", "none")]);
    let machine = servers[0].client();
    let (ann_id, ann) = user(&machine, "ann", &json!({"max_spaces": 2, "storage_units": 5}));
    let (bob_id, bob) = user(&machine, "bob", &json!({}));
    let small = template(&machine, "small", &json!({"storage_units": 2}));
    let large = template(&machine, "large", &json!({"storage_units": 4}));
    let id = make(&ann, "web", &small, &json!({"custom_fields": [{"name": "word", "value": "one"}], "note": "mine"}));
    let made = space(&ann, &id);
    for (name, value) in [
        ("state", json!("stopped")),
        ("username", json!("ann")),
        ("template_name", json!("small")),
        ("zone", json!("au")),
        ("node_id", json!("")),
        ("is_deployed", json!(false)),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    act(&ann, &id, "start", &json!({})).expect_error(409, "no server of zone au has Docker or Podman (n0)");
    for (body, status, said) in [
        (json!({"name": "web", "template_id": small}), 409, "the space name \"web\" is taken"),
        (json!({"name": "-", "template_id": small}), 400, "name: is no name for a space"),
        (json!({"name": "b", "template_id": "none"}), 404, "no such template"),
        (json!({"name": "b", "template_id": small, "zone": "mars"}), 409, "no server is in zone mars"),
        (json!({"name": "b", "template_id": large}), 409, "that would be 6 storage units, and the owner may have 5"),
        (json!({"name": "b", "template_id": small, "user_id": bob_id}), 403, "Manage Spaces"),
        (json!({"name": "b", "template_id": small, "colour": 1}), 400, "unknown field `colour`"),
        (
            json!({"name": "b", "template_id": small, "custom_fields": [{"name": "wrod", "value": ""}]}),
            400,
            "did you mean word?",
        ),
    ] {
        post(&ann, "/api/spaces", &body).expect_error(status, said);
    }
    make(&ann, "db", &small, &json!({}));
    post(&ann, "/api/spaces", &json!({"name": "c", "template_id": small})).expect_error(409, "that would be 3 spaces");
    // Who has no part in it learns nothing of it.
    bob.get(&format!("/api/spaces/{id}")).expect_error(404, "no such space");
    assert_eq!(bob.get("/api/spaces").expect(200).json()["count"], 0);
    act(&bob, &id, "stop", &json!({})).expect_error(404, "no such space");
    // A guest starts and stops it, and no more.
    act(&ann, &id, "share", &json!({"user_id": "bob"})).expect(200);
    act(&ann, &id, "share", &json!({"user_id": ann_id})).expect_error(400, "somebody whose it is not yet");
    assert_eq!(space(&bob, &id)["shares"][0]["username"], "bob");
    act(&bob, &id, "start", &json!({})).expect_error(409, "no server of zone au has");
    act(&bob, &id, "stop", &json!({})).expect(200);
    act(&bob, &id, "transfer", &json!({"user_id": "bob"})).expect_error(403, "Manage Spaces");
    bob.delete(&format!("/api/spaces/{id}")).expect_error(403, "Manage Spaces");
    ann.delete(&format!("/api/spaces/{id}/share?user_id=bob")).expect(200);
    bob.get(&format!("/api/spaces/{id}")).expect_error(404, "no such space");
    // It is the other's now, and out of the first one's sight.
    act(&ann, &id, "transfer", &json!({"user_id": "bob"})).expect(200);
    ann.get(&format!("/api/spaces/{id}")).expect_error(404, "no such space");
    bob.put(&format!("/api/spaces/{id}"), &json!({"name": "site", "description": "d"})).expect(200);
    let now = space(&bob, &id);
    assert_eq!((&now["name"], &now["username"], &now["note"]), (&json!("site"), &json!("bob"), &json!("mine")));
    bob.delete(&format!("/api/spaces/{id}")).expect(200);
    bob.get(&format!("/api/spaces/{id}")).expect_error(404, "no such space");
    act(&bob, &id, "start", &json!({})).expect_error(404, "no such space");
    let log = machine.get("/api/audit-logs?max-items=1000").expect(200).json().to_string();
    for event in ["space.create", "space.share", "space.unshare", "space.transfer", "space.update", "space.delete"] {
        assert!(log.contains(event), "{event}");
    }
}

#[test]
fn a_space_that_is_resident_is_a_stub_elsewhere() {
    let servers = servers(&[("gb", "none"), ("us", "none")]);
    let (gb, us) = (servers[0].client(), servers[1].client());
    let (_, ann) = user(&gb, "ann", &json!({"zone": "gb"}));
    let small = template(&gb, "small", &json!({}));
    let away = template(&gb, "away", &json!({"zones": ["!gb"]}));
    let id = make(&ann, "secret-name", &small, &json!({"resident": true, "note": "secret-note"}));
    assert_eq!(space(&ann, &id)["zone"], "gb");
    let there = log_in(&us, "ann");
    let list = || there.get("/api/spaces").expect(200).json();
    let stub = wait_for("a stub", SPREAD_TIMEOUT, || list()["elsewhere"].get(0).cloned());
    let url = servers[0].setup.url();
    let known = (&stub["space_id"], &stub["username"], &stub["zone"], &stub["urls"]);
    assert_eq!(known, (&json!(id), &json!("ann"), &json!("gb"), &json!([url])));
    there.get(&format!("/api/spaces/{id}")).expect_error(421, "not in zone gb");
    act(&there, &id, "start", &json!({})).expect_error(421, "not in zone gb");
    let body = json!({"name": "b", "template_id": small, "zone": "gb", "resident": true});
    post(&there, "/api/spaces", &body).expect_error(421, "not in zone gb");
    // A home zone is no way around the template's.
    let body = json!({"name": "b", "template_id": away});
    post(&ann, "/api/spaces", &body).expect_error(409, "template away is not allowed in zone gb");
    // Neither documents nor the log tell what it is called.
    let log = || Some(us.get("/api/audit-logs?event=space.create").expect(200).json()).filter(|log| log["count"] == 1);
    wait_for("the entry in the log", SPREAD_TIMEOUT, log);
    for path in ["/api/documents/knot.spaces", "/api/documents/knot.space-stubs", "/api/audit-logs?max-items=1000"] {
        let told = us.get(path).expect(200).text();
        assert!(!told.contains("secret"), "{path}: {told}");
    }
    ann.delete(&format!("/api/spaces/{id}")).expect(200);
    wait_for("the end of the stub", SPREAD_TIMEOUT, || (list()["elsewhere"] == json!([])).then_some(()));
}

#[test]
fn spaces_run_where_their_records_say_and_move_when_somebody_says_so() {
    let Some(podman) = Podman::start() else { return };
    let socket = podman.socket().display().to_string();
    let mut servers = servers(&[("gb", socket.as_str()), ("gb", socket.as_str()), ("us", "none")]);
    let us = servers[2].client();
    let (_, ann) = user(&us, "ann", &json!({}));
    let id = template(&us, "sleeper", &json!({"zones": ["gb"]}));
    let [web, db] = ["web", "db"]
        .map(|name| make(&ann, name, &id, &json!({"zone": "gb", "custom_fields": [{"name": "word", "value": name}]})));
    // Which servers have what to run them on, others hear of.
    let have = || {
        let info = us.get("/api/cluster-info").expect(200).json();
        let able = info.as_array()?.iter().filter(|server| server["metadata"]["runtimes"] != "").count();
        (able == 2).then_some(())
    };
    wait_for("two servers that can", CONTAINER_TIMEOUT, have);
    act(&ann, &web, "start", &json!({})).expect(200);
    let runs = wait_for_state(&ann, &web, "running");
    act(&ann, &db, "start", &json!({})).expect(200);
    let other = wait_for_state(&ann, &db, "running");
    assert_ne!(runs["node_id"], other["node_id"], "the second goes where less is to be carried");
    let containers =
        |space: &str| podman.run(&["ps", "--all", "--quiet", "--filter", &format!("label=knot.space={space}")]);
    let first = containers(&web);
    // What runs goes on, however often it is asked for.
    act(&ann, &web, "start", &json!({})).expect(200);
    act(&ann, &web, "start", &json!({"node": runs["node_hostname"]})).expect(200);
    act(&ann, &web, "start", &json!({"node": other["node_hostname"]})).expect_error(409, "the space runs on");
    assert_eq!(
        (space(&ann, &web)["started_at"].clone(), containers(&web)),
        (runs["started_at"].clone(), first.clone())
    );
    assert_eq!(podman.run(&["exec", &first, BUSYBOX, "cat", "/home/words"]), "web");
    // Started anew it is another container with the same volume.
    act(&ann, &web, "restart", &json!({})).expect(200);
    let anew = || Some(containers(&web)).filter(|ids| *ids != first && !ids.contains('\n') && !ids.is_empty());
    let second = wait_for("another container", CONTAINER_TIMEOUT, anew);
    wait_for_state(&ann, &web, "running");
    let words = || podman.run(&["exec", &second, BUSYBOX, "cat", "/home/words"]);
    wait_for("what it writes again", CONTAINER_TIMEOUT, || (words() == "web\nweb").then_some(()));
    // Its server dies: nobody takes over, until somebody says so.
    let name = text(&runs["node_hostname"]);
    let index = servers.iter().position(|server| server.setup.name == name).unwrap();
    servers[index].kill();
    assert!(wait_for_state(&ann, &web, "unreachable")["unreachable_since"].is_i64());
    act(&ann, &web, "start", &json!({})).expect_error(409, "does not answer");
    act(&ann, &web, "start", &json!({"node": name})).expect_error(409, "cannot run this space");
    act(&ann, &web, "start", &json!({"node": other["node_hostname"]})).expect(200);
    // The volume has come along here: both servers share one runtime, which knows it as the space's.
    let moved = wait_for_state(&ann, &web, "running");
    assert_eq!(moved["node_id"], other["node_id"]);
    // When it comes back it hears that the space is elsewhere, and ends its own container.
    servers[index].restart();
    let alone =
        || Some(containers(&web)).filter(|ids| !ids.is_empty() && !ids.contains('\n') && !ids.contains(&second));
    wait_for("the end of the container that was left", CONTAINER_TIMEOUT, alone);
    assert_eq!(space(&ann, &web)["state"], "running");
    // Stopped, it keeps its volume; deleted, nothing is left.
    act(&ann, &web, "stop", &json!({})).expect(200);
    wait_for_state(&ann, &web, "stopped");
    let volumes =
        |space: &str| podman.run(&["volume", "ls", "--quiet", "--filter", &format!("label=knot.space={space}")]);
    assert_eq!(volumes(&web), format!("{web}-home"));
    for space in [&web, &db] {
        ann.delete(&format!("/api/spaces/{space}")).expect(200);
        let gone = || (containers(space).is_empty() && volumes(space).is_empty()).then_some(());
        wait_for("the end of all of it", CONTAINER_TIMEOUT, gone);
    }
    let listed = || (ann.get("/api/spaces").expect(200).json()["count"] == 0).then_some(());
    wait_for("an empty list", CONTAINER_TIMEOUT, listed);
}

#[test]
fn a_space_whose_program_ends_or_cannot_start_says_why() {
    let Some(podman) = Podman::start() else { return };
    let server = &servers(&[("au", podman.socket().display().to_string().as_str())])[0];
    let machine = server.client();
    let (_, ann) = user(&machine, "ann", &json!({}));
    for (name, job, said) in [
        (
            "ends",
            format!("image: {IMAGE}\nnetwork: none\ncommand: [{BUSYBOX}, sh, -c, \"exit 3\"]\n"),
            "ended with status 3",
        ),
        ("absent", "image: localhost/knot-none:1\n".to_owned(), "could not be fetched"),
        ("nothing", format!("image: {IMAGE}\nnetwork: none\ncommand: [/bin/nothing]\n"), "/bin/nothing"),
    ] {
        let template = template(&machine, name, &json!({"job": job, "volumes": "", "custom_fields": []}));
        let id = make(&ann, name, &template, &json!({}));
        let started = || (act(&ann, &id, "start", &json!({})).status == 200).then_some(());
        wait_for("a server that can", CONTAINER_TIMEOUT, started);
        let failed = wait_for_state(&ann, &id, "failed");
        assert!(failed["failure"].as_str().unwrap().contains(said), "{said}\n{failed}");
    }
    assert!(!server.log().contains("panicked"));
}
