//! An edit makes of a document what the RFCs say, of the state that it names and of no other.
//!
//! An edit says `If-Match`, and its change says in its dependencies which state it was made of: the two are the same,
//! or the edit was refused. What the document is then follows from what its client has read, by [`crate::edits`]. An
//! etag names a state, so whoever shows that etag has to show that value, at any time and on any server.

use std::collections::{BTreeMap, BTreeSet};

use knot_engine::documents::{Conflict, Edit};
use knot_engine::{ChangeHash, DocumentView, EditError, Edited, Etag, EtagMatch, Instant, Stats};
use serde_json::{Map, Value};

use super::told::Told;
use super::{Checkers, Invariant};
use crate::edits::merged::Pair;
use crate::edits::{Base, Drawn, Expected};
use crate::scenario::{DocumentKind, Target};

/// The context of the hash that is an etag, by docs/protocol.md.
const ETAG_CONTEXT: &str = "knot 2026 etag";
const EPOCH: u32 = 0;
/// The engine's names for an assertion that failed while it had a document in hand.
const PANICS: [&str; 2] = ["edit panicked", "read panicked"];
/// Characters of a value that a report shows.
const SHOWN_MAX: usize = 600;

/// What is known of documents that are edited so.
#[derive(Debug, Default)]
pub(super) struct Edits {
    targets: BTreeSet<Target>,
    asked: BTreeMap<u32, Asked>,
    states: BTreeMap<Etag, State>,
    /// The edits of each state.
    children: BTreeMap<Etag, Vec<Child>>,
    /// Two edits of one state together, of which nobody has shown anything yet.
    pairs: BTreeMap<Etag, Pair>,
    /// What histories say, where nothing else shows changes.
    pub(super) told: Told,
}

/// A change, as those see it that come after it.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) deps: Vec<ChangeHash>,
    pub(crate) is_delete: bool,
}

#[derive(Debug)]
struct Asked {
    base: Base,
    drawn: Drawn,
    document: DocumentKind,
}

/// A state that an etag names.
#[derive(Clone, Debug, PartialEq)]
struct State {
    /// None where the document is deleted.
    value: Option<Value>,
    revived: Option<bool>,
    conflicts: Option<Vec<Conflict>>,
}

#[derive(Debug)]
struct Child {
    change: ChangeHash,
    value: Option<Value>,
    /// Whether it adds to a counter, which two may do together.
    counts: bool,
}

/// What a server shows under an etag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub(crate) etag: Etag,
    pub(crate) value: Option<&'a Value>,
    pub(crate) revived: Option<bool>,
    /// None where nobody asked for them.
    pub(crate) conflicts: Option<&'a [Conflict]>,
}

impl<'a> Shown<'a> {
    /// What a view shows.
    pub(crate) fn view(view: &'a DocumentView, with_conflicts: bool) -> Self {
        Self {
            etag: view.summary.etag,
            value: Some(&view.value),
            revived: Some(view.summary.revived),
            conflicts: with_conflicts.then_some(&view.conflicts),
        }
    }

    /// A document that is deleted.
    pub(crate) fn deleted(etag: Etag) -> Self {
        Self { etag, value: None, revived: None, conflicts: None }
    }
}

impl Checkers {
    /// A client edits what it has read.
    pub(crate) fn ask_edit(&mut self, id: u32, base: Base, drawn: Drawn, document: DocumentKind) {
        self.edits.asked.insert(id, Asked { base, drawn, document });
    }

    /// The document of an edit that was asked for so.
    pub(crate) fn edits(&self, id: u32) -> Option<Target> {
        self.edits.asked.contains_key(&id).then(|| self.ledger.get(id).map(|write| write.operation.target.clone()))?
    }

    /// An edit has its answer.
    pub(crate) fn check_edit(&mut self, node: usize, id: u32, answer: &Result<Edited, EditError>, now: Instant) {
        let Some(asked) = self.edits.asked.remove(&id) else { return };
        let checked = match answer {
            Ok(edited) if edited.changed => self.check_made(id, &asked, edited),
            Ok(edited) => asked.check_unchanged(edited),
            Err(error) => asked.check_refused(error),
        };
        if let Err((invariant, why)) = checked {
            let write = self.describe(id);
            let edit = short(&asked.drawn.edit);
            self.report(invariant, now, node, || format!("{write}, {edit}: {why}"));
        }
    }

