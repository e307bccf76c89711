//! Does what an engine asks for, as the server's driver would.

use std::time::Duration;

use bytes::Bytes;
use knot_engine::documents::Document;
use knot_engine::membership::{Accusation, Evidence, Status};
use knot_engine::{
    Address, DocumentView, EditError, EditId, EditRequest, Edited, Event, HistoryEntry, Instant, MemberChange, NodeId,
    Output, ReadError, ReadId, SessionId,
};
use serde_json::Value;

use super::{Happening, World};
use crate::checker::{ACCURACY_GRACE, Invariant, Observation};
use crate::disk::Batch;
use crate::draw::Draw;
use crate::hostile::Between;
use crate::ledger::Outcome;
use crate::network::{Plan, Process, named_by};
use crate::node::ReadFor;
use crate::scenario::Target;
use crate::watch::Observed;

/// Outputs in a row before an engine counts as stuck.
const OUTPUTS_MAX: u32 = 200_000;
/// How long a process takes to stop once it has left.
const EXIT_AFTER: Duration = Duration::from_millis(1);
/// How long it may take once its storage has failed, in milliseconds: somebody may be in no hurry.
const EXITS_AFTER_MS: [u64; 4] = [1, 1, 50, 1_000];
/// A trial takes from this many microseconds ...
const TRIAL_MIN_US: u64 = 50;
/// ... up to this many, or that many where other cores are busy.
const TRIAL_MAX_US: u64 = 5_000;
const TRIAL_BUSY_MAX_US: u64 = 300_000;
/// One run in so many has busy cores.
const BUSY_ONE_IN: usize = 4;

/// How long a trial takes at most in a run.
pub(super) fn trial_max_us(draw: &mut Draw) -> u64 {
    if draw.index(BUSY_ONE_IN) == 0 { TRIAL_BUSY_MAX_US } else { TRIAL_MAX_US }
}

impl<D: Document> World<D> {
    /// Does all that a process's engine asks for, then schedules its next timer.
    pub(super) fn drain(&mut self, process: Process) {
        let mut outputs = 0;
        while let Some(running) = &mut self.nodes[process.node].running
            && running.start == process.start
            && let Some(output) = running.engine.poll_output()
        {
            outputs += 1;
            if outputs > OUTPUTS_MAX {
                let stuck = || "outputs without end".to_owned();
                self.checkers.report(Invariant::Progress, self.now, process.node, stuck);
                return;
            }
            self.perform(process, output);
        }
        self.schedule_wake(process);
    }

    fn perform(&mut self, process: Process, output: Output<D>) {
        let (node, now) = (process.node, self.now);
        let mut plan = Plan::new();
        self.weigh(&output);
        match output {
            Output::SendDatagram { to, bytes } => {
                self.checkers.check_datagram(node, &bytes, self.scenario.sealed, now);
                if let Some(to) = self.resolve(&to) {
                    self.look_at_shut_out(node, to, None);
                    let pair = (node, to);
                    self.links.send_datagram(pair, &bytes, now, &mut plan);
                    self.observe_datagram(pair, &bytes, &plan);
                    self.say_unknown(node, to);
                }
            }
            Output::OpenSession { session, address } => {
                let to = self.resolve(&address);
                let end = (process, session);
                self.trace.log(now, node, || format!("{session:?} connects to {address}"));
                self.streams.connect(&mut self.links, end, to, now, &mut plan);
            }
            Output::SendFrame { session, frame } => self.send_frame(process, session, frame, &mut plan),
            Output::OpenCircuit { session, carrier, opens } => {
                self.trace.log(now, node, || format!("{session:?} goes through {carrier}, opened here: {opens}"));
                self.open_circuit(process, session, opens);
            }
            Output::Circuit { session, step } => self.on_circuit(process, session, step),
            Output::CloseSession { session, why } => {
                self.on_close(process, session);
                self.trace.log(now, node, || format!("{session:?} closed by it: {why}"));
                self.close_circuit(process, session);
                self.streams.close(&mut self.links, (process, session), now, &mut plan);
            }
            Output::Persist { batch, epoch, rewrite_tail, writes } => {
                self.persist(process, Batch { id: batch, epoch, rewrite_tail, writes })
            }
            Output::Load { load, query } => {
                let wait = self.nodes[node].disk.read_latency();
                self.insert(now + wait, Happening::Load(process, load, query));
            }
            Output::Verify(job) => {
                let wait = Duration::from_micros(self.verdicts.between(TRIAL_MIN_US, self.trial_max_us));
                let verdict = Box::new(job.run());
                self.insert(now + wait, Happening::Verdict(process, verdict));
            }
            Output::Event(event) => self.on_event(process, event),
        }
        self.insert_plan(plan);
    }

