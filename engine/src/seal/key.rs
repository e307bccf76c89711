//! The cluster key, and what is derived from it.

use std::fmt;

use crate::ClusterId;

/// The length of a cluster key's text.
pub const CLUSTER_KEY_CHARACTERS: usize = 32;

const KEY_ID_CONTEXT: &str = "knot 2026-11-21 cluster key id v1";
const CLUSTER_ID_CONTEXT: &str = "knot 2026-11-21 cluster id v1";
const REPLICATION_CONTEXT: &str = "knot 2026-11-21 replication secret v1";

/// The secret that the servers of a cluster share. It prints as its id, never as itself.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey {
    text: [u8; CLUSTER_KEY_CHARACTERS],
    id: KeyId,
}

/// The text is not a cluster key; whoever wrote the configuration can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadClusterKey {
    /// It has another length.
    #[error(
        "the cluster key has {found} bytes, not the {CLUSTER_KEY_CHARACTERS} it needs; `knot genkey` prints a new one"
    )]
    Length {
        /// Bytes in the text given.
        found: usize,
    },
    /// It holds a character that is not printable ASCII.
    #[error(
        "character {position} of the cluster key is not printable ASCII (a space is not either); `knot genkey` prints a new one"
    )]
    Character {
        /// Where the character is, counted from one.
        position: usize,
    },
}

impl ClusterKey {
    /// The key written as `text`: 32 printable ASCII characters, no spaces, as `knot genkey` prints them.
    ///
    /// # Errors
    /// When `text` has another length or holds another character.
    pub fn new(text: &str) -> Result<Self, BadClusterKey> {
        let found = text.len();
        let text = text.as_bytes();
        if let Some(at) = text.iter().position(|byte| !byte.is_ascii_graphic()) {
            return Err(BadClusterKey::Character { position: at + 1 });
        }
        let text: [u8; CLUSTER_KEY_CHARACTERS] = text.try_into().map_err(|_| BadClusterKey::Length { found })?;
        let [a, b, c, d, ..] = blake3::derive_key(KEY_ID_CONTEXT, &text);
        Ok(Self { text, id: KeyId([a, b, c, d]) })
    }

    /// What names this key in the clear.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The id of the cluster called `name` that starts with this key.
    #[must_use]
    pub fn cluster_id(&self, name: &str) -> ClusterId {
        let secret = self.derive(CLUSTER_ID_CONTEXT, &[name.as_bytes()]);
        let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = secret;
        ClusterId(id)
    }

    /// The secret that keys the digests of the cluster called `name` that starts with this key.
    #[must_use]
    pub fn replication_secret(&self, name: &str) -> [u8; 32] {
        self.derive(REPLICATION_CONTEXT, &[name.as_bytes()])
    }

    /// A key for the one use that `context` names. At most the last of `parts` may vary in length.
    pub(crate) fn derive(&self, context: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.text);
        for part in parts {
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterKey({})", self.id)
    }
}

/// The cluster keys that a server holds. It opens streams and seals with the first, and takes what comes under any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRing {
    first: ClusterKey,
    others: Vec<ClusterKey>,
}

impl KeyRing {
    /// These keys; one that is there twice counts once.
    #[must_use]
    pub fn new(first: ClusterKey, others: impl IntoIterator<Item = ClusterKey>) -> Self {
        let mut ring = Self { first, others: Vec::new() };
        for key in others {
            if ring.iter().all(|known| *known != key) {
                ring.others.push(key);
            }
        }
        ring
    }

    /// The one to begin with.
    #[must_use]
    pub fn first(&self) -> &ClusterKey {
        &self.first
    }

    /// All of them, the first at the front.
    pub fn iter(&self) -> impl Iterator<Item = &ClusterKey> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The one of this id.
    #[must_use]
    pub fn by_id(&self, id: KeyId) -> Option<&ClusterKey> {
        self.iter().find(|key| key.id() == id)
    }
}

impl From<ClusterKey> for KeyRing {
    fn from(only: ClusterKey) -> Self {
        Self { first: only, others: Vec::new() }
    }
}

/// A hash of a cluster key, short enough to send in the clear: a hint at which key to try, proof of nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
