//! What is in quarantine is judged again, or put aside.

use bytes::Bytes;
use knot_engine::documents::{DocumentId, Scope};
use knot_engine::{ChangeHash, Event, HistoryEntry, Limits, Review, ReviewError, Reviewed, Table};
use serde_json::{Value, json};

use crate::displaced::{push, twice};
use crate::hand::{Disk, Hand, id};

/// The byte of a stored change that says why it is in quarantine, and "it does not apply" in it.
const REASON: usize = 1;
const DOES_NOT_APPLY: u8 = 7;

fn review(hand: &mut Hand, document: &DocumentId, review: Review) -> Option<Result<Vec<Reviewed>, ReviewError>> {
    let asked = hand.engine.review(document, review, hand.now);
    hand.settle();
    let answer = |event: &Event| {
        if let Event::Reviewed(id, answer) = event { (*id == asked).then(|| answer.clone()) } else { None }
    };
    hand.events.iter().find_map(answer)
}

/// What became of the changes that were looked at: whether each counts now.
fn outcomes(answer: Option<Result<Vec<Reviewed>, ReviewError>>) -> Vec<(ChangeHash, bool)> {
    let reviewed = answer.expect("there is an answer").expect("it is looked at");
    reviewed.into_iter().map(|reviewed| (reviewed.change, reviewed.quarantine.is_none())).collect()
}

fn history(hand: &mut Hand, document: &DocumentId) -> Vec<HistoryEntry> {
    hand.engine.history(document, hand.now);
    hand.settle();
    let answers = hand.events.iter().rev();
    answers
        .into_iter()
        .find_map(|event| if let Event::History(_, Ok(told)) = event { Some(told.clone()) } else { None })
        .expect("there is a history")
}

fn value(hand: &mut Hand, document: &DocumentId) -> Option<Value> {
    let asked = hand.engine.read(document, false, hand.now);
    hand.settle();
    let shown = |event: &Event| {
        let Event::Read(id, Ok(view)) = event else { return None };
        (*id == asked).then(|| view.value.clone())
    };
    hand.events.iter().find_map(shown)
}

/// A node with a document of which one change is in quarantine, and that change.
fn with_one(document: &DocumentId) -> (Hand, ChangeHash) {
    let mut hand = Hand::new(Limits::default());
    let peer = hand.meet(2, "au");
    let [(displaced, hash), (stands, _)] = twice(document);
    push(&mut hand, peer, document, &[displaced, stands]);
    hand.settle();
    assert_eq!(hand.engine.quarantined_changes(), 1);
    (hand, hash)
}

/// Notes of the changes from `first` on that they do not apply, as an earlier version may have.
fn refuse(disk: &mut Disk, first: usize) {
    let changes = disk.iter_mut().filter(|((table, _), _)| *table == Table::Changes);
    for (_, stored) in changes.skip(first).take(1) {
        let mut bytes = stored.to_vec();
        bytes[REASON] = DOES_NOT_APPLY;
        *stored = Bytes::from(bytes);
    }
}

#[test]
fn what_an_earlier_version_refused_counts_once_it_is_released() {
    let ada = id(Scope::Global, "ada");
    let mut hand = Hand::new(Limits::default());
    hand.put(&ada, json!({"name": "Ada"}));
    hand.put(&ada, json!({"name": "Ada", "email": "ada@example.org"}));
    hand.put(&ada, json!({"name": "Ada L."}));
    let mut disk = hand.disk;
    refuse(&mut disk, 1);
    let mut hand = Hand::recovered("au", disk, Limits::default());
    hand.settle();
    // The third builds on the second.
    assert_eq!(value(&mut hand, &ada), Some(json!({"name": "Ada"})));
    let before = hand.engine.summary(&ada).unwrap();
    let root = hand.engine.scopes();
    let released = outcomes(review(&mut hand, &ada, Review::Release(None)));
    assert!(released.len() == 2 && released.iter().all(|(_, counts)| *counts), "{released:?}");
    assert_eq!(value(&mut hand, &ada), Some(json!({"name": "Ada L."})));
    let after = hand.engine.summary(&ada).unwrap();
    assert_eq!(after.etag, before.etag, "it holds what it held");
    assert!(after.sequence > before.sequence, "whoever reads the feed is told");
    assert_eq!(hand.engine.scopes(), root);
    let mut hand = Hand::recovered("au", hand.disk, Limits::default());
    hand.settle();
    assert_eq!(value(&mut hand, &ada), Some(json!({"name": "Ada L."})));
    hand.put(&ada, json!({"name": "Ada Lovelace"}));
    assert_eq!(value(&mut hand, &ada), Some(json!({"name": "Ada Lovelace"})));
}

#[test]
fn one_that_is_released_takes_along_what_was_refused_for_it_alone() {
    let ada = id(Scope::Global, "ada");
    let mut hand = Hand::new(Limits::default());
    (1..=4).for_each(|visits| hand.put(&ada, json!({"visits": visits})));
    let mut disk = hand.disk;
    refuse(&mut disk, 1);
    refuse(&mut disk, 3);
    let mut hand = Hand::recovered("au", disk, Limits::default());
    hand.settle();
    let second: ChangeHash = history(&mut hand, &ada)[1].hash.parse().unwrap();
    let released = outcomes(review(&mut hand, &ada, Review::Release(Some(second))));
    assert_eq!(released.len(), 2, "{released:?}");
    assert_eq!(value(&mut hand, &ada), Some(json!({"visits": 3})));
    assert_eq!(hand.engine.quarantined_changes(), 1, "the fourth broke a rule by itself");
}

