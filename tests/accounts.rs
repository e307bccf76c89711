//! Users, roles, tokens and sessions of real servers, over HTTP as browsers and programs speak it.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::cluster::{self, SPREAD_TIMEOUT};
use support::{Client, Reply, Server, Setup, wait_for};

const ADMINISTRATOR: &str = "00000000000000000000000000000000";
const PASSWORD: &str = "correct horse battery";

fn post(client: &Client, path: &str, body: &Value) -> Reply {
    client.request("POST", path, &[], Some(body.to_string().as_bytes()))
}

/// A standalone server whose passwords are cheap, so that a busy machine tests all of it in seconds.
fn standalone() -> Setup {
    cheap(Setup::new("n0", "au"))
}

fn cheap(mut setup: Setup) -> Setup {
    setup.extra += "\n[server.accounts]\nargon2_memory_kib = 64\n";
    setup
}

fn make_user(client: &Client, name: &str, roles: &[&str]) -> String {
    let body = json!({"username": name, "email": format!("{name}@example.org"), "password": PASSWORD, "roles": roles});
    post(client, "/api/users", &body).expect(201).json()["user_id"].as_str().unwrap().to_owned()
}

fn make_role(client: &Client, name: &str, permissions: &[u16]) -> String {
    let body = json!({"name": name, "permissions": permissions});
    post(client, "/api/roles", &body).expect(201).json()["role_id"].as_str().unwrap().to_owned()
}

fn log_in(client: &Client, name: &str) -> Client {
    let reply = post(client, "/api/auth", &json!({"email": name, "password": PASSWORD})).expect(200);
    client.with_token(reply.json()["token"].as_str())
}

