//! What levels 2 and 3 have in common: the configuration of whole servers, their clients, and what those find.

mod administrators;
mod clients;
mod cues;
mod doubles;
mod operator;
mod patches;
mod report;
mod request;
mod tenants;
mod yard;

use std::io;
use std::panic::resume_unwind;

use knot_engine::Instant;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinError;

pub(crate) use self::clients::{Findings, Loss, clients};
pub(crate) use self::cues::{Cue, Cues};
pub(crate) use self::report::{accuse_of_leak, report};
pub(crate) use self::request::{HTTP_PORT, TOKEN};
pub(crate) use self::yard::Yard;
use crate::scenario::{FaultKind, Scenario};

/// The port that servers talk to each other on.
pub(crate) const CLUSTER_PORT: u16 = 3_100;
const CLUSTER_KEY: &str = "0123456789abcdefghijklmnopqrstuv";
/// Servers whose addresses are given to all as peers.
const PEERS: usize = 3;

/// How clients get at servers, and what time it is there.
pub(crate) trait Reach: Clone + Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// Since the run began.
    fn now(&self) -> Instant;

    /// Connects to a server's API.
    fn connect(&self, node: usize) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// What a task came to, which nobody aborts. Its panic goes on in whoever waits for it.
pub(crate) fn joined<T>(task: Result<T, JoinError>) -> T {
    task.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// What a server's `knot.toml` says: it is reached by others at `address`, its seeds at `hosts`, and it adds `own`.
pub(crate) fn config(
    scenario: &Scenario,
    node: usize,
    address: &str,
    hosts: impl Fn(usize) -> String,
    own: &str,
) -> String {
    let spec = &scenario.nodes[node];
    let (name, zone) = (&spec.name, &spec.zone);
    let seeds = (0..scenario.nodes.len()).take(PEERS).filter(|seed| *seed != node || spec.own_seed);
    let peers: Vec<String> = seeds.map(|seed| format!("'{}:{CLUSTER_PORT}'", hosts(seed))).collect();
    format!(
        "[server]\nname = '{name}'\nzone = '{zone}'\nlisten = '0.0.0.0:{HTTP_PORT}'\nurl = 'http://{name}:{HTTP_PORT}'\n{own}\
         [server.tls]\nuse_tls = false\n[server.accounts]\nargon2_memory_kib = 8\n\
         [server.cluster]\nadvertise_addr = '{address}'\nbind_addr = '0.0.0.0:{CLUSTER_PORT}'\n\
         key = '{CLUSTER_KEY}'\npeers = [{}]\n",
        peers.join(", ")
    )
}

/// Servers that have to come right in the end.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other fault may be without an end")]
fn living(scenario: &Scenario) -> Vec<usize> {
    if !scenario.core.is_empty() {
        return scenario.core.clone();
    }
    let dead = |node: &usize| {
        let ends = |kind: &FaultKind| match kind {
            FaultKind::Crash { node: of, .. } | FaultKind::Stop { node: of, .. } => of == node,
            _ => false,
        };
        scenario.faults.iter().any(|fault| fault.for_ms.is_none() && ends(&fault.kind))
    };
    (0..scenario.nodes.len()).filter(|node| !dead(node)).collect()
}
