//! The `knot` command from outside: what it prints where, and the code it exits with. Servers are scripted ones that
//! give one answer a connection and keep what they were asked.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use knot_server::config::TlsConfig;

fn knot(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knot"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    let empty = tempfile::tempdir().expect("a folder");
    knot(arguments).current_dir(empty.path()).output().expect("knot runs")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("stdout is text")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("stderr is text")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("knot exits by itself")
}

/// A server that answers one request after another, each on a connection of its own.
struct Scripted {
    url: String,
    serving: JoinHandle<Vec<String>>,
}

impl Scripted {
    fn answering(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let serving = std::thread::spawn(move || {
            let serve = |answer: String| {
                let (mut stream, _) = listener.accept().expect("a connection");
                let request = request(&mut stream);
                stream.write_all(answer.as_bytes()).expect("answered");
                request
            };
            answers.into_iter().map(serve).collect()
        });
        Self { url, serving }
    }

    fn requests(self) -> Vec<String> {
        self.serving.join().expect("every answer was asked for")
    }
}

/// Reads a request's head and as much body as it announces.
fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .next()
                .unwrap_or(0);
            if body.len() >= length {
                return text;
            }
        }
        let mut more = [0; 4096];
        let got = stream.read(&mut more).expect("a request");
        assert!(got > 0, "the request broke off: {text}");
        bytes.extend_from_slice(&more[..got]);
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn ask(answer: &str, arguments: &[&str]) -> (Output, String) {
    let server = Scripted::answering(&[answer]);
    let output = run(&[arguments, &["--server", &server.url, "--token", "t0ken"]].concat());
    assert!(code(&output) == 0 || !err(&output).is_empty());
    (output, server.requests().remove(0))
}

#[test]
fn genkey_prints_a_key_and_nothing_else() {
    let (one, two) = (run(&["genkey"]), run(&["genkey"]));
    let key = out(&one);
    assert_eq!(code(&one), 0);
    assert!(key.len() == 33 && key.ends_with('\n'), "{key:?}");
    assert!(key.trim_end().bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_ne!(key, out(&two));
    let json: serde_json::Value = serde_json::from_str(&out(&run(&["genkey", "--json"]))).expect("JSON");
    assert_eq!(json["key"].as_str().map(str::len), Some(32));
}

#[test]
fn every_command_has_help_with_examples() {
    for command in [
        "",
        "server",
        "demo",
        "genkey",
        "ping",
        "completions",
        "doc",
        "doc get",
        "doc put",
        "doc patch",
        "doc delete",
        "doc list",
        "doc history",
        "doc diff",
        "doc watch",
        "cluster",
        "cluster members",
        "cluster timeline",
        "cluster status",
        "cluster leave",
        "cluster force-leave",
    ] {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let output = run(&arguments);
        assert_eq!(code(&output), 0, "{command}");
        assert!(out(&output).contains("EXAMPLES:"), "{command} has no examples");
        assert!(err(&output).is_empty(), "{command}");
    }
    assert!(out(&run(&["server", "--help"])).contains("KNOT_CLUSTER_ADVERTISE_ADDR"));
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(out(&output).contains("force-leave"), "{shell}");
    }
}

