//! The servers that spaces may run on, as this one sees them now.

use std::collections::BTreeMap;

use knot_engine::membership::Status;

use super::placement::{Candidate, Unplaceable, loads};
use super::record::{Server, Shown, shown};
use super::{Facts, Spaces};
use crate::accounts::Directory;
use crate::handle::{ServerEngine, Stopped};
use crate::templates::Platform;

/// One server.
#[derive(Clone, Debug)]
pub struct Member {
    /// What people call it.
    pub name: String,
    /// The zone it is in.
    pub zone: String,
    /// Where its API is; empty if it does not say.
    pub url: String,
    /// Whether it answers.
    pub server: Server,
}

/// All of them, by id. Those that are shut out are not among them.
#[derive(Clone, Debug, Default)]
pub struct Servers(BTreeMap<String, Member>);

impl Servers {
    /// One of them.
    #[must_use]
    pub fn get(&self, node_id: &str) -> Option<&Member> {
        self.0.get(node_id)
    }

    /// How the server is that a space was placed on.
    #[must_use]
    pub fn state(&self, node_id: &str) -> Server {
        self.get(node_id).map_or(Server::Unknown, |member| member.server)
    }

    /// What people call a server; its id where nobody knows.
    #[must_use]
    pub fn name<'a>(&'a self, node_id: &'a str) -> &'a str {
        self.get(node_id).map_or(node_id, |member| &member.name)
    }

    /// The same refusal with names for ids.
    #[must_use]
    pub fn named(&self, mut error: Unplaceable) -> Unplaceable {
        if let Unplaceable::NotThisOne(server, _) = &mut error {
            *server = self.name(server).to_owned();
        }
        error
    }

    /// The APIs of those in a zone that answer.
    #[must_use]
    pub fn urls_in(&self, zone: &str) -> Vec<String> {
        let there = self.0.values().filter(|member| member.zone == zone && member.server == Server::Alive);
        there.filter(|member| !member.url.is_empty()).map(|member| member.url.clone()).collect()
    }

    /// The zones there are.
    #[must_use]
    pub fn zones(&self) -> std::collections::BTreeSet<String> {
        self.0.values().map(|member| member.zone.clone()).collect()
    }
}

/// A server as a place for spaces, and what else it says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// What people call it.
    pub name: String,
    /// The zone it is in.
    pub zone: String,
    /// Whether it answers.
    pub is_alive: bool,
    /// What it says of itself; nothing if it has not yet.
    pub facts: Option<Facts>,
    /// How many spaces it runs, as far as is known here.
    pub running: usize,
    /// How many are placed on it.
    pub placed: usize,
}

impl Spaces {
    /// All servers as places for spaces, by id.
    ///
    /// # Errors
    /// When this one stops.
    pub async fn places(&self) -> Result<BTreeMap<String, Place>, Stopped> {
        let servers = self.servers().await?;
        let directory = self.accounts.directory();
        let known = directory.spaces();
        let place = |(node_id, member): (&String, &Member)| {
            let is_me = *node_id == self.node_id;
            let facts = if is_me { self.own_facts() } else { known.server(node_id).cloned() };
            let is_alive = member.server == Server::Alive;
            let (name, zone) = (member.name.clone(), member.zone.clone());
            (node_id.clone(), Place { name, zone, is_alive, facts, ..Place::default() })
        };
        let mut places: BTreeMap<String, Place> = servers.0.iter().map(place).collect();
        for record in known.records().values() {
            let Some(place) = places.get_mut(&record.node_id) else { continue };
            let shown = shown(record, known.report(record), servers.state(&record.node_id));
            place.running += usize::from(shown == Shown::Running);
            place.placed += usize::from(shown != Shown::Removed);
        }
        Ok(places)
    }

    /// The servers as they are now.
    ///
    /// # Errors
    /// When this one stops.
    pub async fn servers(&self) -> Result<Servers, Stopped> {
        let wall = (self.wall)();
        let look = move |engine: &mut ServerEngine, now| {
            let members = engine.members().filter(|member| !engine.evicted().contains(&member.record.node));
            let seen = members.map(|member| {
                let since = now_before(wall.0, knot_engine::Instant::since(now, member.since));
                let server = match member.status {
                    Status::Alive | Status::Suspect => Server::Alive,
                    Status::Failed | Status::Left => Server::Silent(since),
                };
                let record = &member.record;
                let (name, zone, url) = (record.name.clone(), record.zone.clone(), record.url.clone());
                (record.node.to_string(), Member { name, zone, url, server })
            });
            Servers(seen.collect())
        };
        self.accounts.handle().look(look).await
    }

    /// The servers as places for a space, whose own weight does not count. What others have to run it on they have said
    /// themselves.
    #[must_use]
    pub(super) fn candidates(&self, directory: &Directory, servers: &Servers, space_id: &str) -> Vec<Candidate> {
        let units = |template: &str| directory.template(template).map_or(0, |template| template.compute_units);
        let others = directory.spaces().records().values().filter(|record| record.id != space_id);
        let mut loads = loads(others, units);
        let candidate = |(node_id, member): (&String, &Member)| Candidate {
            node_id: node_id.clone(),
            name: member.name.clone(),
            zone: member.zone.clone(),
            is_alive: member.server == Server::Alive,
            runtime: self.runtime_of(directory, node_id),
            load: loads.remove(node_id.as_str()).unwrap_or_default(),
        };
        servers.0.iter().map(candidate).collect()
    }

    fn runtime_of(&self, directory: &Directory, node_id: &str) -> Option<Platform> {
        if *node_id == self.node_id {
            return self.hosting.borrow().platform();
        }
        directory.spaces().server(node_id).and_then(Facts::platform)
    }
}

fn now_before(now: i64, elapsed: std::time::Duration) -> i64 {
    now.saturating_sub(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}
