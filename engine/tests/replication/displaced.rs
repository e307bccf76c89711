//! One number that was used twice, where the document is on its way from storage.

use bytes::Bytes;
use knot_engine::documents::{Actor, Document, DocumentId, Edit, ModelDocument, Scope};
use knot_engine::wire::{DocumentChanges, Frame};
use knot_engine::{ChangeHash, Event, Limits, NodeId, SessionEvent, SessionId, Wall};
use serde_json::json;

use crate::hand::{Hand, id};

const AUTHOR: NodeId = NodeId([9; 16]);

/// Two changes of one author, both its first, the one with the greater hash first; of them the other stands.
fn twice(document: &DocumentId) -> [(Bytes, ChangeHash); 2] {
    let actor = Actor([&AUTHOR.0[..], &[0; 8]].concat().into());
    let mut made = [1, 2].map(|value| {
        let edit = Edit::Put(json!({ "value": value }));
        let authored = ModelDocument::new(document).edit(&actor, &edit, false, Wall(1)).unwrap().unwrap();
        (authored.chunk, authored.header.hash)
    });
    made.sort_by_key(|(_, hash)| std::cmp::Reverse(*hash));
    made
}

fn push(hand: &mut Hand, session: SessionId, document: &DocumentId, changes: &[Bytes]) {
    let changes = vec![DocumentChanges { document: document.clone(), changes: changes.to_vec() }];
    let frame = Frame::Push { seq: 1, ack: false, changes };
    hand.engine.handle_session(session, SessionEvent::Frame(frame.encode()), hand.now);
}

#[test]
fn what_is_displaced_before_it_was_tried_is_not_tried() {
    let mut hand = Hand::new(Limits::default());
    let document = id(Scope::Global, "ada");
    let peer = hand.meet(2, "au");
    let honest = Actor([&[8; 16][..], &[0; 8]].concat().into());
    let first = ModelDocument::new(&document).edit(&honest, &Edit::Put(json!({"name": "Ada"})), false, Wall(1));
    push(&mut hand, peer, &document, &[first.unwrap().unwrap().chunk]);
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
