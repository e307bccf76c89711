//! Why a session ended or refused, sorted by whose fault it is.

use crate::seal::KeyId;

/// Why a session could not take bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer speaks another version, or not this protocol at all.
    #[error("peer is incompatible: it opened with version {theirs}, not {}", super::SESSION_VERSION)]
    Version {
        /// The version in its first byte.
        theirs: u8,
    },
    /// The peer was configured with another cluster key.
    #[error("peer holds the cluster key with id {theirs}, this node the one with id {ours}")]
    WrongKey {
        /// The id of the peer's key, which nothing vouches for.
        theirs: KeyId,
        /// The id of our key.
        ours: KeyId,
    },
    /// The peer names one of our keys, and its first message does not verify under it.
    #[error(
        "the peer's first message does not verify, although it names our key: its cluster has another name, or somebody \
         altered or made up the message"
    )]
    OtherCluster,
    /// The peer, or something on the way to it, broke the protocol.
    #[error("peer misbehaved: {0}")]
    PeerMisbehaved(#[from] PeerMisbehaved),
    /// The caller handed in bytes after the session had ended.
    #[error("caller's mistake: the session has ended")]
    Failed,
    /// The caller handed in bytes and left events unpolled.
    #[error("caller's mistake: {} bytes of frames wait to be polled", super::UNREAD_BYTES_MAX)]
    Unread,
}

/// What a peer did that an honest one on an honest path never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A handshake message does not verify: it was altered or recorded elsewhere, or its sender does not hold the key.
    #[error("a handshake message does not verify")]
    HandshakeForged,
    /// Bytes came before they could have been sealed.
    #[error("{bytes} bytes came before the handshake allowed any")]
    TooEarly {
        /// How many.
        bytes: usize,
    },
    /// It announced a handshake message longer than any.
    #[error("a handshake message of {bytes} bytes is longer than any")]
    IdentityTooLong {
        /// The length announced.
        bytes: usize,
    },
    /// What it says of itself verified but does not decode.
    #[error("what it says of itself does not decode")]
    IdentityGarbage,
    /// It chose a public key with which anybody can agree on the secret.
    #[error("its public key is degenerate")]
    DegenerateKey,
    /// A segment is too short to hold a tag.
    #[error("a segment of {bytes} bytes is too short")]
    SegmentTooShort {
        /// The length announced.
        bytes: usize,
    },
    /// A segment does not verify in its place: it was altered, moved, left out or repeated.
    #[error("a segment was altered, moved, left out or repeated")]
    SegmentForged,
    /// It sent more segments than one session may carry.
    #[error("it sent more segments than one key may seal")]
    Exhausted,
    /// It announced a frame longer than any.
    #[error("a frame of {bytes} bytes is longer than {}", super::FRAME_BYTES_MAX)]
    FrameTooLong {
        /// The length announced, folded or unfolded.
        bytes: usize,
    },
    /// A frame is empty where its codec byte should be.
    #[error("a frame has no codec")]
    FrameWithoutCodec,
    /// A frame has a codec that was never agreed on.
    #[error("a frame has the unknown codec {codec}")]
    Codec {
        /// The codec byte.
        codec: u8,
    },
    /// A compressed frame does not unfold to what it announced.
    #[error("a compressed frame does not unfold to what it announced")]
    Compression,
}

/// Why a session did not take a frame. Each is the caller's to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No peer is there yet, or the session has ended.
    #[error("caller's mistake: the session is not established")]
    NotEstablished,
    /// The frame is longer than any may be.
    #[error("caller's mistake: a frame of {bytes} bytes is longer than {}", super::FRAME_BYTES_MAX)]
    FrameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// What waits for the stream has reached its limit.
    #[error("{} bytes wait for the stream already", super::TRANSMIT_BYTES_MAX)]
    Full,
    /// The session's key has sealed all that it may.
    #[error("the session has sealed as many segments as one key may; open another")]
    Exhausted,
}