    fn resolve(&self, address: &Address) -> Option<usize> {
        let (node, moves) = named_by(address)?;
        let known = self.nodes.get(node)?;
        moves.is_none_or(|moves| moves == known.moves).then_some(node)
    }

    fn send_frame(&mut self, process: Process, session: SessionId, frame: Bytes, plan: &mut Plan) {
        let now = self.now;
        self.checkers.check_sent(process.node, &frame, now);
        if let Some(to) = self.peer_of(process, session) {
            self.look_at_shut_out(process.node, to, Some(&frame));
            self.checkers.check_entitled((process.node, to), &frame, now);
            if self.waits_for_peers {
                self.checkers.check_held((process.node, to), &frame, now);
            }
            self.observe_frame((process, session), to, &frame);
        }
        let (end, sent) = ((process, session), frame.clone());
        self.put(end, frame, plan);
        if self.is_later(process.node)
            && let Some(unknown) = self.later.frame()
        {
            self.put(end, unknown, plan);
        }
        self.send_forged(end, &sent, plan);
    }

    /// Sends a frame, whoever made it.
    fn put(&mut self, (process, session): (Process, SessionId), frame: Bytes, plan: &mut Plan) {
        if self.circuits.has(process, session) {
            self.send_by_circuit(process, session, &frame);
        } else {
            self.streams.send(&mut self.links, (process, session), frame, self.now, plan);
        }
    }

    /// The server at the other end of a stream, whatever it goes through.
    fn peer_of(&self, process: Process, session: SessionId) -> Option<usize> {
        let far = || self.checkers.present(self.circuits.far(process, session)?);
        self.streams.peer_of(process, session).or_else(far)
    }

    /// A hostile member has sent a frame that its engine made; now it sends what it makes itself.
    fn send_forged(&mut self, end: (Process, SessionId), sent: &Bytes, plan: &mut Plan) {
        let (process, session) = end;
        let node = &self.nodes[process.node];
        if !node.spec.hostile || self.now >= self.scenario.quiet_at() {
            return;
        }
        let Some(to) = self.peer_of(process, session) else { return };
        let everybody: Vec<NodeId> = self.nodes.iter().map(|node| node.key.node_id()).collect();
        let between = Between {
            me: node.key.node_id(),
            my_zone: &node.spec.zone,
            their_zone: &self.nodes[to].spec.zone,
            everybody: &everybody,
        };
        let frames = self.hostile.frames(between, sent);
        if !frames.is_empty() {
            self.checkers.on_forged(&self.hostile);
        }
        for frame in frames {
            self.trace.log(self.now, process.node, || format!("sends n{to} what it has forged, {} bytes", frame.len()));
            self.put(end, frame, plan);
        }
        if let Some(target) = self.hostile.read_by_others() {
            self.insert(self.now, Happening::Passing(to, target));
        }
    }

    /// Somebody reads a document that a hostile member writes, which is when what came of it is tried. Perhaps an operator
    /// then looks at what is in quarantine.
    pub(super) fn on_passing(&mut self, node: usize, target: &Target) {
        let Some(process) = self.process_of(node) else { return };
        let local = self.nodes[node].clock.read(self.now);
        if let Some(running) = &mut self.nodes[node].running {
            let read = running.engine.read(&target.id(), false, local);
            running.reads.insert(read, ReadFor::Passing);
            if let Some((document, review)) = self.hostile.reviewed_by_others(target) {
                self.trace.log(self.now, node, || format!("is asked to look at {document} again: {review:?}"));
                let asked = running.engine.review(&document, review, local);
                running.reads.insert(asked, ReadFor::Review);
            }
        }
        self.drain(process);
    }