fn events(client: &Client) -> BTreeSet<String> {
    let log = client.get("/api/audit-logs?max-items=1000").expect(200).json();
    log["items"].as_array().unwrap().iter().map(|entry| entry["event"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_first_administrator_is_made_with_the_link_that_is_printed() {
    let server = Server::start(standalone());
    let nobody = server.client().with_token(None);
    let code = server.setup_code();
    let ask = |code: &str| {
        let body = json!({"code": code, "username": "ann", "email": "ann@example.org", "password": PASSWORD});
        post(&nobody, "/api/auth/setup", &body)
    };
    ask("guessed").expect_error(403, "not valid any more");
    let body = json!({"code": code, "username": "ann", "password": "short"});
    post(&nobody, "/api/auth/setup", &body).expect_error(400, "at least 8 characters");
    let made = ask(&code).expect(200);
    let cookie = made.header("set-cookie").unwrap().to_owned();
    for part in ["__Host-knot=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(part), "{part} is not in {cookie}");
    }
    ask(&code).expect_error(403, "not valid any more");
    let ann = nobody.with_token(made.json()["token"].as_str());
    let me = ann.get("/api/users/whoami").expect(200).json();
    assert_eq!((&me["user"]["username"], &me["user"]["roles"]), (&json!("ann"), &json!([ADMINISTRATOR])));
    assert!(!server.log().contains(PASSWORD) && !server.log().contains("correct horse"));
}

#[test]
fn a_login_is_good_until_it_is_ended_and_a_changed_password_ends_the_others() {
    let server = Server::start(standalone());
    let machine = server.client();
    let id = make_user(&machine, "ann", &[ADMINISTRATOR]);
    let nobody = machine.with_token(None);
    let wrong = json!({"email": "ann", "password": "wrong horse"});
    post(&nobody, "/api/auth", &wrong).expect_error(401, "wrong name or password");
    let unknown = json!({"email": "nobody@example.org", "password": "wrong horse"});
    assert_eq!(post(&nobody, "/api/auth", &unknown).expect(401).text(), post(&nobody, "/api/auth", &wrong).text());
    let (one, two) = (log_in(&nobody, "ann@example.org"), log_in(&nobody, "ANN"));
    let sessions = one.get("/api/sessions").expect(200).json();
    assert_eq!(sessions.as_array().unwrap().len(), 2);
    assert_eq!(sessions.as_array().unwrap().iter().filter(|session| session["current"] == true).count(), 1);
    one.put(&format!("/api/users/{id}"), &json!({"password": PASSWORD})).expect(200);
    two.get("/api/users/whoami").expect_error(401, "log in");
    one.get("/api/users/whoami").expect(200);
    post(&one, "/api/auth/logout", &json!({})).expect(200);
    one.get("/api/users/whoami").expect(401);
    let of_no_user = nobody.with_token(Some(&format!("{}.secret", "0".repeat(32))));
    of_no_user.get("/api/users/whoami").expect(401);
    for event in ["user.create", "user.login", "user.update"] {
        assert!(events(&machine).contains(event), "{event}");
    }
}

#[test]
fn a_browser_changes_nothing_for_pages_of_others() {
    let server = Server::start(standalone());
    let machine = server.client();
    make_user(&machine, "ann", &[ADMINISTRATOR]);
    let nobody = machine.with_token(None);
    let body = json!({"email": "ann", "password": PASSWORD});
    let set = post(&nobody, "/api/auth", &body).expect(200).header("set-cookie").unwrap().to_owned();
    let cookie = set.split(';').next().unwrap();
    let role = json!({"name": "Ops"}).to_string();
    let ask = |more: &[(&str, &str)]| {
        let headers = [&[("cookie", cookie)], more].concat();
        nobody.request("POST", "/api/roles", &headers, Some(role.as_bytes()))
    };
    ask(&[]).expect_error(403, "another site");
    ask(&[("sec-fetch-site", "cross-site")]).expect_error(403, "another site");
    ask(&[("origin", "https://evil.example")]).expect_error(403, "another site");
    ask(&[("sec-fetch-site", "same-origin")]).expect(201);
    nobody.request("GET", "/api/roles", &[("cookie", cookie)], None).expect(200);
}

#[test]
fn each_may_do_what_their_roles_allow_and_no_more() {
    let server = Server::start(standalone());
    let machine = server.client();
    let nobody = machine.with_token(None);
    make_user(&machine, "root", &[ADMINISTRATOR]);
    let clerk = make_role(&machine, "Clerk", &[0, 1001]);
    let id = make_user(&machine, "eve", &[&clerk]);
    let eve = log_in(&nobody, "eve");
    eve.get("/api/users").expect(200);
    for path in ["/api/cluster", "/api/audit-logs", "/api/cluster/status", "/api/tokens"] {
        eve.get(path).expect_error(403, "permission");
    }
    eve.get("/api/documents/things").expect(200);
    eve.put("/api/documents/things/a", &json!({})).expect_error(403, "Edit Documents");
    eve.get("/api/documents/knot.passwords").expect_error(403, "passwords");
    machine.get("/api/documents/knot.passwords").expect_error(403, "passwords");
    eve.get("/api/documents/knot.audit").expect_error(403, "permission");
    // Nobody gives more than they have, nor takes over who has more.
    let body = json!({"username": "mallory", "password": PASSWORD, "roles": [ADMINISTRATOR]});
    post(&eve, "/api/users", &body).expect_error(403, "permissions that you do not have");
    let root = machine.get("/api/users?q=root").json()["users"][0]["user_id"].as_str().unwrap().to_owned();
    eve.put(&format!("/api/users/{root}"), &json!({"password": "taken over"})).expect_error(403, "do not have");
    eve.delete(&format!("/api/users/{root}")).expect_error(403, "do not have");
    eve.put(&format!("/api/users/{id}"), &json!({"roles": [ADMINISTRATOR]})).expect_error(403, "do not have");
    eve.put(&format!("/api/roles/{clerk}"), &json!({"permissions": [0, 5]})).expect_error(403, "permission");
    // What a role loses, who has it loses at once.
    machine.put(&format!("/api/roles/{clerk}"), &json!({"permissions": []})).expect(200);
    eve.get("/api/users").expect(403);
    eve.put(&format!("/api/users/{id}"), &json!({"timezone": "Australia/Perth"})).expect(200);
    eve.put(&format!("/api/users/{id}"), &json!({"max_spaces": 5})).expect_error(403, "Manage Users");
    machine.put(&format!("/api/users/{id}"), &json!({"active": false})).expect(200);
    eve.get("/api/users/whoami").expect(401);
    post(&nobody, "/api/auth", &json!({"email": "eve", "password": PASSWORD})).expect(401);
}

#[test]
fn the_change_feed_shows_only_what_its_reader_may_see() {
    let server = Server::start(standalone());
    let machine = server.client();
    let reader = make_role(&machine, "Reader", &[1001]);
    make_user(&machine, "eve", &[&reader]);
    machine.put("/api/documents/things/a", &json!({"n": 1})).expect(201);
    let eve = log_in(&machine.with_token(None), "eve");
    let (seen, _) = eve.changes("?values=true", &[]).snapshot();
    let collections: BTreeSet<_> = seen.iter().map(|event| event.data["collection"].as_str().unwrap()).collect();
    assert_eq!(collections, BTreeSet::from(["things"]));
    let (seen, _) = machine.changes("?values=true", &[]).snapshot();
    assert!(seen.iter().all(|event| event.data["collection"] != "knot.passwords"));
    assert!(seen.iter().any(|event| event.data["collection"] == "knot.users"));
}

#[test]
fn the_last_administrator_stays_and_names_are_had_by_one() {
    let server = Server::start(standalone());
    let machine = server.client();
    let ann = make_user(&machine, "ann", &[ADMINISTRATOR]);
    let path = format!("/api/users/{ann}");
    machine.delete(&path).expect_error(409, "last administrator");
    machine.put(&path, &json!({"active": false})).expect_error(409, "last administrator");
    machine.put(&path, &json!({"roles": []})).expect_error(409, "last administrator");
    let body = json!({"username": "ANN", "password": PASSWORD});
    post(&machine, "/api/users", &body).expect_error(409, "is taken");
    let body = json!({"username": "anne", "email": "Ann@Example.org", "password": PASSWORD});
    post(&machine, "/api/users", &body).expect_error(409, "is taken");
    make_user(&machine, "bob", &[ADMINISTRATOR]);
    machine.delete(&path).expect(200);
    machine.get(&path).expect_error(404, "no such user");
    make_user(&machine, "ann", &[]);
    machine.delete(&format!("/api/roles/{ADMINISTRATOR}")).expect_error(409, "cannot be changed");
}

#[test]
fn a_token_is_shown_once_is_limited_by_its_scopes_and_ends_for_good() {
    let server = Server::start(standalone());
    let machine = server.client();
    make_user(&machine, "ann", &[ADMINISTRATOR]);
    let ann = log_in(&machine.with_token(None), "ann");
    let make = |body: Value| post(&ann, "/api/tokens", &body).expect(201).json();
    let whole = make(json!({"name": "Leaf Test"}));
    assert_eq!(whole["token"].as_str().unwrap().len(), 44);
    let program = ann.with_token(whole["token"].as_str());
    program.put("/api/documents/things/a", &json!({"n": 1})).expect(201);
    let listed = ann.get("/api/tokens").expect(200);
    assert!(!listed.text().contains(whole["token"].as_str().unwrap()));
    assert_eq!(listed.json()[0]["name"], "Leaf Test");
    assert!(listed.json()[0]["last_used"].is_string(), "{}", listed.text());
    let reader = ann.with_token(make(json!({"name": "r", "scopes": ["read"]}))["token"].as_str());
    reader.get("/api/documents/things/a").expect(200);
    reader.put("/api/documents/things/a", &json!({})).expect_error(403, "limited");
    post(&reader, "/api/tokens", &json!({"name": "more"})).expect_error(403, "limited");
    let one = ann.with_token(make(json!({"name": "d", "scopes": ["documents:things"]}))["token"].as_str());
    one.put("/api/documents/things/b", &json!({})).expect(201);
    one.get("/api/documents/others").expect(403);
    one.get("/api/users").expect_error(403, "limited");
    for bad in [json!({"name": ""}), json!({"name": "x", "scopes": ["all"]}), json!({"name": "x", "scope": []})] {
        post(&ann, "/api/tokens", &bad).expect(400);
    }
    ann.delete(&format!("/api/tokens/{}", whole["token_id"].as_str().unwrap())).expect(200);
    program.get("/api/documents/things/a").expect(401);
    assert_eq!(ann.get("/api/tokens").json().as_array().unwrap().len(), 2);
    post(&machine, "/api/tokens", &json!({"name": "x"})).expect_error(400, "no user");
}

#[test]
fn a_token_is_shown_again_to_its_owner_s_password_alone() {
    let mut setup = standalone();
    setup.extra += "reveal_tokens = true\n";
    let server = Server::start(setup);
    let machine = server.client();
    let id = make_user(&machine, "ann", &[ADMINISTRATOR]);
    make_user(&machine, "eve", &[ADMINISTRATOR]);
    let (ann, eve) = (log_in(&machine.with_token(None), "ann"), log_in(&machine.with_token(None), "eve"));
    let refused = json!({"name": "x", "password": "wrong horse"});
    post(&ann, "/api/tokens", &refused).expect_error(401, "wrong name or password");
    let made = post(&ann, "/api/tokens", &json!({"name": "kept", "password": PASSWORD})).expect(201).json();
    let once = post(&ann, "/api/tokens", &json!({"name": "once"})).expect(201).json();
    let reveal = |client: &Client, token: &Value, password: &str| {
        let path = format!("/api/tokens/{}/reveal", token["token_id"].as_str().unwrap());
        post(client, &path, &json!({"password": password}))
    };
    let shown = reveal(&ann, &made, PASSWORD).expect(200);
    assert_eq!(shown.json()["token"], made["token"]);
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    reveal(&ann, &once, PASSWORD).expect_error(409, "was not kept");
    reveal(&eve, &made, PASSWORD).expect_error(404, "no such token");
    reveal(&machine, &made, PASSWORD).expect_error(404, "no such token");
    let listed = ann.get("/api/tokens").expect(200).json();
    assert_eq!((&listed[0]["revealable"], &listed[1]["revealable"]), (&json!(true), &json!(false)), "{listed}");
    // Sealed or not, nobody reads what is kept as a document.
    machine.get("/api/documents/knot.sealed").expect(403);
    assert!(events(&machine).contains("token.reveal"));
    let said = [server.log(), machine.get("/api/audit-logs?max-items=1000").text()].concat();
    assert!(!said.contains(made["token"].as_str().unwrap()));

    // The same from a terminal.
    let knot = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knot"));
        command.args(arguments).arg("--password-stdin").env("KNOT_SERVER", server.setup.url());
        command.env("KNOT_TOKEN", ann.token().unwrap()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let printed = knot(&["token", "create", "phone", "--revealable"]);
    assert_eq!(printed.trim().len(), 44, "{printed}");
    assert_eq!(knot(&["token", "reveal", "phone"]), printed);

    let other = "another horse battery";
    ann.put(&format!("/api/users/{id}"), &json!({"password": other})).expect(200);
    reveal(&ann, &made, other).expect_error(409, "earlier password");
    assert_eq!(ann.get("/api/tokens").json()[0]["revealable"], false);
    ann.with_token(made["token"].as_str()).get("/api/users/whoami").expect(200);
    let wrong = (0..20).map(|_| reveal(&ann, &made, "guess guess")).find(|reply| reply.status == 429);
    wrong.expect("wrong passwords count as failed logins").expect_error(429, "try again in");
}

#[test]
fn tokens_are_not_kept_where_nobody_said_so() {
    let server = Server::start(standalone());
    let machine = server.client();
    make_user(&machine, "ann", &[ADMINISTRATOR]);
    let ann = log_in(&machine.with_token(None), "ann");
    let kept = json!({"name": "kept", "password": PASSWORD});
    post(&ann, "/api/tokens", &kept).expect_error(409, "reveal_tokens = true");
    let made = post(&ann, "/api/tokens", &json!({"name": "once"})).expect(201).json();
    let path = format!("/api/tokens/{}/reveal", made["token_id"].as_str().unwrap());
    post(&ann, &path, &json!({"password": PASSWORD})).expect_error(409, "reveal_tokens = true");
}

#[test]
fn guessing_is_slowed_and_the_owner_goes_on() {
    let server = Server::start(standalone());
    let machine = server.client();
    make_user(&machine, "ann", &[ADMINISTRATOR]);
    let nobody = machine.with_token(None);
    let ann = log_in(&nobody, "ann");
    let wrong = json!({"email": "ann", "password": "guess guess"});
    let slowed = (0..20).map(|_| post(&nobody, "/api/auth", &wrong)).find(|reply| reply.status == 429);
    let slowed = slowed.expect("slowed within 20 tries").expect_error(429, "try again in");
    assert!(slowed.header("retry-after").is_some());
    // The right password has to wait as well, or it could be told from wrong ones; who shows a session need not.
    post(&nobody, "/api/auth", &json!({"email": "ann", "password": PASSWORD})).expect(429);
    ann.get("/api/users/whoami").expect(200);
    let mut cookie = String::from("__Host-knot=");
    let head = ann.head("GET", "/", &[]);
    cookie += head.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")).unwrap();
    let right = json!({"email": "ann", "password": PASSWORD}).to_string();
    nobody.request("POST", "/api/auth", &[("cookie", &cookie)], Some(right.as_bytes())).expect(200);
}

#[test]
fn what_one_server_knows_all_know() {
    let setups: Vec<Setup> = Setup::cluster(&["au", "gb", "us"]).into_iter().map(cheap).collect();
    let servers = cluster::start(setups);
    let clients: Vec<Client> = servers.iter().map(Server::client).collect();
    let nobody = |at: usize| clients[at].with_token(None);
    make_user(&clients[0], "ann", &[ADMINISTRATOR]);
    wait_for("the user is in gb", SPREAD_TIMEOUT, || (clients[1].get("/api/users").json()["count"] == 1).then_some(()));
    let ann = log_in(&nobody(1), "ann");
    let session = ann.clone().get("/api/users/whoami").expect(200).json()["user"]["username"].clone();
    assert_eq!(session, "ann");
    let token = ann
        .head("GET", "/", &[])
        .lines()
        .find_map(|line| line.strip_prefix("authorization: Bearer ").map(str::to_owned));
    let elsewhere = clients[2].with_token(token.as_deref());
    wait_for("the session is in us", SPREAD_TIMEOUT, || {
        (elsewhere.get("/api/users/whoami").status == 200).then_some(())
    });
    post(&elsewhere, "/api/auth/logout", &json!({})).expect(200);
    wait_for("the session has ended in gb", Duration::from_secs(2), || {
        (ann.get("/api/users/whoami").status == 401).then_some(())
    });
}

#[test]
fn templates_are_checked_had_by_name_and_seen_by_those_who_may_use_them() {
    let server = Server::start(standalone());
    let machine = server.client();
    let job = "image: alpine\nenvironment:\n  - REGISTRY=${{ .var.registry }}\n";
    let body = json!({"name": "php", "job": job, "zones": ["!gb"]});
    let wrong = post(&machine, "/api/templates/validate", &body).expect(200).json();
    assert_eq!(wrong["valid"], false, "{wrong}");
    assert_eq!(wrong["errors"][0]["line"], 3, "{wrong}");
    post(&machine, "/api/templates", &body).expect_error(400, "registry");
    let variable = json!({"name": "registry", "value": "registry.internal", "protected": true});
    let made = post(&machine, "/api/templatevars", &variable).expect(201).json();
    let path = format!("/api/templatevars/{}", made["templatevar_id"].as_str().unwrap());
    assert_eq!(machine.get(&path).expect(200).json()["value"], "");
    machine.get("/api/documents/knot.template-variables").expect(403);
    let made = post(&machine, "/api/templates", &body).expect(201).json();
    let php = format!("/api/templates/{}", made["template_id"].as_str().unwrap());
    post(&machine, "/api/templates", &json!({"name": "PHP", "job": "image: alpine"})).expect_error(409, "is taken");
    post(&machine, "/api/templates", &json!({"name": "x", "jobs": ""})).expect_error(400, "unknown field `jobs`");
    machine.put(&php, &json!({"zones": ["gb"]})).expect(200);
    let role = make_role(&machine, "Developer", &[7]);
    make_user(&machine, "eve", &[&role]);
    let eve = log_in(&machine.with_token(None), "eve");
    // This server is in au, where the template is not for.
    assert_eq!(eve.get("/api/templates").expect(200).json()["count"], 0);
    eve.get(&php).expect(404);
    machine.put(&php, &json!({"zones": []})).expect(200);
    assert_eq!(eve.get("/api/templates").json()["templates"][0]["name"], "php");
    assert!(eve.get(&format!("{php}/export?format=yaml")).expect(200).text().contains("image: alpine"));
    eve.put(&php, &json!({"name": "mine"})).expect(403);
    machine.delete(&php).expect(200);
    assert_eq!(machine.get("/api/templates").json()["count"], 0);
}

#[test]
fn every_request_that_is_described_is_answered_and_refused_to_strangers() {
    let server = Server::start(standalone());
    let machine = server.client();
    let nobody = machine.with_token(None);
    let openapi = nobody.get("/api/openapi.json").expect(200).json();
    assert_eq!(openapi["openapi"], "3.1.0");
    let (mut asked, mut refused) = (0, 0);
    for (path, methods) in openapi["paths"].as_object().unwrap() {
        let concrete: String =
            path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect::<Vec<_>>().join("/");
        for (method, operation) in methods.as_object().unwrap() {
            // It has this server stop.
            if concrete == "/api/cluster/leave" || concrete == "/api/changes" {
                continue;
            }
            let method = method.to_uppercase();
            asked += 1;
            let open = operation["security"].as_array().is_some_and(Vec::is_empty);
            let reply = nobody.request(&method, &concrete, &[], Some(b"{}"));
            assert_eq!(reply.status == 401, !open, "{method} {path}: {} {}", reply.status, reply.text());
            refused += usize::from(!open);
            let reply = machine.request(&method, &concrete, &[], Some(b"{}"));
            assert!(![401, 405, 500].contains(&reply.status), "{method} {path}: {} {}", reply.status, reply.text());
            assert!(!reply.text().contains("no such path"), "{method} {path}");
            assert!(operation["summary"].is_string() && operation["responses"].is_object(), "{method} {path}");
        }
    }
    assert!(asked > 40 && refused > 30, "{asked} operations, {refused} of them guarded");
}
