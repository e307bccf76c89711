//! What two replicas that edited at once make of each other's edits.

use knot_engine::documents::{AutomergeDocument, Document, Edit, ModelDocument};
use serde_json::{Value, json};

use crate::replica::{Replica, exchange};

type Auto = Replica<AutomergeDocument>;

fn pair() -> (Auto, Auto) {
    (Auto::new(1), Auto::new(2))
}

/// Two replicas that put `a` and `b` at once and then met.
fn met(a: Value, b: Value) -> (Auto, Auto) {
    let (mut left, mut right) = pair();
    left.put(a);
    right.put(b);
    exchange(&mut left, &mut right);
    (left, right)
}

#[test]
fn documents_created_at_once_merge() {
    let (mut a, _) = met(json!({"x": 1}), json!({"y": 2}));
    assert_eq!(a.doc.value(), json!({"x": 1, "y": 2}));
    assert_eq!(a.doc.conflicts(), vec![]);
}

#[test]
fn maps_created_at_once_read_as_their_union() {
    let (mut a, mut b) = met(
        json!({"profile": {"name": "Ada", "deep": {"x": 1}}}),
        json!({"profile": {"mail": "a@b", "deep": {"y": 2}}}),
    );
    assert_eq!(a.doc.value(), json!({"profile": {"name": "Ada", "mail": "a@b", "deep": {"x": 1, "y": 2}}}));
    assert_eq!(a.doc.conflicts(), vec![], "a union is not a conflict");
    let shown = a.doc.value();
    assert_eq!(a.put(shown), None);

    a.edit(&Edit::MergePatch(json!({"profile": {"name": null, "deep": {"x": 5, "y": 6}}})));
    exchange(&mut a, &mut b);
    assert_eq!(b.doc.value(), json!({"profile": {"mail": "a@b", "deep": {"x": 5, "y": 6}}}));
    b.put(json!({"profile": {"only": 1}}));
    assert_eq!(b.doc.value(), json!({"profile": {"only": 1}}));
    exchange(&mut a, &mut b);
    b.put(json!({}));
    assert_eq!(b.doc.value(), json!({}));
}

#[test]
fn a_member_of_a_union_is_set_and_deleted_in_all_of_its_maps() {
    let (mut a, mut b) =
        met(json!({"m": {"k": 1, "l": [1], "o": {"p": 1}}}), json!({"m": {"k": 2, "l": [2], "o": "text"}}));
    let conflicts = a.doc.conflicts();
    let pointers: Vec<_> = conflicts.iter().map(|found| found.pointer.as_str()).collect();
    assert_eq!(pointers, ["/m/k", "/m/l", "/m/o"]);
    let shown = a.doc.value();
    for conflict in &conflicts {
        assert_eq!(shown.pointer(&conflict.pointer), Some(&conflict.values[0].value));
        assert_eq!(conflict.values.len(), 2);
    }
    for target in [
        json!({"m": {"k": 1, "l": [2], "o": {"q": 1}}}),
        json!({"m": {"k": 2, "l": [1], "o": {"p": 2}}}),
        json!({"m": {"k": 3, "l": {}, "o": [1]}}),
        json!({"m": {"k": {"x": 1}}}),
        json!({"m": "flat"}),
    ] {
        for value in [target.clone(), json!({"m": {}}), target] {
            a.put(value.clone());
            assert_eq!(a.doc.value(), value);
            exchange(&mut a, &mut b);
        }
    }
    assert_eq!(a.doc.conflicts(), vec![]);
}

#[test]
fn one_of_two_scalars_is_shown_and_both_are_listed() {
    let (mut a, mut b) = met(json!({"a/b": {"c": "left"}, "same": 1}), json!({"a/b": {"c": "right"}, "same": 1}));
    let conflicts = a.doc.conflicts();
    assert_eq!(conflicts, b.doc.conflicts());
    assert_eq!(conflicts.len(), 1, "equal values do not conflict: {conflicts:?}");
    assert_eq!(conflicts[0].pointer, "/a~1b/c");
    assert_eq!(conflicts[0].values[0].value, a.doc.value()["a/b"]["c"]);
    let nodes: Vec<_> = conflicts[0].values.iter().map(|value| value.node.as_str()).collect();
    assert!(nodes.contains(&a.node.to_string().as_str()) && nodes.contains(&b.node.to_string().as_str()));
}

