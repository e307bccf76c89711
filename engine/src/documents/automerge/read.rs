//! Reads an Automerge document as JSON, concurrent maps at one place as their union.
//!
//! A place holds every value that was written to it at once. The one with the greatest operation id is shown; where that
//! is a map, all maps of the place are read as one, member by member by the same rule.

use std::collections::BTreeSet;

use automerge::{ObjId, ObjType, Prop, ReadDoc, ScalarValue, ScalarValueRef, Value as Stored, ValueRef};
use serde_json::{Map, Number, Value};

use crate::documents::json::pointer_push;
use crate::documents::{Conflict, ConflictValue, JSON_DEPTH_MAX};
use crate::identity::NodeId;

/// Nested deeper than an honest author writes.
#[derive(Debug)]
pub(super) struct TooDeep;

/// One of the values at a place.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The operation that wrote it; also the object, where it is one.
    pub(super) id: ObjId,
    /// Which of the containers given holds it.
    pub(super) container: ObjId,
    /// What it is.
    pub(super) content: Content,
}

/// A value, objects not opened.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Map,
    List,
    Text,
    Counter(i64),
    Scalar(Value),
}

/// The whole document.
pub(super) fn document(doc: &impl ReadDoc) -> Result<Map<String, Value>, TooDeep> {
    map(doc, &[ObjId::Root], 0)
}

/// Every value at `prop` of any of `containers`, the one that is shown last.
pub(super) fn place(doc: &impl ReadDoc, containers: &[ObjId], prop: &Prop) -> Vec<Held> {
    let mut held: Vec<Held> = containers
        .iter()
        .flat_map(|container| {
            let values = doc.get_all(container, prop.clone()).unwrap_or_default();
            values.into_iter().map(|(value, id)| Held { content: content(&value), container: container.clone(), id })
        })
        .collect();
    held.sort_by(|a, b| a.id.cmp(&b.id));
    held
}

/// The maps at a place: those that are read as one.
pub(super) fn maps_of(place: &[Held]) -> Vec<ObjId> {
    place.iter().filter(|held| matches!(held.content, Content::Map)).map(|held| held.id.clone()).collect()
}

/// The keys of the union of `maps`.
pub(super) fn keys(doc: &impl ReadDoc, maps: &[ObjId]) -> BTreeSet<String> {
    maps.iter().flat_map(|map| doc.keys(map)).collect()
}

/// The elements of a list, `level` pointer tokens below the root.
pub(super) fn list(doc: &impl ReadDoc, list: &ObjId, level: usize) -> Result<Vec<Value>, TooDeep> {
    doc.list_range(list, ..)
        .map(|item| {
            if item.conflict {
                let place = place(doc, std::slice::from_ref(list), &Prop::Seq(item.index));
                shown(doc, &place, level + 1)
            } else {
                open(doc, &item.value, || item.id(), level + 1)
            }
        })
        .collect()
}

fn map(doc: &impl ReadDoc, maps: &[ObjId], level: usize) -> Result<Map<String, Value>, TooDeep> {
    if level >= JSON_DEPTH_MAX {
        return Err(TooDeep);
    }
    match maps {
        [one] => doc
            .map_range(one, ..)
            .map(|item| {
                let value = if item.conflict {
                    let place = place(doc, maps, &Prop::Map(item.key.to_string()));
                    shown(doc, &place, level + 1)?
                } else {
                    open(doc, &item.value, || item.id(), level + 1)?
                };
                Ok((item.key.into_owned(), value))
            })
            .collect(),
        several => keys(doc, several)
            .into_iter()
            .map(|key| {
                let place = place(doc, several, &Prop::Map(key.clone()));
                Ok((key, shown(doc, &place, level + 1)?))
            })
            .collect(),
    }
}

/// What reads show of a place.
pub(super) fn shown(doc: &impl ReadDoc, place: &[Held], level: usize) -> Result<Value, TooDeep> {
    let Some(winner) = place.last() else {
        return Ok(Value::Null);
    };
    match &winner.content {
        Content::Map => map(doc, &maps_of(place), level).map(Value::Object),
        Content::List => list_value(doc, &winner.id, level),
        Content::Text => Ok(text(doc, &winner.id)),
        Content::Counter(counter) => Ok(Value::from(*counter)),
        Content::Scalar(value) => Ok(value.clone()),
    }
}

fn list_value(doc: &impl ReadDoc, id: &ObjId, level: usize) -> Result<Value, TooDeep> {
    if level >= JSON_DEPTH_MAX {
        return Err(TooDeep);
    }
    list(doc, id, level).map(Value::Array)
}

fn text(doc: &impl ReadDoc, id: &ObjId) -> Value {
    Value::String(doc.text(id).unwrap_or_default())
}

