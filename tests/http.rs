//! The HTTP API of one real server, from outside: every status that one server can give, and what rubbish gets.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::io::{BufReader, Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::client::read_reply;
use support::{Client, Server, Setup};

const MERGE: &str = "application/merge-patch+json";
const PATCH: &str = "application/json-patch+json";
const INCREMENT: &str = "application/vnd.knot.increment+json";

fn start() -> (Server, Client) {
    let server = Server::start(Setup::new("n1", "au"));
    let client = server.client();
    (server, client)
}

fn keys(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap()).collect()
}

#[test]
fn a_document_is_created_read_changed_and_deleted() {
    let (_server, client) = start();
    let path = "/api/documents/users/ann";
    client.get(path).expect_error(404, "no such document");
    client.delete(path).expect_error(404, "no such document");

    let created = client.put(path, &json!({"name": "Ann", "visits": 1})).expect(201);
    let body = created.json();
    assert_eq!((&body["created"], &body["changed"], &body["held_by"]), (&json!(true), &json!(true), &json!(0)));
    assert_eq!(created.etag(), format!("\"{}\"", body["etag"].as_str().unwrap()));
    let read = client.get(path).expect(200);
    assert_eq!(read.json(), json!({"name": "Ann", "visits": 1}));
    assert_eq!(read.etag(), created.etag());
    assert_eq!(read.header("content-type"), Some("application/json"));

    let same = client.put(path, &json!({"visits": 1, "name": "Ann"})).expect(200);
    assert_eq!(same.json()["changed"], json!(false));
    assert_eq!(same.etag(), created.etag());
    let changed = client.put(path, &json!({"name": "Ann", "visits": 2})).expect(200);
    assert_eq!(changed.json()["created"], json!(false));
    assert_ne!(changed.etag(), created.etag());

    let deleted = client.delete(path).expect(200);
    let gone = client.get(path).expect_error(410, "deleted");
    assert_eq!(gone.etag(), deleted.etag());
    client.delete(path).expect_error(410, "deleted");
    client.put(path, &json!({"name": "Ann again"})).expect(201);
    assert_eq!(client.get(path).expect(200).json(), json!({"name": "Ann again"}));
}

#[test]
fn conditions_are_kept() {
    let (_server, client) = start();
    let path = "/api/documents/users/ann";
    let put = |name: &str, value: &str, body: &[u8]| client.request("PUT", path, &[(name, value)], Some(body));
    put("if-match", "*", b"{}").expect_error(412, "If-Match");
    let first = put("if-none-match", "*", b"{\"a\": 1}").expect(201).etag();
    let refused = put("if-none-match", "*", b"{\"a\": 2}").expect_error(412, "If-None-Match");
    assert_eq!(refused.etag(), first);
    assert_eq!(format!("\"{}\"", refused.json()["etag"].as_str().unwrap()), first);

    let list = format!("\"something else\", W/{first}");
    let second = put("if-match", &list, b"{\"a\": 2}").expect(200).etag();
    put("if-match", &first, b"{\"a\": 3}").expect_error(412, "ETag");
    put("if-match", "\"open", b"{}").expect_error(400, "If-Match");
    client.request("DELETE", path, &[("if-match", &first)], None).expect_error(412, "ETag");
    assert_eq!(client.get(path).json(), json!({"a": 2}));

    let unchanged = client.request("GET", path, &[("if-none-match", &second)], None).expect(304);
    assert_eq!(unchanged.etag(), second);
    client.request("GET", path, &[("if-none-match", &first)], None).expect(200);
    client.request("GET", path, &[("if-match", &first)], None).expect_error(412, "state");
    let head = client.request("HEAD", path, &[], None).expect(200);
    assert_eq!((head.etag(), head.body.len()), (second, 0));
}

#[test]
fn patches_of_three_kinds_apply() {
    let (_server, client) = start();
    let path = "/api/documents/pages/home";
    client.put(path, &json!({"title": "Home", "draft": true, "visits": 4})).expect(201);
    client.patch(path, MERGE, &json!({"draft": null, "title": "Start"})).expect(200);
    let operations = json!([{"op": "test", "path": "/title", "value": "Start"}, {"op": "replace", "path": "/title", "value": "Begin"}]);
    client.patch(path, &format!("{PATCH}; charset=utf-8"), &operations).expect(200);
    client.patch(path, INCREMENT, &json!({"pointer": "/visits", "by": 3})).expect(200);
    assert_eq!(client.get(path).json(), json!({"title": "Begin", "visits": 7}));

    client.patch(path, PATCH, &operations).expect_error(409, "test at operation 0");
    client.patch(path, PATCH, &json!({"op": "replace"})).expect_error(400, "JSON Patch");
    client
        .patch(path, PATCH, &json!([{"op": "replace", "path": "/none/there", "value": 1}]))
        .expect_error(400, "JSON Patch");
    client.patch(path, INCREMENT, &json!({"pointer": "/title", "by": 1})).expect_error(400, "increment");
    client.patch(path, INCREMENT, &json!({"pointer": "/visits", "by": "1"})).expect_error(400, "pointer");
    let refused = client.patch(path, "application/json", &json!({})).expect_error(415, MERGE);
    assert!(refused.header("accept-patch").unwrap().contains(INCREMENT));
    client.request("PATCH", path, &[], Some(b"{}")).expect_error(415, PATCH);
    assert_eq!(client.get(path).json(), json!({"title": "Begin", "visits": 7}));
}

