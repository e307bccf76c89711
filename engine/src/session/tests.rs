use quickcheck::quickcheck;

use super::*;
use crate::seal::ClusterKey;
use crate::{Boot, ClusterId, NodeId, NodeKey};

const KEY: &str = "NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl";
const OTHER_KEY: &str = "0123456789abcdefghijklmnopqrstuv";

/// What the tests need to know of one side.
#[derive(Clone, Copy)]
struct Side {
    key: &'static str,
    cluster: &'static str,
    secret: u8,
    random: u8,
    compression: bool,
}

const ALICE: Side = Side { key: KEY, cluster: "knot", secret: 1, random: 11, compression: false };
const BOB: Side = Side { key: KEY, cluster: "knot", secret: 2, random: 12, compression: false };

impl Side {
    fn identity(self) -> PeerIdentity {
        PeerIdentity {
            public: NodeKey::from_bytes([self.secret; 32]).public(),
            boot: Boot([self.secret; 16]),
            cluster: ClusterId([3; 16]),
            empty: self.secret == 2,
            wire: 1,
        }
    }

    fn session(self, role: Role) -> Session {
        let config = Config {
            keys: key(self.key).into(),
            cluster: self.cluster.to_owned(),
            identity: self.identity(),
            node_key: NodeKey::from_bytes([self.secret; 32]),
            compression: self.compression,
        };
        Session::new(role, config, [self.random; 32])
    }
}

fn key(text: &str) -> ClusterKey {
    ClusterKey::new(text).unwrap()
}

/// Alice opens a stream to Bob.
fn start() -> (Session, Session) {
    (ALICE.session(Role::Initiator), BOB.session(Role::Responder))
}

fn pass(from: &mut Session, to: &mut Session) -> Bytes {
    let bytes = from.poll_transmit().unwrap();
    to.handle_bytes(&bytes).unwrap();
    bytes
}

fn shake_hands(initiator: &mut Session, responder: &mut Session) {
    pass(initiator, responder);
    pass(responder, initiator);
    pass(initiator, responder);
    assert!(initiator.is_established() && responder.is_established());
    assert_eq!(initiator.poll_transmit(), None);
    assert_eq!(responder.poll_transmit(), None);
    initiator.poll_event().unwrap();
    responder.poll_event().unwrap();
}

fn established(compression: bool) -> (Session, Session) {
    let alice = Side { compression, ..ALICE };
    let mut initiator = alice.session(Role::Initiator);
    let mut responder = BOB.session(Role::Responder);
    shake_hands(&mut initiator, &mut responder);
    (initiator, responder)
}

fn frames(session: &mut Session) -> Vec<Bytes> {
    std::iter::from_fn(|| session.poll_event())
        .map(|event| match event {
            SessionEvent::Frame(frame) => frame,
            SessionEvent::Established(peer) => panic!("established again with {peer:?}"),
        })
        .collect()
}

/// Bytes in which nothing repeats.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise
}

/// One segment a frame, as they go over the wire.
fn segments(from: &mut Session, frames: &[&[u8]]) -> Vec<Bytes> {
    let sealed = frames.iter().map(|frame| {
        from.send_frame(frame).unwrap();
        from.poll_transmit().unwrap()
    });
    sealed.collect()
}

fn assert_silent(session: &mut Session) {
    assert_eq!(session.poll_transmit(), None);
    assert_eq!(session.pending_transmit_bytes(), 0);
    assert_eq!(session.poll_event(), None);
    assert!(!session.is_established());
}

#[test]
fn both_sides_learn_who_the_other_is() {
    let (mut alice, mut bob) = start();
    assert_eq!(bob.poll_transmit(), None, "the responder spoke first");
    pass(&mut alice, &mut bob);
    pass(&mut bob, &mut alice);
    let event = SessionEvent::Established(BOB.identity());
    assert_eq!(alice.poll_event(), Some(event));
    assert!(!bob.is_established());
    pass(&mut alice, &mut bob);
    let event = SessionEvent::Established(ALICE.identity());
    assert_eq!(bob.poll_event(), Some(event));
    assert_eq!(bob.peer().map(PeerIdentity::node), Some(ALICE.identity().node()));
    assert_eq!(alice.peer().map(PeerIdentity::node), Some(NodeId::of_public(&BOB.identity().public)));
}

