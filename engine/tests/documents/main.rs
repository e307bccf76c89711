//! Documents through the public API: editing, merging, the gate, and what hostile bytes can and cannot do.

#![expect(clippy::unwrap_used, reason = "the lint exempts test functions only, and all of this is test")]

mod convergence;
mod creating;
mod editing;
mod gate;
mod genesis;
mod hostile;
mod merging;
mod replica;