#[test]
fn keys_hold_slashes_and_history_is_told_from_keys() {
    let (_server, client) = start();
    client.put("/api/documents/files/a/b.txt", &json!({"n": 1})).expect(201);
    assert_eq!(client.get("/api/documents/files/a%2Fb.txt").expect(200).json(), json!({"n": 1}));
    client.put("/api/documents/files/%C3%A9t%C3%A9%20%3F", &json!({"n": 2})).expect(201);
    client.put("/api/documents/files/a%2Fhistory", &json!({"n": 3})).expect(201);
    client.put("/api/documents/files/history", &json!({"n": 4})).expect(201);
    let page = client.get("/api/documents/files").expect(200).json();
    assert_eq!(keys(&page), ["a/b.txt", "a/history", "history", "\u{e9}t\u{e9} ?"]);

    client.patch("/api/documents/files/a/b.txt", MERGE, &json!({"n": 5})).expect(200);
    let history = client.get("/api/documents/files/a/b.txt/history").expect(200).json();
    let entries = history["data"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "{history}");
    assert_eq!((&entries[0]["kind"], &entries[1]["seq"]), (&json!("edit"), &json!(2)));
    client.delete("/api/documents/files/a/b.txt").expect(200);
    let history = client.get("/api/documents/files/a/b.txt/history").expect(200).json();
    assert_eq!(history["data"][2]["kind"], json!("delete"));
    assert_eq!(
        client.get("/api/documents/files/a%2Fhistory/history").expect(200).json()["data"].as_array().unwrap().len(),
        1
    );
    client.get("/api/documents/files/none/history").expect_error(404, "no such document");

    let refused = client.put("/api/documents/files/x/history", &json!({})).expect_error(405, "%2F");
    assert_eq!(refused.header("allow"), Some("GET,HEAD"));
    for path in ["/api/documents/files/%", "/api/documents/files/%zz", "/api/documents/files/%FF"] {
        client.get(path).expect_error(400, "percent-encode");
    }
    let long = format!("/api/documents/files/{}", "k".repeat(513));
    client.get(&long).expect_error(400, "512 bytes");
    client.put("/api/documents/files/a%00b", &json!({})).expect_error(400, "control characters");
    client.put("/api/documents/fi%20les/a", &json!({})).expect_error(400, "collection name");
}

#[test]
fn a_path_that_is_no_text_is_refused_as_all_else_is() {
    let (_server, client) = start();
    for path in ["/api/users/%FF", "/api/templates/%FF/export", "/api/tokens/%", "/api-docs/%FF", "/%zz"] {
        let refused = client.get(path).expect_error(400, "percent-encode");
        assert_eq!(refused.header("content-type"), Some("application/json"), "{path}");
    }
}

#[test]
fn what_requests_answer_is_what_the_openapi_document_says() {
    let (_server, client) = start();
    let openapi = client.get("/api/openapi.json").expect(200).json();
    let at = |pointer: &str| openapi.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
    let document = "/paths/~1api~1documents~1{collection}~1{key}";
    for (method, statuses) in [("get", [200, 304].as_slice()), ("put", &[200, 201, 202]), ("delete", &[200, 202])] {
        for status in statuses {
            at(&format!("{document}/{method}/responses/{status}"));
        }
    }
    let patches: Vec<&String> =
        at(&format!("{document}/patch/requestBody/content")).as_object().unwrap().keys().collect();
    assert_eq!(patches, [PATCH, MERGE, INCREMENT]);
    let metrics = client.get("/metrics").expect(200);
    let said = at("/paths/~1metrics/get/responses/200/content").as_object().unwrap();
    let (essence, _) = metrics.header("content-type").unwrap().split_once(';').unwrap();
    assert!(said.contains_key(essence), "{essence} is not in {said:?}");
    assert_eq!(at("/paths/~1api~1roles/post/requestBody/content/application~1json/schema/required"), &json!(["name"]));
    let links = at("/paths/~1api~1roles/post/responses/201/links").as_object().unwrap();
    assert_eq!(links["delete_api_roles_role_id"]["parameters"], json!({"role_id": "$response.body#/role_id"}));
    // A query has no null.
    for parameter in at("/paths/~1api~1users/get/parameters").as_array().unwrap() {
        assert!(parameter["schema"]["type"].is_string(), "{parameter}");
    }
}

