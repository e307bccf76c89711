//! Members that hold the key and lie.

use std::time::Duration;

use knot_engine::membership::{
    Action, BUCKETS, MEMBERS_MAX, Membership, Message, Record, Route, STARTS_MAX, STARTS_SKIPPED_MAX, Standing, Status,
    Update, Via,
};
use knot_engine::{Address, Boot, Faults, Incarnation, Instant, NodeId, Random};
use quickcheck::QuickCheck;

fn record(byte: u8, incarnation: Incarnation) -> Record {
    Record {
        node: NodeId([byte; 16]),
        boot: Boot([byte; 16]),
        incarnation,
        name: format!("n{byte}"),
        zone: "z".to_owned(),
        addresses: vec![Address::from("h:1")],
        version: String::new(),
        url: String::new(),
    }
}

fn machine() -> Membership {
    let me = record(1, Incarnation { starts: 1, refutations: 0 });
    Membership::new(Default::default(), me, Random::new(&[0; 32], "m"), Faults::default(), Instant::ZERO)
}

fn about(node: u8, boot: u8, incarnation: Incarnation, status: Status) -> Message {
    let standing = Standing { status, ..Standing::ALIVE };
    let update = Update::Brief { node: NodeId([node; 16]), boot: Boot([boot; 16]), incarnation, standing };
    Message::Gossip { updates: vec![update] }
}

const ME: u8 = 1;
const PEER: u8 = 2;

#[test]
fn a_start_count_without_room_above_it_is_nobodys() {
    let mut machine = machine();
    let top = Incarnation { starts: u32::MAX, refutations: 0 };
    for status in [Status::Alive, Status::Suspect, Status::Failed, Status::Left] {
        machine.handle_message(NodeId([PEER; 16]), Via::Stream, about(ME, 1, top, status), Instant::ZERO);
        machine.handle_message(NodeId([PEER; 16]), Via::Stream, about(ME, 9, top, status), Instant::ZERO);
    }
    let digest = Message::SyncDigest { record: record(PEER, top).into(), answer: false, buckets: vec![0; BUCKETS] };
    machine.handle_message(NodeId([PEER; 16]), Via::Stream, digest, Instant::ZERO);
    let goodbye = Message::Leave { boot: Boot([PEER; 16]), incarnation: top, retired: true };
    machine.handle_message(NodeId([PEER; 16]), Via::Stream, goodbye, Instant::ZERO);
    assert_eq!(machine.stats().invalid, 10);
    assert_eq!(machine.me().record.incarnation, Incarnation { starts: 1, refutations: 0 });
}

#[test]
fn no_claims_drive_a_node_further_than_a_restored_backup_can_be_behind() {
    let mut machine = machine();
    let claim = |machine: &mut Membership, starts, refutations| {
        let incarnation = Incarnation { starts, refutations };
        for boot in [1, 9] {
            let message = about(ME, boot, incarnation, Status::Left);
            machine.handle_message(NodeId([PEER; 16]), Via::Stream, message, Instant::ZERO);
        }
    };
    claim(&mut machine, 900, u32::MAX);
    assert!(machine.me().record.incarnation.starts == 901, "what a backup can have forgotten is topped");
    let disowned = machine.stats().disowned;
    claim(&mut machine, u32::MAX - 1, u32::MAX);
    assert_eq!(machine.me().record.incarnation.starts, 901);
    assert_eq!(machine.stats().disowned, disowned + 2);
    for step in 1..200 {
        claim(&mut machine, 901 + step * 1_000, u32::MAX);
        let risen = machine.me().record.incarnation.starts;
        assert!(risen <= 1 + STARTS_SKIPPED_MAX, "{risen}");
    }
    assert_eq!(machine.me().status, Status::Alive);
}

fn is_fenced(machine: &mut Membership) -> bool {
    std::iter::from_fn(|| machine.poll_action()).any(|action| format!("{action:?}").starts_with("Fenced"))
}

