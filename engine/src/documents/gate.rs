//! What the protocol knows of a document without opening it, and the checks that need no more than that.
//!
//! A [`Log`] is the graph of a document's changes: hashes, dependencies, authors, counters. [`judge`] decides from it
//! whether a change may go to trial. Its verdict depends on the change, its ancestors and constants, so that every
//! replica decides alike. The rules were derived from what Automerge 0.12 makes when it authors on top of all heads it
//! holds, which is the only way [`Document::edit`](super::Document::edit) authors:
//!
//! - **Sequence.** An author's change names its author's previous one among its dependencies, even where that is an
//!   ancestor of another of them. So `seq` is 1, or a direct dependency has the same actor and `seq - 1`; and no
//!   ancestor has the same actor and `seq`.
//! - **Operation counter.** `start_op` is one more than the greatest operation of the ancestors. A change without
//!   operations occupies none. Equality leaves nobody room to jump towards the end of the counter, where Automerge panics.
//! - **Actors.** The author's actor is bound to a node, and operations refer only to actors of ancestors.
//!
//! **Two changes with one (actor, seq)**, neither an ancestor of the other, cannot come from an honest node, and
//! Automerge refuses to hold both. Which of them came first differs between replicas, so this one rule looks at the set
//! of changes held: of those that pass the rules above, the one with the lowest hash stands; the others are quarantined,
//! and with them whatever descends from them, also when they were applied before. Replicas that hold the same changes
//! therefore agree. Only metadata decides who contends: a change that fails its trial still does, since a trial that
//! did not run must not make a difference.

use super::{Actor, CHANGE_DEPS_MAX, CHANGE_OPS_MAX, ChangeHeader, ChangeKind, Quarantine};
use crate::identity::ChangeHash;

/// Greatest operation counter a document may reach. Automerge holds counters in 32 bits and panics past them; this is
/// half of that, ten operations a second for seven years.
pub const OPERATION_COUNTER_MAX: u64 = 1 << 31;

/// What to do with a change that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is in the log already, or is the genesis.
    Known,
    /// It depends on changes that are not here; it waits in the orphan store.
    Orphan {
        /// The dependencies that are not in the log.
        missing: Vec<ChangeHash>,
    },
    /// It may go to trial.
    Admit,
    /// It goes to quarantine, untried.
    Quarantine(Quarantine),
}

/// A document's change graph without content, in the order of arrival: every change comes after its dependencies.
///
/// Indexes count changes from 0 and leave out the genesis. About 80 bytes a change.
#[derive(Clone, Debug)]
pub struct Log {
    genesis: ChangeHash,
    entries: Vec<Entry>,
    /// Positions of all dependencies, one change's after another's. Position 0 is the genesis, `i + 1` is change `i`.
    deps: Vec<u32>,
    by_hash: Vec<u32>,
    authors: Vec<Author>,
    by_actor: Vec<u32>,
    heads: Vec<u32>,
    live_heads: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Entry {
    hash: ChangeHash,
    seq: u64,
    /// Greatest operation counter of the change and its ancestors.
    last_op: u64,
    deps_start: u32,
    deps_len: u32,
    author: u32,
    kind: ChangeKind,
    contends: bool,
    quarantined: Option<Quarantine>,
}

#[derive(Clone, Debug)]
struct Author {
    actor: Actor,
    /// Of all its changes, in quarantine or not, so that a number which none of them has takes no look at each.
    greatest_seq: u64,
}

/// A change's ancestors, by position.
enum Ancestors {
    All,
    Marked(Vec<bool>),
}

impl Log {
    /// The log of a document that has nothing but its genesis.
    #[must_use]
    pub fn new(genesis: &ChangeHash) -> Self {
        Self {
            genesis: *genesis,
            entries: Vec::new(),
            deps: Vec::new(),
            by_hash: Vec::new(),
            authors: Vec::new(),
            by_actor: Vec::new(),
            heads: vec![0],
            live_heads: vec![0],
        }
    }