#[test]
fn a_document_is_read_as_it_was() {
    let (server, client) = start();
    let path = "/api/documents/users/ann";
    client.put(path, &json!({"name": "Ann"})).expect(201);
    client.put(path, &json!({"name": "Anne", "visits": 1})).expect(200);
    client.delete(path).expect(200);
    client.put(path, &json!({"name": "anew"})).expect(201);
    let history = client.get(&format!("{path}/history")).expect(200).json();
    let hash = |at: usize| history["data"][at]["hash"].as_str().unwrap();
    assert_eq!((&history["data"][0]["deps"], &history["data"][1]["deps"]), (&json!([]), &json!([hash(0)])));
    let at = |name: &str| client.get(&format!("{path}?at={name}"));
    assert_eq!(at(hash(0)).expect(200).json(), json!({"name": "Ann"}));
    assert_eq!(at(&hash(1)[..12]).expect(200).json(), json!({"name": "Anne", "visits": 1}));
    assert_eq!(at(&format!("{},{}", hash(0), hash(1))).expect(200).json(), json!({"name": "Anne", "visits": 1}));
    at(hash(2)).expect_error(410, "deleted in this version");
    assert_eq!(at(hash(3)).expect(200).json(), client.get(path).json());
    at(&"0".repeat(64)).expect_error(404, "no such change");
    for bad in ["", "abc", "nothex", &format!("{}&conflicts=true", hash(0))] {
        at(bad).expect(400);
    }
    client.get(&format!("/api/documents/users/nobody?at={}", hash(0))).expect_error(404, "no such document");

    let knot = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knot"));
        let token = std::fs::read_to_string(server.data_dir().join("admin.token")).unwrap();
        let command = command.args(arguments).env("KNOT_SERVER", server.setup.url()).env("KNOT_TOKEN", token.trim());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_eq!(
        knot(&["doc", "get", "users/ann", "--at", hash(0), "--json"]).trim(),
        "{\"collection\":\"users\",\"etag\":null,\"key\":\"ann\",\"value\":{\"name\":\"Ann\"}}"
    );
    let shown = knot(&["doc", "diff", "users/ann", hash(0), &hash(1)[..8]]);
    assert_eq!(shown, "changed  /name  \"Ann\" -> \"Anne\"\nadded    /visits  1\n");
    let shown = knot(&["doc", "diff", "users/ann", hash(2)]);
    assert_eq!(shown, "added    /name  \"anew\"\n");
}

#[test]
fn a_collection_is_listed_in_pages() {
    let (_server, client) = start();
    for index in 0..45 {
        client.put(&format!("/api/documents/items/k{index:02}"), &json!({"n": index})).expect(201);
    }
    client.put("/api/documents/items/other", &json!({})).expect(201);
    client.put("/api/documents/itemsmore/k00", &json!({})).expect(201);
    client.delete("/api/documents/items/k03").expect(200);

    let all = client.get("/api/documents/items").expect(200).json();
    assert_eq!((keys(&all).len(), &all["next"]), (45, &Value::Null));
    let entry = &all["data"][1];
    assert_eq!((&entry["key"], &entry["value"]), (&json!("k01"), &json!({"n": 1})));
    assert_eq!(
        format!("{}", entry["etag"].as_str().unwrap()),
        client.get("/api/documents/items/k01").etag().trim_matches('"')
    );
    assert!(entry["modified"].as_str().unwrap().ends_with('Z'), "{entry}");

    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = client.get(&format!("/api/documents/items?prefix=k&limit=20{after}")).expect(200).json();
        seen.extend(keys(&page).iter().map(ToString::to_string));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let expected: Vec<String> = (0..45).filter(|index| *index != 3).map(|index| format!("k{index:02}")).collect();
    assert_eq!(seen, expected);

    let bare = client.get("/api/documents/items?values=false&limit=1").expect(200).json();
    assert_eq!((bare["data"][0].get("value"), &bare["next"]), (None, &json!("k00")));
    assert_eq!(client.get("/api/documents/empty").expect(200).json(), json!({"data": [], "next": null}));
    client.get("/api/documents/items?limit=0").expect_error(400, "1 to 1000");
    client.get("/api/documents/items?limit=1001").expect_error(400, "1 to 1000");
    client.get("/api/documents/items?limt=10").expect_error(400, "limt");
}

