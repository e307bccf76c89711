//! What goes into an engine and what comes out: requests, outputs, events and views.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use crate::circuit::Step;
use crate::documents::{Conflict, DocumentId, Edit, EditRefused, Quarantine, Scope};
use crate::identity::{Address, ChangeHash, ClusterId, NodeId, SessionId};
use crate::membership::{Evidence, Status};
use crate::replication::Job;
use crate::storage::{Query, Write};
use crate::time::{Instant, Wall};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);
    };
}

number!(
    /// One edit that was asked for.
    EditId
);
number!(
    /// One read that was asked for.
    ReadId
);
number!(
    /// One batch of writes.
    BatchId
);
number!(
    /// One read from storage.
    LoadId
);

/// What the driver is to do, in order.
#[derive(Debug)]
pub enum Output<D> {
    /// Send one datagram; losing it is allowed.
    SendDatagram {
        /// The peer's address, to be resolved.
        to: Address,
        /// At most 1,200 bytes.
        bytes: Bytes,
    },
    /// Connect, shake hands, then report [`SessionEvent::Opened`] or [`SessionEvent::Closed`].
    OpenSession {
        /// The number it will have.
        session: SessionId,
        /// Where to.
        address: Address,
    },
    /// Shake hands on a stream that the engine itself carries, through another member, then report
    /// [`SessionEvent::Opened`] or [`SessionEvent::Closed`]. Its bytes go in and out by [`Output::Circuit`] and
    /// [`SessionEvent::Circuit`]; at first [`CIRCUIT_WINDOW_BYTES`](crate::CIRCUIT_WINDOW_BYTES) may go out.
    OpenCircuit {
        /// The number it has.
        session: SessionId,
        /// Who carries it.
        carrier: NodeId,
        /// Whether this side begins.
        opens: bool,
    },
    /// What happens to the stream below a session that goes through another member.
    Circuit {
        /// Which.
        session: SessionId,
        /// Bytes have arrived for it; so many more of its own may go out; or nothing more comes.
        step: Step,
    },
    /// Send a frame on an open session, after those sent before.
    SendFrame {
        /// The session; one that has closed meanwhile swallows the frame.
        session: SessionId,
        /// At most 1 MiB.
        frame: Bytes,
    },
    /// Close a session. No event follows, but for the end of a circuit below it.
    CloseSession {
        /// The session.
        session: SessionId,
        /// Why, for the log.
        why: &'static str,
    },
    /// Make `writes` durable, all or none, after those of every earlier batch.
    Persist {
        /// Reported back in [`StorageEvent`].
        batch: BatchId,
        /// Rises when a batch was refused. Storage refuses every batch of an epoch in which it refused one: they may
        /// build on what was lost.
        epoch: u32,
        /// Write again what was recovered, before anything else: after an unclean stop it may be only in the page cache.
        rewrite_tail: bool,
        /// In order; a later write to a key wins.
        writes: Vec<Write>,
    },
    /// Read a range of keys.
    Load {
        /// Reported back in [`StorageEvent`].
        load: LoadId,
        /// Which.
        query: Query,
    },
    /// Run the job (on another core, if the driver likes) and hand back what it returns.
    Verify(Job<D>),
    /// Something that happened.
    Event(Event),
}

/// What became of a stream.
#[derive(Clone, Debug)]
pub enum SessionEvent {
    /// It is open and the peer has proved that it holds the cluster's key.
    Opened(crate::identity::PeerIdentity),
    /// A whole frame arrived.
    Frame(Bytes),
    /// The driver's queue to the peer has drained to this many bytes; reported whenever a frame has left it.
    Writable {
        /// Bytes still queued.
        queued: usize,
    },
    /// It is over, or never came to be.
    Closed(crate::membership::Closed),
    /// What a session that goes through another member did with the stream below: it wrote bytes, no more than there was
    /// room for; it took as many out; or neither will happen any more.
    Circuit(Step),
}

/// What became of a storage request.
#[derive(Debug)]
pub enum StorageEvent {
    /// The batch and all before it are durable.
    Persisted(BatchId),
    /// The batch was not written, since there is no room. Storage refuses the rest of its epoch as well.
    Full(BatchId),
    /// A write or a sync failed. Nothing more is acknowledged until the process has restarted.
    Failed(BatchId),
    /// Entries in key order.
    Loaded {
        /// Which request.
        load: LoadId,
        /// Key and value.
        entries: Vec<(Bytes, Bytes)>,
        /// False when the range went on past the byte limit.
        complete: bool,
    },
    /// The range could not be read.
    LoadFailed(LoadId),
}

/// An edit and its conditions.
#[derive(Clone, Debug)]
pub struct EditRequest {
    /// What to edit.
    pub document: DocumentId,
    /// How.
    pub edit: Edit,
    /// When it may be made.
    pub precondition: Precondition,
    /// How many peers must hold it durably before the answer; zero answers when it is durable here.
    pub replicas: usize,
    /// How long to wait for them.
    pub timeout: Duration,
}

