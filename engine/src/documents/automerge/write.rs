//! Writes JSON into an Automerge document as the fewest operations that make reads show it.
//!
//! Where a place is a union of maps, a member is written to the map with the greatest id and removed from the others, so
//! that what was asked is what is read.

use automerge::hydrate::{Map as StoredMap, MapValue, Value as Stored};
use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, ObjType, Prop, ReadDoc, ScalarValue};
use serde_json::{Map, Number, Value};

use super::read::{self, Content, Held};
use crate::documents::EditRefused;
use crate::documents::json::{array_index, pointer_push};

/// Largest counter, and largest step of one, either way: what a double holds exactly, and too little for concurrent
/// increments to overflow 64 bits, where Automerge panics.
pub(super) const COUNTER_MAX: i64 = 1 << 53;

/// Makes the document, which reads as `present`, read as `members`.
///
/// # Errors
/// When a number cannot be held. The transaction must then be rolled back.
pub(super) fn put(
    tx: &mut Transaction<'_>,
    present: &Map<String, Value>,
    members: &Map<String, Value>,
) -> Result<(), EditRefused> {
    let mut writer = Writer { tx, pointer: String::new() };
    writer.map(&[ObjId::Root], present, members)
}

/// Fills a document that has no operation yet, in one batch.
///
/// # Errors
/// As for [`put`].
pub(super) fn create(tx: &mut Transaction<'_>, members: &Map<String, Value>) -> Result<(), EditRefused> {
    let mut writer = Writer { tx, pointer: String::new() };
    let map = writer.stored_map(members)?;
    writer.done(|tx| tx.init_root_from_hydrate(&map));
    Ok(())
}

/// Adds `by` to the counter at the path `tokens`.
///
/// # Errors
/// When the path does not lead to an integer or to a free member of an object, or the sum is over [`COUNTER_MAX`].
pub(super) fn increment(tx: &mut Transaction<'_>, tokens: &[String], by: i64) -> Result<(), EditRefused> {
    let Some((last, parents)) = tokens.split_last() else {
        return Err(refuse("the document itself is not a number"));
    };
    let mut containers = vec![ObjId::Root];
    for token in parents {
        let place = read::place(tx, &containers, &prop(tx, &containers, token)?);
        containers = match place.last() {
            Some(winner) => match winner.content {
                Content::Map => read::maps_of(&place),
                Content::List => vec![winner.id.clone()],
                Content::Text | Content::Counter(_) | Content::Scalar(_) => Vec::new(),
            },
            None => Vec::new(),
        };
    }
    if containers.is_empty() {
        return Err(refuse("the parent is not an object or array"));
    }
    let prop = prop(tx, &containers, last)?;
    let place = read::place(tx, &containers, &prop);
    let present = match place.last().map(|winner| &winner.content) {
        None => 0,
        Some(Content::Counter(counter)) => *counter,
        Some(Content::Scalar(value)) => {
            value.as_i64().ok_or_else(|| refuse("there is a value that is not an integer"))?
        }
        Some(Content::Map | Content::List | Content::Text) => {
            return Err(refuse("there is a value that is not an integer"));
        }
    };
    let sum = present
        .checked_add(by)
        .filter(|sum| sum.unsigned_abs() <= COUNTER_MAX.unsigned_abs())
        .filter(|_| by.unsigned_abs() <= COUNTER_MAX.unsigned_abs())
        .ok_or_else(|| refuse("the sum is not within 2^53"))?;
    let mut writer = Writer { tx, pointer: String::new() };
    match place.last() {
        Some(Held { content: Content::Counter(_), container, .. }) => {
            writer.done(|tx| tx.increment(container, prop, by))
        }
        Some(_) | None => writer.replace(&containers, &prop, &place, |writer, container| {
            writer.done(|tx| tx.put(container, prop.clone(), ScalarValue::counter(sum)));
            Ok(())
        })?,
    }
    Ok(())
}

fn refuse(why: &str) -> EditRefused {
    EditRefused::Increment(why.to_owned())
}

/// How `token` names a member of `containers`, which are all maps or one list.
fn prop(tx: &Transaction<'_>, containers: &[ObjId], token: &str) -> Result<Prop, EditRefused> {
    let Some(list) = containers.first().filter(|first| matches!(tx.object_type(first), Ok(ObjType::List))) else {
        return Ok(Prop::Map(token.to_owned()));
    };
    array_index(token)
        .filter(|index| *index < tx.length(list))
        .map(Prop::Seq)
        .ok_or_else(|| refuse("the array has no such index"))
}

struct Writer<'a, 'b> {
    tx: &'a mut Transaction<'b>,
    pointer: String,
}

