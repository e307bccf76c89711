//! Repair: roots are compared all the time; where they stay different, each side pulls what it lacks.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::api::{Event, InStep};
use crate::config::{RECENT, ROOT_MISMATCHES, ROOT_TICK};
use crate::documents::{Document, DocumentId, Scope};
use crate::engine::Engine;
use crate::faults::Fault;
use crate::identity::{ChangeHash, NodeId};
use crate::random::Random;
use crate::replication::pull::{Pull, Task};
use crate::replication::tree::{FANOUT, Sum};
use crate::replication::{Origin, Ticket};
use crate::sometimes;
use crate::time::Instant;
use crate::wire::{Differences, DocumentChanges, DocumentHeads, Frame, PREFIX_BYTES_MAX, Root, Wanted, heads_bytes};

/// Repairs under way at once.
const PULLS_MAX: usize = 3;
/// A child of which the asker has nothing is asked for whole from this many documents; names cost less below.
const WHOLE_CHILD_MIN: u64 = 8;
/// A child with at most this many documents is listed instead of split again.
const LISTED_CHILD_MAX: u64 = 64;
/// Bytes of names and heads listed in one answer; children beyond are split again.
const LISTED_BYTES: usize = 256 << 10;
/// Comparisons after which fruitless repairs are tried no more often.
const MISMATCHES_MAX: u32 = 8;
/// Scopes whose roots one message may carry: the global one and the zone's.
const ROOTS_MAX: usize = 2;

/// What is known of one scope at one peer.
#[derive(Debug)]
struct PeerScope {
    theirs: Option<Sum>,
    announced: Option<Sum>,
    /// Since when all comparisons differed; none where the last did not.
    differs: Option<Instant>,
    /// Comparisons in a row that differed.
    mismatches: u32,
    /// How many of them start a repair; rises while repairs bring nothing.
    patience: u32,
}

impl Default for PeerScope {
    fn default() -> Self {
        // The first comparison of a session counts at once: whoever was away has catching up to do.
        Self { theirs: None, announced: None, differs: None, mismatches: ROOT_MISMATCHES, patience: ROOT_MISMATCHES }
    }
}

#[derive(Debug)]
pub(super) struct Repairs {
    peers: BTreeMap<NodeId, BTreeMap<Scope, PeerScope>>,
    pulls: Vec<Pull>,
    requests: u32,
    tick: Option<Instant>,
    random: Random,
}

impl Repairs {
    pub(super) fn new(random: Random) -> Self {
        Self { peers: BTreeMap::new(), pulls: Vec::new(), requests: 0, tick: None, random }
    }

    /// Roots will be compared soon.
    pub(super) fn arm(&mut self, now: Instant) {
        self.tick.get_or_insert(now + ROOT_TICK);
    }

    pub(super) fn tick(&self) -> Option<Instant> {
        self.tick
    }

    pub(super) fn pull_deadline(&self) -> Option<Instant> {
        self.pulls.iter().map(|pull| pull.deadline).min()
    }

    pub(super) fn opened(&mut self, peer: NodeId) {
        self.peers.insert(peer, BTreeMap::new());
    }

    pub(super) fn closed(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
        self.pulls.retain(|pull| pull.peer != peer);
    }

    /// Peers that last said that they hold exactly `ours`.
    pub(super) fn in_step(&self, scope: &Scope, ours: Sum) -> usize {
        let holds = |scopes: &&BTreeMap<Scope, PeerScope>| scopes.get(scope).and_then(|peer| peer.theirs) == Some(ours);
        self.peers.values().filter(holds).count()
    }

    /// How a scope of a peer's compares with this node's; none where it has said nothing.
    pub(super) fn step_with(&self, peer: NodeId, scope: &Scope) -> Option<InStep> {
        let known = self.peers.get(&peer)?.get(scope)?;
        known.theirs?;
        Some(known.differs.map_or(InStep::Yes, |since| InStep::No { since }))
    }

    pub(super) fn under_way(&self) -> (usize, usize) {
        (self.pulls.len(), PULLS_MAX)
    }

    fn request(&mut self) -> u32 {
        self.requests = self.requests.wrapping_add(1);
        self.requests
    }
}

impl<D: Document> Engine<D> {
    pub(super) fn shared_scopes(&self, peer: NodeId) -> Vec<Scope> {
        let mut scopes = vec![Scope::Global];
        if self.membership.record(&peer).is_some_and(|record| record.zone == self.config.zone) {
            scopes.push(Scope::Zone(self.config.zone.as_str().into()));
        }
        scopes
    }

