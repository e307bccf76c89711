//! What a client may ask of a JSON document, as pure functions: limits, RFC 6901 pointers, RFC 7396 merge patches and
//! RFC 6902 patches.
//!
//! Nothing here recurses further than [`JSON_DEPTH_MAX`], and a patch cannot make more than the limits allow however
//! often it copies a document into itself.

use serde_json::{Map, Value};

use super::{CHANGE_BYTES_MAX, EditRefused, JSON_DEPTH_MAX, JSON_NODES_MAX};

/// Checks that `value` can be a document: an object within the depth and size limits.
///
/// # Errors
/// Says which limit it is over.
pub(super) fn check(value: &Value) -> Result<(), EditRefused> {
    if !value.is_object() {
        return Err(EditRefused::NotAnObject(kind(value)));
    }
    check_part(value, 0)
}

/// Checks a part that lies `level` pointer tokens below the root.
fn check_part(value: &Value, level: usize) -> Result<(), EditRefused> {
    let mut nodes = 0;
    measure(value, level, &mut nodes)
}

fn measure(value: &Value, level: usize, nodes: &mut usize) -> Result<(), EditRefused> {
    let is_container = value.is_object() || value.is_array();
    if is_container && level >= JSON_DEPTH_MAX {
        return Err(EditRefused::TooDeep);
    }
    let members = match value {
        Value::Object(members) => members.len(),
        Value::Array(elements) => elements.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    };
    *nodes += members;
    if *nodes > JSON_NODES_MAX {
        return Err(EditRefused::TooManyNodes);
    }
    match value {
        Value::Object(members) => members.values().try_for_each(|value| measure(value, level + 1, nodes)),
        Value::Array(elements) => elements.iter().try_for_each(|value| measure(value, level + 1, nodes)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// What JSON calls a value of this type.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Bytes of text and number of nodes in `value`; `value` is within the depth limit.
fn size(value: &Value) -> (usize, usize) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => (8, 1),
        Value::String(text) => (text.len(), 1),
        Value::Array(elements) => elements.iter().fold((8, 1), |total, element| {
            let (bytes, nodes) = size(element);
            (total.0 + bytes, total.1 + nodes)
        }),
        Value::Object(members) => members.iter().fold((8, 1), |total, (key, member)| {
            let (bytes, nodes) = size(member);
            (total.0 + key.len() + bytes, total.1 + nodes)
        }),
    }
}

/// Splits an RFC 6901 pointer into its tokens, unescaped; none when it is malformed.
pub(super) fn pointer_tokens(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    pointer.strip_prefix('/')?.split('/').map(unescape).collect()
}

fn unescape(token: &str) -> Option<String> {
    let mut text = String::with_capacity(token.len());
    let mut characters = token.chars();
    while let Some(character) = characters.next() {
        match character {
            '~' => text.push(match characters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            }),
            _ => text.push(character),
        }
    }
    Some(text)
}

/// Appends one token to a pointer, escaped.
pub(super) fn pointer_push(pointer: &mut String, token: &str) {
    pointer.push('/');
    for character in token.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            _ => pointer.push(character),
        }
    }
}

/// An array index as RFC 6901 writes it: decimal, no sign, no leading zero.
pub(super) fn array_index(token: &str) -> Option<usize> {
    let well_formed = token.bytes().all(|byte| byte.is_ascii_digit()) && (token == "0" || !token.starts_with('0'));
    if well_formed { token.parse().ok() } else { None }
}

/// Applies an RFC 7396 merge patch.
///
/// # Errors
/// When the patch is nested too deeply to be walked.
pub(super) fn merge_patch(target: Value, patch: &Value) -> Result<Value, EditRefused> {
    check_part(patch, 0)?;
    let mut result = target;
    merge(&mut result, patch);
    Ok(result)
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(into) = target else { return };
    for (key, member) in members {
        if member.is_null() {
            into.remove(key);
        } else {
            merge(into.entry(key.as_str()).or_insert(Value::Null), member);
        }
    }
}

