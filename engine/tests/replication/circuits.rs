//! What a node does with circuits: those of others, and its own.

use bytes::Bytes;
use knot_engine::membership::Closed;
use knot_engine::wire::Frame;
use knot_engine::{
    Boot, CIRCUIT_PIECE_BYTES, CIRCUIT_ROOM_BYTES, CIRCUIT_STEP_BYTES_MIN, CIRCUIT_WINDOW_BYTES, CIRCUITS_OF_ONE_MAX,
    CircuitId, Limits, NodeId, NodeKey, PeerIdentity, SessionEvent, SessionId, Step,
};

use crate::hand::Hand;

fn peer(number: u8) -> NodeId {
    NodeKey::from_bytes([number; 32]).node_id()
}

fn circuit(opener: NodeId, target: NodeId) -> CircuitId {
    CircuitId { opener, target, number: 7 }
}

/// A node that has met two others, and the streams to them.
fn between() -> (Hand, SessionId, SessionId) {
    let mut hand = Hand::new(Limits::default());
    let (one, other) = (hand.meet(2, "au"), hand.meet(3, "au"));
    hand.frames.clear();
    (hand, one, other)
}

fn say(hand: &mut Hand, session: SessionId, circuit: CircuitId, step: Step) {
    hand.say(session, &Frame::Circuit { circuit, step });
}

/// The steps that the node sent since the last time.
fn steps(hand: &mut Hand) -> Vec<(SessionId, Step)> {
    let steps = std::mem::take(&mut hand.frames).into_iter();
    steps
        .filter_map(|(to, frame)| if let Frame::Circuit { step, .. } = frame { Some((to, step)) } else { None })
        .collect()
}

fn piece() -> Step {
    Step::Bytes(Bytes::from(vec![1; CIRCUIT_PIECE_BYTES]))
}

fn a_byte() -> Step {
    Step::Bytes(Bytes::from_static(b"x"))
}

fn room() -> Step {
    Step::Room(u32::try_from(CIRCUIT_ROOM_BYTES).unwrap_or_default())
}

fn carried(hand: &Hand, name: &str) -> usize {
    hand.engine.queues().into_iter().find(|queue| queue.name == name).map_or(0, |queue| queue.depth)
}

#[test]
fn a_third_passes_on_what_two_say_and_no_more_than_a_window_of_it() {
    let (mut hand, one, other) = between();
    let id = circuit(peer(2), peer(3));
    say(&mut hand, one, id, Step::Open);
    assert_eq!(steps(&mut hand), [(other, Step::Open)]);
    say(&mut hand, other, id, Step::Open);
    assert_eq!(steps(&mut hand), [(one, Step::Open)]);
    for _ in 0..CIRCUIT_WINDOW_BYTES / CIRCUIT_PIECE_BYTES {
        say(&mut hand, one, id, piece());
        assert_eq!(steps(&mut hand), [(other, piece())]);
    }
    say(&mut hand, other, id, room());
    assert_eq!(steps(&mut hand), [(one, room())]);
    for _ in 0..CIRCUIT_ROOM_BYTES / CIRCUIT_STEP_BYTES_MIN {
        say(&mut hand, one, id, a_byte());
        assert_eq!(steps(&mut hand), [(other, a_byte())], "as much as was taken, where a byte counts for more");
    }
    say(&mut hand, one, id, a_byte());
    assert_eq!(steps(&mut hand), [(one, Step::End), (other, Step::End)], "a byte too many ends it");
    assert_eq!(carried(&hand, "circuits_carried"), 0);
}

#[test]
fn who_breaks_the_rules_of_a_circuit_ends_it() {
    for (from_target, step) in [(true, room()), (false, room()), (false, Step::Open), (true, Step::Open)] {
        let (mut hand, one, other) = between();
        let id = circuit(peer(2), peer(3));
        say(&mut hand, one, id, Step::Open);
        say(&mut hand, other, id, Step::Open);
        steps(&mut hand);
        let (from, to) = if from_target { (other, one) } else { (one, other) };
        say(&mut hand, from, id, step);
        assert_eq!(
            steps(&mut hand),
            [(from, Step::End), (to, Step::End)],
            "room for what was not sent, a second answer"
        );
    }
}

