//! What an edit makes of a document, by RFC 6902 and RFC 7396 as the crate `json-patch` reads them, and by the limits
//! that the engine promises to keep.

use knot_engine::documents::{JSON_DEPTH_MAX, JSON_NODES_MAX};
use serde_json::{Map, Value};

use super::{Expected, Refusal};
use crate::scenario::DocumentKind;

/// Greatest counter of Automerge's, either way: what a double holds exactly.
const COUNTER_MAX: u64 = 1 << 53;

/// Deepest nesting that a document may have.
pub(super) fn levels_max() -> usize {
    JSON_DEPTH_MAX
}

/// A value that is to be a document.
pub(super) fn checked(value: Value) -> Expected {
    if !value.is_object() {
        Expected::Refused(Refusal::NotAnObject)
    } else if levels(&value) > JSON_DEPTH_MAX {
        Expected::Refused(Refusal::TooDeep)
    } else if nodes(&value) > JSON_NODES_MAX {
        Expected::Refused(Refusal::TooManyNodes)
    } else {
        Expected::Value(value)
    }
}

/// `base` after these operations of a JSON Patch.
pub(super) fn patched(base: &Value, operations: &[Value]) -> Expected {
    let mut value = base.clone();
    for (index, operation) in operations.iter().enumerate() {
        if let Err(refusal) = apply(&mut value, operation, index) {
            return Expected::Refused(refusal);
        }
    }
    checked(value)
}

/// Does one operation of a JSON Patch.
pub(super) fn apply(value: &mut Value, operation: &Value, index: usize) -> Result<(), Refusal> {
    let parsed: json_patch::PatchOperation = serde_json::from_value(operation.clone()).map_err(|_| Refusal::Patch)?;
    if let json_patch::PatchOperation::Test(test) = &parsed {
        // Numbers are equal by value there, and by how they are written in the crate.
        let found = value.pointer(test.path.as_str());
        let holds = found.is_some_and(|found| by_value(found) == by_value(&test.value));
        return if holds { Ok(()) } else { Err(Refusal::PatchTest(index)) };
    }
    json_patch::patch_unsafe(value, &[parsed]).map_err(|_| Refusal::Patch)?;
    if levels(value) > JSON_DEPTH_MAX { Err(Refusal::TooDeep) } else { Ok(()) }
}

/// `base` after a merge patch.
pub(super) fn merged(base: &Value, patch: &Value) -> Expected {
    let mut value = base.clone();
    json_patch::merge(&mut value, patch);
    checked(value)
}

/// `base` after an increment.
pub(super) fn increased(base: &Value, pointer: &str, by: i64, document: DocumentKind) -> Expected {
    let sum = |present: i64| {
        let within = |sum: &i64| document == DocumentKind::Model || sum.unsigned_abs() <= COUNTER_MAX;
        present.checked_add(by).filter(within)
    };
    let mut value = base.clone();
    let Some((parent, token)) = pointer.rsplit_once('/') else {
        return Expected::Refused(Refusal::Increment);
    };
    let key = token.replace("~1", "/").replace("~0", "~");
    let done = match value.pointer_mut(pointer) {
        Some(place) => place.as_i64().and_then(sum).map(|sum| *place = sum.into()),
        None => match value.pointer_mut(parent) {
            Some(Value::Object(members)) => sum(0).map(|sum| drop(members.insert(key, sum.into()))),
            _ => None,
        },
    };
    if done.is_some() { checked(value) } else { Expected::Refused(Refusal::Increment) }
}

/// A key as a token of a pointer.
pub(super) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Members and elements, over all levels.
pub(super) fn nodes(value: &Value) -> usize {
    children(value).map(|child| 1 + nodes(child)).sum()
}

/// Objects and arrays within each other.
pub(super) fn levels(value: &Value) -> usize {
    let is_container = value.is_object() || value.is_array();
    usize::from(is_container) + children(value).map(levels).max().unwrap_or_default()
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Object(members) => Box::new(members.values()),
        Value::Array(elements) => Box::new(elements.iter()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Box::new(std::iter::empty()),
    }
}

/// The value with each whole number written without a fraction.
fn by_value(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => {
            let shortest = number.as_f64().map(|number| format!("{number}")).unwrap_or_default();
            shortest.parse::<i64>().map_or_else(|_| value.clone(), Value::from)
        }
        Value::Array(elements) => elements.iter().map(by_value).collect(),
        Value::Object(members) => {
            let members: Map<String, Value> =
                members.iter().map(|(key, member)| (key.clone(), by_value(member))).collect();
            Value::Object(members)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_test_compares_numbers_by_value() {
        let base = json!({ "a": [1, 2.5] });
        let test = |value: Value| patched(&base, &[json!({ "op": "test", "path": "/a", "value": value })]);
        assert_eq!(test(json!([1.0, 2.5])), Expected::Value(base.clone()));
        assert_eq!(test(json!([1.5, 2.5])), Expected::Refused(Refusal::PatchTest(0)));
    }

    #[test]
    fn increments_find_integers_and_free_members() {
        let base = json!({ "n": 5, "list": [7], "text": "x", "large": 1_u64 << 53 });
        let by_two = |pointer| increased(&base, pointer, 2, DocumentKind::Automerge);
        let refused = Expected::Refused(Refusal::Increment);
        for (pointer, place, expected) in [("/n", "/n", 7), ("/list/0", "/list/0", 9), ("/a~1b", "/a~1b", 2)] {
            let Expected::Value(value) = by_two(pointer) else { panic!("{pointer} is refused") };
            assert_eq!(value.pointer(place), Some(&json!(expected)));
        }
        for pointer in ["", "n", "/text", "/list", "/list/1", "/list/-", "/none/x", "/large"] {
            assert_eq!(by_two(pointer), refused, "{pointer}");
        }
    }
}