    /// Appends a change with the verdict it got, and returns the indexes of earlier changes that are now in quarantine
    /// because of it: empty but for forged or cloned authors (see the module's last rule). The change itself may be in
    /// quarantine even if `quarantined` is none: ask [`Log::quarantined`].
    ///
    /// # Panics
    /// When the change is in the log already, or a dependency is not.
    pub fn push(&mut self, header: &ChangeHeader, quarantined: Option<Quarantine>) -> Vec<usize> {
        let slot = self.find(&header.hash);
        let (false, Err(slot)) = (header.hash == self.genesis, slot) else {
            panic!("change {} is in the log already", header.hash);
        };
        let deps = self.positions(&header.deps);
        assert!(deps.len() == header.deps.len(), "change {} is pushed before its dependencies", header.hash);
        let contends = self.inline(header, &deps).is_none();
        let rivals = if contends { self.rivals(header) } else { Vec::new() };
        let lost = rivals.iter().any(|rival| self.hash_at(*rival) < &header.hash);
        let ancestor = deps.iter().any(|dep| self.is_quarantined_at(*dep));
        let quarantined =
            quarantined.or(ancestor.then_some(Quarantine::Ancestor)).or(lost.then_some(Quarantine::SequenceGap));

        let position = position_of(self.entries.len());
        let author = self.author_index(&header.actor);
        if let Some(author) = self.authors.get_mut(author as usize) {
            author.greatest_seq = author.greatest_seq.max(header.seq);
        }
        self.entries.push(Entry {
            hash: header.hash,
            seq: header.seq,
            last_op: last_op(header),
            deps_start: position_of(self.deps.len()) - 1,
            deps_len: position_of(deps.len()) - 1,
            author,
            kind: header.kind,
            contends,
            quarantined,
        });
        advance(&mut self.heads, &deps, position);
        if quarantined.is_none() {
            advance(&mut self.live_heads, &deps, position);
        }
        self.by_hash.insert(slot, position);
        self.deps.extend(deps);
        if lost { Vec::new() } else { self.demote(&rivals, Quarantine::SequenceGap) }
    }

    /// Whether pushing this change, which [`judge`] admits, puts others into quarantine. It then cannot be tried beside
    /// them: push it, rebuild the document without the changes that [`Log::push`] returns, try it there, and
    /// [`Log::quarantine`] it if it fails.
    #[must_use]
    pub fn displaces(&self, header: &ChangeHeader) -> bool {
        !self.rivals(header).is_empty()
    }

    /// Puts the change at `index` and all that descends from it into quarantine, and returns the indexes of those that
    /// were not there before.
    pub fn quarantine(&mut self, index: usize, why: Quarantine) -> Vec<usize> {
        self.demote(&[position_of(index)], why)
    }

    /// How many changes it has, the genesis not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has nothing but the genesis.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The changes that no other depends on, those in quarantine included, sorted; the genesis when there is no other.
    #[must_use]
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.sorted_hashes(&self.heads)
    }

    /// The heads of what is applied: as [`Log::heads`], but as if no change in quarantine existed.
    #[must_use]
    pub fn live_heads(&self) -> Vec<ChangeHash> {
        self.sorted_hashes(&self.live_heads)
    }

