//! A template's `job` and `volumes`: which keys they have, and what stands behind each.

use std::ops::Range;

use serde::Deserialize;

use super::schema::{Key, Kind, Reader, any};
use super::tree::{self, Fault, Node, Value};
use super::values::{
    address, bind, capability, container_name, cpus, device, environment, extra_host, image, is_volume_name, memory,
    port_mapping,
};
use super::variables::{self, Facts, Known};
use super::{Complaint, NAME_BYTES_MAX, VALUE_BYTES_MAX};

/// Most complaints about one text: who has more reads no further.
const COMPLAINTS_MAX: usize = 64;
/// Most ports, volumes and the like of a container.
const ENTRIES_MAX: usize = 64;
/// Most words of a command, or variables of an environment.
const WORDS_MAX: usize = 256;
const PATH_BYTES_MAX: usize = 1024;
/// As Docker takes it.
const HOST_NAME_BYTES_MAX: usize = 253;

const JOB: [Key; 18] = [
    Key { name: "container_name", kind: Kind::Text(PATH_BYTES_MAX, container_name) },
    Key { name: "hostname", kind: Kind::Text(HOST_NAME_BYTES_MAX, any) },
    Key { name: "image", kind: Kind::Text(PATH_BYTES_MAX, image) },
    Key { name: "auth", kind: Kind::Table(&AUTH) },
    Key { name: "ports", kind: Kind::Texts(ENTRIES_MAX, PATH_BYTES_MAX, |text| port_mapping(text).map(drop)) },
    Key { name: "volumes", kind: Kind::Texts(ENTRIES_MAX, 2 * PATH_BYTES_MAX, |text| bind(text).map(drop)) },
    Key { name: "command", kind: Kind::Texts(WORDS_MAX, VALUE_BYTES_MAX, any) },
    Key { name: "privileged", kind: Kind::Flag },
    Key { name: "network", kind: Kind::Text(PATH_BYTES_MAX, any) },
    Key { name: "environment", kind: Kind::Texts(WORDS_MAX, 2 * VALUE_BYTES_MAX, environment) },
    Key { name: "cap_add", kind: Kind::Texts(ENTRIES_MAX, NAME_BYTES_MAX, capability) },
    Key { name: "cap_drop", kind: Kind::Texts(ENTRIES_MAX, NAME_BYTES_MAX, capability) },
    Key { name: "devices", kind: Kind::Texts(ENTRIES_MAX, 2 * PATH_BYTES_MAX, |text| device(text).map(drop)) },
    Key { name: "dns", kind: Kind::Texts(ENTRIES_MAX, NAME_BYTES_MAX, address) },
    Key { name: "add_host", kind: Kind::Texts(ENTRIES_MAX, PATH_BYTES_MAX, extra_host) },
    Key { name: "dns_search", kind: Kind::Texts(ENTRIES_MAX, HOST_NAME_BYTES_MAX, any) },
    Key { name: "memory", kind: Kind::Text(NAME_BYTES_MAX, |text| memory(text).map(drop)) },
    Key { name: "cpus", kind: Kind::Text(NAME_BYTES_MAX, |text| cpus(text).map(drop)) },
];
const AUTH: [Key; 2] = [
    Key { name: "username", kind: Kind::Text(VALUE_BYTES_MAX, any) },
    Key { name: "password", kind: Kind::Text(VALUE_BYTES_MAX, any) },
];
const VOLUMES: [Key; 1] = [Key { name: "volumes", kind: Kind::Named(ENTRIES_MAX, &VOLUME) }];
/// Local volumes are not limited in size: what a template says of it is for other platforms.
const VOLUME: [Key; 1] = [Key { name: "size", kind: Kind::Any }];
/// Lists whose entries are taken apart at their colons.
const SPLIT_AT_COLONS: [&str; 4] = ["ports", "volumes", "devices", "add_host"];

/// A job with its references resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Job {
    pub(crate) container_name: String,
    pub(crate) hostname: String,
    pub(crate) image: String,
    pub(crate) auth: Option<Auth>,
    pub(crate) ports: Vec<String>,
    pub(crate) volumes: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) privileged: bool,
    pub(crate) network: String,
    pub(crate) environment: Vec<String>,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) devices: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) add_host: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) memory: String,
    pub(crate) cpus: String,
    /// The volumes that are kept with the space.
    #[serde(skip)]
    pub(crate) kept: Vec<String>,
}

/// Who asks a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Auth {
    pub(crate) username: String,
    pub(crate) password: String,
}

/// What is wrong with a job and its volumes, before any space is in sight.
pub(super) fn check(job: &str, volumes: &str, known: &Known) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let kept = read_tree("volumes", volumes, &Mode::Check(known), &VOLUMES, &mut complaints);
    let read = read_tree("job", job, &Mode::Check(known), &JOB, &mut complaints);
    if let (Some((_, read)), Some((_, kept))) = (read, kept) {
        together(job, &read, &names(&kept), &mut complaints);
    }
    complaints.truncate(COMPLAINTS_MAX);
    complaints
}

impl Job {
    /// Reads a job and the volumes beside it, and resolves their references.
    pub(crate) fn read(job: &str, volumes: &str, facts: &Facts) -> Result<Self, Vec<Complaint>> {
        let mut complaints = Vec::new();
        let kept = read_tree("volumes", volumes, &Mode::Resolve(facts), &VOLUMES, &mut complaints);
        let read = read_tree("job", job, &Mode::Resolve(facts), &JOB, &mut complaints);
        if let (Some((_, fields)), Some((_, kept))) = (read, kept) {
            let kept = names(&kept);
            together(job, &fields, &kept, &mut complaints);
            if complaints.is_empty() {
                let job = Self::deserialize(serde_json::Value::Object(fields));
                return Ok(Self { kept, ..job.expect("the table of keys gives each the type it has in a job") });
            }
        }
        complaints.truncate(COMPLAINTS_MAX);
        Err(complaints)
    }
}

