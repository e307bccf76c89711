//! Measures a cluster of real `knot` processes on loopback against the figures of its rivals and its own bounds.
//!
//! `cargo bench -p knot-server --bench cluster [-- PART...] [--json]`. Each figure is printed with its ratio to what it
//! is held against; nothing is asserted, because a busy machine is not a defect. The client shares the machine with the
//! servers, so it is a hand-written one on a single thread.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a table on stdout and progress on stderr are the product"
)]

mod catchup;
mod disk;
mod http;
mod load;
mod nodes;
mod process;
mod proxy;
mod report;
mod visible;
mod writes;

#[path = "../../../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;

use self::report::Report;

const PARTS: &str = "\
fsync      one 4 KiB append made durable: the floor under every write
writes     durable writes a second and their latency, replicas' lag, processor time a write
visible    from the start of a write to its being readable on all three servers
far        the same with 40 ms one way between the servers
catchup    an empty server joins one with 100,000 documents; resident memory before and after";

/// What is measured, and in what form it is printed.
struct Arguments {
    parts: Vec<String>,
    json: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs benches too, without this flag: it wants to know that they start, no more.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let arguments = match parse(&arguments) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let mut report = Report::new();
    let wanted = |part: &str| arguments.parts.is_empty() || arguments.parts.iter().any(|asked| asked == part);
    if wanted("fsync") {
        disk::run(&mut report);
    }
    if wanted("writes") {
        runtime.block_on(writes::run(&mut report));
    }
    if wanted("visible") {
        runtime.block_on(visible::near(&mut report));
    }
    if wanted("far") {
        runtime.block_on(visible::far(&mut report));
    }
    if wanted("catchup") {
        runtime.block_on(catchup::run(&mut report));
    }
    if arguments.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    ExitCode::SUCCESS
}

fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let mut parsed = Arguments { parts: Vec::new(), json: false };
    for argument in arguments {
        match argument.as_str() {
            "--bench" => {}
            "--json" => parsed.json = true,
            part if PARTS.lines().any(|line| line.split(' ').next() == Some(part)) => {
                parsed.parts.push(part.to_owned())
            }
            other => {
                return Err(format!(
                    "unknown part `{other}`; the parts are\n\n{PARTS}\n\nand --json prints figures as JSON"
                ));
            }
        }
    }
    Ok(parsed)
}
