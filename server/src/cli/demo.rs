//! `knot demo`: a cluster of real server processes on this machine, to try things on.

mod servers;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use hyper::Method;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use self::servers::{Demo, Server, pasted};
use super::client::{Ask, Client};
use super::output::print;
use super::{CliError, ClientError};
use crate::config::parse_duration;
use crate::storage::ADMIN_TOKEN_FILE;

pub(super) const EXAMPLES: &str = "EXAMPLES:
  knot demo                          three servers until Ctrl-C
  knot demo --for 30s                ends by itself
  knot demo --nodes 5 --dir ./demo   keeps the data
  knot demo --json | head -1         where everything is, for a script";

/// How long the servers may take to start, and then to see each other.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a document may take to reach every server.
const TRAVEL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a server that is starting is asked.
const POLL: Duration = Duration::from_millis(50);
/// How often a server is asked for the document on its way.
const WATCH: Duration = Duration::from_millis(1);
/// How often the processes are looked at.
const WATCHDOG: Duration = Duration::from_millis(500);

/// The arguments of `knot demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// End by itself after this long, such as 30s or 5m
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    pub lasting: Option<Duration>,
    /// How many servers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=20))]
    pub nodes: u16,
    /// Keep the data here
    #[arg(long, value_name = "PATH")]
    pub dir: Option<PathBuf>,
    /// Print JSON once the servers are up
    #[arg(long)]
    pub json: bool,
}

/// Starts the servers, shows a document travel, and waits.
///
/// # Errors
/// When a server cannot be started or does not join.
pub fn main(args: &DemoArgs) -> Result<(), CliError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io("start the runtime"))?;
    runtime.block_on(run(args))
}

async fn run(args: &DemoArgs) -> Result<(), CliError> {
    // From here on a signal ends the demo in order, whatever it is at.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("wait for Ctrl-C"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io("wait for SIGTERM"))?;
    // The servers are in groups of their own and would outlive the terminal.
    let mut hangup = signal(SignalKind::hangup()).map_err(io("wait for SIGHUP"))?;
    let mut demo = Demo::prepare(args.dir.as_deref(), usize::from(args.nodes)).map_err(io("prepare the servers"))?;
    let told = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    let shown = async {
        demo.spawn().map_err(io("start the servers"))?;
        let travelled = show(&mut demo).await?;
        if args.json {
            print(describe(&demo, &travelled))?;
        } else {
            print(overview(&demo, &travelled, args.lasting))?;
        }
        stay(&mut demo, args.lasting).await;
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = shown => outcome,
        () = told => Ok(()),
    };
    // Whoever listened may be gone with the terminal, and the servers have to be stopped all the same.
    let _ = writeln!(std::io::stderr(), "stopping {} servers", demo.servers.len());
    demo.stop().await;
    match &args.dir {
        Some(dir) => {
            let _ = writeln!(
                std::io::stderr(),
                "the data stays in {}; `knot demo --dir {}` goes on with it",
                dir.display(),
                pasted(dir)
            );
        }
        None => demo.remove().map_err(io("remove the demo's data"))?,
    }
    outcome
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> CliError {
    let what = format!("cannot {what}");
    move |source| CliError::Io { what, source }
}

/// Starts the servers and lets a document travel; how long it took to reach each.
async fn show(demo: &mut Demo) -> Result<Vec<Duration>, CliError> {
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(100));
    progress.set_message(format!("starting {} servers", demo.servers.len()));
    join(demo, &progress).await?;
    progress.set_message("writing a document");
    let travelled = travel(demo).await?;
    progress.finish_and_clear();
    Ok(travelled)
}

/// Where everything is and what to try next.
fn overview(demo: &Demo, travelled: &[Duration], lasting: Option<Duration>) -> String {
    let mut text = format!("{} servers are up, each with its own database:\n\n", demo.servers.len());
    let mut line = |line: std::fmt::Arguments<'_>| text.push_str(&format!("{line}\n"));
    for server in &demo.servers {
        line(format_args!("  {:<8} zone {:<4} {}   pid {}", server.name, server.zone, server.url, server.pid()));
    }
    line(format_args!("\nWrote `demo/hello` on {}:", demo.servers.first().map_or("", |server| &server.name)));
    for (server, took) in demo.servers.iter().zip(travelled) {
        line(format_args!("  {:<8} shows it after {:.1} ms", server.name, took.as_secs_f64() * 1e3));
    }
    if let (Some(first), Some(last)) = (demo.servers.first(), demo.servers.last()) {
        let knot = std::env::current_exe().map_or_else(|_| "knot".to_owned(), |path| pasted(&path));
        let token_file = first.data_dir.join(ADMIN_TOKEN_FILE);
        line(format_args!("\nThe admin token is in {}", token_file.display()));
        line(format_args!("\nTry in another terminal:\n"));
        // Not an alias: a shell reads what one stands for once more.
        line(format_args!("  knot() {{ {knot} \"$@\"; }}"));
        line(format_args!("  export KNOT_SERVER={} KNOT_TOKEN=$(cat {})\n", first.url, pasted(&token_file)));
        line(format_args!("  knot doc put users/ann '{{\"name\": \"Ann\", \"team\": {{\"city\": \"Perth\"}}}}'"));
        line(format_args!("  knot doc get users/ann --server {}", last.url));
        line(format_args!("  knot doc watch users"));
        line(format_args!("  knot cluster members"));
        line(format_args!("  kill -9 {}", last.pid()));
    }
    match lasting {
        Some(lasting) => text.push_str(&format!("\nEnds in {lasting:?}, or with Ctrl-C.")),
        None => text.push_str("\nCtrl-C ends it."),
    }
    text
}

