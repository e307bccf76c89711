//! Which peers count for an edit that waits until peers hold it.

use std::time::Duration;

use knot_engine::documents::{Edit, Scope};
use knot_engine::wire::Frame;
use knot_engine::{EditId, EditRequest, Limits, SessionId};
use serde_json::json;

use crate::hand::{Hand, id};

/// An edit that waits for `replicas` peers, and the pushes of it.
fn edit(hand: &mut Hand, scope: Scope, replicas: usize) -> (EditId, Vec<(SessionId, u64)>) {
    hand.frames.clear();
    let request = EditRequest {
        replicas,
        timeout: Duration::from_secs(5),
        ..EditRequest::new(id(scope, "ada"), Edit::Put(json!({ "at": hand.engine.sequence() })))
    };
    let edit = hand.edit(request);
    let pushes = hand.take(
        |session, frame| {
            if let Frame::Push { seq, ack: true, .. } = frame { Some((session, seq)) } else { None }
        },
    );
    (edit, pushes)
}

fn zone() -> Scope {
    Scope::Zone("au".into())
}

#[test]
fn a_peer_counts_once_for_what_it_was_sent() {
    let mut hand = Hand::new(Limits::default());
    let (one, other) = (hand.meet(2, "au"), hand.meet(3, "au"));
    let (edit, pushes) = edit(&mut hand, zone(), 2);
    let [(_, seq), _] = pushes[..] else { panic!("both are sent it: {pushes:?}") };
    hand.say(one, &Frame::Held { seq });
    hand.say(one, &Frame::Held { seq });
    assert_eq!(hand.edited(edit), None, "one peer is not two");
    hand.say(other, &Frame::Held { seq: seq + 1 });
    assert_eq!(hand.edited(edit), None, "another push is not this one");
    hand.say(other, &Frame::Held { seq });
    let edited = hand.edited(edit).expect("it is held");
    assert!(edited.replicated && edited.held_by == 2, "{edited:?}");
}

#[test]
fn a_peer_that_does_not_hold_the_scope_does_not_count() {
    let mut hand = Hand::new(Limits::default());
    let (near, far) = (hand.meet(2, "au"), hand.meet(3, "gb"));
    let (edit, pushes) = edit(&mut hand, zone(), 1);
    let [(to, seq)] = pushes[..] else { panic!("it goes to the zone alone: {pushes:?}") };
    assert_eq!(to, near);
    hand.say(far, &Frame::Held { seq });
    assert_eq!(hand.edited(edit), None);
    hand.say(near, &Frame::Held { seq });
    assert!(hand.edited(edit).is_some_and(|edited| edited.replicated));
}

#[test]
fn a_peer_that_was_not_sent_the_push_does_not_count() {
    let mut hand = Hand::new(Limits::default());
    let early = hand.meet(2, "au");
    let (edit, pushes) = edit(&mut hand, Scope::Global, 1);
    let [(_, seq)] = pushes[..] else { panic!("{pushes:?}") };
    let late = hand.meet(3, "au");
    hand.say(late, &Frame::Held { seq });
    assert_eq!(hand.edited(edit), None, "it came after the push");
    let again = hand.meet(2, "au");
    hand.say(again, &Frame::Held { seq });
    assert_eq!(hand.edited(edit), None, "a new stream of the same peer did not bring it the push");
    assert!(hand.closed.contains(&early));
    hand.now = hand.now + Duration::from_secs(6);
    hand.engine.handle_timeout(hand.now);
    hand.settle();
    assert!(hand.edited(edit).is_some_and(|edited| !edited.replicated && edited.held_by == 0));
}

#[test]
fn whoever_waits_is_told_how_far_it_came_when_the_node_leaves() {
    let mut hand = Hand::new(Limits::default());
    let (one, _) = (hand.meet(2, "au"), hand.meet(3, "au"));
    let (waiting, pushes) = edit(&mut hand, Scope::Global, 2);
    let [(_, seq), _] = pushes[..] else { panic!("{pushes:?}") };
    hand.say(one, &Frame::Held { seq });
    hand.stalled = true;
    let request = EditRequest {
        replicas: 1,
        timeout: Duration::from_secs(5),
        ..EditRequest::new(id(Scope::Global, "eve"), Edit::Put(json!({})))
    };
    let unsynced = hand.edit(request);
    hand.engine.leave(false, hand.now);
    hand.settle();
    assert!(hand.edited(waiting).is_some_and(|edited| !edited.replicated && edited.held_by == 1));
    assert_eq!(hand.edited(unsynced), None, "it is not durable here yet");
    hand.stalled = false;
    hand.settle();
    assert!(hand.edited(unsynced).is_some_and(|edited| !edited.replicated && edited.held_by == 0));
}
