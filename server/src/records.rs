//! Documents seen as typed records.
//!
//! A record is a view: reading one never fails, and writing one is a merge patch of what differs, so that fields which
//! this version does not know survive its edits, and two people who change two fields do not undo each other.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Reads a document. What is missing, or is of another type than expected, takes its default.
#[must_use]
pub fn read<T: DeserializeOwned + Serialize + Default>(document: &Value) -> T {
    if let Ok(record) = T::deserialize(document) {
        return record;
    }
    let (Value::Object(mut fields), Some(given)) = (to_value(&T::default()), document.as_object()) else {
        return T::default();
    };
    for (name, value) in given {
        let Some(default) = fields.insert(name.clone(), value.clone()) else {
            fields.remove(name);
            continue;
        };
        if T::deserialize(&Value::Object(fields.clone())).is_err() {
            fields.insert(name.clone(), default);
        }
    }
    T::deserialize(&Value::Object(fields)).unwrap_or_default()
}

/// The JSON merge patch (RFC 7396) that makes `document` say what `record` says, and leaves alone what the record has
/// no field for. `None` where it says so already.
#[must_use]
pub fn patch<T: DeserializeOwned + Serialize + Default>(document: &Value, record: &T) -> Option<Value> {
    let is = to_value(&read::<T>(document));
    let mut changed = Map::new();
    if let (Value::Object(is), Value::Object(wanted)) = (is, to_value(record)) {
        for (name, value) in wanted {
            let held = document.get(&name);
            // A value of the wrong type reads as its default and is replaced only by something else.
            if is.get(&name) != Some(&value) {
                changed.insert(name, difference(held, value));
            }
        }
    }
    (!changed.is_empty()).then_some(Value::Object(changed))
}

/// A merge patch adds to objects, so what is no longer in one has to be named.
fn difference(held: Option<&Value>, wanted: Value) -> Value {
    let (Some(Value::Object(held)), Value::Object(wanted)) = (held, &wanted) else {
        return wanted;
    };
    let gone = held.keys().filter(|name| !wanted.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let changed = wanted.iter().filter(|(name, value)| held.get(*name) != Some(value));
    gone.chain(changed.map(|(name, value)| (name.clone(), difference(held.get(name), value.clone())))).collect()
}

/// Whether the record was deleted. Nothing ever takes that back: a delete wins over an edit that it had not seen.
pub(crate) fn is_deleted(document: &Value) -> bool {
    document.get("deleted_at").is_some_and(|at| !at.is_null())
}

fn to_value<T: Serialize>(record: &T) -> Value {
    serde_json::to_value(record).expect("a record has string keys and finite numbers")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Thing {
        name: String,
        count: u32,
        list: Vec<String>,
        owner: Option<String>,
    }

    #[test]
    fn what_cannot_be_read_takes_its_default_and_the_rest_is_kept() {
        for (document, name, count) in [
            (json!({"name": "a", "count": 3, "more": true}), "a", 3),
            (json!({"name": 7, "count": 3}), "", 3),
            (json!({"name": "a", "count": -1, "list": [1]}), "a", 0),
            (json!({"name": null, "list": {}, "more": []}), "", 0),
            (json!("no object"), "", 0),
        ] {
            let thing: Thing = read(&document);
            assert_eq!((thing.name.as_str(), thing.count, thing.list.len()), (name, count, 0), "{document}");
        }
    }

    #[test]
    fn only_what_differs_is_written() {
        let document = json!({"name": "a", "count": "many", "list": ["x"], "more": {"deep": 1}, "owner": "ann"});
        let mut thing: Thing = read(&document);
        assert_eq!(patch(&document, &thing), None);
        thing.name = "b".to_owned();
        thing.owner = None;
        assert_eq!(patch(&document, &thing), Some(json!({"name": "b", "owner": null})));
        thing.count = 2;
        thing.list.clear();
        assert_eq!(patch(&document, &thing), Some(json!({"name": "b", "owner": null, "count": 2, "list": []})));
    }

    #[test]
    fn what_left_an_object_is_named_in_the_patch() {
        let (held, wanted) = (json!({"a": 1, "b": {"c": 1, "d": 2}}), json!({"b": {"c": 3}}));
        assert_eq!(difference(Some(&held), wanted), json!({"a": null, "b": {"c": 3, "d": null}}));
    }
}