/// The same for programs.
fn describe(demo: &Demo, travelled: &[Duration]) -> Value {
    let server = |(server, took): (&Server, &Duration)| {
        json!({
            "name": server.name,
            "zone": server.zone,
            "url": server.url,
            "pid": server.pid(),
            "config": server.config().display().to_string(),
            "shown_after_ms": took.as_secs_f64() * 1e3,
        })
    };
    let token_file = demo.servers.first().map(|first| first.data_dir.join(ADMIN_TOKEN_FILE).display().to_string());
    json!({
        "dir": demo.dir.display().to_string(),
        "token_file": token_file,
        "servers": demo.servers.iter().zip(travelled).map(server).collect::<Vec<_>>(),
    })
}

/// Waits until every server answers and sees every other one alive.
async fn join(demo: &mut Demo, progress: &ProgressBar) -> Result<(), CliError> {
    let deadline = Instant::now() + START_TIMEOUT;
    let wanted = demo.servers.len();
    loop {
        demo.check().map_err(CliError::Usage)?;
        let mut joined = 0;
        for server in &demo.servers {
            let alive = server.client()?.ask(Ask::new(Method::GET, "/api/cluster?status=alive".to_owned())).await;
            joined += usize::from(alive.is_ok_and(|reply| reply.body["total"] == json!(wanted)));
        }
        progress.set_message(format!("{joined} of {wanted} servers see all of them"));
        if joined == wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            let logs = demo.dir.display();
            return Err(CliError::Usage(format!(
                "the servers did not find each other in {START_TIMEOUT:?}; see {logs}/*/log"
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Writes a document on the first server and times it on each; the first one's time is the write's own.
async fn travel(demo: &Demo) -> Result<Vec<Duration>, CliError> {
    let Some(first) = demo.servers.first() else { return Ok(Vec::new()) };
    let path = "/api/documents/demo/hello";
    let text = format!("hello from {}, run {}", first.name, std::process::id());
    let start = Instant::now();
    let ask = Ask::new(Method::PUT, path.to_owned()).body("application/json", json!({"text": text}).to_string());
    let (client, waiters) = (first.client()?, demo.servers.get(1..).unwrap_or_default());
    let mut watching = tokio::task::JoinSet::new();
    for (at, server) in waiters.iter().enumerate() {
        let (client, text) = (server.client()?, text.clone());
        watching.spawn(async move { (at, arrival(&client, path, &text, start).await) });
    }
    client.ask(ask).await?;
    let mut took = vec![start.elapsed(); demo.servers.len()];
    while let Some(Ok((at, arrived))) = watching.join_next().await {
        if let Some(took) = took.get_mut(at + 1) {
            *took = arrived?;
        }
    }
    Ok(took)
}

async fn arrival(client: &Client, path: &str, text: &str, start: Instant) -> Result<Duration, ClientError> {
    loop {
        let answer = client.ask(Ask::new(Method::GET, path.to_owned())).await;
        match answer {
            Ok(reply) if reply.body["text"] == *text => return Ok(start.elapsed()),
            Err(error) if start.elapsed() > TRAVEL_TIMEOUT => return Err(error),
            Ok(_) | Err(_) => tokio::time::sleep(WATCH).await,
        }
    }
}

/// Stays up until the time is over, and says when a server is gone.
async fn stay(demo: &mut Demo, lasting: Option<Duration>) {
    let end = lasting.map(|lasting| tokio::time::Instant::now() + lasting);
    loop {
        tokio::time::sleep(WATCHDOG).await;
        for message in demo.gone() {
            let _ = writeln!(std::io::stderr(), "{message}");
        }
        if end.is_some_and(|end| tokio::time::Instant::now() >= end) {
            return;
        }
    }
}

impl Server {
    fn client(&self) -> Result<Client, ClientError> {
        Client::new(&self.url, Some(&self.token), Vec::new())
    }
}
