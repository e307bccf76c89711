//! What the fuzz targets do with an input, as a library, so that corpora can be made and replayed without a fuzzer.
//!
//! A [`Target`] takes bytes, drives one part of knot with them, and checks what must hold whatever they are. While it
//! runs it may allocate so much and no more: the allocator here counts, and a run beyond its bound is a crash. An input
//! means the same in every process and whatever ran before it.

pub mod alter;
pub mod body;
pub mod config;
pub mod disk;
pub mod gate;
pub mod repair;
pub mod scenario;
pub mod script;
pub mod session;
pub mod wire;

#[expect(dead_code, clippy::unwrap_used, reason = "it is of the engine's tests, and a target needs less of it")]
#[path = "../../../engine/tests/replication/hand.rs"]
mod hand;
#[expect(dead_code, clippy::unwrap_used, reason = "it is of the engine's tests, and a target needs less of it")]
#[path = "../../../engine/tests/documents/replica.rs"]
mod replica;

use std::alloc::System;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use cap::Cap;

pub use self::script::Script;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What the last panic said; Automerge's are caught, and only one that is not is told.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also that of its binary and of its corpus.
    pub name: &'static str,
    /// Drives the code with an input. Returns how much came of it, as the target counts: what a seed is checked by.
    pub run: fn(&[u8]) -> usize,
    /// Most bytes that a run may have allocated at once, whatever the input.
    pub memory_bytes_max: usize,
    /// And for each byte of the input as many more.
    pub memory_bytes_per_byte: usize,
}

/// All targets.
pub const TARGETS: [Target; 8] = [
    wire::TARGET,
    session::TARGET,
    gate::TARGET,
    repair::TARGET,
    disk::TARGET,
    config::TARGET,
    body::TARGET,
    scenario::TARGET,
];

/// The target of this name.
///
/// # Panics
/// When there is none.
pub fn target(name: &str) -> Target {
    let named = TARGETS.into_iter().find(|target| target.name == name);
    named.unwrap_or_else(|| panic!("no target is called {name}"))
}

impl Target {
    /// Runs an input within the target's memory. Inputs are run one at a time.
    pub fn run_bounded(&self, input: &[u8]) -> usize {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = ALLOCATOR.allocated() + self.memory_bytes_max + self.memory_bytes_per_byte * input.len();
        ALLOCATOR.set_limit(limit).expect("the bound is above what is allocated");
        let came_of_it = catch_unwind(AssertUnwindSafe(|| (self.run)(input)));
        ALLOCATOR.set_limit(usize::MAX).expect("more is always possible");
        match came_of_it {
            Ok(came_of_it) => came_of_it,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Undoes libFuzzer's habit to take any panic for a crash: knot catches those of Automerge. Called once, before
/// [`fuzz`].
pub fn prepare() {
    drop(std::panic::take_hook());
    std::panic::set_hook(Box::new(|panic| {
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
    }));
}

/// Runs one input of a fuzzer.
pub fn fuzz(target: &Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target.run_bounded(input))).is_err() {
        eprintln!("{}", PANIC.lock().unwrap_or_else(PoisonError::into_inner));
        std::process::abort();
    }
}