    /// The change of an edit is made of the state that the edit names.
    fn check_made(&mut self, id: u32, asked: &Asked, edited: &Edited) -> Result<(), (Invariant, String)> {
        // Whether it is there is another promise.
        let Some((hash, change)) = self.change_of(id, edited) else { return Ok(()) };
        let heads = self.heads_of(&change.deps);
        let parent = etag_of(&heads);
        let existed = heads.iter().any(|head| self.past(head).is_some_and(|past| !past.is_delete));
        let precondition = &asked.drawn.precondition;
        let held = match (&precondition.if_match, &precondition.if_none_match) {
            (Some(EtagMatch::OneOf(etags)), _) => existed && etags.contains(&parent),
            (_, Some(_)) => !existed,
            (Some(EtagMatch::Any) | None, None) => true,
        };
        if !held {
            let why = format!("it was made of the state {parent}, which exists: {existed}; asked was {precondition:?}");
            return Err((Invariant::PreconditionHeld, why));
        }
        let wrong = |why: String| Err((Invariant::EditedAsAsked, why));
        if edited.etag != etag_of(&[hash]) || edited.created == existed {
            return wrong(format!("the answer is {edited:?} for {hash}; the document existed: {existed}"));
        }
        let base = match &asked.base {
            Base::Present(etag, value) => Some((*etag, value.clone())),
            Base::Nothing if heads.iter().all(|head| self.genesis.contains(head)) => {
                Some((parent, Value::Object(Map::new())))
            }
            Base::Nothing | Base::Deleted(_) => None,
        };
        let value = match &asked.drawn.expected {
            Expected::Value(value) => Some(value.clone()),
            Expected::Deleted => None,
            Expected::Refused(refusal) => return wrong(format!("it was made, and is to be refused: {refusal:?}")),
            Expected::Stale => return Ok(()),
        };
        if matches!((&asked.base, &value), (Base::Present(_, base), Some(value)) if base == value) {
            return wrong("it has a change, and the document already was as asked".to_owned());
        }
        let state = State { value: value.clone(), revived: value.is_some().then_some(false), conflicts: None };
        self.edits.states.insert(edited.etag, state);
        if let Some((parent, base)) = base {
            let counts = matches!(asked.drawn.edit, Edit::Increment { .. });
            let deep = asked.document == DocumentKind::Automerge;
            self.edits.bear(parent, &base, Child { change: hash, value, counts }, deep);
        }
        Ok(())
    }

    /// The change of an edit.
    fn change_of(&self, id: u32, edited: &Edited) -> Option<(ChangeHash, Past)> {
        let tapped = self.tap.number_of_write(id).map(|number| self.tap.change(number).hash);
        let hash = tapped.or_else(|| self.edits.told.change_at(edited.etag))?;
        Some((hash, self.past(&hash)?))
    }

    fn past(&self, hash: &ChangeHash) -> Option<Past> {
        let tapped = self.tap.number_of(hash).map(|number| {
            let change = self.tap.change(number);
            Past { deps: change.deps.clone(), is_delete: change.is_delete }
        });
        tapped.or_else(|| self.edits.told.past(hash))
    }

    /// Those of a change's dependencies that were heads: it names its author's last change as well.
    fn heads_of(&self, deps: &[ChangeHash]) -> Vec<ChangeHash> {
        let parents = |hash: &ChangeHash| self.past(hash).map(|past| past.deps).unwrap_or_default();
        let mut heads = deps.to_vec();
        if deps.len() > 1 {
            let mut seen = BTreeSet::new();
            let mut open: Vec<ChangeHash> = deps.iter().flat_map(parents).collect();
            while let Some(hash) = open.pop() {
                if seen.insert(hash) {
                    open.extend(parents(&hash));
                }
            }
            heads.retain(|head| !seen.contains(head));
        }
        heads.sort_unstable();
        heads
    }

    /// Whoever shows a state that is known shows it as it is.
    pub(crate) fn check_state(&mut self, node: usize, target: &Target, shown: Shown<'_>, now: Instant) {
        if !self.edits.targets.contains(target) {
            return;
        }
        if let Err(why) = self.edits.look(shown) {
            let value = shown.value.map(short);
            self.report(Invariant::EditedAsAsked, now, node, || {
                format!("{} at {} shows {value:?}: {why}", target.id(), shown.etag)
            });
        }
    }

    /// A document is edited so.
    pub(crate) fn watch_edits(&mut self, target: &Target) {
        self.edits.targets.insert(target.clone());
    }

    /// No edit and no read makes an assertion fail, whatever it holds.
    pub(crate) fn check_panics(&mut self, node: usize, stats: &Stats, now: Instant) {
        for what in PANICS {
            if stats.drops.get(what).is_some_and(|count| *count > 0) {
                self.report(Invariant::NoPanic, now, node, || format!("a document was in hand: {what}"));
            }
        }
    }
}

