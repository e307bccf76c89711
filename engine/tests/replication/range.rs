//! What a peer that asks for a range is sent.

use bytes::Bytes;
use knot_engine::documents::{DocumentId, Scope};
use knot_engine::wire::{DocumentChanges, FRAME_BYTES_MAX, Frame, Wanted};
use knot_engine::{Limits, SessionId};
use serde_json::json;

use crate::hand::{Disk, Hand, id};

fn window(hand: &mut Hand, session: SessionId, after: Option<Bytes>) -> (Vec<DocumentChanges>, Option<Bytes>) {
    hand.frames.clear();
    let wanted = Wanted::Range { scope: Scope::Global, prefix: Vec::new(), after };
    hand.say(session, &Frame::Want { request: 7, wanted });
    let windows =
        hand.take(
            |_, frame| {
                if let Frame::Window { request: 7, changes, next } = frame { Some((changes, next)) } else { None }
            },
        );
    windows.into_iter().next().expect("an answer")
}

/// Where a zone's documents lie in storage follows from a hash of its name: among so many zones some lie before the global
/// ones, and some after.
#[test]
fn a_place_outside_the_range_leads_to_nothing_of_another_scope() {
    for zone in 0..8 {
        let zone = format!("zone-{zone}");
        let mut hand = Hand::recovered(&zone, Disk::new(), Limits::default());
        hand.settle();
        hand.put(&id(Scope::Zone(zone.as_str().into()), "ada"), json!({ "secret": true }));
        hand.put(&id(Scope::Global, "ann"), json!({ "secret": false }));
        let elsewhere = hand.meet(2, "gb");
        let places = hand.disk.keys().map(|(_, key)| key.clone()).chain([Bytes::new(), Bytes::from_static(&[0; 28])]);
        for after in places.collect::<Vec<_>>() {
            let (changes, _) = window(&mut hand, elsewhere, Some(after));
            assert!(changes.iter().all(|changes| *changes.document.scope() == Scope::Global), "{changes:?}");
        }
    }
}

#[test]
fn no_answer_is_longer_than_a_frame() {
    // As many documents to a byte of changes as can be: the names are the longest, and the changes the shortest.
    let mut hand = Hand::new(Limits::default());
    let session = hand.meet(2, "au");
    let collection = "c".repeat(64);
    let names: Vec<DocumentId> = (0..4_000)
        .map(|number| DocumentId::new(Scope::Global, &collection, &format!("{number:0512}")).expect("a name"))
        .collect();
    names.iter().for_each(|name| hand.put(name, json!({})));
    hand.frame_bytes.clear();
    let (mut after, mut documents) = (None, 0);
    loop {
        let (changes, next) = window(&mut hand, session, after);
        documents += changes.len();
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(documents, names.len());
    let wanted = names[..1_024].iter().map(|name| (name.clone(), Vec::new())).collect();
    hand.say(session, &Frame::Want { request: 8, wanted: Wanted::Documents { documents: wanted, after: None } });
    let longest = hand.frame_bytes.iter().copied().max();
    assert!(longest.is_some_and(|longest| longest <= FRAME_BYTES_MAX), "{longest:?}");
}

/// Where a range ends is found by bytes read, of which a name costs none.
#[test]
fn a_range_of_changes_that_no_window_holds_goes_one_by_one() {
    let mut hand = Hand::new(Limits { window_bytes: 100, ..Limits::default() });
    let session = hand.meet(2, "au");
    for name in ["ada", "ann", "amy"] {
        hand.put(&id(Scope::Global, name), json!({ "text": name.repeat(100) }));
    }
    let (mut after, mut windows) = (None, 0);
    loop {
        let (changes, next) = window(&mut hand, session, after);
        assert_eq!(changes.len(), 1);
        windows += 1;
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(windows, 3);
}