    /// What we hold of the scopes that we share with a peer.
    pub(super) fn roots_for(&self, peer: NodeId) -> Vec<Root> {
        let index = self.replica.index();
        self.shared_scopes(peer).into_iter().map(|scope| Root { sum: index.root(&scope), scope }).collect()
    }

    pub(super) fn on_roots(&mut self, peer: NodeId, roots: Vec<Root>, now: Instant) {
        let shared = self.shared_scopes(peer);
        let Some(known) = self.repairs.peers.get_mut(&peer) else { return };
        for Root { scope, sum } in roots.into_iter().take(ROOTS_MAX) {
            if !shared.contains(&scope) {
                continue;
            }
            let ours = self.replica.index().root(&scope);
            let differs = ours != sum;
            let counted = Sum { count: sum.count, ..ours };
            let sum = if self.faults.has(Fault::RootCountOnly) { counted } else { sum };
            known.entry(scope).or_default().theirs = Some(sum);
            if differs && !self.faults.has(Fault::RootWakeLost) {
                self.repairs.tick.get_or_insert(now + ROOT_TICK);
            }
        }
        self.start_pulls(now, Some(peer));
    }

    /// Compares and announces roots, when that is due.
    pub(super) fn compare_roots(&mut self, now: Instant) {
        if self.repairs.tick.is_none_or(|at| at > now) {
            return;
        }
        self.repairs.tick = None;
        self.replica.forget_recent(now);
        let peers: Vec<_> = self.sessions.peers().collect();
        let mut settled = true;
        for (peer, session) in peers {
            let mut news = Vec::new();
            for Root { scope, sum } in self.roots_for(peer) {
                let Some(known) = self.repairs.peers.get_mut(&peer) else { continue };
                let known = known.entry(scope.clone()).or_default();
                if known.announced != Some(sum) {
                    known.announced = Some(sum);
                    news.push(Root { scope, sum });
                }
                if known.theirs.is_some_and(|theirs| theirs != sum) {
                    known.differs.get_or_insert(now);
                    known.mismatches = known.mismatches.saturating_add(1);
                    settled = false;
                } else if known.theirs.is_some() {
                    known.differs = None;
                    known.mismatches = 0;
                    known.patience = ROOT_MISMATCHES;
                }
            }
            if !news.is_empty() {
                self.send(session, &Frame::Roots(news));
            }
        }
        self.start_pulls(now, None);
        if !settled {
            self.repairs.arm(now);
        }
    }

    /// Starts repairs with peers that have differed for long enough: one at a time for each scope, since what one peer
    /// brings another need not. With `only`, one peer has said what it holds, of which a new session's first word counts.
    fn start_pulls(&mut self, now: Instant, only: Option<NodeId>) {
        let mut due: Vec<(NodeId, Scope)> = Vec::new();
        let mut ours: BTreeMap<&Scope, Sum> = BTreeMap::new();
        let (from, to) = only.map_or((NodeId([0; 16]), NodeId([0xff; 16])), |peer| (peer, peer));
        for (peer, scopes) in self.repairs.peers.range(from..=to) {
            for (scope, known) in scopes {
                let ours = ours.entry(scope).or_insert_with(|| self.replica.index().root(scope));
                let differs = known.theirs.is_some_and(|theirs| theirs != *ours);
                let patient = known.mismatches < known.patience;
                let first = known.announced.is_none();
                if differs && !patient && (only.is_none() || first) {
                    due.push((*peer, scope.clone()));
                }
            }
        }
        self.repairs.random.shuffle(&mut due);
        for (peer, scope) in due {
            let busy =
                self.repairs.pulls.iter().any(|pull| {
                    pull.scope == scope && pull.is_comparing() && (pull.peer == peer || !pull.is_stalled(now))
                });
            let Some(session) = self.sessions.of(peer) else { continue };
            sometimes!("repair waits", busy);
            if busy || self.repairs.pulls.len() >= PULLS_MAX {
                continue;
            }
            if let Some(known) = self.repairs.peers.get_mut(&peer).and_then(|scopes| scopes.get_mut(&scope)) {
                known.mismatches = 0;
                known.announced.get_or_insert_default();
            }
            sometimes!("repair started");
            self.stats.repairs += 1;
            self.emit(Event::RepairStarted { peer, scope: scope.clone() });
            self.repairs.pulls.push(Pull::new(peer, session, scope, Task::Compare(Vec::new()), now));
        }
        self.drive_pulls(now);
    }

