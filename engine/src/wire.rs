//! What peers say to each other inside a session, and in a datagram.
//!
//! A frame is `kind (1 byte) | body (postcard)`. A kind that this version does not know is skipped, so newer peers may
//! say more; a body that does not decode to its end is the peer's fault. No type here recurses or has size zero, so a
//! body of n bytes never decodes to more than a small multiple of n.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::circuit::{CircuitId, Step};
use crate::documents::{DocumentId, Scope};
use crate::identity::{ChangeHash, ClusterId, Span};
use crate::membership;
use crate::replication::Sum;

/// The wire version this engine speaks.
pub const WIRE_VERSION: u16 = 1;
/// Longest frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Longest prefix in a split: the hashed name's 16 bytes.
pub const PREFIX_BYTES_MAX: usize = 16;

/// Changes of one document, each after its dependencies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentChanges {
    /// Which document.
    pub document: DocumentId,
    /// Uncompressed Automerge change chunks.
    pub changes: Vec<Bytes>,
}

/// What one side holds of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Which scope.
    pub scope: Scope,
    /// The sum over its documents.
    pub sum: Sum,
}

/// A document and one side's heads of it.
pub type DocumentHeads = (DocumentId, Vec<ChangeHash>);

/// Bytes that it takes in a frame, roughly.
pub(crate) fn heads_bytes((id, heads): &DocumentHeads) -> usize {
    id.collection().len() + id.key().len() + crate::documents::ZONE_BYTES_MAX + heads.len() * size_of::<ChangeHash>()
}

/// What a repair asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// Every change of the documents whose hashed names begin with `prefix`; the asker has none of them.
    Range {
        /// Of this scope.
        scope: Scope,
        /// At most [`PREFIX_BYTES_MAX`] bytes.
        prefix: Vec<u8>,
        /// Go on after this: the last answer's `next`.
        after: Option<Bytes>,
    },
    /// What is missing of these documents, where the asker has the heads given.
    Documents {
        /// Which.
        documents: Vec<DocumentHeads>,
        /// Go on after this: the last answer's `next`.
        after: Option<Bytes>,
    },
}

/// How two sides differ below one prefix, as the one that was asked sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differences {
    /// Documents that differ, listed one by one.
    pub documents: Vec<DocumentHeads>,
    /// Children to compare in their turn.
    pub deeper: Vec<u8>,
    /// Children of which the asker has nothing.
    pub whole: Vec<u8>,
}

/// A message inside a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Membership, by stream; roots come with probes.
    Membership(membership::Message, Vec<Root>),
    /// New changes, durable at the sender; `ack` asks for [`Frame::Held`].
    Push {
        /// The sender's count.
        seq: u64,
        /// Whether the sender wants to know when they are durable.
        ack: bool,
        /// The changes.
        changes: Vec<DocumentChanges>,
    },
    /// New changes, durable at the sender, that the receiver is to pass on.
    Relay {
        /// As in a push.
        seq: u64,
        /// As in a push.
        ack: bool,
        /// To the members of the receiver's own zone whose ids lie here.
        span: Span,
        /// The changes.
        changes: Vec<DocumentChanges>,
    },
    /// All changes of a push are durable here.
    Held {
        /// That push.
        seq: u64,
    },
    /// What the sender holds now.
    Roots(Vec<Root>),
    /// Asks how the receiver differs from these sums, the children of `prefix`.
    Compare {
        /// Named in the answer.
        request: u32,
        /// Of this scope.
        scope: Scope,
        /// At most [`PREFIX_BYTES_MAX`] bytes.
        prefix: Vec<u8>,
        /// The asker's 256 sums.
        sums: Vec<Sum>,
    },
    /// Answers [`Frame::Compare`].
    Differences {
        /// Which.
        request: u32,
        /// How.
        differences: Differences,
    },
    /// Asks for changes.
    Want {
        /// Named in the answer.
        request: u32,
        /// Which.
        wanted: Wanted,
    },
    /// Answers [`Frame::Want`] with one window.
    Window {
        /// Which.
        request: u32,
        /// The changes.
        changes: Vec<DocumentChanges>,
        /// Present when there is more: where to go on.
        next: Option<Bytes>,
    },
    /// Hands a cluster's identity to an empty server.
    Adopt {
        /// The cluster.
        cluster: ClusterId,
        /// What keys its hashed names and sums.
        secret: [u8; 32],
    },
    /// The receiver is shut out of the cluster.
    Evicted,
    /// A step of a stream between two members through a third.
    Circuit {
        /// Which.
        circuit: CircuitId,
        /// What happens to it.
        step: Step,
    },
}

/// A frame whose body does not decode: the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame does not decode")]
pub struct BadFrame;

const MEMBERSHIP: u8 = 1;
const PUSH: u8 = 2;
const HELD: u8 = 3;
const ROOTS: u8 = 4;
const COMPARE: u8 = 5;
const DIFFERENCES: u8 = 6;
const WANT: u8 = 7;
const WINDOW: u8 = 8;
const ADOPT: u8 = 9;
const RELAY: u8 = 10;
const EVICTED: u8 = 11;
const CIRCUIT: u8 = 12;

