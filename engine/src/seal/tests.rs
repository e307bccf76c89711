use std::collections::BTreeSet;

use quickcheck::quickcheck;

use super::*;
use crate::ClusterId;

const KEY: &str = "NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl";
const OTHER_KEY: &str = "0123456789abcdefghijklmnopqrstuv";

const ALICE: NodeId = NodeId([1; 16]);
const BOB: NodeId = NodeId([2; 16]);
const CAROL: NodeId = NodeId([3; 16]);
const FIRST: Boot = Boot([10; 16]);
const SECOND: Boot = Boot([20; 16]);

fn key() -> ClusterKey {
    ClusterKey::new(KEY).unwrap()
}

fn datagrams(me: NodeId, boot: Boot) -> Datagrams {
    Datagrams::new(Some(key().into()), me, boot)
}

fn first_boot(_: NodeId) -> Option<Boot> {
    Some(FIRST)
}

fn node(number: usize) -> NodeId {
    NodeId((number as u128 + 1_000).to_le_bytes())
}

#[test]
fn a_key_is_32_printable_characters() {
    assert!(ClusterKey::new(KEY).is_ok());
    let short = ClusterKey::new(&KEY[1..]).unwrap_err();
    assert_eq!(short, BadClusterKey::Length { found: 31 });
    assert!(short.to_string().contains("`knot genkey`"));
    let spaced = KEY.replacen('J', " ", 1);
    assert_eq!(ClusterKey::new(&spaced).unwrap_err(), BadClusterKey::Character { position: 3 });
    assert_eq!(ClusterKey::new(&"é".repeat(16)).unwrap_err(), BadClusterKey::Character { position: 1 });
    assert!(!format!("{:?}", key()).contains("NDJu"));
}

#[test]
fn what_is_derived_depends_on_key_name_and_purpose() {
    let other = ClusterKey::new(OTHER_KEY).unwrap();
    let ids: BTreeSet<ClusterId> =
        [key().cluster_id("knot"), key().cluster_id("tonk"), other.cluster_id("knot")].into();
    assert_eq!(ids.len(), 3);
    assert_eq!(key().cluster_id("knot"), key().cluster_id("knot"));
    assert_ne!(key().id(), other.id());
    assert_ne!(key().replication_secret("knot")[..16], key().cluster_id("knot").0);
}

#[test]
fn a_body_arrives_whatever_its_size() {
    let (mut alice, mut bob) = (datagrams(ALICE, FIRST), datagrams(BOB, FIRST));
    for bytes in 0..=DATAGRAM_BODY_BYTES_MAX {
        let body = vec![7; bytes];
        let sealed = alice.seal(BOB, FIRST, &body).unwrap();
        assert!(sealed.len() <= DATAGRAM_BYTES_MAX);
        assert_eq!(bob.open(&sealed, first_boot), Ok((ALICE, body.into())));
    }
    let body = vec![7; DATAGRAM_BODY_BYTES_MAX + 1];
    assert_eq!(alice.seal(BOB, FIRST, &body), None);
    let long = [0; DATAGRAM_BYTES_MAX + 1];
    assert_eq!(bob.open(&long, first_boot), Err(DatagramDrop::TooLong));
}

#[test]
fn a_body_does_not_travel_in_the_clear() {
    let sealed = datagrams(ALICE, FIRST).seal(BOB, FIRST, b"attack at dawn").unwrap();
    assert!(!sealed.windows(6).any(|window| window == b"attack"));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (mut alice, mut bob) = (datagrams(ALICE, FIRST), datagrams(BOB, FIRST));
    let sealed = alice.seal(BOB, FIRST, b"a body of some length").unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut altered = sealed.to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(bob.open(&altered, first_boot).is_err(), "bit {bit}");
    }
    assert!(bob.open(&sealed, first_boot).is_ok());
}

#[test]
fn every_other_length_is_noticed() {
    let (mut alice, mut bob) = (datagrams(ALICE, FIRST), datagrams(BOB, FIRST));
    let sealed = alice.seal(BOB, FIRST, b"a body").unwrap();
    for bytes in 0..sealed.len() {
        assert!(bob.open(&sealed[..bytes], first_boot).is_err());
    }
    let longer = [&sealed[..], &[0]].concat();
    assert_eq!(bob.open(&longer, first_boot), Err(DatagramDrop::Forged));
    assert_eq!(bob.open(&sealed[..44], first_boot), Err(DatagramDrop::TooShort));
}

#[test]
fn a_datagram_opens_once_in_any_order() {
    let (mut alice, mut bob) = (datagrams(ALICE, FIRST), datagrams(BOB, FIRST));
    let mut sealed: Vec<Bytes> = (0..100).map(|number| alice.seal(BOB, FIRST, &[number]).unwrap()).collect();
    sealed.reverse();
    for datagram in &sealed {
        assert!(bob.open(datagram, first_boot).is_ok());
    }
    for datagram in &sealed {
        assert_eq!(bob.open(datagram, first_boot), Err(DatagramDrop::Replayed));
    }
}