#[test]
fn one_member_takes_no_more_than_its_share_of_places() {
    let (mut hand, one, other) = between();
    let me = hand.engine.me().record.node;
    let numbers = 10..u8::try_from(CIRCUITS_OF_ONE_MAX).unwrap_or_default() + 12;
    let targets: Vec<SessionId> = numbers.clone().map(|number| hand.meet(number, "au")).collect();
    steps(&mut hand);
    for (number, target) in numbers.clone().zip(&targets).take(CIRCUITS_OF_ONE_MAX) {
        say(&mut hand, one, circuit(peer(2), peer(number)), Step::Open);
        assert_eq!(steps(&mut hand), [(*target, Step::Open)]);
    }
    let last = numbers.clone().last().unwrap_or_default();
    say(&mut hand, one, circuit(peer(2), peer(last)), Step::Open);
    assert_eq!(steps(&mut hand), [(one, Step::End)]);
    // Again to the same takes the place of the one before.
    let again = CircuitId { number: 8, ..circuit(peer(2), peer(10)) };
    say(&mut hand, one, again, Step::Open);
    assert_eq!(steps(&mut hand), [(one, Step::End), (targets[0], Step::End), (targets[0], Step::Open)]);
    assert_eq!(carried(&hand, "circuits_carried"), CIRCUITS_OF_ONE_MAX);
    // And it speaks in the name of no more of those that it knows.
    for number in numbers.clone() {
        say(&mut hand, other, circuit(peer(number), me), Step::Open);
    }
    assert_eq!(carried(&hand, "circuits_own"), CIRCUITS_OF_ONE_MAX);
    say(&mut hand, targets[0], circuit(peer(2), me), Step::Open);
    assert_eq!(carried(&hand, "circuits_own"), CIRCUITS_OF_ONE_MAX + 1, "another carrier has its own");
}

#[test]
fn a_circuit_from_one_carrier_is_in_nobody_elses_way() {
    let (mut hand, one, other) = between();
    let me = hand.engine.me().record.node;
    hand.meet(4, "au");
    steps(&mut hand);
    let id = circuit(peer(4), me);
    for via in [one, other] {
        say(&mut hand, via, id, Step::Open);
        assert_eq!(steps(&mut hand), [(via, Step::Open)]);
    }
    say(&mut hand, one, id, Step::End);
    assert_eq!(carried(&hand, "circuits_own"), 1);
}

#[test]
fn a_circuit_ends_with_either_of_its_streams() {
    for gone in [0, 1] {
        let (mut hand, one, other) = between();
        let id = circuit(peer(2), peer(3));
        say(&mut hand, one, id, Step::Open);
        steps(&mut hand);
        let (lost, left) = if gone == 0 { (one, other) } else { (other, one) };
        hand.engine.handle_session(lost, SessionEvent::Closed(Closed::Reset), hand.now);
        hand.settle();
        assert_eq!(steps(&mut hand), [(left, Step::End)]);
        assert_eq!(carried(&hand, "circuits_carried"), 0);
    }
}

