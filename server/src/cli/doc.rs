//! `knot doc`.

use std::time::Duration;

use clap::{Args, Subcommand};
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{Ask, Client, ClientArgs, Reply, body_of, with_query};
use super::events::{Event, Reader};
use super::output::{number, print, print_pretty, print_table, printable, shortened, table, text, time};
use super::{CliError, versions};
use crate::api::path::encode;

/// Documents in one page, the server's limit.
const PAGE_MAX: usize = 1000;
/// Characters of a value that a list shows.
const VALUE_CHARACTERS: usize = 60;

#[derive(Debug, Subcommand)]
pub(super) enum DocCommand {
    /// Print a document
    #[command(after_help = GET_EXAMPLES)]
    Get {
        #[command(flatten)]
        document: Document,
        /// Show every place where concurrent edits wrote different values
        #[arg(long)]
        conflicts: bool,
        /// As of this change of its history: a hash, or how it begins
        #[arg(long, value_name = "HASH", conflicts_with = "conflicts")]
        at: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make a document equal to the given JSON
    #[command(after_help = PUT_EXAMPLES)]
    Put {
        #[command(flatten)]
        document: Document,
        /// JSON, @FILE, or - for stdin [default: -]
        value: Option<String>,
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Change parts of a document
    #[command(after_help = PATCH_EXAMPLES)]
    Patch {
        #[command(flatten)]
        document: Document,
        /// A merge patch (RFC 7396) as JSON, @FILE, or - for stdin [default: -]
        patch: Option<String>,
        /// It is a JSON Patch (RFC 6902)
        #[arg(long)]
        json_patch: bool,
        /// It is an increment: {"pointer": "/visits", "by": 1}
        #[arg(long, conflicts_with = "json_patch")]
        increment: bool,
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete a document
    #[command(after_help = DELETE_EXAMPLES)]
    Delete {
        #[command(flatten)]
        document: Document,
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List the documents of a collection in key order
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// The collection
        collection: String,
        /// Only keys that begin with this
        #[arg(long)]
        prefix: Option<String>,
        /// Only keys behind this one
        #[arg(long, value_name = "KEY")]
        after: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// In this zone's documents
        #[arg(long)]
        zone: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print who changed a document when
    #[command(after_help = HISTORY_EXAMPLES)]
    History {
        #[command(flatten)]
        document: Document,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print what differs between two versions of a document, member by member
    #[command(after_help = DIFF_EXAMPLES)]
    Diff {
        #[command(flatten)]
        document: Document,
        /// A change of its history: a hash, or how it begins
        #[arg(value_name = "FROM")]
        from: String,
        /// Another; the present version where there is none
        #[arg(value_name = "TO")]
        to: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Follow changes as they become durable on the server
    #[command(after_help = WATCH_EXAMPLES)]
    Watch {
        /// Only this collection
        collection: Option<String>,
        /// Only keys that begin with this
        #[arg(long)]
        prefix: Option<String>,
        /// Go on after this event
        #[arg(long, value_name = "ID")]
        since: Option<String>,
        /// Show values too
        #[arg(long)]
        values: bool,
        /// Stop where the present state ends
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
}

pub(super) const EXAMPLES: &str = "EXAMPLES:
  knot doc put users/ann '{\"name\": \"Ann\"}'
  knot doc get users/ann
  knot doc list users";
const GET_EXAMPLES: &str = "EXAMPLES:
  knot doc get users/ann
  knot doc get users/ann --at 5f0c12
  knot doc get spaces/one --zone au --conflicts";
const DIFF_EXAMPLES: &str = "EXAMPLES:
  knot doc diff users/ann 5f0c12
  knot doc diff users/ann 5f0c12 9a41 --json
`knot doc history users/ann` has the hashes.";
const PUT_EXAMPLES: &str = "EXAMPLES:
  knot doc put users/ann '{\"name\": \"Ann\"}'
  knot doc put users/ann @ann.json --if-none-match '*'
  knot doc put users/ann @ann.json --replicas 2 --timeout 1000";
const PATCH_EXAMPLES: &str = "EXAMPLES:
  knot doc patch users/ann '{\"email\": \"ann@example.org\"}'
  knot doc patch users/ann --json-patch '[{\"op\": \"remove\", \"path\": \"/email\"}]'
  knot doc patch users/ann --increment '{\"pointer\": \"/visits\", \"by\": 1}'";
const DELETE_EXAMPLES: &str = "EXAMPLES:
  knot doc delete users/ann
  knot doc delete users/ann --if-match 5f0c9a...";
const LIST_EXAMPLES: &str = "EXAMPLES:
  knot doc list users
  knot doc list users --prefix a --limit 20 --json";
const HISTORY_EXAMPLES: &str = "EXAMPLES:
  knot doc history users/ann";
const WATCH_EXAMPLES: &str = "EXAMPLES:
  knot doc watch
  knot doc watch users --prefix a --values --json
  knot doc watch users --once";

/// Which document.
#[derive(Args, Debug)]
pub(super) struct Document {
    /// The document, as collection/key
    #[arg(value_name = "COLLECTION/KEY", value_parser = document_name)]
    name: DocumentName,
    /// In this zone's documents
    #[arg(long)]
    zone: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct DocumentName {
    collection: String,
    key: String,
}

/// Under which conditions to write, and when the write counts as done.
#[derive(Args, Debug)]
pub(super) struct Terms {
    /// Only if the document has this etag, or exists (*)
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Only if the document has not this etag, or does not exist (*)
    #[arg(long, value_name = "ETAG")]
    if_none_match: Option<String>,
    /// Wait until this many other servers hold it durably
    #[arg(long, value_name = "W")]
    replicas: Option<usize>,
    /// How long to wait for them, in milliseconds
    #[arg(long, value_name = "MS", requires = "replicas")]
    timeout: Option<u64>,
}

pub(super) async fn run(command: DocCommand) -> Result<(), CliError> {
    match command {
        DocCommand::Get { document, conflicts, at, client } => get(&document, conflicts, at, &client).await,
        DocCommand::Put { document, value, terms, client } => {
            let body = json_body(value.as_deref())?;
            write(Method::PUT, Some(("application/json", body)), &document, &terms, &client).await
        }
        DocCommand::Patch { document, patch, json_patch, increment, terms, client } => {
            let kind = match (json_patch, increment) {
                (true, _) => "application/json-patch+json",
                (false, true) => "application/vnd.knot.increment+json",
                (false, false) => "application/merge-patch+json",
            };
            let body = json_body(patch.as_deref())?;
            write(Method::PATCH, Some((kind, body)), &document, &terms, &client).await
        }
        DocCommand::Delete { document, terms, client } => write(Method::DELETE, None, &document, &terms, &client).await,
        DocCommand::List { collection, prefix, after, limit, zone, client } => {
            let path = collection_path(zone.as_deref(), &collection);
            list(&path, prefix, after, limit, &client).await
        }
        DocCommand::History { document, client } => history(&document, &client).await,
        DocCommand::Diff { document, from, to, client } => {
            versions::diff(&document.path(), &from, to.as_deref(), &client).await
        }
        DocCommand::Watch { collection, prefix, since, values, once, client } => {
            let path = with_query(
                "/api/changes",
                &[
                    ("since", since),
                    ("collection", collection),
                    ("prefix", prefix),
                    ("values", values.then(|| "true".to_owned())),
                ],
            );
            watch(path, once, &client).await
        }
    }
}

async fn get(document: &Document, conflicts: bool, at: Option<String>, args: &ClientArgs) -> Result<(), CliError> {
    let path = with_query(&document.path(), &[("conflicts", conflicts.then(|| "true".to_owned())), ("at", at)]);
    let reply = Client::from_args(args)?.ask(Ask::new(Method::GET, path)).await?;
    if !args.json {
        return print_pretty(&reply.body);
    }
    let mut answer = json!({"collection": document.name.collection, "key": document.name.key, "etag": reply.etag});
    match (answer.as_object_mut(), reply.body) {
        (Some(answer), Value::Object(body)) if conflicts => answer.extend(body),
        (Some(answer), value) => {
            answer.insert("value".to_owned(), value);
        }
        (None, _) => {}
    }
    print(answer)
}

async fn write(
    method: Method,
    body: Option<(&'static str, String)>,
    document: &Document,
    terms: &Terms,
    args: &ClientArgs,
) -> Result<(), CliError> {
    let deleting = method == Method::DELETE;
    let path = with_query(
        &document.path(),
        &[("w", terms.replicas.map(|w| w.to_string())), ("timeout", terms.timeout.map(|ms| ms.to_string()))],
    );
    let mut ask = Ask::new(method, path)
        .header("if-match", terms.if_match.as_deref().map(quoted).as_deref())?
        .header("if-none-match", terms.if_none_match.as_deref().map(quoted).as_deref())?
        .waiting(Duration::from_millis(terms.timeout.unwrap_or(0)));
    if let Some((kind, body)) = body {
        ask = ask.body(kind, body);
    }
    let reply = Client::from_args(args)?.ask(ask).await?;
    if args.json {
        print(&reply.body)?;
    } else {
        print(written(document, deleting, &reply))?;
    }
    if reply.status == StatusCode::ACCEPTED {
        return Err(CliError::NotReplicated {
            held_by: reply.body.get("held_by").and_then(Value::as_u64).unwrap_or(0),
            wanted: terms.replicas.unwrap_or(0),
        });
    }
    Ok(())
}

fn written(document: &Document, deleting: bool, reply: &Reply) -> String {
    let said = |name: &str| reply.body.get(name).and_then(Value::as_bool);
    let what = if deleting {
        "deleted"
    } else if said("created") == Some(true) {
        "created"
    } else if said("changed") == Some(false) {
        "unchanged"
    } else {
        "changed"
    };
    let etag = reply.etag.clone().unwrap_or_else(|| text(&reply.body, "etag"));
    format!("{}/{} {what} {}", document.name.collection, document.name.key, printable(&etag))
}

async fn list(
    path: &str,
    prefix: Option<String>,
    mut after: Option<String>,
    limit: u32,
    args: &ClientArgs,
) -> Result<(), CliError> {
    let client = Client::from_args(args)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut rows = Vec::new();
    loop {
        let parameters = [
            ("prefix", prefix.clone()),
            ("after", after.clone()),
            ("limit", Some((limit - rows.len()).min(PAGE_MAX).to_string())),
        ];
        let mut page = client.ask(Ask::new(Method::GET, with_query(path, &parameters))).await?.body;
        let Some(data) = page.get_mut("data").and_then(Value::as_array_mut) else {
            return Err(client.malformed("a page has no `data`".to_owned()).into());
        };
        let got = data.len();
        rows.append(data);
        after = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if after.is_none() || got == 0 || rows.len() >= limit {
            break;
        }
    }
    if args.json {
        return print(json!({"data": rows, "next": after}));
    }
    let mut shown = table(&["KEY", "MODIFIED", "ETAG", "VALUE"]);
    for row in &rows {
        let value = shortened(&text(row, "value"), VALUE_CHARACTERS);
        shown.add_row([text(row, "key"), text(row, "modified"), shortened(&text(row, "etag"), 12), value]);
    }
    print_table(shown)?;
    if let Some(after) = after {
        eprintln!("there are more: go on with --after '{}'", printable(&after));
    }
    Ok(())
}

async fn history(document: &Document, args: &ClientArgs) -> Result<(), CliError> {
    let client = Client::from_args(args)?;
    let path = format!("{}/history", document.path());
    let body = client.ask(Ask::new(Method::GET, path)).await?.body;
    if args.json {
        return print(body);
    }
    let Some(rows) = body.get("data").and_then(Value::as_array) else {
        return Err(client.malformed("the history has no `data`".to_owned()).into());
    };
    let mut shown = table(&["TIME", "KIND", "NODE", "SEQ", "HASH"]);
    for row in rows {
        let (node, hash) = (shortened(&text(row, "node"), 12), shortened(&text(row, "hash"), 12));
        shown.add_row(vec![time(row).into(), kind(row).into(), node.into(), number(text(row, "seq")), hash.into()]);
    }
    print_table(shown)
}

/// What a change does, and where it is not applied, that.
fn kind(row: &Value) -> String {
    let kind = text(row, "kind");
    match row.get("quarantine").and_then(Value::as_str) {
        None => kind,
        Some(_) if row.get("dropped").and_then(Value::as_bool) == Some(true) => format!("{kind}, dropped"),
        Some(_) => format!("{kind}, in quarantine"),
    }
}

async fn watch(path: String, once: bool, args: &ClientArgs) -> Result<(), CliError> {
    let client = Client::from_args(args)?;
    let mut answer = client.send(Ask::new(Method::GET, path)).await?;
    let mut reader = Reader::default();
    let mut last = None;
    while let Some(frame) = answer.body.frame().await {
        let frame = frame.map_err(|error| ended(error.to_string(), &last))?;
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        let events = reader.read(&bytes).map_err(|_| client.malformed("the feed is no stream of events".to_owned()))?;
        for event in events {
            if event.name == "snapshot-end" && once {
                return Ok(());
            }
            if event.name == "reset" && event.id.is_none() {
                return Err(ended("this reader was too far behind, or the server is overloaded".to_owned(), &last));
            }
            show(&event, args.json)?;
            last = event.id.or(last);
        }
    }
    Err(ended("the server closed it".to_owned(), &last))
}

fn show(event: &Event, as_json: bool) -> Result<(), CliError> {
    match event.name.as_str() {
        "change" if as_json => print(&event.data),
        "change" => print(change_line(&event.data)),
        "reset" => {
            eprintln!(
                "the feed starts over: {}",
                text(&serde_json::from_str(&event.data).unwrap_or_default(), "reason")
            );
            Ok(())
        }
        // Marks and heartbeats, and what later servers may send.
        _ => Ok(()),
    }
}

fn change_line(data: &str) -> String {
    let change: Value = serde_json::from_str(data).unwrap_or_default();
    let deleted = change.get("deleted").and_then(Value::as_bool) == Some(true);
    let state = if deleted { "deleted".to_owned() } else { shortened(&text(&change, "etag"), 12) };
    let value = change.get("value").map(|value| format!("  {value}")).unwrap_or_default();
    let (scope, collection, key) = (text(&change, "scope"), text(&change, "collection"), text(&change, "key"));
    format!("{}  {scope}  {collection}/{key}  {state}{value}", text(&change, "sequence"))
}

fn ended(reason: String, last: &Option<String>) -> CliError {
    CliError::WatchEnded { reason, last: last.as_deref().map(printable) }
}

impl Document {
    fn path(&self) -> String {
        format!("{}/{}", collection_path(self.zone.as_deref(), &self.name.collection), encode(&self.name.key))
    }
}

fn collection_path(zone: Option<&str>, collection: &str) -> String {
    match zone {
        Some(zone) => format!("/api/zones/{}/documents/{}", encode(zone), encode(collection)),
        None => format!("/api/documents/{}", encode(collection)),
    }
}

fn document_name(text: &str) -> Result<DocumentName, String> {
    match text.split_once('/') {
        Some((collection, key)) if !collection.is_empty() && !key.is_empty() => {
            Ok(DocumentName { collection: collection.to_owned(), key: key.to_owned() })
        }
        _ => Err("a document is named collection/key, such as users/ann".to_owned()),
    }
}

fn json_body(argument: Option<&str>) -> Result<String, CliError> {
    let body = body_of(argument).map_err(|source| CliError::Io {
        what: format!("cannot read {}", argument.unwrap_or("stdin").trim_start_matches('@')),
        source,
    })?;
    match serde_json::from_str::<serde::de::IgnoredAny>(&body) {
        Ok(_) => Ok(body),
        Err(error) => Err(CliError::Usage(format!("the value is no JSON: {error}"))),
    }
}

/// An etag as headers have it. What is quoted, or `*`, or a list already, is left alone.
fn quoted(etag: &str) -> String {
    if etag == "*" || etag.contains('"') { etag.to_owned() } else { format!("\"{etag}\"") }
}