#[test]
fn a_restart_of_either_side_voids_every_recording() {
    for key in [Some(key()), None] {
        let mut alice = Datagrams::new(key.clone().map(Into::into), ALICE, FIRST);
        let recorded = alice.seal(BOB, FIRST, b"a body").unwrap();

        let mut restarted = Datagrams::new(key.clone().map(Into::into), BOB, SECOND);
        assert_eq!(restarted.open(&recorded, first_boot), Err(DatagramDrop::Forged));

        let mut bob = Datagrams::new(key.map(Into::into), BOB, FIRST);
        assert!(bob.open(&recorded, first_boot).is_ok());
        assert_eq!(bob.open(&recorded, |_| Some(SECOND)), Err(DatagramDrop::Forged));
        assert_eq!(bob.open(&recorded, first_boot), Err(DatagramDrop::Replayed));
    }
}

#[test]
fn a_datagram_is_for_one_receiver_in_one_direction() {
    let mut alice = datagrams(ALICE, FIRST);
    let sealed = alice.seal(BOB, FIRST, b"a body").unwrap();
    assert_eq!(datagrams(CAROL, FIRST).open(&sealed, first_boot), Err(DatagramDrop::Forged));
    assert_eq!(alice.open(&sealed, first_boot), Err(DatagramDrop::Forged));
}

#[test]
fn strangers_are_told_apart() {
    let mut bob = datagrams(BOB, FIRST);
    let sealed = datagrams(ALICE, FIRST).seal(BOB, FIRST, b"a body").unwrap();
    assert_eq!(bob.open(&sealed, |_| None), Err(DatagramDrop::UnknownSender));

    let other = ClusterKey::new(OTHER_KEY).unwrap();
    let sealed = Datagrams::new(Some(other.into()), ALICE, FIRST).seal(BOB, FIRST, b"a body");
    let mut sealed = sealed.unwrap().to_vec();
    assert_eq!(bob.open(&sealed, first_boot), Err(DatagramDrop::UnknownKey));
    sealed[1..5].copy_from_slice(&key().id().0);
    assert_eq!(bob.open(&sealed, first_boot), Err(DatagramDrop::Forged));
    sealed[0] += 1;
    assert_eq!(bob.open(&sealed, first_boot), Err(DatagramDrop::Version));
    assert!(bob.peers.is_empty(), "unverified bytes made state");
}

#[test]
fn a_forgotten_peer_finds_its_counters_as_they_were() {
    let (mut alice, mut bob) = (datagrams(ALICE, FIRST), datagrams(BOB, FIRST));
    let sealed = alice.seal(BOB, FIRST, b"a body").unwrap();
    assert!(bob.open(&sealed, first_boot).is_ok());
    bob.forget(ALICE);
    alice.forget(BOB);
    assert_eq!(bob.open(&sealed, first_boot), Err(DatagramDrop::Replayed));
    let next = alice.seal(BOB, FIRST, b"a body").unwrap();
    assert!(bob.open(&next, first_boot).is_ok());
}

#[test]
fn peers_are_bounded_and_no_counter_is_used_twice() {
    let mut alice = Datagrams::new(None, ALICE, FIRST);
    let counter = |datagram: &Bytes| u64::from_le_bytes(datagram[21..29].try_into().unwrap());
    for peer in 0..PEERS_MAX {
        alice.seal(node(peer), FIRST, b"").unwrap();
    }
    let last = alice.seal(node(0), FIRST, b"").unwrap();
    assert_eq!(alice.seal(BOB, FIRST, b""), None);
    let from_bob = Datagrams::new(None, BOB, FIRST).seal(ALICE, FIRST, b"").unwrap();
    assert_eq!(alice.open(&from_bob, first_boot), Err(DatagramDrop::Crowded));

    alice.forget(node(0));
    assert!(alice.open(&from_bob, first_boot).is_ok());
    assert_eq!(alice.peers.len(), PEERS_MAX);
    assert_eq!(alice.seal(node(0), FIRST, b""), None);
    alice.forget(node(1));
    let again = alice.seal(node(0), FIRST, b"").unwrap();
    assert!(counter(&again) > counter(&last));
}

#[test]
fn many_boots_of_one_node_stay_bounded() {
    let mut alice = Datagrams::new(None, ALICE, FIRST);
    for boot in 0..PEERS_MAX + 100 {
        alice.seal(BOB, Boot(node(boot).0), b"").unwrap();
    }
    assert_eq!(alice.peers.len(), PEERS_MAX);
    assert_eq!(alice.retired.len(), PEERS_MAX - 1);
    for _ in 0..3 {
        alice.seal(BOB, Boot(node(PEERS_MAX).0), b"").unwrap();
        alice.seal(BOB, Boot(node(PEERS_MAX + 1).0), b"").unwrap();
    }
    assert_eq!(alice.retired.len(), PEERS_MAX - 1);
}