#[test]
fn large_documents_make_a_page_end_early_and_none_is_missed() {
    let (_server, client) = start();
    let text = "x".repeat(900_000);
    for index in 0..8 {
        client.put(&format!("/api/documents/big/{index}"), &json!({"text": text})).expect(201);
    }
    let first = client.get("/api/documents/big").expect(200).json();
    let next = first["next"].as_str().expect("the page is full").to_owned();
    let second = client.get(&format!("/api/documents/big?after={next}")).expect(200).json();
    assert_eq!([keys(&first), keys(&second)].concat(), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(second["next"], Value::Null);
}

#[test]
fn the_token_is_asked_for_under_api_and_nowhere_else() {
    let (_server, client) = start();
    let stranger = client.with_token(None);
    for path in ["/health", "/livez", "/readyz", "/metrics", "/api/ping"] {
        stranger.get(path).expect(200);
    }
    for client in [stranger, client.with_token(Some("wrong")), client.with_token(Some(""))] {
        for path in ["/api/cluster", "/api/documents/users/ann", "/api/changes", "/api/nothing", "/api/ping/more"] {
            let refused = client.get(path).expect_error(401, "admin.token");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        }
        client.put("/api/documents/users/ann", &json!({})).expect_error(401, "Bearer");
    }
    client.get("/api/documents/users/ann").expect(404);
}

#[test]
fn unknown_paths_and_methods_are_told_so() {
    let (_server, client) = start();
    for path in ["/nothing", "/api", "/api/documents", "/api/documents/users/", "/api/zones/au", "/API/ping"] {
        client.get(path).expect_error(404, "no such path");
    }
    let refused = client.request("POST", "/api/documents/users/ann", &[], Some(b"{}")).expect_error(405, "Allow");
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        assert!(refused.header("allow").unwrap().contains(method), "{refused:?}");
    }
    client.delete("/api/ping").expect_error(405, "Allow");
    client.get("/api/cluster/leave").expect_error(405, "Allow");
}

#[test]
fn rubbish_in_bodies_is_refused_with_its_limit() {
    let (_server, client) = start();
    let path = "/api/documents/users/ann";
    let put = |body: &[u8]| client.request("PUT", path, &[], Some(body));
    for body in ["", "{", "{\"a\":}", "nothing", "{} {}", "\u{0}", "{\"a\": 1e999}"] {
        put(body.as_bytes()).expect_error(400, "not JSON");
    }
    put(b"{\"a\": \"\xff\"}").expect_error(400, "not JSON");
    for body in ["[]", "7", "null", "\"text\""] {
        put(body.as_bytes()).expect_error(400, "object");
    }
    let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    put(nested(32).as_bytes()).expect(201);
    put(nested(33).as_bytes()).expect_error(400, "32 levels");
    put(nested(100).as_bytes()).expect_error(400, "32 levels");
    put(nested(100_000).as_bytes()).expect_error(400, "32 levels");
    put("[".repeat(1_000_000).as_bytes()).expect_error(400, "32 levels");
    put(format!("{{\"a\": [{}1]}}", "1,".repeat(60_000)).as_bytes()).expect_error(400, "50000");

    let text = json!({"text": "x".repeat(1 << 20)}).to_string();
    put(text.as_bytes()).expect_error(413, "1048576 bytes");
    put(&vec![b' '; 2 << 20]).expect_error(413, "1048576 bytes");
    put(json!({"text": "x".repeat((1 << 20) - 12)}).to_string().as_bytes()).expect_error(400, "1044480 bytes");
    let mut fits = json!({"text": "x".repeat(1_000_000)}).to_string();
    fits += &" ".repeat((1 << 20) - fits.len());
    put(fits.as_bytes()).expect(200);
}

#[test]
fn an_overlong_body_is_refused_before_it_is_sent_and_while_it_is_chunked() {
    let (_server, client) = start();
    let path = "/api/documents/users/ann";
    let mut stream = client.connect().unwrap();
    let head = client.head("PUT", path, &[("expect", "100-continue"), ("content-length", "2097152")]);
    stream.write_all((head + "\r\n").as_bytes()).unwrap();
    read_reply(&mut BufReader::new(stream), "PUT").unwrap().expect_error(413, "1048576 bytes");

    let mut stream = client.connect().unwrap();
    stream.write_all((client.head("PUT", path, &[("transfer-encoding", "chunked")]) + "\r\n").as_bytes()).unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, " ".repeat(1 << 16));
    for _ in 0..20 {
        stream.write_all(chunk.as_bytes()).unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    read_reply(&mut BufReader::new(stream), "PUT").unwrap().expect_error(413, "1048576 bytes");

    let mut stream = client.connect().unwrap();
    stream
        .write_all((client.head("PUT", path, &[("transfer-encoding", "chunked")]) + "\r\nzz\r\n").as_bytes())
        .unwrap();
    read_reply(&mut BufReader::new(stream), "PUT").unwrap().expect_error(400, "body");
}