enum Mode<'a> {
    Check(&'a Known),
    Resolve(&'a Facts),
}

type Fields = serde_json::Map<String, serde_json::Value>;

fn read_tree(
    field: &str,
    text: &str,
    mode: &Mode<'_>,
    keys: &'static [Key],
    complaints: &mut Vec<Complaint>,
) -> Option<(Node, Fields)> {
    let mut root = match tree::yaml(text) {
        Ok(root) => root,
        Err(fault) => {
            complaints.push(Complaint::in_text(field, text, fault));
            return None;
        }
    };
    let mut reader = Reader { faults: Vec::new(), has_variables: matches!(mode, Mode::Check(_)) };
    if let Value::Map(entries) = &mut root.value {
        for (name, node) in entries {
            let is_split = SPLIT_AT_COLONS.contains(&name.text.as_str()) && field == "job";
            fill_in(node, mode, is_split, &name.text, &mut reader.faults);
        }
    }
    // What could not be filled in would only be complained of a second time.
    let fields = if reader.faults.is_empty() { reader.table(&root, keys, "") } else { Fields::new() };
    let is_sound = reader.faults.is_empty();
    complaints.extend(reader.faults.into_iter().map(|fault| Complaint::in_text(field, text, fault)));
    is_sound.then_some((root, fields))
}

/// Checks or resolves the references in a part of a tree.
fn fill_in(node: &mut Node, mode: &Mode<'_>, is_split: bool, path: &str, faults: &mut Vec<Fault>) {
    let span = node.span.clone();
    match &mut node.value {
        Value::Scalar { text, is_quoted } => {
            if let Some(filled) = fill_in_text(text, &span, mode, is_split, path, faults) {
                *text = filled;
                *is_quoted = false;
            }
        }
        Value::List(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                fill_in(item, mode, is_split, &format!("{path}[{at}]"), faults);
            }
        }
        Value::Map(entries) => {
            for (name, item) in entries {
                let span = name.span.clone();
                if let Some(filled) = fill_in_text(&name.text, &span, mode, is_split, path, faults) {
                    name.text = filled;
                }
                fill_in(item, mode, is_split, &format!("{path}.{}", name.text), faults);
            }
        }
    }
}

fn fill_in_text(
    text: &str,
    span: &Range<usize>,
    mode: &Mode<'_>,
    is_split: bool,
    path: &str,
    faults: &mut Vec<Fault>,
) -> Option<String> {
    let faults_max = COMPLAINTS_MAX.saturating_sub(faults.len());
    if !variables::holds_any(text) || faults_max == 0 {
        return None;
    }
    let (filled, found) = match mode {
        Mode::Check(known) => (None, variables::check(text, span, known, faults_max)),
        Mode::Resolve(facts) => match variables::resolve(text, span, facts, is_split) {
            Ok(filled) => (Some(filled), Vec::new()),
            Err(fault) => (None, vec![fault]),
        },
    };
    faults.extend(found.into_iter().map(|fault| Fault { path: path.to_owned(), ..fault }));
    filled
}

/// The names of the volumes that are kept.
fn names(volumes: &Fields) -> Vec<String> {
    let named = volumes.get("volumes").and_then(serde_json::Value::as_object);
    named.into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

/// What no single key can be blamed for.
fn together(text: &str, job: &Fields, kept: &[String], complaints: &mut Vec<Complaint>) {
    let mut complain = |path: &str, message: String, hint: &str| {
        let span = place_of(text, path);
        let fault = Fault { path: path.to_owned(), ..Fault::new(span, message, Some(hint)) };
        complaints.push(Complaint::in_text("job", text, fault));
    };
    if job.get("image").and_then(serde_json::Value::as_str).is_none_or(str::is_empty) {
        complain("image", "is missing".to_owned(), "write `image: name:tag`");
    }
    for name in kept.iter().filter(|name| !variables::holds_any(name) && !is_volume_name(name)) {
        let message = format!("the volume \"{name}\" has no valid name");
        complain("volumes", message, "use two or more letters, digits, '.', '_' and '-'");
    }
    let binds = job.get("volumes").and_then(serde_json::Value::as_array);
    for (at, bind) in binds.into_iter().flatten().filter_map(serde_json::Value::as_str).enumerate() {
        let source = bind.split(':').next().unwrap_or_default();
        if !source.starts_with('/') && !source.is_empty() && !kept.iter().any(|name| spelt(name) == spelt(source)) {
            let hint = format!("add `{source}: {{}}` to `volumes:` in the template's volumes");
            complain(&format!("volumes[{at}]"), format!("no volume is called \"{source}\""), &hint);
        }
    }
}

/// A name without what may differ between two that are the same: blanks inside `${{ }}`.
fn spelt(name: &str) -> String {
    name.split_whitespace().collect()
}

/// Where what a path leads to stands in a text.
fn place_of(text: &str, path: &str) -> Range<usize> {
    let Ok(root) = tree::yaml(text) else { return 0..0 };
    tree::find(&root, path).unwrap_or(0..0)
}

#[cfg(test)]
mod tests;
