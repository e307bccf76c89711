//! `knot demo`: a cluster of real server processes on this machine, to try things on.

mod servers;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use hyper::Method;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use self::servers::{Demo, Server};
use super::client::{Ask, Client};
use super::{CliError, ClientError};
use crate::config::parse_duration;
use crate::storage::ADMIN_TOKEN_FILE;

pub(super) const EXAMPLES: &str = "EXAMPLES:
  knot demo                          three servers until Ctrl-C
  knot demo --for 30s                ends by itself
  knot demo --nodes 5 --dir ./demo   keeps the data";

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
    let mut demo = Demo::prepare(args.dir.as_deref(), usize::from(args.nodes)).map_err(io("prepare the servers"))?;
    let told = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let shown = async {
        demo.spawn().map_err(io("start the servers"))?;
        show(&mut demo).await?;
        stay(&mut demo, args.lasting).await;
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = shown => outcome,
        () = told => Ok(()),
    };
    eprintln!("stopping {} servers", demo.servers.len());
    demo.stop().await;
    match &args.dir {
        Some(dir) => {
            eprintln!("the data stays in {}; `knot demo --dir {}` goes on with it", dir.display(), dir.display())
        }
        None => demo.remove().map_err(io("remove the demo's data"))?,
    }
    outcome
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> CliError {
    let what = format!("cannot {what}");
    move |source| CliError::Io { what, source }
}

async fn show(demo: &mut Demo) -> Result<(), CliError> {
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(100));
    progress.set_message(format!("starting {} servers", demo.servers.len()));
    join(demo, &progress).await?;
    progress.set_message("writing a document");
    let travelled = travel(demo).await?;
    progress.finish_and_clear();
    println!("{} servers are up, each with its own database:\n", demo.servers.len());
    for server in &demo.servers {
        println!("  {:<8} zone {:<4} {}   pid {}", server.name, server.zone, server.url, server.pid());
    }
    println!("\nWrote `demo/hello` on {}:", demo.servers.first().map_or("", |server| &server.name));
    for (server, took) in demo.servers.iter().zip(travelled) {
        println!("  {:<8} shows it after {:.1} ms", server.name, took.as_secs_f64() * 1e3);
    }
    print_commands(demo);
    Ok(())
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

fn print_commands(demo: &Demo) {
    let (Some(first), Some(last)) = (demo.servers.first(), demo.servers.last()) else { return };
    let knot = std::env::current_exe().map_or_else(|_| "knot".to_owned(), |path| path.display().to_string());
    println!("\nThe admin token is in {}", first.data_dir.join(ADMIN_TOKEN_FILE).display());
    println!("\nTry in another terminal:\n");
    println!("  alias knot={knot}");
    println!(
        "  export KNOT_SERVER={} KNOT_TOKEN=$(cat {})\n",
        first.url,
        first.data_dir.join(ADMIN_TOKEN_FILE).display()
    );
    println!("  knot doc put users/ann '{{\"name\": \"Ann\", \"team\": {{\"city\": \"Perth\"}}}}'");
    println!("  knot doc get users/ann --server {}", last.url);
    println!("  knot doc watch users");
    println!("  knot cluster members");
    println!("  kill -9 {}", last.pid());
}

/// Stays up until the time is over, and says when a server is gone.
async fn stay(demo: &mut Demo, lasting: Option<Duration>) {
    let end = lasting.map(|lasting| tokio::time::Instant::now() + lasting);
    match lasting {
        Some(lasting) => println!("\nEnds in {lasting:?}, or with Ctrl-C."),
        None => println!("\nCtrl-C ends it."),
    }
    loop {
        tokio::time::sleep(WATCHDOG).await;
        for message in demo.gone() {
            println!("{message}");
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