#[test]
fn frames_go_both_ways_and_may_follow_the_handshake_at_once() {
    let (mut alice, mut bob) = start();
    assert_eq!(alice.send_frame(b"early"), Err(SendError::NotEstablished));
    pass(&mut alice, &mut bob);
    pass(&mut bob, &mut alice);
    alice.send_frame(b"one").unwrap();
    alice.send_frame(b"").unwrap();
    pass(&mut alice, &mut bob);
    bob.poll_event().unwrap();
    assert_eq!(frames(&mut bob), [&b"one"[..], b""]);
    bob.send_frame(b"two").unwrap();
    pass(&mut bob, &mut alice);
    alice.poll_event().unwrap();
    assert_eq!(frames(&mut alice), [&b"two"[..]]);
}

#[test]
fn a_stream_to_oneself_is_established() {
    let mut initiator = ALICE.session(Role::Initiator);
    let mut responder = Side { random: 99, ..ALICE }.session(Role::Responder);
    shake_hands(&mut initiator, &mut responder);
    assert_eq!(initiator.peer(), Some(&ALICE.identity()));
}

#[test]
fn a_wrong_key_meets_silence_and_is_named() {
    let mallory = Side { key: OTHER_KEY, ..ALICE };
    let mut initiator = mallory.session(Role::Initiator);
    let mut bob = BOB.session(Role::Responder);
    let mut hello = initiator.poll_transmit().unwrap().to_vec();
    let expected = SessionError::WrongKey { theirs: key(OTHER_KEY).id(), ours: key(KEY).id() };
    assert_eq!(bob.handle_bytes(&hello), Err(expected));
    assert_silent(&mut bob);
    assert_silent(&mut initiator);
    assert_eq!(bob.handle_bytes(&hello), Err(SessionError::Failed));

    let mut bob = BOB.session(Role::Responder);
    hello[1..5].copy_from_slice(&key(KEY).id().0);
    assert_eq!(bob.handle_bytes(&hello), Err(SessionError::OtherCluster));
    assert_silent(&mut bob);

    let mut elsewhere = Side { cluster: "other", ..ALICE }.session(Role::Initiator);
    let mut bob = BOB.session(Role::Responder);
    let hello = elsewhere.poll_transmit().unwrap();
    assert_eq!(bob.handle_bytes(&hello), Err(SessionError::OtherCluster));
    assert_silent(&mut bob);
}

#[test]
fn a_responder_with_a_wrong_key_learns_nothing() {
    let mallory = Side { key: OTHER_KEY, ..BOB };
    let mut accomplice = Side { key: OTHER_KEY, ..ALICE }.session(Role::Initiator);
    let mut responder = mallory.session(Role::Responder);
    pass(&mut accomplice, &mut responder);
    let answer = responder.poll_transmit().unwrap();

    let mut alice = ALICE.session(Role::Initiator);
    alice.poll_transmit().unwrap();
    let expected = PeerMisbehaved::HandshakeForged.into();
    assert_eq!(alice.handle_bytes(&answer), Err(expected));
    assert_silent(&mut alice);
}

#[test]
fn who_holds_several_keys_starts_with_the_first_and_takes_any() {
    let config = |keys: KeyRing, secret: u8| Config {
        keys,
        cluster: "knot".to_owned(),
        identity: Side { secret, ..ALICE }.identity(),
        node_key: NodeKey::from_bytes([secret; 32]),
        compression: false,
    };
    let both = || KeyRing::new(key(OTHER_KEY), [key(KEY), key(KEY)]);
    assert_eq!(both().iter().count(), 2);
    let session = |keys, role, secret| Session::new(role, config(keys, secret), [secret; 32]);
    let old = || KeyRing::from(key(KEY));
    shake_hands(&mut session(old(), Role::Initiator, 1), &mut session(both(), Role::Responder, 2));
    shake_hands(&mut session(both(), Role::Initiator, 1), &mut session(both(), Role::Responder, 2));
    let hello = session(both(), Role::Initiator, 1).poll_transmit().unwrap();
    let refused = session(old(), Role::Responder, 2).handle_bytes(&hello);
    assert!(matches!(refused, Err(SessionError::WrongKey { .. })));
}

#[test]
fn keys_are_renewed_on_either_side_at_any_time() {
    let (mut alice, mut bob) = established(false);
    for turn in 0..20_u8 {
        let (from, to) = if turn % 3 == 0 { (&mut bob, &mut alice) } else { (&mut alice, &mut bob) };
        from.send_frame(&[turn; 100]).unwrap();
        from.renew_key().unwrap();
        from.send_frame(&[turn; 70_000]).unwrap();
        from.renew_key().unwrap();
        pass(from, to);
        assert_eq!(frames(to), [&[turn; 100][..], &[turn; 70_000]]);
    }
}

