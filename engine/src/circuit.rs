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
//! Each way has at most [`CIRCUIT_WINDOW_BYTES`] under way, which bounds what waits at the carrier for an end that is slow. A
//! step of few bytes counts for [`CIRCUIT_STEP_BYTES_MIN`], so that the number of steps is bounded as well.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::identity::NodeId;

/// Bytes that may be under way in each direction of a circuit, from their sending until their receiver has taken them.
pub const CIRCUIT_WINDOW_BYTES: usize = 128 << 10;
/// Most bytes in one step of a circuit.
pub const CIRCUIT_PIECE_BYTES: usize = 16 << 10;
/// What a step of fewer bytes counts for.
pub const CIRCUIT_STEP_BYTES_MIN: usize = 1 << 10;
/// What has been taken out of a circuit before its other end is told.
pub const CIRCUIT_ROOM_BYTES: usize = CIRCUIT_WINDOW_BYTES / 4;
/// Circuits that a node carries for others at once, and of which it is an end.
pub const CIRCUITS_MAX: usize = 256;
/// Circuits that it carries for one of them, and of which it is an end by way of one carrier at that one's word.
pub const CIRCUITS_OF_ONE_MAX: usize = 32;

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
    /// What was taken out counts for so much, and as much more may be sent; from [`CIRCUIT_ROOM_BYTES`] to
    /// [`CIRCUIT_WINDOW_BYTES`] on the wire.
    Room(u32),
    /// It is over, or cannot be.
    End,
}

impl Step {
    /// What it counts for in a window: what is under way by it, or what is no longer.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len().max(CIRCUIT_STEP_BYTES_MIN),
            Self::Room(taken) => usize::try_from(*taken).unwrap_or(usize::MAX),
            Self::Open | Self::End => 0,
        }
    }

    /// Says that as much was taken out as this step had under way.
    #[must_use]
    pub fn room_of(&self) -> Self {
        Self::Room(u32::try_from(self.weight()).unwrap_or(u32::MAX))
    }

    /// Bounds that the encoding does not give.
    pub(crate) fn is_valid(&self) -> bool {
        match self {
            Self::Bytes(bytes) => !bytes.is_empty() && bytes.len() <= CIRCUIT_PIECE_BYTES,
            Self::Room(_) => (CIRCUIT_ROOM_BYTES..=CIRCUIT_WINDOW_BYTES).contains(&self.weight()),
            Self::Open | Self::End => true,
        }
    }
}
