//! One authenticated, sealed stream of frames between two nodes, over any pipe that carries bytes in order.
//!
//! A [`Handshake`] agrees with the peer on two keys and learns who it is; [`NoiseHandshake`] is the one there is, from
//! the cluster key and the keys of both nodes. After it the stream is a run of segments, each sealed with
//! ChaCha20-Poly1305 under its direction's key and a counter as nonce, so that one altered, left out, repeated or moved
//! ends the session:
//!
//! ```text
//! segment:  length u16 (of what follows) | sealed | tag 16         the length is additional data; an empty one changes keys
//! frame:    length u32 (of what follows) | codec u8 | content      inside the segments, with no regard to their bounds
//! ```
//!
//! Integers are little-endian. Small frames share a segment, a large one spans several. Everything is bounded by a named
//! limit, memory grows only with bytes that have arrived, and to bytes that do not verify there is no answer: the session
//! fails, transmits nothing more, and says in its [`SessionError`] whose fault it was.

mod error;
mod frame;
mod handshake;
mod noise;
mod segment;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;

use bytes::{Bytes, BytesMut};

pub use self::error::{PeerMisbehaved, SendError, SessionError};
use self::frame::FrameEncoder;
pub use self::frame::{FRAME_BYTES_MAX, FrameDecoder};
pub use self::handshake::NoiseHandshake;
use self::segment::{Opener, Sealer};
use crate::seal::{KeyId, KeyRing};
use crate::{NodeKey, PeerIdentity};

/// The version of the session protocol, the first byte that its initiator sends.
pub const SESSION_VERSION: u8 = 2;
/// Bytes that may wait for [`Session::poll_transmit`].
pub const TRANSMIT_BYTES_MAX: usize = 8 << 20;
/// Bytes of frames that may wait for [`Session::poll_event`] when more bytes are handed in.
pub const UNREAD_BYTES_MAX: usize = 8 << 20;

/// Which side of a stream this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It opened the stream and speaks first.
    Initiator,
    /// It accepted the stream and is silent until the peer has proved that it holds the key.
    Responder,
}

/// Who we are to the peer.
#[derive(Clone, Debug)]
pub struct Config {
    /// The keys, of which both sides must hold one.
    pub keys: KeyRing,
    /// The cluster's name, which both sides must be given.
    pub cluster: String,
    /// What we say of ourselves.
    pub identity: PeerIdentity,
    /// The secret half of the identity's public key.
    pub node_key: NodeKey,
    /// Whether frames that shrink are sent compressed; they are understood either way.
    pub compression: bool,
}

/// What a session has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The peer has proved that it holds the cluster key and the secret half of its public key. It may be ourselves.
    Established(PeerIdentity),
    /// A frame arrived.
    Frame(Bytes),
}

/// How two sides come to trust each other: the seam behind which one handshake can replace another.
pub trait Handshake: fmt::Debug + Send {
    /// Takes one step: removes whole messages from the front of `received`, appends what is to be sent to `transmit`.
    /// Called once with nothing received when the session starts, then whenever more has arrived. What it leaves in
    /// `received` must be bounded; what it leaves at the end belongs to the first segment.
    ///
    /// # Errors
    /// When the peer does not verify. Nothing of `transmit` is sent then.
    fn advance(&mut self, received: &mut BytesMut, transmit: &mut BytesMut) -> Result<Option<Agreed>, SessionError>;
}

/// What a handshake ends with.
pub struct Agreed {
    /// Who the peer has proved to be.
    pub peer: PeerIdentity,
    /// The cluster key that both hold.
    pub key: KeyId,
    /// Seals what we send; used for nothing else.
    pub sending_key: [u8; 32],
    /// Opens what the peer sends; used for nothing else.
    pub receiving_key: [u8; 32],
}

impl fmt::Debug for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agreed").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// One end of a stream: bytes in and out on one side, events and frames on the other. It does no I/O.
#[derive(Debug)]
pub struct Session {
    state: State,
    received: BytesMut,
    events: VecDeque<SessionEvent>,
    unread_bytes: usize,
    compression: bool,
}

#[derive(Debug)]
enum State {
    Handshaking { handshake: Box<dyn Handshake>, transmit: BytesMut },
    Established(Box<Traffic>),
    Failed,
}

#[derive(Debug)]
struct Traffic {
    peer: PeerIdentity,
    key: KeyId,
    sealer: Sealer,
    opener: Opener,
    encoder: FrameEncoder,
    decoder: FrameDecoder,
}

impl Session {
    /// A session whose one secret draw is `random`: 32 bytes that are used nowhere else.
    ///
    /// # Panics
    /// When the public key of `config.identity` is not that of `config.node_key`.
    #[must_use]
    pub fn new(role: Role, config: Config, random: [u8; 32]) -> Self {
        let compression = config.compression;
        Self::with_handshake(Box::new(NoiseHandshake::new(role, config, random)), compression)
    }

    /// A session that begins with another handshake than [`NoiseHandshake`].
    #[must_use]
    pub fn with_handshake(handshake: Box<dyn Handshake>, compression: bool) -> Self {
        let mut session = Self {
            state: State::Handshaking { handshake, transmit: BytesMut::new() },
            received: BytesMut::new(),
            events: VecDeque::new(),
            unread_bytes: 0,
            compression,
        };
        if session.advance().is_err() {
            session.fail();
        }
        session
    }

