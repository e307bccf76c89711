//! Templates as files: TOML or YAML by what the name ends with, under the names that exports have everywhere.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use super::check::content;
use super::schema::{Key, Kind, Reader, any};
use super::tree::{self, Fault, Node};
use super::{
    Complaint, DESCRIPTION_BYTES_MAX, JOB_BYTES_MAX, LIST_MAX, NAME_BYTES_MAX, Platform, Template, URL_BYTES_MAX,
};
use crate::config::{Excerpt, nearest};
use crate::records;
use crate::zones::ZONES_MAX;

/// Largest template file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most complaints that are shown of a file.
const EXCERPTS_MAX: usize = 16;

/// What a file may hold, in the order in which one is written.
pub(super) const KEYS: [Key; 27] = [
    Key { name: "name", kind: Kind::Text(NAME_BYTES_MAX, name) },
    Key { name: "description", kind: Kind::Text(DESCRIPTION_BYTES_MAX, any) },
    Key { name: "platform", kind: Kind::Text(NAME_BYTES_MAX, platform) },
    Key { name: "icon_url", kind: Kind::Text(URL_BYTES_MAX, any) },
    Key { name: "active", kind: Kind::Flag },
    Key { name: "compute_units", kind: Kind::Count(u32::MAX) },
    Key { name: "storage_units", kind: Kind::Count(u32::MAX) },
    Key { name: "groups", kind: Kind::Texts(LIST_MAX, NAME_BYTES_MAX, any) },
    Key { name: "zones", kind: Kind::Texts(ZONES_MAX, ZONE_ENTRY_BYTES_MAX, any) },
    Key { name: "max_uptime", kind: Kind::Count(u32::MAX) },
    Key { name: "max_uptime_unit", kind: Kind::Text(NAME_BYTES_MAX, |text| one_of("unit", text, &UNITS)) },
    Key { name: "schedule_enabled", kind: Kind::Flag },
    Key { name: "auto_start", kind: Kind::Flag },
    Key { name: "disable_user_activity", kind: Kind::Flag },
    Key { name: "health_check_type", kind: Kind::Text(NAME_BYTES_MAX, |text| one_of("check", text, &CHECKS)) },
    Key { name: "health_check_config", kind: Kind::Text(DESCRIPTION_BYTES_MAX, any) },
    Key { name: "health_check_skip_ssl_verify", kind: Kind::Flag },
    Key { name: "health_check_timeout", kind: Kind::Count(u32::MAX) },
    Key { name: "health_check_interval", kind: Kind::Count(u32::MAX) },
    Key { name: "health_check_max_failures", kind: Kind::Count(u32::MAX) },
    Key { name: "health_check_auto_restart", kind: Kind::Flag },
    Key { name: "job", kind: Kind::Text(JOB_BYTES_MAX, any) },
    Key { name: "volumes", kind: Kind::Text(JOB_BYTES_MAX, any) },
    Key { name: "features", kind: Kind::Table(&FEATURES) },
    Key { name: "custom_fields", kind: Kind::Tables(LIST_MAX, &CUSTOM_FIELD) },
    Key { name: "ports", kind: Kind::Tables(LIST_MAX, &PORT) },
    Key { name: "schedule", kind: Kind::Tables(7, &DAY) },
];
const FEATURES: [Key; 6] = [
    Key { name: "with_terminal", kind: Kind::Flag },
    Key { name: "with_vscode_tunnel", kind: Kind::Flag },
    Key { name: "with_code_server", kind: Kind::Flag },
    Key { name: "with_ssh", kind: Kind::Flag },
    Key { name: "with_run_command", kind: Kind::Flag },
    Key { name: "allow_node_migration", kind: Kind::Flag },
];
const CUSTOM_FIELD: [Key; 2] = [
    Key { name: "name", kind: Kind::Text(NAME_BYTES_MAX, name) },
    Key { name: "description", kind: Kind::Text(DESCRIPTION_BYTES_MAX, any) },
];
const PORT: [Key; 3] = [
    Key { name: "name", kind: Kind::Text(NAME_BYTES_MAX, any) },
    Key { name: "port", kind: Kind::Count(65_535) },
    Key { name: "protocol", kind: Kind::Text(NAME_BYTES_MAX, |text| one_of("protocol", text, &PROTOCOLS)) },
];
const DAY: [Key; 3] = [
    Key { name: "enabled", kind: Kind::Flag },
    Key { name: "from", kind: Kind::Text(NAME_BYTES_MAX, time) },
    Key { name: "to", kind: Kind::Text(NAME_BYTES_MAX, time) },
];
const UNITS: [&str; 4] = ["disabled", "minute", "hour", "day"];
const CHECKS: [&str; 6] = ["none", "agent", "tcp", "http", "program", "custom"];
const PROTOCOLS: [&str; 3] = ["http", "https", "tcp"];
/// Long enough for what is no zone to be shown as such.
const ZONE_ENTRY_BYTES_MAX: usize = 256;

