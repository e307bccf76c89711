//! What differs between two values, member by member, for people to read.

use std::borrow::Cow;

use serde_json::Value;

/// Most differences that are told of; what is beyond is counted only.
pub(crate) const DIFFERENCES_MAX: usize = 500;

/// How a place differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Added,
    Removed,
    Changed,
}

impl Kind {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

/// One place that differs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Difference {
    /// RFC 6901; empty for the whole value.
    pub(crate) pointer: String,
    pub(crate) kind: Kind,
    /// What was there; none where it was added.
    pub(crate) before: Option<Value>,
    /// What is there; none where it was removed.
    pub(crate) after: Option<Value>,
}

/// What differs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Differences {
    /// In the order of the members, at most [`DIFFERENCES_MAX`].
    pub(crate) shown: Vec<Difference>,
    /// How many there are besides.
    pub(crate) more: usize,
}

impl Differences {
    /// Those between two values. Objects are compared by member and arrays by place, all else as a whole.
    pub(crate) fn between(before: &Value, after: &Value) -> Self {
        let mut found = Self::default();
        found.compare("", Some(before), Some(after));
        found
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    fn compare(&mut self, pointer: &str, before: Option<&Value>, after: Option<&Value>) {
        let kind = match (before, after) {
            (Some(Value::Object(before)), Some(Value::Object(after))) => {
                let added = after.keys().filter(|name| !before.contains_key(*name));
                for name in before.keys().chain(added) {
                    self.compare(&below(pointer, name), before.get(name), after.get(name));
                }
                return;
            }
            (Some(Value::Array(before)), Some(Value::Array(after))) => {
                for place in 0..before.len().max(after.len()) {
                    self.compare(&below(pointer, &place.to_string()), before.get(place), after.get(place));
                }
                return;
            }
            (before, after) if before == after => return,
            (None, _) => Kind::Added,
            (_, None) => Kind::Removed,
            (Some(_), Some(_)) => Kind::Changed,
        };
        if self.shown.len() < DIFFERENCES_MAX {
            let (pointer, before, after) = (pointer.to_owned(), before.cloned(), after.cloned());
            self.shown.push(Difference { pointer, kind, before, after });
        } else {
            self.more += 1;
        }
    }
}

fn below(pointer: &str, token: &str) -> String {
    let escaped = if token.contains(['~', '/']) {
        Cow::from(token.replace('~', "~0").replace('/', "~1"))
    } else {
        Cow::from(token)
    };
    format!("{pointer}/{escaped}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(before: &Value, after: &Value) -> Vec<(String, &'static str)> {
        let differences = Differences::between(before, after).shown;
        differences.into_iter().map(|difference| (difference.pointer, difference.kind.word())).collect()
    }

    #[test]
    fn each_member_that_differs_is_told_of() {
        let before = json!({"name": "Ann", "age": 3, "home": {"town": "x", "a/b": 1}, "list": [1, 2, 3]});
        let after = json!({"name": "Anne", "age": 3, "home": {"a/b": 2, "street": null}, "list": [1, 5]});
        let mut found = told(&before, &after);
        found.sort();
        let expected = [
            ("/home/a~1b", "changed"),
            ("/home/street", "added"),
            ("/home/town", "removed"),
            ("/list/1", "changed"),
            ("/list/2", "removed"),
            ("/name", "changed"),
        ];
        assert_eq!(found, expected.map(|(pointer, word)| (pointer.to_owned(), word)));
        assert!(Differences::between(&before, &before).is_empty());
    }

    #[test]
    fn a_value_of_another_kind_has_changed_as_a_whole() {
        assert_eq!(told(&json!({"a": [1]}), &json!({"a": {"0": 1}})), [("/a".to_owned(), "changed")]);
        assert_eq!(told(&Value::Null, &json!({})), [(String::new(), "changed")]);
    }

    #[test]
    fn beyond_the_bound_they_are_counted() {
        let after: Value = (0..DIFFERENCES_MAX + 7).map(|n| (n.to_string(), json!(n))).collect();
        let found = Differences::between(&json!({}), &after);
        assert_eq!((found.shown.len(), found.more), (DIFFERENCES_MAX, 7));
    }
}
