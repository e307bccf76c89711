//! When a history may be told.

use knot_engine::documents::{DocumentId, Edit, Scope};
use knot_engine::{EditRequest, Event, HistoryEntry, Limits, ReadError, VersionView};
use serde_json::json;

use crate::hand::{Disk, Hand, id};

fn told(hand: &Hand) -> Vec<usize> {
    let entries = |event: &Event| {
        if let Event::History(_, answer) = event { Some(answer.as_ref().map_or(0, Vec::len)) } else { None }
    };
    hand.events.iter().filter_map(entries).collect()
}

/// After an unclean stop, what is read may be in the page cache alone: it is written again with the start.
#[test]
fn nothing_is_told_before_what_was_recovered_is_durable() {
    let ada = id(Scope::Global, "ada");
    let disk = {
        let mut hand = Hand::new(Limits::default());
        hand.put(&ada, json!({ "name": "Ada" }));
        hand.disk
    };
    let mut hand = Hand::recovered("au", disk, Limits::default());
    hand.stalled = true;
    hand.engine.read(&ada, false, hand.now);
    hand.engine.history(&ada, hand.now);
    hand.settle();
    let answered = |event: &&Event| matches!(event, Event::Read(..) | Event::History(..));
    assert_eq!(hand.events.iter().filter(answered).count(), 0, "{:?}", hand.events);
    hand.stalled = false;
    hand.settle();
    assert_eq!(hand.events.iter().filter(answered).count(), 2, "{:?}", hand.events);
    assert_eq!(told(&hand), [1]);
}

#[test]
fn a_history_that_waits_for_a_start_is_answered_when_storage_fails() {
    let ada = id(Scope::Global, "ada");
    let mut hand = Hand::recovered("au", Disk::new(), Limits::default());
    hand.stalled = true;
    hand.engine.history(&ada, hand.now);
    hand.settle();
    hand.engine.handle_storage(knot_engine::StorageEvent::Failed(knot_engine::BatchId(1)), hand.now);
    hand.engine.history(&ada, hand.now);
    hand.settle();
    assert_eq!(told(&hand), [0, 0]);
    assert!(hand.engine.queues().iter().all(|queue| queue.name != "waiters" || queue.depth == 0));
}

#[test]
fn a_history_has_what_is_durable_alone() {
    let ada = id(Scope::Global, "ada");
    let mut hand = Hand::new(Limits::default());
    hand.put(&ada, json!({ "name": "Ada" }));
    hand.stalled = true;
    let edit = EditRequest::new(ada.clone(), Edit::Put(json!({ "name": "Ann" })));
    hand.edit(edit);
    hand.engine.history(&ada, hand.now);
    hand.settle();
    assert_eq!(told(&hand), [1]);
}

fn versions(hand: &Hand) -> Vec<Result<VersionView, ReadError>> {
    let answer = |event: &Event| if let Event::Version(_, answer) = event { Some(answer.clone()) } else { None };
    hand.events.iter().filter_map(answer).collect()
}

/// The document as of one change, by its place in the history.
fn version(hand: &mut Hand, document: &DocumentId, heads: &[&str]) -> Result<VersionView, ReadError> {
    let heads = heads.iter().map(|hash| hash.parse().expect("a hash")).collect();
    hand.engine.version(document, heads, hand.now);
    hand.settle();
    versions(hand).pop().expect("an answer")
}

fn history(hand: &mut Hand, document: &DocumentId) -> Vec<HistoryEntry> {
    hand.engine.history(document, hand.now);
    hand.settle();
    let answer = |event: &Event| if let Event::History(_, Ok(entries)) = event { Some(entries.clone()) } else { None };
    hand.events.iter().filter_map(answer).next_back().expect("an answer")
}

#[test]
fn a_document_is_read_as_of_each_version_of_its_history() {
    let ada = id(Scope::Global, "ada");
    let mut hand = Hand::new(Limits::default());
    let states = [json!({"name": "Ada"}), json!({"name": "Ada", "born": 1815}), json!({"born": 1815})];
    for state in &states {
        hand.put(&ada, state.clone());
    }
    hand.edit(EditRequest::new(ada.clone(), Edit::Delete));
    hand.put(&ada, json!({"name": "anew"}));
    hand.settle();
    let entries = history(&mut hand, &ada);
    assert_eq!(entries.len(), 5);
    assert!(entries[0].deps.is_empty());
    for (before, after) in entries.iter().zip(&entries[1..]) {
        assert_eq!(after.deps, [before.hash.as_str()]);
    }
    for (entry, state) in entries.iter().zip(&states) {
        let view = version(&mut hand, &ada, &[&entry.hash]).unwrap();
        assert_eq!((&view.value, view.deleted), (state, false));
    }
    assert!(version(&mut hand, &ada, &[&entries[3].hash]).unwrap().deleted);
    let last = version(&mut hand, &ada, &[&entries[4].hash]).unwrap();
    assert_eq!((last.value, last.deleted), (json!({"name": "anew"}), false));
    // Who saw both saw no more than the later one did.
    let both = version(&mut hand, &ada, &[&entries[0].hash, &entries[1].hash]).unwrap();
    assert_eq!(both.value, states[1]);
}

#[test]
fn what_is_not_in_a_history_is_no_version_of_it() {
    let ada = id(Scope::Global, "ada");
    let mut hand = Hand::new(Limits::default());
    let unknown = "0".repeat(64);
    assert_eq!(version(&mut hand, &ada, &[&unknown]), Err(ReadError::NotFound));
    hand.put(&ada, json!({"name": "Ada"}));
    hand.settle();
    assert_eq!(version(&mut hand, &ada, &[&unknown]), Err(ReadError::NoVersion));
    let elsewhere = id(Scope::Zone("gb".into()), "ada");
    assert_eq!(version(&mut hand, &elsewhere, &[&unknown]), Err(ReadError::NotHeldHere));
    assert!(hand.engine.queues().iter().all(|queue| queue.name != "waiters" || queue.depth == 0));
}