#[test]
fn a_recorded_change_of_keys_ends_the_session() {
    let (mut alice, mut bob) = established(false);
    alice.renew_key().unwrap();
    let change = pass(&mut alice, &mut bob);
    assert_eq!(change.len(), 18);
    assert_eq!(bob.handle_bytes(&change), Err(PeerMisbehaved::SegmentForged.into()));
}

/// The other side is plain snow with its own curve, cipher and randomness, so the pattern, the prologue and the messages
/// are what the documentation says.
#[test]
fn the_handshake_is_the_noise_protocol() {
    let alice_key = NodeKey::from_bytes([1; 32]);
    let (psk, id) = (key(KEY).derive("knot 2026-11-22 session psk v2", &[b"knot"]), key(KEY).id().0);
    let prologue = [&[SESSION_VERSION], &id[..], b"knot"].concat();
    let mut plain = snow::Builder::new("Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s".parse().unwrap())
        .local_private_key(&alice_key.secret())
        .unwrap()
        .psk(0, &psk)
        .unwrap()
        .prologue(&prologue)
        .unwrap()
        .build_initiator()
        .unwrap();
    let mut bob = BOB.session(Role::Responder);
    let mut message = [0; 512];
    let written = plain.write_message(&[], &mut message).unwrap();
    bob.handle_bytes(&[&[SESSION_VERSION], &id[..], &message[..written]].concat()).unwrap();

    let answer = bob.poll_transmit().unwrap();
    assert_eq!(usize::from(u16::from_le_bytes([answer[0], answer[1]])), answer.len() - 2);
    let read = plain.read_message(&answer[2..], &mut message).unwrap();
    assert_eq!(plain.get_remote_static(), Some(&BOB.identity().public[..]));
    let said = [&[2; 16][..], &[3; 16], &[1, 1]].concat();
    assert_eq!(message[..read], said, "boot, cluster, empty, wire");

    let written = plain.write_message(&said, &mut message).unwrap();
    bob.handle_bytes(&u16::try_from(written).unwrap().to_le_bytes()).unwrap();
    bob.handle_bytes(&message[..written]).unwrap();
    let Some(SessionEvent::Established(peer)) = bob.poll_event() else { panic!("not established") };
    assert_eq!(peer.public, alice_key.public());
}

#[test]
fn something_else_than_a_hello_is_refused_at_once() {
    let mut bob = BOB.session(Role::Responder);
    assert_eq!(bob.handle_bytes(b"G"), Err(SessionError::Version { theirs: b'G' }));
    assert_silent(&mut bob);
    let (mut alice, mut bob) = start();
    let hello = alice.poll_transmit().unwrap();
    let early = [&hello[..], b"more"].concat();
    let expected = PeerMisbehaved::TooEarly { bytes: 4 }.into();
    assert_eq!(bob.handle_bytes(&early), Err(expected));
    assert_silent(&mut bob);
    let mut alice = ALICE.session(Role::Initiator);
    alice.poll_transmit().unwrap();
    let expected = PeerMisbehaved::IdentityTooLong { bytes: 0xffff }.into();
    assert_eq!(alice.handle_bytes(&[0xff; 40]), Err(expected));
    assert_silent(&mut alice);
}

#[test]
fn every_flipped_bit_of_the_handshake_is_met_with_silence() {
    let (mut alice, mut bob) = start();
    let messages = [pass(&mut alice, &mut bob), pass(&mut bob, &mut alice), pass(&mut alice, &mut bob)];
    for (step, message) in messages.iter().enumerate() {
        for bit in 0..message.len() * 8 {
            let mut altered = message.to_vec();
            altered[bit / 8] ^= 1 << (bit % 8);
            let (mut alice, mut bob) = start();
            let victim = match step {
                0 => &mut bob,
                1 => {
                    alice.poll_transmit().unwrap();
                    &mut alice
                }
                _ => {
                    pass(&mut alice, &mut bob);
                    bob.poll_transmit().unwrap();
                    &mut bob
                }
            };
            // A length that grew makes it wait for more, which verifies no better.
            let outcome = victim.handle_bytes(&altered);
            if outcome.is_ok() {
                assert!(victim.handle_bytes(&[0; 256]).is_err(), "message {step}, bit {bit}");
            }
            assert_silent(victim);
        }
    }
}

