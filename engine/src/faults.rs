//! Bugs on purpose: what a simulator plants to prove that it would find them.
//!
//! Only [`Engine::new`](crate::Engine::new) takes these. No configuration, environment variable or feature reaches them,
//! and the server passes none.

use std::fmt;

/// The part of the engine that a planted bug sits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// Who is in the cluster.
    Membership,
    /// Sending new changes, and waiting for those who hold them.
    Push,
    /// Finding and fetching what is missing.
    Repair,
    /// Logs, contents and the cache of both.
    Documents,
    /// What is durable, and what may follow from it.
    Persistence,
    /// Tombstones.
    Deletes,
    /// Boots, incarnations, actors.
    Identity,
    /// Bounds, and what is given back when it is no longer needed.
    Backpressure,
}

impl Area {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Membership,
        Self::Push,
        Self::Repair,
        Self::Documents,
        Self::Persistence,
        Self::Deletes,
        Self::Identity,
        Self::Backpressure,
    ];

    /// As a command line spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Membership => "membership",
            Self::Push => "push",
            Self::Repair => "repair",
            Self::Documents => "documents",
            Self::Persistence => "persistence",
            Self::Deletes => "deletes",
            Self::Identity => "identity",
            Self::Backpressure => "backpressure",
        }
    }
}

