//! What a person has changed in a form, and what somebody else has changed meanwhile.
//!
//! A form says what it was filled from: a mark for each field, and of a list its entries. What it was sent with and what
//! is held by then are both compared with that, so that only what its person changed is written, and what two changed
//! is asked about. Lists are compared entry by entry, in which no two changes are in each other's way.

use std::collections::HashSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::form::Fields;
use crate::accounts::Refusal;

/// Fields of a record, or of a form about it, by their names.
pub(super) type Said = Map<String, Value>;

/// The field of a form that holds its [`Marks`].
const WAS: &str = "was";
/// Characters of a mark: enough that no two texts of one field share it by chance.
const MARK_CHARS: usize = 16;

/// What a form was filled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks(Said);

impl Marks {
    /// Those of a form that shows this.
    pub(super) fn of(shown: &Said) -> Self {
        let mark = |(name, value): (&String, &Value)| {
            let mark = if texts(value).is_some() { value.clone() } else { mark(value).into() };
            (name.clone(), mark)
        };
        Self(shown.iter().map(mark).collect())
    }

    /// Those that a form was sent with; none where it has lost them.
    pub(super) fn read(fields: &Fields) -> Option<Self> {
        serde_json::from_str(fields.get(WAS)).ok().map(Self)
    }

    /// As the form holds them.
    pub(super) fn text(&self) -> String {
        Value::from(self.0.clone()).to_string()
    }
}

/// What is to be written of a form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// What its person changed, and nothing else.
    pub(super) changed: Said,
    /// What somebody else changed meanwhile to something else.
    pub(super) disputed: Vec<String>,
}

impl Merged {
    /// What the form `mine`, which was filled from `was`, means for a record of which forms show `shown` by now, and
    /// that holds `held` in all.
    pub(super) fn new(was: &Marks, mine: &Said, shown: &Said, held: &Said) -> Self {
        let mut merged = Self::default();
        for (name, mine) in mine {
            // What the form did not show, it cannot have changed.
            let Some(was) = was.0.get(name) else { continue };
            let held = held.get(name).unwrap_or(&Value::Null);
            match (texts(was), texts(mine), texts(held)) {
                (Some(was), Some(mine), Some(held)) => {
                    if let Some(list) = merged_list(&was, &mine, &held) {
                        merged.changed.insert(name.clone(), list.into());
                    }
                }
                _ => merged.take(name, was, mine, shown.get(name).unwrap_or(&Value::Null)),
            }
        }
        merged
    }

    /// What is to be written, where nobody else has changed that too.
    pub(super) fn undisputed(self) -> Result<Said, Refusal> {
        if self.disputed.is_empty() { Ok(self.changed) } else { Err(Refusal::Disputed(self.disputed)) }
    }

    fn take(&mut self, name: &str, was: &Value, mine: &Value, theirs: &Value) {
        // A list of nothing may be one of texts as well as one of rows.
        let was = was.as_str().map_or_else(|| mark(was), str::to_owned);
        let (my_mark, their_mark) = (mark(mine), mark(theirs));
        if was == my_mark || my_mark == their_mark {
            return;
        }
        if was != their_mark {
            self.disputed.push(name.to_owned());
        }
        self.changed.insert(name.to_owned(), mine.clone());
    }
}

/// The members of a record.
pub(super) fn members(record: &impl Serialize) -> Said {
    match serde_json::to_value(record) {
        Ok(Value::Object(members)) => members,
        Ok(_) | Err(_) => Said::new(),
    }
}

/// A record with other values in some of its members.
///
/// # Errors
/// When a value is not of its member's type.
pub(super) fn with<T: Serialize + DeserializeOwned>(record: &T, changed: Said) -> Result<T, serde_json::Error> {
    let mut members = members(record);
    members.extend(changed);
    T::deserialize(Value::from(members))
}

