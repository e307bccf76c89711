//! All that a page shows of a run, as it happened.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use knot_engine::membership::Status;
use knot_engine::{Faults, Instant, ScopeStatus};

use crate::campaign::run_watched;
use crate::checker::Invariant;
use crate::report::Report;
use crate::scenario::{Operation, Scenario};
use crate::spread::Spread;
use crate::state::NodeState;
use crate::trace::Sink;
use crate::watch::{Answer, Kind, Observed, Observer, Watch};

/// Lines of the log before the end that are kept.
const LINES_MAX: usize = 400;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is still under way.
    UnderWay,
    /// It arrived.
    Arrived(Instant),
    /// The network lost it.
    Lost,
    /// The link was cut.
    Blocked,
    /// There was no process when it arrived.
    NobodyThere(Instant),
    /// Its stream ended first.
    StreamEnded(Instant),
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) sent: Instant,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) kind: Kind,
    pub(crate) bytes: usize,
    pub(crate) fate: Fate,
}

/// One life of a server's process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) starts: Instant,
    /// When it ended and how; none while it lives.
    pub(crate) ends: Option<(Instant, &'static str)>,
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) operation: Operation,
    pub(crate) answer: Option<(Instant, Answer)>,
}

/// One time that a fault was there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disturbed {
    pub(crate) fault: usize,
    pub(crate) begins: Instant,
    pub(crate) ends: Option<Instant>,
}

/// A run, as it happened.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub(crate) messages: Vec<Message>,
    pub(crate) lives: BTreeMap<usize, Vec<Life>>,
    pub(crate) pauses: BTreeMap<usize, Vec<(Instant, Option<Instant>)>>,
    pub(crate) faults: Vec<Disturbed>,
    pub(crate) operations: Vec<Asked>,
    /// By server and scope.
    pub(crate) scopes: BTreeMap<(usize, String), Vec<(Instant, ScopeStatus)>>,
    pub(crate) beliefs: Vec<(Instant, usize, usize, Status)>,
    pub(crate) repairs: Vec<(Instant, usize, String)>,
    pub(crate) spread: Spread,
    pub(crate) state: Vec<NodeState>,
    pub(crate) lines: VecDeque<String>,
    last: Instant,
    asked: BTreeMap<u32, usize>,
    /// Frames under way, by stream and end.
    under_way: BTreeMap<(u64, usize), VecDeque<usize>>,
}

/// Runs a scenario as [`run_watched`] does, and records it. `until` ends it early; `log` hears each line.
#[must_use]
pub fn record(
    scenario: Scenario,
    planted: Faults,
    until: Option<Instant>,
    log: Option<Sink>,
    every_event: bool,
) -> (Report, Recording) {
    let recording = Rc::new(RefCell::new(Recording::default()));
    let lines = Rc::clone(&recording);
    let mut log = log;
    let gather: Sink = Box::new(move |line| {
        if let Some(log) = &mut log {
            log(line);
        }
        lines.borrow_mut().add_line(line);
    });
    let observer: Box<dyn Observer> = Box::new(Rc::clone(&recording));
    let watch = Watch { log: Some(gather), every_event, observer: Some(observer), until };
    let report = run_watched(scenario, planted, watch);
    let mut recording = Rc::unwrap_or_clone(recording).into_inner();
    (recording.told(report), recording)
}

impl Observer for Recording {
    fn observe(&mut self, now: Instant, what: Observed) {
        self.last = now;
        self.spread.observe(now, &what);
        match what {
            Observed::Starts { node } => self.lives.entry(node).or_default().push(Life { starts: now, ends: None }),
            Observed::Ends { node, how } => self.on_end(now, node, how),
            Observed::Pauses { node, on } => self.on_pause(now, node, on),
            Observed::FaultBegins(fault) => self.faults.push(Disturbed { fault, begins: now, ends: None }),
            Observed::FaultEnds(fault) => {
                let open = self.faults.iter_mut().find(|open| open.fault == fault && open.ends.is_none());
                if let Some(open) = open {
                    open.ends = Some(now);
                }
            }
            Observed::Asked(operation) => {
                self.asked.insert(operation.id, self.operations.len());
                self.operations.push(Asked { at: now, operation, answer: None });
            }
            Observed::Answered { write, answer } => {
                let asked = self.asked.get(&write).and_then(|at| self.operations.get_mut(*at));
                if let Some(asked) = asked {
                    asked.answer = Some((now, answer));
                }
            }
            Observed::Datagram { from, to, bytes, arrives, blocked } => {
                let kind = Kind::of_datagram(&bytes);
                let message = |fate| Message { sent: now, from, to, kind, bytes: bytes.len(), fate };
                if arrives.is_empty() {
                    self.messages.push(message(if blocked { Fate::Blocked } else { Fate::Lost }));
                }
                self.messages.extend(arrives.into_iter().map(|at| message(Fate::Arrived(at))));
            }
            Observed::Frame { end, from, to, bytes } => {
                self.under_way.entry(end).or_default().push_back(self.messages.len());
                let (kind, bytes) = (Kind::of_frame(&bytes), bytes.len());
                self.messages.push(Message { sent: now, from, to, kind, bytes, fate: Fate::UnderWay });
            }
            Observed::FrameArrives { end } => {
                let first = self.under_way.get_mut(&end).and_then(VecDeque::pop_front);
                if let Some(message) = first.and_then(|at| self.messages.get_mut(at)) {
                    message.fate = Fate::Arrived(now);
                }
            }
            Observed::StreamEnds { end } => self.on_stream_end(now, end),
            Observed::Member { observer, subject, status } => self.beliefs.push((now, observer, subject, status)),
            Observed::Scopes { node, scopes } => {
                for scope in scopes {
                    self.on_scope(now, node, scope);
                }
            }
            Observed::Repairs { node, scope } => self.repairs.push((now, node, scope)),
            Observed::State(state) => self.finish(now, state),
            Observed::Holds { .. } => {}
        }
    }
}

