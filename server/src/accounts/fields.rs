//! Reading a document as a record: what is missing or of another type reads as nothing, and what is not known is left
//! alone, since another version may have written it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

pub(super) use crate::records::is_deleted;

pub(super) fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

pub(super) fn number(value: &Value, name: &str) -> u32 {
    value.get(name).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

/// Milliseconds since 1970.
pub(super) fn time(value: &Value, name: &str) -> Option<i64> {
    value.get(name).and_then(Value::as_i64)
}

pub(super) fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or_default()
}

/// A set is kept as an object whose members are true, so that two who add to it at once both have their way.
pub(super) fn set(value: &Value, name: &str) -> BTreeSet<String> {
    let members = value.get(name).and_then(Value::as_object).into_iter().flatten();
    members.filter(|(_, is_in)| **is_in == Value::Bool(true)).map(|(member, _)| member.clone()).collect()
}

/// The merge patch that brings a set from `old` to `new`, member by member.
pub(super) fn set_patch(old: &BTreeSet<String>, new: &BTreeSet<String>) -> Option<Value> {
    let gone = old.difference(new).map(|member| (member.clone(), Value::Null));
    let come = new.difference(old).map(|member| (member.clone(), Value::Bool(true)));
    let patch: Map<String, Value> = gone.chain(come).collect();
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// A set as a document keeps it.
pub(super) fn set_value<'a>(members: impl IntoIterator<Item = &'a String>) -> Value {
    Value::Object(members.into_iter().map(|member| (member.clone(), json!(true))).collect())
}