impl Edits {
    /// A state has one more edit.
    fn bear(&mut self, parent: Etag, base: &Value, child: Child, deep: bool) {
        let siblings = self.children.entry(parent).or_default();
        for sibling in siblings.iter() {
            let mut heads = [sibling.change, child.change];
            heads.sort_unstable();
            let etag = etag_of(&heads);
            match (&sibling.value, &child.value) {
                (Some(one), Some(other)) if !sibling.counts && !child.counts => {
                    let pair = Pair { base: base.clone(), one: one.clone(), other: other.clone(), deep };
                    self.pairs.insert(etag, pair);
                }
                (Some(value), None) | (None, Some(value)) => {
                    let state = State { value: Some(value.clone()), revived: Some(true), conflicts: None };
                    self.states.insert(etag, state);
                }
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        siblings.push(child);
    }

    fn look(&mut self, shown: Shown<'_>) -> Result<(), String> {
        if let (Some(value), Some(conflicts)) = (shown.value, shown.conflicts) {
            conflicts.iter().try_for_each(|conflict| check_conflict(value, conflict))?;
            if let Some(pair) = self.pairs.remove(&shown.etag) {
                pair.check(value, conflicts)?;
                if shown.revived == Some(true) {
                    return Err("nobody deleted it".to_owned());
                }
            }
        }
        let state = self.states.entry(shown.etag).or_insert_with(|| State {
            value: shown.value.cloned(),
            revived: shown.revived,
            conflicts: None,
        });
        if state.value.as_ref() != shown.value {
            return Err(format!("that state is {:?}", state.value.as_ref().map(short)));
        }
        let (known, revived) = (state.revived, shown.revived);
        if known.is_some() && revived.is_some() && known != revived {
            return Err(format!("whether it came back after a delete: {revived:?}, and in that state it is {known:?}"));
        }
        if let Some(conflicts) = shown.conflicts {
            let known = state.conflicts.get_or_insert_with(|| conflicts.to_vec());
            if known != conflicts {
                return Err(format!("its conflicts are {}, and in that state {}", short(conflicts), short(known)));
            }
        }
        Ok(())
    }
}

impl Asked {
    fn check_unchanged(&self, edited: &Edited) -> Result<(), (Invariant, String)> {
        let (etag, present) = match &self.base {
            Base::Present(etag, value) => (Some(*etag), value.clone()),
            Base::Nothing | Base::Deleted(_) => (None, Value::Object(Map::new())),
        };
        if let Some(EtagMatch::OneOf(etags)) = &self.drawn.precondition.if_match
            && !etags.contains(&edited.etag)
        {
            return Err((Invariant::PreconditionHeld, format!("nothing is to change at {}", edited.etag)));
        }
        let as_expected = self.drawn.expected == Expected::Value(present);
        if as_expected || etag.is_some_and(|etag| etag != edited.etag) {
            return Ok(());
        }
        let expected = short(&self.drawn.expected);
        Err((Invariant::EditedAsAsked, format!("nothing is to change; expected was {expected}")))
    }

    fn check_refused(&self, error: &EditError) -> Result<(), (Invariant, String)> {
        if let EditError::Precondition { current } = error {
            return self.check_stale(*current);
        }
        // Other answers say nothing of the edit itself.
        let is_about_edit = matches!(error, EditError::Refused(_) | EditError::NotFound | EditError::Gone);
        let said = matches!(&self.drawn.expected, Expected::Refused(refusal) if refusal.is_said_by(error));
        // It may have come and gone meanwhile.
        let has_gone = self.base == Base::Nothing && *error == EditError::Gone;
        if said || has_gone || !is_about_edit {
            return Ok(());
        }
        let expected = short(&self.drawn.expected);
        Err((Invariant::EditedAsAsked, format!("it is refused, {error}; expected was {expected}")))
    }

    /// Says a server that the precondition does not hold, then by the state that it names it does not.
    fn check_stale(&self, current: Option<Etag>) -> Result<(), (Invariant, String)> {
        let precondition = &self.drawn.precondition;
        let holds = match (&precondition.if_match, current) {
            (Some(EtagMatch::OneOf(etags)), Some(current)) => etags.contains(&current),
            (Some(EtagMatch::OneOf(_)), None) => false,
            (Some(EtagMatch::Any) | None, current) => current.is_none(),
        };
        if holds {
            let why = format!("it is refused since the document is at {current:?}; asked was {precondition:?}");
            return Err((Invariant::PreconditionHeld, why));
        }
        Ok(())
    }
}

/// A conflict is between values that differ, and reads show the first.
fn check_conflict(value: &Value, conflict: &Conflict) -> Result<(), String> {
    let shown = value.pointer(&conflict.pointer);
    let [first, others @ ..] = &conflict.values[..] else { return Err(format!("{conflict:?} holds nothing")) };
    let differ = others.iter().any(|other| other.value != first.value);
    let named = conflict.values.iter().all(|held| held.node.parse::<knot_engine::NodeId>().is_ok());
    // Those that were written at once are shown as one.
    let objects = conflict.values.iter().filter(|held| held.value.is_object()).count();
    if Some(&first.value) == shown && differ && named && objects <= 1 {
        Ok(())
    } else {
        Err(format!("it shows {:?} where there is {}", shown.map(short), short(conflict)))
    }
}

/// The etag of a state with these heads, which are sorted.
pub(super) fn etag_of(heads: &[ChangeHash]) -> Etag {
    let mut hasher = blake3::Hasher::new_derive_key(ETAG_CONTEXT);
    hasher.update(&EPOCH.to_le_bytes());
    for head in heads {
        hasher.update(&head.0);
    }
    let mut etag = Etag([0; 16]);
    etag.0.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    etag
}

fn short(value: &(impl std::fmt::Debug + ?Sized)) -> String {
    format!("{value:?}").chars().take(SHOWN_MAX).collect()
}