    fn say_unknown(&mut self, node: usize, to: usize) {
        let to = self.nodes[to].key.node_id();
        if self.is_later(node)
            && let Some(unknown) = self.later.datagram()
            && let Some(running) = &mut self.nodes[node].running
        {
            running.engine.send_sealed(to, &unknown);
        }
    }

    /// Whether a server says what others have not heard of. In the end it has nothing to say, as all others.
    fn is_later(&self, node: usize) -> bool {
        self.nodes[node].spec.later_version && self.now < self.scenario.quiet_at()
    }

    fn persist(&mut self, process: Process, batch: Batch) {
        let node = process.node;
        self.trace.log(self.now, node, || {
            let count = batch.writes.len();
            format!("{:?} of {count} writes, epoch {}, rewrites tail {}", batch.id, batch.epoch, batch.rewrite_tail)
        });
        for write in &batch.writes {
            self.trace.add(self.now, node, "write", &write.key);
        }
        self.checkers.on_persist(node, &batch, self.now);
        if self.burns(node) {
            return;
        }
        if let Some(wait) = self.nodes[node].disk.persist(batch) {
            self.insert(self.now + wait, Happening::CommitDone(process));
        }
    }

    fn on_event(&mut self, process: Process, event: Event) {
        let node = process.node;
        match event {
            Event::Edited(edit, answer) => self.on_edited(process, edit, answer),
            Event::Read(read, answer) => self.on_read(process, read, answer),
            Event::History(read, answer) => self.on_history(process, read, answer),
            Event::Version(read, answer) => self.on_version(process, read, answer),
            Event::Reviewed(review, answer) => self.on_reviewed(node, review, &answer),
            Event::Member(change) => self.on_member(node, &change),
            Event::Changed(summary) => {
                self.trace.log(self.now, node, || {
                    format!("has {} at {} deleted {}", summary.id, summary.etag, summary.deleted)
                });
                self.on_eviction(node, &summary);
                self.observe_scopes(node);
            }
            Event::RepairStarted { peer, scope } => {
                self.counts.repairs += 1;
                self.trace.log(self.now, node, || format!("repairs {scope} with {peer}"));
                self.trace.observe(self.now, || Observed::Repairs { node, scope: scope.to_string() });
                self.on_repair(node, peer, &scope.to_string());
            }
            Event::StorageFailed => {
                self.trace.log(self.now, node, || format!("{event:?}"));
                let wait = Duration::from_millis(*self.exits.pick(&EXITS_AFTER_MS));
                self.insert(self.now + wait, Happening::Exit(process));
            }
            Event::LeaveDone => {
                self.trace.log(self.now, node, || format!("{event:?}"));
                self.insert(self.now + EXIT_AFTER, Happening::Exit(process));
            }
            Event::Quarantined { document, change, why } if self.hostile.forged(&change).is_some() => {
                self.trace.log(self.now, node, || format!("{change} of {document} is in quarantine: {why}"));
            }
            Event::Quarantined { document, why, .. } => {
                let detail = || format!("a change of {document} is in quarantine: {why}");
                self.checkers.report(Invariant::HonestAccepted, self.now, node, detail);
            }
            Event::Fenced => {
                self.trace.log(self.now, node, || format!("{event:?}"));
                self.on_fenced(node);
            }
            Event::AddressMoved { node: member, addresses } => {
                self.trace.log(self.now, node, || format!("sees {member} move to {addresses:?}"));
                if let Some(running) = &mut self.nodes[node].running {
                    running.moved.insert(member, addresses);
                }
            }
            Event::NameTaken { .. }
            | Event::ForeignCluster { .. }
            | Event::Evicted { .. }
            | Event::EvictedCame { .. }
            | Event::Adopted(_) => self.trace.log(self.now, node, || format!("{event:?}")),
        }
    }