    /// Whether all live heads are deletes, or nothing but the genesis is live: what is in quarantine makes no document.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.live_kinds().all(|kind| kind == ChangeKind::Delete)
    }

    /// Whether an edit and a delete stand side by side: the edit had not seen the delete, and keeps the document alive.
    #[must_use]
    pub fn is_revived(&self) -> bool {
        self.live_kinds().any(|kind| kind == ChangeKind::Delete) && !self.is_deleted()
    }

    /// Whether the change is here, in quarantine or not. The genesis always is.
    #[must_use]
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.position(hash).is_some()
    }

    /// The index of a change; none for the genesis.
    #[must_use]
    pub fn index_of(&self, hash: &ChangeHash) -> Option<usize> {
        self.position(hash)?.checked_sub(1).map(|index| index as usize)
    }

    /// The hash of the change at `index`.
    #[must_use]
    pub fn hash(&self, index: usize) -> Option<&ChangeHash> {
        self.entries.get(index).map(|entry| &entry.hash)
    }

    /// Why the change at `index` is in quarantine; none when it is not.
    #[must_use]
    pub fn quarantined(&self, index: usize) -> Option<Quarantine> {
        self.entries.get(index)?.quarantined
    }

    /// The greatest sequence number of `actor`, whether or not its change counts; 0 when there is none.
    #[must_use]
    pub fn greatest_seq(&self, actor: &Actor) -> u64 {
        self.author(actor).map_or(0, |author| author.greatest_seq)
    }

    /// The indexes, in order, of the changes that are neither one of `their_heads` nor an ancestor of one.
    /// Heads that are not in the log tell nothing and are passed over.
    #[must_use]
    pub fn missing_from(&self, their_heads: &[ChangeHash]) -> Vec<usize> {
        match self.ancestors(&self.positions(their_heads)) {
            Ancestors::All => Vec::new(),
            Ancestors::Marked(marked) => {
                marked.iter().skip(1).enumerate().filter_map(|(index, held)| (!held).then_some(index)).collect()
            }
        }
    }

    /// Whether all of `heads` are here.
    #[must_use]
    pub fn knows_all(&self, heads: &[ChangeHash]) -> bool {
        heads.iter().all(|head| self.contains(head))
    }

    /// Bytes of heap it takes, roughly.
    #[must_use]
    pub fn weight(&self) -> usize {
        const ACTOR_ALLOCATION_BYTES: usize = 64;
        let positions = self.deps.capacity()
            + self.by_hash.capacity()
            + self.by_actor.capacity()
            + self.heads.capacity()
            + self.live_heads.capacity();
        self.entries.capacity() * size_of::<Entry>()
            + self.authors.capacity() * (size_of::<Author>() + ACTOR_ALLOCATION_BYTES)
            + positions * size_of::<u32>()
    }

    /// The rules that look at the change and its ancestors' metadata alone, whether or not those are in quarantine.
    fn inline(&self, header: &ChangeHeader, deps: &[u32]) -> Option<Quarantine> {
        if header.ops > CHANGE_OPS_MAX || header.deps.len() > CHANGE_DEPS_MAX {
            return Some(Quarantine::TooLarge);
        }
        if header.actor.node().is_none() {
            return Some(Quarantine::UnboundActor);
        }
        let greatest = deps.iter().map(|dep| self.last_op_at(*dep)).max();
        let follows = greatest.and_then(|greatest| greatest.checked_add(1)) == Some(header.start_op);
        if !follows || last_op(header) > OPERATION_COUNTER_MAX {
            return Some(Quarantine::OperationCounter);
        }
        let ancestors = std::cell::OnceCell::new();
        let ancestors = || ancestors.get_or_init(|| self.ancestors(deps));
        let clashes = self.same_author_and_seq(header).any(|position| ancestors().has(position));
        if !self.follows_its_author(header, deps) || clashes {
            return Some(Quarantine::SequenceGap);
        }
        let knows = |actor: &Actor| match (self.author_position(actor), ancestors()) {
            (None, _) => false,
            (Some(_), Ancestors::All) => true,
            (Some(author), ancestors @ Ancestors::Marked(_)) => {
                (1..).zip(&self.entries).any(|(position, entry)| entry.author == author && ancestors.has(position))
            }
        };
        if header.refers_to.iter().all(knows) { None } else { Some(Quarantine::UnknownActor) }
    }

    fn follows_its_author(&self, header: &ChangeHeader, deps: &[u32]) -> bool {
        match header.seq {
            0 => false,
            1 => true,
            seq => self.author_position(&header.actor).is_some_and(|author| {
                deps.iter()
                    .filter_map(|dep| self.entry(*dep))
                    .any(|entry| entry.author == author && entry.seq == seq - 1)
            }),
        }
    }

    /// Positions of changes that contend with `header` for its place in its author's sequence.
    fn rivals(&self, header: &ChangeHeader) -> Vec<u32> {
        self.same_author_and_seq(header)
            .filter(|position| self.entry(*position).is_some_and(|entry| entry.contends))
            .collect()
    }

    fn same_author_and_seq(&self, header: &ChangeHeader) -> impl Iterator<Item = u32> {
        let author = self.author_position(&header.actor).filter(|_| header.seq <= self.greatest_seq(&header.actor));
        let seq = header.seq;
        let entries: &[Entry] = if author.is_some() { &self.entries } else { &[] };
        (1..)
            .zip(entries)
            .filter_map(move |(position, entry)| (Some(entry.author) == author && entry.seq == seq).then_some(position))
    }

    /// Puts `losers` and all that descends from them into quarantine.
    fn demote(&mut self, losers: &[u32], why: Quarantine) -> Vec<usize> {
        let mut demoted = Vec::new();
        if losers.is_empty() {
            return demoted;
        }
        for position in 1..position_of(self.entries.len()) {
            let reason = if losers.contains(&position) {
                why
            } else if self.deps_at(position).iter().any(|dep| self.is_quarantined_at(*dep)) {
                Quarantine::Ancestor
            } else {
                continue;
            };
            let index = position as usize - 1;
            if let Some(entry) = self.entries.get_mut(index)
                && entry.quarantined.is_none()
            {
                entry.quarantined = Some(reason);
                demoted.push(index);
            }
        }
        self.live_heads = vec![0];
        for position in 1..position_of(self.entries.len()) {
            if !self.is_quarantined_at(position) {
                let deps = self.deps_at(position).to_vec();
                advance(&mut self.live_heads, &deps, position);
            }
        }
        demoted
    }

    fn ancestors(&self, of: &[u32]) -> Ancestors {
        if self.heads.iter().all(|head| of.contains(head)) {
            return Ancestors::All;
        }
        let mut marked = vec![false; self.entries.len() + 1];
        for position in of {
            mark(&mut marked, *position);
        }
        for position in (1..position_of(self.entries.len())).rev() {
            if marked.get(position as usize) == Some(&true) {
                for dep in self.deps_at(position) {
                    mark(&mut marked, *dep);
                }
            }
        }
        Ancestors::Marked(marked)
    }

    /// What the live heads do. The genesis does nothing.
    fn live_kinds(&self) -> impl Iterator<Item = ChangeKind> {
        self.live_heads.iter().filter_map(|head| self.entry(*head).map(|entry| entry.kind))
    }

    fn sorted_hashes(&self, positions: &[u32]) -> Vec<ChangeHash> {
        let mut hashes: Vec<_> = positions.iter().map(|head| *self.hash_at(*head)).collect();
        hashes.sort_unstable();
        hashes
    }

    /// The change at `position`; none for the genesis.
    fn entry(&self, position: u32) -> Option<&Entry> {
        self.entries.get((position as usize).checked_sub(1)?)
    }

    fn hash_at(&self, position: u32) -> &ChangeHash {
        self.entry(position).map_or(&self.genesis, |entry| &entry.hash)
    }

    fn last_op_at(&self, position: u32) -> u64 {
        self.entry(position).map_or(0, |entry| entry.last_op)
    }

    fn is_quarantined_at(&self, position: u32) -> bool {
        self.entry(position).is_some_and(|entry| entry.quarantined.is_some())
    }

    fn deps_at(&self, position: u32) -> &[u32] {
        self.entry(position)
            .and_then(|entry| {
                let start = entry.deps_start as usize;
                self.deps.get(start..start + entry.deps_len as usize)
            })
            .unwrap_or_default()
    }

    fn find(&self, hash: &ChangeHash) -> Result<usize, usize> {
        self.by_hash.binary_search_by(|position| self.hash_at(*position).cmp(hash))
    }

    fn position(&self, hash: &ChangeHash) -> Option<u32> {
        if *hash == self.genesis {
            return Some(0);
        }
        self.find(hash).ok().and_then(|slot| self.by_hash.get(slot).copied())
    }

    /// Positions of those of `hashes` that are here.
    fn positions(&self, hashes: &[ChangeHash]) -> Vec<u32> {
        hashes.iter().filter_map(|hash| self.position(hash)).collect()
    }

    fn find_author(&self, actor: &Actor) -> Result<usize, usize> {
        self.by_actor.binary_search_by(|author| {
            self.authors.get(*author as usize).map_or(std::cmp::Ordering::Less, |author| author.actor.cmp(actor))
        })
    }

    fn author_position(&self, actor: &Actor) -> Option<u32> {
        let slot = self.find_author(actor).ok()?;
        self.by_actor.get(slot).copied()
    }

    fn author(&self, actor: &Actor) -> Option<&Author> {
        self.authors.get(self.author_position(actor)? as usize)
    }

    fn author_index(&mut self, actor: &Actor) -> u32 {
        match self.find_author(actor) {
            Ok(slot) => self.by_actor.get(slot).copied().unwrap_or_default(),
            Err(slot) => {
                let author = position_of(self.authors.len()) - 1;
                let actor = Actor(bytes::Bytes::copy_from_slice(&actor.0));
                self.authors.push(Author { actor, greatest_seq: 0 });
                self.by_actor.insert(slot, author);
                author
            }
        }
    }
}