/// Applies an RFC 6902 patch to `target`; the whole of it or nothing, since `target` is the caller's copy.
///
/// # Errors
/// When the patch is malformed, names a path that is not there, fails a test or grows over the limits.
pub(super) fn json_patch(target: Value, patch: &Value) -> Result<Value, EditRefused> {
    let Value::Array(operations) = patch else {
        return Err(EditRefused::Patch("a patch is an array".to_owned()));
    };
    let mut patching = Patching { target, index: 0, copied: (0, 0) };
    for (index, operation) in operations.iter().enumerate() {
        patching.index = index;
        patching.apply(operation)?;
    }
    Ok(patching.target)
}

/// A patch half applied.
struct Patching {
    target: Value,
    index: usize,
    /// Bytes and nodes that `copy` operations have made: they alone can outgrow the patch that asks for them.
    copied: (usize, usize),
}

impl Patching {
    fn apply(&mut self, operation: &Value) -> Result<(), EditRefused> {
        let name = self.text(operation, "op")?;
        let path = self.pointer(operation, "path")?;
        match name {
            "add" => {
                let value = self.value(operation)?.clone();
                self.add(&path, value)
            }
            "remove" => self.remove(&path).map(drop),
            "replace" => {
                let value = self.value(operation)?.clone();
                check_part(&value, path.len())?;
                *self.find(&path)? = value;
                Ok(())
            }
            "move" => self.move_from(&self.pointer(operation, "from")?, &path),
            "copy" => self.copy(&self.pointer(operation, "from")?, &path),
            "test" => {
                let expected = self.value(operation)?;
                let index = self.index;
                match lookup(&self.target, &path) {
                    Some(found) if same(found, expected) => Ok(()),
                    Some(_) | None => Err(EditRefused::PatchTest(index)),
                }
            }
            _ => Err(self.refuse("op is none of add, remove, replace, move, copy and test")),
        }
    }

    fn move_from(&mut self, from: &[String], path: &[String]) -> Result<(), EditRefused> {
        if path.starts_with(from) && path.len() > from.len() {
            return Err(self.refuse("a value cannot move into itself"));
        }
        let value = self.remove(from)?;
        self.add(path, value)
    }

    fn copy(&mut self, from: &[String], path: &[String]) -> Result<(), EditRefused> {
        let Some(value) = lookup(&self.target, from) else {
            return Err(self.refuse("from is not there"));
        };
        let (bytes, nodes) = size(value);
        self.copied.0 += bytes;
        self.copied.1 += nodes;
        if self.copied.0 > CHANGE_BYTES_MAX {
            return Err(EditRefused::TooLarge);
        }
        if self.copied.1 > JSON_NODES_MAX {
            return Err(EditRefused::TooManyNodes);
        }
        let value = value.clone();
        self.add(path, value)
    }

    fn add(&mut self, path: &[String], value: Value) -> Result<(), EditRefused> {
        check_part(&value, path.len())?;
        let Some((last, parent)) = path.split_last() else {
            self.target = value;
            return Ok(());
        };
        let index = self.index;
        match self.find(parent)? {
            Value::Object(members) => {
                members.insert(last.clone(), value);
                Ok(())
            }
            Value::Array(elements) => {
                let at = match last.as_str() {
                    "-" => Some(elements.len()),
                    token => array_index(token).filter(|at| *at <= elements.len()),
                };
                let at = at.ok_or_else(|| refuse(index, "the array has no such index"))?;
                elements.insert(at, value);
                Ok(())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Err(refuse(index, "the parent is neither object nor array"))
            }
        }
    }