#[test]
fn what_breaks_the_rules_is_still_refused() {
    let ada = id(Scope::Global, "ada");
    let (mut hand, displaced) = with_one(&ada);
    let (before, root, shown) = (hand.engine.summary(&ada), hand.engine.scopes(), value(&mut hand, &ada));
    for asked in [Review::Release(None), Review::Release(Some(displaced))] {
        assert_eq!(outcomes(review(&mut hand, &ada, asked)), [(displaced, false)]);
        assert_eq!((hand.engine.summary(&ada), hand.engine.scopes()), (before.clone(), root.clone()));
        assert_eq!(value(&mut hand, &ada), shown);
        assert_eq!(hand.engine.quarantined_changes(), 1);
    }
}

#[test]
fn what_is_dropped_is_counted_no_more_and_held_as_before() {
    let ada = id(Scope::Global, "ada");
    let (mut hand, displaced) = with_one(&ada);
    let (etag, root, shown) = (hand.engine.summary(&ada).unwrap().etag, hand.engine.scopes(), value(&mut hand, &ada));
    for _ in 0..2 {
        assert_eq!(outcomes(review(&mut hand, &ada, Review::Drop(displaced))), [(displaced, false)]);
    }
    let mut hand = Hand::recovered("au", hand.disk, Limits::default());
    hand.settle();
    assert_eq!(hand.engine.quarantined_changes(), 0);
    assert_eq!(hand.engine.quarantined(), []);
    assert_eq!((hand.engine.summary(&ada).unwrap().etag, hand.engine.scopes()), (etag, root));
    assert_eq!(value(&mut hand, &ada), shown);
    // It comes once more: it is known.
    let peer = hand.meet(2, "au");
    let [(again, _), _] = twice(&ada);
    push(&mut hand, peer, &ada, &[again]);
    hand.settle();
    assert_eq!(hand.engine.quarantined_changes(), 0);
    let told = history(&mut hand, &ada);
    let (dropped, others): (Vec<HistoryEntry>, Vec<HistoryEntry>) = told.into_iter().partition(|entry| entry.dropped);
    assert!(dropped.len() == 1 && dropped[0].hash == displaced.to_string() && dropped[0].quarantine.is_some());
    assert!(others.iter().all(|entry| entry.quarantine.is_none()));
    // A release takes it up again.
    assert_eq!(outcomes(review(&mut hand, &ada, Review::Release(None))), [(displaced, false)]);
    assert_eq!(hand.engine.quarantined_changes(), 1);
}

#[test]
fn only_what_is_in_quarantine_is_looked_at() {
    let (ada, bob) = (id(Scope::Global, "ada"), id(Scope::Global, "bob"));
    let mut hand = Hand::new(Limits::default());
    hand.put(&ada, json!({"name": "Ada"}));
    let own: ChangeHash = history(&mut hand, &ada)[0].hash.parse().unwrap();
    for asked in [Review::Release(Some(own)), Review::Drop(own), Review::Drop(ChangeHash([7; 32]))] {
        assert_eq!(review(&mut hand, &ada, asked), Some(Err(ReviewError::NotQuarantined)));
    }
    assert_eq!(review(&mut hand, &ada, Review::Release(None)), Some(Ok(Vec::new())));
    assert_eq!(review(&mut hand, &bob, Review::Release(None)), Some(Err(ReviewError::NotFound)));
    let elsewhere = id(Scope::Zone("us".into()), "ada");
    assert_eq!(review(&mut hand, &elsewhere, Review::Release(None)), Some(Err(ReviewError::NotHeldHere)));
    assert_eq!(value(&mut hand, &ada), Some(json!({"name": "Ada"})));
}

/// What is not durable yet is not looked past, and what is asked for meanwhile is answered.
#[test]
fn a_look_waits_for_what_is_on_its_way_to_the_disk() {
    let ada = id(Scope::Global, "ada");
    let (mut hand, displaced) = with_one(&ada);
    hand.stalled = true;
    let patch = knot_engine::documents::Edit::MergePatch(json!({"name": "Ada"}));
    let edit = hand.edit(knot_engine::EditRequest::new(ada.clone(), patch.clone()));
    assert_eq!(review(&mut hand, &ada, Review::Release(None)), None, "it waits");
    let other = hand.edit(knot_engine::EditRequest::new(ada.clone(), patch));
    hand.stalled = false;
    hand.settle();
    hand.settle();
    assert!(hand.edited(edit).is_some() && hand.edited(other).is_some());
    let answers = hand.events.iter().filter(|event| matches!(event, Event::Reviewed(_, Ok(_)))).count();
    assert_eq!(answers, 1);
    assert_eq!(value(&mut hand, &ada).unwrap()["name"], "Ada");
    assert_eq!(outcomes(review(&mut hand, &ada, Review::Release(None))), [(displaced, false)]);
}

/// What it has noted is refused before the trial ends, and would be again and again.
#[test]
fn a_release_without_room_is_given_up() {
    let ada = id(Scope::Global, "ada");
    let mut hand = Hand::new(Limits::default());
    hand.put(&ada, json!({"name": "Ada"}));
    hand.put(&ada, json!({"name": "Ada", "email": "ada@example.org"}));
    let mut disk = hand.disk;
    refuse(&mut disk, 1);
    let mut hand = Hand::recovered("au", disk, Limits::default());
    hand.settle();
    (hand.full, hand.busy) = (true, true);
    assert_eq!(review(&mut hand, &ada, Review::Release(None)), Some(Err(ReviewError::DiskFull)));
    (hand.full, hand.busy) = (false, false);
    hand.now = hand.now + std::time::Duration::from_secs(1);
    hand.engine.handle_timeout(hand.now);
    assert_eq!(outcomes(review(&mut hand, &ada, Review::Release(None))).len(), 1);
    assert_eq!(value(&mut hand, &ada), Some(json!({"name": "Ada", "email": "ada@example.org"})));
}