/// Why a file is no template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Its name says neither.
    #[error("{} is neither TOML nor YAML by its name: let it end with .toml, .yaml or .yml", .0.display())]
    NoFormat(PathBuf),
    /// It is too large.
    #[error("{} is larger than {FILE_BYTES_MAX} bytes: a template holds one job, not what is inside its image", .0.display())]
    TooLarge(PathBuf),
    /// Something in it is wrong.
    #[error("{0}")]
    Wrong(Mistakes),
}

/// The places in a file that are wrong, printed as compilers do.
#[derive(Debug)]
pub struct Mistakes {
    excerpts: Vec<Excerpt>,
    more: usize,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, excerpt) in self.excerpts.iter().enumerate() {
            if at > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{excerpt}")?;
        }
        if self.more > 0 {
            write!(f, "\n\nand {} more", self.more)?;
        }
        Ok(())
    }
}

/// Reads a template from the text of a file. What the file does not say takes its default; the id is the caller's to
/// find, by the name. `variables` are the names of the template variables there are, `None` where that is not known.
///
/// # Errors
/// With every place that is wrong.
pub fn read_file(path: &Path, text: &str, variables: Option<&[String]>) -> Result<Template, FileError> {
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes > FILE_BYTES_MAX) {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let root = match extension.to_ascii_lowercase().as_str() {
        "toml" => tree::toml(text),
        "yaml" | "yml" => tree::yaml(text),
        _ => return Err(FileError::NoFormat(path.to_owned())),
    };
    let root = root.map_err(|fault| wrong(path, text, vec![fault]))?;
    let mut reader = Reader::default();
    let mut fields = reader.table(&root, &KEYS, "");
    if !reader.faults.is_empty() {
        return Err(wrong(path, text, reader.faults));
    }
    if let Some(Value::Object(features)) = fields.remove("features") {
        fields.extend(features);
    }
    let template: Template = records::read(&Value::Object(fields));
    let complaints = content(&template, variables);
    if complaints.is_empty() {
        return Ok(template);
    }
    Err(wrong(path, text, complaints.into_iter().map(|complaint| in_file(&root, text, complaint)).collect()))
}

/// Finds in the file what a complaint is about.
fn in_file(root: &Node, text: &str, complaint: Complaint) -> Fault {
    let mut span = tree::find(root, &complaint.field).unwrap_or(0..0);
    if let (Some(line), Some(value)) = (complaint.line, tree::value(root, &complaint.field)) {
        span = line_of(text, value, line).unwrap_or(span);
    }
    let message = match complaint.path.as_str() {
        "" => format!("{}: {}", complaint.field, complaint.message),
        path => format!("{}, {path}: {}", complaint.field, complaint.message),
    };
    Fault { span, path: String::new(), message, hint: complaint.hint }
}

/// Where a line of a text that a file holds stands in the file, if the file holds it line by line.
fn line_of(text: &str, value: &Node, line: usize) -> Option<std::ops::Range<usize>> {
    let tree::Value::Scalar { text: inner, .. } = &value.value else { return None };
    let wanted = inner.lines().nth(line - 1)?.trim();
    // In YAML the text begins behind the `|`, in TOML perhaps on the line of the quotes.
    let start = text[..value.span.start].rfind('\n').map_or(0, |at| at + 1);
    let lines = text[start..].split_inclusive('\n').scan(start, |at, line| {
        *at += line.len();
        Some((*at - line.len(), line))
    });
    let mut candidates = lines.skip(line - 1).take(2).filter(|(_, found)| found.trim() == wanted);
    let (at, found) = candidates.next()?;
    let indent = found.len() - found.trim_start().len();
    Some(at + indent..at + found.trim_end().len())
}

fn wrong(path: &Path, text: &str, faults: Vec<Fault>) -> FileError {
    let more = faults.len().saturating_sub(EXCERPTS_MAX);
    let excerpt = |fault: Fault| {
        let message = if fault.path.is_empty() { fault.message } else { format!("{}: {}", fault.path, fault.message) };
        Excerpt::new(path, text, fault.span, message, fault.hint)
    };
    FileError::Wrong(Mistakes { excerpts: faults.into_iter().take(EXCERPTS_MAX).map(excerpt).collect(), more })
}