/// The entries of a list of texts, which may be none.
fn texts(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

/// What is held, without what the form took out and with what it added; none where that changes nothing.
fn merged_list(was: &[&str], mine: &[&str], held: &[&str]) -> Option<Vec<String>> {
    // A form may hold very many, and what it was filled from is its own word.
    let [in_was, in_mine, in_held] = [was, mine, held].map(|list| list.iter().copied().collect::<HashSet<&str>>());
    let is_kept = |entry: &&&str| in_mine.contains(**entry) || !in_was.contains(**entry);
    let is_added = |entry: &&&str| !in_was.contains(**entry) && !in_held.contains(**entry);
    let list: Vec<&str> = held.iter().filter(is_kept).chain(mine.iter().filter(is_added)).copied().collect();
    (list != held).then(|| list.into_iter().map(str::to_owned).collect())
}

fn mark(value: &Value) -> String {
    let text = as_forms_have_it(value, false).to_string();
    blake3::hash(text.as_bytes()).to_hex().chars().take(MARK_CHARS).collect()
}

/// A value as it comes back from a form in which nothing was typed: browsers end lines in their own way, and fields of
/// one line, of which rows are made, hold no ends of lines at all.
fn as_forms_have_it(value: &Value, is_in_row: bool) -> Value {
    match value {
        Value::String(text) if is_in_row => text.replace(['\r', '\n'], "").trim().into(),
        Value::String(text) => text.replace('\r', "").into(),
        Value::Array(items) => items.iter().map(|item| as_forms_have_it(item, true)).collect(),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| (name.clone(), as_forms_have_it(value, true));
            members.iter().map(member).collect::<Said>().into()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(value: Value) -> Said {
        value.as_object().unwrap().clone()
    }

    fn merged(was: Value, mine: Value, theirs: Value) -> (Value, Vec<String>) {
        let theirs = said(theirs);
        let Merged { changed, disputed } = Merged::new(&Marks::of(&said(was)), &said(mine), &theirs, &theirs);
        (changed.into(), disputed)
    }

    #[test]
    fn only_what_its_person_changed_is_written() {
        for (was, mine, theirs, changed, disputed) in [
            (json!({"a": 1}), json!({"a": 1}), json!({"a": 1}), json!({}), &[][..]),
            (json!({"a": 1, "b": "x"}), json!({"a": 2, "b": "x"}), json!({"a": 1, "b": "y"}), json!({"a": 2}), &[]),
            (json!({"a": 1}), json!({"a": 2}), json!({"a": 2}), json!({}), &[]),
            (json!({"a": 1}), json!({"a": 2}), json!({"a": 3}), json!({"a": 2}), &["a"]),
            (json!({"a": [{"n": 1}]}), json!({"a": [{"n": 2}]}), json!({"a": []}), json!({"a": [{"n": 2}]}), &["a"]),
            (json!({"a": []}), json!({"a": [{"n": 1}]}), json!({"a": []}), json!({"a": [{"n": 1}]}), &[]),
            (json!({"a": 1}), json!({"a": 1, "new": 2}), json!({"a": 1}), json!({}), &[]),
        ] {
            assert_eq!(
                merged(was.clone(), mine.clone(), theirs),
                (changed, disputed.iter().map(|&name| name.to_owned()).collect()),
                "{was} {mine}"
            );
        }
    }

    #[test]
    fn lists_are_changed_by_both() {
        for (was, mine, theirs, changed) in [
            (json!(["a", "b"]), json!(["a", "c"]), json!(["a", "b", "d"]), json!({"l": ["a", "d", "c"]})),
            (json!([]), json!(["a"]), json!(["a"]), json!({})),
            (json!(["a"]), json!([]), json!([]), json!({})),
            (json!(["a", "b"]), json!(["b", "a"]), json!(["a", "b"]), json!({})),
        ] {
            let said = |list: &Value| json!({"l": list});
            assert_eq!(merged(said(&was), said(&mine), said(&theirs)), (changed, Vec::new()), "{was} {mine} {theirs}");
        }
        // What a form does not show, it does not take.
        let (shown, held) = (said(json!({"l": ["1"]})), said(json!({"l": ["1", "4711"]})));
        let found = Merged::new(&Marks::of(&shown), &said(json!({"l": []})), &shown, &held);
        assert_eq!(Value::from(found.changed), json!({"l": ["4711"]}));
    }

    #[test]
    fn what_browsers_do_to_a_text_is_no_change() {
        let was = json!({"job": "image: a\nports:\n", "rows": [{"text": "one\ntwo"}]});
        let mine = json!({"job": "image: a\r\nports:\r\n", "rows": [{"text": "onetwo"}]});
        assert_eq!(merged(was.clone(), mine, was.clone()), (json!({}), Vec::new()));
        // What a person does is one: a key may need the end of its last line.
        let mine = json!({"job": "image: a\nports:"});
        assert_eq!(merged(was.clone(), mine.clone(), was), (mine, Vec::new()));
    }

    #[test]
    fn long_lists_are_merged_in_no_time() {
        const MANY: usize = 100_000;
        let list = |text: &str| json!({"l": (0..MANY).map(|at| format!("{text}{at}")).collect::<Vec<_>>()});
        let (changed, _) = merged(list("b"), list("a"), list("b"));
        assert_eq!(changed, list("a"));
    }

    #[test]
    fn marks_are_read_from_the_form_that_holds_them() {
        let marks = Marks::of(&said(json!({"name": "a", "zones": ["!gb"]})));
        assert!(!marks.text().contains("\"a\"") && marks.text().contains("!gb"));
        let sent = format!("/x?was={}", crate::api::path::encode(&marks.text()));
        assert_eq!(Marks::read(&Fields::of(&sent.parse().unwrap())), Some(marks));
        assert_eq!(Marks::read(&Fields::default()), None);
    }
}
