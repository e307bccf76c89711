//! Edits that go deep: nested objects and arrays, whatever JSON can hold, and what a server must refuse.
//!
//! A client reads a document, draws an edit from what it read, and says `If-Match`. What must come of it follows from
//! [`oracle`] alone, which shares nothing with the engine: who errs there errs in another way.

mod limits;
pub(crate) mod merged;
mod oracle;
mod patch;
mod refusals;
mod values;

use knot_engine::documents::Edit;
use knot_engine::documents::EditRefused;
use knot_engine::{EditError, EditRequest, Etag, EtagMatch, Precondition};
use serde_json::{Map, Value, json};

use crate::draw::Draw;
use crate::scenario::{Bounds, DocumentKind, Operation, Scenario};
use crate::workload;

/// The collection in which seeds edit so. Others show each write in a field of its own; here an edit may take out what
/// another wrote.
pub(crate) const LISTS: &str = "lists";
/// How the keys of documents begin that are edited next to the limits.
pub(crate) const LARGE: &str = "large";
/// A link that is narrower takes long over the largest changes.
const ROOMY_BYTES_PER_S: u64 = 10_000_000;
/// A document of more members and elements than this is rather made smaller.
const NODES_MANY: usize = 120;

/// What a client has read before it edits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Base {
    /// There is no such document.
    Nothing,
    /// It is deleted.
    Deleted(Etag),
    /// It is this.
    Present(Etag, Value),
}

/// An edit, and what must come of it where nobody else edits first.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) edit: Edit,
    pub(crate) precondition: Precondition,
    pub(crate) expected: Expected,
}

/// What must come of an edit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expected {
    /// The document is this.
    Value(Value),
    /// The document is deleted.
    Deleted,
    /// It is refused, for this reason.
    Refused(Refusal),
    /// It is refused since the document is not in the state that it names.
    Stale,
}

/// Why an edit must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotAnObject,
    TooDeep,
    TooManyNodes,
    TooLarge,
    Patch,
    PatchTest(usize),
    Increment,
    Absent,
}

impl Refusal {
    /// Whether an answer says this.
    pub(crate) fn is_said_by(self, error: &EditError) -> bool {
        let EditError::Refused(refused) = error else {
            return self == Self::Absent && matches!(error, EditError::NotFound | EditError::Gone);
        };
        match refused {
            EditRefused::NotAnObject(_) => self == Self::NotAnObject,
            EditRefused::TooDeep => self == Self::TooDeep,
            EditRefused::TooManyNodes => self == Self::TooManyNodes,
            EditRefused::TooLarge => self == Self::TooLarge,
            EditRefused::Patch(_) => self == Self::Patch,
            EditRefused::PatchTest(operation) => self == Self::PatchTest(*operation),
            EditRefused::Increment(_) => self == Self::Increment,
            EditRefused::Number(_) | _ => false,
        }
    }
}

/// The edit that an operation stands for whose client has read this.
pub(crate) fn of_operation(scenario: &Scenario, operation: &Operation, base: &Base, document: DocumentKind) -> Drawn {
    let large = operation.target.key.starts_with(LARGE) && is_roomy(scenario);
    draw(&mut Draw::new(scenario.seed, &format!("patch {}", operation.id)), base, document, large)
}

/// Whether servers and links have room for the largest changes.
fn is_roomy(scenario: &Scenario) -> bool {
    let usual = Bounds::default();
    let narrow = |bytes_per_s: Option<u64>| bytes_per_s.is_some_and(|bytes| bytes < ROOMY_BYTES_PER_S);
    scenario.bounds.takes_all()
        && scenario.bounds.window_bytes == usual.window_bytes
        && scenario.bounds.orphan_bytes == usual.orphan_bytes
        && !scenario.network.links.iter().any(|link| narrow(link.bytes_per_s))
}

impl Drawn {
    /// The request for it.
    pub(crate) fn request(&self, operation: &Operation) -> EditRequest {
        EditRequest {
            precondition: self.precondition.clone(),
            replicas: operation.replicas,
            timeout: workload::REPLICAS_TIMEOUT,
            ..EditRequest::new(operation.target.id(), self.edit.clone())
        }
    }
}

