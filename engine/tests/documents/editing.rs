//! What edits make of a document on one replica.

use automerge::Change;
use bytes::Bytes;
use knot_engine::documents::{
    AutomergeDocument, CHANGE_OPS_MAX, ChangeKind, Document, Edit, EditRefused, JSON_DEPTH_MAX, JSON_NODES_MAX,
    ModelDocument,
};
use serde_json::{Value, json};

use crate::replica::Replica;

type Auto = Replica<AutomergeDocument>;

fn ops(bytes: &Option<Bytes>) -> u64 {
    AutomergeDocument::header(bytes.as_ref().unwrap()).unwrap().ops
}

#[test]
fn a_put_writes_what_differs_and_nothing_else() {
    let mut a = Auto::new(1);
    let first = json!({"name": "Ada", "age": 36, "tags": [1, 2, 3, 4], "address": {"city": "London", "zip": "x"}});
    assert_eq!(ops(&a.put(first.clone())), 4 + 4 + 2);
    assert_eq!(a.doc.value(), first);
    assert_eq!(a.put(first), None);

    let field =
        a.put(json!({"name": "Ada", "age": 37, "tags": [1, 2, 3, 4], "address": {"city": "London", "zip": "x"}}));
    assert_eq!(ops(&field), 1);
    assert!(field.unwrap().len() < 200);
    let nested = a.put(json!({"name": "Ada", "age": 37, "tags": [1, 2, 3, 4], "address": {"city": "Paris"}}));
    assert_eq!(ops(&nested), 2, "one set, one delete");
    let middle = a.put(json!({"name": "Ada", "age": 37, "tags": [1, 9, 4], "address": {"city": "Paris"}}));
    assert_eq!(ops(&middle), 3, "two elements out, one in");
    let appended = a.put(json!({"name": "Ada", "age": 37, "tags": [1, 9, 4, 5], "address": {"city": "Paris"}}));
    assert_eq!(ops(&appended), 1);
    let replaced = a.put(json!({"name": ["A"], "age": {"years": 37}, "tags": null, "address": "Paris"}));
    assert_eq!(ops(&replaced), 6);
    assert_eq!(a.doc.value(), json!({"name": ["A"], "age": {"years": 37}, "tags": null, "address": "Paris"}));
}

#[test]
fn lists_become_what_was_put() {
    let lists = [
        json!([]),
        json!([1]),
        json!([1, 1, 1]),
        json!([1, 1]),
        json!([{"a": 1}, {"a": 2}]),
        json!([{"a": 1}, {"a": 3}]),
        json!([{"a": 1}, 7, {"a": 3}]),
        json!([[1, 2], [3]]),
        json!([[1, 2], [4]]),
        json!([[], {}]),
        json!([null, "x", 1.5, true]),
        json!([]),
    ];
    let mut a = Auto::new(1);
    for from in &lists {
        for to in &lists {
            a.put(json!({"list": from}));
            a.put(json!({"list": to}));
            assert_eq!(a.doc.value(), json!({"list": to}), "from {from}");
        }
    }
}

#[test]
fn a_merge_patch_touches_only_what_it_names() {
    let mut a = Auto::new(1);
    a.put(json!({"a": {"b": 1, "c": 2}, "d": [1, 2], "e": "x"}));
    let change = a.edit(&Edit::MergePatch(json!({"a": {"b": 5, "c": null}, "e": "x"})));
    assert_eq!(ops(&change), 2);
    assert_eq!(a.doc.value(), json!({"a": {"b": 5}, "d": [1, 2], "e": "x"}));
    assert_eq!(a.edit(&Edit::MergePatch(json!({}))), None);
}

#[test]
fn a_json_patch_is_applied_whole_or_not_at_all() {
    let mut a = Auto::new(1);
    a.put(json!({"a": 1, "list": [1, 2]}));
    let refused = a.try_edit(&Edit::JsonPatch(json!([
        {"op": "remove", "path": "/a"},
        {"op": "test", "path": "/list/0", "value": 9},
    ])));
    assert_eq!(refused, Err(EditRefused::PatchTest(1)));
    assert_eq!(a.doc.value(), json!({"a": 1, "list": [1, 2]}));
    let change = a.edit(&Edit::JsonPatch(json!([
        {"op": "move", "from": "/a", "path": "/list/1"},
        {"op": "add", "path": "/list/-", "value": 3},
    ])));
    assert_eq!(ops(&change), 5, "one member and one element out, three elements in");
    assert_eq!(a.doc.value(), json!({"list": [1, 1, 2, 3]}));
}

#[test]
fn numbers_keep_their_value() {
    let numbers = json!({"min": i64::MIN, "max": i64::MAX, "unsigned": u64::MAX, "float": 0.1, "large": 1e300, "tiny": 5e-324, "whole": 2.0});
    let mut a = Auto::new(1);
    a.put(numbers.clone());
    assert_eq!(a.doc.value(), numbers);
    assert!(serde_json::from_str::<Value>("1e400").is_err(), "refused before it is an edit");
    assert_eq!(ops(&a.edit(&Edit::MergePatch(json!({"whole": 2})))), 1, "2 and 2.0 differ as JSON");
}

#[test]
fn odd_keys_and_strings_are_kept() {
    let value = json!({"": 1, "a/b": {"~": "\u{0}"}, "\u{1f600}": "\u{1f600}", "long": "x".repeat(100_000)});
    let mut a = Auto::new(1);
    let change = a.put(value.clone()).unwrap();
    assert_eq!(a.doc.value(), value);
    assert!(change.len() > 100_000, "never deflated");
    assert_eq!(change[8], 1, "an uncompressed change chunk");
    assert_eq!(Change::try_from(&change[..]).unwrap().raw_bytes(), &change[..]);
}

