//! `knot user`, `knot role` and `knot group`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::CliError;
use super::client::{Ask, Client, ClientArgs, with_query};
use super::output::{number, print, print_pretty, print_table, table, text};
use super::password::PasswordArgs;
use crate::accounts::ADMINISTRATOR;
use crate::api::path::encode;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// List users
    List {
        /// Only those whose name or e-mail address holds this
        search: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print all there is to know of a user
    Show {
        /// The name, e-mail address or id
        user: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make a user; the password is asked for
    Create {
        /// The name
        username: String,
        /// Make an administrator, who may do everything
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        facts: UserArgs,
        #[command(flatten)]
        password: PasswordArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Change a user: what is not given stays
    Update {
        /// The name, e-mail address or id
        user: String,
        /// Another name
        #[arg(long)]
        username: Option<String>,
        /// Whether the user may log in
        #[arg(long)]
        active: Option<bool>,
        #[command(flatten)]
        facts: UserArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Set a user's password, which ends their other sessions
    Password {
        /// The name, e-mail address or id
        user: String,
        #[command(flatten)]
        password: PasswordArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete a user, with their tokens and sessions
    Delete {
        /// The name, e-mail address or id
        user: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// On a server's own machine: make a user an administrator who may log in, with a new password
    #[command(after_help = RECOVER_EXAMPLES)]
    Recover {
        /// The name, e-mail address or id
        user: String,
        #[command(flatten)]
        password: PasswordArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// What a user has.
#[derive(Args, Debug)]
pub(super) struct UserArgs {
    /// The e-mail address
    #[arg(long)]
    email: Option<String>,
    /// A role, by name or id, in place of those that a user has; give it again for more
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A group, by name or id, in place of those that a user is in; give it again for more
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// The zone in which the user's spaces are made where nothing else is said
    #[arg(long)]
    zone: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum RoleCommand {
    /// List roles
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print what a role allows
    Show {
        /// The name or id
        role: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List the permissions that there are
    Permissions {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make a role
    Create {
        /// The name
        name: String,
        /// A permission, by name or number; give it again for more
        #[arg(long = "allow", value_name = "PERMISSION")]
        allowed: Vec<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make a role allow these permissions and no others
    Update {
        /// The name or id
        role: String,
        /// A permission, by name or number; give it again for more
        #[arg(long = "allow", value_name = "PERMISSION", required = true)]
        allowed: Vec<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete a role
    Delete {
        /// The name or id
        role: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// List groups
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make a group
    Create {
        /// The name
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Change a group: what is not given stays
    Update {
        /// The name or id
        group: String,
        #[command(flatten)]
        facts: GroupArgs,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete a group
    Delete {
        /// The name or id
        group: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// What a group is to be.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(super) struct GroupArgs {
    /// Another name
    #[arg(long)]
    name: Option<String>,
    /// How many spaces each member may have besides its own
    #[arg(long, value_name = "COUNT")]
    max_spaces: Option<u32>,
    /// How many compute units each member may use besides its own
    #[arg(long, value_name = "COUNT")]
    compute_units: Option<u32>,
    /// How many storage units each member may use besides its own
    #[arg(long, value_name = "COUNT")]
    storage_units: Option<u32>,
}

pub(super) const USER_EXAMPLES: &str = "EXAMPLES:
  knot user create ann --admin --email ann@example.org
  echo \"$PASSWORD\" | knot user create bob --role Developer --password-stdin
  knot user list
  knot user update bob --active false
  knot user recover ann";
const RECOVER_EXAMPLES: &str = "EXAMPLES:
  knot user recover ann
This is the way back where no administrator can log in any more. It takes the machine's own token, admin.token in the
server's data folder.";
pub(super) const ROLE_EXAMPLES: &str = "EXAMPLES:
  knot role permissions
  knot role create Developer --allow 'Use Spaces' --allow 'Use API Tokens'
  knot role show Developer";
pub(super) const GROUP_EXAMPLES: &str = "EXAMPLES:
  knot group create web
  knot group update web --max-spaces 5 --compute-units 20
  knot group list --json";

pub(super) async fn user(command: UserCommand) -> Result<(), CliError> {
    match command {
        UserCommand::List { search, client } => list_users(search, &client).await,
        UserCommand::Show { user, client } => {
            let asked = Client::from_args(&client)?;
            let found = find_user(&asked, &user).await?;
            if client.json { print(found) } else { print_pretty(&found) }
        }
        UserCommand::Create { username, admin, facts, password, client } => {
            let asked = Client::from_args(&client)?;
            let mut body = facts.body(&asked).await?;
            if admin && let Some(roles) = body.entry("roles").or_insert_with(|| json!([])).as_array_mut() {
                roles.push(ADMINISTRATOR.into());
            }
            let password = password.ask_new(&format!("Password for {username}: "))?;
            body.insert("username".to_owned(), username.as_str().into());
            body.insert("password".to_owned(), password.reveal().into());
            let answer = change(&asked, Method::POST, "/api/users", body).await?;
            said(&client, &answer, format_args!("made the user {username} ({})", text(&answer, "user_id")))
        }
        UserCommand::Update { user, username, active, facts, client } => {
            let asked = Client::from_args(&client)?;
            let mut body = facts.body(&asked).await?;
            body.extend(username.map(|name| ("username".to_owned(), name.into())));
            body.extend(active.map(|active| ("active".to_owned(), active.into())));
            update_user(&asked, &client, &user, body, "changed").await
        }
        UserCommand::Password { user, password, client } => {
            let asked = Client::from_args(&client)?;
            let password = password.ask_new(&format!("New password for {user}: "))?;
            let body = [("password".to_owned(), password.reveal().into())].into_iter().collect();
            update_user(&asked, &client, &user, body, "set the password of").await
        }
        UserCommand::Delete { user, client } => {
            let asked = Client::from_args(&client)?;
            let path = format!("/api/users/{}", text(&find_user(&asked, &user).await?, "user_id"));
            let answer = change(&asked, Method::DELETE, &path, Map::new()).await?;
            said(&client, &answer, format_args!("deleted the user {user}"))
        }
        UserCommand::Recover { user, password, client } => {
            let asked = Client::of_machine(&client)?;
            let found = find_user(&asked, &user).await?;
            let mut roles = found.get("roles").and_then(Value::as_array).cloned().unwrap_or_default();
            if !roles.contains(&ADMINISTRATOR.into()) {
                roles.push(ADMINISTRATOR.into());
            }
            let password = password.ask_new(&format!("New password for {user}: "))?;
            let body = json!({"active": true, "roles": roles, "password": password.reveal()});
            let body = body.as_object().cloned().unwrap_or_default();
            update_user(&asked, &client, &user, body, "recovered").await
        }
    }
}

pub(super) async fn role(command: RoleCommand) -> Result<(), CliError> {
    match command {
        RoleCommand::List { client } => list(&client, "/api/roles", "roles", &["role_id", "name"]).await,
        RoleCommand::Permissions { client } => {
            list(&client, "/api/permissions", "permissions", &["id", "name", "group", "description"]).await
        }
        RoleCommand::Show { role, client } => {
            let asked = Client::from_args(&client)?;
            let id = ids(&asked, "role", std::slice::from_ref(&role)).await?.remove(0);
            let answer = get(&asked, &format!("/api/roles/{id}")).await?;
            if client.json {
                return print(answer);
            }
            let known = permissions(&asked).await?;
            let allowed = answer.get("permissions").and_then(Value::as_array).into_iter().flatten();
            let named = |id: &Value| known.get(&id.to_string()).cloned().unwrap_or_else(|| id.to_string());
            print(format_args!("{} ({id})", text(&answer, "name")))?;
            allowed.map(named).try_for_each(|name| print(format_args!("  {name}")))
        }
        RoleCommand::Create { name, allowed, client } => {
            let asked = Client::from_args(&client)?;
            let body = role_body(&asked, Some(&name), &allowed).await?;
            let answer = change(&asked, Method::POST, "/api/roles", body).await?;
            said(&client, &answer, format_args!("made the role {name} ({})", text(&answer, "role_id")))
        }
        RoleCommand::Update { role, allowed, client } => {
            let asked = Client::from_args(&client)?;
            let id = ids(&asked, "role", std::slice::from_ref(&role)).await?.remove(0);
            let body = role_body(&asked, None, &allowed).await?;
            let answer = change(&asked, Method::PUT, &format!("/api/roles/{id}"), body).await?;
            said(&client, &answer, format_args!("changed the role {role}"))
        }
        RoleCommand::Delete { role, client } => delete(&client, "role", &role).await,
    }
}

pub(super) async fn group(command: GroupCommand) -> Result<(), CliError> {
    match command {
        GroupCommand::List { client } => list(&client, "/api/groups", "groups", &["group_id", "name"]).await,
        GroupCommand::Create { name, client } => {
            let asked = Client::from_args(&client)?;
            let body = [("name".to_owned(), name.as_str().into())].into_iter().collect();
            let answer = change(&asked, Method::POST, "/api/groups", body).await?;
            said(&client, &answer, format_args!("made the group {name} ({})", text(&answer, "group_id")))
        }
        GroupCommand::Update { group, facts, client } => {
            let asked = Client::from_args(&client)?;
            let id = ids(&asked, "group", std::slice::from_ref(&group)).await?.remove(0);
            let answer = change(&asked, Method::PUT, &format!("/api/groups/{id}"), facts.body()).await?;
            said(&client, &answer, format_args!("changed the group {group}"))
        }
        GroupCommand::Delete { group, client } => delete(&client, "group", &group).await,
    }
}

impl GroupArgs {
    fn body(self) -> Map<String, Value> {
        let members = [
            ("name", self.name.map(Value::from)),
            ("max_spaces", self.max_spaces.map(Value::from)),
            ("compute_units", self.compute_units.map(Value::from)),
            ("storage_units", self.storage_units.map(Value::from)),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

impl UserArgs {
    async fn body(&self, client: &Client) -> Result<Map<String, Value>, CliError> {
        let mut body = Map::new();
        for (name, value) in [("email", &self.email), ("zone", &self.zone)] {
            body.extend(value.as_deref().map(|value| (name.to_owned(), value.into())));
        }
        if !self.roles.is_empty() {
            body.insert("roles".to_owned(), ids(client, "role", &self.roles).await?.into());
        }
        if !self.groups.is_empty() {
            body.insert("groups".to_owned(), ids(client, "group", &self.groups).await?.into());
        }
        Ok(body)
    }
}

async fn list_users(search: Option<String>, args: &ClientArgs) -> Result<(), CliError> {
    let client = Client::from_args(args)?;
    let answer = get(&client, &with_query("/api/users", &[("q", search)])).await?;
    if args.json {
        return print(answer);
    }
    let roles = names(&client, "role").await?;
    let mut shown = table(&["NAME", "E-MAIL", "ACTIVE", "ROLES", "ID"]);
    for user in rows(&answer, "users") {
        let held = user.get("roles").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let held: Vec<_> = held.map(|id| roles.get(id).map_or(id, String::as_str)).collect();
        let held = held.join(", ");
        let active = if user.get("active") == Some(&Value::Bool(true)) { "yes" } else { "no" }.to_owned();
        shown.add_row([text(user, "username"), text(user, "email"), active, held, text(user, "user_id")]);
    }
    print_table(shown)
}

/// Prints a list of the server's as a table.
async fn list(args: &ClientArgs, path: &str, member: &str, columns: &[&str]) -> Result<(), CliError> {
    let answer = get(&Client::from_args(args)?, path).await?;
    if args.json {
        return print(answer);
    }
    let header: Vec<String> =
        columns.iter().map(|name| if name.ends_with("_id") { "ID".to_owned() } else { name.to_uppercase() }).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut shown = table(&header);
    for row in rows(&answer, member) {
        let cells = columns.iter().map(|name| match row.get(*name) {
            Some(Value::Number(found)) => number(found.to_string()),
            _ => text(row, name).into(),
        });
        shown.add_row(cells.collect::<Vec<_>>());
    }
    print_table(shown)
}

async fn delete(args: &ClientArgs, kind: &str, name: &str) -> Result<(), CliError> {
    let client = Client::from_args(args)?;
    let id = ids(&client, kind, &[name.to_owned()]).await?.remove(0);
    let answer = change(&client, Method::DELETE, &format!("/api/{kind}s/{id}"), Map::new()).await?;
    said(args, &answer, format_args!("deleted the {kind} {name}"))
}

async fn update_user(
    client: &Client,
    args: &ClientArgs,
    user: &str,
    body: Map<String, Value>,
    done: &str,
) -> Result<(), CliError> {
    let path = format!("/api/users/{}", text(&find_user(client, user).await?, "user_id"));
    let answer = change(client, Method::PUT, &path, body).await?;
    said(args, &answer, format_args!("{done} the user {user}"))
}

/// The one user of a name, an e-mail address or an id.
async fn find_user(client: &Client, wanted: &str) -> Result<Value, CliError> {
    if wanted.len() == 32 && wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return get(client, &format!("/api/users/{wanted}")).await;
    }
    // Who is called otherwise than they asked for is listed by what they asked for.
    let asked_for = wanted.rsplit_once('~').map_or(wanted, |(name, _)| name);
    let is_meant = |user: &&Value| {
        ["username", "email"].iter().any(|name| text(user, name).to_lowercase() == wanted.to_lowercase())
    };
    let found = match get(client, &format!("/api/users?q={}", encode(asked_for))).await {
        Ok(answer) => rows(&answer, "users").iter().find(is_meant).cloned(),
        // Who may not list users may still ask about themselves.
        Err(refused) => {
            let me = get(client, "/api/users/whoami").await?["user"].take();
            Some(Some(me).filter(|me| is_meant(&me)).ok_or(refused)?)
        }
    };
    found.ok_or_else(|| CliError::Absent(format!("no user is called {wanted}; `knot user list` names them")))
}

/// The ids of roles or groups that are named, or given by id.
async fn ids(client: &Client, kind: &str, wanted: &[String]) -> Result<Vec<String>, CliError> {
    let known = names(client, kind).await?;
    let find = |name: &String| {
        let named = known.iter().find(|(id, called)| *id == name || called.to_lowercase() == name.to_lowercase());
        named.map(|(id, _)| id.clone())
    };
    let absent = |name: &String| CliError::Absent(format!("no {kind} is called {name}; `knot {kind} list` names them"));
    wanted.iter().map(|name| find(name).ok_or_else(|| absent(name))).collect()
}

/// The names of roles or groups by their ids.
async fn names(client: &Client, kind: &str) -> Result<BTreeMap<String, String>, CliError> {
    let answer = get(client, &format!("/api/{kind}s")).await?;
    let id = format!("{kind}_id");
    Ok(rows(&answer, &format!("{kind}s")).iter().map(|row| (text(row, &id), text(row, "name"))).collect())
}

/// The names of permissions by their numbers.
async fn permissions(client: &Client) -> Result<BTreeMap<String, String>, CliError> {
    let answer = get(client, "/api/permissions").await?;
    Ok(rows(&answer, "permissions").iter().map(|row| (text(row, "id"), text(row, "name"))).collect())
}

async fn role_body(client: &Client, name: Option<&str>, allowed: &[String]) -> Result<Map<String, Value>, CliError> {
    let known = permissions(client).await?;
    let number = |wanted: &String| {
        let found = known.iter().find(|(id, name)| *id == wanted || name.to_lowercase() == wanted.to_lowercase());
        found.and_then(|(id, _)| id.parse::<u16>().ok()).map(Value::from).ok_or_else(|| {
            CliError::Absent(format!("no permission is called {wanted}; `knot role permissions` names them"))
        })
    };
    let numbers: Vec<Value> = allowed.iter().map(number).collect::<Result<_, _>>()?;
    let mut body: Map<String, Value> = [("permissions".to_owned(), numbers.into())].into_iter().collect();
    body.extend(name.map(|name| ("name".to_owned(), name.into())));
    Ok(body)
}

pub(super) async fn get(client: &Client, path: &str) -> Result<Value, CliError> {
    Ok(client.ask(Ask::new(Method::GET, path.to_owned())).await?.body)
}

pub(super) async fn change(
    client: &Client,
    method: Method,
    path: &str,
    body: Map<String, Value>,
) -> Result<Value, CliError> {
    let ask = Ask::new(method, path.to_owned()).body("application/json", Value::Object(body).to_string());
    Ok(client.ask(ask).await?.body)
}

/// Prints the server's answer, or what it means.
pub(super) fn said(args: &ClientArgs, answer: &Value, sentence: std::fmt::Arguments<'_>) -> Result<(), CliError> {
    if args.json { print(answer) } else { print(sentence) }
}

pub(super) fn rows<'a>(answer: &'a Value, member: &str) -> &'a [Value] {
    answer.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