/// Decides from metadata alone whether a change may go to trial. See the module's rules.
#[must_use]
pub fn judge(log: &Log, header: &ChangeHeader) -> Judgement {
    if log.contains(&header.hash) {
        return Judgement::Known;
    }
    let missing: Vec<_> = header.deps.iter().filter(|dep| !log.contains(dep)).copied().collect();
    if !missing.is_empty() {
        return Judgement::Orphan { missing };
    }
    let deps = log.positions(&header.deps);
    if let Some(reason) = log.inline(header, &deps) {
        return Judgement::Quarantine(reason);
    }
    if deps.iter().any(|dep| log.is_quarantined_at(*dep)) {
        return Judgement::Quarantine(Quarantine::Ancestor);
    }
    let loses = |rival: &u32| log.hash_at(*rival) < &header.hash;
    if log.rivals(header).iter().any(loses) {
        return Judgement::Quarantine(Quarantine::SequenceGap);
    }
    Judgement::Admit
}

impl Ancestors {
    fn has(&self, position: u32) -> bool {
        match self {
            Self::All => true,
            Self::Marked(marked) => marked.get(position as usize) == Some(&true),
        }
    }
}

fn mark(marked: &mut [bool], position: u32) {
    if let Some(mark) = marked.get_mut(position as usize) {
        *mark = true;
    }
}

/// Replaces `deps` among `heads` by the change at `position`.
fn advance(heads: &mut Vec<u32>, deps: &[u32], position: u32) {
    heads.retain(|head| !deps.contains(head));
    heads.push(position);
}

fn last_op(header: &ChangeHeader) -> u64 {
    header.start_op.saturating_sub(1).saturating_add(header.ops)
}

/// The position of the change at `index`.
fn position_of(index: usize) -> u32 {
    u32::try_from(index + 1).expect("a log has fewer than 2^32 changes and dependencies")
}