#[test]
fn rubbish_in_heads_is_refused_with_its_limit() {
    let (_server, client) = start();
    let long = format!("/api/documents/users?after={}", "k".repeat(9_000));
    client.get(&long).expect_error(414, "8192 bytes");
    let names: Vec<String> = (0..80).map(|index| format!("x-{index}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    client.request("GET", "/api/ping", &many, None).expect_error(431, "64 header fields");
    let large = "y".repeat(40_000);
    client.request("GET", "/api/ping", &[("x-large", &large)], None).expect_error(431, "32768 bytes");

    let huge = "z".repeat(200_000);
    // The server may close before it has read all of it; what counts is that it serves on.
    if let Ok(reply) = client.try_request("GET", "/api/ping", &[("x-huge", &huge)], None) {
        reply.expect(431);
    }
    for line in ["GET\r\n\r\n", "\u{0}\u{1}\u{2}\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /a b HTTP/1.1\r\n\r\n"] {
        let mut stream = client.connect().unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{line:?}: {answer}");
    }
    client.get("/api/ping").expect(200);
}

#[test]
fn a_head_that_does_not_end_is_told_408() {
    let (_server, client) = start();
    let began = Instant::now();
    let mut stream = client.connect().unwrap();
    stream.write_all(b"GET /api/ping HTTP/1.1\r\nhost: x\r\nx-slow: ").unwrap();
    read_reply(&mut BufReader::new(stream), "GET").unwrap().expect_error(408, "10 s");
    let took = began.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(20)).contains(&took), "{took:?}");
}

#[test]
fn a_connection_is_kept_and_requests_may_be_sent_ahead() {
    let (_server, client) = start();
    let mut stream = client.connect().unwrap();
    let requests: String = (0..3).map(|_| client.head("GET", "/api/ping", &[]) + "\r\n").collect();
    stream.write_all(requests.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    for _ in 0..3 {
        read_reply(&mut reader, "GET").unwrap().expect(200);
    }
    reader.get_mut().write_all((client.head("GET", "/api/cluster", &[]) + "\r\n").as_bytes()).unwrap();
    read_reply(&mut reader, "GET").unwrap().expect(200);
}

#[test]
fn documents_of_a_zone_are_served_inside_it_only() {
    let (_server, client) = start();
    client.put("/api/zones/au/documents/users/ann", &json!({"zone": "au"})).expect(201);
    client.put("/api/documents/users/ann", &json!({"zone": "none"})).expect(201);
    assert_eq!(client.get("/api/zones/au/documents/users/ann").expect(200).json(), json!({"zone": "au"}));
    assert_eq!(keys(&client.get("/api/zones/au/documents/users").expect(200).json()), ["ann"]);
    client.get("/api/zones/au/documents/users/ann/history").expect(200);
    for path in [
        "/api/zones/gb/documents/users/ann",
        "/api/zones/gb/documents/users",
        "/api/zones/gb/documents/users/a/history",
    ] {
        let refused = client.get(path).expect_error(421, "zone gb");
        assert_eq!(refused.json()["urls"], json!([]));
    }
    client.put("/api/zones/gb/documents/users/ann", &json!({})).expect_error(421, "zone gb");
    client.get("/api/zones/a%2Fb/documents/users/ann").expect_error(400, "zone name");
}

#[test]
fn an_edit_that_too_few_hold_is_accepted_not_done() {
    let (_server, client) = start();
    let path = "/api/documents/users/ann";
    let reply = client.put(&format!("{path}?w=1&timeout=100"), &json!({"a": 1})).expect(202);
    assert_eq!((&reply.json()["held_by"], &reply.json()["created"]), (&json!(0), &json!(true)));
    assert_eq!(client.get(path).expect(200).etag(), reply.etag());
    client.put(&format!("{path}?w=0"), &json!({"a": 2})).expect(200);
    client.put(&format!("{path}?w=1&timeout=60001"), &json!({})).expect_error(400, "60000");
    client.put(&format!("{path}?w=1000000"), &json!({})).expect_error(400, "w is over");
    client.put(&format!("{path}?w=-1"), &json!({})).expect_error(400, "query");
    client.put(&format!("{path}?v=1"), &json!({})).expect_error(400, "query");
}

#[test]
fn conflicts_are_shown_when_asked_for() {
    let (_server, client) = start();
    let path = "/api/documents/users/ann";
    client.put(path, &json!({"a": 1})).expect(201);
    let shown = client.get(&format!("{path}?conflicts=true")).expect(200);
    assert_eq!(shown.json(), json!({"value": {"a": 1}, "conflicts": [], "revived": false}));
    client.get(&format!("{path}?conflicts=perhaps")).expect_error(400, "query");
}

#[test]
fn the_feed_gives_a_snapshot_then_what_happens() {
    let (_server, client) = start();
    for key in ["a", "b", "c"] {
        client.put(&format!("/api/documents/users/{key}"), &json!({"key": key})).expect(201);
    }
    client.put("/api/documents/users/a", &json!({"key": "a2"})).expect(200);
    client.delete("/api/documents/users/b").expect(200);

    let mut feed = client.changes("", &[]);
    let (changes, end) = feed.snapshot();
    let names: Vec<_> = changes
        .iter()
        .map(|event| (event.data["key"].as_str().unwrap(), event.data["deleted"] == json!(true)))
        .collect();
    assert_eq!(names, [("c", false), ("a", false), ("b", true)]);
    assert_eq!(end.data["sequence"], changes[2].data["sequence"]);
    assert_eq!(changes[0].data["collection"], json!("users"));
    assert_eq!(changes[0].data["scope"], json!("global"));
    assert_eq!(changes[0].data.get("value"), None);

    let etag = client.put("/api/documents/users/d", &json!({"key": "d"})).expect(201).json()["etag"].clone();
    let live = feed.expect("change");
    assert_eq!((&live.data["key"], &live.data["etag"]), (&json!("d"), &etag));
    let (feed_id, sequence) = live.id.as_ref().unwrap().split_once('-').unwrap();
    assert_eq!(json!(feed_id), client.get("/api/cluster/status").json()["id"]);
    assert_eq!(json!(sequence.parse::<u64>().unwrap()), live.data["sequence"]);
}

#[test]
fn the_feed_resumes_after_any_event_without_gap_or_repeat() {
    let (_server, client) = start();
    let put = |index: usize| {
        client.put(&format!("/api/documents/items/{index:03}"), &json!({"n": index})).expect(201);
    };
    (0..300).for_each(put);
    let (changes, _) = client.changes("", &[]).snapshot();
    assert_eq!(changes.len(), 300);
    let middle = changes[149].id.clone().unwrap();
    let (rest, _) = client.changes(&format!("?since={middle}"), &[]).snapshot();
    assert_eq!(rest, changes[150..]);
    let (rest, _) = client.changes("?since=0", &[("last-event-id", &middle)]).snapshot();
    assert_eq!(rest, changes[150..]);

    // Writes go on while a reader is between snapshot and live: each is seen once.
    let mut feed = client.changes(&format!("?since={middle}"), &[]);
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| (300..500).for_each(put));
        while seen.len() < 350 {
            let event = feed.next().expect("the feed goes on");
            if event.name == "change" {
                seen.push(event.data["key"].as_str().unwrap().to_owned());
            }
        }
    });
    let expected: Vec<String> = (150..500).map(|index| format!("{index:03}")).collect();
    assert_eq!(seen, expected);
}

