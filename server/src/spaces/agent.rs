//! What a server has to do about spaces: a comparison of what is wanted here with what runs here.
//!
//! The comparison is pure and may be made as often as one likes: what it asks for, once done, it asks for no more. It
//! never starts what is placed on another server, whatever became of that one, and what it finds here of a space that
//! is placed elsewhere it removes. A generation is run once: a space whose container ended, or could not be started, or was
//! not yet started when its server went down, waits for a person to start it again.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{Report, SpaceRecord, State, Wanted};

/// A container of knot's that a runtime holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The space it is of.
    pub space_id: String,
    /// The start it is of.
    pub generation: u64,
    /// What the runtime calls it.
    pub container_id: String,
    /// How it is.
    pub state: Container,
    /// When it was started, in milliseconds since 1970; 0 if it was not.
    pub started_at: i64,
}

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// Made, but not started yet.
    Created,
    /// It runs.
    Running,
    /// It ended with this status.
    Exited(i64),
}

/// What a runtime holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Its containers.
    pub containers: Vec<Seen>,
    /// The spaces that it keeps volumes of.
    pub kept: BTreeSet<String>,
}

/// One thing to do. Those for one space are done one after another, and before that space is looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bring up this generation, instead of any other that is here.
    Start {
        /// The space.
        space_id: String,
        /// The start.
        generation: u64,
    },
    /// End its container, which stays to be looked at.
    Stop {
        /// The space.
        space_id: String,
    },
    /// End and remove its containers.
    Remove {
        /// The space.
        space_id: String,
        /// Whether the volumes go too.
        with_volumes: bool,
    },
    /// Write this report, with the time at which it is written.
    Report {
        /// The space.
        space_id: String,
        /// What to write.
        report: Report,
    },
}

/// What servers have said of spaces: by space, by server.
pub type Reports = BTreeMap<String, BTreeMap<String, Report>>;

/// What a server knows of spaces.
#[derive(Clone, Copy, Debug)]
pub struct Knowledge<'a> {
    /// Which server.
    pub node_id: &'a str,
    /// Every record there is, by space.
    pub records: &'a BTreeMap<String, SpaceRecord>,
    /// What it and others have reported.
    pub reports: &'a Reports,
    /// Starts that it knew of when it began: what of them does not run was perhaps made elsewhere, or taken back, while it
    /// was away.
    pub missed: &'a BTreeSet<(String, u64)>,
}

/// What a server has to do, given what its runtime holds of this cluster. Whoever starts a space first reports that it
/// does, and then what came of it, by [`starting`] and [`failed`].
#[must_use]
pub fn decide(known: Knowledge<'_>, here: &Here) -> Vec<Step> {
    let mut containers: BTreeMap<&String, Vec<&Seen>> = BTreeMap::new();
    for seen in &here.containers {
        containers.entry(&seen.space_id).or_default().push(seen);
    }
    let placed = known.records.iter().filter(|(_, record)| record.node_id == known.node_id).map(|(id, _)| id);
    let spaces: BTreeSet<&String> = placed.chain(containers.keys().copied()).chain(&here.kept).collect();
    let mut steps = Vec::new();
    for space_id in spaces {
        let containers = containers.remove(space_id).unwrap_or_default();
        let space = Space::new(known, space_id, containers, here.kept.contains(space_id));
        match known.records.get(space_id) {
            Some(record) if record.wanted == Wanted::Deleted => space.delete(record, &mut steps),
            Some(record) if record.node_id == known.node_id => space.keep(record, &mut steps),
            Some(_) => space.remove(&mut steps),
            // Records do not go, so one that is not here is still to come: its disk was lost, say.
            None => {}
        }
    }
    steps
}

/// What a server has to do while it has no runtime: to say so of the spaces that it should start. `missing` says what is
/// missing and what to do. What runs may well run on while a runtime is only restarted, so nothing is said of it.
#[must_use]
pub fn without_runtime(known: Knowledge<'_>, missing: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for (space_id, record) in known.records.iter().filter(|(_, record)| record.node_id == known.node_id) {
        let space = Space::new(known, space_id, Vec::new(), false);
        let reported = space.report.filter(|report| report.is_of(record)).map(|report| report.state);
        if record.wanted == Wanted::Running && matches!(reported, None | Some(State::Starting)) {
            space.tell(failed(record, missing), None, &mut steps);
        }
    }
    steps
}

/// The report of a server that begins to start a space.
#[must_use]
pub fn starting(record: &SpaceRecord) -> Report {
    report(record, State::Starting)
}

/// The report of a server that could not start a space.
#[must_use]
pub fn failed(record: &SpaceRecord, error: &str) -> Report {
    let end = error.floor_char_boundary(super::record::ERROR_BYTES_MAX);
    Report { error: error[..end].to_owned(), ..report(record, State::Failed) }
}

