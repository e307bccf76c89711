//! Bytes that servers send each other.

use bytes::Bytes;
use knot_engine::documents::{DocumentId, Scope};
use knot_engine::membership::{BUCKETS, Message, Record, Standing, Update};
use knot_engine::seal::{ClusterKey, Datagrams};
use knot_engine::session::{Role, Session};
use knot_engine::wire::{Differences, DocumentChanges, Frame, Packet, Root, Wanted};
use knot_engine::{Address, ChangeHash, CircuitId, ClusterId, Incarnation, Span, Step, Sum};
use knot_fuzz::session::{agreed, session as end};
use knot_fuzz::wire::{Case, boot, key, node};

use super::Seed;

pub(crate) fn wire() -> Vec<Seed> {
    let (plain, folded) = frames();
    let bomb = [9, 0, 0, 0, 1, 0, 0, 16, 0, 31, 0, 1, 0];
    let mut seeds = vec![
        ("datagram-sealed", Case::SealedDatagram(&datagram(Some(key()))).input(), 1),
        ("datagram-bare", Case::BareDatagram(&datagram(None)).input(), 1),
        ("datagram-short", Case::SealedDatagram(&datagram(None)[..30]).input(), 0),
        ("frames", Case::Frames(&in_portions_of(8, &plain)).input(), 3),
        ("frame-folded", Case::Frames(&in_portions_of(256, &folded)).input(), 1),
        ("frame-bomb", Case::Frames(&in_portions_of(256, &bomb)).input(), 0),
        ("message-packet", Case::Message(&packet()).input(), 2),
        ("message-of-a-later-version", Case::Message(&[200, 1, 2, 3]).input(), 0),
    ];
    seeds.extend(messages().into_iter().map(|(name, frame)| {
        // What membership says is a datagram's content too.
        let count = if matches!(frame, Frame::Membership(..)) { 2 } else { 1 };
        (name, Case::Message(&frame.encode()).input(), count)
    }));
    seeds
}

pub(crate) fn session() -> Vec<Seed> {
    use knot_fuzz::session::Case;
    let [hello, answer, last] = handshake();
    let segments = segments();
    let mut altered = segments.clone();
    altered[20] ^= 1;
    let whole = in_portions_of(hello.len(), &[&hello[..], &last].concat());
    let said = [&[2; 16][..], &[3; 16], &[0, 1]].concat();
    let with_frames = [&in_two_bytes(&said)[..], &in_two_bytes(b"a frame"), &in_two_bytes(&[b'x'; 600])].concat();
    vec![
        ("hello", Case::Responder(&in_portions_of(7, &hello)).input(), 0),
        ("whole", Case::Responder(&whole).input(), 2),
        ("answer", Case::Initiator(&in_portions_of(256, &answer)).input(), 1),
        ("segments", Case::Segments(&in_portions_of(9, &segments)).input(), 4),
        ("segments-cut", Case::Segments(&in_portions_of(9, &segments[..30])).input(), 1),
        ("segments-altered", Case::Segments(&in_portions_of(9, &altered)).input(), 1),
        ("member", Case::Member(&with_frames).input(), 3),
        ("member-accepting", Case::AcceptingMember(&with_frames).input(), 3),
        ("member-says-nothing", Case::Member(&in_two_bytes(&[])).input(), 0),
        ("member-says-more", Case::Member(&in_two_bytes(&[&said[..], &[0]].concat())).input(), 0),
        ("member-says-too-much", Case::Member(&in_two_bytes(&[7; 600])).input(), 0),
        ("stranger", Case::Stranger(&[7; 32]).input(), 0),
    ]
}

fn in_two_bytes(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap();
    [&len.to_le_bytes()[..], bytes].concat()
}

fn in_portions_of(bytes: usize, stream: &[u8]) -> Vec<u8> {
    let portion = u8::try_from(bytes - 1).unwrap();
    [&[portion], stream].concat()
}

fn datagram(key: Option<ClusterKey>) -> Vec<u8> {
    let mut theirs = Datagrams::new(key.map(Into::into), node(1), boot(1));
    theirs.seal(node(2), boot(2), b"a body").unwrap().to_vec()
}

fn packet() -> Vec<u8> {
    Packet { message: Message::Vouch { seq: 7 }, roots: Vec::new() }.encode().to_vec()
}

fn document() -> DocumentId {
    DocumentId::new(Scope::Zone("au".into()), "users", "ada").unwrap()
}

