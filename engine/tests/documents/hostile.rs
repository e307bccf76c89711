//! Bytes from a peer that means harm, or whose memory is broken.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::Change;
use bytes::Bytes;
use knot_engine::Random;
use knot_engine::documents::{
    AutomergeDocument, CHANGE_BYTES_MAX, Document, Edit, Judgement, Log, Malformed, ModelDocument, Quarantine, judge,
};
use serde_json::json;

use crate::replica::{Replica, exchange, id};

const MUTATIONS: usize = 6_000;
const CHUNK_HEADER_BYTES: usize = 9;

/// A change chunk with this body, its length and checksum right. None when Automerge cannot even hash it.
fn chunk(body: &[u8]) -> Option<Bytes> {
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1];
    unsigned(&mut bytes, body.len() as u64);
    bytes.extend(body);
    let hash = catch_unwind(AssertUnwindSafe(|| Change::try_from(&bytes[..]).ok().map(|change| change.hash().0)));
    let hash = hash.ok().flatten()?;
    bytes[4..8].copy_from_slice(&hash[..4]);
    Some(bytes.into())
}

fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

fn body(change: &Bytes) -> Vec<u8> {
    let length_bytes = change[CHUNK_HEADER_BYTES..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    change[CHUNK_HEADER_BYTES + length_bytes..].to_vec()
}

/// A change by an honest author, with `start_op` replaced.
fn with_start_op(change: &Bytes, old: u8, new: u64) -> Bytes {
    let body = body(change);
    let deps = usize::from(body[0]);
    let actor_at = 1 + 32 * deps;
    let start_op_at = actor_at + 1 + usize::from(body[actor_at]) + 1;
    assert_eq!(body[start_op_at], old);
    let mut forged = body[..start_op_at].to_vec();
    unsigned(&mut forged, new);
    forged.extend(&body[start_op_at + 1..]);
    chunk(&forged).unwrap()
}

fn mutate(random: &mut Random, body: &mut Vec<u8>) {
    const TELLING: [u8; 8] = [0, 1, 2, 0x3f, 0x40, 0x7f, 0x80, 0xff];
    for _ in 0..=random.index(3) {
        let at = random.index(body.len());
        match random.index(5) {
            0 => body[at] ^= 1 << random.index(8),
            1 => body[at] = TELLING[random.index(TELLING.len())],
            2 => body[at] = body[at].wrapping_add(1),
            3 => body.insert(at, TELLING[random.index(TELLING.len())]),
            _ => drop(body.remove(at)),
        }
    }
}

/// Two honest replicas, and the changes they made.
fn history() -> (Replica<AutomergeDocument>, Vec<Bytes>) {
    let (mut a, mut b) = (Replica::new(1), Replica::new(2));
    a.put(json!({"name": "Ada", "tags": [1, 2, {"x": [3]}], "m": {"k": 1}, "f": 1.5}));
    b.put(json!({"m": {"l": 2}, "tags": ["y"]}));
    exchange(&mut a, &mut b);
    a.increment("/n", 3);
    b.put(json!({"name": "Eve", "tags": [], "m": {"k": 5, "l": null}}));
    exchange(&mut a, &mut b);
    a.increment("/n", 4);
    a.edit(&Edit::JsonPatch(json!([{"op": "add", "path": "/list", "value": [1, 2, 3, 4]}])));
    a.edit(&Edit::JsonPatch(json!([{"op": "remove", "path": "/list/1"}])));
    a.edit(&Edit::Delete);
    let changes = a.changes.clone();
    (a, changes)
}

/// The replica that held everything before `index`.
fn before(changes: &[Bytes], index: usize) -> Replica<AutomergeDocument> {
    let mut replica = Replica::new(7);
    for change in &changes[..index] {
        assert_eq!(replica.receive(change), Judgement::Admit);
    }
    replica
}

#[test]
fn mutated_changes_never_panic_out_and_never_break_a_document() {
    let (_, changes) = history();
    let replicas: Vec<_> = (0..changes.len()).map(|index| before(&changes, index)).collect();
    let mut random = Random::new(&[3; 32], "mutations");
    let (mut parsed, mut tried, mut admitted) = (0, 0, 0);
    for _ in 0..MUTATIONS {
        let index = random.index(changes.len());
        let mut body = body(&changes[index]);
        mutate(&mut random, &mut body);
        let Some(forged) = chunk(&body) else { continue };
        let Ok(header) = AutomergeDocument::header(&forged) else {
            continue;
        };
        parsed += 1;
        let mut replica = replicas[index].clone();
        if judge(&replica.log, &header) != Judgement::Admit {
            continue;
        }
        tried += 1;
        if replica.receive(&forged) == Judgement::Admit {
            admitted += 1;
        }
        assert!(replica.put(json!({"after": [1, {"x": tried}]})).is_some());
        assert_eq!(replica.doc.value(), json!({"after": [1, {"x": tried}]}));
        let live: Vec<_> = (0..replica.changes.len())
            .filter(|index| replica.log.quarantined(*index).is_none())
            .map(|index| replica.changes[index].clone())
            .collect();
        let mut reopened = AutomergeDocument::new(&id()).trial(&live).unwrap();
        assert_eq!(reopened.refused, vec![], "what was admitted one by one is admitted as a whole");
        assert_eq!(reopened.document.value(), replica.doc.value());
    }
    assert!(parsed > 100 && tried > 50 && admitted > 10, "{parsed} parsed, {tried} tried, {admitted} admitted");
}

#[test]
fn a_trial_of_ungated_changes_never_panics_out_and_leaves_a_working_document() {
    let (_, changes) = history();
    let replicas: Vec<_> = (0..changes.len()).map(|index| before(&changes, index)).collect();
    let mut random = Random::new(&[4; 32], "mutations");
    let mut refused = 0;
    for _ in 0..MUTATIONS / 4 {
        let index = random.index(changes.len());
        let mut body = body(&changes[index]);
        mutate(&mut random, &mut body);
        let Some(forged) = chunk(&body) else { continue };
        let doc = replicas[index].doc.clone();
        let trial = doc.trial(&[forged, changes[index].clone()]).unwrap();
        refused += trial.refused.len();
        let mut doc = trial.document;
        let actor = &replicas[index].actor;
        doc.edit(actor, &Edit::Put(json!({"after": 1})), false, knot_engine::Wall(1)).unwrap();
        assert_eq!(doc.value(), json!({"after": 1}));
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn a_change_at_the_end_of_the_operation_counter_is_refused() {
    let mut a = Replica::<AutomergeDocument>::new(1);
    a.put(json!({"k": 1}));
    let honest = Replica::<AutomergeDocument>::clone(&a).put(json!({"k": 2})).unwrap();
    for start_op in [u64::from(u32::MAX), u64::from(u32::MAX) - 1, 3, 1] {
        let poison = with_start_op(&honest, 2, start_op);
        let header = AutomergeDocument::header(&poison).unwrap();
        assert_eq!(header.start_op, start_op);
        assert_eq!(judge(&a.log, &header), Judgement::Quarantine(Quarantine::OperationCounter));
    }
    let poison = with_start_op(&honest, 2, u64::from(u32::MAX));
    let trial = a.doc.clone().trial(std::slice::from_ref(&poison)).unwrap();
    assert_eq!(trial.refused.len(), 1, "and the trial alone would have found it");
    assert_eq!(a.receive(&poison), Judgement::Quarantine(Quarantine::OperationCounter));
    assert!(a.put(json!({"k": 3})).is_some());
    let beyond = AutomergeDocument::header(&with_start_op_unchecked(&honest, u64::from(u32::MAX) + 1));
    assert!(beyond.is_err());
}

fn with_start_op_unchecked(honest: &Bytes, start_op: u64) -> Bytes {
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1];
    let old = body(honest);
    let at = 1 + 32 * usize::from(old[0]) + 1 + 24 + 1;
    let mut forged = old[..at].to_vec();
    unsigned(&mut forged, start_op);
    forged.extend(&old[at + 1..]);
    unsigned(&mut bytes, forged.len() as u64);
    bytes.extend(forged);
    bytes.into()
}

/// A change whose columns claim far more than their bytes: run lengths cost nothing.
fn bomb(columns: &[(u8, Vec<u8>)]) -> Bytes {
    let genesis = AutomergeDocument::genesis_hash(&id());
    let mut body = vec![1];
    body.extend(genesis.0);
    body.push(24);
    body.extend([1; 24]);
    body.extend([1, 1, 0, 0, 0]);
    unsigned(&mut body, columns.len() as u64);
    for (column, data) in columns {
        unsigned(&mut body, (*column).into());
        unsigned(&mut body, data.len() as u64);
    }
    for (_, data) in columns {
        body.extend(data);
    }
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1];
    unsigned(&mut bytes, body.len() as u64);
    bytes.extend(body);
    bytes.into()
}

#[test]
fn runs_that_claim_more_than_the_limits_are_refused_unexpanded() {
    let run = |length: &[u8], value: u8| [length, &[value]].concat();
    let million: &[u8] = &[0xc0, 0x84, 0x3d];
    let huge: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
    let bombs = [
        bomb(&[(0x42, run(million, 1))]),
        bomb(&[(0x42, run(huge, 1))]),
        bomb(&[(0x42, run(&[1], 1)), (0x70, [&[1][..], huge].concat())]),
        bomb(&[(0x42, run(&[2], 1)), (0x70, [&[2][..], huge].concat())]),
        bomb(&[(0x34, huge.to_vec()), (0x42, run(&[1], 1))]),
        bomb(&[(0x15, run(huge, 0)), (0x42, run(&[1], 1))]),
        bomb(&[(0x42, run(&[2], 1)), (0x56, [&[2][..], huge].concat())]),
        bomb(&[(0x42, [&[0][..], huge].concat())]),
    ];
    for bomb in bombs {
        assert!(AutomergeDocument::header(&bomb).is_err());
    }
}

#[test]
fn what_is_not_one_uncompressed_change_is_refused() {
    let mut a = Replica::<AutomergeDocument>::new(1);
    let change = a.put(json!({"text": "x".repeat(1_000)})).unwrap();
    let deflated = Change::try_from(&change[..]).unwrap().bytes().to_vec();
    assert_eq!(deflated[8], 2);
    let trailing = [&change[..], &[0]].concat();
    let twice = [&change[..], &change[..]].concat();
    let mut flipped = change.to_vec();
    let last = flipped.len() - 1;
    flipped[4] ^= 1;
    for bytes in [deflated, trailing, twice, change[..last].to_vec(), Vec::new(), vec![0; 40]] {
        assert_eq!(AutomergeDocument::header(&bytes.into()), Err(Malformed::NotAChange));
    }
    assert_eq!(AutomergeDocument::header(&flipped.into()), Err(Malformed::Checksum));
    let long = Bytes::from(vec![0; CHANGE_BYTES_MAX + 1]);
    assert_eq!(AutomergeDocument::header(&long), Err(Malformed::TooLong));
    assert_eq!(ModelDocument::header(&long), Err(Malformed::TooLong));
}

#[test]
fn the_model_survives_any_bytes() {
    let mut a = Replica::<ModelDocument>::new(1);
    let change = a.put(json!({"k": 1, "l": "text"})).unwrap();
    let mut random = Random::new(&[5; 32], "model");
    for _ in 0..MUTATIONS {
        let mut bytes = change.to_vec();
        mutate(&mut random, &mut bytes);
        let bytes = Bytes::from(bytes);
        if ModelDocument::header(&bytes).is_ok() {
            let mut trial = ModelDocument::new(&id()).trial(&[bytes]).unwrap();
            trial.document.value();
        }
    }
}

#[test]
fn descendants_of_a_refused_candidate_are_refused_and_the_rest_goes_on() {
    let mut a = Replica::<AutomergeDocument>::new(1);
    a.put(json!({"k": 1}));
    let base = a.changes.clone();
    let mut b = Replica::<AutomergeDocument>::new(2);
    b.pull(&a);
    let beside = b.put(json!({"k": 1, "beside": 1})).unwrap();
    let honest = a.clone().put(json!({"k": 2})).unwrap();
    let poison = with_start_op(&honest, 2, u64::from(u32::MAX));
    let poison_hash = AutomergeDocument::header(&poison).unwrap().hash;

    let mut child = body(&a.put(json!({"k": 3})).unwrap());
    child[1..33].copy_from_slice(&poison_hash.0);
    let seq_at = 1 + 32 + 1 + 24;
    assert_eq!(child[seq_at], 2);
    child[seq_at] = 3;
    let child = chunk(&child).unwrap();
    let child_hash = AutomergeDocument::header(&child).unwrap().hash;

    let mut doc = AutomergeDocument::new(&id());
    doc.apply(&base).unwrap();
    let mut trial = doc.trial(&[poison, child, beside]).unwrap();
    assert_eq!(trial.refused.len(), 2);
    assert_eq!(trial.refused[0].0, poison_hash);
    assert_eq!(trial.refused[1], (child_hash, Quarantine::Ancestor));
    assert_eq!(trial.document.value(), json!({"k": 1, "beside": 1}));
}

#[test]
fn a_culprit_in_a_long_chain_is_found() {
    let mut a = Replica::<AutomergeDocument>::new(1);
    let mut chain: Vec<_> = (0..20).filter_map(|n| a.put(json!({"k": n}))).collect();
    let honest = a.clone().put(json!({"k": 99})).unwrap();
    chain.push(with_start_op(&honest, 21, u64::from(u32::MAX)));
    let mut trial = AutomergeDocument::new(&id()).trial(&chain).unwrap();
    assert_eq!(trial.refused.len(), 1);
    assert_eq!(trial.document.value(), json!({"k": 19}));
}

#[test]
fn two_lives_of_one_actor_converge() {
    let mut a = Replica::<AutomergeDocument>::new(1);
    a.put(json!({"k": 1}));
    let mut clone = a.clone();
    let (mut left, mut right) = (Replica::new(3), Replica::new(4));
    a.put(json!({"k": 2}));
    clone.put(json!({"k": 3}));
    left.pull(&a);
    right.pull(&clone);
    let (on_left, on_right) = (left.doc.value(), right.doc.value());
    left.put(json!({"k": on_left["k"], "left": 1}));
    right.put(json!({"k": on_right["k"], "right": 1}));
    exchange(&mut left, &mut right);
    assert_eq!(left.log.live_heads(), right.log.live_heads());
    assert_eq!(left.log.live_heads().len(), 1, "one of the two lives stands");
    left.put(json!({"after": 1}));
    exchange(&mut left, &mut right);
    assert_eq!(right.doc.value(), json!({"after": 1}));
}

#[test]
fn a_change_of_another_document_is_an_orphan() {
    let change = Replica::<AutomergeDocument>::new(1).put(json!({"k": 1})).unwrap();
    let other = knot_engine::documents::DocumentId::new(id().scope().clone(), "users", "eve").unwrap();
    let log = Log::new(&AutomergeDocument::genesis_hash(&other));
    let header = AutomergeDocument::header(&change).unwrap();
    assert!(matches!(judge(&log, &header), Judgement::Orphan { .. }));
}
