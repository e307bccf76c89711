//! What must hold, one file a promise.

mod account;
mod acknowledged;
mod amplification;
mod causal;
mod clocks;
mod connected;
mod content;
mod convergence;
mod deleted;
mod denial;
mod durability;
mod edited;
mod entitlement;
mod feed;
mod fenced;
mod forged;
mod heard;
mod held;
mod honest;
mod identity;
mod idle;
mod known;
mod membership;
mod memory;
mod needless;
mod phantom;
mod queues;
mod reads;
mod replay;
mod shut_out;
mod spread;
mod told;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use knot_engine::{ChangeHash, Instant};
use serde::Serialize;

pub use self::account::Account;
pub(crate) use self::amplification::Spending;
pub use self::amplification::{ENVELOPE_BYTES_MAX, MEETING_BYTES_MAX};
pub(crate) use self::clocks::Clocks;
pub use self::connected::RECONNECT_WITHIN;
#[cfg(any(feature = "l2", feature = "l3"))]
pub(crate) use self::content::leak_in;
pub use self::convergence::settle_bound;
pub(crate) use self::convergence::{REST, Replica, Seen, root_gap};
#[cfg(any(feature = "l2", feature = "l3"))]
pub(crate) use self::edited::Past;
pub(crate) use self::edited::Shown;
pub use self::fenced::FENCED_WITHIN;
pub(crate) use self::idle::Sent;
pub use self::idle::{
    IDLE_AFTER, IDLE_DATAGRAM_BYTES_MAX, IDLE_DATAGRAM_BYTES_MIN, IDLE_FOR, IDLE_FRAME_BYTES_MAX, KNOCKS_BYTES_MAX,
};
pub(crate) use self::idle::{IDLE_AFTER_LARGE, IDLE_FOR_LARGE};
pub(crate) use self::known::{Due, Pace};
pub(crate) use self::membership::Observation;
pub use self::membership::{ACCURACY_GRACE, LOSS_ENVELOPE};
pub(crate) use self::needless::NEEDLESS_AFTER;
#[cfg(any(feature = "l2", feature = "l3"))]
pub(crate) use self::phantom::written_fields;
pub(crate) use self::queues::is_crowded;
pub(crate) use self::spread::spread_within;
use crate::ledger::Ledger;
use crate::tap::{ChangeNo, Tap};

/// A promise that a run checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// An acknowledged write is in every entitled replica at the end.
    AcknowledgedKept,
    /// A write is acknowledged only when it is durable, where and as often as was asked for.
    DurableBeforeAcknowledged,
    /// No change leaves a server before it is durable there.
    DurableBeforeSent,
    /// (actor, seq) names one change.
    ActorSeqUnique,
    /// A log holds no change without those that it depends on.
    LogClosed,
    /// A document is deleted exactly when all its heads are deletes.
    DeletedStaysDeleted,
    /// Every change and value traces to a write that was asked for, and to none that was refused.
    NoPhantom,
    /// A zone's documents never leave it.
    ScopeEntitlement,
    /// Entitled replicas become equal in time.
    Convergence,
    /// Every edit is answered.
    Answered,
    /// All see all that live, and no other, in time.
    MembershipComplete,
    /// A healthy reachable server is not declared failed.
    MembershipAccurate,
    /// Who starts, dies or leaves is known everywhere in time.
    KnownInTime,
    /// Each server hears from each that it watches, and reaches all by streams.
    HeardInTime,
    /// A server that starts again remembers the members.
    MembersRemembered,
    /// Where nothing is wrong a write is soon everywhere, and counted there.
    SpreadInTime,
    /// What a server has denied is held against it no longer.
    DenialHeard,
    /// No claim of an honest server counts as nobody's.
    HonestBelieved,
    /// What administrators did to users and tokens holds on every server.
    Accounts,
    /// A space runs where and as often as people asked for, and its end is one.
    Spaces,
    /// Servers that can reach each other hold a stream, and soon.
    ShutOut,
    Connected,
    /// A server shows what it has acknowledged.
    ReadsOwnWrites,
    /// Who shows a write shows what its author saw.
    CausalReads,
    /// A datagram holds nothing of documents, and nothing at all that can be read where it is sealed.
    NoPlaintext,
    /// A log, read anew, is the state that the server shows.
    ReplayEqual,
    /// Writes cost the network little more than their bytes.
    Amplification,
    /// Replicas that hold the same are not repaired again and again.
    RepairsNeeded,
    /// What a server shows is durable there.
    DurableBeforeShown,
    /// The change feed has every document once.
    FeedComplete,
    /// What a server says of itself agrees with what it holds.
    ViewsAgree,
    /// A server knows how far the clocks of others are ahead of its own.
    ClocksCompared,
    /// Who accuses a server has evidence.
    EvidenceHeld,
    /// An honest change is not put in quarantine.
    HonestAccepted,
    /// What counts of forged changes follows from the rules alone.
    ForgedJudged,
    /// An edit makes of a document what it says, and no other, and whoever shows that state shows that.
    EditedAsAsked,
    /// An edit is made of the state that it names, or refused.
    PreconditionHeld,
    /// A process is not fenced while it is the only one of its server.
    NotFenced,
    /// Of two processes of one server one is fenced, in time, and never both.
    OneStepsBack,
    /// A process that is fenced takes no writes.
    FencedTakesNone,
    /// Traffic falls back to idle.
    Idle,
    /// Queues stay under their limits, and nothing is left in them.
    QueuesBounded,
    /// What the application under test promises.
    Application,
    /// An engine does not ask for the same moment for ever.
    Progress,
    /// Never broken, but where a run is to fail.
    Canary,
    /// An assertion of the engine holds.
    NoPanic,
}

