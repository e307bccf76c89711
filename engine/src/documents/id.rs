//! What a document is called.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest zone name, in bytes.
pub const ZONE_BYTES_MAX: usize = 64;
/// Longest collection name, in bytes.
pub const COLLECTION_BYTES_MAX: usize = 64;
/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// The unit of partial replication: which servers hold a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// Every server.
    Global,
    /// The servers of one zone, and no other.
    Zone(Arc<str>),
}

impl Scope {
    /// Whether a server in `zone` holds this scope.
    #[must_use]
    pub fn is_held_in(&self, zone: &str) -> bool {
        match self {
            Self::Global => true,
            Self::Zone(name) => &**name == zone,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Zone(name) => write!(f, "zone:{name}"),
        }
    }
}

/// A document's name: `scope / collection / key`. Cheap to clone; ordered by scope, collection, key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DocumentId {
    scope: Scope,
    collection: Arc<str>,
    key: Arc<str>,
}

/// Why a name cannot name a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Zone names are 1 to 64 bytes of letters, digits, `.`, `_` and `-`.
    #[error("a zone name is 1 to {ZONE_BYTES_MAX} letters, digits, '.', '_' or '-'")]
    Zone,
    /// Collection names are 1 to 64 bytes of letters, digits, `.`, `_` and `-`.
    #[error("a collection name is 1 to {COLLECTION_BYTES_MAX} letters, digits, '.', '_' or '-'")]
    Collection,
    /// Keys are 1 to 512 bytes of text without control characters.
    #[error("a key is 1 to {KEY_BYTES_MAX} bytes of text without control characters")]
    Key,
}

impl DocumentId {
    /// Names a document, checking each part.
    ///
    /// # Errors
    /// When a part is empty, too long or holds a character it may not.
    pub fn new(scope: Scope, collection: &str, key: &str) -> Result<Self, NameError> {
        let id = Self { scope, collection: collection.into(), key: key.into() };
        id.check()?;
        Ok(id)
    }

    /// Checks a name that came from a peer or from the disk.
    ///
    /// # Errors
    /// As for [`DocumentId::new`].
    pub fn check(&self) -> Result<(), NameError> {
        if let Scope::Zone(zone) = &self.scope
            && !is_label(zone, ZONE_BYTES_MAX)
        {
            return Err(NameError::Zone);
        }
        if !is_label(&self.collection, COLLECTION_BYTES_MAX) {
            return Err(NameError::Collection);
        }
        if self.key.is_empty() || self.key.len() > KEY_BYTES_MAX || self.key.chars().any(char::is_control) {
            return Err(NameError::Key);
        }
        Ok(())
    }

    /// A name whose parts were checked before.
    pub(crate) fn from_parts(scope: Scope, collection: Arc<str>, key: Arc<str>) -> Self {
        Self { scope, collection, key }
    }

    pub(crate) fn into_parts(self) -> (Scope, Arc<str>, Arc<str>) {
        (self.scope, self.collection, self.key)
    }

    /// Which servers hold it.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The collection it is in.
    #[must_use]
    pub fn collection(&self) -> &str {
        &self.collection
    }

    /// Its key within the collection.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.scope, self.collection, self.key)
    }
}

/// Whether `text` is a non-empty label of at most `bytes_max` bytes, as zones and collections are.
#[must_use]
pub fn is_label(text: &str, bytes_max: usize) -> bool {
    !text.is_empty()
        && text.len() <= bytes_max
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
