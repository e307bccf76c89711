use super::*;

fn parse(text: &str) -> Result<Loaded, ConfigError> {
    parse_with(text, &[])
}

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Config::parse(Some((Path::new("knot.toml"), text)), &variables, "box")
}

fn refusal(text: &str) -> String {
    parse(text).expect_err("it should be refused").to_string()
}

fn direct(host: &str, port: u16) -> Endpoint {
    Endpoint::Direct(HostPort::new(host, port))
}

/// The TCP/UDP example of the cluster page, as it stands there.
const SEED: &str = "[server]
zone = 'au'

[server.cluster]
advertise_addr = 'knot1.internal:3100'
bind_addr = '0.0.0.0:3100'
key = 'NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl'
peers = ['knot1.internal:3100', 'knot2.internal:3100', 'knot3.internal:3100']
compression = true
";

#[test]
fn the_cluster_page_example_parses_as_it_stands() {
    let config = parse(SEED).expect("it is the documented example").config;
    let cluster = config.cluster.expect("it has a key");
    assert_eq!(config.zone, "au");
    assert_eq!(config.name, "box");
    assert_eq!(cluster.name, "knot");
    assert!(*cluster.keys.first() == ClusterKey::new("NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl").expect("32 characters"));
    assert_eq!(cluster.advertise_addr, [direct("knot1.internal", 3100)]);
    assert_eq!(cluster.bind_addr, Some(HostPort::new("0.0.0.0", 3100)));
    assert_eq!(cluster.peers.len(), 3);
    assert!(cluster.compression && cluster.allow_leaf_nodes);
    assert_eq!(cluster.failed_retention, Duration::from_secs(72 * 3600));
}

#[test]
fn no_file_is_a_server_of_its_own_on_loopback() {
    let loaded = Config::parse(None, &BTreeMap::new(), "box").expect("nothing can be wrong");
    assert_eq!(loaded.config.listen.to_string(), "127.0.0.1:3000");
    assert_eq!(loaded.config.data_dir, Path::new("knot-data"));
    assert_eq!(loaded.config.tls, None);
    assert_eq!(loaded.config.cluster, None);
    assert_eq!(loaded.config.url_at("box"), "http://127.0.0.1:3000");
    assert_eq!(loaded.source, None);
}

#[test]
fn every_setting_is_taken() {
    let text = "[server]\nlisten = '[::]:4000'\nurl = 'https://knot.internal/'\nzone = 'gb'\nname = 'one'
data_dir = '~/data'\nlog = 'json'\n[server.tls]\ncert_file = 'c.pem'\nkey_file = 'k.pem'\nuse_tls = true
[server.cluster]\nname = 'prod'\nkey = 'NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl'\nbind_addr = '[::1]:3101'
peers = ['[::1]']\ncompression = false\nfailed_retention = '1h'\nallow_leaf_nodes = false\n";
    let config = parse_with(text, &[("HOME", "/home/u")]).expect("all of it exists").config;
    assert_eq!(config.listen, HostPort::new("::", 4000));
    assert_eq!(config.url_at("x"), "https://knot.internal");
    assert_eq!(config.data_dir, Path::new("/home/u/data"));
    assert_eq!(config.log, LogFormat::Json);
    assert_eq!(config.tls, Some(TlsConfig::Files { cert: "c.pem".into(), key: "k.pem".into() }));
    let cluster = config.cluster.expect("it has a key");
    assert_eq!(cluster.peers, [direct("::1", 3100)]);
    assert_eq!(cluster.failed_retention, Duration::from_secs(3600));
    assert!(!cluster.compression && !cluster.allow_leaf_nodes);
    assert!(cluster.advertise_addr.is_empty());
}

