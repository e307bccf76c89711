//! A leaderless replication engine that does no I/O.
//!
//! An [`Engine`] is one node. It is handed datagrams, stream frames, storage completions and the time, and hands out
//! what to send, what to make durable and when to wake it. A server drives it with real sockets and disks; a simulator
//! drives the same code with virtual ones.
//!
//! ```text
//!   handle_datagram  handle_session  handle_storage  handle_verdict  handle_timeout   edit  read
//!                                        |
//!        membership -- sessions -- repair -- push -- replica (index, log, documents)
//!                                        |
//!                            poll_output        poll_timeout
//! ```
//!
//! It reads no clock, no environment and no random source of its own: the same seed and the same calls give the same
//! outputs, byte for byte, in any process.

mod api;
mod circuit;
mod config;
pub mod documents;
mod engine;
mod faults;
mod identity;
pub mod marks;
pub mod membership;
mod random;
mod replication;
pub mod seal;
pub mod session;
mod stats;
pub mod storage;
mod time;
pub mod wire;

pub use self::api::*;
pub use self::circuit::*;
pub use self::config::{Config, Limits};
pub use self::engine::{EVICTED, Engine, TimerKind, eviction_of};
pub use self::faults::{Area, Fault, Faults};
pub use self::identity::*;
pub use self::random::{Random, Seed};
pub use self::replication::{Corrupt, Job, Recovered, Sum, Verdict};
pub use self::stats::{Queue, Stats, Traffic};
pub use self::storage::{Query, Table, Write};
pub use self::time::{Instant, Wall};