    fn remove(&mut self, path: &[String]) -> Result<Value, EditRefused> {
        let Some((last, parent)) = path.split_last() else {
            return Ok(std::mem::take(&mut self.target));
        };
        let index = self.index;
        let removed = match self.find(parent)? {
            Value::Object(members) => members.remove(last),
            Value::Array(elements) => array_index(last).filter(|at| *at < elements.len()).map(|at| elements.remove(at)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        removed.ok_or_else(|| refuse(index, "the path is not there"))
    }

    fn find(&mut self, path: &[String]) -> Result<&mut Value, EditRefused> {
        let index = self.index;
        path.iter()
            .try_fold(&mut self.target, |value, token| match value {
                Value::Object(members) => members.get_mut(token),
                Value::Array(elements) => elements.get_mut(array_index(token)?),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
            })
            .ok_or_else(|| refuse(index, "the path is not there"))
    }

    fn text<'a>(&self, operation: &'a Value, member: &str) -> Result<&'a str, EditRefused> {
        operation
            .get(member)
            .and_then(Value::as_str)
            .ok_or_else(|| self.refuse(&format!("{member} is missing or not a string")))
    }

    fn pointer(&self, operation: &Value, member: &str) -> Result<Vec<String>, EditRefused> {
        pointer_tokens(self.text(operation, member)?)
            .ok_or_else(|| self.refuse(&format!("{member} is not a JSON pointer")))
    }

    fn value<'a>(&self, operation: &'a Value) -> Result<&'a Value, EditRefused> {
        operation.get("value").ok_or_else(|| self.refuse("value is missing"))
    }

    fn refuse(&self, why: &str) -> EditRefused {
        refuse(self.index, why)
    }
}

fn refuse(index: usize, why: &str) -> EditRefused {
    EditRefused::Patch(format!("operation {index}: {why}"))
}

