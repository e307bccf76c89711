//! A document whose stored log does not decode.

use bytes::Bytes;
use knot_engine::documents::{DocumentId, Edit, Scope};
use knot_engine::wire::{DocumentChanges, Frame, Wanted};
use knot_engine::{EditError, EditRequest, Event, Limits, ReadError, Table};
use serde_json::json;

use crate::hand::{Disk, Hand, id};

/// What a request for a damaged document may lead to.
const OUTPUTS_MAX: usize = 16;

/// A node that has started from a disk on which `damage` was done to every stored change.
fn damaged(damage: impl Fn(&Bytes) -> Option<Bytes>) -> (Hand, DocumentId, Bytes) {
    let ada = id(Scope::Global, "ada");
    let mut before = Hand::new(Limits::default());
    before.write(&ada, 3);
    let is_change = |table: &Table| *table == Table::Changes;
    let last = before.disk.iter().filter(|((table, _), _)| is_change(table)).map(|(_, value)| value.slice(2..)).last();
    let spoil = |((table, key), value): ((Table, Bytes), Bytes)| {
        let value = if is_change(&table) { damage(&value)? } else { value };
        Some(((table, key), value))
    };
    let disk: Disk = before.disk.into_iter().filter_map(spoil).collect();
    let mut hand = Hand::recovered("au", disk, Limits::default());
    hand.settle();
    (hand, ada, last.expect("it was written"))
}

/// Outputs of one call.
fn outputs(hand: &mut Hand, call: impl FnOnce(&mut Hand)) -> usize {
    let before = hand.outputs;
    call(hand);
    hand.settle();
    hand.outputs - before
}

#[test]
fn a_log_that_does_not_decode_is_told_and_tried_once_a_request() {
    let rubbish = |_: &Bytes| Some(Bytes::from_static(b"\x01\x00rubbish that is no change"));
    let cut = |value: &Bytes| Some(value.slice(..value.len() / 2));
    let newer = |value: &Bytes| Some([&[9], &value[1..]].concat().into());
    let gone = |_: &Bytes| None;
    for (number, (mut hand, ada, change)) in
        [damaged(rubbish), damaged(cut), damaged(newer), damaged(gone)].into_iter().enumerate()
    {
        let session = hand.meet(2, "au");
        for _ in 0..3 {
            let read = outputs(&mut hand, |hand| {
                hand.engine.read(&ada, false, hand.now);
            });
            let edited = outputs(&mut hand, |hand| {
                hand.edit(EditRequest::new(ada.clone(), Edit::MergePatch(json!({ "a": 1 }))));
            });
            let told = outputs(&mut hand, |hand| {
                hand.engine.history(&ada, hand.now);
            });
            let pushed = outputs(&mut hand, |hand| {
                let changes = vec![DocumentChanges { document: ada.clone(), changes: vec![change.clone()] }];
                hand.say(session, &Frame::Push { seq: 1, ack: true, changes });
            });
            let asked = outputs(&mut hand, |hand| {
                let documents = vec![(ada.clone(), vec![knot_engine::ChangeHash([7; 32])])];
                hand.say(session, &Frame::Want { request: 7, wanted: Wanted::Documents { documents, after: None } });
                let documents = vec![(ada.clone(), Vec::new())];
                hand.say(session, &Frame::Want { request: 8, wanted: Wanted::Documents { documents, after: None } });
            });
            let all = [read, edited, told, pushed, asked];
            assert!(all.iter().all(|outputs| *outputs <= OUTPUTS_MAX), "{number}: {all:?}");
        }
        if number != 3 {
            let unreadable = |event: &&Event| {
                matches!(event, Event::Read(_, Err(ReadError::Unreadable)))
                    || matches!(event, Event::Edited(_, Err(EditError::Unreadable)))
            };
            assert_eq!(hand.events.iter().filter(unreadable).count(), 6, "{number}: {:?}", hand.events);
        }
        let held = hand.take(|_, frame| matches!(frame, Frame::Held { .. }).then_some(()));
        assert!(number == 3 || held.is_empty(), "what cannot be stored after the rest is not held");
        let windows = hand.engine.queues().into_iter().find(|queue| queue.name == "repair_answers");
        assert_eq!(windows.map(|queue| queue.depth), Some(0), "no answer stays under way");
    }
}
