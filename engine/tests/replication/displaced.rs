//! One number that was used twice, where the document is on its way from storage.

use bytes::Bytes;
use knot_engine::documents::{Actor, Document, DocumentId, Edit, ModelDocument, Scope};
use knot_engine::wire::{DocumentChanges, Frame};
use knot_engine::{ChangeHash, Event, Limits, NodeId, SessionEvent, SessionId, Wall};
use serde_json::{Value, json};

use crate::hand::{Hand, id};

/// The first change of an author to a new document.
pub(crate) fn first(document: &DocumentId, author: NodeId, value: Value) -> (Bytes, ChangeHash) {
    let actor = Actor([&author.0[..], &[0; 8]].concat().into());
    let authored = ModelDocument::new(document).edit(&actor, &Edit::Put(value), false, Wall(1));
    let authored = authored.expect("it can be made").expect("it changes something");
    (authored.chunk, authored.header.hash)
}

/// Two changes of one author, both its first, the one with the greater hash first; of them the other stands.
pub(crate) fn twice(document: &DocumentId) -> [(Bytes, ChangeHash); 2] {
    let mut made = [1, 2].map(|value| first(document, NodeId([9; 16]), json!({ "value": value })));
    made.sort_by_key(|(_, hash)| std::cmp::Reverse(*hash));
    made
}

pub(crate) fn push(hand: &mut Hand, session: SessionId, document: &DocumentId, changes: &[Bytes]) {
    let changes = vec![DocumentChanges { document: document.clone(), changes: changes.to_vec() }];
    let frame = Frame::Push { seq: 1, ack: false, changes };
    hand.engine.handle_session(session, SessionEvent::Frame(frame.encode()), hand.now);
}

#[test]
fn what_is_displaced_before_it_was_tried_is_not_tried() {
    let mut hand = Hand::new(Limits::default());
    let document = id(Scope::Global, "ada");
    let peer = hand.meet(2, "au");
    let (honest, _) = first(&document, NodeId([8; 16]), json!({"name": "Ada"}));
    push(&mut hand, peer, &document, &[honest]);
    hand.settle();
    // A read has the content loaded, and while that is on its way both come, the one that stands last.
    hand.engine.read(&document, false, hand.now);
    let [(displaced, _), (stands, hash)] = twice(&document);
    push(&mut hand, peer, &document, &[displaced, stands]);
    hand.settle();
    let refused: Vec<&Event> = hand
        .events
        .iter()
        .filter(|event| matches!(event, Event::Quarantined { change, .. } if *change == hash))
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(hand.engine.quarantined_changes(), 1, "the other");
}