    fn on_edited(&mut self, process: Process, edit: EditId, answer: Result<Edited, EditError>) {
        let Some(running) = &mut self.nodes[process.node].running else {
            return;
        };
        let Some(id) = running.edits.remove(&edit) else {
            return;
        };
        let (now, fenced) = (self.now, running.fenced);
        if running.crowded.remove(&edit) && answer.as_ref().is_ok_and(|edited| edited.changed) {
            self.checkers.report_crowded(process.node, id, now);
        }
        self.trace.log(now, process.node, || format!("answers w{id}: {answer:?}"));
        self.trace.add(now, process.node, "answer", &[u8::from(answer.is_ok())]);
        self.weigh_answer(id, &answer);
        if let Some(target) = self.checkers.edits(id) {
            self.checkers.check_edit(process.node, id, &answer, now);
            self.read_edited(process, target);
        }
        let outcome = match answer {
            Ok(edited) => {
                self.checkers.check_acknowledged(process.node, id, &edited, now);
                self.check_held_here(process.node, id);
                self.checkers.check_not_fenced(process.node, id, fenced, now);
                self.on_acknowledged(process.node, id, &edited);
                let changed = edited.changed;
                Outcome::Acknowledged { at: now, changed }
            }
            Err(EditError::StorageFailed) => Outcome::Unknown,
            Err(error) => Outcome::Refused(error.to_string()),
        };
        self.trace.observe(now, || Observed::Answered { write: id, answer: (&outcome).into() });
        self.checkers.ledger.settle(id, outcome);
    }

    /// A server outside a document's zone must not have taken the edit.
    fn check_held_here(&mut self, node: usize, id: u32) {
        let zone = &self.nodes[node].spec.zone;
        let write = self.checkers.ledger.get(id);
        let held = write.is_none_or(|write| write.operation.target.is_held_in(zone));
        if !held {
            self.checkers.report(Invariant::ScopeEntitlement, self.now, node, || {
                format!("w{id} was taken outside its document's zone")
            });
        }
    }

    fn on_read(&mut self, process: Process, read: ReadId, answer: Result<DocumentView, ReadError>) {
        let Some(running) = &mut self.nodes[process.node].running else {
            return;
        };
        match running.reads.remove(&read) {
            Some(ReadFor::Client(target, asked)) => {
                self.check_shown(process, &target, &answer, false);
                self.on_client_read(process.node, &target, &answer, asked);
            }
            Some(ReadFor::Application(operation)) => self.on_application_read(process, operation, &answer),
            Some(ReadFor::Patch(operation)) => self.on_patch_read(process, operation, &answer),
            Some(ReadFor::Edited(target)) => self.check_shown(process, &target, &answer, true),
            Some(ReadFor::AuditValue) => self.audit.on_value(process.node, answer),
            Some(
                ReadFor::AuditHistory
                | ReadFor::AuditVersion
                | ReadFor::Passing
                | ReadFor::Review
                | ReadFor::Release(_),
            )
            | None => {}
        }
    }

    /// Whoever is declared failed since its host refused is not the process that runs: a process that runs refuses nobody.
    fn check_refusal(&mut self, observer: usize, change: &MemberChange) {
        let Some(subject) = self.checkers.present(change.node) else { return };
        // Of another process of that server the host may have refused.
        let ended = self.nodes[subject].double_ended;
        if self.nodes[subject].double.is_some() || ended.is_some_and(|ended| self.now.since(ended) < ACCURACY_GRACE) {
            return;
        }
        let (Some(here), Some(there)) = (&self.nodes[observer].running, &self.nodes[subject].running) else { return };
        let (_, refused) = here.engine.accusation(&change.node);
        let known = here.engine.member(&change.node).map(|member| member.record.boot);
        if change.to == Status::Failed && refused && known == Some(there.engine.me().record.boot) {
            let runs_for = self.now.since(there.since);
            self.checkers.report(Invariant::MembershipAccurate, self.now, observer, || {
                format!("n{subject} is declared failed as if its host refused; this process has run for {runs_for:?}")
            });
        }
    }

    /// Whoever accuses a server of silence has heard nothing of it while others probed it too.
    fn check_evidence(&mut self, observer: usize, change: &MemberChange) {
        let Evidence::Accused(Accusation { by: Some(by), refused, unheard_for: Some(unheard_for), .. }) =
            &change.evidence
        else {
            return;
        };
        let node = &self.nodes[observer];
        let Some(here) = &node.running else { return };
        // Of what an earlier start said, or a copy, this process hears as of anybody's word.
        let is_alone = here.start == 1 && node.double.is_none() && node.double_ended.is_none();
        let is_its_own = *by == here.engine.me().record.node && change.to == Status::Suspect && refused.is_empty();
        let (unheard_for, at_least) = (*unheard_for, node.membership().probe_timeout_max);
        if is_alone && is_its_own && unheard_for < at_least {
            self.checkers.report(Invariant::EvidenceHeld, self.now, observer, || {
                format!("it accuses {} of silence, and heard it {unheard_for:?} before", change.name)
            });
        }
    }