impl Invariant {
    /// What holds where it is not broken, for people.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a text for each promise")]
    pub fn promise(self) -> &'static str {
        match self {
            Self::AcknowledgedKept => {
                "A write that a client was told is done is in the history of every server entitled to it, whatever crashed \
                 since. Here one is not."
            }
            Self::DurableBeforeAcknowledged => {
                "A write is acknowledged only once its change is on disk: here, and on as many peers as the client asked \
                 for. This one was acknowledged too early, so a crash now would lose it."
            }
            Self::DurableBeforeSent => {
                "A change leaves a server only once it is on that server's disk. This one left early: a crash now would \
                 leave others with a change that its author has never heard of."
            }
            Self::ActorSeqUnique => {
                "An actor and its sequence number name one change for ever. Two different changes carry this one, so \
                 replicas that hold either can never agree."
            }
            Self::LogClosed => {
                "A log holds no change without those that it depends on. This one has a hole: what builds on it cannot be \
                 applied."
            }
            Self::DeletedStaysDeleted => {
                "A document is deleted exactly when all its heads are deletes. What the server says of it and what its \
                 history says differ."
            }
            Self::NoPhantom => {
                "Each value traces to a write that a client asked for and that was not refused. Nobody wrote this one."
            }
            Self::ScopeEntitlement => {
                "A zone's documents never leave it. This one did, on the way to a server outside."
            }
            Self::Convergence => {
                "Once faults have stopped, all servers entitled to a document come to hold the same within a stated time. \
                 These still differ."
            }
            Self::Answered => "Every edit and every read is answered, if only with a refusal. This one never was.",
            Self::MembershipComplete => {
                "Once faults have stopped, each server comes to see all that live and nobody else, within a stated time. \
                 This one does not."
            }
            Self::MembershipAccurate => {
                "A server that runs and can be reached is not declared failed. This one was, with nothing wrong for long \
                 enough that its denial should have arrived."
            }
            Self::KnownInTime => {
                "Who starts, moves, dies or says goodbye is known as that everywhere, as soon as the membership's times allow \
                 where nothing else is wrong. Here somebody does not know."
            }
            Self::HeardInTime => {
                "Each server probes those that it watches in turn, knows how far away they are, and holds the streams by which \
                 news travel. This one does not."
            }
            Self::MembersRemembered => {
                "What a server knows of members is on its disk a moment later, so that it finds them after a restart without \
                 a seed. Its disk says something else."
            }
            Self::SpreadInTime => {
                "Where nothing is wrong a write is on all disks at once, not only when it is repaired, and who waits for peers \
                 hears of them. Not this one."
            }
            Self::DenialHeard => {
                "A server that is accused of silence denies it, and is accused no longer by anybody whom its word can reach. \
                 Here it still is."
            }
            Self::HonestBelieved => {
                "What is told of an honest server it has said itself, and what it says is well made. Here one was taken for a \
                 liar."
            }
            Self::ShutOut => {
                "Who is evicted gets nothing from a server that knows it, but word of that. Here it got something."
            }
            Self::Connected => {
                "Servers that run and can reach each other hold a stream, so that a write goes straight from one to the \
                 other. These do not."
            }
            Self::ReadsOwnWrites => {
                "A server shows what it has acknowledged. This read came later and does not have it."
            }
            Self::HonestAccepted => {
                "What an honest server wrote is applied. Here a change of one was put in quarantine."
            }
            Self::ForgedJudged => {
                "Which changes of a document count follows from rules that look at what changes there are, and not at the \
                 order in which they came: so all servers agree, whatever a hostile member sends. This one counts what it \
                 must not, or does not count what it must."
            }
            Self::EditedAsAsked => {
                "An edit makes of a document what RFC 6902 and RFC 7396 say, or is refused for the reason that they and the \
                 limits give; and an etag names one state, which is the same wherever it shows. Here it is not so."
            }
            Self::PreconditionHeld => {
                "An edit that names the state it is meant for is made of that state, and refused only in another. Not this \
                 one."
            }
            Self::NotFenced => {
                "Only a second live process of the same server makes one step back. This one stepped back while it was \
                 alone, and takes no writes any more."
            }
            Self::OneStepsBack => {
                "Of two processes that run on copies of one data folder, one finds out in time and steps back, and the other \
                 goes on. These two do not."
            }
            Self::FencedTakesNone => {
                "A process that has stepped back before another of its server takes no more writes. This one does."
            }
            Self::Idle => {
                "A cluster that has settled and is asked nothing falls back to a whisper. This one goes on talking."
            }
            Self::QueuesBounded => {
                "Each queue has a limit and stays under it, and is empty when there is nothing to do. This one is not."
            }
            Self::CausalReads => {
                "Who shows a write shows all that its author saw when it was made. This server shows an effect without its \
                 cause."
            }
            Self::NoPlaintext => {
                "What is sent in the open says nothing of documents, and where it is sealed nothing at all that can be \
                 read. This datagram does."
            }
            Self::ReplayEqual => {
                "A log that is read anew gives the state that the server shows. This one gives another."
            }
            Self::Amplification => "Writes cost the network little more than their own bytes. Here they cost far more.",
            Self::RepairsNeeded => "Replicas that hold the same have nothing to repair. These go on comparing.",
            Self::Application => {
                "What the application under test promises of its own documents. Here it does not hold."
            }
            Self::DurableBeforeShown => {
                "A server shows only what is on its disk. This read shows a write that a crash could still take back."
            }
            Self::FeedComplete => {
                "The change feed has every document that a server holds, once, by its latest state. This one does not."
            }
            Self::ViewsAgree => {
                "Lists name the documents that there are, page by page; who agrees on all members has the same hash of them; \
                 where all has been said, all is held elsewhere, and no queue holds anything. This view says otherwise."
            }
            Self::EvidenceHeld => {
                "Whoever accuses a server of silence has heard nothing of it while others probed it too. This one has."
            }
            Self::ClocksCompared => {
                "A server knows how far the clock of each that answers it is ahead of its own, to half the round trip. This one \
                 is wrong."
            }
            Self::Accounts => {
                "Users that were made are there, by names that are theirs alone; who was deleted stays so, a token that was \
                 revoked is taken nowhere, and no server lets the last administrator go that it knows of."
            }
            Self::Spaces => {
                "A space runs only on servers that somebody has asked to start it, and a start is run once, also where its \
                 container was removed; what was deleted runs no more and leaves nothing. In the end all servers show a space \
                 alike, and it runs where they say and nowhere else."
            }
            Self::Canary => "Nothing is wrong: this run was to fail, to prove that failures are noticed.",
            Self::NoPanic => "An engine never panics, whatever it is told. An assertion of this one failed.",
            Self::Progress => {
                "An engine that has been told everything falls silent. This one asks for the same for ever."
            }
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AcknowledgedKept => "acknowledged write lost",
            Self::DurableBeforeAcknowledged => "acknowledged before durable",
            Self::DurableBeforeSent => "sent before durable",
            Self::ActorSeqUnique => "(actor, seq) used twice",
            Self::LogClosed => "change without its dependencies",
            Self::DeletedStaysDeleted => "deletion and history disagree",
            Self::NoPhantom => "value that nobody wrote",
            Self::ScopeEntitlement => "document left its zone",
            Self::Convergence => "replicas differ",
            Self::Answered => "edit or read never answered",
            Self::MembershipComplete => "membership incomplete",
            Self::MembershipAccurate => "healthy member failed",
            Self::KnownInTime => "not known in time",
            Self::HeardInTime => "not heard in time",
            Self::MembersRemembered => "members forgotten",
            Self::SpreadInTime => "write spread late",
            Self::DenialHeard => "denial not heard",
            Self::HonestBelieved => "honest server disowned",
            Self::ShutOut => "an evicted server got something",
            Self::Connected => "servers not connected",
            Self::ReadsOwnWrites => "acknowledged write not shown",
            Self::CausalReads => "effect without its cause",
            Self::NoPlaintext => "plaintext in a datagram",
            Self::ReplayEqual => "log and state differ",
            Self::Amplification => "too much sent for a write",
            Self::RepairsNeeded => "repair without need",
            Self::DurableBeforeShown => "shown before durable",
            Self::FeedComplete => "change feed incomplete",
            Self::ViewsAgree => "views disagree",
            Self::ClocksCompared => "clocks compared wrongly",
            Self::EvidenceHeld => "accused without evidence",
            Self::HonestAccepted => "honest change in quarantine",
            Self::ForgedJudged => "forged change misjudged",
            Self::EditedAsAsked => "edit not as asked",
            Self::PreconditionHeld => "precondition not held",
            Self::NotFenced => "lone process fenced",
            Self::OneStepsBack => "not one of two fenced",
            Self::FencedTakesNone => "fenced process takes writes",
            Self::Idle => "idle cluster is busy",
            Self::QueuesBounded => "queue over its limit, or not emptied",
            Self::Application => "the application's promise broken",
            Self::Progress => "engine makes no progress",
            Self::Accounts => "accounts do not hold",
            Self::Spaces => "spaces do not hold",
            Self::Canary => "canary",
            Self::NoPanic => "engine panicked",
        })
    }
}

