//! The inline checks, and the graph they are made on.

use bytes::Bytes;
use knot_engine::documents::{
    Actor, CHANGE_DEPS_MAX, CHANGE_OPS_MAX, ChangeHeader, ChangeKind, Judgement, Log, OPERATION_COUNTER_MAX,
    Quarantine, judge,
};
use knot_engine::{Boot, ChangeHash, NodeId, Wall};
use quickcheck::QuickCheck;

use crate::replica::id;

const GENESIS: ChangeHash = ChangeHash([0; 32]);

fn hash(name: u8) -> ChangeHash {
    ChangeHash([name; 32])
}

fn actor(number: u8) -> Actor {
    Actor::new(NodeId([number; 16]), &Boot([1; 16]), &id(), 0)
}

/// A change of one operation.
fn change(name: u8, author: u8, seq: u64, start_op: u64, deps: &[u8]) -> ChangeHeader {
    ChangeHeader {
        hash: hash(name),
        deps: deps.iter().map(|dep| hash(*dep)).collect(),
        actor: actor(author),
        seq,
        start_op,
        ops: 1,
        wall: Wall(0),
        kind: ChangeKind::Edit,
        refers_to: Vec::new(),
    }
}

fn log_of(changes: &[ChangeHeader]) -> Log {
    let mut log = Log::new(&GENESIS);
    for change in changes {
        assert_eq!(judge(&log, change), Judgement::Admit, "{change:?}");
        log.push(change, None);
    }
    log
}

/// Two branches: 1 by author 1, then 2 by author 1 and 3 by author 2 beside it.
fn forked() -> Log {
    log_of(&[change(1, 1, 1, 1, &[0]), change(2, 1, 2, 2, &[1]), change(3, 2, 1, 2, &[1])])
}

#[track_caller]
fn refused(log: &Log, change: &ChangeHeader, reason: Quarantine) {
    assert_eq!(judge(log, change), Judgement::Quarantine(reason));
}

#[test]
fn what_is_known_or_lacks_dependencies_is_said_so() {
    let log = forked();
    assert_eq!(judge(&log, &change(2, 1, 2, 2, &[1])), Judgement::Known);
    assert_eq!(judge(&log, &change(0, 1, 2, 2, &[1])), Judgement::Known, "the genesis");
    assert_eq!(judge(&log, &change(9, 1, 3, 3, &[2, 7, 8])), Judgement::Orphan { missing: vec![hash(7), hash(8)] });
}

#[test]
fn a_change_follows_its_author_and_its_dependencies() {
    let log = forked();
    let merge = change(4, 1, 3, 3, &[2, 3]);
    assert_eq!(judge(&log, &merge), Judgement::Admit);
    assert_eq!(judge(&log, &change(4, 2, 2, 3, &[3])), Judgement::Admit, "not having seen 2");

    for seq in [0, 1, 2, 4, u64::MAX] {
        refused(&log, &ChangeHeader { seq, ..merge.clone() }, Quarantine::SequenceGap);
    }
    refused(&log, &change(4, 1, 3, 3, &[3]), Quarantine::SequenceGap);
    refused(&log, &change(4, 3, 2, 3, &[2, 3]), Quarantine::SequenceGap);
    for start_op in [0, 1, 2, 4, u64::from(u32::MAX), u64::MAX] {
        refused(&log, &ChangeHeader { start_op, ..merge.clone() }, Quarantine::OperationCounter);
    }
    refused(&log, &ChangeHeader { deps: vec![], ..merge.clone() }, Quarantine::OperationCounter);
    refused(&log, &ChangeHeader { ops: CHANGE_OPS_MAX + 1, ..merge.clone() }, Quarantine::TooLarge);
    refused(&log, &ChangeHeader { deps: vec![hash(2); CHANGE_DEPS_MAX + 1], ..merge.clone() }, Quarantine::TooLarge);
    let unbound = Actor(Bytes::from_static(&[7; 16]));
    refused(&log, &ChangeHeader { actor: unbound, ..merge }, Quarantine::UnboundActor);
}

#[test]
fn operations_refer_to_actors_of_ancestors_only() {
    let log = forked();
    let refers = |change: ChangeHeader, to| ChangeHeader { refers_to: vec![actor(to)], ..change };
    assert_eq!(judge(&log, &refers(change(4, 1, 3, 3, &[2, 3]), 2)), Judgement::Admit);
    assert_eq!(judge(&log, &refers(change(4, 2, 2, 3, &[3]), 1)), Judgement::Admit);
    refused(&log, &refers(change(4, 1, 3, 3, &[2]), 2), Quarantine::UnknownActor);
    refused(&log, &refers(change(4, 1, 3, 3, &[2, 3]), 5), Quarantine::UnknownActor);
}