#[test]
fn the_feed_is_filtered_and_carries_values_when_asked() {
    let (_server, client) = start();
    let mut feed = client.changes("?collection=users&prefix=a&values=true", &[]);
    assert_eq!(feed.snapshot().0, []);
    client.put("/api/documents/pages/a1", &json!({})).expect(201);
    client.put("/api/documents/users/b1", &json!({})).expect(201);
    client.put("/api/documents/users/a1", &json!({"n": 1})).expect(201);
    let event = feed.expect("change");
    assert_eq!((&event.data["key"], &event.data["value"]), (&json!("a1"), &json!({"n": 1})));
    client.delete("/api/documents/users/a1").expect(200);
    let event = feed.expect("change");
    assert_eq!((&event.data["deleted"], event.data.get("value")), (&json!(true), None));
    client.get("/api/changes?collection=no%20name").expect_error(400, "collection name");
    client.get("/api/changes?sinse=0").expect_error(400, "sinse");
}

#[test]
fn the_feed_starts_over_for_ids_that_are_not_its_own() {
    let (_server, client) = start();
    client.put("/api/documents/users/a", &json!({})).expect(201);
    let mut feed = client.changes(&format!("?since={}-5", "0".repeat(32)), &[]);
    let reset = feed.expect("reset");
    assert!(reset.data["reason"].as_str().unwrap().contains("another server"), "{reset:?}");
    assert!(reset.id.unwrap().ends_with("-0"));
    assert_eq!(feed.snapshot().0.len(), 1);

    let me = client.get("/api/cluster/status").json()["id"].as_str().unwrap().to_owned();
    let mut feed = client.changes(&format!("?since={me}-999999"), &[]);
    let reset = feed.expect("reset");
    assert!(reset.data["reason"].as_str().unwrap().contains("ahead"), "{reset:?}");
    assert_eq!(feed.snapshot().0.len(), 1);
    for id in ["7", "x-1", &format!("{me}-"), &format!("{me}-x")] {
        client.get(&format!("/api/changes?since={id}")).expect_error(400, "since");
        client.request("GET", "/api/changes", &[("last-event-id", id)], None).expect_error(400, "Last-Event-ID");
    }
}