fn changes() -> Vec<DocumentChanges> {
    vec![DocumentChanges { document: document(), changes: vec![Bytes::from_static(&[1; 40])] }]
}

/// One of every kind.
fn messages() -> Vec<(&'static str, Frame)> {
    let sum = Sum { count: 3, sum: 1 << 100 };
    let record = Record {
        node: node(1),
        boot: boot(1),
        incarnation: Incarnation { starts: 3, refutations: 1 },
        name: "n1".to_owned(),
        zone: "au".to_owned(),
        addresses: vec![Address::from("n1:3100")],
        version: "1".to_owned(),
        url: "http://n1:3000".to_owned(),
    };
    let updates = vec![Update::Full { record: record.clone().into(), standing: Standing::ALIVE }];
    let heads = vec![(document(), vec![ChangeHash([7; 32])])];
    let digest = Message::SyncDigest { record: record.into(), answer: true, buckets: vec![5; BUCKETS] };
    let sync = Message::Sync { mask: u64::MAX, answer: false, updates: updates.clone() };
    let differences = Differences { documents: heads.clone(), deeper: vec![1], whole: vec![2] };
    let range = Wanted::Range { scope: Scope::Global, prefix: vec![1], after: Some(Bytes::from_static(&[2; 28])) };
    let span = Span { from: node(1), to: node(2) };
    let circuit = CircuitId { opener: node(1), target: node(2), number: 1 << 60 };
    vec![
        (
            "message-membership",
            Frame::Membership(Message::Gossip { updates }, vec![Root { scope: Scope::Global, sum }]),
        ),
        ("message-digest", Frame::Membership(digest, Vec::new())),
        ("message-sync", Frame::Membership(sync, Vec::new())),
        ("message-push", Frame::Push { seq: 1, ack: true, changes: changes() }),
        ("message-relay", Frame::Relay { seq: 1, ack: false, span, changes: changes() }),
        ("message-held", Frame::Held { seq: 300 }),
        ("message-roots", Frame::Roots(vec![Root { scope: Scope::Global, sum }])),
        (
            "message-compare",
            Frame::Compare { request: 1, scope: Scope::Global, prefix: vec![1, 2], sums: vec![sum; 256] },
        ),
        ("message-differences", Frame::Differences { request: 1, differences }),
        ("message-want", Frame::Want { request: 1, wanted: Wanted::Documents { documents: heads, after: None } }),
        ("message-want-range", Frame::Want { request: 2, wanted: range }),
        (
            "message-window",
            Frame::Window { request: 2, changes: changes(), next: Some(Bytes::from_static(b"further")) },
        ),
        ("message-evicted", Frame::Evicted),
        ("message-circuit", Frame::Circuit { circuit, step: Step::Bytes(Bytes::from_static(b"sealed")) }),
        ("message-circuit-room", Frame::Circuit { circuit, step: Step::Room(32 << 10) }),
        ("message-adopt", Frame::Adopt { cluster: ClusterId([1; 16]), secret: [2; 32] }),
    ]
}

/// The three messages, the last one with a frame behind it.
fn handshake() -> [Vec<u8>; 3] {
    let (mut initiator, mut responder) = (end(Role::Initiator), end(Role::Responder));
    let pass = |from: &mut Session, to: &mut Session| {
        let bytes = from.poll_transmit().unwrap();
        to.handle_bytes(&bytes).unwrap();
        bytes.to_vec()
    };
    let hello = pass(&mut initiator, &mut responder);
    let answer = pass(&mut responder, &mut initiator);
    initiator.send_frame(b"a frame").unwrap();
    let last = pass(&mut initiator, &mut responder);
    [hello, answer, last]
}

fn segments() -> Vec<u8> {
    let mut session = agreed();
    for frame in [&b"one"[..], &[b'2'; 600], b""] {
        session.send_frame(frame).unwrap();
    }
    session.poll_transmit().unwrap().to_vec()
}

/// Three plain frames, and one folded frame.
fn frames() -> (Vec<u8>, Vec<u8>) {
    let mut plain = Vec::new();
    for length in [0_u8, 5, 60] {
        plain.extend([length + 1, 0, 0, 0, 0]);
        plain.extend(vec![b'x'; length.into()]);
    }
    // 600 unfolded bytes: one literal, then 594 copies of it, then five literals.
    let block = [31, b'x', 1, 0, 255, 255, 65, 80, b'x', b'x', b'x', b'x', b'x'];
    let mut folded = vec![18, 0, 0, 0, 1, 88, 2, 0, 0];
    folded.extend(block);
    (plain, folded)
}