#[test]
fn nobody_opens_or_ends_a_circuit_in_anothers_name() {
    let (mut hand, one, other) = between();
    let me = hand.engine.me().record.node;
    // Not its own; to nobody; to whom there is no stream; already there.
    for id in [circuit(peer(3), peer(4)), circuit(peer(2), peer(9))] {
        say(&mut hand, one, id, Step::Open);
        assert_eq!(steps(&mut hand), [(one, Step::End)]);
    }
    let third = hand.meet(4, "au");
    steps(&mut hand);
    let id = circuit(peer(2), peer(3));
    say(&mut hand, one, id, Step::Open);
    steps(&mut hand);
    for step in [Step::End, piece(), room(), Step::Open] {
        say(&mut hand, third, id, step);
        assert_eq!(steps(&mut hand), [], "it is none of a third's");
    }
    say(&mut hand, other, id, Step::Open);
    assert_eq!(steps(&mut hand), [(one, Step::Open)]);
    // One that claims to begin here.
    say(&mut hand, one, circuit(me, peer(3)), Step::Open);
    assert_eq!(steps(&mut hand), [(one, Step::End)]);
    for id in [circuit(me, me), circuit(peer(2), me), circuit(peer(2), peer(2))] {
        say(&mut hand, one, id, Step::Open);
        assert_eq!(steps(&mut hand), [(one, Step::End)], "to itself, or to whom it speaks with");
    }
    assert!(hand.circuits.is_empty());
}

#[test]
fn who_is_at_the_other_end_is_who_was_asked_for() {
    let (mut hand, one, _) = between();
    let me = hand.engine.me().record.node;
    hand.meet(4, "au");
    let stranger = NodeKey::from_bytes([5; 32]);
    steps(&mut hand);
    say(&mut hand, one, circuit(stranger.node_id(), me), Step::Open);
    assert_eq!(steps(&mut hand), [(one, Step::End)], "nobody has heard of it");
    say(&mut hand, one, circuit(peer(4), me), Step::Open);
    assert_eq!(steps(&mut hand), [(one, Step::Open)]);
    let &[(session, Step::Open)] = &hand.circuits[..] else { panic!("{:?}", hand.circuits) };
    let cluster = hand.engine.cluster();
    let identity = PeerIdentity { public: stranger.public(), boot: Boot([5; 16]), cluster, empty: false, wire: 1 };
    hand.engine.handle_session(session, SessionEvent::Opened(identity), hand.now);
    hand.settle();
    assert_eq!(hand.closed, [session]);
    hand.engine.handle_session(session, SessionEvent::Circuit(Step::End), hand.now);
    hand.settle();
    assert_eq!(steps(&mut hand), [(one, Step::End)], "once its session has written what it had to");
    assert_eq!(carried(&hand, "circuits_own"), 0);
}

#[test]
fn a_session_gets_no_more_than_a_window_and_its_peer_no_room_that_it_has_not_made() {
    let (mut hand, one, _) = between();
    let me = hand.engine.me().record.node;
    hand.meet(4, "au");
    steps(&mut hand);
    let id = circuit(peer(4), me);
    say(&mut hand, one, id, Step::Open);
    let (session, _) = hand.circuits.remove(0);
    steps(&mut hand);
    say(&mut hand, one, id, room());
    assert_eq!(hand.circuits, [(session, Step::End)], "nothing was sent that could have been taken");
    assert_eq!(steps(&mut hand), [(one, Step::End)]);

    hand.circuits.clear();
    let id = CircuitId { number: 8, ..id };
    say(&mut hand, one, id, Step::Open);
    let (session, _) = hand.circuits.remove(0);
    for _ in 0..CIRCUIT_WINDOW_BYTES / CIRCUIT_PIECE_BYTES {
        say(&mut hand, one, id, piece());
    }
    hand.circuits.clear();
    steps(&mut hand);
    let taken = u32::try_from(CIRCUIT_WINDOW_BYTES).unwrap_or_default();
    hand.engine.handle_session(session, SessionEvent::Circuit(Step::Room(taken)), hand.now);
    hand.settle();
    assert_eq!(steps(&mut hand), [(one, Step::Room(taken))]);
    for _ in 0..=CIRCUIT_WINDOW_BYTES / CIRCUIT_PIECE_BYTES {
        say(&mut hand, one, id, piece());
    }
    assert_eq!(hand.circuits.last(), Some(&(session, Step::End)));
}
