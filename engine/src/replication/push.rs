//! Edits that wait until peers hold them.
//!
//! A peer counts once, when it has said of every frame of a push that it holds it, on the session by which that frame was
//! sent to it. Who was sent nothing has nothing to say: it may not hold the scope, or answer for a push of an earlier
//! start. Or else it counts when it says, by stream, that all that it holds of the scope is just what this node holds:
//! the session by which it was sent the push may be gone, and with it what would have been said on it.

use std::collections::{BTreeMap, BTreeSet};

use super::replica::DurableEdit;
use crate::api::{EditId, Edited};
use crate::documents::Scope;
use crate::faults::{Fault, Faults};
use crate::identity::{NodeId, SessionId};
use crate::sometimes;
use crate::time::Instant;

/// Edits that were pushed together, and who holds how much of that push.
#[derive(Debug)]
struct Group {
    scope: Scope,
    frames: BTreeMap<u64, Sent>,
    /// Which of them each peer holds.
    held: BTreeMap<NodeId, BTreeSet<u64>>,
    waiting: Vec<Wait>,
}

#[derive(Debug)]
struct Wait {
    id: EditId,
    edited: Edited,
    needed: usize,
    deadline: Instant,
}

/// By which sessions a frame went out.
type Sent = BTreeSet<SessionId>;

/// All of them.
#[derive(Debug)]
pub(crate) struct Waits {
    /// The group that each pushed frame belongs to.
    frames: BTreeMap<u64, u64>,
    groups: BTreeMap<u64, Group>,
    deadlines: BTreeSet<(Instant, u64)>,
    count: usize,
    faults: Faults,
}

impl Waits {
    pub(crate) fn new(faults: Faults) -> Self {
        let (frames, groups, deadlines) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { frames, groups, deadlines, count: 0, faults }
    }

    /// Waits for peers to hold `frames`, each with the sessions that it went out by, for as long as each edit says.
    pub(crate) fn add(&mut self, scope: &Scope, frames: BTreeMap<u64, Sent>, edits: Vec<DurableEdit>, now: Instant) {
        let Some((&group, _)) = frames.first_key_value() else { return };
        self.frames.extend(frames.keys().map(|seq| (*seq, group)));
        self.count += edits.len();
        let waiting: Vec<Wait> = edits
            .into_iter()
            .map(|edit| Wait { id: edit.id, edited: edit.edited, needed: edit.replicas, deadline: now + edit.timeout })
            .collect();
        self.deadlines.extend(waiting.iter().map(|wait| (wait.deadline, group)));
        self.groups.insert(group, Group { scope: scope.clone(), frames, held: BTreeMap::new(), waiting });
    }

    /// A frame has gone out by one more session, which had to be opened first.
    pub(crate) fn sent(&mut self, seq: u64, session: SessionId) {
        let group = self.frames.get(&seq).and_then(|number| self.groups.get_mut(number));
        if let Some(sent) = group.and_then(|group| group.frames.get_mut(&seq)) {
            sent.insert(session);
        }
    }

    /// A peer says on `session` that it holds a frame; returns the answers that this completes.
    pub(crate) fn held(&mut self, seq: u64, session: SessionId, by: NodeId) -> Vec<(EditId, Edited)> {
        let Some(&number) = self.frames.get(&seq) else { return Vec::new() };
        let Some(group) = self.groups.get_mut(&number) else { return Vec::new() };
        if !group.frames.get(&seq).is_some_and(|sent| sent.contains(&session)) {
            return Vec::new();
        }
        group.held.entry(by).or_default().insert(seq);
        self.meet(number)
    }

    /// A peer holds all of a scope that this node does; returns the answers that this completes.
    pub(crate) fn in_step(&mut self, scope: &Scope, by: NodeId) -> Vec<(EditId, Edited)> {
        let mut met = Vec::new();
        for (number, group) in &mut self.groups {
            let frames: BTreeSet<u64> = group.frames.keys().copied().collect();
            if group.scope == *scope && group.held.get(&by) != Some(&frames) {
                group.held.insert(by, frames);
                met.push(*number);
            }
        }
        sometimes!("held by who is in step", !met.is_empty());
        met.into_iter().flat_map(|number| self.meet(number)).collect()
    }

    /// Answers the edits of a group that enough peers hold.
    fn meet(&mut self, number: u64) -> Vec<(EditId, Edited)> {
        let Some(group) = self.groups.get_mut(&number) else { return Vec::new() };
        let held_by = group.holders() + usize::from(self.faults.has(Fault::CountsItself));
        let (met, waiting): (Vec<Wait>, Vec<Wait>) = group.waiting.drain(..).partition(|wait| wait.needed <= held_by);
        sometimes!("wait met", !met.is_empty());
        sometimes!("wait met for some", !met.is_empty() && !waiting.is_empty());
        group.waiting = waiting;
        self.answer(number, met, held_by)
    }

    /// Answers the edits whose time is up.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(EditId, Edited)> {
        let mut answers = Vec::new();
        while let Some((deadline, number)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let Some(group) = self.groups.get_mut(&number) else { continue };
            let held_by = group.holders();
            let (late, waiting): (Vec<Wait>, Vec<Wait>) =
                group.waiting.drain(..).partition(|wait| wait.deadline <= now);
            sometimes!("wait timed out", !late.is_empty());
            group.waiting = waiting;
            answers.extend(self.answer(number, late, held_by));
        }
        answers
    }

    fn answer(&mut self, number: u64, waits: Vec<Wait>, held_by: usize) -> Vec<(EditId, Edited)> {
        self.count -= waits.len();
        for wait in &waits {
            self.deadlines.remove(&(wait.deadline, number));
        }
        let Some(group) = self.groups.get(&number) else { return Vec::new() };
        if group.waiting.is_empty() {
            for frame in group.frames.keys() {
                self.frames.remove(frame);
            }
            self.groups.remove(&number);
        } else if !self.faults.has(Fault::SharedDeadlineLost) {
            // Some of those that still wait may have had the deadline of one that is answered.
            self.deadlines.extend(group.waiting.iter().map(|wait| (wait.deadline, number)));
        }
        waits
            .into_iter()
            .map(|wait| (wait.id, Edited { held_by, replicated: held_by >= wait.needed, ..wait.edited }))
            .collect()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

impl Group {
    fn holders(&self) -> usize {
        self.held.values().filter(|frames| frames.len() >= self.frames.len()).count()
    }
}