    /// The application learns what its document is on the server that it asked, and edits it.
    fn on_application_read(&mut self, process: Process, operation: usize, answer: &Result<DocumentView, ReadError>) {
        let Some(value) = shown(answer) else { return };
        let operation = self.scenario.operations[operation].clone();
        let edit = self.application.as_ref().and_then(|application| application.edit(operation.id, value));
        self.checkers.ledger.ask(&operation, self.now);
        let Some(edit) = edit else {
            self.checkers.ledger.settle(operation.id, Outcome::Acknowledged { at: self.now, changed: false });
            return;
        };
        let request = EditRequest::new(operation.target.id(), edit);
        let clock = &self.nodes[process.node].clock;
        let (local, wall) = (clock.read(self.now), clock.wall_of(operation.id));
        if let Some(running) = &mut self.nodes[process.node].running {
            let edit = running.engine.edit(request, wall, local);
            running.edits.insert(edit, operation.id);
        }
    }

    fn on_client_read(
        &mut self,
        node: usize,
        target: &Target,
        answer: &Result<DocumentView, ReadError>,
        asked: Instant,
    ) {
        let Some(value) = shown(answer) else { return };
        self.weigh_read(asked);
        let since = self.nodes[node].restored;
        self.checkers.check_read((node, since), target, value, asked, self.now);
    }

    fn on_history(&mut self, process: Process, read: ReadId, answer: Result<Vec<HistoryEntry>, ReadError>) {
        let Some(running) = &mut self.nodes[process.node].running else {
            return;
        };
        if running.reads.remove(&read).is_none() {
            return;
        }
        let entries = answer.unwrap_or_default();
        self.audit.on_history(process.node, entries);
    }

    fn on_member(&mut self, observer: usize, change: &MemberChange) {
        self.trace.log(self.now, observer, || format!("sees {} {:?} -> {:?}", change.name, change.from, change.to));
        self.trace.add(self.now, observer, "member", &change.node.0);
        if let Some(running) = &mut self.nodes[observer].running {
            running.told.insert(change.node, change.to);
        }
        self.check_evidence(observer, change);
        let subject = self.checkers.present(change.node);
        self.weigh_change(subject, change);
        let Some(subject) = subject else { return };
        self.trace.observe(self.now, || Observed::Member { observer, subject, status: change.to });
        let gone = matches!(change.to, Status::Failed | Status::Left);
        if !gone || subject == observer {
            return;
        }
        let now = self.now;
        // Who said so last is asked first: of many observers only the first has to be compared with all.
        let last = self.nodes[subject].seen_gone_by.replace(observer);
        let is_echo = last.into_iter().chain(0..self.nodes.len()).filter(|other| *other != observer).any(|other| {
            let running = self.nodes[other].running.as_ref();
            let theirs = running.and_then(|running| running.engine.member(&change.node));
            theirs.is_some_and(|member| member.status == change.to)
        });
        let calm = self.disturbances == 0;
        let reached_for = self.reached_for(observer, subject);
        let up = self.nodes[subject].running.as_ref().filter(|running| !running.engine.has_left());
        let seen = Observation {
            observer,
            subject,
            to: change.to,
            calm_for: calm.then(|| now.since(self.calm_since)).or(reached_for),
            up_for: up.map(|running| now.since(running.since)),
            is_echo,
        };
        self.check_refusal(observer, change);
        let ran = seen.up_for.is_some_and(|up_for| up_for >= ACCURACY_GRACE);
        self.false_failures += u64::from(ran && calm && change.to == Status::Failed);
        self.checkers.check_accuracy(&seen, now);
    }
}

/// What an answer says of the document: its value, or that it does not exist. Other errors say nothing of it.
fn shown(answer: &Result<DocumentView, ReadError>) -> Option<Option<&Value>> {
    match answer {
        Ok(view) => Some(Some(&view.value)),
        Err(ReadError::NotFound | ReadError::Gone { .. }) => Some(None),
        Err(_) => None,
    }
}