#[test]
fn a_counter_stops_at_its_maximum() {
    let (mut alice, mut bob) = (datagrams(ALICE, FIRST), datagrams(BOB, FIRST));
    alice.first_counter = u64::MAX - 1;
    let last = alice.seal(BOB, FIRST, b"a body").unwrap();
    assert!(bob.open(&last, first_boot).is_ok());
    assert_eq!(alice.seal(BOB, FIRST, b"a body"), None);
    assert_eq!(alice.seal(BOB, FIRST, b"a body"), None);
}

#[test]
fn a_window_is_exactly_as_wide_as_it_says() {
    let mut window = ReplayWindow::new();
    assert!(window.accept(REPLAY_WINDOW));
    assert!(window.is_fresh(1));
    assert!(!window.is_fresh(0));
    assert!(window.accept(u64::MAX));
    assert!(!window.accept(u64::MAX));
    assert!(!window.is_fresh(u64::MAX - REPLAY_WINDOW));
    assert!(window.accept(u64::MAX - REPLAY_WINDOW + 1));
    assert!(!window.accept(u64::MAX - REPLAY_WINDOW + 1));
}

/// Remembers everything.
#[derive(Default)]
struct NaiveWindow {
    seen: BTreeSet<u64>,
}

impl NaiveWindow {
    fn accept(&mut self, counter: u64) -> bool {
        let highest = self.seen.last().copied().unwrap_or(0);
        let too_old = highest.saturating_sub(counter) >= REPLAY_WINDOW;
        !too_old && self.seen.insert(counter)
    }
}

/// A walk with small steps, steps about as wide as the window, and far jumps to either end.
fn walk(steps: &[(u8, u16)]) -> Vec<u64> {
    let mut counter: u64 = 5_000;
    let places = steps.iter().map(|&(kind, size)| {
        let size = u64::from(size);
        counter = match kind % 8 {
            0..=2 => counter.saturating_add(size % 8),
            3 => counter.saturating_add(size % 200),
            4 => counter.saturating_add(2_040 + size % 16),
            5 => counter.saturating_add(size << 40),
            6 if size % 16 == 0 => u64::MAX - size,
            _ => counter.saturating_sub(size % 2_100),
        };
        counter
    });
    places.collect()
}

quickcheck! {
    fn a_window_agrees_with_one_that_remembers_everything(steps: Vec<(u8, u16)>) -> bool {
        let (mut window, mut naive) = (ReplayWindow::new(), NaiveWindow::default());
        walk(&steps).into_iter().all(|counter| {
            let expected = naive.accept(counter);
            window.is_fresh(counter) == expected
                && window.accept(counter) == expected
                && !window.is_fresh(counter)
        })
    }

    fn arbitrary_bytes_never_open(bytes: Vec<u8>, header: bool) -> bool {
        let mut bob = datagrams(BOB, FIRST);
        let datagram = if header {
            [&[DATAGRAM_VERSION][..], &key().id().0, &ALICE.0, &bytes].concat()
        } else {
            bytes
        };
        bob.open(&datagram, first_boot).is_err() && bob.peers.is_empty()
    }

    fn bare_datagrams_carry_any_body(body: Vec<u8>) -> bool {
        let mut alice = Datagrams::new(None, ALICE, FIRST);
        let mut bob = Datagrams::new(None, BOB, FIRST);
        let sealed = alice.seal(BOB, FIRST, &body).unwrap();
        bob.open(&sealed, first_boot) == Ok((ALICE, body.into()))
    }
}

#[test]
fn keys_change_while_datagrams_go_on() {
    let other = || ClusterKey::new(OTHER_KEY).unwrap();
    let both = || KeyRing::new(other(), [key()]);
    let mut alice = datagrams(ALICE, FIRST);
    let mut bob = Datagrams::new(Some(both()), BOB, FIRST);
    let opens = |from: &mut Datagrams, to: &mut Datagrams| {
        let (them, name) = (to.me, from.me.0);
        let datagram = from.seal(them.0, them.1, b"a body").unwrap();
        to.open(&datagram, |_| Some(FIRST)).map(|(sender, _)| assert_eq!(sender, name))
    };
    assert_eq!(opens(&mut bob, &mut alice), Err(DatagramDrop::UnknownKey), "he starts with his first");
    let recorded = alice.seal(BOB, FIRST, b"recorded").unwrap();
    assert!(bob.open(&recorded, |_| Some(FIRST)).is_ok());
    assert_eq!(opens(&mut bob, &mut alice), Ok(()), "and goes on with hers");
    alice.set_keys(both());
    assert_eq!(opens(&mut alice, &mut bob), Ok(()));
    alice.set_keys(other().into());
    assert_eq!(opens(&mut alice, &mut bob), Ok(()));
    assert_eq!(opens(&mut bob, &mut alice), Ok(()));
    assert_eq!(bob.open(&recorded, |_| Some(FIRST)), Err(DatagramDrop::Replayed));
    bob.set_keys(other().into());
    assert_eq!(bob.open(&recorded, |_| Some(FIRST)), Err(DatagramDrop::UnknownKey));
    assert_eq!(opens(&mut alice, &mut bob), Ok(()));
}