fn report(record: &SpaceRecord, state: State) -> Report {
    Report { node_id: record.node_id.clone(), generation: record.generation, state, ..Report::default() }
}

struct Space<'a> {
    known: Knowledge<'a>,
    space_id: &'a str,
    containers: Vec<&'a Seen>,
    is_kept: bool,
    /// What this server has said of it.
    report: Option<&'a Report>,
}

impl<'a> Space<'a> {
    fn new(known: Knowledge<'a>, space_id: &'a str, containers: Vec<&'a Seen>, is_kept: bool) -> Self {
        let report = known.reports.get(space_id).and_then(|reports| reports.get(known.node_id));
        Self { known, space_id, containers, is_kept, report }
    }

    /// It is placed here.
    fn keep(&self, record: &SpaceRecord, steps: &mut Vec<Step>) {
        let reported = self.report.filter(|report| report.is_of(record));
        // Where two were made apart, the record may have kept an earlier number than this server has run.
        let generation = reported.map_or(record.generation, |report| report.generation);
        let record = &SpaceRecord { generation, ..record.clone() };
        let current = self.containers.iter().find(|seen| seen.generation == generation);
        let has_failed = reported.is_some_and(|report| report.state == State::Failed);
        match (record.wanted, current) {
            (Wanted::Running, Some(seen)) => match seen.state {
                // What could not be started, or be made room for, is not tried again.
                Container::Created if has_failed => {}
                Container::Running if self.containers.len() > 1 && has_failed => {}
                Container::Created => self.begin(record, steps),
                // A start makes room for itself.
                Container::Running if self.containers.len() > 1 => steps.push(self.start(record)),
                Container::Running => self.tell(report(record, State::Running), Some(seen), steps),
                Container::Exited(0) => self.tell(report(record, State::Stopped), Some(seen), steps),
                Container::Exited(status) => {
                    let error = format!("its container ended with status {status}: see its log, then start it again");
                    self.tell(failed(record, &error), Some(seen), steps);
                }
            },
            (Wanted::Running, None) => match reported.map(|report| report.state) {
                None | Some(State::Starting) => self.begin(record, steps),
                Some(State::Running | State::Stopping) => {
                    let error = "its container was removed by somebody else: start it again";
                    self.tell(failed(record, error), None, steps);
                }
                Some(State::Stopped | State::Failed | State::Removed) => {}
            },
            (Wanted::Stopped, _) => {
                let runs = |seen: &&&Seen| seen.state == Container::Running;
                if let Some(seen) = self.containers.iter().find(runs) {
                    self.tell(report(record, State::Stopping), Some(seen), steps);
                    steps.push(Step::Stop { space_id: self.space_id.to_owned() });
                } else {
                    self.tell(report(record, State::Stopped), current.copied(), steps);
                }
            }
            (Wanted::Deleted, _) => {}
        }
    }

    /// Starts it, unless it may have been started, moved or deleted where this server has not heard of it.
    fn begin(&self, record: &SpaceRecord, steps: &mut Vec<Step>) {
        let others = self.known.reports.get(self.space_id).into_iter().flatten();
        let is_overtaken = others
            .into_iter()
            .any(|(node, report)| node != self.known.node_id && report.generation > record.generation);
        if self.known.missed.contains(&(self.space_id.to_owned(), record.generation)) {
            let error = "its server was down before it ran: start it again";
            self.tell(failed(record, error), None, steps);
        } else if is_overtaken {
            let error = "another server has had a later start of it: start it again";
            self.tell(failed(record, error), None, steps);
        } else {
            steps.push(self.start(record));
        }
    }

    fn start(&self, record: &SpaceRecord) -> Step {
        Step::Start { space_id: self.space_id.to_owned(), generation: record.generation }
    }

    /// It is to be gone, wherever it ever was.
    fn delete(&self, record: &SpaceRecord, steps: &mut Vec<Step>) {
        if !self.containers.is_empty() || self.is_kept {
            steps.push(Step::Remove { space_id: self.space_id.to_owned(), with_volumes: true });
        } else if record.node_id == self.known.node_id {
            self.tell(report(record, State::Removed), None, steps);
        }
    }

    /// It is placed elsewhere.
    fn remove(&self, steps: &mut Vec<Step>) {
        if !self.containers.is_empty() {
            steps.push(Step::Remove { space_id: self.space_id.to_owned(), with_volumes: false });
        }
    }

    /// Reports what has not been reported.
    fn tell(&self, mut report: Report, seen: Option<&Seen>, steps: &mut Vec<Step>) {
        if let Some(seen) = seen {
            report.container_id.clone_from(&seen.container_id);
            report.started_at = seen.started_at;
        }
        let is_news = self.report.is_none_or(|told| Report { at: 0, ..told.clone() } != report);
        if is_news {
            steps.push(Step::Report { space_id: self.space_id.to_owned(), report });
        }
    }
}

#[cfg(test)]
mod tests;