/// Draws an edit of what a client has read; one next to a limit where the document is to be `large`.
fn draw(draw: &mut Draw, base: &Base, document: DocumentKind, large: bool) -> Drawn {
    let (etag, value) = match base {
        Base::Present(etag, value) => (Some(*etag), Some(value)),
        Base::Nothing | Base::Deleted(_) => (None, None),
    };
    let (edit, expected) = match value {
        _ if large => limits::large(draw, base),
        Some(value) => of_present(draw, value, document),
        None => of_absent(draw, matches!(base, Base::Deleted(_)), document),
    };
    if draw.chance(30) {
        let precondition = Precondition { if_match: Some(EtagMatch::OneOf(vec![other(etag)])), if_none_match: None };
        return Drawn { edit, precondition, expected: Expected::Stale };
    }
    let precondition = match etag {
        Some(etag) => {
            let besides = draw.chance(150).then(|| other(Some(etag)));
            let if_match = Some(EtagMatch::OneOf(besides.into_iter().chain([etag]).collect()));
            Precondition { if_match, if_none_match: None }
        }
        None => Precondition { if_match: None, if_none_match: Some(EtagMatch::Any) },
    };
    Drawn { edit, precondition, expected }
}

/// An etag that names no state.
fn other(etag: Option<Etag>) -> Etag {
    let mut bytes = etag.map_or([0; 16], |etag| etag.0);
    bytes[15] ^= 1;
    Etag(bytes)
}

fn of_absent(draw: &mut Draw, was_deleted: bool, document: DocumentKind) -> (Edit, Expected) {
    let nothing = Value::Object(Map::new());
    let absent = Expected::Refused(Refusal::Absent);
    match draw.between(0, 100) {
        0..62 => put(Value::Object(values::object(draw, 3))),
        62..64 => limits::too_large_at_once(draw),
        64..68 => put(values::nested(draw, oracle::levels_max())),
        68..72 => refusals::put(draw),
        72..80 => {
            let patch = Value::Object(values::object(draw, 2));
            let expected = if was_deleted { absent } else { oracle::merged(&nothing, &patch) };
            (Edit::MergePatch(patch), expected)
        }
        80..92 => {
            let (pointer, by) = (format!("/{}", oracle::escaped(&values::key(draw))), values::step(draw));
            let expected = if was_deleted { absent } else { oracle::increased(&nothing, &pointer, by, document) };
            (Edit::Increment { pointer, by }, expected)
        }
        92..96 => (Edit::JsonPatch(json!([{ "op": "add", "path": "/a", "value": 1 }])), absent),
        _ => (Edit::Delete, absent),
    }
}

fn of_present(draw: &mut Draw, base: &Value, document: DocumentKind) -> (Edit, Expected) {
    if oracle::nodes(base) > NODES_MANY {
        return put(Value::Object(values::object(draw, 2)));
    }
    match draw.between(0, 1_000) {
        0..480 => {
            let count = 1 + draw.index(5);
            patched(base, patch::operations(draw, base, count))
        }
        480..600 => {
            let patch = patch::merge(draw, base);
            let expected = oracle::merged(base, &patch);
            (Edit::MergePatch(patch), expected)
        }
        600..660 => put(Value::Object(values::object(draw, 3))),
        660..740 => {
            let count = 1 + draw.index(3);
            let operations = patch::operations(draw, base, count);
            match oracle::patched(base, &operations) {
                Expected::Value(value) => put(value),
                Expected::Deleted | Expected::Refused(_) | Expected::Stale => patched(base, operations),
            }
        }
        740..800 => {
            let (pointer, by) = patch::increment(draw, base);
            let expected = oracle::increased(base, &pointer, by, document);
            (Edit::Increment { pointer, by }, expected)
        }
        800..835 => (Edit::Delete, Expected::Deleted),
        835..990 => refusals::of(draw, base, document),
        _ => limits::of(draw, base),
    }
}

fn put(value: Value) -> (Edit, Expected) {
    let expected = oracle::checked(value.clone());
    (Edit::Put(value), expected)
}

fn patched(base: &Value, operations: Vec<Value>) -> (Edit, Expected) {
    let expected = oracle::patched(base, &operations);
    (Edit::JsonPatch(Value::Array(operations)), expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_of_every_outcome_are_drawn() {
        let mut draw = Draw::new(0, "edits");
        let mut value = json!({ "a": [1, { "b": null }], "c": "text" });
        let mut outcomes = [0; 4];
        for round in 0..2_000 {
            let base = Base::Present(Etag([7; 16]), value.clone());
            let drawn = super::draw(&mut draw, &base, DocumentKind::Model, false);
            let outcome = match drawn.expected {
                Expected::Value(next) => {
                    value = next;
                    0
                }
                Expected::Deleted => 1,
                Expected::Refused(_) => 2,
                Expected::Stale => 3,
            };
            assert!(value.is_object(), "round {round}");
            outcomes[outcome] += 1;
        }
        assert!(outcomes.iter().all(|count| *count > 20), "{outcomes:?}");
    }
}