impl EditRequest {
    /// An unconditional edit that is answered when it is durable here.
    #[must_use]
    pub fn new(document: DocumentId, edit: Edit) -> Self {
        Self { document, edit, precondition: Precondition::default(), replicas: 0, timeout: Duration::ZERO }
    }
}

/// HTTP's `If-Match` and `If-None-Match`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The document must exist with one of these.
    pub if_match: Option<EtagMatch>,
    /// The document must not exist with one of these.
    pub if_none_match: Option<EtagMatch>,
}

/// A list of etags, or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EtagMatch {
    /// `*`: any existing document.
    Any,
    /// One of these.
    OneOf(Vec<Etag>),
}

/// Names a document's state: the hash of its epoch and sorted heads. Equal on all replicas that hold the same changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Etag(pub [u8; 16]);

impl std::fmt::Display for Etag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Etag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Etag {
    type Err = crate::identity::NotHex;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<NodeId>().map(|id| Self(id.0))
    }
}

/// An edit that is durable here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The document's state with it.
    pub etag: Etag,
    /// True when the document did not exist, or was deleted.
    pub created: bool,
    /// False when the document already was as asked, so no change was made.
    pub changed: bool,
    /// How many peers hold it durably.
    pub held_by: usize,
    /// False when fewer than were asked for held it in time.
    pub replicated: bool,
}

/// Why an edit was not made. Nothing of it remains.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The document's scope is not held by servers of this zone.
    #[error("this server is not in the document's zone")]
    NotHeldHere,
    /// The client's edit cannot be made.
    #[error(transparent)]
    Refused(#[from] EditRefused),
    /// The precondition does not hold.
    #[error("the document has changed")]
    Precondition {
        /// Its present state; none when it does not exist.
        current: Option<Etag>,
    },
    /// There is no such document.
    #[error("no such document")]
    NotFound,
    /// The document is deleted.
    #[error("the document is deleted")]
    Gone,
    /// There is no room on this server's disk. Reads go on; writes return when there is room.
    #[error("no room on this server's disk")]
    DiskFull,
    /// Storage failed: this process acknowledges nothing more.
    #[error("this server's storage has failed")]
    StorageFailed,
    /// Too many edits wait already.
    #[error("too many edits are waiting")]
    Busy,
    /// The stored changes of the document cannot be read.
    #[error("the stored document cannot be read")]
    Unreadable,
    /// This node has left the cluster, or another live copy of it has taken its place.
    #[error("this server has left the cluster")]
    Left,
}

/// A document as it is durable here.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentView {
    /// Index data.
    pub summary: Summary,
    /// The document as JSON.
    pub value: Value,
    /// Places that hold more than one value; empty unless asked for.
    pub conflicts: Vec<Conflict>,
}

/// What the index knows of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub id: DocumentId,
    /// Its state.
    pub etag: Etag,
    /// Whether it is deleted.
    pub deleted: bool,
    /// Whether an edit that a delete had not seen brought it back.
    pub revived: bool,
    /// This node's count of document updates when it last changed here.
    pub sequence: u64,
    /// When the author of its last change made it.
    pub modified: Wall,
    /// How many changes it has.
    pub changes: u32,
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The document's scope is not held by servers of this zone.
    #[error("this server is not in the document's zone")]
    NotHeldHere,
    /// There is no such document.
    #[error("no such document")]
    NotFound,
    /// The document is deleted.
    #[error("the document is deleted")]
    Gone {
        /// The state that the delete left.
        etag: Etag,
    },
    /// Too many reads wait already.
    #[error("too many reads are waiting")]
    Busy,
    /// The stored changes cannot be read, or do not make a document.
    #[error("the stored document cannot be read")]
    Unreadable,
    /// The document's history has no such change, or not yet.
    #[error("the document's history has no such change here")]
    NoVersion,
    /// The change was never applied.
    #[error("this change is in quarantine, so the document never was as it says: {0}")]
    NotApplied(Quarantine),
    /// Over [`VERSION_BYTES_MAX`] of changes lead to it.
    #[error("more than {VERSION_BYTES_MAX} bytes of changes lead to this version")]
    VersionTooLong,
}

/// Most bytes of changes that an earlier version of a document is made from.
pub const VERSION_BYTES_MAX: usize = 16 << 20;

/// A document as of a version in its history.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionView {
    /// What it was; of a deleted one, what the delete had before it.
    pub value: Value,
    /// Whether it was deleted then.
    pub deleted: bool,
}