/// A promise that did not hold.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When, in microseconds.
    pub at_us: u64,
    /// On which server it showed.
    pub node: usize,
    /// How.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Instant::from_micros(self.at_us);
        write!(f, "{} at {at} on n{}: {}", self.invariant, self.node, self.detail)
    }
}

/// The checkers of one run and what they share.
#[derive(Debug)]
pub(crate) struct Checkers {
    pub(crate) tap: Tap,
    pub(crate) ledger: Ledger,
    pub(crate) violations: Vec<Violation>,
    identity: identity::Identity,
    reads: account::Reads,
    needless: needless::Needless,
    asked: held::Asked,
    edits: edited::Edits,
    genesis: BTreeSet<ChangeHash>,
    node_ids: Vec<knot_engine::NodeId>,
    /// Servers whose machines were lost.
    former_ids: BTreeMap<knot_engine::NodeId, usize>,
    /// Machines on which a copy of another server runs.
    copies: BTreeMap<usize, knot_engine::NodeId>,
    /// What disks ever held that are not in use, by the servers whose they are: those of machines that run on a copy now,
    /// and those of copies that are deleted.
    set_aside: Vec<(knot_engine::NodeId, BTreeSet<ChangeNo>)>,
    /// Servers that nothing is promised of any more.
    pub(crate) outside: BTreeSet<usize>,
    by_id: BTreeMap<knot_engine::NodeId, usize>,
    zones: Vec<String>,
    /// Whether values are those of the simulator's own workload, whose fields name their writes.
    pub(crate) values_are_own: bool,
}

