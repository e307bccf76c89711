//! What people and clients write.

use knot_fuzz::config::KEY;
use knot_fuzz::script::written;
use knot_server::config::SETTINGS;

use super::Seed;

pub(crate) fn config() -> Vec<Seed> {
    let whole = format!(
        "[server]\nlisten = \"0.0.0.0:3000\"\nurl = \"https://knot1.internal:3000\"\nzone = \"au\"\nname = \"knot1\"\n\
         data_dir = \"~/knot\"\nlog = \"json\"\n\n[server.tls]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n\
         use_tls = true\n\n[server.cluster]\nname = \"home\"\nadvertise_addr = \"knot1.internal\"\n\
         bind_addr = \"[::]:3100\"\nkeys = [\"{KEY}\", \"0123456789abcdefghijklmnopqrstuv\"]\n\
         peers = [\"knot2:3100\", \"[2001:db8::1]:3100\"]\ncompression = false\nfailed_retention = \"1h\"\n\
         allow_leaf_nodes = true\n"
    );
    let file = |home: u8, text: &str| [&[home, 0], text.as_bytes()].concat();
    let variables =
        [&[0, 3][..], &variable("key", KEY), &variable("peers", "a:1,b:2,c"), &variable("compression", "false"), b""]
            .concat();
    let misplaced = format!("[server.cluster]\nkey = \"{KEY}\"\npeers = \"knot2\n");
    let nearly = format!("[server.cluster]\nkey = \"{KEY}!\"\n");
    vec![
        ("whole", file(1, &whole), 1),
        ("empty", file(0, ""), 1),
        ("variables", variables, 1),
        ("misspelt", file(0, "[server]\nlisten_on = \"x\"\n"), 0),
        ("key-that-is-too-long", file(0, &nearly), 0),
        ("key-on-a-line-before-a-mistake", file(0, &misplaced), 0),
        ("key-as-a-table", file(0, &format!("[server.cluster.key]\n\"{KEY}\" = 1\n")), 0),
        ("key-on-the-line-of-a-mistake", file(0, &format!("[server.cluster]\nkey = \"{KEY}\" peers = []\n")), 0),
        ("beyond-ascii", file(0, "[server]\nname = \"Zürich ✓\"\nzone = \"Zürich\"\n"), 0),
    ]
}

/// A setting of the cluster's by its number, and its text behind its length.
fn variable(setting: &str, text: &str) -> Vec<u8> {
    let path = format!("server.cluster.{setting}");
    let number = SETTINGS.iter().position(|setting| setting.path == path).unwrap();
    [&[u8::try_from(number).unwrap()], written(text.as_bytes()).as_slice()].concat()
}

pub(crate) fn body() -> Vec<Seed> {
    let body = |before: u8, kind: u8, text: &str| [&[before, kind], text.as_bytes()].concat();
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let nested = format!("{{\"k\": {}1{}}}", "[".repeat(40), "]".repeat(40));
    vec![
        ("put", body(0, 0, r#"{"name": "Ann", "n": 1, "f": 1.5, "l": [1, {"x": null}], "m": {"k": true}}"#), 1),
        ("put-over", body(1, 0, r#"{"name": "Eve", "tags": ["b", "c"], "m": {"k": []}}"#), 1),
        ("put-of-no-object", body(0, 0, "[1]"), 0),
        ("put-of-no-json", body(1, 0, "{\"a\": "), 0),
        ("put-of-numbers", body(0, 0, r#"{"a": 18446744073709551615, "b": -9223372036854775808, "c": 1e308}"#), 1),
        ("put-too-deep-to-read", body(0, 0, &deep), 0),
        ("put-too-deep-to-keep", body(0, 0, &nested), 0),
        ("merge", body(1, 1, r#"{"name": null, "m": {"k": 2, "l": "\ud83d\ude00"}}"#), 1),
        ("patch", body(1, 2, r#"[{"op": "test", "path": "/n", "value": 1}]"#), 0),
        ("patch-moves", body(2, 2, r#"[{"op": "move", "from": "/a~1b", "path": "/list/-"}]"#), 1),
        ("increment", body(1, 3, r#"{"pointer": "/visits", "by": -3}"#), 1),
        ("increment-by-too-much", body(1, 3, r#"{"pointer": "/visits", "by": -9223372036854775808}"#), 0),
        ("increment-of-text", body(1, 3, r#"{"pointer": "/name", "by": 1}"#), 0),
        ("patch-of-another-type", body(1, 4, "{}"), 0),
    ]
}

pub(crate) fn scenario() -> Vec<Seed> {
    macro_rules! scenario {
        ($name:literal, $expected:literal) => {
            ($name, include_bytes!(concat!("../../../../../sim/scenarios/", $name, ".toml")).to_vec(), $expected)
        };
    }
    vec![
        ("small", SMALL.as_bytes().to_vec(), 3),
        ("late", SMALL.replace("at_ms = 3000", "at_ms = 18446744073709551615").into_bytes(), 0),
        scenario!("folder-copied", 2),
        scenario!("clock-in-2099", 2),
        scenario!("hostile-member", 3),
        scenario!("disk-full", 2),
        scenario!("region-lost", 2),
    ]
}

const SMALL: &str = r#"
quiet_at_ms = 5000
nodes = [{ name = "a", zone = "gb" }, { name = "b", zone = "us" }]
faults = [{ at_ms = 3000, for_ms = 1000, kind = "partition", left = [0], right = [1], one_way = false }]
operations = [{ id = 1, at_us = 3500000, node = 0, action = "put", target = { collection = "c", key = "k" } }]
"#;