#[test]
fn tls_is_on_unless_only_this_machine_can_listen() {
    let tls = |text| parse(text).expect("valid").config.tls;
    assert_eq!(tls("[server]\nlisten = '0.0.0.0:3000'"), Some(TlsConfig::SelfSigned));
    assert_eq!(tls("[server]\nlisten = 'localhost:3000'"), None);
    assert_eq!(tls("[server]\nlisten = '0.0.0.0:3000'\n[server.tls]\nuse_tls = false"), None);
    assert_eq!(tls("[server.tls]\nuse_tls = true"), Some(TlsConfig::SelfSigned));
    let loaded = parse("[server.tls]\ncert_file = 'c'\nkey_file = 'k'").expect("valid");
    assert!(loaded.config.tls.is_none() && loaded.warnings.len() == 1);
}

#[test]
fn a_misspelt_key_is_shown_with_its_line_and_the_nearest_one() {
    let message = refusal("[server]\nzone = 'au'\n\n[server.cluster]\nadverise_addr = 'knot1:3100'\n");
    assert_eq!(
        message,
        "knot.toml:5:1: `adverise_addr`: unknown key in [server.cluster]\n  \
           |\n\
         5 | adverise_addr = 'knot1:3100'\n  \
           | ^^^^^^^^^^^^^\n  \
           = did you mean `advertise_addr`?"
    );
    assert!(refusal("[server.clutser]\nkey = 'x'").contains("did you mean `cluster`?"));
    assert!(refusal("[sever]\nzone = 'x'").contains("did you mean `server`?"));
    assert!(refusal("[server]\npeers = []").contains("did you mean `server.cluster.peers`?"));
    assert!(refusal("[server]\ncolour = 1").contains("knot server --help"));
}

#[test]
fn wrong_values_and_types_are_shown_with_their_line() {
    let key = "key = 'NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl'";
    for (text, place, says) in [
        ("[server]\nzone = 5".to_owned(), "knot.toml:2:8: `zone`", "must be a string, found an integer"),
        ("[server]\nzone = 'a b'".to_owned(), "knot.toml:2:8: `zone`", "letters"),
        ("[server]\nlog = 'xml'".to_owned(), "knot.toml:2:7: `log`", "\"text\" or \"json\""),
        ("[server]\nurl = 'knot'".to_owned(), "knot.toml:2:7: `url`", "not a URL"),
        ("[server]\nlisten = 'x:99999'".to_owned(), "knot.toml:2:10: `listen`", "not a port"),
        ("[server.tls]\nuse_tls = 'yes'".to_owned(), "knot.toml:2:11: `use_tls`", "true or false, found a string"),
        ("[server.tls]\ncert_file = 'c'".to_owned(), "knot.toml:2:13: `cert_file`", "key_file"),
        ("[server.cluster]\nkey = 'short'".to_owned(), "knot.toml:2:7: `key`", "has 5 bytes"),
        (format!("[server.cluster]\n{key}\nfailed_retention = '72'"), "knot.toml:3:20:", "not a duration"),
        (format!("[server.cluster]\n{key}\npeers = ['a', 'b c']"), "knot.toml:3:15: `peers`", "not an address"),
        (format!("[server.cluster]\n{key}\npeers = 'a'"), "knot.toml:3:9: `peers`", "list of strings, found a string"),
        ("server = 1".to_owned(), "knot.toml:1:1: `server`", "must be a table"),
        ("[server\n".to_owned(), "knot.toml:1:8: ", "table"),
        ("[server]\nzone = 'a'\nzone = 'b'".to_owned(), "knot.toml:3:1: ", "duplicate key"),
    ] {
        let message = refusal(&text);
        assert!(message.starts_with(place) && message.contains(says), "{text:?} gave\n{message}");
    }
}

#[test]
fn a_cluster_without_a_key_is_told_how_to_make_one() {
    let message = refusal("[server.cluster]\npeers = ['knot1:3100']");
    assert!(message.starts_with("knot.toml:2:9: `peers`") && message.contains("knot genkey"), "{message}");
    assert!(refusal("[server.cluster]\nbind_addr = '0.0.0.0'").contains("knot genkey"));
    assert_eq!(parse("[server.cluster]\npeers = []").expect("nothing is asked for").config.cluster, None);
}