    /// Asks a peer for one document of which a change came too early.
    pub(super) fn fetch(&mut self, document: DocumentId, from: NodeId, now: Instant) {
        let Some(session) = self.sessions.of(from) else { return };
        let scope = document.scope().clone();
        if self.repairs.pulls.iter().any(|pull| pull.peer == from && pull.covers(&document)) {
            return;
        }
        // The peer's heads are not known; none of ours is all of them.
        let task = Task::documents(vec![(document, Vec::new())]);
        let room = self.repairs.pulls.len() < PULLS_MAX || self.faults.has(Fault::FetchesUnbounded);
        match self.repairs.pulls.iter_mut().find(|pull| pull.peer == from && pull.scope == scope) {
            Some(pull) => {
                sometimes!("fetch joined");
                pull.add(task);
            }
            None if room => {
                sometimes!("fetched alone");
                self.repairs.pulls.push(Pull::new(from, session, scope, task, now));
            }
            None => {
                sometimes!("fetch without room");
                self.stats.dropped("fetch without room");
            }
        }
        self.drive_pulls(now);
    }

    /// Sends what the repairs under way want to ask, and ends those that have nothing left.
    fn drive_pulls(&mut self, now: Instant) {
        for at in 0..self.repairs.pulls.len() {
            while let Some(pull) = self.repairs.pulls.get_mut(at)
                && let Some(task) = pull.next()
            {
                let (session, scope) = (pull.session, pull.scope.clone());
                let request = self.repairs.request();
                let Some(frame) = self.ask(request, &scope, &task) else { continue };
                if let Some(pull) = self.repairs.pulls.get_mut(at) {
                    pull.asked(request, task);
                }
                self.send(session, &frame);
            }
        }
        let pulls = std::mem::take(&mut self.repairs.pulls);
        let (done, left): (Vec<Pull>, Vec<Pull>) = pulls.into_iter().partition(Pull::is_done);
        self.repairs.pulls = left;
        for pull in done {
            self.pull_over(&pull, now);
        }
    }

    /// The frame that asks for a task; none when there is nothing left to ask.
    fn ask(&self, request: u32, scope: &Scope, task: &Task) -> Option<Frame> {
        let index = self.replica.index();
        match task {
            Task::Compare(prefix) => {
                let (scope, prefix) = (scope.clone(), prefix.clone());
                let sums = index.split(&scope, &prefix);
                Some(Frame::Compare { request, scope, prefix, sums })
            }
            Task::Range { prefix, after } => {
                let (scope, prefix, after) = (scope.clone(), prefix.clone(), after.clone());
                Some(Frame::Want { request, wanted: Wanted::Range { scope, prefix, after } })
            }
            Task::Documents { documents, after } => {
                let ours = |id: &DocumentId| index.heads(&index.key(id)).unwrap_or_default().to_vec();
                let lacking = |(id, theirs, ours): &(DocumentId, &Vec<ChangeHash>, Vec<_>)| {
                    let known = theirs.iter().all(|head| ours.contains(head)) || self.replica.knows_all(id, theirs);
                    theirs.is_empty() || !known
                };
                let documents: Vec<DocumentHeads> = documents
                    .iter()
                    .map(|(id, theirs)| (id.clone(), theirs, ours(id)))
                    .filter(lacking)
                    .map(|(id, _, ours)| (id, ours))
                    .collect();
                let (is_over, after) = (documents.is_empty(), after.clone());
                (!is_over).then_some(Frame::Want { request, wanted: Wanted::Documents { documents, after } })
            }
        }
    }

    fn pull_over(&mut self, pull: &Pull, now: Instant) {
        // A fetch of single documents says nothing of the rest.
        if !pull.compares {
            return;
        }
        let Some(known) = self.repairs.peers.get_mut(&pull.peer).and_then(|scopes| scopes.get_mut(&pull.scope)) else {
            return;
        };
        known.mismatches = 0;
        sometimes!("fruitless repair", !pull.fruitful);
        known.patience =
            if pull.fruitful { ROOT_MISMATCHES } else { known.patience.saturating_mul(2).min(MISMATCHES_MAX) };
        self.repairs.arm(now);
    }

    pub(super) fn expire_pulls(&mut self, now: Instant) {
        let pulls = std::mem::take(&mut self.repairs.pulls);
        let keeps = self.faults.has(Fault::ExpiredPullKept);
        let (left, expired): (Vec<Pull>, Vec<Pull>) = pulls.into_iter().partition(|pull| pull.deadline > now || keeps);
        self.repairs.pulls = left;
        for mut pull in expired {
            sometimes!("repair expired");
            self.stats.dropped("repair without progress");
            pull.fruitful = false;
            self.pull_over(&pull, now);
        }
    }

