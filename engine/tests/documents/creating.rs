//! The change that creates a document, which is encoded without Automerge, is the one that Automerge makes.

use automerge::Change;
use knot_engine::documents::{
    Actor, Authored, AutomergeDocument, CHANGE_BYTES_MAX, Document, Edit, EditRefused, JSON_DEPTH_MAX, JSON_NODES_MAX,
};
use knot_engine::{Boot, NodeId, Wall};
use quickcheck::{Arbitrary, Gen, QuickCheck};
use serde_json::{Map, Value, json};

use crate::replica::id;

const CASES: u64 = 4_000;

type Outcome = Result<Option<Authored>, EditRefused>;

/// A document that Automerge holds already, and will write.
fn opened() -> AutomergeDocument {
    let mut document = AutomergeDocument::new(&id());
    let unopened = document.weight();
    assert_eq!(document.value(), json!({}));
    assert!(document.weight() > unopened, "a read has Automerge hold the document");
    document
}

fn actor() -> Actor {
    Actor::new(NodeId([1; 16]), &Boot([2; 16]), &id(), 0)
}

/// What both ways to create a document make of an edit, which must be the same.
fn create(edit: &Edit, deleted: bool, wall: Wall) -> Outcome {
    let (mut encoded, mut written) = (AutomergeDocument::new(&id()), opened());
    let outcome = encoded.edit(&actor(), edit, deleted, wall);
    assert_eq!(outcome, written.edit(&actor(), edit, deleted, wall), "as Automerge does");
    match &outcome {
        Ok(Some(Authored { chunk, header })) => {
            assert_eq!(AutomergeDocument::header(chunk).as_ref(), Ok(header));
            assert_eq!(Change::try_from(&chunk[..]).unwrap().hash().0, header.hash.0);
            assert!(encoded.weight() >= chunk.len());
        }
        Ok(None) | Err(_) => assert_eq!(encoded.weight(), AutomergeDocument::new(&id()).weight(), "nothing is written"),
    }
    let next = Edit::MergePatch(json!({"next": [1, {"x": null}], "a": {"b": 1}}));
    let after = encoded.clone().edit(&actor(), &next, false, Wall(1));
    assert_eq!(after, written.clone().edit(&actor(), &next, false, Wall(1)), "and so are the edits on top of it");
    assert_eq!(encoded.value(), written.value());
    outcome
}

#[derive(Clone, Debug)]
struct Creation {
    value: Value,
    merge: bool,
    deleted: bool,
    wall: i64,
}

impl Arbitrary for Creation {
    fn arbitrary(g: &mut Gen) -> Self {
        let depth = pick(g, 6);
        // Automerge subtracts times, which must not overflow.
        let wall = i64::arbitrary(g) >> pick(g, 63).max(1);
        Self { value: object(g, depth), merge: pick(g, 8) == 0, deleted: bool::arbitrary(g), wall }
    }
}

fn pick(g: &mut Gen, below: usize) -> usize {
    usize::arbitrary(g) % below
}

/// How many members or elements: mostly few, at times more than fit one byte of a count.
fn width(g: &mut Gen) -> usize {
    match pick(g, 40) {
        0 => 60 + pick(g, 80),
        1..=5 => 0,
        _ => pick(g, 6),
    }
}

fn object(g: &mut Gen, depth: usize) -> Value {
    let wide = width(g);
    Value::Object((0..wide).map(|number| (key(g, number), value(g, depth))).collect())
}

fn key(g: &mut Gen, number: usize) -> String {
    match pick(g, 6) {
        0 => String::arbitrary(g),
        1 => ["", "a/b~", "é", "日本", "\u{1f600}", "\u{0}"][pick(g, 6)].to_owned(),
        2 => "k".repeat(pick(g, 200)),
        _ => format!("{}{number}", ["a", "b"][pick(g, 2)]),
    }
}

fn value(g: &mut Gen, depth: usize) -> Value {
    match pick(g, if depth == 0 { 5 } else { 8 }) {
        0 => [Value::Null, json!(true), json!(false)][pick(g, 3)].clone(),
        1 => number(g),
        2 => json!(pick(g, 3)),
        3 => json!(["x", "", "yes", "é\u{1f600}"][pick(g, 4)]),
        4 => match pick(g, 10) {
            0 => json!("long ".repeat(pick(g, 4_000))),
            _ => json!(String::arbitrary(g)),
        },
        5 => {
            let repeated = value(g, depth - 1);
            Value::Array(vec![repeated; width(g)])
        }
        6 => (0..width(g)).map(|_| value(g, depth - 1)).collect(),
        _ => object(g, depth - 1),
    }
}

fn number(g: &mut Gen) -> Value {
    match pick(g, 5) {
        0 => json!(i64::arbitrary(g) >> pick(g, 64)),
        1 => json!(u64::arbitrary(g) | 1 << 63),
        2 => json!([i64::MIN, i64::MAX, -1, -64, -65, 63, 64, 127, 128][pick(g, 9)]),
        3 => json!([0.0, -0.0, 2.0, 0.1, 5e-324, f64::MAX, f64::MIN][pick(g, 7)]),
        _ => json!(f64::arbitrary(g)),
    }
}