#[test]
fn every_flipped_bit_of_a_segment_ends_the_session() {
    let (mut alice, _) = established(false);
    let segment = &segments(&mut alice, &[b"a frame"])[0];
    for bit in 0..segment.len() * 8 {
        let (_, mut bob) = established(false);
        let mut altered = segment.to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        if bob.handle_bytes(&altered).is_ok() {
            assert!(bob.handle_bytes(&[0; 1 << 16]).is_err(), "bit {bit}");
        }
        assert_silent(&mut bob);
    }
}

#[test]
fn bytes_may_come_one_at_a_time() {
    let (mut alice, mut bob) = start();
    let trickle = |from: &mut Session, to: &mut Session| {
        for byte in from.poll_transmit().unwrap() {
            to.handle_bytes(&[byte]).unwrap();
        }
    };
    trickle(&mut alice, &mut bob);
    trickle(&mut bob, &mut alice);
    alice.send_frame(b"one").unwrap();
    alice.send_frame(&[7; 70_000]).unwrap();
    trickle(&mut alice, &mut bob);
    bob.poll_event().unwrap();
    assert_eq!(frames(&mut bob), [&b"one"[..], &[7; 70_000]]);
}

#[test]
fn segments_moved_repeated_or_left_out_end_the_session() {
    for order in [&[1, 0, 2][..], &[0, 0], &[0, 2], &[1], &[0, 1, 0]] {
        let (mut alice, mut bob) = established(false);
        let segments = segments(&mut alice, &[b"zero", b"one", b"two"]);
        let outcome: Result<(), SessionError> =
            order.iter().try_for_each(|&at: &usize| bob.handle_bytes(&segments[at]));
        assert_eq!(outcome, Err(PeerMisbehaved::SegmentForged.into()), "{order:?}");
        assert!(!bob.is_established());
        assert_eq!(bob.poll_transmit(), None);
    }
}

#[test]
fn what_one_side_sent_does_not_open_at_that_side() {
    let (mut alice, _) = established(false);
    let segment = &segments(&mut alice, &[b"a frame"])[0];
    let expected = PeerMisbehaved::SegmentForged.into();
    assert_eq!(alice.handle_bytes(segment), Err(expected));
    let mut alice = ALICE.session(Role::Initiator);
    let hello = alice.poll_transmit().unwrap();
    let outcome = alice.handle_bytes(&[&hello[..], &[0; 300]].concat());
    assert!(outcome.is_err());
    assert_silent(&mut alice);
}

#[test]
fn a_recorded_stream_gets_nowhere_in_another_session() {
    let (mut alice, mut bob) = start();
    let hello = pass(&mut alice, &mut bob);
    pass(&mut bob, &mut alice);
    alice.send_frame(b"a frame").unwrap();
    let rest = pass(&mut alice, &mut bob);

    let mut bob = Side { random: 98, ..BOB }.session(Role::Responder);
    bob.handle_bytes(&hello).unwrap();
    bob.poll_transmit().unwrap();
    let expected = PeerMisbehaved::HandshakeForged.into();
    assert_eq!(bob.handle_bytes(&rest), Err(expected));
    assert_silent(&mut bob);
}

#[test]
fn a_cut_stream_yields_whole_frames_only() {
    let (mut alice, mut bob) = established(false);
    alice.send_frame(b"whole").unwrap();
    let first = alice.poll_transmit().unwrap();
    alice.send_frame(b"cut").unwrap();
    let second = alice.poll_transmit().unwrap();
    bob.handle_bytes(&first).unwrap();
    bob.handle_bytes(&second[..second.len() - 1]).unwrap();
    assert_eq!(frames(&mut bob), [&b"whole"[..]]);
}

#[test]
fn a_segment_that_is_not_whole_is_named_until_it_is() {
    let (mut alice, mut bob) = established(false);
    let sent = segments(&mut alice, &[b"one", b"two", b"three"]);
    assert_eq!(bob.unfinished_segment(), None);
    bob.handle_bytes(&sent[0][..1]).unwrap();
    assert_eq!(bob.unfinished_segment(), Some(0));
    bob.handle_bytes(&[&sent[0][1..], &sent[1][..9]].concat()).unwrap();
    assert_eq!(bob.unfinished_segment(), Some(1));
    bob.handle_bytes(&sent[1][9..]).unwrap();
    assert_eq!(bob.unfinished_segment(), None);
    let mut longer = sent[2].to_vec();
    longer[1] = 0xff;
    bob.handle_bytes(&longer).unwrap();
    assert_eq!(bob.unfinished_segment(), Some(2), "only the bytes that it claims would end the session");
    assert_eq!(frames(&mut bob).len(), 2);
}