fn lookup<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, token| match value {
        Value::Object(members) => members.get(token),
        Value::Array(elements) => elements.get(array_index(token)?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

/// Equality as RFC 6902 defines it for `test`: numbers by value, so that 1 and 1.0 are the same.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_),
            _,
        ) => left == right,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(target: Value, patch: Value) -> Result<Value, EditRefused> {
        json_patch(target, &patch)
    }

    #[test]
    fn the_examples_of_rfc_6902_appendix_a_hold() {
        let cases = [
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/baz", "value": "qux"}]),
                json!({"baz": "qux", "foo": "bar"}),
            ),
            (
                json!({"foo": ["bar", "baz"]}),
                json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
                json!({"foo": ["bar", "qux", "baz"]}),
            ),
            (json!({"baz": "qux", "foo": "bar"}), json!([{"op": "remove", "path": "/baz"}]), json!({"foo": "bar"})),
            (
                json!({"foo": ["bar", "qux", "baz"]}),
                json!([{"op": "remove", "path": "/foo/1"}]),
                json!({"foo": ["bar", "baz"]}),
            ),
            (
                json!({"baz": "qux", "foo": "bar"}),
                json!([{"op": "replace", "path": "/baz", "value": "boo"}]),
                json!({"baz": "boo", "foo": "bar"}),
            ),
            (
                json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}),
                json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]),
                json!({"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}),
            ),
            (
                json!({"foo": ["all", "grass", "cows", "eat"]}),
                json!([{"op": "move", "from": "/foo/1", "path": "/foo/3"}]),
                json!({"foo": ["all", "cows", "eat", "grass"]}),
            ),
            (
                json!({"baz": "qux", "foo": ["a", 2, "c"]}),
                json!([{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}]),
                json!({"baz": "qux", "foo": ["a", 2, "c"]}),
            ),
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/child", "value": {"grandchild": {}}}]),
                json!({"foo": "bar", "child": {"grandchild": {}}}),
            ),
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}]),
                json!({"foo": "bar", "baz": "qux"}),
            ),
            (
                json!({"/": 9, "~1": 10}),
                json!([{"op": "test", "path": "/~01", "value": 10}]),
                json!({"/": 9, "~1": 10}),
            ),
            (
                json!({"foo": ["bar"]}),
                json!([{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}]),
                json!({"foo": ["bar", ["abc", "def"]]}),
            ),
            (
                json!({"a": 1}),
                json!([{"op": "copy", "from": "/a", "path": "/b"}, {"op": "test", "path": "/b", "value": 1.0}]),
                json!({"a": 1, "b": 1}),
            ),
            (json!({"a": 1}), json!([{"op": "add", "path": "", "value": {"b": 2}}]), json!({"b": 2})),
        ];
        for (target, patch, expected) in cases {
            assert_eq!(patched(target, patch.clone()), Ok(expected), "{patch}");
        }
    }

    #[test]
    fn patches_that_rfc_6902_forbids_are_refused() {
        let target = json!({"foo": "bar", "list": [1], "~1": 10});
        let cases = [
            json!([{"op": "add", "path": "/baz/bat", "value": "qux"}]),
            json!([{"op": "add", "path": "/list/2", "value": 1}]),
            json!([{"op": "add", "path": "/list/01", "value": 1}]),
            json!([{"op": "add", "path": "/list/+1", "value": 1}]),
            json!([{"op": "add", "path": "/foo/x", "value": 1}]),
            json!([{"op": "add", "path": "foo", "value": 1}]),
            json!([{"op": "add", "path": "/a~2", "value": 1}]),
            json!([{"op": "add", "path": "/a"}]),
            json!([{"op": "remove", "path": "/none"}]),
            json!([{"op": "remove", "path": "/list/-"}]),
            json!([{"op": "replace", "path": "/none", "value": 1}]),
            json!([{"op": "move", "from": "", "path": "/foo"}]),
            json!([{"op": "copy", "from": "/none", "path": "/foo"}]),
            json!([{"op": "mend", "path": "/foo"}]),
            json!([{"path": "/foo"}]),
            json!([1]),
            json!({"op": "remove", "path": "/foo"}),
        ];
        for patch in cases {
            let outcome = patched(target.clone(), patch.clone());
            assert!(matches!(outcome, Err(EditRefused::Patch(_))), "{patch}: {outcome:?}");
        }
        let failing = json!([{"op": "remove", "path": "/foo"}, {"op": "test", "path": "/~01", "value": "10"}]);
        assert_eq!(patched(target, failing), Err(EditRefused::PatchTest(1)));
    }

    #[test]
    fn a_patch_that_copies_a_document_into_itself_meets_a_limit() {
        let doubling: Vec<Value> =
            (0..40).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/a/{i}")})).collect();
        let outcome = json_patch(json!({"a": {"x": 1}}), &Value::Array(doubling));
        assert!(matches!(outcome, Err(EditRefused::TooDeep | EditRefused::TooManyNodes)), "{outcome:?}");
        let wide: Vec<Value> =
            (0..10_000).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/{i}")})).collect();
        let outcome = json_patch(json!({"a": "x".repeat(1 << 16)}), &Value::Array(wide));
        assert_eq!(outcome, Err(EditRefused::TooLarge));
    }

    #[test]
    fn the_examples_of_rfc_7396_appendix_a_hold() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (target, patch, expected) in cases {
            assert_eq!(merge_patch(target, &patch), Ok(expected), "{patch}");
        }
    }

    #[test]
    fn depth_and_nodes_are_limited() {
        let nested = |levels| (1..levels).fold(json!({}), |inner, _| json!({"a": inner}));
        assert_eq!(check(&nested(JSON_DEPTH_MAX)), Ok(()));
        assert_eq!(check(&nested(JSON_DEPTH_MAX + 1)), Err(EditRefused::TooDeep));
        let wide = |nodes: usize| json!({"a": vec![0; nodes - 1]});
        assert_eq!(check(&wide(JSON_NODES_MAX)), Ok(()));
        assert_eq!(check(&wide(JSON_NODES_MAX + 1)), Err(EditRefused::TooManyNodes));
        assert_eq!(check(&json!([])), Err(EditRefused::NotAnObject("an array")));
    }

    #[test]
    fn pointers_escape_and_unescape() {
        let mut pointer = String::new();
        pointer_push(&mut pointer, "a/b~c");
        pointer_push(&mut pointer, "");
        assert_eq!(pointer, "/a~1b~0c/");
        assert_eq!(pointer_tokens(&pointer), Some(vec!["a/b~c".to_owned(), String::new()]));
        assert_eq!(pointer_tokens("a"), None);
        assert_eq!(pointer_tokens("/~"), None);
    }
}
