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

/// What the form of a template holds besides what a test is about.
const TEMPLATE: &str = "name=php&platform=container&max_uptime_unit=disabled&health_check_type=none";

/// What a browser asks with a session.
fn get(client: &Client, cookie: &str, path: &str) -> Reply {
    client.request("GET", path, &[("cookie", cookie), ("accept", "text/html")], None)
}

/// The marks that a page's form was filled from, as the form sends them.
fn marks(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"was\" value=\"").unwrap_or_else(|| panic!("no marks: {page}"));
    let text = rest.split('"').next().unwrap().replace("&#34;", "\"").replace("&quot;", "\"");
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Makes a user with a role of these permissions, and logs it in.
fn log_in_with(server: &Server, client: &Client, name: &str, permissions: &[u16]) -> String {
    let machine = server.client();
    let made = |path: &str, body: serde_json::Value| {
        machine.request("POST", path, &[], Some(body.to_string().as_bytes())).expect(201).json()
    };
    let role = made("/api/roles", json!({"name": name, "permissions": permissions}))["role_id"].clone();
    made("/api/users", json!({"username": name, "password": "correct horse", "roles": [role]}));
    let reply = post(client, "/login", &[SAME], &format!("email={name}&password=correct+horse")).expect(303);
    reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

#[test]
fn templates_are_managed_by_those_who_may_and_only_read_by_those_who_use_them() {
    let (server, client) = start();
    let ann = set_up(&server, &client);
    let (user, nobody) = (log_in_with(&server, &client, "eve", &[7]), log_in_with(&server, &client, "bob", &[]));
    let job = "image:+alpine%0D%0Aports:%0D%0A++-+80%0D%0A";
    let form = |job: &str, more: &str| format!("{TEMPLATE}&active=on&job={job}{more}");
    let send = |path: &str, cookie: &str, body: &str| post(&client, path, &[SAME, ("cookie", cookie)], body);

    let checked = send("/templates", &ann, &form(job, "&action=check")).expect(200).text();
    assert!(checked.contains("Line 3, ports[0]: is no port."), "{checked}");
    assert!(send("/templates", &ann, &form(job, "")).expect(400).text().contains("Line 3, ports[0]"));
    let rows = send("/templates", &ann, &form(job, "&ports.name=&ports.port=&ports.protocol=tcp&action=more-ports"));
    assert_eq!(rows.expect(200).text().matches("name=\"ports.port\"").count(), 2);
    assert!(
        get(&client, &ann, "/templates").expect(200).text().contains("There are no templates"),
        "nothing is stored"
    );
    for (cookie, status) in [(&user, 403), (&nobody, 403)] {
        send("/templates", cookie, &form("image:+alpine", "")).expect(status);
    }
    post(&client, "/templates", &[("cookie", &ann)], &form("image:+alpine", "")).expect(403);

    send(
        "/templates",
        &ann,
        &form("image:+alpine", "&description=one%0D%0Atwo&ports.name=Web&ports.port=80&ports.protocol=http"),
    )
    .expect(303);
    let list = get(&client, &user, "/templates").expect(200).text();
    let (_, rest) = list.split_once("<a href=\"/templates/").unwrap();
    let path = format!("/templates/{}", rest.split('"').next().unwrap());
    assert!(!list.contains("New template") && get(&client, &ann, "/templates").text().contains("New template"));
    let view = get(&client, &user, &path).expect(200).text();
    assert!(view.contains("image: alpine") && !view.contains("<textarea") && !view.contains("danger"), "{view}");
    send(&path, &user, "name=mine").expect(403);
    send(&format!("{path}/delete"), &user, "").expect(403);
    get(&client, &user, "/templates/new").expect(403);
    for path in ["/templates", path.as_str(), "/templates/new", "/variables", "/zones"] {
        let refused = get(&client, &nobody, path).expect(403).text();
        assert!(!refused.contains("alpine") && !refused.contains("href=\"/templates\""), "{refused}");
    }
    get(&client, &user, "/variables").expect(403);
}

#[test]
fn a_form_undoes_nothing_that_somebody_else_has_changed_meanwhile() {
    let (server, client) = start();
    let ann = set_up(&server, &client);
    let machine = server.client();
    let made = |path: &str, body: serde_json::Value, id: &str| {
        let reply = machine.request("POST", path, &[], Some(body.to_string().as_bytes())).expect(201).json();
        reply[id].as_str().unwrap().to_owned()
    };
    let group = made("/api/groups", json!({"name": "web"}), "group_id");
    let role = made("/api/roles", json!({"name": "Ops", "permissions": [0, 1]}), "role_id");
    let template = json!({"name": "php", "job": "image: alpine\n", "zones": ["au"]});
    let template = made("/api/templates", template, "template_id");
    let send = |path: &str, body: &str| post(&client, path, &[SAME, ("cookie", &ann)], body);
    let page = |path: &str| get(&client, &ann, path).expect(200).text();

    let (path, api) = (format!("/groups/{group}"), format!("/api/groups/{group}"));
    let was = marks(&page(&path));
    machine.put(&api, &json!({"max_spaces": 5})).expect(200);
    send(&path, &format!("was={was}&name=web&max_spaces=0&compute_units=7&storage_units=0")).expect(303);
    let now = machine.get(&api).json();
    assert_eq!((&now["max_spaces"], &now["compute_units"]), (&json!(5), &json!(7)));
    // What both changed is asked about; whoever asks again has been told.
    let asked =
        send(&path, &format!("was={was}&name=web&max_spaces=9&compute_units=7&storage_units=0")).expect(412).text();
    assert!(asked.contains("Somebody else has changed max_spaces") && asked.contains("<pre>5</pre>"), "{asked}");
    assert_eq!(machine.get(&api).json()["max_spaces"], 5);
    let told = marks(&asked);
    send(&path, &format!("was={told}&name=web&max_spaces=9&compute_units=7&storage_units=0")).expect(303);
    assert_eq!(machine.get(&api).json()["max_spaces"], 9);
    send(&path, "name=web").expect(400);

    let (path, api) = (format!("/roles/{role}"), format!("/api/roles/{role}"));
    let was = marks(&page(&path));
    machine.put(&api, &json!({"permissions": [0, 1, 4]})).expect(200);
    send(&path, &format!("was={was}&name=Ops&permission=1&permission=5")).expect(303);
    let mut held: Vec<u64> = machine.get(&api).json()["permissions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(serde_json::Value::as_u64)
        .collect();
    held.sort_unstable();
    assert_eq!(held, [1, 4, 5]);

    let (path, api) = (format!("/templates/{template}"), format!("/api/templates/{template}"));
    let was = marks(&page(&path));
    machine.put(&api, &json!({"description": "theirs", "zones": ["au", "!gb"]})).expect(200);
    let mine = format!("{TEMPLATE}&active=on&zones=au,us&job=image:+alpine%0D%0A&description=&with_ssh=on");
    send(&path, &format!("was={was}&{mine}")).expect(303);
    let now = machine.get(&api).json();
    assert_eq!(
        (&now["description"], &now["with_ssh"], &now["zones"]),
        (&json!("theirs"), &json!(true), &json!(["au", "!gb", "us"]))
    );
    let asked =
        send(&path, &format!("was={was}&{}", mine.replace("description=", "description=mine"))).expect(412).text();
    assert!(asked.contains("<pre>theirs</pre>") && asked.contains("mine</textarea>"), "{asked}");
}

#[test]
fn a_protected_value_is_on_no_page() {
    let (server, client) = start();
    let ann = set_up(&server, &client);
    let manager = log_in_with(&server, &client, "eve", &[1]);
    let send = |path: &str, cookie: &str, body: &str| post(&client, path, &[SAME, ("cookie", cookie)], body);
    send("/variables", &ann, "name=secret&value=s3cret&protected=on").expect(303);
    send("/variables", &ann, "name=registry&value=r.example&zones=").expect(303);
    send("/variables", &ann, "name=a+b&value=x").expect(400);
    let list = get(&client, &ann, "/variables").expect(200).text();
    assert!(list.contains("secret") && !list.contains("s3cret") && !list.contains("r.example"), "{list}");
    let (before, _) = list.split_once("\">secret</a>").unwrap();
    let path = before.rsplit_once("<a href=\"").unwrap().1.to_owned();
    let page = get(&client, &ann, &path).expect(200).text();
    assert!(page.contains("never shown") && !page.contains("s3cret"), "{page}");
    // An empty value leaves it, and what is protected stays so.
    let was = marks(&page);
    let asked = send(&path, &ann, &format!("was={was}&name=secret&value=")).expect(400).text();
    assert!(asked.contains("stays so") && !asked.contains("s3cret"), "{asked}");
    send(&path, &ann, &format!("was={was}&name=secret2&value=&protected=on")).expect(303);

    let job = "image:+$%7B%7B+.var.registry+%7D%7D/php%0Aenvironment:%0A++-+S%3D$%7B%7B+.var.secret2+%7D%7D%0A++-+U%3D$%7B%7B+.user.username+%7D%7D%0A";
    let form = format!("{TEMPLATE}&job={job}&action=preview");
    let preview = send("/templates", &ann, &form).expect(200).text();
    assert!(
        preview.contains("r.example/php") && preview.contains("S=hidden") && preview.contains("U=ann"),
        "{preview}"
    );
    assert!(!preview.contains("s3cret"));
    let preview = send("/templates", &manager, &form).expect(200).text();
    assert!(preview.contains("hidden/php") && !preview.contains("r.example"), "{preview}");
}

#[test]
fn who_is_shut_out_is_let_in_again_by_those_who_manage_the_cluster() {
    let server = Server::start(Setup::cluster(&["au"]).remove(0));
    let client = server.client().with_token(None);
    let ann = set_up(&server, &client);
    let viewer = log_in_with(&server, &client, "eve", &[12]);
    let send = |path: &str, cookie: &str, body: &str| post(&client, path, &[SAME, ("cookie", cookie)], body);
    // Nobody has ever seen this one; its name is its id.
    let id = "5a".repeat(16);
    let evict = json!({"id": id, "reason": "stolen"}).to_string();
    server.client().request("POST", "/api/cluster/evict", &[], Some(evict.as_bytes())).expect(200);
    let path = format!("/cluster-info/{id}");
    let overview = get(&client, &ann, "/cluster-info").expect(200).text();
    assert!(overview.contains("stolen") && overview.contains(&format!("{path}#h-readmit")), "{overview}");
    assert!(get(&client, &viewer, "/cluster-info").expect(200).text().contains("stolen"));
    assert!(get(&client, &ann, &path).expect(200).text().contains("/readmit\""));
    assert!(!get(&client, &viewer, &path).expect(200).text().contains("<form method=\"post\" action=\"/cluster-info"));
    send(&format!("{path}/readmit"), &viewer, &format!("name={id}")).expect(403);
    post(&client, &format!("{path}/readmit"), &[("cookie", &ann)], &format!("name={id}")).expect(403);
    assert!(send(&format!("{path}/readmit"), &ann, "name=other").expect(400).text().contains("not the server"));
    send(&format!("{path}/explode"), &ann, &format!("name={id}")).expect(404);
    send(&format!("{path}/readmit"), &ann, &format!("name={id}")).expect(303);
    get(&client, &ann, &path).expect(404);
    let me = server.client().get("/api/cluster/status").json();
    let own = format!("/cluster-info/{}/evict", me["id"].as_str().unwrap());
    send(&own, &ann, &format!("name={}", me["name"].as_str().unwrap())).expect(409);
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