#[test]
fn what_does_not_exist_yet_is_refused_by_name() {
    let origin = refusal("[server.origin]\nserver = 'https://x'\ntoken = 't'");
    assert!(origin.contains("server.origin") && origin.contains("do not exist yet"), "{origin}");
}

/// The HTTPS example of the cluster page, as it stands there.
const SEED_HTTPS: &str = "[server]
zone = 'au'

[server.cluster]
advertise_addr = 'wss://knot1.internal/'
key = 'NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl'
peers = ['wss://knot1.internal', 'wss://knot2.internal', 'wss://knot3.internal']
";

const KEY: &str = "[server.cluster]\nkey = 'NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl'\n";

fn cluster_of(lines: &str) -> ClusterConfig {
    parse(&format!("{KEY}{lines}")).expect("valid").config.cluster.expect("it has a key")
}

#[test]
fn the_https_example_of_the_cluster_page_is_understood() {
    let loaded = parse(SEED_HTTPS).expect("it is as the page shows it");
    let cluster = loaded.config.cluster.expect("it has a key");
    let [Endpoint::WebSocket(url)] = &cluster.advertise_addr[..] else { panic!("{:?}", cluster.advertise_addr) };
    assert_eq!((url.host.host(), url.host.port(), url.prefix.as_str()), ("knot1.internal", 443, ""));
    assert_eq!(cluster.bind_addr, None, "others come by WebSocket alone");
    assert_eq!(cluster.peers.len(), 3);
    assert_eq!(cluster.trust, Trust::default());
    let [warning] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
    assert!(warning.contains("127.0.0.1:3000 alone") && warning.contains("`listen`"), "{warning}");
}

#[test]
fn a_server_may_be_reached_both_ways() {
    let both = cluster_of("advertise_addr = ['knot1.internal', 'https://knot1.internal/gate/']");
    assert_eq!(both.advertise_addr[0], direct("knot1.internal", 3100));
    assert_eq!(both.advertise_addr[1].to_string(), "wss://knot1.internal/gate");
    assert_eq!(both.bind_addr, Some(HostPort::new("0.0.0.0", CLUSTER_PORT)));
    let bound = cluster_of("advertise_addr = 'wss://a'\nbind_addr = '10.0.0.1'");
    assert_eq!(bound.bind_addr, Some(HostPort::new("10.0.0.1", CLUSTER_PORT)), "as it was asked for");
    let five = refusal(&format!("{KEY}advertise_addr = ['a', 'b', 'c', 'd', 'e']"));
    assert!(five.contains("more than 4 addresses"), "{five}");
}

#[test]
fn whom_to_trust_is_said_once() {
    let pins = format!("[server.cluster.tls]\npins = ['{}', '{}']", "ab:".repeat(31) + "AB", "0".repeat(64));
    let trust = cluster_of(&pins).trust;
    assert_eq!(trust.pins, ["AB:".repeat(31) + "AB", "00:".repeat(31) + "00"]);
    assert!(refusal(&format!("{KEY}[server.cluster.tls]\npins = ['AB:CD']")).contains("64 hexadecimal digits"));
    let trust = cluster_of("[server.cluster.tls]\nca_file = '/etc/knot/ca.pem'").trust;
    assert_eq!((trust.ca_file, trust.skip_verify), (Some("/etc/knot/ca.pem".into()), false));
    let void = refusal(&format!("{KEY}[server.cluster.tls]\nca_file = 'ca.pem'\nskip_verify = true"));
    assert!(void.contains("`skip_verify`") && void.contains("remove one or the other"), "{void}");
}

