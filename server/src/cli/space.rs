//! `knot space`.

use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::CliError;
use super::client::{Client, ClientArgs, with_query};
use super::output::{print, print_pretty, print_table, printable, table, text};
use super::people::{change, get, rows, said};
use super::template;

/// How often a space is looked at that is waited for.
const LOOKS: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum SpaceCommand {
    /// List your spaces and those that are shared with you
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show all that is known of a space
    Show {
        /// The name or id
        space: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make a space from a template
    Create {
        /// What it is to be called: letters, digits and '-'
        name: String,
        /// The template's name or id
        #[arg(long)]
        template: String,
        /// The zone that it is to run in; your home zone if none is said, else the server's
        #[arg(long)]
        zone: Option<String>,
        /// Keep what is known of it on the servers of its zone
        #[arg(long)]
        resident: bool,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// What to fill in for a field of the template; give it again for more
        #[arg(long = "field", value_name = "NAME=VALUE", value_parser = field)]
        fields: Vec<(String, String)>,
        /// Whose it is to be, by id; yours if nobody is said
        #[arg(long, value_name = "USER_ID")]
        user: Option<String>,
        /// Start it at once
        #[arg(long)]
        start: bool,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Start a space where it was before, or on a server that you name
    Start {
        /// The name or id
        space: String,
        /// The server, by name or id
        #[arg(long)]
        node: Option<String>,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Start a space anew
    Restart {
        /// The name or id
        space: String,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Stop a space; its volumes stay
    Stop {
        /// The name or id
        space: String,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete a space and its volumes
    Delete {
        /// The name or id
        space: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Give a space to another user
    Transfer {
        /// The name or id
        space: String,
        /// The user's name or id
        user: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Let another user see, start and stop a space
    Share {
        /// The name or id
        space: String,
        /// The user's name or id
        user: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Share a space no more
    Unshare {
        /// The name or id
        space: String,
        /// The user's name or id; everybody if nobody is said
        user: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Wait {
    /// Wait until it is so, and say how far it is
    #[arg(long)]
    wait: bool,
    /// For how long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    wait_timeout: u64,
}

pub(super) const EXAMPLES: &str = "EXAMPLES:
  knot space create web --template php --zone gb --start --wait
  knot space list
  knot space stop web
  knot space start web --node knot2
  knot space share web bob
A space runs in a container on a server of its zone that has Docker or Podman; docs/spaces.md says the rest.";

fn field(argument: &str) -> Result<(String, String), String> {
    let named = argument.split_once('=').filter(|(name, _)| !name.is_empty());
    named.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "write NAME=VALUE".to_owned())
}

pub(super) async fn run(command: SpaceCommand) -> Result<(), CliError> {
    match command {
        SpaceCommand::List { client } => list(&client).await,
        SpaceCommand::Show { space, client } => {
            let asked = Client::from_args(&client)?;
            let found = find(&asked, &space).await?;
            if client.json { print(found) } else { print_pretty(&found) }
        }
        SpaceCommand::Create { name, template, zone, resident, description, fields, user, start, wait, client } => {
            let asked = Client::from_args(&client)?;
            let template = template::find(&asked, &template).await?;
            let fields: Vec<Value> =
                fields.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            let body = json!({
                "name": name, "template_id": text(&template, "template_id"), "zone": zone, "resident": resident,
                "description": description, "custom_fields": fields, "user_id": user,
            });
            let answer = change(&asked, Method::POST, "/api/spaces", object(&body)).await?;
            let id = text(&answer, "space_id");
            if !start {
                return said(&client, &answer, format_args!("made the space {name} ({id})"));
            }
            change(&asked, Method::POST, &format!("/api/spaces/{id}/start"), Map::new()).await?;
            waited(
                &asked,
                &client,
                &id,
                wait,
                &answer,
                ("running", &format!("made and started the space {name} ({id})")),
            )
            .await
        }
        SpaceCommand::Start { space, node, wait, client } => {
            let body = node.map(|node| ("node".to_owned(), node.into())).into_iter().collect();
            act(&client, &space, "start", body, wait, ("running", "started")).await
        }
        SpaceCommand::Restart { space, wait, client } => {
            act(&client, &space, "restart", Map::new(), wait, ("running", "started anew")).await
        }
        SpaceCommand::Stop { space, wait, client } => {
            act(&client, &space, "stop", Map::new(), wait, ("stopped", "stopped")).await
        }
        SpaceCommand::Delete { space, client } => {
            let asked = Client::from_args(&client)?;
            let answer = change(&asked, Method::DELETE, &path(&asked, &space).await?, Map::new()).await?;
            said(&client, &answer, format_args!("deleted the space {space}"))
        }
        SpaceCommand::Transfer { space, user, client } => {
            with_user(&client, &space, &user, "transfer", format!("gave the space {space} to {user}")).await
        }
        SpaceCommand::Share { space, user, client } => {
            with_user(&client, &space, &user, "share", format!("shared the space {space} with {user}")).await
        }
        SpaceCommand::Unshare { space, user, client } => {
            let asked = Client::from_args(&client)?;
            let path = format!("{}/share", path(&asked, &space).await?);
            let path = with_query(&path, &[("user_id", user.clone())]);
            let answer = change(&asked, Method::DELETE, &path, Map::new()).await?;
            let with = user.as_deref().unwrap_or("anybody");
            said(&client, &answer, format_args!("the space {space} is not shared with {with} any more"))
        }
    }
}

async fn list(args: &ClientArgs) -> Result<(), CliError> {
    let answer = get(&Client::from_args(args)?, "/api/spaces").await?;
    if args.json {
        return print(answer);
    }
    let mut shown = table(&["NAME", "STATE", "SERVER", "ZONE", "TEMPLATE", "OWNER", "ID"]);
    for space in rows(&answer, "spaces") {
        let cells = ["name", "state", "node_hostname", "zone", "template_name", "username", "space_id"];
        shown.add_row(cells.map(|name| text(space, name)));
    }
    for space in rows(&answer, "elsewhere") {
        let [zone, owner, id] = ["zone", "username", "space_id"].map(|name| text(space, name));
        let urls: Vec<String> = rows(space, "urls").iter().filter_map(Value::as_str).map(printable).collect();
        let ask = if urls.is_empty() { "no server answers".to_owned() } else { format!("ask {}", urls.join(", ")) };
        shown.add_row(["-".to_owned(), "elsewhere".to_owned(), ask, zone, "-".to_owned(), owner, id]);
    }
    print_table(shown)
}

async fn act(
    args: &ClientArgs,
    space: &str,
    what: &str,
    body: Map<String, Value>,
    wait: Wait,
    (state, done): (&str, &str),
) -> Result<(), CliError> {
    let client = Client::from_args(args)?;
    let id = text(&find(&client, space).await?, "space_id");
    let answer = change(&client, Method::POST, &format!("/api/spaces/{id}/{what}"), body).await?;
    waited(&client, args, &id, wait, &answer, (state, &format!("{done} the space {space}"))).await
}

/// Says what was asked for, and where that is wanted, that it is so.
async fn waited(
    client: &Client,
    args: &ClientArgs,
    id: &str,
    wait: Wait,
    answer: &Value,
    (state, sentence): (&str, &str),
) -> Result<(), CliError> {
    if !wait.wait {
        return said(args, answer, format_args!("{sentence}; `knot space show {id}` says what becomes of it"));
    }
    let give_up = tokio::time::Instant::now() + Duration::from_secs(wait.wait_timeout);
    let mut told = String::new();
    loop {
        let space = get(client, &format!("/api/spaces/{id}")).await?;
        let is = text(&space, "state");
        if is == state {
            return said(args, &space, format_args!("{sentence}; it is {state} on {}", text(&space, "node_hostname")));
        }
        // What was reported of an earlier start is not shown, so this is of this one.
        if matches!(is.as_str(), "failed" | "unreachable") || (state == "running" && is == "stopped") {
            let why = space.get("failure").and_then(Value::as_str).unwrap_or("see `knot space show`");
            return Err(CliError::NotSo(format!("the space is {is}: {}", printable(why))));
        }
        if tokio::time::Instant::now() >= give_up {
            return Err(CliError::NotSo(format!("the space is still {is} after {} s", wait.wait_timeout)));
        }
        let now = match space.get("progress").and_then(Value::as_str) {
            Some(progress) => format!("{is}: {}", printable(progress)),
            None => is,
        };
        if now != told {
            eprintln!("{now}");
            told = now;
        }
        tokio::time::sleep(LOOKS).await;
    }
}

async fn with_user(args: &ClientArgs, space: &str, user: &str, what: &str, sentence: String) -> Result<(), CliError> {
    let client = Client::from_args(args)?;
    let path = format!("{}/{what}", path(&client, space).await?);
    let answer = change(&client, Method::POST, &path, object(&json!({"user_id": user}))).await?;
    said(args, &answer, format_args!("{sentence}"))
}

async fn path(client: &Client, space: &str) -> Result<String, CliError> {
    Ok(format!("/api/spaces/{}", text(&find(client, space).await?, "space_id")))
}

/// The space that is meant: by id, or by a name that one of those has which one sees.
async fn find(client: &Client, wanted: &str) -> Result<Value, CliError> {
    let known = get(client, "/api/spaces").await?;
    let spaces = rows(&known, "spaces");
    if let Some(space) = spaces.iter().find(|space| text(space, "space_id") == wanted) {
        return Ok(space.clone());
    }
    let named: Vec<&Value> = spaces.iter().filter(|space| text(space, "name").eq_ignore_ascii_case(wanted)).collect();
    match named[..] {
        [space] => Ok(space.clone()),
        [] => match rows(&known, "elsewhere").iter().find(|space| text(space, "space_id") == wanted) {
            // The server says whom to ask.
            Some(_) => get(client, &format!("/api/spaces/{wanted}")).await,
            None => Err(CliError::Absent(format!("no space is called {wanted}; `knot space list` names them"))),
        },
        [..] => {
            let ids: Vec<String> = named
                .iter()
                .map(|space| format!("{} of {}", text(space, "space_id"), text(space, "username")))
                .collect();
            Err(CliError::Usage(format!("several spaces are called {wanted}; name one by its id: {}", ids.join(", "))))
        }
    }
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}
