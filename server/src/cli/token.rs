//! `knot token` and `knot audit`.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::CliError;
use super::client::{Client, ClientArgs, with_query};
use super::output::{print, print_table, table, text};
use super::password::PasswordArgs;
use super::people::{change, get, rows, said};
use crate::accounts::Secret;

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// List your tokens
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make a token; it is printed this once
    Create {
        /// What you call it
        name: String,
        /// What it is limited to: read, leaf or documents:COLLECTION; give it again for more
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// After how many days it ceases to be good
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        expires: Option<u32>,
        /// Have it kept, sealed with your password, which is asked for: `knot token reveal` prints it again
        #[arg(long)]
        revealable: bool,
        #[command(flatten)]
        password: PasswordArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print a token again that was made with --revealable; your password is asked for
    Reveal {
        /// Its name or id
        #[arg(value_name = "TOKEN")]
        which: String,
        #[command(flatten)]
        password: PasswordArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// End a token for good, on every server
    Revoke {
        /// Its name or id
        #[arg(value_name = "TOKEN")]
        which: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

pub(super) const TOKEN_EXAMPLES: &str = "EXAMPLES:
  knot login ann
  knot token create 'Leaf Test'
  knot token create backup --scope read --expires 30
  knot token create phone --revealable
  knot token reveal phone
  knot token revoke backup
A token belongs to a user: log in first.";

#[derive(Args, Debug)]
pub(super) struct AuditArgs {
    /// Only entries that hold this
    search: Option<String>,
    /// Only what this user did
    #[arg(long)]
    actor: Option<String>,
    /// Only this event, or events that begin so, such as user.
    #[arg(long)]
    event: Option<String>,
    /// How many entries at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Where the page before ended
    #[arg(long)]
    after: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) const AUDIT_EXAMPLES: &str = "EXAMPLES:
  knot audit
  knot audit --event user. --actor ann
  knot audit 'the role' --json";

pub(super) async fn token(command: TokenCommand) -> Result<(), CliError> {
    match command {
        TokenCommand::List { client } => {
            let answer = get(&Client::from_args(&client)?, "/api/tokens").await?;
            if client.json {
                return print(answer);
            }
            let mut shown = table(&["NAME", "SCOPES", "CREATED", "LAST USED", "EXPIRES", "ID"]);
            for token in answer.as_array().into_iter().flatten() {
                let scopes: Vec<_> = rows(token, "scopes").iter().filter_map(Value::as_str).collect();
                let scopes = if scopes.is_empty() { "all".to_owned() } else { scopes.join(", ") };
                let [name, created, used, expires, id] =
                    ["name", "created_at", "last_used", "expires_after", "token_id"].map(|name| text(token, name));
                shown.add_row([name, scopes, created, used, expires, id]);
            }
            print_table(shown)
        }
        TokenCommand::Create { name, scopes, expires, revealable, password, client } => {
            let asked = Client::from_args(&client)?;
            let expires = expires.map(|days| days.saturating_mul(24 * 3_600));
            let password = if revealable { Some(password.ask("Your password: ")?) } else { None };
            let password = password.as_ref().map(Secret::reveal);
            let body = json!({"name": name, "scopes": scopes, "expires_in_s": expires, "password": password});
            let body = body.as_object().cloned().unwrap_or_default();
            let answer = change(&asked, Method::POST, "/api/tokens", body).await?;
            said(&client, &answer, format_args!("{}", text(&answer, "token")))
        }
        TokenCommand::Reveal { which, password, client } => {
            let asked = Client::from_args(&client)?;
            let id = named(&asked, &which).await?;
            let password = password.ask("Your password: ")?;
            let body = json!({"password": password.reveal()}).as_object().cloned().unwrap_or_default();
            let answer = change(&asked, Method::POST, &format!("/api/tokens/{id}/reveal"), body).await?;
            said(&client, &answer, format_args!("{}", text(&answer, "token")))
        }
        TokenCommand::Revoke { which: token, client } => {
            let asked = Client::from_args(&client)?;
            let id = named(&asked, &token).await?;
            let answer = change(&asked, Method::DELETE, &format!("/api/tokens/{id}"), serde_json::Map::new()).await?;
            said(&client, &answer, format_args!("revoked the token {token}"))
        }
    }
}

/// The id of the one token that is meant.
async fn named(asked: &Client, token: &str) -> Result<String, CliError> {
    let answer = get(asked, "/api/tokens").await?;
    let known = answer.as_array().into_iter().flatten();
    let is_meant = |row: &&Value| text(row, "token_id") == token || text(row, "name") == token;
    let found: Vec<String> = known.filter(is_meant).map(|row| text(row, "token_id")).collect();
    match &found[..] {
        [id] => Ok(id.clone()),
        [] => Err(CliError::Absent(format!("no token of yours is called {token}; `knot token list` names them"))),
        several => {
            let why = format!("several tokens are called {token}; give one of their ids: {}", several.join(", "));
            Err(CliError::Usage(why))
        }
    }
}

pub(super) async fn audit(args: &AuditArgs) -> Result<(), CliError> {
    let query = [
        ("q", args.search.clone()),
        ("actor", args.actor.clone()),
        ("event", args.event.clone()),
        ("after", args.after.clone()),
        ("max-items", Some(args.limit.to_string())),
    ];
    let answer = get(&Client::from_args(&args.client)?, &with_query("/api/audit-logs", &query)).await?;
    if args.client.json {
        return print(answer);
    }
    let mut shown = table(&["WHEN", "ZONE", "WHO", "WHAT", "DETAILS"]);
    for entry in rows(&answer, "items") {
        shown.add_row(["when", "zone", "actor", "event", "details"].map(|name| text(entry, name)));
    }
    print_table(shown)?;
    match answer.get("next").and_then(Value::as_str) {
        Some(next) => print(format_args!("\nmore: --after {next}")),
        None => Ok(()),
    }
}