impl<'b> Writer<'_, 'b> {
    /// Makes the union of `maps`, which reads as `present`, read as `members`.
    fn map(
        &mut self,
        maps: &[ObjId],
        present: &Map<String, Value>,
        members: &Map<String, Value>,
    ) -> Result<(), EditRefused> {
        for key in present.keys().filter(|key| !members.contains_key(*key)) {
            let prop = Prop::Map(key.clone());
            let place = read::place(self.tx, maps, &prop);
            self.clear(&place, &prop, None);
        }
        for (key, value) in members {
            let parent = self.pointer.len();
            pointer_push(&mut self.pointer, key);
            let prop = Prop::Map(key.clone());
            match present.get(key) {
                Some(shown) => self.update(maps, &prop, shown, value)?,
                None => {
                    if let Some(map) = maps.last() {
                        self.write(map, &prop, value)?;
                    }
                }
            }
            self.pointer.truncate(parent);
        }
        Ok(())
    }

    /// Makes the list read as `elements`: what both begin and end with stays, the middle is replaced.
    fn list(&mut self, list: &ObjId, present: &[Value], elements: &[Value]) -> Result<(), EditRefused> {
        let head = equal(present.iter(), elements.iter());
        let shorter = present.len().min(elements.len());
        let tail = equal(present.iter().rev(), elements.iter().rev()).min(shorter - head);
        let removed = present.get(head..present.len() - tail).unwrap_or_default();
        let added = elements.get(head..elements.len() - tail).unwrap_or_default();
        if let ([shown], [element]) = (removed, added) {
            let parent = self.pointer.len();
            pointer_push(&mut self.pointer, &head.to_string());
            self.update(std::slice::from_ref(list), &Prop::Seq(head), shown, element)?;
            self.pointer.truncate(parent);
            return Ok(());
        }
        let added = added.iter().map(|element| self.stored(element)).collect::<Result<Vec<_>, _>>()?;
        let removed = isize::try_from(removed.len()).map_err(|_| EditRefused::TooLarge)?;
        self.done(|tx| tx.splice(list, head, removed, added));
        Ok(())
    }

    /// Makes the place, which reads as `shown`, read as `value`.
    fn update(&mut self, containers: &[ObjId], prop: &Prop, shown: &Value, value: &Value) -> Result<(), EditRefused> {
        if shown == value {
            return Ok(());
        }
        let place = read::place(self.tx, containers, prop);
        match (shown, value, place.last()) {
            (Value::Object(present), Value::Object(members), _) => self.map(&read::maps_of(&place), present, members),
            (Value::Array(present), Value::Array(elements), Some(list)) => self.list(&list.id, present, elements),
            (_, _, _) => {
                self.replace(containers, prop, &place, |writer, container| writer.write(container, prop, value))
            }
        }
    }

    /// Writes to the last container and empties the place in the others.
    fn replace(
        &mut self,
        containers: &[ObjId],
        prop: &Prop,
        place: &[Held],
        write: impl FnOnce(&mut Self, &ObjId) -> Result<(), EditRefused>,
    ) -> Result<(), EditRefused> {
        if let Some(container) = containers.last() {
            write(self, container)?;
            self.clear(place, prop, Some(container));
        }
        Ok(())
    }

    /// Deletes the place in every container that holds something there, but not in `keep`.
    fn clear(&mut self, place: &[Held], prop: &Prop, keep: Option<&ObjId>) {
        let mut holders: Vec<&ObjId> = place.iter().map(|held| &held.container).collect();
        holders.sort();
        holders.dedup();
        for holder in holders {
            if Some(holder) != keep {
                self.done(|tx| tx.delete(holder, prop.clone()));
            }
        }
    }

    /// Writes a value to a place, over whatever is there.
    fn write(&mut self, container: &ObjId, prop: &Prop, value: &Value) -> Result<(), EditRefused> {
        match self.stored(value)? {
            Stored::Scalar(scalar) => self.done(|tx| tx.put(container, prop.clone(), scalar)),
            stored @ (Stored::Map(_) | Stored::List(_) | Stored::Text(_)) => {
                self.done(|tx| tx.batch_create_object(container, prop.clone(), &stored, false));
            }
        }
        Ok(())
    }

    /// A value as Automerge writes it in one batch, which it does in the order of keys.
    fn stored(&self, value: &Value) -> Result<Stored, EditRefused> {
        match value {
            Value::Object(members) => self.stored_map(members).map(Stored::Map),
            Value::Array(elements) => {
                let list: Vec<_> = elements.iter().map(|element| self.stored(element)).collect::<Result<_, _>>()?;
                Ok(Stored::List(list.into()))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.scalar(value).map(Stored::Scalar)
            }
        }
    }

    fn stored_map(&self, members: &Map<String, Value>) -> Result<StoredMap, EditRefused> {
        let mut map = StoredMap::default();
        for (key, member) in members {
            let value = self.stored(member)?;
            let conflict = false;
            map.insert(key.clone(), MapValue { value, conflict });
        }
        Ok(map)
    }

    fn scalar(&self, value: &Value) -> Result<ScalarValue, EditRefused> {
        match value {
            Value::Bool(yes) => Ok(ScalarValue::Boolean(*yes)),
            Value::String(text) => Ok(ScalarValue::Str(text.as_str().into())),
            Value::Number(number) => number_value(number).ok_or_else(|| EditRefused::Number(self.pointer.clone())),
            Value::Null | Value::Array(_) | Value::Object(_) => Ok(ScalarValue::Null),
        }
    }

    fn done<T>(&mut self, write: impl FnOnce(&mut Transaction<'b>) -> Result<T, AutomergeError>) -> T {
        write(self.tx).expect("Automerge takes a write to a place it has just shown")
    }
}

fn number_value(number: &Number) -> Option<ScalarValue> {
    if let Some(n) = number.as_i64() {
        Some(ScalarValue::Int(n))
    } else if let Some(n) = number.as_u64() {
        Some(ScalarValue::Uint(n))
    } else {
        number.as_f64().filter(|n| n.is_finite()).map(ScalarValue::F64)
    }
}

/// How many elements two sequences begin with alike.
fn equal<'a>(a: impl Iterator<Item = &'a Value>, b: impl Iterator<Item = &'a Value>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}