#[test]
fn counters_end_before_automerge_does() {
    let mut log = Log::new(&GENESIS);
    let mut last_op = 0;
    let mut name = 0_u8;
    // Pushing checks nothing, so a hostile ancestor can stand anywhere.
    let jump = ChangeHeader { ops: OPERATION_COUNTER_MAX - 1, ..change(200, 1, 1, 1, &[0]) };
    log.push(&jump, None);
    last_op += OPERATION_COUNTER_MAX - 1;
    name += 1;
    let next = ChangeHeader { deps: vec![hash(200)], ..change(name, 2, 1, last_op + 1, &[]) };
    assert_eq!(judge(&log, &next), Judgement::Admit);
    refused(&log, &ChangeHeader { ops: 2, ..next }, Quarantine::OperationCounter);
}

#[test]
fn descendants_of_quarantine_are_quarantined_and_its_heads_still_count() {
    let mut log = forked();
    log.push(&change(4, 3, 1, 2, &[1]), Some(Quarantine::Apply));
    refused(&log, &change(5, 3, 2, 3, &[4]), Quarantine::Ancestor);
    assert_eq!(log.heads(), [hash(2), hash(3), hash(4)]);
    assert_eq!(log.live_heads(), [hash(2), hash(3)]);
    assert_eq!(log.quarantined(3), Some(Quarantine::Apply));
    log.push(&change(5, 3, 2, 3, &[4]), None);
    assert_eq!(log.quarantined(4), Some(Quarantine::Ancestor), "pushed without a verdict");
    assert_eq!(log.quarantine(2, Quarantine::Reload), [2]);
    assert_eq!(log.live_heads(), [hash(2)]);
    assert!(log.contains(&hash(4)) && log.knows_all(&[hash(4), GENESIS]));
}

#[test]
fn deleted_and_revived_are_read_from_live_heads() {
    let delete = |header| ChangeHeader { kind: ChangeKind::Delete, ops: 0, ..header };
    let mut log = Log::new(&GENESIS);
    assert!(log.is_deleted() && !log.is_revived() && log.is_empty(), "there is nothing yet");
    log.push(&change(1, 1, 1, 1, &[0]), None);
    log.push(&delete(change(2, 1, 2, 2, &[1])), None);
    assert!(log.is_deleted());
    log.push(&change(3, 2, 1, 2, &[1]), Some(Quarantine::Panic));
    assert!(log.is_deleted(), "quarantine revives nothing");
    log.push(&change(4, 3, 1, 2, &[1]), None);
    assert!(!log.is_deleted() && log.is_revived());
    log.push(&delete(change(5, 1, 3, 3, &[2, 4])), None);
    assert!(log.is_deleted() && !log.is_revived());
    assert_eq!(log.len(), 5);
}

#[test]
fn of_two_changes_with_one_sequence_number_the_lower_hash_stands_whatever_came_first() {
    let base = change(1, 1, 1, 1, &[0]);
    let low = change(2, 1, 2, 2, &[1]);
    let high = change(9, 1, 2, 2, &[1]);
    let on_low = change(4, 2, 1, 3, &[2]);
    let on_high = change(5, 3, 1, 3, &[9]);

    let mut first_low = log_of(&[base.clone(), low.clone(), on_low.clone()]);
    refused(&first_low, &high, Quarantine::SequenceGap);
    assert_eq!(first_low.push(&high, Some(Quarantine::SequenceGap)), Vec::<usize>::new());
    refused(&first_low, &on_high, Quarantine::Ancestor);
    first_low.push(&on_high, Some(Quarantine::Ancestor));

    let mut first_high = log_of(&[base, high, on_high]);
    assert_eq!(judge(&first_high, &low), Judgement::Admit);
    assert!(first_high.displaces(&low));
    assert_eq!(first_high.push(&low, None), [1, 2], "the other and what descends from it");
    assert_eq!(first_high.quarantined(1), Some(Quarantine::SequenceGap));
    assert_eq!(first_high.quarantined(2), Some(Quarantine::Ancestor));
    assert_eq!(judge(&first_high, &on_low), Judgement::Admit);
    first_high.push(&on_low, None);

    assert_eq!(first_low.heads(), first_high.heads());
    assert_eq!(first_low.live_heads(), first_high.live_heads());
    assert_eq!(first_low.live_heads(), [hash(4)]);
    refused(&first_low, &change(7, 1, 2, 4, &[1, 4]), Quarantine::SequenceGap);
}

