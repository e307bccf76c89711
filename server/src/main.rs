//! The `knot` command.

use std::process::ExitCode;

/// Automerge allocates much and briefly: with glibc's allocator a write takes a quarter more processor time. Without huge
/// pages, which would make an empty server twice as large.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    knot_server::cli::main()
}
