//! `knot cluster` and `knot ping`.

mod keys;
mod quarantine;

use std::time::Instant;

use clap::Subcommand;
use hyper::Method;
use serde_json::{Map, Value};

use self::keys::KeysCommand;
use self::quarantine::QuarantineCommand;
use super::CliError;
use super::client::{Ask, Client, ClientArgs, with_query};
use super::output::{number, print, print_table, table, text};

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// List the members, those in trouble first
    #[command(after_help = MEMBERS_EXAMPLES)]
    Members {
        /// Only those that are alive, suspect, failed, left or evicted
        #[arg(long, value_parser = ["alive", "suspect", "failed", "left", "evicted"])]
        status: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Tell what became of members since a server started, as that one saw it, and on what evidence; the latest first
    #[command(after_help = TIMELINE_EXAMPLES)]
    Timeline {
        /// Of the member of this name alone
        #[arg(conflicts_with = "id")]
        name: Option<String>,
        /// Of the member of this id alone, where several share a name
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print the state of one server: documents and roots by scope, members, queues
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Retire a server: it stops, and the others no longer wait for it
    #[command(after_help = LEAVE_EXAMPLES)]
    Leave {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Take out a member that is gone for good
    #[command(after_help = FORCE_LEAVE_EXAMPLES)]
    ForceLeave {
        #[command(flatten)]
        member: MemberArgs,
        /// Even if it is alive
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Shut a server out, whatever key it holds: every server closes its streams and refuses it from then on
    #[command(after_help = EVICT_EXAMPLES)]
    Evict {
        #[command(flatten)]
        member: MemberArgs,
        /// Why, for those who ask later
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List, add, promote and remove the keys of the cluster that a server holds
    #[command(subcommand, after_help = keys::EXAMPLES)]
    Keys(KeysCommand),
    /// Look at changes that were refused, have them judged again, put them aside
    #[command(subcommand, after_help = quarantine::EXAMPLES)]
    Quarantine(QuarantineCommand),
    /// Let a server in again that was shut out
    #[command(after_help = READMIT_EXAMPLES)]
    Readmit {
        #[command(flatten)]
        member: MemberArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// Which server is meant.
#[derive(Debug, clap::Args)]
pub(super) struct MemberArgs {
    /// Its name
    #[arg(required_unless_present = "id", conflicts_with = "id")]
    name: Option<String>,
    /// Its id, where several share a name
    #[arg(long)]
    id: Option<String>,
}

impl MemberArgs {
    fn body(&self) -> Map<String, Value> {
        let given = [("name", &self.name), ("id", &self.id)];
        given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?.into()))).collect()
    }
}

pub(super) const EXAMPLES: &str = "EXAMPLES:
  knot cluster members
  knot cluster status --server http://127.0.0.1:3001
  knot cluster force-leave knot3";
const MEMBERS_EXAMPLES: &str = "EXAMPLES:
  knot cluster members
  knot cluster members --status failed --json
  knot cluster members --status evicted";
const TIMELINE_EXAMPLES: &str = "EXAMPLES:
  knot cluster timeline
  knot cluster timeline knot3
  knot cluster timeline knot3 --json --server http://127.0.0.1:3001
At most 64 changes are kept of each member, and 1,024 in all.";
const STATUS_EXAMPLES: &str = "EXAMPLES:
  knot cluster status
  knot cluster status --server http://127.0.0.1:3001
Equal roots of a scope on two servers mean equal data.";
const LEAVE_EXAMPLES: &str = "EXAMPLES:
  knot cluster leave
  knot cluster leave --server https://knot3.internal:3000
A stop by SIGTERM does not retire a server; this does.";
const FORCE_LEAVE_EXAMPLES: &str = "EXAMPLES:
  knot cluster force-leave knot3
  knot cluster force-leave --id 0c8b5d2e9f1a4b6c8d7e6f5a4b3c2d1e --force";

const EVICT_EXAMPLES: &str = "EXAMPLES:
  knot cluster evict knot3 --reason 'stolen laptop'
  knot cluster evict --id 0c8b5d2e9f1a4b6c8d7e6f5a4b3c2d1e
Whoever holds the cluster key can come back as somebody new: against malice, replace the key as well.";
const READMIT_EXAMPLES: &str = "EXAMPLES:
  knot cluster readmit knot3
  knot cluster readmit --id 0c8b5d2e9f1a4b6c8d7e6f5a4b3c2d1e";

pub(super) async fn run(command: ClusterCommand) -> Result<(), CliError> {
    match command {
        ClusterCommand::Members { status, client } => members(status, &client).await,
        ClusterCommand::Timeline { name, id, client } => timeline(name, id, &client).await,
        ClusterCommand::Status { client } => status(&client).await,
        ClusterCommand::Leave { client } => {
            let asked = Client::from_args(&client)?;
            let answer = asked.ask(Ask::new(Method::POST, "/api/cluster/leave".to_owned())).await?.body;
            if client.json {
                print(answer)
            } else {
                print(format_args!(
                    "{} leaves and stops once another server holds all that it has; if none does in 30 s, it stays and its log says so",
                    asked.url()
                ))
            }
        }
        ClusterCommand::ForceLeave { member, force, client } => {
            let mut body = member.body();
            if force {
                body.insert("force".to_owned(), true.into());
            }
            about_a_member(Method::DELETE, "/api/cluster", body, &client).await
        }
        ClusterCommand::Evict { member, reason, client } => {
            let mut body = member.body();
            body.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
            about_a_member(Method::POST, "/api/cluster/evict", body, &client).await
        }
        ClusterCommand::Keys(command) => keys::run(command).await,
        ClusterCommand::Quarantine(command) => quarantine::run(command).await,
        ClusterCommand::Readmit { member, client } => {
            about_a_member(Method::POST, "/api/cluster/readmit", member.body(), &client).await
        }
    }
}

/// Asks for something about one member, and prints what that one is now.
async fn about_a_member(
    method: Method,
    path: &str,
    body: Map<String, Value>,
    client: &ClientArgs,
) -> Result<(), CliError> {
    let ask = Ask::new(method, path.to_owned()).body("application/json", Value::from(body).to_string());
    let answer = Client::from_args(client)?.ask(ask).await?.body;
    if client.json {
        return print(answer);
    }
    print(format_args!("{} ({}) is {}", text(&answer, "name"), text(&answer, "id"), text(&answer, "status")))
}

/// `knot ping`.
pub(super) async fn ping(args: &ClientArgs) -> Result<(), CliError> {
    let client = Client::from_args(args)?;
    let asked = Instant::now();
    let mut answer = client.ask(Ask::new(Method::GET, "/api/ping".to_owned())).await?.body;
    let took_ms = asked.elapsed().as_secs_f64() * 1000.0;
    if !args.json {
        let (status, version, zone) = (text(&answer, "status"), text(&answer, "version"), text(&answer, "zone"));
        return print(format_args!("{}: {status}, version {version}, zone {zone}, {took_ms:.1} ms", client.url()));
    }
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("url".to_owned(), client.url().into());
        answer.insert("rtt_ms".to_owned(), ((took_ms * 1000.0).round() / 1000.0).into());
    }
    print(answer)
}

async fn members(status: Option<String>, args: &ClientArgs) -> Result<(), CliError> {
    let client = Client::from_args(args)?;
    let ask = Ask::new(Method::GET, with_query("/api/cluster", &[("status", status)]));
    let answer = client.ask(ask).await?.body;
    if args.json {
        return print(answer);
    }
    let Some(rows) = answer.get("data").and_then(Value::as_array) else {
        return Err(client.malformed("the member list has no `data`".to_owned()).into());
    };
    let mut rows: Vec<&Value> = rows.iter().collect();
    rows.sort_by_key(|row| (trouble(&text(row, "status")), text(row, "name"), text(row, "id")));
    let mut shown = table(&["NAME", "ADDRESS", "ZONE", "STATUS", "VIA", "ROUND TRIP"]);
    for row in rows {
        let rtt = row.get("rtt_ms").and_then(Value::as_f64);
        // Of who is shut out, and was never met, there is the id alone.
        let name = if row.get("name").is_some_and(Value::is_null) { "id" } else { "name" };
        shown.add_row(vec![
            text(row, name).into(),
            text(row, "address").into(),
            text(row, "zone").into(),
            text(row, "status").into(),
            way(row).into(),
            number(rtt.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"))),
        ]);
    }
    print_table(shown)?;
    for trouble in elements(&answer, "troubles") {
        let [address, since, error] = ["address", "since", "error"].map(|name| text(trouble, name));
        print(format_args!("\nno stream with {address} since {since}: {error}"))?;
    }
    Ok(())
}

async fn timeline(name: Option<String>, id: Option<String>, args: &ClientArgs) -> Result<(), CliError> {
    let client = Client::from_args(args)?;
    let ask = Ask::new(Method::GET, with_query("/api/cluster/timeline", &[("name", name), ("id", id)]));
    let answer = client.ask(ask).await?.body;
    if args.json {
        return print(answer);
    }
    let mut shown = table(&["WHEN", "NAME", "ZONE", "FROM", "TO", "WHY"]);
    for row in elements(&answer, "data") {
        shown.add_row(["at", "name", "zone", "from", "to", "why"].map(|name| text(row, name)));
    }
    print_table(shown)
}

/// How a server speaks with a member.
fn way(row: &Value) -> String {
    let said = |name: &str| row.get(name).and_then(Value::as_str);
    let via = said("via").unwrap_or("-");
    said("through").map_or_else(|| via.to_owned(), |carrier| via.replace("circuit", &format!("through {carrier}")))
}

/// Where a status comes in the list: what needs a person first.
fn trouble(status: &str) -> usize {
    let order = ["failed", "suspect", "alive", "left", "evicted"];
    order.iter().position(|known| *known == status).unwrap_or(order.len())
}

async fn status(args: &ClientArgs) -> Result<(), CliError> {
    let answer = Client::from_args(args)?.ask(Ask::new(Method::GET, "/api/cluster/status".to_owned())).await?.body;
    if args.json {
        return print(answer);
    }
    let mut shown = table(&[]);
    for name in ["name", "id", "zone", "cluster", "version", "uptime_s", "sequence", "disk_full"] {
        shown.add_row([name.replace('_', " "), text(&answer, name)]);
    }
    if let Some(tls) = answer.get("tls").filter(|tls| tls.is_object()) {
        let [fingerprint, expires] = ["fingerprint", "expires"].map(|name| text(tls, name));
        shown.add_row(["certificate".to_owned(), format!("{fingerprint}, expires {expires}")]);
    }
    let evicted: Vec<_> = elements(&answer, "evicted").iter().filter_map(Value::as_str).collect();
    if !evicted.is_empty() {
        shown.add_row(["evicted".to_owned(), evicted.join(", ")]);
    }
    let keys: Vec<_> = elements(&answer, "keys").iter().filter_map(Value::as_str).collect();
    shown.add_row(["keys".to_owned(), keys.join(", ")]);
    if let Some(members) = answer.get("members").and_then(Value::as_object) {
        let counts: Vec<_> =
            members.keys().map(|status| format!("{} {status}", text(&answer["members"], status))).collect();
        shown.add_row(["members".to_owned(), counts.join(", ")]);
    }
    for row in ["scopes", "queues", "quarantined"].iter().flat_map(|name| rows(&answer, name)) {
        shown.add_row(row);
    }
    print_table(shown)
}

/// One line for each element of a list in the answer.
fn rows(answer: &Value, name: &str) -> Vec<[String; 2]> {
    let line = |row: &Value| match name {
        "scopes" => [
            text(row, "scope"),
            format!(
                "{} documents, {} deleted, root {}",
                text(row, "documents"),
                text(row, "deleted"),
                text(row, "root")
            ),
        ],
        "queues" => {
            [format!("queue {}", text(row, "name")), format!("{} of {}", text(row, "depth"), text(row, "limit"))]
        }
        _ => ["quarantined".to_owned(), format!("{} changes of {}", text(row, "changes"), text(row, "document"))],
    };
    elements(answer, name).iter().map(line).collect()
}

fn elements<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
