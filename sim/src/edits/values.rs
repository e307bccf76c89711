//! JSON values of all kinds, small for the most part.

use serde_json::{Map, Value, json};

use crate::draw::Draw;

/// Some that are escaped in pointers, look like indexes, or are not ASCII. None names a write.
const KEYS: [&str; 20] = [
    "a",
    "b",
    "c",
    "list",
    "item",
    "A",
    "0",
    "1",
    "-",
    "01",
    "",
    " ",
    "/",
    "~",
    "a/b",
    "m~n",
    "~1",
    "\u{fc}",
    "\u{540d}\u{524d}",
    "\u{1f600}",
];
const TEXTS: [&str; 8] =
    ["", "a", "b", "text", "\"\\\n\t\u{0}", "\u{17e}lu\u{165}ou\u{10d}k\u{fd}", "\u{1f40e}\u{1f3fd}", "e\u{301}"];
/// Around where an encoding takes another byte or another type.
const INTEGERS: [i64; 18] =
    [0, 1, -1, 2, 63, 64, -64, -65, 127, 128, 255, 8_191, 8_192, -8_193, 1 << 31, 1 << 53, i64::MAX, i64::MIN];
const UNSIGNED: [u64; 2] = [1 << 63, u64::MAX];
/// Those that any reader of their text takes for the same.
const FRACTIONS: [f64; 7] = [0.5, -1.25, 1.0, -3.0, 1e21, 2.5e-7, 123_456.75];
/// Elements of an array that is long, and all but the same throughout.
const RUN_MIN: u64 = 3;
const RUN_MAX: u64 = 140;

/// A value with at most so many levels of objects and arrays.
pub(super) fn value(draw: &mut Draw, levels: usize) -> Value {
    match draw.between(0, 100) {
        0..25 if levels > 0 => Value::Object(object(draw, levels)),
        25..50 if levels > 0 => array(draw, levels),
        _ => scalar(draw),
    }
}

/// An object with at most so many levels, itself included.
pub(super) fn object(draw: &mut Draw, levels: usize) -> Map<String, Value> {
    let count = draw.between(0, 6);
    (0..count).map(|_| (key(draw), value(draw, levels.saturating_sub(1)))).collect()
}

fn array(draw: &mut Draw, levels: usize) -> Value {
    if draw.chance(100) {
        return run(draw);
    }
    let count = draw.between(0, 6);
    (0..count).map(|_| value(draw, levels - 1)).collect()
}

/// Many of one, one of another: what is stored as runs.
fn run(draw: &mut Draw) -> Value {
    let (one, other) = (scalar(draw), scalar(draw));
    let count = if draw.chance(300) { draw.between(RUN_MIN, RUN_MAX) } else { draw.between(RUN_MIN, 8) };
    let at = draw.between(0, count);
    (0..count).map(|place| if place == at { other.clone() } else { one.clone() }).collect()
}

/// An object with this many levels, arrays among them.
pub(super) fn nested(draw: &mut Draw, levels: usize) -> Value {
    let inner =
        (2..levels).fold(json!({}), |inner, _| if draw.chance(500) { json!([inner]) } else { json!({ "a": inner }) });
    if levels > 1 { json!({ "deep": inner }) } else { inner }
}

pub(super) fn scalar(draw: &mut Draw) -> Value {
    match draw.between(0, 10) {
        0 => Value::Null,
        1 => true.into(),
        2 => false.into(),
        3..7 => number(draw),
        _ => text(draw).into(),
    }
}

fn number(draw: &mut Draw) -> Value {
    match draw.between(0, 10) {
        0 => (*draw.pick(&UNSIGNED)).into(),
        1..4 => (*draw.pick(&FRACTIONS)).into(),
        4..8 => (*draw.pick(&INTEGERS)).into(),
        _ => draw.between(0, 1_000).into(),
    }
}

fn text(draw: &mut Draw) -> String {
    match draw.between(0, 20) {
        0 => "\u{e4}b".repeat(draw.index(200)),
        _ => (*draw.pick(&TEXTS)).to_owned(),
    }
}

pub(super) fn key(draw: &mut Draw) -> String {
    (*draw.pick(&KEYS)).to_owned()
}

/// What an increment adds.
pub(super) fn step(draw: &mut Draw) -> i64 {
    *draw.pick(&[1, -1, 7, -300, 70_000])
}