#[test]
fn frames_that_verified_outlive_the_session() {
    let (mut alice, mut bob) = established(false);
    let mut stream = segments(&mut alice, &[b"good", b"bad"]).concat();
    *stream.last_mut().unwrap() ^= 1;
    bob.send_frame(b"an answer").unwrap();
    assert!(bob.handle_bytes(&stream).is_err());
    assert_eq!(frames(&mut bob), [&b"good"[..]]);
    assert_silent(&mut bob);
    assert_eq!(bob.send_frame(b"more"), Err(SendError::NotEstablished));
}

#[test]
fn a_frame_may_be_as_long_as_the_limit_and_no_longer() {
    let (mut alice, mut bob) = established(false);
    let longest = noise(FRAME_BYTES_MAX);
    alice.send_frame(&longest).unwrap();
    alice.send_frame(b"next").unwrap();
    for portion in alice.poll_transmit().unwrap().chunks(10_000) {
        bob.handle_bytes(portion).unwrap();
    }
    assert_eq!(frames(&mut bob), [&longest[..], b"next"]);
    let bytes = FRAME_BYTES_MAX + 1;
    let expected = Err(SendError::FrameTooLong { bytes });
    assert_eq!(alice.send_frame(&noise(bytes)), expected);
    alice.send_frame(b"still there").unwrap();
    pass(&mut alice, &mut bob);
    assert_eq!(frames(&mut bob), [&b"still there"[..]]);
}

#[test]
fn what_waits_on_either_side_is_bounded() {
    let (mut alice, mut bob) = established(true);
    let (noise, zeroes) = (noise(FRAME_BYTES_MAX), vec![0; FRAME_BYTES_MAX]);
    while alice.send_frame(&noise).is_ok() {
        assert!(alice.pending_transmit_bytes() <= TRANSMIT_BYTES_MAX);
    }
    assert_eq!(alice.send_frame(&noise), Err(SendError::Full));
    pass(&mut alice, &mut bob);
    frames(&mut bob);

    while bob.handle_bytes(&[]).is_ok() {
        alice.send_frame(&zeroes).unwrap();
        pass(&mut alice, &mut bob);
    }
    assert_eq!(bob.handle_bytes(&[]), Err(SessionError::Unread));
    let waiting: usize = frames(&mut bob).iter().map(Bytes::len).sum();
    assert!(waiting <= UNREAD_BYTES_MAX + FRAME_BYTES_MAX);
    alice.send_frame(b"on we go").unwrap();
    pass(&mut alice, &mut bob);
    assert_eq!(frames(&mut bob), [&b"on we go"[..]]);
}

#[test]
fn small_frames_share_a_segment() {
    let (mut alice, mut bob) = established(false);
    for _ in 0..100 {
        alice.send_frame(&[7; 100]).unwrap();
    }
    let bytes = pass(&mut alice, &mut bob).len();
    assert_eq!(bytes, 100 * (100 + 5) + 2 + 16);
    assert_eq!(frames(&mut bob).len(), 100);
}

#[test]
fn frames_shrink_where_that_helps() {
    let wire_bytes = |compression, frame: &[u8]| {
        let (mut alice, mut bob) = established(compression);
        alice.send_frame(frame).unwrap();
        let bytes = pass(&mut alice, &mut bob).len();
        assert_eq!(frames(&mut bob), [frame]);
        bytes
    };
    let text = br#"{"name": "ada", "zone": "gb"}, "#.repeat(100);
    assert_eq!(wire_bytes(false, &text), text.len() + 5 + 18);
    assert!(wire_bytes(true, &text) < text.len() / 5);
    assert_eq!(wire_bytes(true, &text[..511]), 511 + 5 + 18);
    assert!(wire_bytes(true, &text[..512]) < 512);
    let noise = noise(10_000);
    assert_eq!(wire_bytes(true, &noise), noise.len() + 5 + 18);
    assert!(wire_bytes(true, &vec![0; FRAME_BYTES_MAX]) < 10_000);
}

fn decode(stream: &[u8]) -> Result<Option<Bytes>, PeerMisbehaved> {
    let mut decoder = FrameDecoder::default();
    decoder.handle_bytes(Bytes::copy_from_slice(stream));
    decoder.poll_frame()
}

fn framed(codec: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let length = u32::try_from(content.len() + 1).unwrap().to_le_bytes();
    [&length[..], &[codec], &content].concat()
}

