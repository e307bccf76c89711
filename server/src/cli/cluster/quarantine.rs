//! `knot cluster quarantine`: what was refused, what there is to know of it, and what to do about it.

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::elements;
use crate::cli::CliError;
use crate::cli::client::{Ask, Client, ClientArgs};
use crate::cli::output::{number, print, print_table, shortened, table, text, time};

/// What is asked of changes in quarantine.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum QuarantineCommand {
    /// List the changes that were refused, with their authors and why
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print all there is to know of one
    Show {
        /// Its hash, or how that begins
        hash: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Have the server judge changes of a document again, as after an upgrade, and say what became of each
    #[command(after_help = RELEASE_HELP)]
    Release {
        /// The document, as the list names it, such as global/users/ann
        document: String,
        /// The change's hash, or its first four digits or more; all that are in quarantine where none is named
        change: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Put a change aside on one server: it is listed and counted there no more
    #[command(after_help = DROP_HELP)]
    Drop {
        /// The document, as the list names it, such as global/users/ann
        document: String,
        /// The change's hash, or its first four digits or more
        change: String,
        /// That this is meant
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
}

pub(super) const EXAMPLES: &str = "EXAMPLES:
  knot cluster quarantine list
  knot cluster quarantine show 5f3c9a
  knot cluster quarantine release global/users/ann
  knot cluster quarantine drop global/users/ann 5f3c9a --yes
A change in quarantine is kept and counted by every server alike, and applied by none. \
Whoever sent it is worth a look: no knot server makes such changes.";
const RELEASE_HELP: &str = "EXAMPLES:
  knot cluster quarantine release global/users/ann
  knot cluster quarantine release zone:au/users/ann 5f3c9a --server http://127.0.0.1:3001
The server judges by the rules of its version, so nothing comes of it but after an upgrade whose rules take more. \
Each server judges for itself: release on every one, once all run the same version. \
What was dropped is judged too, and listed again where it is still refused.";
const DROP_HELP: &str = "EXAMPLES:
  knot cluster quarantine drop global/users/ann 5f3c9a --yes
A dropped change is no longer listed, counted or alarmed of on this server, also after a restart. That is all. \
It was not applied before and is not now; the document's history still shows it. \
Its bytes stay, here and on the other servers, and pass on to new ones: it counts in what all servers compare, so one \
that forgot it would be sent it again, and where all had, a new one could never become equal to them. \
Other servers list it until it is dropped there as well. A release takes it up again.";

pub(super) async fn run(command: QuarantineCommand) -> Result<(), CliError> {
    match command {
        QuarantineCommand::List { client } => list(&client).await,
        QuarantineCommand::Show { hash, client } => show(&hash, &client).await,
        QuarantineCommand::Release { document, change, client } => release(&document, change, &client).await,
        QuarantineCommand::Drop { yes: false, .. } => Err(CliError::Usage(
            "this puts the change aside: --help says what that means, and --yes does it".to_owned(),
        )),
        QuarantineCommand::Drop { document, change, yes: true, client } => put_aside(&document, &change, &client).await,
    }
}

async fn ask(client: &ClientArgs) -> Result<Value, CliError> {
    Ok(Client::from_args(client)?.ask(Ask::new(Method::GET, "/api/cluster/quarantine".to_owned())).await?.body)
}

/// What its author is called, or its id.
fn author(row: &Value) -> String {
    let name = row.get("by").and_then(Value::as_str);
    name.map_or_else(|| shortened(&text(row, "node"), 12), |_| text(row, "by"))
}

async fn list(args: &ClientArgs) -> Result<(), CliError> {
    let answer = ask(args).await?;
    if args.json {
        return print(answer);
    }
    let rows = elements(&answer, "data");
    let mut shown = table(&["HASH", "DOCUMENT", "BY", "TIME", "BYTES", "WHY"]);
    for row in rows {
        shown.add_row(vec![
            shortened(&text(row, "hash"), 12).into(),
            text(row, "document").into(),
            author(row).into(),
            time(row).into(),
            number(text(row, "bytes")),
            text(row, "quarantine").into(),
        ]);
    }
    print_table(shown)?;
    let listed = rows.len() as u64;
    let total = answer.get("total").and_then(Value::as_u64).unwrap_or(listed);
    if total > listed { print(format_args!("and {} more", total - listed)) } else { Ok(()) }
}

async fn show(hash: &str, args: &ClientArgs) -> Result<(), CliError> {
    let answer = ask(args).await?;
    // As the list shows it.
    let hash = hash.trim_end_matches('.');
    let is_meant = |row: &&Value| row.get("hash").and_then(Value::as_str).is_some_and(|known| known.starts_with(hash));
    let found: Vec<&Value> = elements(&answer, "data").iter().filter(is_meant).collect();
    if found.is_empty() {
        return Err(CliError::Usage(format!(
            "no change in quarantine has a hash that begins with {hash}; `knot cluster quarantine list` shows those there are"
        )));
    }
    if args.json {
        return print(json!({ "data": found }));
    }
    for (at, row) in found.into_iter().enumerate() {
        if at > 0 {
            print("")?;
        }
        let mut shown = table(&[]);
        shown.add_row(["time".to_owned(), time(row)]);
        for name in ["hash", "document", "quarantine", "by", "node", "actor", "seq", "kind", "bytes"] {
            shown.add_row([name.to_owned(), text(row, name)]);
        }
        print_table(shown)?;
    }
    Ok(())
}

async fn post(path: &str, document: &str, change: Option<String>, client: &ClientArgs) -> Result<Value, CliError> {
    let change = change.map(|change| change.trim_end_matches('.').to_owned());
    let body = match change {
        Some(change) => json!({ "document": document, "change": change }),
        None => json!({ "document": document }),
    };
    let ask = Ask::new(Method::POST, path.to_owned()).body("application/json", body.to_string());
    Ok(Client::from_args(client)?.ask(ask).await?.body)
}

async fn release(document: &str, change: Option<String>, args: &ClientArgs) -> Result<(), CliError> {
    let answer = post("/api/cluster/quarantine/release", document, change, args).await?;
    if args.json {
        return print(answer);
    }
    let rows = elements(&answer, "data");
    if rows.is_empty() {
        return print(format_args!("{} has no change in quarantine", text(&answer, "document")));
    }
    let mut shown = table(&["HASH", "OUTCOME"]);
    for row in rows {
        let refused = row.get("quarantine").and_then(Value::as_str).is_some();
        let outcome =
            if refused { format!("still refused: {}", text(row, "quarantine")) } else { "applied".to_owned() };
        shown.add_row([shortened(&text(row, "hash"), 12), outcome]);
    }
    print_table(shown)
}

async fn put_aside(document: &str, change: &str, args: &ClientArgs) -> Result<(), CliError> {
    let answer = post("/api/cluster/quarantine/drop", document, Some(change.to_owned()), args).await?;
    if args.json {
        return print(answer);
    }
    let (hash, document) = (text(&answer, "hash"), text(&answer, "document"));
    print(format_args!("{hash} of {document} is dropped here; other servers list it until it is dropped there too"))
}
