//! What holds of several servers at once, and waiting until it does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Client, Server, Setup, wait_for};

/// How long servers that are up may take to find each other.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a write may take to be everywhere when nothing is broken.
pub const SPREAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after faults have stopped all servers may take to hold the same.
pub const HEAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Documents asked for at once.
const PAGE: usize = 1_000;

/// Starts servers at once and waits until each lists all as alive.
pub fn start(setups: Vec<Setup>) -> Vec<Server> {
    let mut servers: Vec<Server> = setups.into_iter().map(Server::prepare).collect();
    servers.iter_mut().for_each(Server::spawn);
    servers.iter_mut().for_each(Server::wait_until_ready);
    wait_until_alive(&servers);
    servers
}

/// Waits until each of these servers lists each of them as alive.
pub fn wait_until_alive<'a>(servers: impl IntoIterator<Item = &'a Server>) {
    let servers: Vec<&Server> = servers.into_iter().collect();
    for server in &servers {
        for other in &servers {
            wait_for_status(server, &other.setup.name, "alive", JOIN_TIMEOUT);
        }
    }
}

/// Waits until `server` lists `name` with a status, and says how long that took.
pub fn wait_for_status(server: &Server, name: &str, status: &str, timeout: Duration) -> Duration {
    let (client, started) = (server.client(), Instant::now());
    let what = format!("{} lists {name} as {status}", server.setup.name);
    wait_for(&what, timeout, || (statuses(&client)?.get(name)? == status).then_some(()));
    started.elapsed()
}

/// The member list's statuses by name; none where the server does not answer.
pub fn statuses(client: &Client) -> Option<BTreeMap<String, String>> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Some(members(client)?.iter().map(|member| (text(&member["name"]), text(&member["status"]))).collect())
}

/// The member list's rows; none where the server does not answer.
pub fn members(client: &Client) -> Option<Vec<Value>> {
    let list = try_json(client, "/api/cluster")?;
    Some(list["data"].as_array().unwrap().clone())
}

/// The row of one member; none where it is not listed.
pub fn member(client: &Client, name: &str) -> Option<Value> {
    members(client)?.into_iter().find(|member| member["name"] == name)
}

/// What a server says of each scope it holds, by the scope's name.
pub fn scopes(client: &Client) -> Option<BTreeMap<String, Value>> {
    let status = try_json(client, "/api/cluster/status")?;
    let scopes = status["scopes"].as_array().unwrap().iter();
    Some(scopes.map(|scope| (scope["scope"].as_str().unwrap().to_owned(), scope.clone())).collect())
}

/// Waits until all that hold a scope say the same of it: equal roots mean equal data. Says how long that took.
pub fn wait_until_equal<'a>(servers: impl IntoIterator<Item = &'a Server>, timeout: Duration) -> Duration {
    let clients: Vec<Client> = servers.into_iter().map(Server::client).collect();
    let (started, mut last) = (Instant::now(), Vec::new());
    loop {
        let said: Option<Vec<_>> = clients.iter().map(scopes).collect();
        last = said.unwrap_or(last);
        if !last.is_empty() && are_equal(&last) {
            return started.elapsed();
        }
        assert!(started.elapsed() < timeout, "not equal within {timeout:?}: {last:#?}");
        std::thread::sleep(super::POLL);
    }
}

fn are_equal(said: &[BTreeMap<String, Value>]) -> bool {
    let mut seen: BTreeMap<&str, &Value> = BTreeMap::new();
    said.iter().all(|scopes| {
        assert!(scopes.contains_key("global"), "every server holds the global scope: {scopes:?}");
        scopes.iter().all(|(name, scope)| seen.insert(name, scope).is_none_or(|other| other == scope))
    })
}

/// Waits until each server answers a GET of `path` with `value`.
pub fn wait_until_reads<'a>(servers: impl IntoIterator<Item = &'a Server>, path: &str, value: &Value) {
    for server in servers {
        let client = server.client();
        wait_for(&format!("{} reads {path} as {value}", server.setup.name), SPREAD_TIMEOUT, || {
            let reply = client.get(path);
            (reply.status == 200 && reply.json() == *value).then_some(())
        });
    }
}

/// Waits until each server answers a GET of `path` with `status`.
pub fn wait_until_answers<'a>(servers: impl IntoIterator<Item = &'a Server>, path: &str, status: u16) {
    for server in servers {
        let client = server.client();
        let what = format!("{} answers {path} with {status}", server.setup.name);
        wait_for(&what, SPREAD_TIMEOUT, || (client.get(path).status == status).then_some(()));
    }
}

/// Every document of a collection, by key.
pub fn documents(client: &Client, collection: &str) -> BTreeMap<String, Value> {
    let (mut found, mut after) = (BTreeMap::new(), String::new());
    loop {
        let page = client.get(&format!("/api/documents/{collection}?limit={PAGE}{after}")).expect(200).json();
        for entry in page["data"].as_array().unwrap() {
            found.insert(entry["key"].as_str().unwrap().to_owned(), entry["value"].clone());
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return found,
        }
    }
}

fn try_json(client: &Client, path: &str) -> Option<Value> {
    let reply = client.try_request("GET", path, &[], None).ok()?;
    (reply.status == 200).then(|| reply.json())
}