#[test]
fn a_created_document_is_the_change_that_automerge_makes() {
    fn holds(creation: Creation) -> bool {
        let Creation { value, merge, deleted, wall } = creation;
        let edit = if merge { Edit::MergePatch(value.clone()) } else { Edit::Put(value.clone()) };
        let made = match create(&edit, deleted, Wall(wall)) {
            Ok(made) => made,
            Err(refused) => return matches!(refused, EditRefused::TooManyNodes | EditRefused::TooLarge),
        };
        let Some(Authored { chunk, .. }) = made else { return !deleted };
        let mut elsewhere = AutomergeDocument::new(&id());
        elsewhere.apply(std::slice::from_ref(&chunk)).unwrap();
        let trial = AutomergeDocument::new(&id()).trial(&[chunk]).unwrap();
        assert_eq!(trial.refused, []);
        merge || elsewhere.value() == value
    }
    QuickCheck::new().tests(CASES).quickcheck(holds as fn(Creation) -> bool);
}

#[test]
fn what_cannot_be_created_is_refused_as_automerge_would() {
    let nested = |levels| (1..levels).fold(json!({}), |inner, _| json!({"a": [inner]}));
    let flat = |levels| (1..levels).fold(json!({}), |inner, _| json!({"a": inner}));
    let wide = |nodes: usize| json!({"a": vec![0; nodes - 1]});
    let broad = |nodes: usize| Value::Object((0..nodes).map(|n| (n.to_string(), json!(n))).collect::<Map<_, _>>());
    let cases = [
        (Edit::Put(flat(JSON_DEPTH_MAX)), None),
        (Edit::Put(flat(JSON_DEPTH_MAX + 1)), Some(EditRefused::TooDeep)),
        (Edit::Put(nested(JSON_DEPTH_MAX)), Some(EditRefused::TooDeep)),
        (Edit::MergePatch(flat(JSON_DEPTH_MAX + 1)), Some(EditRefused::TooDeep)),
        (Edit::Put(wide(JSON_NODES_MAX)), None),
        (Edit::Put(wide(JSON_NODES_MAX + 1)), Some(EditRefused::TooManyNodes)),
        (Edit::Put(broad(JSON_NODES_MAX)), None),
        (Edit::MergePatch(broad(JSON_NODES_MAX + 1)), Some(EditRefused::TooManyNodes)),
        (Edit::Put(json!([1])), Some(EditRefused::NotAnObject("an array"))),
        (Edit::MergePatch(json!(1)), Some(EditRefused::NotAnObject("a number"))),
        (Edit::JsonPatch(json!([{"op": "add", "path": "/a", "value": [{}]}])), None),
        (Edit::JsonPatch(json!([{"op": "remove", "path": ""}])), Some(EditRefused::NotAnObject("null"))),
        (Edit::JsonPatch(json!([{"op": "test", "path": "/a", "value": 1}])), Some(EditRefused::PatchTest(0))),
        (Edit::Increment { pointer: "/n".to_owned(), by: 2 }, None),
    ];
    for (edit, refused) in cases {
        for deleted in [true, false] {
            assert_eq!(create(&edit, deleted, Wall(7)).err(), refused);
        }
    }
    assert!(create(&Edit::Delete, false, Wall(7)).unwrap().is_some());
    assert_eq!(create(&Edit::Delete, true, Wall(7)), Ok(None));
}

#[test]
fn the_longest_document_that_fits_a_change_is_created_and_the_next_refused() {
    let put = |len: usize| Edit::Put(json!({"short": 1, "text": "x".repeat(len), "list": ["x"]}));
    let over = create(&put(CHANGE_BYTES_MAX), true, Wall(7));
    assert_eq!(over, Err(EditRefused::TooLarge));
    let sized = |len: usize| create(&put(len), true, Wall(7)).map(|made| made.unwrap().chunk.len());
    let frame = sized(CHANGE_BYTES_MAX - 1_000).unwrap() - (CHANGE_BYTES_MAX - 1_000);
    assert_eq!(sized(CHANGE_BYTES_MAX - frame), Ok(CHANGE_BYTES_MAX));
    for beyond in 1..8 {
        assert_eq!(sized(CHANGE_BYTES_MAX - frame + beyond), Err(EditRefused::TooLarge));
    }
}

#[test]
fn a_document_that_was_created_and_left_alone_weighs_little_more_than_its_change() {
    let mut document = AutomergeDocument::new(&id());
    let made = document.edit(&actor(), &Edit::Put(json!({"a": "x".repeat(1_000)})), true, Wall(7)).unwrap().unwrap();
    assert!(document.weight() < made.chunk.len() + 500, "{}", document.weight());
    assert_eq!(document.conflicts(), vec![]);
    assert!(document.weight() > 13_000);
}
