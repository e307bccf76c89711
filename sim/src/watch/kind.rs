//! What a message is, by its bytes. Datagrams of a cluster without a key can be read.

use knot_engine::membership::Message;
use knot_engine::wire::{Frame, Packet};
use serde::Serialize;

/// Bytes of a datagram before its content.
const HEADER_BYTES: usize = 29;
/// Bytes of a datagram after its content.
const TAG_BYTES: usize = 16;
/// Bytes of a datagram that are not its content.
pub const DATAGRAM_OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal),* $(,)?) => {
        /// What a message says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Kind {
            $($(#[$doc])* $kind),*
        }

        impl Kind {
            /// Every kind, in order.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name),*
                }
            }
        }
    };
}

kinds! {
    /// New changes.
    Push = "push",
    /// New changes, to be passed on.
    Relay = "relay",
    /// All changes of a push are durable.
    Held = "held",
    /// Changes that a repair asked for.
    Window = "window",
    /// A repair asks for changes.
    Want = "want",
    /// A repair compares sums.
    Compare = "compare",
    /// The answer to a comparison.
    Differences = "differences",
    /// What the sender holds now.
    Roots = "roots",
    /// A cluster's identity for an empty server.
    Adopt = "adopt",
    /// Membership tables, by stream.
    Sync = "sync",
    /// A probe.
    Ping = "ping",
    /// Its answer.
    Ack = "ack",
    /// Asks a helper to probe.
    PingReq = "ping-req",
    /// The helper's probe was answered.
    Vouch = "vouch",
    /// The helper's probe was not answered.
    Nack = "nack",
    /// News on its own.
    Gossip = "gossip",
    /// A goodbye.
    Leave = "leave",
    /// Word that the receiver is shut out.
    Evicted = "evicted",
    /// Part of a stream between two others.
    Circuit = "circuit",
    /// A datagram that is sealed, or anything else that does not decode.
    Opaque = "opaque",
}

impl Kind {
    /// What a datagram says.
    #[must_use]
    pub fn of_datagram(bytes: &[u8]) -> Self {
        let body = bytes.get(HEADER_BYTES..bytes.len().saturating_sub(TAG_BYTES)).unwrap_or_default();
        match Packet::decode(body) {
            Ok(Some(packet)) => Self::of_message(&packet.message),
            Ok(None) | Err(_) => Self::Opaque,
        }
    }

    /// What a frame says.
    #[must_use]
    pub fn of_frame(bytes: &[u8]) -> Self {
        match Frame::decode(bytes) {
            Ok(Some(Frame::Membership(message, _))) => Self::of_message(&message),
            Ok(Some(Frame::Push { .. })) => Self::Push,
            Ok(Some(Frame::Relay { .. })) => Self::Relay,
            Ok(Some(Frame::Held { .. })) => Self::Held,
            Ok(Some(Frame::Roots(_))) => Self::Roots,
            Ok(Some(Frame::Compare { .. })) => Self::Compare,
            Ok(Some(Frame::Differences { .. })) => Self::Differences,
            Ok(Some(Frame::Want { .. })) => Self::Want,
            Ok(Some(Frame::Window { .. })) => Self::Window,
            Ok(Some(Frame::Adopt { .. })) => Self::Adopt,
            Ok(Some(Frame::Evicted)) => Self::Evicted,
            Ok(Some(Frame::Circuit { .. })) => Self::Circuit,
            Ok(None) | Err(_) => Self::Opaque,
        }
    }

    fn of_message(message: &Message) -> Self {
        match message {
            Message::Ping { .. } => Self::Ping,
            Message::Ack { .. } => Self::Ack,
            Message::PingReq { .. } => Self::PingReq,
            Message::Vouch { .. } => Self::Vouch,
            Message::Nack { .. } => Self::Nack,
            Message::Gossip { .. } => Self::Gossip,
            Message::SyncDigest { .. } | Message::Sync { .. } => Self::Sync,
            Message::Leave { .. } => Self::Leave,
        }
    }

    /// Whether it moves or compares documents, as opposed to who is in the cluster.
    #[must_use]
    pub fn is_replication(self) -> bool {
        self <= Self::Adopt
    }
}
