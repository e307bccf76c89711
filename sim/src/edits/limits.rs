//! Edits next to the limits on bytes and nodes, from below and from above. They are slow, and rare.

use knot_engine::documents::{CHANGE_BYTES_MAX, Edit, JSON_NODES_MAX};
use serde_json::{Value, json};

use super::{Base, Expected, Refusal};
use crate::draw::Draw;

/// The member that is large.
const BIG: &str = "big";
/// What a change takes besides one text, at most.
const ENVELOPE_BYTES_MAX: usize = 4_096;
/// What a patch copies again and again.
const COPIED_BYTES: usize = 100_000;
const COPIED_NODES: usize = 6_000;

/// One of a document that is `base`, which stays small.
pub(super) fn of(draw: &mut Draw, base: &Value) -> (Edit, Expected) {
    let refused = |refusal| Expected::Refused(refusal);
    match draw.between(0, 10) {
        0 | 1 => (copies(json!(text(COPIED_BYTES)), 9), Expected::Value(base.clone())),
        2 | 3 => (copies(json!(text(COPIED_BYTES)), 11), refused(Refusal::TooLarge)),
        4 => (copies(json!(vec![0; COPIED_NODES]), 8), Expected::Value(base.clone())),
        5 => (copies(json!(vec![0; COPIED_NODES]), 9), refused(Refusal::TooManyNodes)),
        6 => too_large_at_once(draw),
        _ => (Edit::MergePatch(json!({ BIG: text(CHANGE_BYTES_MAX) })), refused(Refusal::TooLarge)),
    }
}

/// One that makes a document as large as it may be, or small again.
pub(super) fn large(draw: &mut Draw, base: &Base) -> (Edit, Expected) {
    let value = match base {
        Base::Present(..) => json!({ "small": true }),
        Base::Nothing | Base::Deleted(_) if draw.chance(600) => {
            json!({ BIG: text(CHANGE_BYTES_MAX - ENVELOPE_BYTES_MAX) })
        }
        Base::Nothing | Base::Deleted(_) => json!({ BIG: vec![0; JSON_NODES_MAX - 1] }),
    };
    (Edit::Put(value.clone()), Expected::Value(value))
}

/// A whole document that is over a limit.
pub(super) fn too_large_at_once(draw: &mut Draw) -> (Edit, Expected) {
    if draw.chance(500) {
        (Edit::Put(json!({ BIG: text(CHANGE_BYTES_MAX) })), Expected::Refused(Refusal::TooLarge))
    } else {
        (Edit::Put(json!({ BIG: vec![0; JSON_NODES_MAX] })), Expected::Refused(Refusal::TooManyNodes))
    }
}

/// A patch that adds a value, copies it so often without keeping the copies, and takes it out again: the document stays
/// as it was. What copies make is limited though nothing of it remains.
fn copies(value: Value, times: usize) -> Edit {
    let (from, to) = (format!("/{BIG}"), "/copy");
    let copied = [json!({ "op": "copy", "from": from, "path": to }), json!({ "op": "remove", "path": to })];
    let added = std::iter::once(json!({ "op": "add", "path": from, "value": value }));
    let removed = std::iter::once(json!({ "op": "remove", "path": from }));
    let copies = std::iter::repeat_n(copied, times).flatten();
    Edit::JsonPatch(added.chain(copies).chain(removed).collect())
}

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}
