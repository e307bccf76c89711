//! When a history may be told.

use knot_engine::documents::{Edit, Scope};
use knot_engine::{EditRequest, Event, Limits};
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
