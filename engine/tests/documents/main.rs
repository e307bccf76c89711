//! Documents through the public API: editing, merging, the gate, and what hostile bytes can and cannot do.

mod convergence;
mod editing;
mod gate;
mod genesis;
mod hostile;
mod merging;
mod replica;
