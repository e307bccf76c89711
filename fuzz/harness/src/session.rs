//! One stream, from its first byte: the handshake of either role with a stranger and with somebody who holds the cluster
//! key and says what he likes inside it, and segments after it.
//!
//! The ciphers keep mutated bytes out, so a peer who holds the key is played by Noise itself: the input is what it says of
//! itself and then sends as frames. Segments after a handshake are reached by one of our own that agrees at once.

use bytes::BytesMut;
use knot_engine::session::{
    Agreed, Config, FRAME_BYTES_MAX, Handshake, PeerMisbehaved, Role, SESSION_VERSION, Session, SessionError,
    SessionEvent,
};
use knot_engine::{ClusterId, NodeKey, PeerIdentity};
use snow::{Builder, HandshakeState};

use crate::wire::{boot, key, portions};
use crate::{Script, Target};

/// Two sessions and the frames between them: a stream that arrived is held about four times over, and a frame of a
/// mebibyte may be unfolded from it.
pub const TARGET: Target = Target { name: "session", run, memory_bytes_max: 8 << 20, memory_bytes_per_byte: 96 };

/// The name of the cluster that the sessions belong to.
const CLUSTER: &str = "fuzzed";
const PATTERN: &str = "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s";

/// A stream, and what comes on it.
#[derive(Clone, Copy, Debug)]
pub enum Case<'a> {
    /// What an initiator sends to us. Here and below the first byte is the size of the portions in which bytes come.
    Responder(&'a [u8]),
    /// What a responder sends to us.
    Initiator(&'a [u8]),
    /// Segments after a handshake.
    Segments(&'a [u8]),
    /// A peer of our cluster that opened the stream: what it says of itself behind its length, then its frames, each
    /// behind its length.
    Member(&'a [u8]),
    /// One that accepted the stream.
    AcceptingMember(&'a [u8]),
    /// One that knows the protocol and another key.
    Stranger(&'a [u8]),
}

impl<'a> Case<'a> {
    /// The case that `input` describes; None when it is empty.
    pub fn of(input: &'a [u8]) -> Option<Self> {
        let (choice, bytes) = input.split_first()?;
        Some(match choice % 6 {
            0 => Self::Responder(bytes),
            1 => Self::Initiator(bytes),
            2 => Self::Segments(bytes),
            3 => Self::Member(bytes),
            4 => Self::AcceptingMember(bytes),
            _ => Self::Stranger(bytes),
        })
    }

    /// The input that describes this case.
    pub fn input(self) -> Vec<u8> {
        let (choice, bytes) = match self {
            Self::Responder(bytes) => (0, bytes),
            Self::Initiator(bytes) => (1, bytes),
            Self::Segments(bytes) => (2, bytes),
            Self::Member(bytes) => (3, bytes),
            Self::AcceptingMember(bytes) => (4, bytes),
            Self::Stranger(bytes) => (5, bytes),
        };
        [&[choice], bytes].concat()
    }
}

/// How many events came of it.
fn run(input: &[u8]) -> usize {
    match Case::of(input) {
        Some(Case::Responder(bytes)) => receive(session(Role::Responder), bytes),
        Some(Case::Initiator(bytes)) => receive(session(Role::Initiator), bytes),
        Some(Case::Segments(bytes)) => receive(agreed(), bytes),
        Some(Case::Member(bytes)) => meet(Role::Initiator, bytes),
        Some(Case::AcceptingMember(bytes)) => meet(Role::Responder, bytes),
        Some(Case::Stranger(bytes)) => meet_stranger(bytes),
        None => 0,
    }
}

/// One side of a stream that starts a handshake.
pub fn session(role: Role) -> Session {
    let secret = match role {
        Role::Initiator => 1,
        Role::Responder => 2,
    };
    let node_key = NodeKey::from_bytes([secret; 32]);
    let (keys, cluster) = (key().into(), CLUSTER.to_owned());
    let config = Config { keys, cluster, identity: identity(&node_key), node_key, compression: true };
    Session::new(role, config, [secret + 2; 32])
}

/// A session past its handshake, whose two directions use one key, so that it understands itself.
pub fn agreed() -> Session {
    Session::with_handshake(Box::new(Immediate), true)
}

#[derive(Debug)]
struct Immediate;

impl Handshake for Immediate {
    fn advance(&mut self, _received: &mut BytesMut, _transmit: &mut BytesMut) -> Result<Option<Agreed>, SessionError> {
        let peer = identity(&NodeKey::from_bytes([1; 32]));
        Ok(Some(Agreed { peer, key: key().id(), sending_key: [9; 32], receiving_key: [9; 32] }))
    }
}

fn identity(node_key: &NodeKey) -> PeerIdentity {
    PeerIdentity { public: node_key.public(), boot: boot(1), cluster: ClusterId([3; 16]), empty: false, wire: 1 }
}

fn receive(mut session: Session, bytes: &[u8]) -> usize {
    portions(bytes).map(|portion| take(&mut session, portion)).sum()
}

/// Hands bytes to a session. Returns how many events came of it.
fn take(session: &mut Session, bytes: &[u8]) -> usize {
    session.poll_transmit();
    let failed = session.handle_bytes(bytes).is_err();
    let mut events = 0;
    while let Some(event) = session.poll_event() {
        if let SessionEvent::Frame(frame) = event {
            assert!(frame.len() <= FRAME_BYTES_MAX);
        }
        events += 1;
    }
    if failed {
        assert!(!session.is_established());
        assert_eq!(session.poll_transmit(), None, "it answered what did not verify");
    }
    events
}

/// A stream between an honest session and a peer in `role` that holds the key.
fn meet(role: Role, bytes: &[u8]) -> usize {
    let mut script = Script::new(bytes);
    let said = script.bytes();
    let mut theirs = Session::with_handshake(Box::new(Hostile::new(role, said, psk())), false);
    let mut ours = session(match role {
        Role::Initiator => Role::Responder,
        Role::Responder => Role::Initiator,
    });
    let mut events = shake_hands(&mut ours, &mut theirs);
    if ours.is_established() {
        assert_eq!(ours.peer().map(|peer| peer.public), Some(NodeKey::from_bytes([5; 32]).public()));
        while !script.is_over() {
            if theirs.send_frame(script.bytes()).is_err() {
                break;
            }
            if let Some(bytes) = theirs.poll_transmit() {
                events += take(&mut ours, &bytes);
            }
        }
    }
    events
}

/// A stream to a responder from somebody whose pre-shared key is the input's.
fn meet_stranger(bytes: &[u8]) -> usize {
    let mut psk = [0; 32];
    psk.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let mut theirs = Session::with_handshake(Box::new(Hostile::new(Role::Initiator, &[], psk)), false);
    let mut ours = session(Role::Responder);
    let hello = theirs.poll_transmit().expect("an initiator speaks first");
    assert!(ours.handle_bytes(&hello).is_err(), "another key was taken");
    assert_eq!(ours.poll_transmit(), None, "a stranger was answered");
    assert_eq!(ours.poll_event(), None);
    0
}

/// Carries bytes until neither side has more to say.
fn shake_hands(ours: &mut Session, theirs: &mut Session) -> usize {
    let mut events = 0;
    loop {
        let (said, heard) = (ours.poll_transmit(), theirs.poll_transmit());
        if said.is_none() && heard.is_none() {
            return events;
        }
        if let Some(bytes) = heard {
            let failed = ours.handle_bytes(&bytes).is_err();
            events += std::iter::from_fn(|| ours.poll_event()).count();
            if failed {
                assert_eq!(ours.poll_transmit(), None, "it answered what did not verify");
                return events;
            }
        }
        if let Some(bytes) = said
            && theirs.handle_bytes(&bytes).is_err()
        {
            return events;
        }
    }
}

/// As the protocol derives it from the key of [`key`].
fn psk() -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("knot 2026-11-22 session psk v2");
    hasher.update(b"0123456789abcdefghijklmnopqrstuv");
    hasher.update(CLUSTER.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Noise with a payload of our choice, and no look at the peer's.
struct Hostile {
    state: Option<HandshakeState>,
    said: Vec<u8>,
    begun: bool,
}

impl std::fmt::Debug for Hostile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hostile")
    }
}

impl Hostile {
    /// The longest message of Noise, which is far above what knot takes.
    const MESSAGE_BYTES_MAX: usize = 65_535;
    /// Of these what is left of a message beside what it says.
    const SAID_BYTES_MAX: usize = Self::MESSAGE_BYTES_MAX - 256;

    fn new(role: Role, said: &[u8], psk: [u8; 32]) -> Self {
        let prologue = [&head()[..], CLUSTER.as_bytes()].concat();
        let build = || {
            let builder = Builder::new(PATTERN.parse()?)
                .local_private_key(&[5; 32])?
                .fixed_ephemeral_key_for_testing_only(&[6; 32])
                .psk(0, &psk)?
                .prologue(&prologue)?;
            match role {
                Role::Initiator => builder.build_initiator(),
                Role::Responder => builder.build_responder(),
            }
        };
        let state = Some(build().expect("snow knows the pattern"));
        Self { state, said: said[..said.len().min(Self::SAID_BYTES_MAX)].to_vec(), begun: false }
    }

    fn write(state: &mut HandshakeState, said: &[u8]) -> Vec<u8> {
        let mut message = vec![0; Self::MESSAGE_BYTES_MAX];
        let written = state.write_message(said, &mut message).expect("there is room");
        message.truncate(written);
        message
    }

    fn write_with_length(&mut self, state: &mut HandshakeState, transmit: &mut BytesMut) {
        let message = Self::write(state, &self.said);
        transmit.extend_from_slice(&u16::try_from(message.len()).expect("Noise has none longer").to_le_bytes());
        transmit.extend_from_slice(&message);
    }
}

/// Version and key id, as they go ahead of the first message.
fn head() -> [u8; 5] {
    let [a, b, c, d] = key().id().0;
    [SESSION_VERSION, a, b, c, d]
}

impl Handshake for Hostile {
    fn advance(&mut self, received: &mut BytesMut, transmit: &mut BytesMut) -> Result<Option<Agreed>, SessionError> {
        let Some(mut state) = self.state.take() else { return Ok(None) };
        if state.is_initiator() && !std::mem::replace(&mut self.begun, true) {
            transmit.extend_from_slice(&head());
            transmit.extend_from_slice(&Self::write(&mut state, &[]));
            self.state = Some(state);
            return Ok(None);
        }
        if received.is_empty() {
            self.state = Some(state);
            return Ok(None);
        }
        // The other side is honest, and its messages come whole.
        let first = !state.is_initiator() && !std::mem::replace(&mut self.begun, true);
        let message = if first { &received[head().len()..] } else { &received[2..] };
        let read = state.read_message(message, &mut [0; 1_024]);
        received.clear();
        if read.is_err() {
            return Err(PeerMisbehaved::HandshakeForged.into());
        }
        if !state.is_handshake_finished() {
            self.write_with_length(&mut state, transmit);
        }
        if !state.is_handshake_finished() {
            self.state = Some(state);
            return Ok(None);
        }
        let (from_initiator, from_responder) = state.dangerously_get_raw_split();
        let (sending_key, receiving_key) =
            if state.is_initiator() { (from_initiator, from_responder) } else { (from_responder, from_initiator) };
        Ok(Some(Agreed { peer: identity(&NodeKey::from_bytes([5; 32])), key: key().id(), sending_key, receiving_key }))
    }
}