macro_rules! faults {
    ($($area:ident { $($(#[doc = $says:literal])+ $fault:ident = $name:literal,)+ })+) => {
        /// One bug, of one line.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Fault {
            $($($(#[doc = $says])+ $fault,)+)+
        }

        impl Fault {
            /// Every bug that can be planted, by area.
            pub const ALL: &[Self] = &[$($(Self::$fault,)+)+];

            /// As a command line spells it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $($(Self::$fault => $name,)+)+
                }
            }

            /// Where it sits.
            #[must_use]
            pub const fn area(self) -> Area {
                match self {
                    $($(Self::$fault => Area::$area,)+)+
                }
            }

            /// What the engine does wrong with it.
            #[must_use]
            pub const fn says(self) -> &'static str {
                match self {
                    $($(Self::$fault => concat!($($says),+).trim_ascii(),)+)+
                }
            }
        }
    };
}

faults! {
    Membership {
        /// Declares a member failed when its suspicion timer fires, whatever its state is by then.
        SuspicionUnchecked = "suspicion_unchecked",
        /// Accuses a member of silence that it heard while helpers probed it.
        SilenceUnexcused = "silence_unexcused",
        /// Goes on with the suspicion of a former statement when a member falls under suspicion again.
        SuspicionCarriedOver = "suspicion_carried_over",
        /// Draws out a suspicion each time that it runs out, not once.
        SuspicionDrawnOut = "suspicion_drawn_out",
        /// Denies what claims a later statement than its own, but not an accusation of the present one.
        AccusationIgnored = "accusation_ignored",
        /// Denies an accusation once, and not again to whoever missed that.
        DenialNotRepeated = "denial_not_repeated",
        /// Compares boots before incarnations.
        BootOutranks = "boot_outranks",
        /// Keeps a probe that nobody answered, so that its member counts as being probed for ever.
        ProbeKept = "probe_kept",
        /// Takes a member for restored and unheard of even after it was heard.
        RestoredKept = "restored_kept",
        /// Believes nothing of a member any more that has left.
        LeftIsFinal = "left_is_final",
        /// Keeps the addresses at which a member was first known.
        AddressKept = "address_kept",
        /// Keeps what it knew of the way to a member when that starts anew.
        LinkOutlivesBoot = "link_outlives_boot",
        /// Takes word that a former start of a member failed for word of the present one.
        ContestOutlivesBoot = "contest_outlives_boot",
        /// Connects to a member no more after nine failures in a row.
        ConnectGivesUp = "connect_gives_up",
        /// Looks for no way through others to a member to which none of its addresses leads.
        CircuitUnsought = "circuit_unsought",
        /// Asks nobody else for a way to a member where the first that it asked has none.
        CircuitAskedOnce = "circuit_asked_once",
        /// Tells the ends of a circuit nothing when one of the two streams that it goes over is gone.
        CircuitKept = "circuit_kept",
        /// Stays with a way through others when a straight one is there again.
        BetterUnsought = "better_unsought",
        /// Compares tables of members but for the last bucket.
        BucketSkipped = "bucket_skipped",
        /// Tells nobody any news, so that others learn of it where tables are compared.
        NewsUntold = "news_untold",
        /// Leaves the last member out of each round of probes.
        RoundCutShort = "round_cut_short",
        /// Does not keep what it learns of members.
        MembersUnsaved = "members_unsaved",
        /// Tells others what its wall clock showed when it was told so, not what it shows since.
        ClockStandsStill = "clock_stands_still",
    }
    Push {
        /// Sends a change to peers before its batch is durable.
        PushBeforePersist = "push_before_persist",
        /// Passes a change on before its batch is durable.
        RelayBeforePersist = "relay_before_persist",
        /// Counts a peer as holding a change when it was sent, not when the peer said so.
        HeldOnSend = "held_on_send",
        /// Counts a peer as holding a change when it says what it holds, whatever that is.
        InStepUnseen = "in_step_unseen",
        /// Ignores the scope when it chooses whom to push to.
        ScopeIgnored = "scope_ignored",
        /// Says that it holds a change that it knows, though not durably yet.
        HeldWhenKnown = "held_when_known",
        /// Says that it holds a change that its disk refused.
        HeldWhenRefused = "held_when_refused",
        /// Says that it holds a change that waits for what it depends on.
        OrphanHeld = "orphan_held",
        /// Says that it holds changes that it had no room for.
        RoomlessHeld = "roomless_held",
        /// Counts itself among the peers that hold a change.
        CountsItself = "counts_itself",
        /// Says that enough peers hold a change when the time to wait for them is up.
        TimeoutCountsAsHeld = "timeout_counts_as_held",
        /// Does not say that it holds a change.
        HeldUnsaid = "held_unsaid",
        /// Does not pass a change on.
        RelayNotTaken = "relay_not_taken",
        /// Forgets the deadline of edits that share it with one that is answered.
        SharedDeadlineLost = "shared_deadline_lost",
    }
    Repair {
        /// Ends a split of the key space one child early.
        SplitOffByOne = "split_off_by_one",
        /// Takes a window as the whole answer.
        WindowTruncated = "window_truncated",
        /// Begins every window of a range at the range's beginning.
        CursorNotAdvanced = "cursor_not_advanced",
        /// Compares how many documents a scope has, and not which.
        RootCountOnly = "root_count_only",
        /// Sums up the first head of each document.
        FirstHeadOnly = "first_head_only",
        /// Leaves a document in the sums as it was before its heads became one.
        SumKept = "sum_kept",
        /// Asks for a document only if it has none of its heads.
        AnyHeadKnown = "any_head_known",
        /// Sends nothing of a document of which the peer has one of the heads.
        AnyHeadServed = "any_head_served",
        /// Does not wake up for a root that differs.
        RootWakeLost = "root_wake_lost",
        /// Does not say its root again to a peer that asks about equal sums.
        OvertakenRootKept = "overtaken_root_kept",
        /// Keeps a repair whose time is up.
        ExpiredPullKept = "expired_pull_kept",
    }
    Documents {
        /// Takes changes of a document whose name is none.
        NameUnchecked = "name_unchecked",
        /// Admits a change whose dependencies are missing.
        GapAccepted = "gap_accepted",
        /// Gives each replica a genesis of its own, so that concurrent creates of one key do not merge.
        GenesisUnshared = "genesis_unshared",
        /// Loses the changes that came while a document was loaded.
        ArrivedDuringLoad = "arrived_during_load",
        /// Loses the changes that came while others were tried on a document.
        ArrivedDuringTrial = "arrived_during_trial",
        /// Takes any verdict for the one that it waits for.
        StaleVerdict = "stale_verdict",
        /// Goes on with nobody when a verdict comes.
        VerdictWakesNobody = "verdict_wakes_nobody",
        /// Goes on with nobody when what they wait for is durable.
        PersistWakesNobody = "persist_wakes_nobody",
        /// Checks a precondition against what is durable, not against what is.
        PreconditionOnIndex = "precondition_on_index",
        /// Keeps a document in memory as it was made when the disk refuses its changes.
        RefusedKept = "refused_kept",
        /// Evicts documents with changes that are not durable yet.
        EvictsPending = "evicts_pending",
        /// Tries what breaks the rules of the gate like any other change.
        GateOpen = "gate_open",
        /// Of two changes with one number, lets that one stand which came first.
        FirstComeStands = "first_come_stands",
        /// Goes on showing what has been displaced.
        DisplacedShown = "displaced_shown",
        /// Lets what is released count without having the gate judge it.
        ReleaseUnjudged = "release_unjudged",
        /// Has the gate judge the first alone of the changes that are released.
        ReleaseCutShort = "release_cut_short",
        /// Leaves what is dropped out of a document's heads.
        DropForgets = "drop_forgets",
        /// Takes documents of other zones when they are sent to it.
        ForeignTaken = "foreign_taken",
        /// Keeps heads in the order in which they came.
        HeadsUnsorted = "heads_unsorted",
        /// Edits a document in whatever state it is, whichever an edit is meant for.
        IfMatchIgnored = "if_match_ignored",
        /// Leaves out the last operation of a JSON Patch.
        PatchCutShort = "patch_cut_short",
    }
    Persistence {
        /// Acknowledges an edit before its batch is durable.
        AckBeforePersist = "ack_before_persist",
        /// Takes the batch after the one that is durable for durable too.
        NextBatchCounted = "next_batch_counted",
        /// Trusts what it reads after an unclean stop without writing it again.
        DirtyTailTrusted = "dirty_tail_trusted",
        /// Shows what is not durable yet to readers.
        ReadUnsynced = "read_unsynced",
        /// Speaks before its start is durable.
        SpeaksEarly = "speaks_early",
        /// Takes a write that failed for one that is durable.
        FailureIgnored = "failure_ignored",
        /// Does not tell batches from those that a full disk refused.
        EpochKept = "epoch_kept",
        /// Numbers a change by what is durable of its log, not by what is there.
        OrderFromIndex = "order_from_index",
        /// Counts updates from the beginning again at each start.
        SequenceRestarts = "sequence_restarts",
    }
    Deletes {
        /// Forgets a delete when the document is next repaired.
        TombstoneDropped = "tombstone_dropped",
        /// Lets a member that returns bring back what was deleted meanwhile: its push makes a deleted document anew.
        StaleReturnee = "stale_returnee",
        /// Takes a document for deleted when one of its heads is a delete.
        DeleteBeatsEdit = "delete_beats_edit",
        /// Takes a document for deleted when the last change to arrive is a delete.
        DeletedByArrival = "deleted_by_arrival",
        /// Reads no deleted documents at its start.
        TombstoneNotRecovered = "tombstone_not_recovered",
        /// Leaves deleted documents out when it lists what differs.
        TombstoneNotListed = "tombstone_not_listed",
        /// Sums up all tombstones alike.
        TombstoneNotSummed = "tombstone_not_summed",
        /// Asks for nothing of a document that is deleted here.
        DeletedNotRepaired = "deleted_not_repaired",
        /// Shows a deleted document that is still in memory.
        DeletedStillShown = "deleted_still_shown",
        /// Says for ever of a document that it came back after a delete.
        RevivedKept = "revived_kept",
    }
    Identity {
        /// Derives actors from the node alone, so that a restored backup uses (actor, seq) again.
        ActorReused = "actor_reused",
        /// Uses one actor for all documents of a collection.
        ActorShared = "actor_shared",
        /// Goes on with an actor whose changes a full disk refused.
        GenerationKept = "generation_kept",
        /// Starts from the incarnation it was persisted with, not above it.
        IncarnationNotRaised = "incarnation_not_raised",
        /// Rises above its own last statement, not above the one that it heard of.
        RefutesOwn = "refutes_own",
        /// Falls silent as soon as it hears of another boot of its own that is ahead.
        FencedAtOnce = "fenced_at_once",
        /// Takes a frame of a kind that it does not know for a broken one.
        UnknownRefused = "unknown_refused",
        /// Goes on for ever beside another live boot of its own.
        DoubleIgnored = "double_ignored",
        /// Takes edits after it has stepped back before another boot of its own.
        FencedTakesEdits = "fenced_takes_edits",
        /// Lets a node in that is evicted, once its streams were closed.
        EvictedLetIn = "evicted_let_in",
        /// Takes a session of a peer's new start for a second one of the old.
        RestartUnnoticed = "restart_unnoticed",
    }
    Backpressure {
        /// Keeps all changes that came too early.
        OrphansUnbounded = "orphans_unbounded",
        /// Does not give back the bytes of those that make room.
        OrphanBytesKept = "orphan_bytes_kept",
        /// Takes edits however much waits for the disk.
        PersistUnbounded = "persist_unbounded",
        /// Does not give back the place of a read that is answered.
        WaitersLeak = "waiters_leak",
        /// Does not give back the room of an earlier version that was made.
        VersionsLeak = "versions_leak",
        /// Does not give back the bytes of pushed changes.
        IncomingLeak = "incoming_leak",
        /// Forgets reads that wait for a batch that the disk refuses.
        ReadsLostWhenFull = "reads_lost_when_full",
        /// Fetches from any number of peers at once.
        FetchesUnbounded = "fetches_unbounded",
        /// Does not give back the place of an answer to a repair.
        ServesLeak = "serves_leak",
        /// Does not forget an attempt at a connection that failed.
        AttemptsLeak = "attempts_leak",
    }
}

impl Fault {
    /// The bug that a command line calls `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|fault| fault.name() == name)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which bugs are planted; none is the engine as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u128);

impl Faults {
    /// Whether `fault` is among them.
    #[must_use]
    pub const fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u32) != 0
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(1 << fault as u32)
    }
}

const _: () = assert!(Fault::ALL.len() <= u128::BITS as usize);