fn counts<D: Document + Clone>() {
    let mut a = Replica::<D>::new(1);
    a.put(json!({"plain": 5, "list": [1], "text": "x"}));
    a.increment("/plain", 2);
    a.increment("/fresh", -3);
    a.increment("/list/0", 1);
    let value = json!({"plain": 7, "fresh": -3, "list": [2], "text": "x"});
    assert_eq!(a.doc.value(), value);
    assert_eq!(a.put(value), None, "a put of what is shown leaves counters alone");
    for (pointer, by) in [
        ("/text", 1),
        ("/list", 1),
        ("", 1),
        ("/list/1", 1),
        ("/list/-", 1),
        ("/no/where", 1),
        ("plain", 1),
        ("/plain", i64::MAX),
    ] {
        let edit = Edit::Increment { pointer: pointer.to_owned(), by };
        assert!(matches!(a.try_edit(&edit), Err(EditRefused::Increment(_))), "{pointer}");
    }
    a.put(json!({"plain": 100}));
    assert_eq!(a.doc.value(), json!({"plain": 100}));
}

#[test]
fn counters_count() {
    counts::<AutomergeDocument>();
    counts::<ModelDocument>();
}

fn deletes<D: Document + Clone>() {
    let mut a = Replica::<D>::new(1);
    a.put(json!({"a": 1, "b": 2}));
    assert!(!a.log.is_deleted());
    let delete = a.edit(&Edit::Delete).unwrap();
    assert_eq!(D::header(&delete).unwrap().kind, ChangeKind::Delete);
    assert!(a.log.is_deleted() && !a.log.is_revived());
    assert_eq!(a.edit(&Edit::Delete), None);

    let patched = a.edit(&Edit::MergePatch(json!({"c": 3}))).unwrap();
    assert_eq!(D::header(&patched).unwrap().kind, ChangeKind::Edit);
    assert_eq!(a.doc.value(), json!({"c": 3}), "an edit of a deleted document starts from nothing");
    assert!(!a.log.is_deleted());

    a.edit(&Edit::Delete);
    let same = a.put(json!({"c": 3})).unwrap();
    assert_eq!(D::header(&same).unwrap().kind, ChangeKind::Edit, "even if it writes nothing new");
    assert_eq!(a.doc.value(), json!({"c": 3}));

    a.edit(&Edit::Delete);
    a.increment("/n", 2);
    assert_eq!(a.doc.value(), json!({"n": 2}));
}

#[test]
fn an_edit_of_a_deleted_document_starts_from_nothing() {
    deletes::<AutomergeDocument>();
    deletes::<ModelDocument>();
}

fn refuses_what_is_over_a_limit<D: Document + Clone>() {
    let mut a = Replica::<D>::new(1);
    a.put(json!({"a": 1}));
    let nested = (0..JSON_DEPTH_MAX).fold(json!({}), |inner, _| json!({"a": inner}));
    let wide = json!({"a": vec![0; JSON_NODES_MAX]});
    let long = json!({"a": "x".repeat(5 << 20)});
    let cases = [
        (Edit::Put(nested.clone()), EditRefused::TooDeep),
        (Edit::MergePatch(nested), EditRefused::TooDeep),
        (Edit::Put(wide.clone()), EditRefused::TooManyNodes),
        (Edit::MergePatch(wide), EditRefused::TooManyNodes),
        (Edit::Put(long.clone()), EditRefused::TooLarge),
        (Edit::MergePatch(long), EditRefused::TooLarge),
        (Edit::Put(json!([1])), EditRefused::NotAnObject("an array")),
        (Edit::MergePatch(json!("x")), EditRefused::NotAnObject("a string")),
        (Edit::JsonPatch(json!([{"op": "remove", "path": ""}])), EditRefused::NotAnObject("null")),
    ];
    for (edit, expected) in cases {
        assert_eq!(a.try_edit(&edit), Err(expected));
        assert_eq!(a.doc.value(), json!({"a": 1}));
    }
    assert!(a.put(json!({"a": 2})).is_some(), "and the document takes edits as before");
    let mut b = Replica::<D>::new(2);
    b.pull(&a);
    assert_eq!(b.doc.value(), json!({"a": 2}));
}

#[test]
fn an_edit_over_a_limit_is_refused_and_leaves_the_document_as_it_was() {
    refuses_what_is_over_a_limit::<AutomergeDocument>();
    refuses_what_is_over_a_limit::<ModelDocument>();
}

#[test]
fn a_change_of_too_many_operations_is_refused() {
    let mut a = Auto::new(1);
    let many = usize::try_from(CHANGE_OPS_MAX).unwrap() / 2 - 1;
    a.put(json!({"a": vec![json!(0); many]}));
    let other: Vec<_> = (1..=many + 2).map(|n| json!(n)).collect();
    let Err(refused) = a.try_edit(&Edit::Put(json!({"a": other}))) else {
        panic!("{} deletes and {} inserts", many, many + 2)
    };
    assert!(matches!(refused, EditRefused::TooLarge | EditRefused::TooManyNodes), "{refused}");
    assert_eq!(a.doc.value(), json!({"a": vec![json!(0); many]}));
    a.put(json!({"a": 1}));
}