/// A value that is alone at its place.
fn open(doc: &impl ReadDoc, value: &ValueRef<'_>, id: impl FnOnce() -> ObjId, level: usize) -> Result<Value, TooDeep> {
    match value {
        ValueRef::Object(ObjType::Map | ObjType::Table) => map(doc, &[id()], level).map(Value::Object),
        ValueRef::Object(ObjType::List) => list_value(doc, &id(), level),
        ValueRef::Object(ObjType::Text) => Ok(text(doc, &id())),
        ValueRef::Scalar(scalar) => Ok(match scalar {
            ScalarValueRef::Str(text) => Value::String(text.to_string()),
            ScalarValueRef::Int(n) | ScalarValueRef::Counter(n) | ScalarValueRef::Timestamp(n) => Value::from(*n),
            ScalarValueRef::Uint(n) => Value::from(*n),
            ScalarValueRef::F64(n) => float(*n),
            ScalarValueRef::Boolean(yes) => Value::Bool(*yes),
            ScalarValueRef::Null | ScalarValueRef::Bytes(_) | ScalarValueRef::Unknown { .. } => Value::Null,
        }),
    }
}

fn content(value: &Stored<'_>) -> Content {
    match value {
        Stored::Object(ObjType::Map | ObjType::Table) => Content::Map,
        Stored::Object(ObjType::List) => Content::List,
        Stored::Object(ObjType::Text) => Content::Text,
        Stored::Scalar(scalar) => match scalar.as_ref() {
            ScalarValue::Counter(counter) => Content::Counter(i64::from(counter)),
            ScalarValue::Str(text) => Content::Scalar(Value::String(text.to_string())),
            ScalarValue::Int(n) | ScalarValue::Timestamp(n) => Content::Scalar(Value::from(*n)),
            ScalarValue::Uint(n) => Content::Scalar(Value::from(*n)),
            ScalarValue::F64(n) => Content::Scalar(float(*n)),
            ScalarValue::Boolean(yes) => Content::Scalar(Value::Bool(*yes)),
            ScalarValue::Null | ScalarValue::Bytes(_) | ScalarValue::Unknown { .. } => Content::Scalar(Value::Null),
        },
    }
}

/// JSON has no number that is not finite; only a hostile author writes one.
fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// Collects every place that holds different values.
pub(super) struct Conflicts<'a, R> {
    doc: &'a R,
    pointer: String,
    found: Vec<Conflict>,
}

impl<'a, R: ReadDoc> Conflicts<'a, R> {
    /// Those of the whole document, in document order.
    pub(super) fn of(doc: &'a R) -> Vec<Conflict> {
        let mut conflicts = Self { doc, pointer: String::new(), found: Vec::new() };
        conflicts.walk_maps(&[ObjId::Root], 0);
        conflicts.found
    }

    fn walk_maps(&mut self, maps: &[ObjId], level: usize) {
        for key in keys(self.doc, maps) {
            let place = place(self.doc, maps, &Prop::Map(key.clone()));
            self.walk_place(&key, &place, level);
        }
    }

    fn walk_place(&mut self, token: &str, place: &[Held], level: usize) {
        if level >= JSON_DEPTH_MAX {
            return;
        }
        let parent = self.pointer.len();
        pointer_push(&mut self.pointer, token);
        if place.len() > 1 {
            self.note(place, level + 1);
        }
        if let Some(winner) = place.last() {
            match winner.content {
                Content::Map => self.walk_maps(&maps_of(place), level + 1),
                Content::List => {
                    for index in 0..self.doc.length(&winner.id) {
                        let list = std::slice::from_ref(&winner.id);
                        let element = self::place(self.doc, list, &Prop::Seq(index));
                        self.walk_place(&index.to_string(), &element, level + 1);
                    }
                }
                Content::Text | Content::Counter(_) | Content::Scalar(_) => {}
            }
        }
        self.pointer.truncate(parent);
    }

    fn note(&mut self, place: &[Held], level: usize) {
        let mut maps_shown = false;
        let values: Vec<_> = place
            .iter()
            .rev()
            .filter_map(|held| {
                let alone = std::slice::from_ref(held);
                let value = match held.content {
                    Content::Map if std::mem::replace(&mut maps_shown, true) => return None,
                    Content::Map => map(self.doc, &maps_of(place), level).map(Value::Object),
                    Content::List | Content::Text | Content::Counter(_) | Content::Scalar(_) => {
                        shown(self.doc, alone, level)
                    }
                };
                Some(ConflictValue { value: value.unwrap_or(Value::Null), node: author(&held.id) })
            })
            .collect();
        let differ = values.iter().zip(values.iter().skip(1)).any(|(a, b)| a.value != b.value);
        if differ {
            self.found.push(Conflict { pointer: self.pointer.clone(), values });
        }
    }
}

/// The node that made an operation, in hexadecimal.
fn author(id: &ObjId) -> String {
    match id {
        ObjId::Id(_, actor, _) => {
            actor.to_bytes().first_chunk().map(|node| NodeId(*node).to_string()).unwrap_or_default()
        }
        ObjId::Root => String::new(),
    }
}
