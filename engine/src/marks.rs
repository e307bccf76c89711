//! States that a campaign of simulations has to reach, or it has not tested what it seems to.
//!
//! [`sometimes!`](crate::sometimes) marks each where it is reached. With the feature `marks`, which the simulator turns
//! on, a thread remembers which it came by; without it nothing is left of them. The engine never reads them.

/// A state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// As [`sometimes!`](crate::sometimes) and reports spell it.
    pub name: &'static str,
    /// Why it matters.
    pub why: &'static str,
}

/// Whether hits are remembered.
pub const ENABLED: bool = cfg!(feature = "marks");

macro_rules! marks {
    ($($name:literal: $why:literal,)+) => {
        /// All of them.
        pub const MARKS: &[Mark] = &[$(Mark { name: $name, why: $why },)+];
    };
}

marks! {
    // Membership
    "member suspected": "a probe was missed, and its helpers",
    "suspicion confirmed": "enough accusers make a suspicion as short as it gets",
    "refused by two": "a dead process is known at once, without a suspicion",
    "suspicion overtaken": "a suspicion that was denied must not end in a failure",
    "suspicion drawn out": "who was heard meanwhile gets one more wait",
    "cut off": "a node that doubts itself fails nobody for a while",
    "zone suspect at once": "a lost network must not be taken for lost servers",
    "member failed": "what is dead is declared so",
    "failure contested": "word of a failure is checked where a stream is open",
    "contest lost": "a member that is silent is believed to have failed",
    "contest overtaken": "word of a former start says nothing of the present one",
    "probe refused": "a host that refuses settles a probe",
    "silence excused": "who was heard by another way is not accused",
    "probe settled by refusal": "a refusal comes while helpers are asked",
    "sick as can be": "local health has a floor",
    "contest won": "a false word of a failure is not believed",
    "clock seen to be set": "what a clock showed before it was set is not what it shows",
    "saved by its stream": "a member without datagrams is not failed",
    "datagrams given up": "a way that went bad is taken for bad",
    "helper in vain": "a helper says that it tried",
    "saved by a helper": "a member behind a bad link is not failed",
    "knocked": "members that failed are asked again for ever",
    "watched across zones": "a zone too small to watch itself is watched by others",
    "restored member heard of": "any word counts about who was only remembered",
    "news of a stranger": "what cannot be understood is asked about",
    "former start heard of": "what a dead start said is topped, not followed",
    "fenced": "of two live boots of one node one falls silent",
    "refuted": "what is said of a node ends with its denial",
    "denied again": "a denial that was missed is told again",
    "accused told": "who speaks hears what is held against it",
    "views differ": "what gossip missed is found by comparison",
    "tables compared": "tables that differ are exchanged by the bucket",
    "word behind": "a member that says less of itself than is held is shown that",
    "address moved": "a member is found where it has gone",
    "stuck stream closed": "a pipe that hangs after a partition is given up",
    "stranger introduced": "a stream may be there before any record",
    "failed member back": "a failure is not for ever",
    "left member back": "a goodbye is not for ever",
    "member left": "a goodbye is understood",
    "restored member given up": "who was remembered and never came is failed",
    "isolated": "who is alone asks its seeds",
    "seed asked again": "two halves that never met find each other by a seed",
    "connection refused": "a refusal is word of a dead process",
    "attempt unanswered": "an attempt without an answer is made again",
    "probed at once": "a broken stream is looked into at once",
    "goodbye": "a stop by signal is told",
    "goodbye to nobody": "who is alone leaves at once",

    // Sessions
    "connected to itself": "a seed may be the node itself",
    "evicted while connected": "who is shut out loses its streams",
    "evicted node refused": "and gets no others",
    "readmitted": "until it is let in again",
    "sessions collided": "two that connect at once end with one stream",
    "peer by another name": "an address may lead to who is connected",
    "session may not wait": "one stream may wait beside the one in use",
    "session replaced": "a peer that started anew has a new stream",
    "waiting session used": "the stream that waited takes the place of the one that broke",
    "waiting session spoken on": "who speaks on a stream that waits means it",
    "overtaken root": "a root that was overtaken on its way is said again",
    "datagram of another boot": "what is meant for another boot is not opened",
    "datagram repeated": "what comes twice is taken once",
    "datagram of a stranger": "who is not known is not heard",
    "later version spoke": "a frame of a kind that is not known yet is skipped",
    "later version sent": "a datagram of a kind that is not known yet is skipped",
    "start after a crash": "what the page cache alone holds is not trusted",
    "start with members": "a restart remembers the cluster",
    "left while edits wait": "who waits for peers is answered before a stop",

    // Repair
    "repair waits": "one repair of a scope at a time",
    "repair started": "what push missed is repaired",
    "fetch joined": "a fetch goes with the repair under way",
    "fetched alone": "a change that came too early is looked after at once",
    "fetch without room": "fetches have a limit, and repair makes up for it",
    "fruitless repair": "a repair that brought nothing is not tried at once again",
    "repair expired": "a repair that hears nothing gives way to another",
    "child asked for whole": "who has nothing is sent all",
    "child split again": "where much differs, the split goes deeper",
    "child listed": "where little differs, documents are listed",
    "late window": "what comes after its repair is taken all the same",
    "range past a refusal": "a range goes on past what could not be taken",
    "next window asked for": "what is durable is what lets the next come",
    "request without room": "answers have a limit for each peer",
    "window cut": "a window ends at its limit",
    "document resumed": "a log goes on where the last window ended",
    "range cut": "a range ends at its limit",
    "piece too large": "a log is gone through in pieces that fit",
    "log scanned": "what a peer lacks is found from its heads",

    // Push
    "wait met": "enough peers have said that they hold it",
    "held by who is in step": "what a lost stream would have confirmed is seen from what is held",
    "wait met for some": "edits pushed together may wait for different counts",
    "wait timed out": "who waits for too many is answered in time",
    "push without room": "who does not read is not pushed to",
    "pushed to some": "a zone keeps its documents",
    "pushed to nobody": "a server that is cut off takes writes",

    // Circuits
    "circuit": "where no address leads to a member, another carries what is said",
    "circuit refused": "who has no way either says so, and another is asked",
    "circuit unanswered": "who is asked may be cut off itself",
    "circuit lost its carrier's stream": "a circuit ends with either of its halves",
    "circuit no longer needed": "a straight way opens while others are asked",
    "better way found": "a way through others is left for a straight one",

    // Documents
    "pushed again while written": "what is known is said to be held only once it is durable",
    "change came again": "what comes twice is held once",
    "orphan adopted": "what came too early is taken when its time has come",
    "orphan evicted": "orphans have a limit, and repair makes up for it",
    "judged again": "what is in quarantine is released",
    "put aside": "a change in quarantine is dropped",
    "refused untried": "what breaks the rules never counts",
    "displaced": "of two changes with one number the same one stands everywhere",
    "orphan kept": "a change may overtake what it depends on",
    "recreated": "a deleted document may be made again",
    "read waited": "a read of what is not durable waits until it is",
    "heads split": "edits made at once stand side by side",
    "heads joined": "an edit brings together what it saw",
    "deleted twice": "deletes made at once are one deletion",
    "delete beside an edit": "an edit that a delete had not seen keeps the document",
    "changed during trial": "changes come while others are tried",
    "changed during load": "changes come while a document is loaded",
    "loaded": "a document that was not in memory is read",
    "content waits for storage": "what storage lacks cannot be loaded yet",
    "verdict of an earlier trial": "a verdict is taken for the trial that it belongs to",
    "verdict too late": "a document may change hands while it is tried",
    "trial elsewhere": "long work goes to another core",
    "tried on content": "what came since is tried when a document is used",
    "evicted": "memory is bounded",
    "spared": "what is waited for, or not durable, stays in memory",

    // Persistence
    "edit refused while full": "a full disk refuses edits at once",
    "edit refused as busy": "what waits has a limit",
    "changes without room": "a peer sends more than can be taken",
    "disk has room again": "a full disk is not for ever",
    "refused in its turn": "a refused epoch is refused batch by batch",
    "disk full": "a batch that is refused is forgotten whole",
    "read asked again": "a read of what was refused is answered from what is",
    "storage failed": "after a failed sync nothing is acknowledged",
    "asked before the start": "requests wait until the start is durable",
    "delivery not whole": "a peer is told only of what is durable",
    "batches waiting": "writes gather while storage is busy",
    "joined a batch under way": "who comes late waits for the batch that has it",
}