/// One change of a document's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryEntry {
    /// The change.
    pub hash: String,
    /// The changes that its author saw as the latest: with it they name the versions before and after. None for the first.
    pub deps: Vec<String>,
    /// The node that wrote it, in hexadecimal.
    pub node: String,
    /// The author's actor, in hexadecimal.
    pub actor: String,
    /// The author's count of changes.
    pub seq: u64,
    /// Milliseconds since the Unix epoch, by the author's clock.
    pub time: i64,
    /// `edit` or `delete`.
    pub kind: &'static str,
    /// Its length in bytes.
    pub bytes: usize,
    /// Why it is in quarantine, if it is.
    pub quarantine: Option<String>,
    /// Whether it is in quarantine and was put aside here.
    pub dropped: bool,
}

/// What to do about a document's changes in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// Have the gate judge them anew: one with what follows from it, or all. What was dropped is taken up again.
    Release(Option<ChangeHash>),
    /// Put one aside here: it is counted and told of no more. It is kept, applied as little as before and passed on.
    Drop(ChangeHash),
}

/// What became of a change that was looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reviewed {
    /// Which.
    pub change: ChangeHash,
    /// Why it is in quarantine; none when it counts now.
    pub quarantine: Option<Quarantine>,
}

/// Why changes in quarantine could not be looked at again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// The document's scope is not held by servers of this zone.
    #[error("this server is not in the document's zone")]
    NotHeldHere,
    /// There is no such document.
    #[error("no such document")]
    NotFound,
    /// The change that was named is not here, or not in quarantine.
    #[error("the document has no such change in quarantine")]
    NotQuarantined,
    /// Too many requests wait already.
    #[error("too many requests are waiting")]
    Busy,
    /// The stored changes cannot be read, or do not make a document.
    #[error("the stored document cannot be read")]
    Unreadable,
    /// There is no room on this server's disk.
    #[error("no room on this server's disk")]
    DiskFull,
    /// Storage failed: this process does nothing more.
    #[error("this server's storage has failed")]
    StorageFailed,
}

/// Something that happened, for whoever asked or listens.
#[derive(Clone, Debug)]
pub enum Event {
    /// An edit's answer.
    Edited(EditId, Result<Edited, EditError>),
    /// A read's answer.
    Read(ReadId, Result<DocumentView, ReadError>),
    /// A history's answer, oldest first.
    History(ReadId, Result<Vec<HistoryEntry>, ReadError>),
    /// What a document was as of a version.
    Version(ReadId, Result<VersionView, ReadError>),
    /// What became of the changes that were to be looked at again, in the order of the log.
    Reviewed(ReadId, Result<Vec<Reviewed>, ReviewError>),
    /// A document's durable state changed.
    Changed(Summary),
    /// A member came, changed or went.
    Member(MemberChange),
    /// A member started again at another address.
    AddressMoved {
        /// Who.
        node: NodeId,
        /// Where it is now.
        addresses: Vec<Address>,
    },
    /// Several live nodes use one name.
    NameTaken {
        /// The name.
        name: String,
        /// Their addresses.
        addresses: Vec<Address>,
    },
    /// A change was put in quarantine.
    Quarantined {
        /// Where.
        document: DocumentId,
        /// Which.
        change: ChangeHash,
        /// Why.
        why: Quarantine,
    },
    /// A peer holds the key but its data belongs to another cluster; neither side takes anything from the other.
    ForeignCluster {
        /// The peer.
        node: NodeId,
        /// Its cluster.
        theirs: ClusterId,
        /// Ours.
        ours: ClusterId,
    },
    /// This node is shut out of the cluster.
    Evicted {
        /// Who has said so by refusing it, and where it was connected to; none where this node holds the eviction itself.
        by: Option<(NodeId, Option<Address>)>,
    },
    /// A node that is shut out has come, and was refused.
    EvictedCame {
        /// Who.
        node: NodeId,
    },
    /// This node, being empty, took over a cluster's identity.
    Adopted(ClusterId),
    /// Another live copy of this node is above it: this one stops writing.
    Fenced,
    /// Those who should know have been told that this node leaves.
    LeaveDone,
    /// Peers differ and a repair begins.
    RepairStarted {
        /// With whom.
        peer: NodeId,
        /// Of what.
        scope: Scope,
    },
    /// Storage failed: the driver should stop, with a reason.
    StorageFailed,
}

/// A member's transition.
#[derive(Clone, Debug)]
pub struct MemberChange {
    /// Who.
    pub node: NodeId,
    /// Its label.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// What was believed; none when it is new.
    pub from: Option<Status>,
    /// What is believed now.
    pub to: Status,
    /// Why.
    pub evidence: Evidence,
    /// When.
    pub at: Instant,
}

/// How what a peer holds compares with what this node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InStep {
    /// It differs.
    No {
        /// Since when all comparisons did.
        since: Instant,
    },
    /// It was the same when it was last compared.
    Yes,
}

/// One scope as this node holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScopeStatus {
    /// Its name: `global` or `zone:<name>`.
    pub scope: String,
    /// Documents that exist.
    pub documents: u64,
    /// Documents that are deleted; their tombstones stay.
    pub deleted: u64,
    /// Hash over all documents and their heads; equal on two servers when they hold the same.
    pub root: String,
}