#[test]
fn a_second_live_boot_of_ours_fences_us() {
    let mut machine = machine();
    let double = |machine: &mut Membership, incarnation| {
        machine.handle_message(
            NodeId([PEER; 16]),
            Via::Stream,
            about(ME, 9, incarnation, Status::Alive),
            Instant::ZERO,
        );
    };
    double(&mut machine, Incarnation { starts: 5, refutations: 0 });
    let mut answers = 0;
    while !is_fenced(&mut machine) {
        let risen = machine.me().record.incarnation;
        double(&mut machine, Incarnation { refutations: risen.refutations + 1, ..risen });
        answers += 1;
        assert!(answers < 10, "it is alive");
    }
    assert_eq!(machine.poll_timeout(), None);
}

#[test]
fn what_members_remember_of_a_dead_boot_of_ours_does_not_fence_us() {
    let mut machine = machine();
    // Those cut off for a while know less of its denials.
    for (member, refutations) in [(2, 0), (3, 4), (2, 0), (4, 7), (3, 4), (2, 7)] {
        let heard = about(ME, 9, Incarnation { starts: 5, refutations }, Status::Failed);
        machine.handle_message(NodeId([member; 16]), Via::Stream, heard, Instant::ZERO);
    }
    assert!(!is_fenced(&mut machine));
    assert!(machine.me().record.incarnation > Incarnation { starts: 5, refutations: 7 });
}

fn meet(machine: &mut Membership, record: Record) {
    machine.on_session_opened(record.node, Route::Accepted, Instant::ZERO);
    let node = record.node;
    let digest = Message::SyncDigest { record: record.into(), answer: false, buckets: vec![0; BUCKETS] };
    machine.handle_message(node, Via::Stream, digest, Instant::ZERO);
}

#[test]
fn what_a_member_says_of_itself_nobody_else_changes() {
    let first = Incarnation { starts: 1, refutations: 0 };
    let mut machine = machine();
    let truth = record(3, first);
    let lie = |refutations| {
        let mut lie = record(3, Incarnation { refutations, ..first });
        (lie.zone, lie.addresses) = ("zzz".to_owned(), vec![Address::from("zzz:1")]);
        Message::Gossip { updates: vec![Update::Full { record: lie.into(), standing: Standing::ALIVE }] }
    };
    machine.handle_message(NodeId([PEER; 16]), Via::Stream, lie(0), Instant::ZERO);
    meet(&mut machine, truth.clone());
    let held = |machine: &Membership| Record::clone(&machine.member(&truth.node).unwrap().record);
    assert_eq!(held(&machine), truth, "its own word counts for more than hearsay");
    machine.handle_message(NodeId([PEER; 16]), Via::Stream, lie(0), Instant::ZERO);
    assert_eq!(held(&machine), truth);
    machine.handle_message(NodeId([PEER; 16]), Via::Stream, lie(1), Instant::ZERO);
    assert_eq!((held(&machine).zone, held(&machine).addresses), (truth.zone.clone(), truth.addresses.clone()));
}

/// Two members that believed it of each other would never ask again.
#[test]
fn nobody_is_believed_to_be_where_no_start_of_its_own_could_lead() {
    let first = Incarnation { starts: 1, refutations: 0 };
    let mut machine = machine();
    let truth = record(3, first);
    meet(&mut machine, truth.clone());
    let left = |starts| {
        let mut record = record(3, Incarnation { starts, refutations: u32::MAX });
        record.boot = Boot([9; 16]);
        let standing = Standing { status: Status::Left, ..Standing::ALIVE };
        Message::Gossip { updates: vec![Update::Full { record: record.into(), standing }] }
    };
    let status = |machine: &Membership| machine.member(&truth.node).unwrap().status;
    for starts in [STARTS_MAX, STARTS_SKIPPED_MAX + 2] {
        machine.handle_message(NodeId([PEER; 16]), Via::Stream, left(starts), Instant::ZERO);
        assert_eq!(status(&machine), Status::Alive, "{starts}");
    }
    machine.handle_message(NodeId([PEER; 16]), Via::Stream, left(STARTS_SKIPPED_MAX + 1), Instant::ZERO);
    assert_eq!(status(&machine), Status::Left, "as far as it may be driven it is heard of from others");
}