/// What a system with default limits buffers between two of its processes, and a good deal more.
const UNREAD_BYTES: usize = 24 << 20;

/// Writes `count` documents through as many connections as make an fsync worth its while.
fn write_many(client: &Client, count: usize, value: &Value, key: impl Fn(usize) -> String + Sync) {
    const WRITERS: usize = 16;
    let body = value.to_string();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (body, key) = (&body, &key);
            scope.spawn(move || {
                let mut reader = BufReader::new(client.connect().unwrap());
                for index in (writer..count).step_by(WRITERS) {
                    let length = body.len().to_string();
                    let path = format!("/api/documents/items/{}", key(index));
                    let head = client.head("PUT", &path, &[("content-length", &length)]);
                    reader.get_mut().write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
                    read_reply(&mut reader, "PUT").unwrap().expect(201);
                }
            });
        }
    });
}

#[test]
fn a_reader_that_is_too_far_behind_is_told_and_goes_on_where_it_stopped() {
    const LARGE: usize = 256 << 10;
    const SMALL: usize = 9_000;
    let (_server, client) = start();
    let mut feed = client.changes("?values=true", &[]);
    feed.snapshot();
    // Nobody reads: these fill what the system buffers, and those behind them more than the server keeps.
    write_many(&client, UNREAD_BYTES / LARGE, &json!({"text": "x".repeat(LARGE)}), |index| format!("large-{index}"));
    write_many(&client, SMALL, &json!({}), |index| format!("small-{index}"));

    let (mut seen, mut last) = (Vec::new(), None);
    let reset = loop {
        let event = feed.next().expect("the feed says why it ends");
        match event.name.as_str() {
            "change" => {
                seen.push(event.data["sequence"].as_u64().unwrap());
                last = event.id;
            }
            "heartbeat" => last = event.id,
            _ => break event,
        }
    };
    assert_eq!((reset.name.as_str(), &reset.id), ("reset", &None), "{reset:?}");
    assert!(reset.data["reason"].as_str().unwrap().contains("too slow"), "{reset:?}");
    assert_eq!(reset.data["buffer"], json!(8_192));
    assert!(feed.next().is_none(), "it ends there");

    let (rest, end) = client.changes(&format!("?since={}", last.unwrap()), &[]).snapshot();
    seen.extend(rest.iter().map(|event| event.data["sequence"].as_u64().unwrap()));
    let all = u64::try_from(UNREAD_BYTES / LARGE + SMALL).unwrap();
    assert_eq!(seen, (1..=all).collect::<Vec<_>>(), "each change once, in order");
    assert_eq!(end.data["sequence"], json!(all));
}

#[test]
fn the_feed_says_that_it_is_still_there() {
    let (_server, client) = start();
    let mut feed = client.changes("", &[]);
    let (_, end) = feed.snapshot();
    let beat = feed.next().unwrap();
    assert_eq!((beat.name.as_str(), &beat.data), ("heartbeat", &end.data));
    assert_eq!(beat.id, end.id);
}

#[test]
fn the_cluster_is_shown() {
    let (server, client) = start();
    let list = client.get("/api/cluster").expect(200).json();
    assert_eq!((&list["total"], list["data"].as_array().unwrap().len()), (&json!(1), 1));
    let me = &list["data"][0];
    assert_eq!((&me["name"], &me["zone"], &me["status"]), (&json!("n1"), &json!("au"), &json!("alive")));
    for name in ["id", "address", "incarnation", "version", "rtt_ms", "clock_ahead_ms", "clock_within_ms", "last_seen"]
    {
        assert!(me.get(name).is_some(), "{name} in {me}");
    }
    assert!(me["last_seen"].as_str().unwrap().starts_with("20"), "{me}");
    assert_eq!(client.get("/api/cluster?status=alive").json()["total"], json!(1));
    assert_eq!(client.get("/api/cluster?status=failed").json(), json!({"data": [], "total": 0, "troubles": []}));
    client.get("/api/cluster?status=active").expect_error(400, "alive, suspect, failed, left, evicted");

    client.put("/api/documents/users/ann", &json!({})).expect(201);
    let status = client.get("/api/cluster/status").expect(200).json();
    assert_eq!(status["id"], me["id"]);
    assert_eq!(status["members"], json!({"alive": 1, "suspect": 0, "failed": 0, "left": 0}));
    assert_eq!((&status["disk_full"], &status["sequence"]), (&json!(false), &json!(1)));
    assert_eq!(status["scopes"][0]["scope"], json!("global"));
    assert_eq!(status["scopes"][0]["documents"], json!(1));
    assert!(
        status["uptime_s"].is_u64() && status["queues"].is_array() && status["quarantined"] == json!([]),
        "{status}"
    );
    assert_eq!(status["version"], client.get("/api/ping").json()["version"]);
    drop(server);
}