const WORDS: usize = MARKS.len().div_ceil(u64::BITS as usize);

/// Notes that a state from [`marks::MARKS`](crate::marks::MARKS) is reached, or is where a condition holds. A name that
/// is not listed there does not compile.
#[macro_export]
macro_rules! sometimes {
    ($name:literal) => {
        $crate::sometimes!($name, true)
    };
    ($name:literal, $reached:expr) => {
        if $crate::marks::ENABLED && $reached {
            const PLACE: u32 = $crate::marks::place($name);
            $crate::marks::hit(PLACE);
        }
    };
}

/// The place of a name in [`MARKS`].
///
/// # Panics
/// When it is not there: a constant of it does not compile then.
#[must_use]
pub const fn place(name: &str) -> u32 {
    let mut place = 0;
    let mut rest = MARKS;
    while let Some((mark, others)) = rest.split_first() {
        if equal(mark.name.as_bytes(), name.as_bytes()) {
            return place;
        }
        place += 1;
        rest = others;
    }
    panic!("no such mark is listed in marks.rs")
}

const fn equal(mut one: &[u8], mut other: &[u8]) -> bool {
    while let (Some((a, rest)), Some((b, others))) = (one.split_first(), other.split_first()) {
        if *a != *b {
            return false;
        }
        (one, other) = (rest, others);
    }
    one.is_empty() && other.is_empty()
}

/// Marks that were hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits([u64; WORDS]);

/// The word of a place, and its bit there.
const fn bit(place: u32) -> (usize, u64) {
    ((place / u64::BITS) as usize, 1 << (place % u64::BITS))
}

impl Hits {
    /// Their names, in the order of [`MARKS`].
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let is_hit = move |place| {
            let (word, bit) = bit(place);
            self.0.get(word).is_some_and(|word| word & bit != 0)
        };
        (0..).zip(MARKS).filter(move |(place, _)| is_hit(*place)).map(|(_, mark)| mark.name)
    }
}

thread_local! {
    static HITS: std::cell::Cell<[u64; WORDS]> = const { std::cell::Cell::new([0; WORDS]) };
}

/// Remembers a mark on this thread.
pub fn hit(place: u32) {
    let (word, bit) = bit(place);
    let mut hits = HITS.get();
    if let Some(word) = hits.get_mut(word) {
        *word |= bit;
    }
    HITS.set(hits);
}

/// The marks hit on this thread since this was last asked.
#[must_use]
pub fn take() -> Hits {
    Hits(HITS.replace([0; WORDS]))
}