fn crowd(numbers: std::ops::Range<u32>) -> Message {
    let stranger = |number: u32| {
        let mut stranger = record(0, Incarnation { starts: 1, refutations: 0 });
        stranger.node =
            NodeId(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes());
        stranger.name = "crowd".to_owned();
        Update::Full { record: stranger.into(), standing: Standing::ALIVE }
    };
    Message::Sync { mask: 0, answer: false, updates: numbers.map(stranger).collect() }
}

#[test]
fn a_hundred_thousand_members_that_are_not_there_keep_none_out_that_is() {
    let mut machine = machine();
    meet(&mut machine, record(PEER, Incarnation { starts: 1, refutations: 0 }));
    let mut namesakes = 0;
    for part in 0..20 {
        let numbers = 1 + part * 5_000..1 + (part + 1) * 5_000;
        machine.handle_message(NodeId([PEER; 16]), Via::Stream, crowd(numbers), Instant::ZERO);
        while let Some(action) = machine.poll_action() {
            if let Action::NameTaken { nodes, .. } = action {
                namesakes = namesakes.max(nodes.len());
            }
        }
    }
    assert!(namesakes > 1 && namesakes < 100, "one name is told of with {namesakes} members");
    assert_eq!(machine.members().count(), MEMBERS_MAX + 1);
    meet(&mut machine, record(3, Incarnation { starts: 1, refutations: 0 }));
    assert!(machine.member(&NodeId([3; 16])).is_some(), "who is there is a member");
    assert!(machine.member(&NodeId([PEER; 16])).is_some());
    assert_eq!(machine.members().count(), MEMBERS_MAX + 1);
}

#[test]
fn nobody_is_failed_while_a_large_zone_turns_suspect_at_once() {
    let mut machine = machine();
    meet(&mut machine, record(PEER, Incarnation { starts: 1, refutations: 0 }));
    machine.handle_message(NodeId([PEER; 16]), Via::Stream, crowd(1..1_000), Instant::ZERO);
    let Message::Sync { updates, .. } = crowd(1..500) else { return };
    let suspects = updates.into_iter().map(|update| match update {
        Update::Full { record, .. } => {
            let standing = Standing { status: Status::Suspect, accuser: Some(NodeId([PEER; 16])), ..Standing::ALIVE };
            Update::Full { record, standing }
        }
        brief @ Update::Brief { .. } => brief,
    });
    let message = Message::Sync { mask: 0, answer: false, updates: suspects.collect() };
    machine.handle_message(NodeId([PEER; 16]), Via::Stream, message, Instant::ZERO);
    let longest = Duration::from_secs(72);
    let mut first = None;
    while let Some((at, _)) = machine.poll_timeout().filter(|_| first.is_none()) {
        machine.handle_timeout(at);
        while let Some(action) = machine.poll_action() {
            if matches!(action, Action::Changed { to: Status::Failed, .. }) {
                first.get_or_insert(at);
            }
        }
    }
    let first = first.map(|at| at.since(Instant::ZERO));
    assert!(first.is_some_and(|first| first > longest + Duration::from_secs(20)), "{first:?}");
}

#[test]
fn what_breaks_a_limit_is_counted_and_dropped() {
    let mut machine = machine();
    let peer = NodeId([2; 16]);
    let mut long = record(2, Incarnation::default());
    long.name = "x".repeat(1000);
    let mut many = record(2, Incarnation::default());
    many.addresses = vec![Address::from("h:1"); 9];
    let digest = |record: Record, buckets| Message::SyncDigest { record: record.into(), answer: true, buckets };
    let short = digest(record(2, Incarnation::default()), vec![0; 3]);
    let foreign = digest(record(3, Incarnation::default()), vec![0; BUCKETS]);
    let bad = [digest(long, vec![0; BUCKETS]), digest(many, vec![0; BUCKETS]), short, foreign];
    let expected = bad.len() as u64;
    for message in bad {
        machine.handle_message(peer, Via::Stream, message, Instant::ZERO);
    }
    assert_eq!(machine.stats().invalid, expected);
    assert_eq!(machine.members().count(), 1);
}