impl Frame {
    /// Its kind, for counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Membership(..) => "membership",
            Self::Push { .. } => "push",
            Self::Relay { .. } => "relay",
            Self::Held { .. } => "held",
            Self::Roots(_) => "roots",
            Self::Compare { .. } => "compare",
            Self::Differences { .. } => "differences",
            Self::Want { .. } => "want",
            Self::Window { .. } => "window",
            Self::Adopt { .. } => "adopt",
            Self::Evicted => "evicted",
            Self::Circuit { .. } => "circuit",
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Membership(message, roots) => body(MEMBERSHIP, &(message, roots)),
            Self::Push { seq, ack, changes } => body(PUSH, &(seq, ack, changes)),
            Self::Relay { seq, ack, span, changes } => body(RELAY, &(seq, ack, span, changes)),
            Self::Held { seq } => body(HELD, seq),
            Self::Roots(roots) => body(ROOTS, roots),
            Self::Compare { request, scope, prefix, sums } => body(COMPARE, &(request, scope, prefix, sums)),
            Self::Differences { request, differences } => body(DIFFERENCES, &(request, differences)),
            Self::Want { request, wanted } => body(WANT, &(request, wanted)),
            Self::Window { request, changes, next } => body(WINDOW, &(request, changes, next)),
            Self::Adopt { cluster, secret } => body(ADOPT, &(cluster, secret)),
            Self::Evicted => body(EVICTED, &()),
            Self::Circuit { circuit, step } => body(CIRCUIT, &(circuit, step)),
        }
    }

    /// Reads a frame; none for a kind that this version does not know.
    ///
    /// # Errors
    /// When the body does not decode, has bytes to spare, or breaks a bound.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, BadFrame> {
        let (&kind, rest) = bytes.split_first().ok_or(BadFrame)?;
        let frame = match kind {
            MEMBERSHIP => {
                let (message, roots) = whole(rest)?;
                Self::Membership(message, roots)
            }
            PUSH => {
                let (seq, ack, changes) = whole(rest)?;
                Self::Push { seq, ack, changes }
            }
            RELAY => {
                let (seq, ack, span, changes) = whole(rest)?;
                Self::Relay { seq, ack, span, changes }
            }
            HELD => Self::Held { seq: whole(rest)? },
            ROOTS => Self::Roots(whole(rest)?),
            COMPARE => {
                let (request, scope, prefix, sums) = whole(rest)?;
                Self::Compare { request, scope, prefix, sums }
            }
            DIFFERENCES => {
                let (request, differences) = whole(rest)?;
                Self::Differences { request, differences }
            }
            WANT => {
                let (request, wanted) = whole(rest)?;
                Self::Want { request, wanted }
            }
            WINDOW => {
                let (request, changes, next) = whole(rest)?;
                Self::Window { request, changes, next }
            }
            ADOPT => {
                let (cluster, secret) = whole(rest)?;
                Self::Adopt { cluster, secret }
            }
            EVICTED => {
                let () = whole(rest)?;
                Self::Evicted
            }
            CIRCUIT => {
                let (circuit, step) = whole(rest)?;
                Self::Circuit { circuit, step }
            }
            _ => return Ok(None),
        };
        if frame.is_valid() { Ok(Some(frame)) } else { Err(BadFrame) }
    }

    /// Bounds that the encoding does not give.
    fn is_valid(&self) -> bool {
        match self {
            Self::Membership(message, _) => message.is_valid(),
            Self::Compare { prefix, sums, .. } => {
                prefix.len() < PREFIX_BYTES_MAX && sums.len() == crate::replication::tree::FANOUT
            }
            Self::Want { wanted: Wanted::Range { prefix, after, .. }, .. } => {
                prefix.len() <= PREFIX_BYTES_MAX && after.as_ref().is_none_or(|after| after.len() <= AFTER_BYTES_MAX)
            }
            Self::Want { wanted: Wanted::Documents { documents, after }, .. } => {
                documents.len() <= WANTED_DOCUMENTS_MAX
                    && after.as_ref().is_none_or(|after| after.len() <= CURSOR_BYTES_MAX)
            }
            Self::Push { changes, .. } | Self::Relay { changes, .. } | Self::Window { changes, .. } => {
                changes.iter().all(DocumentChanges::is_valid)
            }
            Self::Circuit { step, .. } => step.is_valid(),
            Self::Held { .. } | Self::Roots(_) | Self::Differences { .. } | Self::Adopt { .. } | Self::Evicted => true,
        }
    }
}

/// Documents in one request; ours name at most half as many.
const WANTED_DOCUMENTS_MAX: usize = 1_024;
/// Shortest change: a chunk's header alone takes more.
pub(crate) const CHANGE_BYTES_MIN: usize = 16;

impl DocumentChanges {
    fn is_valid(&self) -> bool {
        !self.changes.is_empty() && self.changes.iter().all(|chunk| chunk.len() >= CHANGE_BYTES_MIN)
    }
}

/// Longest place in the log that a range may go on after.
const AFTER_BYTES_MAX: usize = 64;

/// Longest place in a list of documents, and in the log of one of them, that an answer may go on after.
const CURSOR_BYTES_MAX: usize = 512;

/// A datagram's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Packet {
    /// What membership says.
    pub message: membership::Message,
    /// What the sender holds of the scopes that both share; with probes and their answers.
    pub roots: Vec<Root>,
}

impl Packet {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        body(MEMBERSHIP, self)
    }

    /// Reads a packet; none for a kind that this version does not know.
    ///
    /// # Errors
    /// When the body does not decode, has bytes to spare, or breaks a bound.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, BadFrame> {
        let (&kind, rest) = bytes.split_first().ok_or(BadFrame)?;
        if kind != MEMBERSHIP {
            return Ok(None);
        }
        let packet: Self = whole(rest)?;
        if packet.message.is_valid() { Ok(Some(packet)) } else { Err(BadFrame) }
    }
}

fn body<T: Serialize>(kind: u8, content: &T) -> Bytes {
    // Serialising our own plain types into memory has no way to fail.
    postcard::to_extend(content, vec![kind]).unwrap_or_default().into()
}

fn whole<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, BadFrame> {
    match postcard::take_from_bytes(bytes) {
        Ok((content, [])) => Ok(content),
        Ok(_) | Err(_) => Err(BadFrame),
    }
}
