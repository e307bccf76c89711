//! Circuits: streams between two members that find no way to each other, carried by a third that has a stream with both.
//!
//! A circuit carries the bytes of a session like any other, from the handshake on, in frames of the sessions that its
//! carrier has with either end. So what goes through is sealed from end to end: the carrier can delay it, lose it and
//! count its bytes, and nothing else.
//!
//! ```text
//!   opener                    carrier                   target
//!     | Open  ------------------> | Open  ----------------> |
//!     | <------------------ Open  | <---------------- Open  |     or End, where it cannot be
//!     | Bytes ------------------> | Bytes ----------------> |     the session's handshake, then its segments
//!     | <------------------ Room  | <---------------- Room  |     so many have been taken: as many may follow
//!     | End   ------------------> | End   ----------------> |     from any of the three
//! ```
//!
//! Each way has at most [`CIRCUIT_WINDOW_BYTES`] under way, which bounds what waits at the carrier for an end that is slow.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::identity::NodeId;

/// Bytes that may be under way in each direction of a circuit, from their sending until their receiver has taken them.
pub const CIRCUIT_WINDOW_BYTES: usize = 128 << 10;
/// Bytes in one step of a circuit.
pub const CIRCUIT_PIECE_BYTES: usize = 16 << 10;
/// Circuits that a node carries for others at once, and of which it is an end.
pub const CIRCUITS_MAX: usize = 256;

/// One circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CircuitId {
    /// Who asked for it.
    pub opener: NodeId,
    /// With whom.
    pub target: NodeId,
    /// One that this start of the opener gave to no other, nor, most likely, an earlier one.
    pub number: u64,
}

/// What happens to a circuit, in either direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// It is asked for; from its target, it is there.
    Open,
    /// What a session wrote, at most [`CIRCUIT_PIECE_BYTES`].
    Bytes(Bytes),
    /// So many bytes were taken out, and as many more may be sent.
    Room(u32),
    /// It is over, or cannot be.
    End,
}

impl Step {
    /// Bounds that the encoding does not give.
    pub(crate) fn is_valid(&self) -> bool {
        match self {
            Self::Bytes(bytes) => !bytes.is_empty() && bytes.len() <= CIRCUIT_PIECE_BYTES,
            Self::Room(bytes) => usize::try_from(*bytes).is_ok_and(|bytes| bytes <= CIRCUIT_WINDOW_BYTES),
            Self::Open | Self::End => true,
        }
    }
}
