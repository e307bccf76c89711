//! What the `wire` target does with an input, as a library, so that the corpus can be generated and replayed without a
//! fuzzer.
//!
//! The first byte of an input chooses the decoder. Ciphers keep mutated bytes out of what lies behind them, so that is
//! reached without them: bare datagrams, a handshake of our own that agrees at once, the frame decoder by itself.

use bytes::{Bytes, BytesMut};
use knot_engine::seal::{ClusterKey, DATAGRAM_BYTES_MAX, Datagrams};
use knot_engine::session::{
    Agreed, Config, FRAME_BYTES_MAX, FrameDecoder, Handshake, Role, Session, SessionError, SessionEvent,
    UNREAD_BYTES_MAX,
};
use knot_engine::{Boot, ClusterId, NodeId, NodeKey, PeerIdentity};

/// A decoder, and the bytes for it.
#[derive(Clone, Copy, Debug)]
pub enum Case<'a> {
    /// A datagram that has to be sealed.
    SealedDatagram(&'a [u8]),
    /// A datagram of a cluster whose sealing is off.
    BareDatagram(&'a [u8]),
    /// What an initiator sends to us. Here and below the first byte is the size of the portions in which bytes come.
    Responder(&'a [u8]),
    /// What a responder sends to us.
    Initiator(&'a [u8]),
    /// Segments after a handshake.
    Segments(&'a [u8]),
    /// Frames inside segments.
    Frames(&'a [u8]),
}

impl<'a> Case<'a> {
    /// The case that `input` describes; None when it is empty.
    pub fn of(input: &'a [u8]) -> Option<Self> {
        let (choice, bytes) = input.split_first()?;
        Some(match choice % 6 {
            0 => Self::SealedDatagram(bytes),
            1 => Self::BareDatagram(bytes),
            2 => Self::Responder(bytes),
            3 => Self::Initiator(bytes),
            4 => Self::Segments(bytes),
            _ => Self::Frames(bytes),
        })
    }

    /// The input that describes this case.
    pub fn input(self) -> Vec<u8> {
        let (choice, bytes) = match self {
            Self::SealedDatagram(bytes) => (0, bytes),
            Self::BareDatagram(bytes) => (1, bytes),
            Self::Responder(bytes) => (2, bytes),
            Self::Initiator(bytes) => (3, bytes),
            Self::Segments(bytes) => (4, bytes),
            Self::Frames(bytes) => (5, bytes),
        };
        [&[choice], bytes].concat()
    }

    /// Decodes it and checks what must hold whatever the bytes are. Returns how many bodies, events or frames came out.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn run(self) -> usize {
        match self {
            Self::SealedDatagram(bytes) => open(Some(key()), bytes),
            Self::BareDatagram(bytes) => open(None, bytes),
            Self::Responder(bytes) => receive(session(Role::Responder), bytes),
            Self::Initiator(bytes) => receive(session(Role::Initiator), bytes),
            Self::Segments(bytes) => receive(agreed(), bytes),
            Self::Frames(bytes) => decode(bytes),
        }
    }
}

/// The key that every case uses.
pub fn key() -> ClusterKey {
    ClusterKey::new("0123456789abcdefghijklmnopqrstuv").expect("32 printable characters")
}

/// The boot of node `me`, of which there are few.
pub fn boot(me: u8) -> Boot {
    Boot([me; 16])
}

/// The name of node `me`.
pub fn node(me: u8) -> NodeId {
    NodeId([me; 16])
}

/// One side of a stream that starts a handshake.
pub fn session(role: Role) -> Session {
    let secret = match role {
        Role::Initiator => 1,
        Role::Responder => 2,
    };
    let node_key = NodeKey::from_bytes([secret; 32]);
    let (keys, cluster) = (key().into(), "fuzzed".to_owned());
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

fn open(key: Option<ClusterKey>, bytes: &[u8]) -> usize {
    let mut ours = Datagrams::new(key.map(Into::into), node(2), boot(2));
    let opened = ours.open(bytes, |sender| (sender == node(1)).then(|| boot(1)));
    let Ok((sender, body)) = opened else {
        return 0;
    };
    assert!(bytes.len() <= DATAGRAM_BYTES_MAX && body.len() < bytes.len());
    assert_eq!(sender, node(1));
    let again = ours.open(bytes, |_| Some(boot(1)));
    assert!(again.is_err(), "a replay was opened");
    1
}

fn receive(mut session: Session, bytes: &[u8]) -> usize {
    let mut events = 0;
    for portion in portions(bytes) {
        session.poll_transmit();
        let failed = session.handle_bytes(portion).is_err();
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
    }
    events
}

fn portions(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (portion_bytes, stream) = bytes.split_first().unwrap_or((&0, &[]));
    stream.chunks(usize::from(*portion_bytes) + 1)
}

fn decode(bytes: &[u8]) -> usize {
    let mut decoder = FrameDecoder::default();
    let (mut frames, mut unfolded_bytes) = (0, 0);
    for portion in portions(bytes) {
        decoder.handle_bytes(Bytes::copy_from_slice(portion));
        loop {
            match decoder.poll_frame() {
                Err(_) => return frames,
                Ok(None) => break,
                Ok(Some(frame)) => {
                    assert!(frame.len() <= FRAME_BYTES_MAX);
                    frames += 1;
                    unfolded_bytes += frame.len();
                }
            }
        }
        if unfolded_bytes > UNREAD_BYTES_MAX {
            break;
        }
    }
    frames
}
