//! Measures one real `knot server` that has 10,000 users, 100,000 tokens and 1,000 templates: what logging in, lists and
//! small requests take over loopback, and a start.
//!
//! `cargo bench -p knot-server --bench accounts [-- --json]`. Each figure is printed with its ratio to a floor that is
//! measured beside it; nothing is asserted, because a busy machine is not a defect.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a table on stdout and progress on stderr are the product"
)]

mod fill;
mod floor;
#[path = "../cluster/http.rs"]
#[expect(dead_code, reason = "the other benchmark uses the rest")]
mod http;
#[path = "../cluster/process.rs"]
#[expect(dead_code, reason = "the other benchmark uses the rest")]
mod process;
#[path = "../cluster/report.rs"]
#[expect(dead_code, reason = "the other benchmark uses the rest")]
mod report;

#[path = "../../../tests/support/mod.rs"]
mod support;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::fill::{Filled, PASSWORD};
use self::http::Connection;
use self::report::{Against, Better, Report, percentile};
use self::support::{Server, Setup};

/// Logins that are timed; one host may try 120 a minute.
const LOGINS: usize = 100;
/// Whole lists that are timed, of each.
const LISTS: usize = 200;
/// Small requests that are timed, of each kind.
const REQUESTS: usize = 5_000;
/// A start that takes longer is one that people notice.
const START_BOUND: Duration = Duration::from_secs(2);
/// What all of it may take of memory.
const RESIDENT_BYTES_BOUND: f64 = 200e6;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs benches too, without this flag: it wants to know that they start, no more.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let mut report = Report::new();
    let mut server = Server::prepare(Setup::new("n1", "au"));
    Report::progress("writing 10,000 users, 100,000 tokens, 1,000 templates");
    let filled = fill::fill(&server.config(), &server.data_dir());
    let measured = runtime.block_on(measure(&mut report, &mut server, &filled));
    if arguments.iter().any(|argument| argument == "--json") {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    if let Err(error) = measured {
        eprintln!("what comes next cannot be measured: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn measure(report: &mut Report, server: &mut Server, filled: &Filled) -> io::Result<()> {
    Report::progress("a start");
    let began = Instant::now();
    server.restart();
    let served = began.elapsed();
    let mut by_token = Connection::open(server.address(), &filled.token).await?;
    by_token.get("/api/users/whoami").await?;
    let bound = [("2 s", START_BOUND.as_secs_f64() * 1e3)];
    report.time("start", "until it serves", served, &[]);
    report.time("start", "until accounts are at hand", began.elapsed(), &bound);
    by_token.get("/api/tokens").await?;
    report.time("start", "until tokens are listed", began.elapsed(), &[]);
    resident(report, server, "after the start");

    Report::progress("logins");
    let verification = floor::verification();
    let mut nobody = Connection::open(server.address(), "").await?;
    let body = json!({"email": "ann@example.org", "password": PASSWORD}).to_string();
    let mut session = String::new();
    let mut samples = Vec::new();
    for _ in 0..LOGINS {
        let began = Instant::now();
        let (status, answer) = nobody.ask("POST", "/api/auth", body.as_bytes()).await?;
        samples.push(began.elapsed());
        let answer: Value = serde_json::from_slice(answer)?;
        let Some(token) = answer["token"].as_str() else { return Err(io::Error::other(format!("{status} {answer}"))) };
        token.clone_into(&mut session);
    }
    add(report, "login", "POST /api/auth", samples, &[("argon2id alone", verification)]);

    Report::progress("lists");
    let mut by_session = Connection::open(server.address(), &session).await?;
    for (path, name) in [
        ("/api/users", "GET /api/users, all"),
        ("/api/templates", "GET /api/templates, all"),
        ("/api/tokens", "GET /api/tokens, 10"),
    ] {
        let answer = by_session.get(path).await?;
        let serialising = floor::serialising(&answer)?;
        let name = format!("{name}, {} kB", answer.len().div_ceil(1_000));
        let samples = time(&mut by_session, path, LISTS).await?;
        add(report, "lists", &name, samples, &[("serde_json alone", serialising)]);
    }

    Report::progress("small requests");
    // Servers close connections that nobody has used for a while.
    let mut nobody = Connection::open(server.address(), "").await?;
    let mut by_token = Connection::open(server.address(), &filled.token).await?;
    let mut by_session = Connection::open(server.address(), &session).await?;
    let mut open = time(&mut nobody, "/health", REQUESTS).await?;
    let health = percentile(&mut open, 50);
    add(report, "requests", "GET /health", open, &[]);
    let against = [("/health", health)];
    let samples = time(&mut by_token, "/api/permissions", REQUESTS).await?;
    add(report, "requests", "GET /api/permissions by token", samples, &against);
    let samples = time(&mut by_session, "/api/permissions", REQUESTS).await?;
    add(report, "requests", "GET /api/permissions by session", samples, &against);
    resident(report, server, "after all this");
    Ok(())
}

/// Gets a path again and again on one connection.
async fn time(connection: &mut Connection, path: &str, times: usize) -> io::Result<Vec<Duration>> {
    let mut samples = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        let (status, _) = connection.ask("GET", path, &[]).await?;
        samples.push(began.elapsed());
        if status != 200 {
            return Err(io::Error::other(format!("{path}: {status}")));
        }
    }
    Ok(samples)
}

fn add(
    report: &mut Report,
    part: &'static str,
    name: &str,
    mut samples: Vec<Duration>,
    against: &[(&'static str, Duration)],
) {
    let against: Vec<Against> = against.iter().map(|(name, floor)| (*name, floor.as_secs_f64() * 1e3)).collect();
    report.time(part, format!("{name}, p50"), percentile(&mut samples, 50), &against);
    report.time(part, format!("{name}, p99"), percentile(&mut samples, 99), &[]);
}

fn resident(report: &mut Report, server: &Server, when: &str) {
    let bytes = u32::try_from(process::resident_bytes(server.pid()) / 1_000).map_or(f64::INFINITY, f64::from);
    let name = format!("resident {when}");
    report.add("memory", name, bytes / 1e3, "MB", Better::Less, &[("200 MB", RESIDENT_BYTES_BOUND / 1e6)]);
}
