//! Names of nodes, boots, clusters and sessions.
//!
//! A node is its key; names and addresses are labels that may move. A boot is one start of a node: it is fresh random
//! bytes, so nothing recorded from an earlier start is ever mistaken for this one.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                let mut bytes = [0; $len];
                if text.len() != 2 * $len || !text.is_ascii() {
                    return Err(NotHex { digits: 2 * $len });
                }
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
                    let digits = std::str::from_utf8(pair).map_err(|_| NotHex { digits: 2 * $len })?;
                    *byte = u8::from_str_radix(digits, 16).map_err(|_| NotHex { digits: 2 * $len })?;
                }
                Ok(Self(bytes))
            }
        }
    };
}

/// The text given is not the hexadecimal form of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {digits} hexadecimal digits")]
pub struct NotHex {
    digits: usize,
}

hex_id!(
    /// A node: the first 16 bytes of the BLAKE3 of its X25519 public key.
    NodeId, 16
);
hex_id!(
    /// One start of a node: 16 random bytes, fresh each time.
    Boot, 16
);
hex_id!(
    /// A cluster, derived from its key and name at a server's first start and then persisted.
    ClusterId, 16
);
hex_id!(
    /// An Automerge change: the SHA-256 of its chunk.
    ChangeHash, 32
);

/// A node's long-lived secret. Its public half names the node.
#[derive(Clone)]
pub struct NodeKey {
    secret: x25519_dalek::StaticSecret,
    /// Kept, as what it names is, since a node names itself far more often than computing them again would allow.
    public: [u8; 32],
    node_id: NodeId,
}

impl NodeKey {
    /// The key whose secret half is `bytes`.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let secret = x25519_dalek::StaticSecret::from(bytes);
        let public = *x25519_dalek::PublicKey::from(&secret).as_bytes();
        Self { secret, public, node_id: NodeId::of_public(&public) }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The name of the node that holds this key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The secret half.
    pub(crate) fn secret(&self) -> [u8; 32] {
        self.secret.to_bytes()
    }

    /// What only this key and the holder of the secret half of `public` can compute. None when `public` is one of the few
    /// points for which everybody can.
    pub(crate) fn agree(&self, public: &[u8; 32]) -> Option<[u8; 32]> {
        let shared = self.secret.diffie_hellman(&(*public).into());
        shared.was_contributory().then(|| shared.to_bytes())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.node_id())
    }
}

impl NodeId {
    /// The node whose public key is `public`.
    #[must_use]
    pub fn of_public(public: &[u8; 32]) -> Self {
        let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *blake3::hash(public).as_bytes();
        Self(id)
    }
}

/// A run of the ring of node ids: from one up to another, without that. From one to itself is the whole ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first id in it.
    pub from: NodeId,
    /// The first id behind it.
    pub to: NodeId,
}

impl Span {
    /// Whether an id lies in it.
    #[must_use]
    pub fn holds(&self, node: &NodeId) -> bool {
        let behind = |node: &NodeId| u128::from_be_bytes(node.0).wrapping_sub(u128::from_be_bytes(self.from.0));
        self.from == self.to || behind(node) < behind(&self.to)
    }
}

/// What orders a member's own statements about itself: `starts` is persisted and rises at every start, `refutations`
/// rises each time the running node denies a suspicion. A crash after a refutation is harmless, since the next start
/// is above every refutation of this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation {
    /// Times the node has started.
    pub starts: u32,
    /// Suspicions denied since that start.
    pub refutations: u32,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.starts, self.refutations)
    }
}

/// Where a node can be reached: `host:port`, the host a name, an IPv4 address, or an IPv6 address in brackets; or a URL,
/// which leads to streams alone. The driver resolves it anew each time it connects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address(pub Arc<str>);

impl Address {
    /// Whether datagrams can be sent there.
    #[must_use]
    pub fn takes_datagrams(&self) -> bool {
        !self.0.contains("://")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// A stream between this node and one peer. The engine numbers those it opens (even), the driver those it accepts (odd).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What a peer says of itself when a stream opens; the session has verified that it holds the cluster's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// The public key that `node` is the hash of.
    pub public: [u8; 32],
    /// The peer's present start.
    pub boot: Boot,
    /// The cluster its data belongs to.
    pub cluster: ClusterId,
    /// True when it holds no document and knows no other member, so it may adopt another cluster's identity.
    pub empty: bool,
    /// The newest wire version it speaks.
    pub wire: u16,
}

impl PeerIdentity {
    /// The peer's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId::of_public(&self.public)
    }
}