/// 2 has its author's second number and breaks another rule, 3 builds on it and has that number again, and 4 has it
/// beside them: 3 is no rival of 4, whichever of them comes first.
#[test]
fn a_number_used_again_does_not_contend() {
    let (first, broken) = (change(1, 1, 1, 1, &[0]), change(2, 1, 2, 9, &[1]));
    let (again, beside) = (change(3, 1, 2, 10, &[1, 2]), change(4, 1, 2, 2, &[1]));
    let mut log = log_of(&[first]);
    refused(&log, &broken, Quarantine::OperationCounter);
    log.push(&broken, Some(Quarantine::OperationCounter));
    refused(&log, &again, Quarantine::SequenceGap);
    log.push(&again, Some(Quarantine::SequenceGap));
    assert_eq!(judge(&log, &beside), Judgement::Admit);
    assert!(!log.displaces(&beside));
}

#[test]
fn what_is_in_quarantine_makes_no_document() {
    let mut log = Log::new(&GENESIS);
    log.push(&change(1, 1, 2, 1, &[0]), Some(Quarantine::SequenceGap));
    assert!(log.is_deleted() && !log.is_revived());
}

#[test]
fn missing_changes_are_those_that_no_known_head_descends_to() {
    let log = forked();
    assert_eq!(log.missing_from(&[]), [0, 1, 2]);
    assert_eq!(log.missing_from(&[GENESIS]), [0, 1, 2]);
    assert_eq!(log.missing_from(&[hash(77)]), [0, 1, 2], "an unknown head says nothing");
    assert_eq!(log.missing_from(&[hash(1)]), [1, 2]);
    assert_eq!(log.missing_from(&[hash(2), hash(77)]), [2]);
    assert_eq!(log.missing_from(&log.heads()), Vec::<usize>::new());
    assert_eq!(log.index_of(&hash(3)), Some(2));
    assert_eq!(log.hash(2), Some(&hash(3)));
    assert_eq!(log.index_of(&GENESIS), None);
    assert_eq!(log.greatest_seq(&actor(1)), 2);
    assert_eq!(log.greatest_seq(&actor(8)), 0);
}

/// Against the definition: walk the graph backwards.
#[test]
fn missing_changes_are_right_in_any_graph() {
    fn check(shape: Vec<(u8, u8)>, heads: Vec<u8>) -> bool {
        let mut log = Log::new(&GENESIS);
        let mut parents: Vec<Vec<u8>> = vec![vec![]];
        for (a, b) in shape.into_iter().take(200) {
            let name = u8::try_from(parents.len()).unwrap();
            let mut deps = vec![a % name, b % name];
            deps.sort_unstable();
            deps.dedup();
            log.push(&change(name, name, 1, 1, &deps), None);
            parents.push(deps);
        }
        let mut held = vec![false; parents.len()];
        let mut stack: Vec<u8> = heads.iter().map(|head| head % u8::try_from(parents.len()).unwrap()).collect();
        let their_heads: Vec<_> = stack.iter().map(|head| hash(*head)).collect();
        while let Some(name) = stack.pop() {
            if !std::mem::replace(&mut held[usize::from(name)], true) {
                stack.extend(&parents[usize::from(name)]);
            }
        }
        let expected: Vec<usize> = (1..parents.len()).filter(|name| !held[*name]).map(|name| name - 1).collect();
        log.missing_from(&their_heads) == expected
    }
    QuickCheck::new().tests(500).quickcheck(check as fn(Vec<(u8, u8)>, Vec<u8>) -> bool);
}

#[test]
fn a_log_is_small() {
    let mut log = Log::new(&GENESIS);
    let mut deps = vec![GENESIS];
    for n in 0..10_000_u64 {
        let hash = ChangeHash(*blake3::hash(&n.to_le_bytes()).as_bytes());
        let header = ChangeHeader { hash, deps, ..change(0, 1, n + 1, n + 1, &[]) };
        assert_eq!(judge(&log, &header), Judgement::Admit);
        log.push(&header, None);
        deps = vec![hash];
    }
    assert!(log.weight() < 10_000 * 140, "{} bytes", log.weight());
}
