//! Patches that fit a document: mostly they can be made.

use serde_json::{Map, Value, json};

use super::oracle::{apply, escaped};
use super::{NODES_MANY, oracle, values};
use crate::draw::Draw;

/// What is added goes no deeper than this.
const LEVEL_MAX: usize = 8;

/// So many operations of a JSON Patch, each of what those before it have made.
pub(super) fn operations(draw: &mut Draw, base: &Value, count: usize) -> Vec<Value> {
    let mut value = base.clone();
    let mut operations = Vec::new();
    for index in 0..count {
        let operation = operation(draw, &value);
        let is_done = apply(&mut value, &operation, index).is_ok();
        operations.push(operation);
        if !is_done {
            break;
        }
    }
    operations
}

fn operation(draw: &mut Draw, value: &Value) -> Value {
    let places = places(value);
    let drawn = if oracle::nodes(value) > NODES_MANY { 40 } else { draw.between(0, 100) };
    if places.is_empty() || drawn < 35 {
        let path = free_place(draw, value);
        return json!({ "op": "add", "path": path, "value": values::value(draw, 2) });
    }
    let place = draw.pick(&places).clone();
    match drawn {
        35..55 => json!({ "op": "remove", "path": place }),
        55..70 => json!({ "op": "replace", "path": place, "value": values::value(draw, 2) }),
        70..80 => {
            let mut without = value.clone();
            let removal = json!({ "op": "remove", "path": place });
            // The place is there, so it can be removed.
            let _ = apply(&mut without, &removal, 0);
            json!({ "op": "move", "from": place, "path": free_place(draw, &without) })
        }
        80..90 => {
            let from = if draw.chance(50) { String::new() } else { place };
            json!({ "op": "copy", "from": from, "path": free_place(draw, value) })
        }
        _ => {
            let found = value.pointer(&place).map(|found| respelt(draw, found));
            json!({ "op": "test", "path": place, "value": found })
        }
    }
}

/// The same number as a fraction, now and then.
fn respelt(draw: &mut Draw, value: &Value) -> Value {
    const EXACT: i64 = 1 << 20;
    match value.as_i64().filter(|number| (-EXACT..EXACT).contains(number)) {
        Some(number) if draw.chance(500) => {
            i32::try_from(number).map_or_else(|_| value.clone(), |n| f64::from(n).into())
        }
        Some(_) | None => value.clone(),
    }
}

/// A merge patch of some depth.
pub(super) fn merge(draw: &mut Draw, base: &Value) -> Value {
    let mut patch = Map::new();
    for (key, member) in base.as_object().into_iter().flatten() {
        match draw.between(0, 10) {
            0 | 1 => drop(patch.insert(key.clone(), Value::Null)),
            2 => drop(patch.insert(key.clone(), values::value(draw, 2))),
            3..7 if member.is_object() => drop(patch.insert(key.clone(), merge(draw, member))),
            _ => {}
        }
    }
    if patch.is_empty() || draw.chance(400) {
        patch.insert(values::key(draw), values::value(draw, 3));
    }
    Value::Object(patch)
}

/// Where an integer is, or can be, and what to add.
pub(super) fn increment(draw: &mut Draw, base: &Value) -> (String, i64) {
    let integers: Vec<String> =
        places(base).into_iter().filter(|place| base.pointer(place).is_some_and(Value::is_i64)).collect();
    let place =
        if integers.is_empty() || draw.chance(300) { free_place(draw, base) } else { draw.pick(&integers).clone() };
    (place, values::step(draw))
}

/// A place at which a value can be added.
fn free_place(draw: &mut Draw, value: &Value) -> String {
    let containers = containers(value);
    let (pointer, container) = draw.pick(&containers);
    let token = match container {
        Value::Array(elements) => match draw.index(elements.len() + 2) {
            index if index <= elements.len() => index.to_string(),
            _ => "-".to_owned(),
        },
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            escaped(&values::key(draw))
        }
    };
    format!("{pointer}/{token}")
}

/// Pointers to all members and elements.
pub(super) fn places(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(value, "", &mut |pointer, _| found.push(pointer.to_owned()));
    found
}

/// All objects and arrays that are not too deep, the whole among them.
fn containers(value: &Value) -> Vec<(String, &Value)> {
    let mut found = vec![(String::new(), value)];
    walk(value, "", &mut |pointer, value| {
        if (value.is_object() || value.is_array()) && pointer.matches('/').count() < LEVEL_MAX {
            found.push((pointer.to_owned(), value));
        }
    });
    found
}

fn walk<'a>(value: &'a Value, pointer: &str, each: &mut dyn FnMut(&str, &'a Value)) {
    let mut step = |token: String, child: &'a Value| {
        let pointer = format!("{pointer}/{token}");
        each(&pointer, child);
        walk(child, &pointer, each);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(key, member)| step(escaped(key), member)),
        Value::Array(elements) => {
            elements.iter().enumerate().for_each(|(index, element)| step(index.to_string(), element));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
