//! The pages as a browser asks for them, without one: who is let in, and what browsers are told.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use serde_json::json;
use support::{Client, Reply, Server, Setup};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");

fn start() -> (Server, Client) {
    let server = Server::start(Setup::new("n1", "au"));
    let client = server.client().with_token(None);
    (server, client)
}

fn post(client: &Client, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    client.request("POST", path, &[&[FORM], headers].concat(), Some(body.as_bytes()))
}

/// Makes the first administrator; gives the cookie to show.
fn set_up(server: &Server, client: &Client) -> String {
    let code = server.setup_code().replace('=', "%3D");
    let body = format!("code={code}&username=ann&email=&password=correct+horse&again=correct+horse");
    let reply = post(client, "/setup", &[SAME], &body).expect(303);
    assert_eq!(reply.header("location"), Some("/?done=welcome"));
    let cookie = reply.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("Secure") && cookie.contains("SameSite=Lax"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

#[test]
fn who_has_not_logged_in_is_sent_to_and_comes_back() {
    let (server, client) = start();
    set_up(&server, &client);
    for path in ["/", "/users", "/documents", "/api-tokens", "/audit", "/api-docs", "/live"] {
        let reply = client.get(path).expect(303);
        assert!(reply.header("location").unwrap().starts_with("/login"), "{path}: {reply:?}");
    }
    for (next, to) in [("/users", "/users"), ("//evil.example", "/"), ("https://evil.example", "/"), ("", "/")] {
        let body = format!("email=ann&password=correct+horse&next={next}");
        assert_eq!(post(&client, "/login", &[SAME], &body).expect(303).header("location"), Some(to), "{next}");
    }
}

#[test]
fn forms_of_other_sites_change_nothing() {
    let (server, client) = start();
    let cookie = set_up(&server, &client);
    let login = "email=ann&password=correct+horse";
    for headers in [&[][..], &[("sec-fetch-site", "cross-site")], &[("origin", "https://evil.example")]] {
        post(&client, "/login", headers, login).expect(403);
        post(&client, "/groups", &[headers, &[("cookie", &cookie)]].concat(), "name=theirs").expect(403);
    }
    post(&client, "/groups", &[SAME, ("cookie", &cookie)], "name=ours").expect(303);
    let groups = client.request("GET", "/groups", &[("cookie", &cookie)], None).expect(200).text();
    assert!(groups.contains("ours") && !groups.contains("theirs"));
}

#[test]
fn browsers_are_told_to_run_nothing_else_and_to_keep_nothing() {
    let (server, client) = start();
    let cookie = set_up(&server, &client);
    for path in ["/login", "/setup?code=x", "/", "/documents", "/users/nobody", "/no/such/page"] {
        let headers = [("cookie", cookie.as_str()), ("accept", "text/html")];
        let reply = client.request("GET", path, &headers, None);
        let policy = reply.header("content-security-policy").unwrap_or_else(|| panic!("{path}: {reply:?}"));
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        let text = reply.text();
        for banned in ["<style", " style=", " onclick=", "javascript:", "<script>"] {
            assert!(!text.contains(banned), "{path} holds {banned}");
        }
    }
    let page = client.get("/login").text();
    let (_, rest) = page.split_once("href=\"/static/knot.css").unwrap();
    let version = rest.split('"').next().unwrap();
    let style = client.get(&format!("/static/knot.css{version}")).expect(200);
    assert!(style.header("cache-control").unwrap().contains("immutable"));
    assert_eq!(client.get("/static/knot.css?v=old").expect(200).header("cache-control"), Some("no-cache"));
    client.get("/static/admin.token").expect(404);
}

#[test]
fn collections_are_listed_with_what_exists_in_them() {
    let (server, client) = start();
    let cookie = set_up(&server, &client);
    let machine = server.client();
    for path in ["documents/plans/a", "documents/plans/b", "documents/plans/c", "zones/au/documents/notes/x"] {
        machine.put(&format!("/api/{path}"), &json!({"n": 1})).expect(201);
    }
    machine.put("/api/documents/gone/a", &json!({})).expect(201);
    for path in ["documents/plans/b", "documents/gone/a"] {
        machine.delete(&format!("/api/{path}")).expect(200);
    }
    let page = client.request("GET", "/documents", &[("cookie", &cookie)], None).expect(200).text();
    for (href, count) in [("/documents/global/plans", 2), ("/documents/zone/notes", 1)] {
        let (_, row) = page.split_once(&format!("<a href=\"{href}\">")).unwrap_or_else(|| panic!("{href}: {page}"));
        assert!(row.split("</tr>").next().unwrap().contains(&format!(">{count}<")), "{row}");
    }
    assert!(!page.contains("/documents/global/gone"), "a collection without documents is none");
    let list =
        client.request("GET", "/documents/global/plans?prefix=c", &[("cookie", &cookie)], None).expect(200).text();
    assert!(list.contains("plans/c\"") && !list.contains("plans/a\""));
}

#[test]
fn a_server_by_itself_has_no_cluster_to_show() {
    let (server, client) = start();
    let cookie = set_up(&server, &client);
    let headers = [("cookie", cookie.as_str()), ("accept", "text/html")];
    assert!(!client.request("GET", "/", &headers, None).expect(200).text().contains("Cluster Info"));
    client.request("GET", "/cluster-info", &headers, None).expect(404);
}

#[test]
fn a_token_that_is_kept_is_shown_again_and_says_so() {
    let mut setup = Setup::new("n1", "au");
    setup.extra += "\n[server.accounts]\nargon2_memory_kib = 64\nreveal_tokens = true\n";
    let server = Server::start(setup);
    let client = server.client().with_token(None);
    let cookie = set_up(&server, &client);
    let headers = [SAME, ("cookie", cookie.as_str())];
    let form = client.request("GET", "/api-tokens/new", &headers, None).expect(200).text();
    assert!(form.contains("autocomplete=\"current-password\""), "{form}");
    let secret = |page: &str| {
        let (_, rest) = page.split_once("<code id=\"token\">").unwrap_or_else(|| panic!("{page}"));
        rest.split('<').next().unwrap().to_owned()
    };
    let made = post(&client, "/api-tokens", &headers, "name=kept&password=correct+horse").expect(201).text();
    assert!(made.contains("data-copy=\"token\"") && made.contains("sealed with your password"));
    let (_, rest) = made.split_once("action=\"/api-tokens/").unwrap();
    let (id, _) = rest.split_once("/reveal\"").unwrap();
    let path = format!("/api-tokens/{id}/reveal");
    let shown = post(&client, &path, &headers, "password=correct+horse").expect(200).text();
    assert_eq!(secret(&shown), secret(&made));
    let wrong = post(&client, &path, &headers, "password=wrong+horse").expect(401).text();
    assert!(wrong.contains("Wrong name or password") && !wrong.contains(&secret(&made)));
    let once = post(&client, "/api-tokens", &headers, "name=once&password=").expect(201).text();
    assert!(once.contains("shown this once"));
}

#[test]
fn a_history_says_what_each_version_changed() {
    let (server, client) = start();
    let cookie = set_up(&server, &client);
    let machine = server.client();
    machine.put("/api/documents/plans/a", &json!({"name": "Ann", "old": 1})).expect(201);
    machine.put("/api/documents/plans/a", &json!({"name": "<b>Anne</b>", "new": 2})).expect(200);
    let page = |path: &str| client.request("GET", path, &[("cookie", &cookie)], None);
    let document = page("/documents/global/plans/a").expect(200).text();
    let (_, rest) = document.split_once("href=\"/documents/global/plans/a?from=").unwrap();
    let link = rest.split('"').next().unwrap().replace("&amp;", "&").replace("&#38;", "&");
    let shown = page(&format!("/documents/global/plans/a?from={link}")).expect(200).text();
    for (member, word) in [("/name", "changed"), ("/old", "removed"), ("/new", "added")] {
        let (_, row) = shown.split_once(&format!("<code>{member}</code>")).unwrap_or_else(|| panic!("{shown}"));
        assert!(row.split("</tr>").next().unwrap().contains(&format!(">{word}<")), "{member}: {shown}");
    }
    assert!(!shown.contains("<b>Anne"));
    let (_, first) = link.split_once("to=").unwrap();
    let made = page(&format!("/documents/global/plans/a?from=start&to={first}")).expect(200).text();
    assert!(made.contains("There was no document yet."), "{made}");
    page("/documents/global/plans/a?from=start&to=ffffffff").expect(404);
    page("/documents/global/knot.passwords/a?from=start&to=ffff").expect(403);
}
