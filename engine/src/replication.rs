//! How documents reach every server that holds their scope: the durable index, push, and repair.
//!
//! - The log of raw changes is the truth. What is kept in memory for each document is its name, its heads and a few
//!   counts ([`index`]); logs and contents are loaded when asked for and cached ([`open`]).
//! - The index changes only when storage says that a batch is durable, so roots, pushes, answers and repairs never speak
//!   of a change that a crash could take back ([`batch`]).
//! - **Push** sends a new change to every member that holds its scope ([`push`]). It may fail in any way.
//! - **Repair** compares sums over a key space split 256 ways, down to documents, then heads, then sends the changes that
//!   are missing in windows that the receiver asks for ([`pull`], [`serve`]). Correctness rests on repair alone.

mod admit;
pub(crate) mod batch;
mod content;
mod edit;
pub(crate) mod index;
mod job;
mod lacks;
mod open;
pub(crate) mod orphans;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod records;
mod replica;
mod review;
pub(crate) mod serve;
pub(crate) mod tree;
mod version;

pub use self::job::{Job, Verdict};
pub(crate) use self::open::Origin;
pub use self::records::{Corrupt, Recovered};
pub(crate) use self::replica::{Author, DurableEdit, Effect, Replica, Ticket};
pub use self::tree::Sum;