#[test]
fn wrong_arguments_exit_with_2_and_say_so_on_stderr() {
    for arguments in [
        &["doc", "get", "users"][..],
        &["doc", "put", "users/ann", "{", "--server", "http://127.0.0.1:1"],
        &["doc", "put", "users/ann", "{}", "--timeout", "5"],
        &["nonsense"],
        &["ping", "--server", "localhost:3000"],
        &["ping", "--server", "http://127.0.0.1:99999"],
        &["demo", "--for", "soon"],
        &["cluster", "force-leave"],
        &[],
    ] {
        let output = run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", err(&output));
        assert!(out(&output).is_empty() && !err(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_wrong_configuration_exits_with_2_and_shows_the_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = "[server.cluster]\nkey = 'NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl'\nadverise_addr = 'knot1:3100'\n";
    std::fs::write(dir.path().join("knot.toml"), text).expect("written");
    for arguments in [&["server"][..], &["ping"], &["server", "--config", "knot.toml"]] {
        let output = knot(arguments).current_dir(dir.path()).output().expect("knot runs");
        assert_eq!(code(&output), 2, "{arguments:?}");
        let message = err(&output);
        assert!(message.contains("knot.toml:3:1: `adverise_addr`"), "{message}");
        assert!(message.contains("did you mean `advertise_addr`?"), "{message}");
    }
    let output = run(&["server", "--config", "missing.toml"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("missing.toml"));
    let output = knot(&["server"]).env("KNOT_LISTEN", "x:y").current_dir(std::env::temp_dir()).output();
    assert!(err(&output.expect("knot runs")).contains("variable KNOT_LISTEN"));
}

#[test]
fn a_server_that_is_not_there_exits_with_3() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let output = run(&["ping", "--server", &format!("http://127.0.0.1:{port}")]);
    assert_eq!(code(&output), 3);
    assert!(err(&output).starts_with(&format!("error: cannot reach http://127.0.0.1:{port}: ")), "{}", err(&output));
    assert!(err(&output).contains("hint: "));
}

#[test]
fn refusals_have_their_exit_codes_and_print_error_and_hint() {
    for (status, expected) in [
        ("403 Forbidden", 4),
        ("404 Not Found", 5),
        ("410 Gone", 5),
        ("409 Conflict", 6),
        ("412 Precondition Failed", 6),
        ("507 Insufficient Storage", 1),
    ] {
        let body = r#"{"error": "what is wrong", "hint": "what to do"}"#;
        let (output, _) = ask(&answer(status, "", body), &["doc", "get", "users/ann"]);
        assert_eq!(code(&output), expected, "{status}");
        assert_eq!(err(&output), "error: what is wrong\nhint: what to do\n");
        assert!(out(&output).is_empty());
    }
    let told = r#"{"error": "no", "hint": "send the header"}"#;
    let (output, _) = ask(&answer("401 Unauthorized", "", told), &["doc", "get", "users/ann"]);
    assert_eq!(code(&output), 4);
    assert!(err(&output).contains("hint: the token is not this server's"), "{}", err(&output));
    let server = Scripted::answering(&[&answer("401 Unauthorized", "", told)]);
    let output = run(&["doc", "get", "users/ann", "--server", &server.url]);
    assert!(err(&output).contains("hint: give --token"), "{}", err(&output));
    let body = r#"{"error": "not here", "urls": ["http://a:1", "http://b:2"]}"#;
    let (output, _) = ask(&answer("421 Misdirected Request", "", body), &["doc", "get", "x/y", "--zone", "gb"]);
    assert!(err(&output).contains("--server: http://a:1 http://b:2"), "{}", err(&output));
}

#[test]
fn what_a_server_says_cannot_drive_the_terminal() {
    let body = "{\"error\": \"a\\u001b[2Jb\"}";
    let (output, _) = ask(&answer("500 Internal Server Error", "", body), &["doc", "get", "users/ann"]);
    assert!(!err(&output).contains('\u{1b}'), "{:?}", err(&output));
}

#[test]
fn documents_are_written_and_read() {
    let done = answer(
        "201 Created",
        "ETag: \"5f0c\"\r\n",
        r#"{"etag": "5f0c", "created": true, "changed": true, "held_by": 2}"#,
    );
    let put = ["doc", "put", "users/a b/c", r#"{"n":1}"#, "--if-none-match", "*", "--replicas", "2", "--timeout", "9"];
    let (output, request) = ask(&done, &put);
    assert_eq!(out(&output), "users/a b/c created 5f0c\n");
    assert!(request.starts_with("PUT /api/documents/users/a%20b%2Fc?w=2&timeout=9 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Bearer t0ken\r\n"), "{request}");
    assert!(request.contains("if-none-match: *\r\n") && request.ends_with("\r\n\r\n{\"n\":1}"), "{request}");

    let (output, request) = ask(&answer("200 OK", "ETag: \"5f0c\"\r\n", r#"{"n":1}"#), &["doc", "get", "users/ann"]);
    assert_eq!(out(&output), "{\n  \"n\": 1\n}\n");
    assert!(request.starts_with("GET /api/documents/users/ann HTTP/1.1\r\n"), "{request}");
    let get = ["doc", "get", "users/ann", "--json", "--zone", "au"];
    let (output, request) = ask(&answer("200 OK", "ETag: \"5f0c\"\r\n", r#"{"n":1}"#), &get);
    let json: serde_json::Value = serde_json::from_str(&out(&output)).expect("JSON");
    assert_eq!(json, serde_json::json!({"collection": "users", "key": "ann", "etag": "5f0c", "value": {"n": 1}}));
    assert!(request.starts_with("GET /api/zones/au/documents/users/ann HTTP/1.1\r\n"), "{request}");

    let changed = answer("200 OK", "", r#"{"etag": "6", "created": false, "changed": true, "held_by": 0}"#);
    for (flag, kind) in [
        (None, "application/merge-patch+json"),
        (Some("--json-patch"), "application/json-patch+json"),
        (Some("--increment"), "application/vnd.knot.increment+json"),
    ] {
        let arguments: Vec<&str> = ["doc", "patch", "users/ann", "[]"].into_iter().chain(flag).collect();
        let (output, request) = ask(&changed, &arguments);
        assert_eq!(out(&output), "users/ann changed 6\n");
        assert!(request.contains(&format!("content-type: {kind}\r\n")), "{request}");
    }
    let (output, request) = ask(&changed, &["doc", "delete", "users/ann", "--if-match", "5f0c"]);
    assert_eq!(out(&output), "users/ann deleted 6\n");
    assert!(request.starts_with("DELETE ") && request.contains("if-match: \"5f0c\"\r\n"), "{request}");
}

#[test]
fn a_value_may_come_from_a_file_or_from_stdin() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("ann.json"), "{\"from\": \"file\"}").expect("written");
    std::fs::write(dir.path().join("in"), "{\"from\": \"stdin\"}").expect("written");
    for (argument, expected) in [(Some("@ann.json"), "file"), (Some("-"), "stdin"), (None, "stdin")] {
        let server = Scripted::answering(&[&answer("200 OK", "", "{}")]);
        let arguments: Vec<&str> =
            ["doc", "put", "users/ann", "--server", &server.url].into_iter().chain(argument).collect();
        let stdin = std::fs::File::open(dir.path().join("in")).expect("there");
        let output = knot(&arguments).current_dir(dir.path()).stdin(stdin).output().expect("knot runs");
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert!(server.requests()[0].ends_with(&format!("{{\"from\": \"{expected}\"}}")));
    }
}

#[test]
fn a_value_that_no_server_takes_is_not_sent() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("big.json"), format!("{{\"a\": \"{}\"}}", "x".repeat(20 << 20))).expect("written");
    let put = ["doc", "put", "users/ann", "@big.json", "--server", "http://127.0.0.1:1"];
    let output = knot(&put).current_dir(dir.path()).output().expect("knot runs");
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("big.json: longer than 1048576 bytes"), "{}", err(&output));
    let zeros = std::fs::File::open("/dev/zero").expect("there");
    let output = knot(&["doc", "put", "users/ann", "-"]).stdin(zeros).output().expect("knot runs");
    assert!(err(&output).contains("longer than 1048576 bytes"), "{}", err(&output));
}

#[test]
fn a_write_that_too_few_hold_in_time_says_so_and_fails() {
    let late = answer("202 Accepted", "", r#"{"etag": "5", "created": true, "changed": true, "held_by": 1}"#);
    let (output, _) = ask(&late, &["doc", "put", "users/ann", "{}", "--replicas", "2"]);
    assert_eq!(code(&output), 1);
    assert_eq!(out(&output), "users/ann created 5\n");
    assert!(err(&output).contains("on 1 of 2 others in time"), "{}", err(&output));
}

#[test]
fn a_list_follows_pages_up_to_its_limit() {
    let pages = [
        r#"{"data": [{"key": "a", "etag": "1", "modified": "2026", "value": {"x": 1}}], "next": "a"}"#,
        r#"{"data": [{"key": "b", "etag": "2", "modified": "2026", "value": {}}], "next": "b"}"#,
    ];
    let server = Scripted::answering(&pages.map(|page| answer("200 OK", "", page)).each_ref().map(String::as_str));
    let output = run(&["doc", "list", "users", "--limit", "2", "--prefix", "p&", "--server", &server.url]);
    let lines: Vec<String> =
        out(&output).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["KEY MODIFIED ETAG VALUE", "a 2026 1 {\"x\":1}", "b 2026 2 {}"]);
    assert_eq!(err(&output), "there are more: go on with --after 'b'\n");
    let requests = server.requests();
    assert!(requests[0].starts_with("GET /api/documents/users?prefix=p%26&limit=2 "), "{}", requests[0]);
    assert!(requests[1].starts_with("GET /api/documents/users?prefix=p%26&after=a&limit=1 "), "{}", requests[1]);
}

#[test]
fn members_are_a_table_with_those_in_trouble_first() {
    let body = r#"{"data": [
        {"id": "1", "name": "knot1", "zone": "au", "address": "10.0.0.1:3100", "status": "alive",
         "via": "tcp+udp", "rtt_ms": 12.345},
        {"id": "2", "name": "knot2", "zone": "gb", "address": null, "status": "left", "rtt_ms": null},
        {"id": "3", "name": "knot3", "zone": "us", "address": "10.0.0.3:3100", "status": "failed", "rtt_ms": null}
    ], "total": 3, "troubles": [
        {"address": "wss://knot4.internal", "error": "its certificate has expired", "since": "2026-11-22T10:00:00Z"}
    ]}"#;
    let (output, request) = ask(&answer("200 OK", "", body), &["cluster", "members"]);
    assert!(request.starts_with("GET /api/cluster HTTP/1.1\r\n"));
    assert_eq!(
        out(&output),
        "NAME   ADDRESS        ZONE  STATUS  VIA      ROUND TRIP\n\
         knot3  10.0.0.3:3100  us    failed  -                 -\n\
         knot1  10.0.0.1:3100  au    alive   tcp+udp     12.3 ms\n\
         knot2  -              gb    left    -                 -\n\
         \n\
         no stream with wss://knot4.internal since 2026-11-22T10:00:00Z: its certificate has expired\n"
    );
    let (output, _) = ask(&answer("200 OK", "", body), &["cluster", "members", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out(&output)).expect("JSON");
    assert_eq!(json["total"], 3);
}

#[test]
fn what_became_of_a_member_is_told_with_the_evidence() {
    let body = r#"{"data": [
        {"at": "2026-11-22T10:00:03.000Z", "id": "3", "name": "knot3", "zone": "us", "from": "suspect", "to": "failed",
         "why": "did not answer knot1 and knot2; last heard here 3.2 s before"},
        {"at": "2026-11-22T09:00:00.000Z", "id": "3", "name": "knot3", "zone": "us", "from": null, "to": "alive",
         "why": "met"}], "total": 2}"#;
    let (output, request) = ask(&answer("200 OK", "", body), &["cluster", "timeline", "knot3"]);
    assert!(request.starts_with("GET /api/cluster/timeline?name=knot3 "), "{request}");
    assert_eq!(
        out(&output),
        "WHEN                      NAME   ZONE  FROM     TO      WHY\n\
         2026-11-22T10:00:03.000Z  knot3  us    suspect  failed  did not answer knot1 and knot2; last heard here 3.2 s before\n\
         2026-11-22T09:00:00.000Z  knot3  us    -        alive   met\n"
    );
    let (_, request) = ask(&answer("200 OK", "", r#"{"data": [], "total": 0}"#), &["cluster", "timeline", "--id", "3"]);
    assert!(request.starts_with("GET /api/cluster/timeline?id=3 "), "{request}");
}

#[test]
fn members_are_taken_out_by_name_or_by_id() {
    let gone = answer("200 OK", "", r#"{"id": "3", "name": "knot3", "status": "left"}"#);
    let (output, request) = ask(&gone, &["cluster", "force-leave", "knot3"]);
    assert_eq!(out(&output), "knot3 (3) is left\n");
    assert!(request.starts_with("DELETE /api/cluster ") && request.ends_with("{\"name\":\"knot3\"}"), "{request}");
    let (_, request) = ask(&gone, &["cluster", "force-leave", "--id", "3", "--force"]);
    assert!(request.ends_with("{\"force\":true,\"id\":\"3\"}"), "{request}");
    let (output, request) = ask(&answer("202 Accepted", "", r#"{"status": "leaving"}"#), &["cluster", "leave"]);
    assert_eq!(code(&output), 0);
    assert!(request.starts_with("POST /api/cluster/leave "), "{request}");
}

#[test]
fn a_group_is_changed_by_name_in_what_is_given() {
    let list = answer("200 OK", "", r#"{"count": 1, "groups": [{"group_id": "g1", "name": "Web"}]}"#);
    let server = Scripted::answering(&[&list, &answer("200 OK", "", r#"{"status": true}"#)]);
    let update = ["group", "update", "web", "--name", "Web team", "--max-spaces", "5"];
    let output = run(&[&update[..], &["--server", &server.url, "--token", "t0ken"]].concat());
    assert_eq!(out(&output), "changed the group web\n", "{}", err(&output));
    let requests = server.requests();
    assert!(requests[1].starts_with("PUT /api/groups/g1 "), "{requests:?}");
    assert!(requests[1].ends_with("{\"max_spaces\":5,\"name\":\"Web team\"}"), "{requests:?}");
    let nothing = run(&["group", "update", "web"]);
    assert_eq!(code(&nothing), 2, "{}", out(&nothing));
}

#[test]
fn status_prints_scopes_and_queues() {
    let body = r#"{"id": "1", "name": "knot1", "zone": "au", "cluster": "c", "version": "0.1.0", "uptime_s": 5,
        "scopes": [{"scope": "global", "documents": 7, "deleted": 1, "root": "ab"}], "members": {"alive": 3},
        "queues": [{"name": "orphans", "depth": 0, "limit": 9}], "sequence": 8, "quarantined": [], "disk_full": false}"#;
    let (output, _) = ask(&answer("200 OK", "", body), &["cluster", "status"]);
    let shown = out(&output);
    for line in ["name           knot1", "7 documents, 1 deleted, root ab", "3 alive", "queue orphans  0 of 9"] {
        assert!(shown.contains(line), "no {line:?} in\n{shown}");
    }
}

#[test]
fn a_watch_prints_changes_and_ends_where_it_is_told() {
    let events = "event: change\nid: n-1\ndata: {\"sequence\":1,\"scope\":\"global\",\"collection\":\"users\",\
        \"key\":\"ann\",\"etag\":\"5f0c\",\"deleted\":false}\n\nevent: change\nid: n-2\ndata: {\"sequence\":2,\
        \"scope\":\"zone:au\",\"collection\":\"users\",\"key\":\"bob\",\"etag\":\"6\",\"deleted\":true}\n\n\
        event: snapshot-end\nid: n-2\ndata: {\"sequence\":2}\n\n";
    let feed = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{events}");
    let (output, request) = ask(&feed, &["doc", "watch", "users", "--once", "--since", "n-0"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(out(&output), "1  global  users/ann  5f0c\n2  zone:au  users/bob  deleted\n");
    assert!(request.starts_with("GET /api/changes?since=n-0&collection=users HTTP/1.1\r\n"), "{request}");

    let (output, _) = ask(&feed, &["doc", "watch", "--json"]);
    assert_eq!(code(&output), 3, "the server closed the feed");
    assert_eq!(out(&output).lines().count(), 2);
    assert!(err(&output).contains("hint: go on with --since n-2"), "{}", err(&output));
}

#[test]
fn history_is_a_table() {
    let body = r#"{"data": [
        {"hash": "aabbccddeeff00", "node": "n1", "seq": 9, "time": 1795253400123, "kind": "edit"},
        {"hash": "bb", "node": "n2", "seq": 10, "time": -1, "kind": "delete"},
        {"hash": "cc", "node": "n2", "seq": 11, "kind": "edit"}
    ]}"#;
    let (output, request) = ask(&answer("200 OK", "", body), &["doc", "history", "users/ann"]);
    assert!(request.starts_with("GET /api/documents/users/ann/history "), "{request}");
    assert_eq!(
        out(&output),
        "TIME                      KIND    NODE  SEQ  HASH\n\
         2026-11-21T09:30:00.123Z  edit    n1      9  aabbccddeeff...\n\
         1969-12-31T23:59:59.999Z  delete  n2     10  bb\n\
         -                         edit    n2     11  cc\n"
    );
    let (output, _) = ask(&answer("200 OK", "", body), &["doc", "history", "users/ann", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out(&output)).expect("JSON");
    assert_eq!(json["data"][0]["time"], 1_795_253_400_123_i64);
}

#[test]
fn a_variable_that_is_set_to_nothing_is_as_one_that_is_not_set() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("knot-data")).expect("made");
    std::fs::write(dir.path().join("knot-data/admin.token"), "found").expect("written");
    let server = Scripted::answering(&[&answer("200 OK", "", "{}")]);
    let listen = server.url.trim_start_matches("http://");
    std::fs::write(dir.path().join("knot.toml"), format!("[server]\nlisten = '{listen}'\n")).expect("written");
    let mut ping = knot(&["ping"]);
    for name in ["KNOT_SERVER", "KNOT_TOKEN", "KNOT_CACERT", "KNOT_CONFIG"] {
        ping.env(name, "");
    }
    let output = ping.current_dir(dir.path()).output().expect("knot runs");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(server.requests()[0].contains("authorization: Bearer found\r\n"));
}

/// A token found on this machine goes to this machine's server, and to no other unless both were named.
#[test]
fn the_token_is_found_in_the_data_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let data_dir = dir.path().join("knot-data");
    std::fs::create_dir(&data_dir).expect("made");
    std::fs::write(data_dir.join("admin.token"), "found\n").expect("written");
    let pong = answer("200 OK", "", r#"{"status": "ok", "version": "0.1.0", "zone": "au"}"#);
    let asked = |arguments: &[&str], here: &Path| {
        let server = Scripted::answering(&[&pong]);
        let output = knot(&[&["ping", "--server", &server.url], arguments].concat())
            .current_dir(here)
            .output()
            .expect("knot runs");
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert!(out(&output).contains("ok, version 0.1.0, zone au"), "{}", out(&output));
        server.requests().remove(0)
    };
    assert!(asked(&[], dir.path()).contains("authorization: Bearer found\r\n"));
    let data_dir = data_dir.to_str().expect("text");
    assert!(asked(&["--data-dir", data_dir], Path::new("/")).contains("authorization: Bearer found\r\n"));
    assert!(!asked(&["--data-dir", "/nowhere"], dir.path()).contains("authorization"));
}

/// A server with a self-signed certificate that answers as many connections as come through the handshake.
fn with_tls(data_dir: &Path, attempts: usize) -> (String, JoinHandle<usize>) {
    let tls = knot_server::tls::server_tls(&TlsConfig::SelfSigned, data_dir, &[]).expect("made");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://localhost:{}", listener.local_addr().expect("bound").port());
    let serving = std::thread::spawn(move || {
        let pong = answer("200 OK", "Connection: close\r\n", r#"{"status": "ok"}"#);
        let serve = |_: &usize| {
            let (stream, _) = listener.accept().expect("a connection");
            let session = rustls::ServerConnection::new(tls.config.clone()).expect("set up");
            let mut stream = rustls::StreamOwned::new(session, stream);
            let mut head = [0; 4096];
            stream.read(&mut head).is_ok_and(|got| got > 0) && stream.write_all(pong.as_bytes()).is_ok()
        };
        (0..attempts).filter(serve).count()
    });
    (url, serving)
}

#[test]
fn a_self_signed_server_is_trusted_by_its_file_and_never_without() {
    let dir = tempfile::tempdir().expect("a folder");
    let (url, serving) = with_tls(dir.path(), 3);
    let cert = dir.path().join("cert.pem");
    let output = run(&["ping", "--server", &url]);
    assert_eq!(code(&output), 3);
    assert!(err(&output).contains("cannot trust") && err(&output).contains("--cacert"), "{}", err(&output));
    let output = run(&["ping", "--server", &url, "--cacert", cert.to_str().expect("text")]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let output = run(&["ping", "--server", &url, "--data-dir", dir.path().to_str().expect("text")]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(serving.join().expect("it ended"), 2);
}

#[test]
fn a_server_without_tls_that_is_asked_with_it_is_told_from_one_that_is_not_trusted() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let authority = listener.local_addr().expect("bound");
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        assert!(stream.read(&mut [0; 4096]).expect("a handshake") > 0);
        stream.write_all(answer("400 Bad Request", "", "").as_bytes()).expect("answered");
    });
    let output = run(&["ping", "--server", &format!("https://{authority}")]);
    assert_eq!(code(&output), 3);
    assert!(err(&output).contains("does not speak TLS"), "{}", err(&output));
    assert!(err(&output).contains(&format!("try http://{authority}")), "{}", err(&output));
    serving.join().expect("it ended");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = knot(&["completions", "zsh"]).stdout(Stdio::piped()).spawn().expect("knot runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
