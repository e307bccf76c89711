//! Spaces and the servers for them as they are at hand: what this server's documents say, whatever order they came in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::agent::{Here, Reports};
use super::record::{Report, SPACE_STATES, SPACES, SpaceRecord};
use crate::records;
use crate::templates::Platform;

/// The collection of [`Stub`]s; a document's key is the space's id.
pub const SPACE_STUBS: &str = "knot.space-stubs";
/// The collection of what servers say of themselves, see [`Facts`]; a document's key is the server's id.
pub const SERVERS: &str = "knot.servers";

/// What servers of other zones know of a space that is resident in its zone: that there is one, and whose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stub {
    /// The space's id.
    pub space_id: String,
    /// Whose it is.
    pub user_id: String,
    /// The zone that keeps all else.
    pub zone: String,
}

impl Stub {
    /// That of a space.
    #[must_use]
    pub fn of(record: &SpaceRecord) -> Self {
        Self { space_id: record.id.clone(), user_id: record.user_id.clone(), zone: record.zone.clone() }
    }
}

/// What a server says of itself. Only it writes them: when it starts, when its runtime comes or goes, and now and then
/// when it holds more than before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// When it started, in milliseconds since 1970.
    pub started_at: i64,
    /// What runs containers there, as [`Platform::NAMES`] has it; empty if nothing does.
    pub platform: String,
    /// The same for people: `Podman 4.3.1`.
    pub runtime: String,
    /// Why nothing does; empty if something does.
    pub missing: String,
    /// How many documents it held.
    pub documents: u64,
    /// Of how many bytes.
    pub bytes: u64,
    /// When this was written, in milliseconds since 1970.
    pub at: i64,
}

impl Facts {
    /// What runs containers there.
    #[must_use]
    pub fn platform(&self) -> Option<Platform> {
        Platform::named(&self.platform)
    }
}

/// What this server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    records: BTreeMap<String, SpaceRecord>,
    reports: Reports,
    stubs: BTreeMap<String, Stub>,
    servers: BTreeMap<String, Facts>,
}

impl Known {
    /// Takes over what a document says now; none where there is none any more.
    pub fn apply(&mut self, collection: &str, key: &str, value: Option<&Value>) {
        match collection {
            SPACES => {
                let record = value.map(|value| SpaceRecord { id: key.to_owned(), ..SpaceRecord::read(value) });
                set(&mut self.records, key, record);
            }
            SPACE_STATES => self.set_report(key, value.map(Report::read)),
            SPACE_STUBS => {
                let stub = value.filter(|value| !records::is_deleted(value)).map(records::read::<Stub>);
                set(&mut self.stubs, key, stub.map(|stub| Stub { space_id: key.to_owned(), ..stub }));
            }
            SERVERS => set(&mut self.servers, key, value.map(records::read)),
            _ => {}
        }
    }

    /// Every space whose record is here, also what is deleted, by id.
    #[must_use]
    pub fn records(&self) -> &BTreeMap<String, SpaceRecord> {
        &self.records
    }

    fn set_report(&mut self, key: &str, report: Option<Report>) {
        let Some((space_id, node_id)) = key.split_once('.') else { return };
        let reports = self.reports.entry(space_id.to_owned()).or_default();
        set(reports, node_id, report.map(|report| Report { node_id: node_id.to_owned(), ..report }));
        if reports.is_empty() {
            self.reports.remove(space_id);
        }
    }

    /// What servers have reported of them.
    #[must_use]
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// What the server has reported that a space is placed on.
    #[must_use]
    pub fn report(&self, record: &SpaceRecord) -> Option<&Report> {
        self.reports.get(&record.id)?.get(&record.node_id)
    }

    /// The latest start of a space that any server has reported on.
    #[must_use]
    pub fn last_generation(&self, space_id: &str) -> u64 {
        let reports = self.reports.get(space_id).into_iter().flatten();
        reports.map(|(_, report)| report.generation).max().unwrap_or_default()
    }

    /// Whether another server has reported on a later start of a space than its record has: starts were made apart.
    #[must_use]
    pub fn is_overtaken(&self, record: &SpaceRecord) -> bool {
        self.last_generation(&record.id) > record.generation
    }

    /// What is said elsewhere of a space that is resident here, whether or not that is right.
    pub(super) fn told_elsewhere(&self, space_id: &str) -> Option<&Stub> {
        self.stubs.get(space_id)
    }

    /// Spaces that are resident in a zone which this server is not in.
    pub fn stubs(&self) -> impl Iterator<Item = &Stub> {
        self.stubs.values().filter(|stub| !self.records.contains_key(&stub.space_id))
    }

    /// The stub of a space whose record is not here.
    #[must_use]
    pub fn stub(&self, space_id: &str) -> Option<&Stub> {
        self.stubs.get(space_id).filter(|_| !self.records.contains_key(space_id))
    }

    /// A bug on purpose: what is placed on servers that `is_silent` is taken for placed on this one.
    pub(super) fn take_over(&mut self, node_id: &str, is_silent: impl Fn(&str) -> bool) {
        let theirs = self.records.values_mut().filter(|record| is_silent(&record.node_id));
        theirs.for_each(|record| node_id.clone_into(&mut record.node_id));
    }

    /// A bug on purpose: nobody has reported anything of what is not here.
    pub(super) fn forget_reports(&mut self, here: &Here) {
        self.reports.retain(|space_id, _| here.containers.iter().any(|seen| seen.space_id == *space_id));
    }

    /// What a server has said of itself.
    #[must_use]
    pub fn server(&self, node_id: &str) -> Option<&Facts> {
        self.servers.get(node_id)
    }
}

fn set<T>(of: &mut BTreeMap<String, T>, key: &str, value: Option<T>) {
    match value {
        Some(value) => of.insert(key.to_owned(), value),
        None => of.remove(key),
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stub_is_seen_where_the_space_itself_is_not() {
        let mut known = Known::default();
        known.apply(SPACE_STUBS, "s1", Some(&json!({"user_id": "ann", "zone": "gb"})));
        assert_eq!(known.stub("s1").map(|stub| stub.zone.as_str()), Some("gb"));
        known.apply(SPACES, "s1", Some(&json!({"name": "web", "resident": true, "zone": "gb"})));
        assert_eq!((known.stub("s1"), known.stubs().count()), (None, 0));
        assert_eq!(known.records()["s1"].id, "s1");
        known.apply(SPACES, "s1", None);
        known.apply(SPACE_STUBS, "s1", Some(&json!({"user_id": "ann", "zone": "gb", "deleted_at": 7})));
        assert_eq!(known, Known::default());
    }

    #[test]
    fn what_a_server_says_of_itself_is_read_as_far_as_it_is_understood() {
        let mut known = Known::default();
        known.apply(SERVERS, "n1", Some(&json!({"platform": "podman", "documents": "many", "started_at": 5})));
        known.apply(SERVERS, "n2", Some(&json!({"platform": "nomad"})));
        let server = known.server("n1").unwrap();
        assert_eq!((server.platform(), server.documents, server.started_at), (Some(Platform::Podman), 0, 5));
        assert_eq!(known.server("n2").unwrap().platform(), None);
    }
}
