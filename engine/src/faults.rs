//! Bugs on purpose: what a simulator plants to prove that it would find them.
//!
//! Only [`Engine::new`](crate::Engine::new) takes these. No configuration, environment variable or feature reaches them,
//! and the server passes none.

/// One bug a flag; all false is the engine as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent planted bug")]
pub struct Faults {
    /// Acknowledges an edit before its batch is durable.
    pub ack_before_persist: bool,
    /// Sends a change to peers before its batch is durable.
    pub push_before_persist: bool,
    /// Admits a change whose dependencies are missing.
    pub gap_accepted: bool,
    /// Declares a member failed when its suspicion timer fires, whatever its state is by then.
    pub suspicion_unchecked: bool,
    /// Forgets a delete when the document is next repaired.
    pub tombstone_dropped: bool,
    /// Lets a member that returns bring back what was deleted meanwhile: its push makes a deleted document anew.
    pub stale_returnee: bool,
    /// Derives actors from the node alone, so that a restored backup uses (actor, seq) again.
    pub actor_reused: bool,
    /// Gives each replica a genesis of its own, so that concurrent creates of one key do not merge.
    pub genesis_unshared: bool,
    /// Starts from the incarnation it was persisted with, not above it.
    pub incarnation_not_raised: bool,
    /// Trusts what it reads after an unclean stop without writing it again.
    pub dirty_tail_trusted: bool,
    /// Ends a split of the key space one child early.
    pub split_off_by_one: bool,
    /// Takes a window as the whole answer.
    pub window_truncated: bool,
    /// Counts a peer as holding a change when it was sent, not when the peer said so.
    pub held_on_send: bool,
    /// Ignores the scope when it chooses whom to push to.
    pub scope_ignored: bool,
}