#[test]
fn variables_win_over_the_file_and_are_named_when_wrong() {
    let loaded = parse_with(
        SEED,
        &[
            ("KNOT_ZONE", "gb"),
            ("KNOT_CLUSTER_PEERS", "a:1, b:2,"),
            ("KNOT_CLUSTER_COMPRESSION", "false"),
            ("KNOT_TOKEN", "secret"),
        ],
    )
    .expect("valid");
    let cluster = loaded.config.cluster.expect("it has a key");
    assert_eq!(loaded.config.zone, "gb");
    assert_eq!(cluster.peers, [direct("a", 1), direct("b", 2)]);
    assert!(!cluster.compression);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);

    let error = parse_with("", &[("KNOT_CLUSTER_KEY", "short")]).expect_err("too short").to_string();
    assert!(error.starts_with("variable KNOT_CLUSTER_KEY: "), "{error}");
    let error = parse_with("", &[("KNOT_CLUSTER_COMPRESSION", "maybe")]).expect_err("no flag").to_string();
    assert!(error.contains("KNOT_CLUSTER_COMPRESSION"), "{error}");
}

#[test]
fn a_misspelt_variable_is_a_warning_and_a_stranger_is_none() {
    let loaded = parse_with("", &[("KNOT_CLUSTER_KEE", "x"), ("KNOT_BUILD_FARM_RUNNER_ID", "y")]).expect("valid");
    assert_eq!(loaded.warnings, ["variable KNOT_CLUSTER_KEE means nothing to knot: did you mean KNOT_CLUSTER_KEY?"]);
}

#[test]
fn a_file_is_looked_for_in_the_documented_order() {
    let found = candidates(Some(Path::new("/home/u")));
    let expected = ["./knot.toml", "/home/u/knot.toml", "/home/u/.config/knot/knot.toml", "/etc/knot/knot.toml"];
    assert_eq!(found, expected.map(PathBuf::from));
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let error = Config::load(Some(Path::new("/nowhere/knot.toml"))).expect_err("it is not there").to_string();
    assert!(error.starts_with("cannot read /nowhere/knot.toml: "), "{error}");
}

#[test]
fn every_setting_has_a_variable_of_its_own() {
    let variables: std::collections::BTreeSet<_> = SETTINGS.iter().map(|setting| setting.variable).collect();
    assert_eq!(variables.len(), SETTINGS.len());
}

#[test]
fn the_host_name_can_name_a_zone() {
    assert!(is_label(&host_name(), ZONE_BYTES_MAX));
}

#[test]
fn keys_take_the_place_of_the_key_while_one_replaces_another() {
    let (new, old) = ("0123456789abcdefghijklmnopqrstuv", "NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl");
    let keys = |text: &str| parse(text).map(|loaded| loaded.config.cluster.expect("it has keys").keys);
    let both = keys(&format!("[server.cluster]\nkeys = ['{new}', '{old}']\n")).expect("both are keys");
    let ids: Vec<_> = both.iter().map(ClusterKey::id).collect();
    assert_eq!(ids, [new, old].map(|text| ClusterKey::new(text).expect("a key").id()));
    let variables = [("KNOT_CLUSTER_KEYS", "0123456789abcdefghijklmnopqrstuv, NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl")];
    assert!(parse_with("", &variables).expect("the same").config.cluster.is_some_and(|cluster| cluster.keys == both));

    let beside = refusal(&format!("[server.cluster]\nkey = '{old}'\nkeys = ['{new}']\n"));
    assert!(beside.contains("stands beside `key`"), "{beside}");
    assert!(refusal("[server.cluster]\nkeys = []\n").contains("is empty"));
    let short = refusal(&format!("[server.cluster]\nkeys = ['{new}',\n 'short']\n"));
    assert!(short.contains("has 5 bytes") && short.contains(":3:"), "{short}");
    let many: Vec<String> = (0..9).map(|n| format!("'{n}123456789abcdefghijklmnopqrstuv'")).collect();
    assert!(refusal(&format!("[server.cluster]\nkeys = [{}]\n", many.join(", "))).contains("more than 8"));
}