#[test]
fn a_later_write_settles_a_conflict() {
    let (mut a, mut b) = met(json!({"k": 1}), json!({"k": 2}));
    let shown = a.doc.value();
    assert_eq!(a.put(shown), None);
    assert_eq!(a.doc.conflicts().len(), 1);
    a.put(json!({"k": 3}));
    exchange(&mut a, &mut b);
    assert_eq!(b.doc.conflicts(), vec![]);
}

#[test]
fn arrays_created_at_once_show_one_and_list_both() {
    let (mut a, _) = met(json!({"l": [1, 2]}), json!({"l": [3]}));
    let shown = a.doc.value()["l"].clone();
    assert!(shown == json!([1, 2]) || shown == json!([3]));
    let conflicts = a.doc.conflicts();
    assert_eq!(conflicts[0].values.len(), 2);
    a.put(json!({"l": [1, 2, 4]}));
    assert_eq!(a.doc.value(), json!({"l": [1, 2, 4]}));
}

#[test]
fn increments_at_once_add_up() {
    let (mut a, mut b) = pair();
    a.increment("/n", 10);
    exchange(&mut a, &mut b);
    a.increment("/n", 3);
    a.increment("/n", 1);
    b.increment("/n", -2);
    exchange(&mut a, &mut b);
    assert_eq!(a.doc.value(), json!({"n": 12}));
    assert_eq!(a.doc.conflicts(), vec![]);
    assert_eq!(a.put(json!({"n": 12})), None);
    a.put(json!({"n": 1}));
    exchange(&mut a, &mut b);
    assert_eq!(b.doc.value(), json!({"n": 1}));
}

fn revives<D: Document + Clone>() {
    let (mut a, mut b) = (Replica::<D>::new(1), Replica::<D>::new(2));
    a.put(json!({"k": 1}));
    exchange(&mut a, &mut b);
    a.edit(&Edit::Delete);
    b.put(json!({"k": 2}));
    exchange(&mut a, &mut b);
    assert!(!a.log.is_deleted() && a.log.is_revived(), "the delete had not seen the edit");
    assert_eq!(a.doc.value(), json!({"k": 2}));
    let second = b.edit(&Edit::Delete).unwrap();
    assert_eq!(D::header(&second).unwrap().deps.len(), 2, "it has seen both");
    exchange(&mut a, &mut b);
    assert!(a.log.is_deleted());

    let (mut c, mut d) = (a.clone(), b.clone());
    c.actor = Replica::<D>::new(3).actor;
    c.put(json!({"c": 1}));
    d.put(json!({"d": 1}));
    exchange(&mut c, &mut d);
    assert_eq!(c.doc.value(), json!({"c": 1, "d": 1}));
}

#[test]
fn an_edit_that_a_delete_had_not_seen_revives_the_document() {
    revives::<AutomergeDocument>();
    revives::<ModelDocument>();
}

#[test]
fn deletes_at_once_leave_the_document_deleted() {
    let (mut a, mut b) = met(json!({"k": 1}), json!({"k": 2}));
    a.edit(&Edit::Delete);
    b.edit(&Edit::Delete);
    exchange(&mut a, &mut b);
    assert_eq!(a.log.heads().len(), 2);
    assert!(a.log.is_deleted() && !a.log.is_revived());
}

#[test]
fn a_put_that_changes_nothing_on_two_heads_makes_no_change() {
    let (mut a, _) = met(json!({"x": 1}), json!({"y": 2}));
    assert_eq!(a.put(json!({"x": 1, "y": 2})), None);
}
