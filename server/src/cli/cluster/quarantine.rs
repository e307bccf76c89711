//! `knot cluster quarantine`: what was refused, and what there is to know of it.

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
}

pub(super) const EXAMPLES: &str = "EXAMPLES:
  knot cluster quarantine list
  knot cluster quarantine show 5f3c9a
A change in quarantine is kept and counted by every server alike, and applied by none. Whoever sent it is worth a look:
no knot server makes such changes.";

pub(super) async fn run(command: QuarantineCommand) -> Result<(), CliError> {
    match command {
        QuarantineCommand::List { client } => list(&client).await,
        QuarantineCommand::Show { hash, client } => show(&hash, &client).await,
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
