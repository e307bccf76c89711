//! What two edits of one state come to together.
//!
//! What one of them left alone is as the other made it. Where both wrote, Automerge joins objects member by member,
//! keeps a write beside a removal, and shows one of two values, the other as a conflict; what was written within a
//! container is gone with it where the other put something else in its place. How two edits of one array mix is left
//! open. The model takes members whole, and one of the two.

use knot_engine::documents::Conflict;
use serde_json::{Map, Value};

use super::oracle::escaped;

/// Two edits of one state, neither of which saw the other.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) base: Value,
    pub(crate) one: Value,
    pub(crate) other: Value,
    /// Whether values merge below the top level.
    pub(crate) deep: bool,
}

impl Pair {
    /// Whether a document that holds both may show this.
    ///
    /// # Errors
    /// With the place that it may not show so.
    pub(crate) fn check(&self, shown: &Value, conflicts: &[Conflict]) -> Result<(), String> {
        let members = [&self.base, &self.one, &self.other, shown].map(members);
        Merging { conflicts, deep: self.deep }.objects("", members)
    }
}

fn members(value: &Value) -> &Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE)
}

struct Merging<'a> {
    conflicts: &'a [Conflict],
    deep: bool,
}

impl Merging<'_> {
    /// Members before, by one, by the other, and as they are shown.
    fn objects(&self, pointer: &str, all: [&Map<String, Value>; 4]) -> Result<(), String> {
        let keys: std::collections::BTreeSet<&String> = all.iter().flat_map(|members| members.keys()).collect();
        keys.into_iter().try_for_each(|key| {
            let pointer = format!("{pointer}/{}", escaped(key));
            self.place(&pointer, all.map(|members| members.get(key)))
        })
    }

    fn place(&self, pointer: &str, [base, one, other, shown]: [Option<&Value>; 4]) -> Result<(), String> {
        if !self.deep {
            let may = if base == one {
                vec![other]
            } else if base == other {
                vec![one]
            } else {
                vec![one, other]
            };
            return if may.contains(&shown) { Ok(()) } else { Err(wrong(pointer, shown, &may)) };
        }
        let is = |may: Option<&Value>| if shown == may { Ok(()) } else { Err(wrong(pointer, shown, &[may])) };
        if base == one {
            return is(other);
        }
        if base == other {
            return is(one);
        }
        match (is_within(base, one), is_within(base, other)) {
            (true, false) => return is(other),
            (false, true) => return is(one),
            // Two edits of one array.
            (true, true) if one.is_some_and(Value::is_array) => return Ok(()),
            (true, true) | (false, false) => {}
        }
        match (one, other) {
            (Some(written), None) | (None, Some(written)) => is(Some(written)),
            (Some(Value::Object(one)), Some(Value::Object(other))) => {
                let Some(Value::Object(shown)) = shown else { return Err(wrong(pointer, shown, &[])) };
                let nothing = Map::new();
                let base = base.and_then(Value::as_object).unwrap_or(&nothing);
                self.objects(pointer, [base, one, other, shown])
            }
            _ if one == other => is(one),
            _ if shown != one && shown != other => Err(wrong(pointer, shown, &[one, other])),
            _ => self.conflict(pointer, [one, other, shown]),
        }
    }

    fn conflict(&self, pointer: &str, [one, other, shown]: [Option<&Value>; 3]) -> Result<(), String> {
        let second = if shown == one { other } else { one };
        let found = self.conflicts.iter().find(|conflict| conflict.pointer == pointer);
        let values: Vec<Option<&Value>> =
            found.iter().flat_map(|conflict| &conflict.values).map(|held| Some(&held.value)).collect();
        if values == [shown, second] {
            Ok(())
        } else {
            Err(format!("{pointer} holds {shown:?} and {second:?}; its conflicts are {values:?}"))
        }
    }
}

/// Whether an edit wrote within the container that was there, and did not put another value in its place.
fn is_within(base: Option<&Value>, value: Option<&Value>) -> bool {
    match (base, value) {
        (Some(base), Some(value)) => base.is_object() && value.is_object() || base.is_array() && value.is_array(),
        _ => false,
    }
}

fn wrong(pointer: &str, shown: Option<&Value>, may: &[Option<&Value>]) -> String {
    format!("{pointer} is {shown:?}, and may be {may:?}")
}

#[cfg(test)]
mod tests {
    use knot_engine::documents::ConflictValue;
    use serde_json::json;

    use super::*;

    fn pair(base: Value, one: Value, other: Value) -> Pair {
        Pair { base, one, other, deep: true }
    }

    #[test]
    fn each_edit_shows_where_the_other_wrote_nothing() {
        let pair =
            pair(json!({ "a": { "b": 1, "c": 2 } }), json!({ "a": { "b": 1 } }), json!({ "a": { "b": 5, "c": 2 } }));
        assert_eq!(pair.check(&json!({ "a": { "b": 5 } }), &[]), Ok(()));
        for wrong in [json!({ "a": { "b": 1 } }), json!({ "a": { "b": 5, "c": 2 } }), json!({})] {
            assert!(pair.check(&wrong, &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn two_values_of_one_place_are_a_conflict() {
        let pair = pair(json!({}), json!({ "a": 1 }), json!({ "a": [2] }));
        let held = |value: Value| ConflictValue { value, node: String::new() };
        let conflict =
            |values: Vec<Value>| Conflict { pointer: "/a".to_owned(), values: values.into_iter().map(held).collect() };
        assert_eq!(pair.check(&json!({ "a": [2] }), &[conflict(vec![json!([2]), json!(1)])]), Ok(()));
        assert!(pair.check(&json!({ "a": [2] }), &[]).is_err());
        assert!(pair.check(&json!({ "a": [2] }), &[conflict(vec![json!(1), json!([2])])]).is_err());
        assert!(pair.check(&json!({ "a": 3 }), &[]).is_err());
    }

    #[test]
    fn what_is_put_in_the_place_of_an_object_takes_its_members_with_it() {
        let pair = pair(json!({ "a": { "b": 1 } }), json!({ "a": { "b": 2 } }), json!({ "a": 7 }));
        assert_eq!(pair.check(&json!({ "a": 7 }), &[]), Ok(()));
        assert!(pair.check(&json!({ "a": { "b": 2 } }), &[]).is_err());
    }
}