/// A run stops at its first violation; a few that show at once are kept.
const VIOLATIONS_MAX: usize = 8;

impl Checkers {
    pub(crate) fn new(
        tap: Tap,
        genesis: BTreeSet<ChangeHash>,
        node_ids: Vec<knot_engine::NodeId>,
        zones: Vec<String>,
    ) -> Self {
        Self {
            tap,
            ledger: Ledger::default(),
            violations: Vec::new(),
            identity: identity::Identity::default(),
            reads: account::Reads::default(),
            needless: needless::Needless::default(),
            asked: held::Asked::default(),
            edits: edited::Edits::default(),
            genesis,
            by_id: node_ids.iter().copied().zip(0..).collect(),
            node_ids,
            former_ids: BTreeMap::new(),
            copies: BTreeMap::new(),
            set_aside: Vec::new(),
            outside: BTreeSet::new(),
            zones,
            values_are_own: true,
        }
    }

    /// A document may be that no client was to write.
    pub(crate) fn expect_document(&mut self, genesis: ChangeHash) {
        self.genesis.insert(genesis);
    }

    pub(crate) fn report(&mut self, invariant: Invariant, at: Instant, node: usize, detail: impl FnOnce() -> String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { invariant, at_us: at.as_micros(), node, detail: detail() });
        }
    }

    /// The server of that name, or that had it before its machine was lost.
    fn node_of(&self, id: knot_engine::NodeId) -> Option<usize> {
        self.present(id).or_else(|| self.former_ids.get(&id).copied())
    }

    /// The server that has that name now.
    pub(crate) fn present(&self, id: knot_engine::NodeId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// Another machine takes a server's place.
    pub(crate) fn replace(&mut self, node: usize, id: knot_engine::NodeId) {
        let former = std::mem::replace(&mut self.node_ids[node], id);
        self.by_id.remove(&former);
        self.by_id.insert(id, node);
        self.former_ids.insert(former, node);
    }

    /// A machine runs on a copy of the server of that name from now on, or on its own folder again.
    pub(crate) fn wears(&mut self, machine: usize, copy: Option<knot_engine::NodeId>) {
        let former = self.server_on(machine);
        let held = std::mem::take(&mut self.tap.nodes[machine].ever_durable);
        self.set_aside.push((former, held));
        match copy {
            Some(id) => self.copies.insert(machine, id),
            None => self.copies.remove(&machine),
        };
    }

    /// The server whose disk a machine runs on.
    fn server_on(&self, machine: usize) -> knot_engine::NodeId {
        self.copies.get(&machine).copied().unwrap_or(self.node_ids[machine])
    }

    /// The servers that ever had a change on disk.
    fn ever_had(&self, number: ChangeNo) -> BTreeSet<knot_engine::NodeId> {
        let in_use =
            self.tap.nodes.iter().zip(0..).map(|(held, machine)| (self.server_on(machine), &held.ever_durable));
        let set_aside = self.set_aside.iter().map(|(id, held)| (*id, held));
        in_use.chain(set_aside).filter(|(_, held)| held.contains(&number)).map(|(id, _)| id).collect()
    }

    /// Whether some machine was lost, which the others will not see again.
    pub(crate) fn has_replaced(&self) -> bool {
        !self.former_ids.is_empty()
    }

    /// What a write was, for people.
    fn describe(&self, id: u32) -> String {
        match self.ledger.get(id) {
            Some(write) => {
                let operation = &write.operation;
                let target = operation.target.id();
                format!(
                    "w{id} ({:?} {target} on n{} asked at {}, {:?})",
                    operation.action, operation.node, write.asked, write.outcome
                )
            }
            None => format!("w{id} (never asked for)"),
        }
    }
}
