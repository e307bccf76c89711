//! How the engine lays out its keys and values on disk. Every value begins with [`FORMAT`].

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::documents::{CHANGE_BYTES_MAX, DocumentId, Quarantine, Scope};
use crate::identity::{ChangeHash, ClusterId};
use crate::membership::{Record, Status};
use crate::storage::{Query, Table, Write};
use crate::time::Wall;
use crate::wire::CHANGE_BYTES_MIN;

/// The version of this layout.
pub(crate) const FORMAT: u8 = 1;

/// What is stored does not decode. The disk is at fault, or a newer version wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corrupt {
    /// A record of a layout that this version does not know.
    #[error(
        "a record of {table:?} has layout {found}, and this version knows {FORMAT}: start the version that wrote it"
    )]
    Version {
        /// The table.
        table: Table,
        /// The layout's version.
        found: u8,
    },
    /// A record that does not decode.
    #[error("a record of {0:?} does not decode: restore this server's data, or empty its folder and let it catch up")]
    Record(Table),
}

/// A document's place in storage and in the split: `scope tag (8) | name hash (16)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DocKey(pub(crate) [u8; DOC_KEY_BYTES]);

/// Bytes of a [`DocKey`].
pub(crate) const DOC_KEY_BYTES: usize = 24;
/// Bytes of the scope's tag.
pub(crate) const SCOPE_TAG_BYTES: usize = 8;

impl DocKey {
    pub(crate) fn of(secret: &[u8; 32], id: &DocumentId) -> Self {
        let mut key = [0; 24];
        let (tag, name) = key.split_at_mut(SCOPE_TAG_BYTES);
        tag.copy_from_slice(&scope_tag(secret, id.scope()));
        let mut hasher = blake3::Hasher::new_keyed(secret);
        hasher.update(id.collection().as_bytes());
        hasher.update(b"/");
        hasher.update(id.key().as_bytes());
        name.iter_mut().zip(hasher.finalize().as_bytes()).for_each(|(to, from)| *to = *from);
        Self(key)
    }

    pub(crate) fn first_byte(&self) -> u8 {
        let [_, _, _, _, _, _, _, _, first, ..] = self.0;
        first
    }

    fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl std::fmt::Debug for DocKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A scope's tag in [`DocKey`]s.
pub(crate) fn scope_tag(secret: &[u8; 32], scope: &Scope) -> [u8; SCOPE_TAG_BYTES] {
    let mut tag = [0; SCOPE_TAG_BYTES];
    let hash = blake3::keyed_hash(secret, scope.to_string().as_bytes());
    tag.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
    tag
}

/// The smallest key above all that begin with `prefix`; none when there is no end.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// What is kept of a document besides its changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DocumentRecord {
    pub(crate) id: DocumentId,
    /// Sorted.
    pub(crate) heads: Vec<ChangeHash>,
    pub(crate) deleted: bool,
    pub(crate) revived: bool,
    pub(crate) sequence: u64,
    pub(crate) modified: i64,
    pub(crate) changes: u32,
    /// Leading changes that have passed their trial or were made here.
    pub(crate) verified: u32,
    /// Changes in quarantine.
    pub(crate) quarantined: u32,
}

impl DocumentRecord {
    pub(crate) fn modified(&self) -> Wall {
        Wall(self.modified)
    }

    pub(crate) fn write(&self, key: &DocKey) -> Write {
        Write { table: Table::Documents, key: Bytes::copy_from_slice(&key.0), value: Some(encode(self)) }
    }

    pub(crate) fn read(key: &[u8], value: &[u8]) -> Result<(DocKey, Self), Corrupt> {
        let record: Self = decode(Table::Documents, value)?;
        let key = DocKey::from_slice(key).ok_or(Corrupt::Record(Table::Documents))?;
        record.id.check().map_err(|_| Corrupt::Record(Table::Documents))?;
        Ok((key, record))
    }
}

/// The key of a document's change number `order`, from 0.
pub(crate) fn change_key(key: &DocKey, order: u32) -> Bytes {
    [&key.0[..], &order.to_be_bytes()].concat().into()
}

/// Set in the byte that says why a change is in quarantine when it was put aside here.
const DROPPED: u8 = 1 << 7;

/// A change in the log: `format (1) | quarantine (1, 0 for none) | chunk`.
pub(crate) fn change_write(key: &DocKey, order: u32, quarantine: Option<Quarantine>, chunk: &[u8]) -> Write {
    stored_write(key, order, quarantine.map_or(0, quarantine_code), chunk)
}

fn stored_write(key: &DocKey, order: u32, code: u8, chunk: &[u8]) -> Write {
    let mut value = Vec::with_capacity(2 + chunk.len());
    value.push(FORMAT);
    value.push(code);
    value.extend_from_slice(chunk);
    Write { table: Table::Changes, key: change_key(key, order), value: Some(value.into()) }
}

/// A change as read back.
#[derive(Clone, Debug)]
pub(crate) struct StoredChange {
    pub(crate) key: DocKey,
    pub(crate) order: u32,
    pub(crate) quarantine: Option<Quarantine>,
    /// Whether it was put aside here, which says nothing of whether it counts.
    pub(crate) dropped: bool,
    pub(crate) chunk: Bytes,
}

