//! `knot cluster keys`: one key takes another's place, server by server, with nobody shut out.

use std::collections::BTreeMap;
use std::io::Read;

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::elements;
use crate::cli::CliError;
use crate::cli::client::{Ask, Client, ClientArgs};
use crate::cli::output::{print, print_table, table, text};
use crate::config::{KeyChange, KeyRing, change_keys};
use crate::genkey::generate_key;

/// What is done with the keys.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeysCommand {
    /// Show which keys a server holds, and with whom it speaks under which
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Hold one more key beside those that are there: this machine's server takes it from others, and begins with the same
    /// as before
    Add {
        /// The key, from `knot genkey`; `-` reads it from standard input [default: a new one, which is printed]
        key: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Begin with this key from now on
    Promote {
        /// Its id, as the list shows it
        id: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Take this key from nobody any more
    Remove {
        /// Its id, as the list shows it
        id: String,
        /// Even where others still speak under it
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
}

pub(super) const EXAMPLES: &str = "EXAMPLES, each step on every server before the next:
  knot cluster keys add              on the first server: prints a new key
  knot cluster keys add -            on each other one, with that key on standard input
  knot cluster keys promote f7b72740
  knot cluster keys list             nobody speaks under the old one any more
  knot cluster keys remove 1963b367
They change `keys` in this machine's knot.toml, and the server takes that over at once.";

/// Longest key that is read from standard input.
const KEY_BYTES_MAX: u64 = 1 << 10;

pub(super) async fn run(command: KeysCommand) -> Result<(), CliError> {
    match command {
        KeysCommand::List { client } => list(&client).await,
        KeysCommand::Add { key, client } => {
            let is_new = key.is_none();
            let key = match key.as_deref() {
                Some("-") => read_key()?,
                Some(key) => key.to_owned(),
                None => generate_key()?,
            };
            change(&client, KeyChange::Add(key.clone()), is_new.then_some(key)).await
        }
        KeysCommand::Promote { id, client } => change(&client, KeyChange::Promote(id), None).await,
        KeysCommand::Remove { id, force, client } => {
            if !force {
                ensure_unused(&client, &id).await?;
            }
            change(&client, KeyChange::Remove(id), None).await
        }
    }
}

fn read_key() -> Result<String, CliError> {
    let mut key = String::new();
    let read = std::io::stdin().take(KEY_BYTES_MAX).read_to_string(&mut key);
    read.map_err(|source| CliError::Io { what: "cannot read the key".to_owned(), source })?;
    Ok(key.trim().to_owned())
}

/// Who speaks with the server under which key, by the keys' ids.
async fn in_use(client: &Client) -> Result<BTreeMap<String, Vec<String>>, CliError> {
    let members = client.ask(Ask::new(Method::GET, "/api/cluster".to_owned())).await?.body;
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in elements(&members, "data") {
        if let Some(key) = row.get("key").and_then(Value::as_str) {
            users.entry(key.to_owned()).or_default().push(text(row, "name"));
        }
    }
    Ok(users)
}

async fn list(args: &ClientArgs) -> Result<(), CliError> {
    let client = Client::from_args(args)?;
    let status = client.ask(Ask::new(Method::GET, "/api/cluster/status".to_owned())).await?.body;
    let users = in_use(&client).await?;
    let held = elements(&status, "keys").iter().filter_map(Value::as_str);
    let users_of = |id: &str| users.get(id).cloned().unwrap_or_default();
    if args.json {
        let rows: Vec<Value> = held.map(|id| json!({"id": id, "in_use_with": users_of(id)})).collect();
        return print(json!({ "data": rows }));
    }
    let mut shown = table(&["KEY", "", "IN USE WITH"]);
    for (at, id) in held.enumerate() {
        let users = users_of(id).join(", ");
        let users = if users.is_empty() { "-".to_owned() } else { users };
        shown.add_row([id, if at == 0 { "begins with it" } else { "takes it" }, &users]);
    }
    print_table(shown)
}

async fn ensure_unused(args: &ClientArgs, id: &str) -> Result<(), CliError> {
    let users = in_use(&Client::from_args(args)?).await?;
    match users.get(id) {
        Some(users) => Err(CliError::Usage(format!(
            "{} still speak with this server under {id}: promote another key there first, or insist with --force",
            users.join(", ")
        ))),
        None => Ok(()),
    }
}

/// Changes the file, lets the server take it over, and prints what it holds then.
async fn change(args: &ClientArgs, change: KeyChange, new: Option<String>) -> Result<(), CliError> {
    // Kept until the server has been told, so that it is asked about these and no later ones.
    let changed = change_keys(args.config.as_deref(), &change)?;
    let wanted: Vec<String> = changed.keys.iter().map(|key| key.id().to_string()).collect();
    let told = async {
        let client = Client::from_args(args)?;
        let answer = client.ask(Ask::new(Method::POST, "/api/reload".to_owned())).await?.body;
        let held: Vec<&str> = elements(&answer, "keys").iter().filter_map(Value::as_str).collect();
        if held == wanted {
            Ok(())
        } else {
            let what = format!("it holds {} after reading its configuration, which is another file", held.join(", "));
            Err(client.malformed(what))
        }
    };
    let told = told.await;
    // It is in the file now, whatever the server says, and nobody else knows it.
    show(args, &changed.keys, new)?;
    told.map_err(|source| CliError::Untold { path: changed.path, source: Box::new(source) })
}

fn show(args: &ClientArgs, keys: &KeyRing, new: Option<String>) -> Result<(), CliError> {
    let ids: Vec<String> = keys.iter().map(|key| key.id().to_string()).collect();
    if args.json {
        return print(json!({"keys": ids, "new": new}));
    }
    if let Some(new) = new {
        print(new)?;
    }
    eprintln!("keys: {}", ids.join(", "));
    Ok(())
}
