//! Replicas that hold the same changes read the same, whatever they did and in whatever order they met.

use knot_engine::documents::{AutomergeDocument, Document, Edit, ModelDocument};
use quickcheck::{Arbitrary, Gen, QuickCheck};
use serde_json::{Value, json};

use crate::replica::{Replica, exchange};

const REPLICAS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Put { on: usize, value: Value },
    Merge { on: usize, patch: Value },
    Increment { on: usize, key: usize, by: i8 },
    Delete { on: usize },
    Meet { a: usize, b: usize },
}

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let on = pick(g, REPLICAS);
        match pick(g, 10) {
            0..=2 => Self::Put { on, value: object(g, 3) },
            3..=5 => Self::Merge { on, patch: object(g, 3) },
            6 => Self::Increment { on, key: pick(g, 3), by: i8::arbitrary(g) },
            7 => Self::Delete { on },
            _ => Self::Meet { a: on, b: pick(g, REPLICAS) },
        }
    }
}

fn pick(g: &mut Gen, below: usize) -> usize {
    usize::arbitrary(g) % below
}

fn object(g: &mut Gen, depth: usize) -> Value {
    let members = (0..pick(g, 4)).map(|_| (["a", "b", "c"][pick(g, 3)].to_owned(), value(g, depth)));
    Value::Object(members.collect())
}

fn value(g: &mut Gen, depth: usize) -> Value {
    match pick(g, if depth == 0 { 4 } else { 8 }) {
        0 => Value::Null,
        1 => json!(["x", "y"][pick(g, 2)]),
        2 => json!(pick(g, 3)),
        3 => json!(1.5),
        4 | 5 => (0..pick(g, 4)).map(|_| value(g, depth - 1)).collect(),
        _ => object(g, depth - 1),
    }
}

fn converges<D: Document + Clone>(steps: Vec<Step>) -> bool {
    let mut replicas: Vec<_> = (1..).map(Replica::<D>::new).take(REPLICAS).collect();
    for step in steps {
        match step {
            Step::Put { on, value } => {
                replicas[on].put(value.clone());
                assert_eq!(replicas[on].doc.value(), value, "a put is what is read next");
            }
            Step::Merge { on, patch } => {
                replicas[on].edit(&Edit::MergePatch(patch));
            }
            Step::Increment { on, key, by } => {
                let pointer = format!("/{}", ["a", "b", "c"][key]);
                let _not_a_number = replicas[on].try_edit(&Edit::Increment { pointer, by: by.into() });
            }
            Step::Delete { on } => drop(replicas[on].edit(&Edit::Delete)),
            Step::Meet { a, b } if a != b => {
                let mut met = replicas[b].clone();
                exchange(&mut replicas[a], &mut met);
                replicas[b] = met;
            }
            Step::Meet { .. } => {}
        }
    }
    let mut all = replicas.pop().unwrap();
    for replica in &replicas {
        all.pull(replica);
    }
    let mut backwards = Replica::<D>::new(9);
    for replica in replicas.iter().rev().chain([&all]) {
        backwards.pull(replica);
    }
    assert_eq!(all.log.heads(), backwards.log.heads());
    assert_eq!(all.doc.value(), backwards.doc.value());
    assert_eq!(all.doc.conflicts(), backwards.doc.conflicts());
    assert_eq!(all.log.is_deleted(), backwards.log.is_deleted());

    let mut reapplied = D::new(&crate::replica::id());
    reapplied.apply(&all.changes).unwrap();
    assert_eq!(reapplied.value(), all.doc.value());
    let mut batch = D::new(&crate::replica::id()).trial(&all.changes).unwrap();
    assert_eq!(batch.refused, vec![]);
    assert_eq!(batch.document.value(), all.doc.value());
    true
}

#[test]
fn automerge_replicas_converge() {
    QuickCheck::new().tests(150).quickcheck(converges::<AutomergeDocument> as fn(Vec<Step>) -> bool);
}

#[test]
fn model_replicas_converge() {
    QuickCheck::new().tests(150).quickcheck(converges::<ModelDocument> as fn(Vec<Step>) -> bool);
}
