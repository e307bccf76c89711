//! The documents of a space, and what people are shown of them.
//!
//! The record is written by whoever changes what is wanted; the report only by the server that runs the space. Neither
//! is ever rewritten whole.

use std::collections::BTreeMap;

use knot_engine::documents::Scope;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::nearest;
use crate::records;
use crate::templates::{Complaint, Template, VALUE_BYTES_MAX};

/// The collection of records; a document's key is the space's id.
pub const SPACES: &str = "knot.spaces";
/// The collection of reports; a document's key is the space's id, a dot and the id of the server that says so.
pub const SPACE_STATES: &str = "knot.space-states";

/// Longest name of a space, in bytes: a label of a host name.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest description or note, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4 << 10;
/// Most users that a space is shared with.
pub const SHARES_MAX: usize = 64;
/// Longest error in a report, in bytes.
pub const ERROR_BYTES_MAX: usize = 2 << 10;

/// What is wanted of a space. Names in JSON are those of the HTTP API where it has them; a field that is not here stays
/// as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpaceRecord {
    /// Its id, which is its documents' key too.
    #[serde(rename = "space_id")]
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What its owner wants to remember of it.
    pub note: String,
    /// Whose it is.
    pub user_id: String,
    /// What it is made from.
    pub template_id: String,
    /// Where it may run.
    pub zone: String,
    /// Whether what is known of it stays in its zone.
    pub resident: bool,
    /// Other users who may use it, by their ids; two who share it at once both have their way.
    pub shares: BTreeMap<String, bool>,
    /// What was filled in for the template's custom fields.
    pub custom_fields: Vec<CustomValue>,
    /// What it should do.
    pub wanted: Wanted,
    /// How often it was started; 0 if never. Each start by a person raises it by one, and a container is of one
    /// generation, so a start that arrives twice is one start.
    pub generation: u64,
    /// The id of the server that it was placed on; empty before its first start.
    pub node_id: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at: i64,
}

/// A custom field with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomValue {
    /// The field's name in the template.
    pub name: String,
    /// What was filled in.
    pub value: String,
}

/// What a space should do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// Run.
    Running,
    /// Not run; its volumes stay.
    #[default]
    Stopped,
    /// Be gone, volumes and all.
    Deleted,
}

impl SpaceRecord {
    /// Reads a record's document; what is missing or mistyped takes its default, so nothing starts by mistake. What was
    /// ever deleted stays so, whatever was wanted of it elsewhere meanwhile.
    #[must_use]
    pub fn read(document: &Value) -> Self {
        let record: Self = records::read(document);
        if records::is_deleted(document) { Self { wanted: Wanted::Deleted, ..record } } else { record }
    }

    /// The merge patch of its deletion. What people said of it goes; what the servers need to end it stays.
    #[must_use]
    pub fn deletion(&self, now: i64) -> Value {
        let mut patch = json!({"deleted_at": now, "wanted": Wanted::Deleted});
        let said = [
            ("description", !self.description.is_empty(), json!("")),
            ("note", !self.note.is_empty(), json!("")),
            ("custom_fields", !self.custom_fields.is_empty(), json!([])),
            ("shares", !self.shares.is_empty(), Value::Null),
        ];
        for (name, _, nothing) in said.into_iter().filter(|(_, is_said, _)| *is_said) {
            patch[name] = nothing;
        }
        patch
    }

    /// Where its documents are kept: everywhere, or on the servers of its zone.
    #[must_use]
    pub fn scope(&self) -> Scope {
        if self.resident { Scope::Zone(self.zone.as_str().into()) } else { Scope::Global }
    }

    /// Whether a user may use it: whose it is, and with whom it is shared.
    #[must_use]
    pub fn is_for(&self, user: &str) -> bool {
        self.user_id == user || self.shares.get(user) == Some(&true)
    }

    /// The merge patch that makes a document say this and leaves the rest of it alone; `None` where it says so already.
    #[must_use]
    pub fn patch(&self, document: &Value) -> Option<Value> {
        records::patch(document, self)
    }

