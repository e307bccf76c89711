//! `knot.toml` and the `KNOT_*` variables: whatever a person writes is understood or complained of.

use std::collections::BTreeMap;
use std::path::Path;

use knot_server::config::{Config, SETTINGS};

use crate::{Script, Target};

/// An input is `HOME` or none, a count of variables, each a number of a setting and a text, and the file.
pub const TARGET: Target = Target { name: "config", run, memory_bytes_max: 1 << 20, memory_bytes_per_byte: 256 };

/// Most variables in an input.
const VARIABLES_MAX: u8 = 8;

fn run(input: &[u8]) -> usize {
    let mut script = Script::new(input);
    let mut variables = BTreeMap::new();
    if script.byte() & 1 == 1 {
        variables.insert("HOME".to_owned(), "/home/ann".to_owned());
    }
    for _ in 0..script.byte().min(VARIABLES_MAX) {
        let name = SETTINGS[script.index(SETTINGS.len())].variable;
        variables.insert(name.to_owned(), String::from_utf8_lossy(script.bytes()).into_owned());
    }
    let text = String::from_utf8_lossy(script.rest());
    match Config::parse(Some((Path::new("knot.toml"), &text)), &variables, "localhost") {
        Ok(loaded) => {
            let shown = format!("{:?}", loaded.config.cluster.as_ref().map(|cluster| &cluster.keys));
            assert!(!shown.contains(KEY), "a key is shown: {shown}");
            assert!(!loaded.config.url_at("localhost").is_empty());
            let again = Config::parse(Some((Path::new("knot.toml"), &text)), &variables, "localhost");
            assert_eq!(again.map(|again| again.config).ok(), Some(loaded.config), "it means one thing");
            1 + loaded.warnings.len()
        }
        Err(error) => {
            let complaint = format!("{error} {error:?}");
            let is_secret = is_a_secret(&text, &variables);
            assert!(!is_secret || !complaint.contains(KEY), "a key is in a complaint: {complaint}");
            0
        }
    }
}

/// Whether the key stands where a key belongs and nowhere else; what is said of other settings may be shown.
fn is_a_secret(text: &str, variables: &BTreeMap<String, String>) -> bool {
    let is_of_another =
        |(name, value): (&String, &String)| !name.starts_with("KNOT_CLUSTER_KEY") && value.contains(KEY);
    let spans_lines = text.contains("\"\"\"") || text.contains("'''");
    !spans_lines
        && !variables.iter().any(is_of_another)
        && text.lines().filter(|line| line.contains(KEY)).all(is_of_keys)
}

/// Whether it is a line of `key` or `keys`, whatever is wrong with it.
fn is_of_keys(line: &str) -> bool {
    let value = line.trim_start().strip_prefix("key").map(|rest| rest.strip_prefix('s').unwrap_or(rest));
    value.is_some_and(|value| value.trim_start().starts_with('='))
}

/// The key that seeds hold. It is never shown, however wrong the text around it is.
pub const KEY: &str = "NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl";