/// A template as a TOML file; what has its default is left out.
#[must_use]
pub fn to_toml(template: &Template) -> String {
    toml::to_string_pretty(&InOrder(portable(template))).expect("texts, numbers, flags and lists of tables are TOML")
}

/// A template as a YAML file; what has its default is left out.
#[must_use]
pub fn to_yaml(template: &Template) -> String {
    let mut text = String::new();
    for (name, value) in portable(template) {
        write_yaml(&mut text, name, &value, 0);
    }
    text
}

/// What a file says of a template, in the order of [`KEYS`].
pub(super) fn portable(template: &Template) -> Vec<(&'static str, Value)> {
    let fields = serde_json::to_value(template).expect("a template is JSON");
    let defaults = json!(Template::default());
    let always = ["name", "platform", "active"];
    let said = |name: &&str| always.contains(name) || fields.get(*name) != defaults.get(*name);
    let features: Map<String, Value> = FEATURES
        .iter()
        .map(|key| key.name)
        .filter(said)
        .filter_map(|name| Some((name.to_owned(), fields.get(name)?.clone())))
        .collect();
    KEYS.iter()
        .map(|key| key.name)
        .filter(said)
        .filter_map(|name| Some((name, fields.get(name)?.clone())))
        .chain((!features.is_empty()).then_some(("features", Value::Object(features))))
        .collect()
}

/// Names and values that are written in their order.
struct InOrder(Vec<(&'static str, Value)>);

impl Serialize for InOrder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn write_yaml(text: &mut String, name: &str, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    text.push_str(&format!("{indent}{name}:"));
    match value {
        Value::Object(fields) => {
            text.push('\n');
            for (name, value) in fields {
                write_yaml(text, name, value, depth + 1);
            }
        }
        Value::Array(items) if items.is_empty() => text.push_str(" []\n"),
        Value::Array(items) => {
            text.push('\n');
            for item in items {
                let Value::Object(fields) = item else {
                    text.push_str(&format!("{indent}  - {item}\n"));
                    continue;
                };
                let mut first = String::new();
                for (name, value) in fields {
                    write_yaml(&mut first, name, value, depth + 2);
                }
                text.push_str(&format!("{indent}  - {}", first.trim_start()));
            }
        }
        Value::String(content) if is_block(content) => {
            // The 2 says how far the text is indented, whatever its own first line begins with.
            let end = if content.ends_with('\n') { "" } else { "-" };
            text.push_str(&format!(" |2{end}\n"));
            for line in content.lines() {
                let line = if line.is_empty() { "\n".to_owned() } else { format!("{indent}  {line}\n") };
                text.push_str(&line);
            }
        }
        // JSON's scalars are YAML's too.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&format!(" {value}\n")),
    }
}

/// Whether a text of several lines can stand in YAML as it is.
fn is_block(content: &str) -> bool {
    content.trim_end_matches('\n').contains('\n')
        && !content.ends_with("\n\n")
        && content.lines().all(|line| !line.ends_with(' '))
        && content
            .chars()
            .all(|c| c == '\n' || c == '\t' || (!c.is_control() && !"\u{2028}\u{2029}\u{feff}".contains(c)))
}

/// That there is one at all is asked for elsewhere, of templates that say nothing of it too.
fn name(text: &str) -> Result<(), String> {
    if text.is_empty() || knot_engine::documents::is_label(text, NAME_BYTES_MAX) {
        Ok(())
    } else {
        Err(format!("is no name: use 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' and '-'"))
    }
}

fn platform(text: &str) -> Result<(), String> {
    let names = Platform::NAMES.map(|(name, _)| name);
    match nearest(text, names) {
        _ if names.contains(&text) => Ok(()),
        Some(near) => Err(format!("is no platform: did you mean {near}?")),
        None => Err(format!("is no platform of this version: write one of {}", names.join(", "))),
    }
}

fn one_of(what: &str, text: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&text) { Ok(()) } else { Err(format!("is no {what}: write one of {}", words.join(", "))) }
}

/// `9:00am` or nothing.
fn time(text: &str) -> Result<(), String> {
    let clock = text.strip_suffix("am").or_else(|| text.strip_suffix("pm")).and_then(|time| time.split_once(':'));
    let is_time = clock.is_some_and(|(hour, minute)| {
        hour.parse::<u8>().is_ok_and(|hour| (1..=12).contains(&hour))
            && minute.len() == 2
            && minute.parse::<u8>().is_ok_and(|minute| minute < 60)
    });
    if text.is_empty() || is_time { Ok(()) } else { Err("is no time: write it as `9:00am` or `5:30pm`".to_owned()) }
}

#[cfg(test)]
mod tests;