    /// Every complaint about what people say of it, for a space of `template`.
    #[must_use]
    pub fn check(&self, template: &Template) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        let mut complain =
            |field: &str, message: &str, hint: &str| complaints.push(Complaint::of(field, message, hint));
        if !is_host_label(&self.name) {
            let hint = format!("use 1 to {NAME_BYTES_MAX} letters, digits and '-', with no '-' at either end");
            complain("name", "is no name for a space", &hint);
        }
        for (field, text) in [("description", &self.description), ("note", &self.note)] {
            if text.len() > DESCRIPTION_BYTES_MAX {
                let message = format!("has at most {DESCRIPTION_BYTES_MAX} bytes, not {}", text.len());
                complain(field, &message, "shorten it");
            }
        }
        if self.shares.len() > SHARES_MAX {
            complain("shares", &format!("has at most {SHARES_MAX} users"), "share it with fewer");
        }
        for (at, field) in self.custom_fields.iter().enumerate() {
            let path = format!("custom_fields[{at}]");
            if !template.custom_fields.iter().any(|known| known.name == field.name) {
                let names: Vec<&str> = template.custom_fields.iter().map(|known| known.name.as_str()).collect();
                let hint = match nearest(&field.name, names.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None if names.is_empty() => "leave it out".to_owned(),
                    None => format!("there are {}", names.join(", ")),
                };
                let name: String = field.name.chars().take(NAME_BYTES_MAX).collect();
                complain(&path, &format!("the template has no field {name}"), &hint);
            }
            if self.custom_fields[..at].iter().any(|earlier| earlier.name == field.name) {
                complain(&path, "is here a second time", "remove one of the two");
            }
            if field.value.len() > VALUE_BYTES_MAX {
                let message = format!("has at most {VALUE_BYTES_MAX} bytes, not {}", field.value.len());
                complain(&path, &message, "shorten it");
            }
        }
        complaints
    }

    /// What `${{ .custom.* }}` stands for: the template's fields, empty where nothing was filled in.
    #[must_use]
    pub fn custom(&self, template: &Template) -> BTreeMap<String, String> {
        let asked = template.custom_fields.iter().map(|field| (field.name.clone(), String::new()));
        let filled = self.custom_fields.iter().map(|field| (field.name.clone(), field.value.clone()));
        asked.chain(filled).collect()
    }

    /// Starts it on a server: a generation later than its own and the `last` that any server has reported on.
    pub fn start(&mut self, node_id: &str, last: u64) {
        node_id.clone_into(&mut self.node_id);
        self.generation = last.max(self.generation).saturating_add(1);
        self.wanted = Wanted::Running;
    }
}

fn is_host_label(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// What the server that runs a space says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The id of the server that says so.
    pub node_id: String,
    /// Of which generation.
    pub generation: u64,
    /// How it is.
    pub state: State,
    /// The container, as the runtime calls it; empty if there is none.
    pub container_id: String,
    /// When the container was started, in milliseconds since 1970; 0 if it was not.
    pub started_at: i64,
    /// Why it failed; empty if it did not.
    pub error: String,
    /// When this was written, in milliseconds since 1970.
    pub at: i64,
}

/// How a space is where it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is being brought up: images take their time.
    Starting,
    /// It runs.
    Running,
    /// It is being brought down.
    Stopping,
    /// It ended, by itself or because that was wanted.
    #[default]
    Stopped,
    /// It could not be started, or ended with an error.
    Failed,
    /// Nothing of it is left.
    Removed,
}

impl Report {
    /// Reads a report's document; what is missing or mistyped takes its default.
    #[must_use]
    pub fn read(document: &Value) -> Self {
        records::read(document)
    }

    /// The merge patch that makes a document say this; `None` where it says so already.
    #[must_use]
    pub fn patch(&self, document: &Value) -> Option<Value> {
        records::patch(document, self)
    }

    /// Whether it speaks of the place and the start that a record means. Where two starts were made apart, the record may
    /// have kept the earlier number of the two.
    #[must_use]
    pub fn is_of(&self, record: &SpaceRecord) -> bool {
        self.node_id == record.node_id && self.generation >= record.generation
    }
}

/// How the server is that a space was placed on, as far as is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// It answers.
    Alive,
    /// It has not since then, in milliseconds since 1970.
    Silent(i64),
    /// Nobody knows it any more.
    Unknown,
}

/// What people see of a space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Shown {
    /// Its server has not taken it up yet.
    Pending,
    /// It is being brought up.
    Starting,
    /// It runs.
    Running,
    /// It is being brought down.
    Stopping,
    /// It does not run.
    Stopped,
    /// It could not be started, or ended with an error.
    Failed {
        /// Why.
        error: String,
    },
    /// Its server is silent: whether it runs is not known. It can be started on another.
    Unreachable {
        /// Since when, in milliseconds since 1970; `None` where its server is not known at all and never reported.
        since: Option<i64>,
    },
    /// Its container and volumes are being removed.
    Deleting,
    /// Nothing of it is left but the record.
    Removed,
}