impl StoredChange {
    pub(crate) fn read(key: &Bytes, value: &Bytes) -> Option<Self> {
        let (document, order) = key.split_at_checked(DOC_KEY_BYTES)?;
        let [format, quarantine, ..] = **value else { return None };
        (format == FORMAT).then_some(())?;
        let chunk = value.slice(2..);
        // A peer that was sent anything else would take it for misbehaviour, each time.
        (CHANGE_BYTES_MIN..=CHANGE_BYTES_MAX).contains(&chunk.len()).then_some(())?;
        Some(Self {
            key: DocKey::from_slice(document)?,
            order: u32::from_be_bytes(order.try_into().ok()?),
            quarantine: quarantine_of(quarantine & !DROPPED),
            dropped: quarantine & DROPPED != 0,
            chunk,
        })
    }

    /// Stores it again, as it is said to be now.
    pub(crate) fn write(&self) -> Write {
        let code = self.quarantine.map_or(0, quarantine_code) | if self.dropped { DROPPED } else { 0 };
        stored_write(&self.key, self.order, code, &self.chunk)
    }
}

/// The changes of one document from one place in its log up to another.
pub(crate) fn changes_between(key: &DocKey, from: u32, to: u32, bytes_max: usize) -> Query {
    Query { table: Table::Changes, start: change_key(key, from), end: change_key(key, to), bytes_max }
}

/// All changes of one document.
pub(crate) fn changes_of(key: &DocKey) -> Query {
    Query {
        table: Table::Changes,
        start: change_key(key, 0),
        end: prefix_end(&key.0).unwrap_or_default().into(),
        bytes_max: usize::MAX,
    }
}

const QUARANTINE_CODES: [Quarantine; 9] = [
    Quarantine::TooLarge,
    Quarantine::SequenceGap,
    Quarantine::OperationCounter,
    Quarantine::UnknownActor,
    Quarantine::UnboundActor,
    Quarantine::Ancestor,
    Quarantine::Apply,
    Quarantine::Panic,
    Quarantine::Reload,
];

fn quarantine_code(why: Quarantine) -> u8 {
    let at = QUARANTINE_CODES.iter().position(|known| *known == why).unwrap_or(QUARANTINE_CODES.len() - 1);
    u8::try_from(at + 1).unwrap_or(u8::MAX)
}

fn quarantine_of(code: u8) -> Option<Quarantine> {
    let at = usize::from(code).checked_sub(1)?;
    Some(QUARANTINE_CODES.get(at).copied().unwrap_or(Quarantine::Apply))
}

/// What a node knows of itself across starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    pub(crate) cluster: ClusterId,
    /// Keys hashed names and sums; never changes once there is a document.
    pub(crate) secret: [u8; 32],
    pub(crate) starts: u32,
}

const NODE_KEY: &[u8] = b"node";
const MEMBERS_KEY: &[u8] = b"members";

impl NodeRecord {
    pub(crate) fn write(&self) -> Write {
        Write { table: Table::Meta, key: Bytes::from_static(NODE_KEY), value: Some(encode(self)) }
    }
}

/// A member as it is remembered: its record, what was believed of it, and whether it is in the durable set.
pub(crate) type KnownMember = (Arc<Record>, Status, bool);

pub(crate) fn members_write(members: &[KnownMember]) -> Write {
    Write { table: Table::Meta, key: Bytes::from_static(MEMBERS_KEY), value: Some(encode(&members)) }
}

/// What a start finds on disk. The driver pushes every entry of [`Table::Meta`] and [`Table::Documents`].
#[derive(Debug, Default)]
pub struct Recovered {
    pub(crate) unclean: bool,
    pub(crate) node: Option<NodeRecord>,
    pub(crate) members: Vec<KnownMember>,
    pub(crate) documents: Vec<(DocKey, DocumentRecord)>,
}

impl Recovered {
    /// An empty disk's; `unclean` says that the last run did not close its storage, so that what it wrote last may be
    /// in the page cache only.
    #[must_use]
    pub fn new(unclean: bool) -> Self {
        Self { unclean, ..Self::default() }
    }

    /// Takes one entry.
    ///
    /// # Errors
    /// When it does not decode.
    pub fn push(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), Corrupt> {
        match (table, key) {
            (Table::Meta, NODE_KEY) => self.node = Some(decode(table, value)?),
            (Table::Meta, MEMBERS_KEY) => self.members = decode(table, value)?,
            (Table::Meta, _) | (Table::Changes, _) => {}
            (Table::Documents, _) => self.documents.push(DocumentRecord::read(key, value)?),
        }
        Ok(())
    }
}

fn encode<T: Serialize>(record: &T) -> Bytes {
    // Serialising our own plain records into memory has no way to fail.
    postcard::to_extend(record, vec![FORMAT]).unwrap_or_default().into()
}

fn decode<'a, T: Deserialize<'a>>(table: Table, value: &'a [u8]) -> Result<T, Corrupt> {
    match value.split_first() {
        Some((&FORMAT, record)) => postcard::from_bytes(record).map_err(|_| Corrupt::Record(table)),
        Some((&found, _)) => Err(Corrupt::Version { table, found }),
        None => Err(Corrupt::Record(table)),
    }
}