impl Recording {
    /// The report, with the moment of a panic, which a run that ended in one cannot tell.
    fn told(&mut self, mut report: Report) -> Report {
        if report.violations.iter().any(|violation| violation.invariant == Invariant::NoPanic) {
            report.simulated_us = self.last.as_micros();
            report.violations.iter_mut().for_each(|violation| violation.at_us = self.last.as_micros());
            self.finish(self.last, Vec::new());
        }
        report
    }

    /// How each server stood when the run ended.
    #[must_use]
    pub fn state(&self) -> &[NodeState] {
        &self.state
    }

    fn add_line(&mut self, line: &str) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    fn on_end(&mut self, now: Instant, node: usize, how: &'static str) {
        if let Some(life) = self.lives.get_mut(&node).and_then(|lives| lives.last_mut()) {
            life.ends = Some((now, how));
        }
        let messages = &self.messages;
        let is_theirs = |end: &&(u64, usize)| {
            let first = self.under_way.get(*end).and_then(VecDeque::front).and_then(|at| messages.get(*at));
            first.is_some_and(|message| message.to == node)
        };
        let ends: Vec<(u64, usize)> = self.under_way.keys().filter(is_theirs).copied().collect();
        for end in ends {
            self.give_up(now, end);
            self.under_way.remove(&end);
        }
    }

    /// What is under way to this end is lost; so is what this end had sent, unless it still arrives.
    fn on_stream_end(&mut self, now: Instant, (stream, side): (u64, usize)) {
        self.give_up(now, (stream, side));
        self.under_way.remove(&(stream, side));
        self.give_up(now, (stream, 1 - side));
    }

    fn give_up(&mut self, now: Instant, end: (u64, usize)) {
        for at in self.under_way.get(&end).into_iter().flatten() {
            if let Some(message) = self.messages.get_mut(*at)
                && message.fate == Fate::UnderWay
            {
                message.fate = Fate::StreamEnded(now);
            }
        }
    }

    fn on_pause(&mut self, now: Instant, node: usize, on: bool) {
        let pauses = self.pauses.entry(node).or_default();
        let is_open = pauses.last().is_some_and(|(_, ends)| ends.is_none());
        match (on, is_open) {
            (true, false) => pauses.push((now, None)),
            (false, true) => {
                if let Some((_, ends)) = pauses.last_mut() {
                    *ends = Some(now);
                }
            }
            (true, true) | (false, false) => {}
        }
    }

    fn on_scope(&mut self, now: Instant, node: usize, status: ScopeStatus) {
        let since = self.lives.get(&node).and_then(|lives| lives.last()).map(|life| life.starts);
        let roots = self.scopes.entry((node, status.scope.clone())).or_default();
        if roots.last().is_none_or(|(at, known)| *known != status || Some(*at) < since) {
            roots.push((now, status));
        }
    }

    fn finish(&mut self, now: Instant, state: Vec<NodeState>) {
        self.state = state;
        for index in 0..self.messages.len() {
            let message = self.messages[index];
            if let Fate::Arrived(at) = message.fate {
                self.messages[index].fate = match at {
                    at if at > now => Fate::UnderWay,
                    at if !self.runs(message.to, at) => Fate::NobodyThere(at),
                    at => Fate::Arrived(at),
                };
            }
        }
    }

    fn runs(&self, node: usize, at: Instant) -> bool {
        let lives = self.lives.get(&node).map(Vec::as_slice).unwrap_or_default();
        let life = lives.partition_point(|life| life.starts <= at).checked_sub(1).and_then(|last| lives.get(last));
        life.is_some_and(|life| life.ends.is_none_or(|(ends, _)| at <= ends))
    }
}