/// Puts together what is wanted, what was reported and whether the server answers.
#[must_use]
pub fn shown(record: &SpaceRecord, report: Option<&Report>, server: Server) -> Shown {
    let report = report.filter(|report| report.is_of(record));
    if record.node_id.is_empty() {
        return match record.wanted {
            Wanted::Running => Shown::Pending,
            Wanted::Stopped => Shown::Stopped,
            Wanted::Deleted => Shown::Removed,
        };
    }
    let settled = match (record.wanted, report.map(|report| report.state)) {
        (Wanted::Deleted, Some(State::Removed)) => Some(Shown::Removed),
        // A server that nobody knows removes nothing any more.
        (Wanted::Deleted, _) if server == Server::Unknown => Some(Shown::Removed),
        (Wanted::Deleted, _) => Some(Shown::Deleting),
        (Wanted::Stopped, Some(State::Stopped | State::Failed | State::Removed)) => Some(Shown::Stopped),
        (Wanted::Running, Some(State::Stopped | State::Removed)) => Some(Shown::Stopped),
        (Wanted::Running, Some(State::Failed)) => {
            Some(Shown::Failed { error: report.map(|report| report.error.clone()).unwrap_or_default() })
        }
        _ => None,
    };
    // What has come to an end stays so, whether or not its server answers.
    if let Some(settled) = settled {
        return settled;
    }
    match server {
        Server::Silent(since) => return Shown::Unreachable { since: Some(since) },
        Server::Unknown => return Shown::Unreachable { since: report.map(|report| report.at) },
        Server::Alive => {}
    }
    match (record.wanted, report.map(|report| report.state)) {
        (Wanted::Deleted, _) => Shown::Deleting,
        (Wanted::Stopped, _) => Shown::Stopping,
        (Wanted::Running, Some(State::Starting)) => Shown::Starting,
        (Wanted::Running, Some(State::Running)) => Shown::Running,
        (Wanted::Running, Some(State::Stopping)) => Shown::Stopping,
        (Wanted::Running, None | Some(State::Stopped | State::Failed | State::Removed)) => Shown::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(wanted: Wanted, node: &str, generation: u64) -> SpaceRecord {
        SpaceRecord { wanted, node_id: node.to_owned(), generation, ..SpaceRecord::default() }
    }

    fn report(state: State, generation: u64) -> Report {
        let error = if state == State::Failed { "no image" } else { "" };
        Report { node_id: "n1".to_owned(), generation, state, error: error.to_owned(), at: 7, ..Report::default() }
    }

    #[test]
    fn what_people_see_follows_from_what_is_wanted_reported_and_heard() {
        use Server::{Alive, Silent, Unknown};
        use Wanted::{Deleted, Running, Stopped};
        let gone = |since| Shown::Unreachable { since };
        for (wanted, reported, server, expected) in [
            (Running, None, Alive, Shown::Pending),
            (Running, Some(State::Starting), Alive, Shown::Starting),
            (Running, Some(State::Running), Alive, Shown::Running),
            (Running, Some(State::Stopping), Alive, Shown::Stopping),
            (Running, Some(State::Stopped), Alive, Shown::Stopped),
            (Running, Some(State::Failed), Alive, Shown::Failed { error: "no image".to_owned() }),
            (Running, Some(State::Removed), Alive, Shown::Stopped),
            (Running, None, Silent(5), gone(Some(5))),
            (Running, None, Unknown, gone(None)),
            (Running, Some(State::Running), Silent(5), gone(Some(5))),
            (Running, Some(State::Running), Unknown, gone(Some(7))),
            (Running, Some(State::Starting), Silent(5), gone(Some(5))),
            (Running, Some(State::Failed), Silent(5), Shown::Failed { error: "no image".to_owned() }),
            (Running, Some(State::Stopped), Unknown, Shown::Stopped),
            (Stopped, None, Alive, Shown::Stopping),
            (Stopped, Some(State::Starting), Alive, Shown::Stopping),
            (Stopped, Some(State::Running), Alive, Shown::Stopping),
            (Stopped, Some(State::Stopping), Alive, Shown::Stopping),
            (Stopped, Some(State::Stopped), Alive, Shown::Stopped),
            (Stopped, Some(State::Failed), Alive, Shown::Stopped),
            (Stopped, Some(State::Stopped), Silent(5), Shown::Stopped),
            (Stopped, Some(State::Running), Silent(5), gone(Some(5))),
            (Deleted, Some(State::Running), Alive, Shown::Deleting),
            (Deleted, None, Alive, Shown::Deleting),
            (Deleted, Some(State::Stopped), Silent(5), Shown::Deleting),
            (Deleted, Some(State::Stopped), Unknown, Shown::Removed),
            (Deleted, Some(State::Removed), Silent(5), Shown::Removed),
        ] {
            let reported = reported.map(|state| report(state, 3));
            let found = shown(&record(wanted, "n1", 3), reported.as_ref(), server);
            assert_eq!(found, expected, "{wanted:?} {reported:?} {server:?}");
        }
    }

    #[test]
    fn a_report_of_another_start_or_place_says_nothing() {
        for old in [report(State::Running, 2), Report { node_id: "n2".to_owned(), ..report(State::Failed, 3) }] {
            assert_eq!(shown(&record(Wanted::Running, "n1", 3), Some(&old), Server::Alive), Shown::Pending);
            let silent = shown(&record(Wanted::Running, "n1", 3), Some(&old), Server::Silent(5));
            assert_eq!(silent, Shown::Unreachable { since: Some(5) });
        }
    }

    #[test]
    fn what_was_never_placed_needs_no_server() {
        for (wanted, expected) in
            [(Wanted::Running, Shown::Pending), (Wanted::Stopped, Shown::Stopped), (Wanted::Deleted, Shown::Removed)]
        {
            assert_eq!(shown(&record(wanted, "", 0), None, Server::Unknown), expected);
        }
    }

    #[test]
    fn what_people_say_of_a_space_fits_its_template() {
        let field = |name: &str| crate::templates::CustomField { name: name.to_owned(), ..Default::default() };
        let template = Template { custom_fields: vec![field("branch"), field("size")], ..Template::default() };
        let value = |name: &str, value: String| CustomValue { name: name.to_owned(), value };
        let mut record = SpaceRecord {
            name: "my-Space-1".to_owned(),
            custom_fields: vec![value("branch", "main".to_owned())],
            ..SpaceRecord::default()
        };
        assert_eq!(record.check(&template), []);
        let custom: Vec<_> = record.custom(&template).into_iter().collect();
        assert_eq!(custom, [("branch", "main"), ("size", "")].map(|(name, value)| (name.to_owned(), value.to_owned())));
        record.name = "-".to_owned();
        record.note = "x".repeat(DESCRIPTION_BYTES_MAX + 1);
        record.shares = (0..=SHARES_MAX).map(|user| (user.to_string(), true)).collect();
        record.custom_fields.extend([value("brunch", String::new()), value("branch", "x".repeat(VALUE_BYTES_MAX + 1))]);
        let said: Vec<String> = record.check(&template).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "name: is no name for a space; use 1 to 63 letters, digits and '-', with no '-' at either end",
                "note: has at most 4096 bytes, not 4097; shorten it",
                "shares: has at most 64 users; share it with fewer",
                "custom_fields[1]: the template has no field brunch; did you mean branch?",
                "custom_fields[2]: is here a second time; remove one of the two",
                "custom_fields[2]: has at most 16384 bytes, not 16385; shorten it",
            ]
        );
    }

    #[test]
    fn what_was_deleted_is_not_started_by_whoever_had_not_heard() {
        let mut document = json!({"name": "web", "wanted": "running", "note": "n", "node_id": "n1", "generation": 2});
        for (name, value) in SpaceRecord::read(&document).deletion(5).as_object().unwrap() {
            document[name] = value.clone();
        }
        document["wanted"] = json!("running");
        let record = SpaceRecord::read(&document);
        assert_eq!((record.wanted, record.node_id.as_str(), record.note.as_str()), (Wanted::Deleted, "n1", ""));
    }

    #[test]
    fn a_start_is_a_new_generation_and_changes_nothing_else() {
        let document = json!({"space_id": "s1", "name": "web", "wanted": "paused", "stack": "x", "generation": 4});
        let mut record = SpaceRecord::read(&document);
        assert_eq!((record.wanted, record.patch(&document)), (Wanted::Stopped, None));
        record.start("n2", 2);
        let patch = json!({"wanted": "running", "generation": 5, "node_id": "n2"});
        assert_eq!(record.patch(&document), Some(patch));
        record.start("n2", 8);
        assert_eq!(record.generation, 9);
        assert_eq!(serde_json::to_value(Shown::Unreachable { since: None }).unwrap()["state"], "unreachable");
    }
}