#[test]
fn members_that_cannot_be_forced_out_are_named_with_the_reason() {
    let (_server, client) = start();
    let force = |body: Value| client.request("DELETE", "/api/cluster", &[], Some(body.to_string().as_bytes()));
    let id = client.get("/api/cluster/status").json()["id"].clone();
    force(json!({"name": "nobody"})).expect_error(404, "no such member");
    force(json!({"id": "0".repeat(32)})).expect_error(404, "no such member");
    force(json!({"name": "n1"})).expect_error(409, "leave");
    force(json!({"id": id, "force": true})).expect_error(409, "leave");
    for body in [json!({}), json!({"name": "a", "id": id}), json!({"id": "12"}), json!({"nam": "a"}), json!([])] {
        force(body).expect_error(400, "send");
    }
    client.request("DELETE", "/api/cluster", &[], None).expect_error(400, "not JSON");
    client.request("DELETE", "/api/cluster?force=true", &[], Some(b"{\"name\":\"n2\"}")).expect_error(400, "force");
    client.request("POST", "/api/cluster/leave?dry_run=true", &[], None).expect_error(400, "dry_run");
    client.get("/readyz").expect(200);
}

#[test]
fn health_and_metrics_are_open() {
    let (_server, client) = start();
    client.put("/api/documents/users/ann", &json!({"n": 1})).expect(201);
    let open = client.with_token(None);
    let ping = open.get("/api/ping").expect(200).json();
    assert_eq!((&ping["status"], &ping["zone"]), (&json!("ok"), &json!("au")));
    assert_eq!(open.get("/livez").expect(200).json(), json!({"status": "ok"}));
    assert_eq!(open.get("/readyz").expect(200).json(), json!({"status": "ready"}));
    let health = open.get("/health").expect(200).json();
    assert_eq!((&health["status"], &health["problem"]), (&json!("ok"), &Value::Null));

    let metrics = open.get("/metrics").expect(200);
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = metrics.text();
    for line in [
        "knot_http_requests_total{method=\"PUT\",route=\"/api/documents/{collection}/{key}\",status=\"201\"} 1",
        "knot_documents{scope=\"global\",state=\"live\"} 1",
        "knot_members{status=\"alive\"} 1",
        "knot_sequence 1",
        "knot_disk_full 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    // Connections of requests before this one may take a moment to be gone.
    support::wait_for("one connection", support::STOP_TIMEOUT, || {
        let text = open.get("/metrics").expect(200).text();
        text.lines().any(|found| found == "knot_http_connections 1").then_some(())
    });
    for name in ["knot_http_request_duration_seconds_bucket", "knot_process_resident_memory_bytes", "knot_queue_depth"]
    {
        assert!(text.contains(name), "{name} in\n{text}");
    }
}

#[test]
fn a_stop_ends_feeds_and_idle_connections_and_keeps_what_was_written() {
    let (mut server, client) = start();
    client.put("/api/documents/users/ann", &json!({"n": 1})).expect(201);
    let mut feed = client.changes("", &[]);
    let (changes, end) = feed.snapshot();
    let idle = client.connect().unwrap();
    let status = server.stop();
    assert!(status.success(), "{status}\n{}", server.log());
    while let Some(event) = feed.next() {
        assert_eq!(event.name, "heartbeat", "{event:?}");
    }
    drop(idle);

    server.restart();
    let client = server.client();
    assert_eq!(client.get("/api/documents/users/ann").expect(200).json(), json!({"n": 1}));
    let (again, _) = client.changes("", &[]).snapshot();
    assert_eq!(again, changes);
    let mut feed = client.changes(&format!("?since={}", end.id.unwrap()), &[]);
    assert_eq!(feed.snapshot().0, []);
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let (mut server, client) = start();
    for index in 0..50 {
        client.put(&format!("/api/documents/users/{index}"), &json!({"n": index})).expect(201);
    }
    server.kill();
    server.restart();
    let client = server.client();
    for index in 0..50 {
        assert_eq!(client.get(&format!("/api/documents/users/{index}")).expect(200).json(), json!({"n": index}));
    }
}

#[test]
fn leaving_is_accepted_and_stops_the_server() {
    let (mut server, client) = start();
    client.request("POST", "/api/cluster/leave", &[], None).expect(202);
    let status = server.wait_for_exit();
    assert!(status.success(), "{status}\n{}", server.log());
}