#[test]
fn lengths_and_codecs_are_checked_before_anything_is_allocated() {
    let long = |bytes: usize| u32::try_from(bytes).unwrap().to_le_bytes();
    assert_eq!(decode(&long(FRAME_BYTES_MAX + 1)), Ok(None));
    let bytes = FRAME_BYTES_MAX + 1;
    let expected = Err(PeerMisbehaved::FrameTooLong { bytes });
    assert_eq!(decode(&long(bytes + 1)), expected);
    assert_eq!(decode(&[0; 4]), Err(PeerMisbehaved::FrameWithoutCodec));
    assert_eq!(decode(&framed(2, &[b"?"])), Err(PeerMisbehaved::Codec { codec: 2 }));
    assert_eq!(decode(&framed(1, &[&long(bytes), &[0; 9_000]])), expected);
    assert_eq!(decode(&framed(1, &[b"abc"])), Err(PeerMisbehaved::Compression));
}

#[test]
fn a_frame_that_does_not_unfold_to_what_it_says_is_refused() {
    let block = lz4_flex::block::compress(&[7; 1_000]);
    for (said, expected) in [(1_000_u32, true), (999, false), (1_001, false), (1 << 20, false)] {
        let outcome = decode(&framed(1, &[&said.to_le_bytes(), &block]));
        let expected = if expected { Ok(Some(Bytes::from(vec![7; 1_000]))) } else { Err(PeerMisbehaved::Compression) };
        assert_eq!(outcome, expected, "{said}");
    }
    let bomb = lz4_flex::block::compress(&vec![0; FRAME_BYTES_MAX + 1]);
    let limit = u32::try_from(FRAME_BYTES_MAX).unwrap().to_le_bytes();
    assert_eq!(decode(&framed(1, &[&limit, &bomb])), Err(PeerMisbehaved::Compression));
}

quickcheck! {
    fn arbitrary_bytes_are_met_with_silence(bytes: Vec<u8>, portion: u8, hello: bool) -> bool {
        let (mut alice, mut bob) = start();
        alice.poll_transmit().unwrap();
        let id = key(KEY).id().0;
        let head: &[u8] = if hello { &[SESSION_VERSION, id[0], id[1], id[2], id[3]] } else { &[] };
        for victim in [&mut alice, &mut bob] {
            let stream = [head, &bytes].concat();
            for bytes in stream.chunks(usize::from(portion) + 1) {
                if victim.handle_bytes(bytes).is_err() {
                    break;
                }
            }
            assert_silent(victim);
        }
        true
    }

    fn arbitrary_bytes_after_the_handshake_end_it(bytes: Vec<u8>) -> bool {
        let (_, mut bob) = established(false);
        let _ = bob.handle_bytes(&bytes);
        frames(&mut bob).is_empty() && bob.poll_transmit().is_none()
    }

    fn frames_arrive_as_they_were_however_the_stream_is_cut(sent: Vec<(u32, bool)>, portion: u16) -> bool {
        let (mut alice, mut bob) = established(true);
        let noise = noise(200_000);
        let sent: Vec<Vec<u8>> = sent
            .iter()
            .map(|&(bytes, noisy)| match (bytes as usize % 200_000, noisy) {
                (bytes, true) => noise[..bytes].to_vec(),
                (bytes, false) => vec![7; bytes],
            })
            .collect();
        let mut arrived = Vec::new();
        for frame in &sent {
            alice.send_frame(frame).unwrap();
            let flush = frame.len() % 3 == 0 || alice.pending_transmit_bytes() > 1 << 20;
            let bytes = if flush { alice.poll_transmit() } else { None };
            for portion in bytes.unwrap_or_default().chunks(usize::from(portion) + 1) {
                bob.handle_bytes(portion).unwrap();
                arrived.extend(frames(&mut bob));
            }
        }
        bob.handle_bytes(&alice.poll_transmit().unwrap_or_default()).unwrap();
        arrived.extend(frames(&mut bob));
        arrived == sent
    }

    fn arbitrary_streams_of_frames_stay_within_the_limits(stream: Vec<u8>, portion: u8) -> bool {
        let mut decoder = FrameDecoder::default();
        for portion in stream.chunks(usize::from(portion) + 1) {
            decoder.handle_bytes(Bytes::copy_from_slice(portion));
            while let Ok(Some(frame)) = decoder.poll_frame() {
                assert!(frame.len() <= FRAME_BYTES_MAX);
            }
        }
        true
    }
}
