//! Edits that a server must refuse, each for one reason.

use knot_engine::documents::Edit;
use serde_json::{Value, json};

use super::{Expected, Refusal, oracle, patch, patched, put as checked_put, values};
use crate::draw::Draw;
use crate::scenario::DocumentKind;

/// A member that no document has.
const NONE: &str = "none";

/// One that `base` does not allow.
pub(super) fn of(draw: &mut Draw, base: &Value, document: DocumentKind) -> (Edit, Expected) {
    match draw.between(0, 20) {
        0 | 1 => put(draw),
        2 => {
            let value = draw.pick(&[json!([1]), json!("text"), json!(7), json!(null)]).clone();
            (Edit::MergePatch(value), Expected::Refused(Refusal::NotAnObject))
        }
        3 => {
            let patch = values::nested(draw, oracle::levels_max() + 1);
            let expected = oracle::merged(base, &patch);
            (Edit::MergePatch(patch), expected)
        }
        4 => {
            let patch = draw.pick(&[json!({ "op": "remove", "path": "/a" }), json!("remove"), json!(null)]).clone();
            (Edit::JsonPatch(patch), Expected::Refused(Refusal::Patch))
        }
        5..8 => {
            let wrong = wrong_place(draw, base);
            let end = beyond(draw, base, 0);
            let pointer = draw.pick(&["", "a", "/none/a", wrong.as_str(), end.as_str()]).to_string();
            let by = values::step(draw);
            let expected = oracle::increased(base, &pointer, by, document);
            (Edit::Increment { pointer, by }, expected)
        }
        _ => {
            let count = draw.index(3);
            let mut operations = patch::operations(draw, base, count);
            let made = match oracle::patched(base, &operations) {
                Expected::Value(value) => value,
                Expected::Deleted | Expected::Refused(_) | Expected::Stale => base.clone(),
            };
            operations.push(operation(draw, &made));
            patched(base, operations)
        }
    }
}

/// A whole document that cannot be one, or just can.
pub(super) fn put(draw: &mut Draw) -> (Edit, Expected) {
    let levels = oracle::levels_max() + draw.index(2);
    let deep = values::nested(draw, levels);
    checked_put(draw.pick(&[json!([]), json!("text"), json!(null), json!(1), deep.clone(), deep]).clone())
}

/// An operation of a JSON Patch that cannot be done.
fn operation(draw: &mut Draw, value: &Value) -> Value {
    let places = patch::places(value);
    let place = if places.is_empty() { "/none".to_owned() } else { draw.pick(&places).clone() };
    let wrong = wrong_place(draw, value);
    let op = draw.pick(&["add", "remove", "replace", "test"]).to_string();
    match draw.between(0, 16) {
        0 | 1 => json!({ "op": "test", "path": place, "value": [value.pointer(&place)] }),
        2 => json!({ "op": "test", "path": wrong, "value": null }),
        3 => json!({ "op": "remove", "path": wrong }),
        4 => json!({ "op": "replace", "path": wrong, "value": 1 }),
        5 => json!({ "op": "add", "path": format!("{wrong}/a"), "value": 1 }),
        6 => json!({ "op": "add", "path": beyond(draw, value, 1), "value": 1 }),
        7 => json!({ "op": "move", "from": place, "path": format!("{place}/a") }),
        8 => json!({ "op": "move", "from": wrong, "path": "/a" }),
        9 => json!({ "op": "copy", "from": wrong, "path": "/a" }),
        10 => json!({ "op": op, "path": format!("a{place}"), "value": 1 }),
        11 => json!({ "op": op, "path": format!("{place}~2"), "value": 1 }),
        12 => draw
            .pick(&[
                json!({ "op": "mend", "path": "/a" }),
                json!({ "path": "/a", "value": 1 }),
                json!({ "op": "add", "path": "/a" }),
                json!({ "op": "add", "value": 1 }),
                json!({ "op": "copy", "path": "/a" }),
                json!({ "op": 7, "path": "/a", "value": 1 }),
                json!("remove"),
            ])
            .clone(),
        13 => json!({ "op": "add", "path": "", "value": values::nested(draw, oracle::levels_max() + 1) }),
        14 => {
            let levels = oracle::levels_max() - draw.index(3);
            json!({ "op": "add", "path": "/deep", "value": values::nested(draw, levels) })
        }
        _ => json!({ "op": "replace", "path": "", "value": draw.pick(&[json!([1]), json!("text"), json!(null)]) }),
    }
}

/// A place that is not there, though much of the way to it may be.
fn wrong_place(draw: &mut Draw, value: &Value) -> String {
    let places = patch::places(value);
    let below = if places.is_empty() || draw.chance(300) { String::new() } else { draw.pick(&places).clone() };
    let token = match value.pointer(&below) {
        Some(Value::Array(elements)) => index_beside(draw, elements.len(), elements.len()),
        _ => NONE.to_owned(),
    };
    format!("{below}/{token}")
}

/// A place so far beyond the end of an array, or at no index of it, if there is an array.
fn beyond(draw: &mut Draw, value: &Value, by: usize) -> String {
    let places = patch::places(value);
    let arrays = places.into_iter().filter_map(|place| Some((value.pointer(&place)?.as_array()?.len(), place)));
    let arrays: Vec<(usize, String)> = arrays.collect();
    if arrays.is_empty() {
        return format!("/{NONE}/{NONE}");
    }
    let (length, place) = draw.pick(&arrays);
    format!("{place}/{}", index_beside(draw, *length, length + by).replace('-', "+0"))
}

/// What is no index of an array with so many elements, from `first` on.
fn index_beside(draw: &mut Draw, length: usize, first: usize) -> String {
    match draw.index(9) {
        0 => "-".to_owned(),
        1 => format!("0{}", length.saturating_sub(1)),
        2 => "+0".to_owned(),
        3 => "a".to_owned(),
        4 => "18446744073709551616".to_owned(),
        _ => first.to_string(),
    }
}
