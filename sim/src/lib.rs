//! Discrete-event simulation of knot clusters: real engines on a virtual clock, a virtual network and disks that forget.
//!
//! - [`scenario`] is what happens, as data, made from a seed: topology, timed operations, timed faults.
//! - `world` lets it happen, in one thread, in one order.
//! - [`checker`] says what must hold; a run ends at the first promise that does not.
//! - [`campaign`] runs many seeds; [`shrink`] makes a failure small; [`matrix`] proves that bugs would be found.
//! - [`application`] runs your own application on such clusters, from its own tests.
//!
//! The protocol is the engine's: nothing here decides what a server does, it only does what the engine asks for.
//! A seed is a run, in any process: nothing reads a clock, a thread or an unordered map.

pub mod application;
pub mod campaign;
pub mod checker;
pub mod cli;
pub mod costs;
mod disk;
mod draw;
mod edits;
pub mod explanation;
pub mod histogram;
mod hostile;
mod jobs;
#[cfg(feature = "l2")]
pub mod l2;
#[cfg(all(feature = "l3", target_os = "linux"))]
pub mod l3;
mod later;
mod ledger;
pub mod level;
pub mod library;
pub mod matrix;
mod network;
mod node;
pub mod page;
mod percentile;
pub mod pipes;
pub mod plan;
pub mod recording;
pub mod report;
pub mod scale;
pub mod scenario;
#[cfg(any(feature = "l2", feature = "l3"))]
mod servers;
#[cfg(any(feature = "l2", feature = "l3"))]
mod shared;
pub mod shrink;
mod spread;
pub mod state;
mod tap;
mod trace;
pub mod watch;
mod workload;
mod world;

pub use self::draw::seed_bytes;
pub use self::network::{CONNECT_TIMEOUT, RETRANSMIT, STREAM_TIMEOUT};
pub use self::trace::Sink;
pub use self::workload::REPLICAS_TIMEOUT;