    /// Takes bytes that arrived, in any portions. Events are to be polled before more is handed in.
    ///
    /// # Errors
    /// Whose fault it is that the session ended: there is nothing more to transmit, and the stream is to be closed. Frames
    /// that had verified before can still be polled. [`SessionError::Unread`] alone leaves the session as it was.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        if self.unread_bytes > UNREAD_BYTES_MAX {
            return Err(SessionError::Unread);
        }
        if matches!(self.state, State::Failed) {
            return Err(SessionError::Failed);
        }
        // A buffer of its own for each portion, so that a small frame that is kept does not keep a large buffer.
        if self.received.is_empty() {
            self.received = BytesMut::from(bytes);
        } else {
            self.received.extend_from_slice(bytes);
        }
        self.advance().inspect_err(|_| self.fail())
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        let event = self.events.pop_front()?;
        if let SessionEvent::Frame(frame) = &event {
            self.unread_bytes = self.unread_bytes.saturating_sub(unread_bytes(frame));
        }
        Some(event)
    }

    /// Queues a frame; all that were queued leave together at the next [`Session::poll_transmit`].
    ///
    /// # Errors
    /// When the frame cannot be taken. The session goes on, unless it is exhausted.
    pub fn send_frame(&mut self, frame: &[u8]) -> Result<(), SendError> {
        let State::Established(traffic) = &mut self.state else {
            return Err(SendError::NotEstablished);
        };
        if frame.len() > FRAME_BYTES_MAX {
            return Err(SendError::FrameTooLong { bytes: frame.len() });
        }
        if traffic.sealer.pending_bytes() > TRANSMIT_BYTES_MAX - FRAME_BYTES_MAX {
            return Err(SendError::Full);
        }
        let (head, content) = traffic.encoder.encode(frame);
        let pushed = traffic.sealer.push(&[&head, content]);
        pushed.inspect_err(|_| self.fail())
    }

    /// Seals what is sent from now on under the next key; the peer follows. To be called now and then, so that a key that
    /// leaks opens little. A key that has sealed a gibibyte is replaced without it.
    ///
    /// # Errors
    /// When there is no session, or it is exhausted.
    pub fn renew_key(&mut self) -> Result<(), SendError> {
        let State::Established(traffic) = &mut self.state else {
            return Err(SendError::NotEstablished);
        };
        let renewed = traffic.sealer.rekey();
        renewed.inspect_err(|_| self.fail())
    }

    /// All bytes that are to be written to the stream now, or None.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        let bytes = match &mut self.state {
            State::Handshaking { transmit, .. } => transmit.split().freeze(),
            State::Established(traffic) => traffic.sealer.take(),
            State::Failed => Bytes::new(),
        };
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Bytes that wait for [`Session::poll_transmit`], give or take a tag.
    #[must_use]
    pub fn pending_transmit_bytes(&self) -> usize {
        match &self.state {
            State::Handshaking { transmit, .. } => transmit.len(),
            State::Established(traffic) => traffic.sealer.pending_bytes(),
            State::Failed => 0,
        }
    }

    /// The number of the segment of which the beginning has arrived and the rest has not; none between two. One that stays
    /// the same for long is a sign that its length was altered on the way: only the whole segment would tell.
    #[must_use]
    pub fn unfinished_segment(&self) -> Option<u64> {
        match &self.state {
            State::Established(traffic) if !self.received.is_empty() => Some(traffic.opener.opened()),
            State::Established(_) | State::Handshaking { .. } | State::Failed => None,
        }
    }

    /// True from the moment the peer has proved who it is until the session fails.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.peer().is_some()
    }

    /// Who the peer has proved to be, while the session is established.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerIdentity> {
        match &self.state {
            State::Established(traffic) => Some(&traffic.peer),
            State::Handshaking { .. } | State::Failed => None,
        }
    }

    /// The cluster key that both sides hold, while the session is established.
    #[must_use]
    pub fn key(&self) -> Option<KeyId> {
        match &self.state {
            State::Established(traffic) => Some(traffic.key),
            State::Handshaking { .. } | State::Failed => None,
        }
    }

    fn advance(&mut self) -> Result<(), SessionError> {
        if let State::Handshaking { handshake, transmit } = &mut self.state {
            let Some(agreed) = handshake.advance(&mut self.received, transmit)? else {
                return Ok(());
            };
            self.events.push_back(SessionEvent::Established(agreed.peer.clone()));
            self.state = State::Established(Box::new(Traffic {
                sealer: Sealer::new(&agreed.sending_key, transmit.split()),
                opener: Opener::new(&agreed.receiving_key),
                encoder: FrameEncoder::new(self.compression),
                decoder: FrameDecoder::default(),
                key: agreed.key,
                peer: agreed.peer,
            }));
        }
        let State::Established(traffic) = &mut self.state else {
            return Ok(());
        };
        while let Some(plain) = traffic.opener.open_next(&mut self.received)? {
            traffic.decoder.handle_bytes(plain);
            while let Some(frame) = traffic.decoder.poll_frame()? {
                self.unread_bytes += unread_bytes(&frame);
                self.events.push_back(SessionEvent::Frame(frame));
            }
        }
        Ok(())
    }

    fn fail(&mut self) {
        self.state = State::Failed;
        self.received = BytesMut::new();
    }
}

/// What a frame counts for in [`UNREAD_BYTES_MAX`]; an empty one takes room as well.
fn unread_bytes(frame: &Bytes) -> usize {
    size_of::<SessionEvent>() + frame.len()
}