    /// How we differ from the sums of a peer, which lacks something that we have.
    pub(super) fn differences(&self, scope: &Scope, prefix: &[u8], theirs: &[Sum], now: Instant) -> Differences {
        let index = self.replica.index();
        let ours = index.split(scope, prefix);
        let mut differences = Differences::default();
        let fanout = if self.faults.has(Fault::SplitOffByOne) { FANOUT - 1 } else { FANOUT };
        let mut listed_bytes = 0;
        for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate().take(fanout) {
            if ours == theirs || ours.count == 0 {
                continue;
            }
            let byte = u8::try_from(at).unwrap_or(u8::MAX);
            let child = [prefix, &[byte]].concat();
            if theirs.count == 0 && ours.count > WHOLE_CHILD_MIN {
                sometimes!("child asked for whole");
                differences.whole.push(byte);
            } else if child.len() < PREFIX_BYTES_MAX - 1
                && (ours.count > LISTED_CHILD_MAX || listed_bytes >= LISTED_BYTES)
            {
                sometimes!("child split again");
                differences.deeper.push(byte);
            } else {
                sometimes!("child listed");
                let hides = self.faults.has(Fault::TombstoneNotListed);
                let settled = |(key, _): &(&_, &[_])| !self.replica.is_recent(key, now, RECENT);
                let shown = |(key, _): &(&_, &[_])| !hides || !index.is_deleted(key);
                let listed = index.range(scope, &child).filter(settled).filter(shown);
                let listed = listed.filter_map(|(key, heads)| Some((index.id(key)?, heads.to_vec())));
                differences.documents.extend(listed.inspect(|document| listed_bytes += heads_bytes(document)));
            }
        }
        differences
    }

    pub(super) fn on_differences(&mut self, peer: NodeId, request: u32, differences: Differences, now: Instant) {
        let index = self.replica.index();
        let mut lacks = Vec::new();
        let mut purge = Vec::new();
        for (id, theirs) in &differences.documents {
            if id.check().is_err() || !id.scope().is_held_in(&self.config.zone) {
                continue;
            }
            let key = index.key(id);
            let ours = index.heads(&key).unwrap_or_default();
            let known = theirs.iter().filter(|head| ours.contains(head)).count();
            let enough = if self.faults.has(Fault::AnyHeadKnown) { theirs.len().min(1) } else { theirs.len() };
            let settled = self.faults.has(Fault::DeletedNotRepaired) && index.is_deleted(&key);
            if known < enough && !settled {
                if self.faults.has(Fault::StaleReturnee) && index.is_deleted(&key) {
                    purge.push(key);
                }
                lacks.push((id.clone(), theirs.clone()));
            }
        }
        if let Some(pull) = self.repairs.pulls.iter_mut().find(|pull| pull.peer == peer && pull.awaits(request)) {
            pull.differences(request, differences, lacks, now);
        }
        for key in purge {
            self.replica.purge(&key);
        }
        self.drive_pulls(now);
    }

    pub(super) fn on_window(
        &mut self,
        peer: NodeId,
        request: u32,
        changes: Vec<DocumentChanges>,
        next: Option<Bytes>,
        now: Instant,
    ) {
        let Some(pull) = self.repairs.pulls.iter_mut().find(|pull| pull.peer == peer && pull.awaits(request)) else {
            // Late, most likely: its changes are as good as pushed ones, and the gate is the same.
            sometimes!("late window");
            self.stats.dropped("window of a repair that is over");
            self.replica.receive(peer, Origin::Repair, changes, None, now, &mut self.stats);
            return;
        };
        let next = if self.faults.has(Fault::WindowTruncated) { None } else { next };
        pull.fruitful |= !changes.is_empty();
        let ticket = self.spread.ticket();
        pull.window(request, ticket, next, now);
        self.replica.receive(peer, Origin::Repair, changes, Some(ticket), now, &mut self.stats);
    }

    /// A window of a repair is durable, or could not be taken whole.
    pub(super) fn on_landed(&mut self, ticket: Ticket, complete: bool, now: Instant) {
        for pull in &mut self.repairs.pulls {
            if pull.delivered(ticket, complete, now) {
                break;
            }
        }
        self.drive_pulls(now);
    }

    /// What of a request the peer is entitled to; none when that is nothing.
    pub(super) fn entitled(&mut self, peer: NodeId, wanted: Wanted) -> Option<Wanted> {
        match wanted {
            Wanted::Range { ref scope, .. } => self.is_entitled(peer, &scope.clone()).then_some(wanted),
            Wanted::Documents { documents, after } => {
                // Named twice, a document is loaded once.
                let mut documents: Vec<DocumentHeads> =
                    documents.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect();
                documents.retain(|(id, _)| id.check().is_ok() && self.is_entitled(peer, id.scope()));
                Some(Wanted::Documents { documents, after })
            }
        }
    }
}