#[test]
fn a_record_too_long_for_a_datagram_is_never_sent_as_one() {
    let mut machine = machine();
    let now = Instant::ZERO;
    for byte in 2..40 {
        let mut long = record(byte, Incarnation::default());
        for label in [&mut long.name, &mut long.zone, &mut long.version, &mut long.url] {
            *label = "x".repeat(256);
        }
        let message = Message::SyncDigest { record: long.into(), answer: false, buckets: vec![0; BUCKETS] };
        machine.on_session_opened(NodeId([byte; 16]), Route::Accepted, now);
        machine.handle_message(NodeId([byte; 16]), Via::Stream, message, now);
        machine.on_datagram_verified(NodeId([byte; 16]), now);
    }
    let (mut told, mut seen) = (0, now);
    for _ in 0..200 {
        seen = machine.poll_timeout().map_or(seen, |(at, _)| at).max(seen + Duration::from_millis(1));
        machine.handle_timeout(seen);
        while let Some(action) = machine.poll_action() {
            if let knot_engine::membership::Action::Send { via, message, .. } = action {
                assert!(via == Via::Stream || message.encoded_bytes() <= 1_100);
                told += usize::from(matches!(message, Message::Gossip { .. }));
            }
        }
    }
    assert!(told > 0);
}

#[test]
fn no_bytes_make_it_panic() {
    fn survives(chunks: Vec<Vec<u8>>) -> bool {
        let mut machine = machine();
        for (at, bytes) in chunks.iter().enumerate() {
            let now = Instant::from_micros(at as u64 * 700_000);
            if let Ok(message) = postcard::from_bytes::<Message>(bytes) {
                machine.handle_message(NodeId([2; 16]), Via::Datagram, message, now);
            }
            machine.handle_timeout(now);
            while machine.poll_action().is_some() {}
        }
        true
    }
    // A list that claims to hold four thousand million updates.
    assert!(postcard::from_bytes::<Message>(&[5, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    QuickCheck::new().tests(2_000).quickcheck(survives as fn(Vec<Vec<u8>>) -> bool);
}

#[test]
fn a_denial_is_told_again_to_whoever_missed_it() {
    let mut machine = machine();
    let peer = NodeId([PEER; 16]);
    let known = about_full(record(PEER, Incarnation { starts: 1, refutations: 0 }));
    machine.handle_message(peer, Via::Stream, known, Instant::ZERO);
    machine.on_session_opened(peer, Route::Accepted, Instant::ZERO);
    let accused = about(ME, 1, Incarnation { starts: 1, refutations: 0 }, Status::Suspect);
    let denials = |machine: &mut Membership, at: Duration| {
        machine.handle_message(peer, Via::Stream, accused.clone(), Instant::ZERO + at);
        let mut denials = 0;
        while let Some(action) = machine.poll_action() {
            if let Action::Send { to, message: Message::Gossip { updates }, .. } = action {
                let denied = |update: &Update| format!("{update:?}").contains("refutations: 1");
                denials += usize::from(to == peer && updates.iter().any(denied));
            }
        }
        denials
    };
    denials(&mut machine, Duration::ZERO);
    assert_eq!(machine.me().record.incarnation.refutations, 1, "it is denied once");
    assert_eq!(denials(&mut machine, Duration::from_secs(60)), 1, "and told again to who has not heard");
    assert_eq!(denials(&mut machine, Duration::from_millis(60_100)), 0, "not all the time");
    assert_eq!(denials(&mut machine, Duration::from_secs(61)), 1);
    assert_eq!(machine.me().record.incarnation.refutations, 1);
}

fn about_full(record: Record) -> Message {
    Message::Gossip { updates: vec![Update::Full { record: record.into(), standing: Standing::ALIVE }] }
}
