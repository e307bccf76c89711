//! `knot login` and `knot logout`: a session by server, kept for the commands that follow.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use clap::Args;
use hyper::{Method, StatusCode};
use serde_json::json;

use super::CliError;
use super::client::{Ask, Client, ClientArgs, ClientError};
use super::output::{print, text};
use super::password::PasswordArgs;
use crate::storage::write_private;

#[derive(Args, Debug)]
pub(super) struct LoginArgs {
    /// The e-mail address, or the user name
    name: String,
    #[command(flatten)]
    password: PasswordArgs,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) const LOGIN_EXAMPLES: &str = "EXAMPLES:
  knot login ann --server https://knot1.internal:3000
  echo \"$PASSWORD\" | knot login ann@example.org --password-stdin
The session is kept by server in ~/.config/knot/sessions.json, which only you can read, and used by the commands that
follow where no token is given. It lasts 14 days, or until `knot logout`.";
pub(super) const LOGOUT_EXAMPLES: &str = "EXAMPLES:
  knot logout
  knot logout --server https://knot1.internal:3000";

pub(super) async fn login(args: &LoginArgs) -> Result<(), CliError> {
    let client = Client::of_nobody(&args.client)?;
    let password = args.password.ask(&format!("Password of {} at {}: ", args.name, client.url()))?;
    let body = json!({"email": args.name, "password": password.reveal()});
    let ask = Ask::new(Method::POST, "/api/auth".to_owned()).body("application/json", body.to_string());
    let answer = client.ask(ask).await?.body;
    let mut kept = read()?;
    kept.insert(client.url().to_owned(), text(&answer, "token"));
    write(&kept)?;
    if args.client.json {
        return print(json!({"url": client.url(), "user_id": text(&answer, "user_id")}));
    }
    print(format_args!("logged in at {}; commands without a token go as {}", client.url(), args.name))
}

pub(super) async fn logout(args: &ClientArgs) -> Result<(), CliError> {
    let client = Client::of_nobody(args)?;
    let mut kept = read()?;
    let Some(token) = kept.remove(client.url()) else {
        return Err(CliError::Usage(format!("not logged in at {}", client.url())));
    };
    let ask = Ask::new(Method::POST, "/api/auth/logout".to_owned());
    match client.with_token(&token)?.ask(ask).await {
        // It is over already.
        Ok(_) | Err(ClientError::Refused { status: StatusCode::UNAUTHORIZED, .. }) => write(&kept)?,
        Err(error) => return Err(error.into()),
    }
    if args.json { print(json!({"url": client.url()})) } else { print(format_args!("logged out at {}", client.url())) }
}

/// The session that was kept for a server.
pub(super) fn kept(url: &str) -> Option<String> {
    read().ok()?.remove(url)
}

fn file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(folder.join("knot/sessions.json"))
}

fn read() -> Result<BTreeMap<String, String>, CliError> {
    let Some(path) = file() else { return Ok(BTreeMap::new()) };
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|_| CliError::Usage(format!("{} is damaged: remove it and log in again", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(source) => Err(CliError::Io { what: format!("cannot read {}", path.display()), source }),
    }
}

fn write(kept: &BTreeMap<String, String>) -> Result<(), CliError> {
    let Some(path) = file() else {
        return Err(CliError::Usage("there is no home folder to keep the session in: set HOME".to_owned()));
    };
    let failed = |source| CliError::Io { what: format!("cannot write {}", path.display()), source };
    path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
    write_private(&path, json!(kept).to_string().as_bytes()).map_err(failed)
}
