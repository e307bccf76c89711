//! What stands in for container runtimes: the containers of every machine, which outlive processes, and what people asked
//! for, which is all that may run.

use std::collections::{BTreeMap, BTreeSet};

use knot_server::spaces::agent::{Container, Here, Seen};
use knot_server::spaces::runtime::RuntimeError;

/// All machines.
#[derive(Debug, Default)]
pub(crate) struct Yard {
    machines: BTreeMap<usize, Machine>,
    /// By space and server: somebody has asked that it be started there.
    asked: BTreeSet<(String, usize)>,
    /// Starts whose container somebody has removed after the server had said that it runs.
    removed: BTreeSet<(String, usize, u64)>,
    /// Spaces that a server has said are deleted.
    deleted: BTreeSet<(String, usize)>,
    made: u64,
}

#[derive(Debug, Default)]
struct Machine {
    containers: Vec<Seen>,
    volumes: BTreeSet<String>,
}

/// What is wrong with a start, and whether a server may be forgiven whose disk has lost something.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) says: String,
    pub(crate) is_never_excused: bool,
}

impl Yard {
    /// Somebody asks that a space be started there.
    pub(super) fn ask(&mut self, space_id: &str, node: usize) {
        self.asked.insert((space_id.to_owned(), node));
    }

    /// A server has said that a space is deleted.
    pub(super) fn delete(&mut self, space_id: &str, node: usize) {
        self.deleted.insert((space_id.to_owned(), node));
    }

    /// Somebody removes what runs of a space, behind the server's back.
    pub(super) fn remove_behind(&mut self, space_id: &str, node: usize, generation: u64) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let before = machine.containers.len();
        machine.containers.retain(|seen| seen.space_id != space_id || seen.generation != generation);
        if machine.containers.len() < before {
            self.removed.insert((space_id.to_owned(), node, generation));
        }
    }

    /// The generations of a space that run on a machine.
    pub(super) fn running(&self, node: usize, space_id: &str) -> Vec<u64> {
        let seen = self.machines.get(&node).into_iter().flat_map(|machine| &machine.containers);
        let runs = seen.filter(|seen| seen.space_id == space_id && seen.state == Container::Running);
        runs.map(|seen| seen.generation).collect()
    }

    /// Whether a machine holds anything of a space.
    pub(super) fn has(&self, node: usize, space_id: &str) -> bool {
        self.machines.get(&node).is_some_and(|machine| {
            machine.volumes.contains(space_id) || machine.containers.iter().any(|seen| seen.space_id == space_id)
        })
    }

    /// A machine loses power: nothing runs any more.
    pub(crate) fn power_lost(&mut self, node: usize) {
        const KILLED: i64 = 137;
        let seen = self.machines.get_mut(&node).into_iter().flat_map(|machine| &mut machine.containers);
        seen.filter(|seen| seen.state == Container::Running).for_each(|seen| seen.state = Container::Exited(KILLED));
    }

    /// Another machine takes the name.
    pub(crate) fn replace(&mut self, node: usize) {
        self.machines.remove(&node);
        self.removed.retain(|(_, at, _)| *at != node);
        self.deleted.retain(|(_, at)| *at != node);
    }

    pub(crate) fn list(&self, node: usize) -> Here {
        let machine = self.machines.get(&node);
        Here {
            containers: machine.map(|machine| machine.containers.clone()).unwrap_or_default(),
            kept: machine.map(|machine| machine.volumes.clone()).unwrap_or_default(),
        }
    }

    /// A program ends by itself.
    pub(crate) fn end(&mut self, node: usize, at: usize, status: i64) {
        let running = self.machines.get_mut(&node).into_iter().flat_map(|machine| &mut machine.containers);
        let running: Vec<&mut Seen> = running.filter(|seen| seen.state == Container::Running).collect();
        let count = running.len();
        if let Some(seen) = running.into_iter().nth(at % count.max(1)) {
            seen.state = Container::Exited(status);
        }
    }

    /// Starts a space as a runtime does; also says what is wrong with that it is asked to.
    pub(crate) fn start(
        &mut self,
        node: usize,
        space_id: &str,
        generation: u64,
        now_ms: i64,
    ) -> (Result<String, RuntimeError>, Option<Wrong>) {
        let place = (space_id.to_owned(), node);
        let wrong = self.judge(&place, generation);
        let machine = self.machines.entry(node).or_default();
        let newest =
            machine.containers.iter().filter(|seen| seen.space_id == space_id).map(|seen| seen.generation).max();
        if let Some(here) = newest.filter(|newest| *newest > generation) {
            let space = space_id.to_owned();
            return (Err(RuntimeError::Newer { space, asked: generation, here }), wrong);
        }
        machine.volumes.insert(space_id.to_owned());
        machine.containers.retain(|seen| seen.space_id != space_id || seen.generation == generation);
        if let Some(seen) = machine.containers.iter_mut().find(|seen| seen.space_id == space_id) {
            seen.state = Container::Running;
            return (Ok(seen.container_id.clone()), wrong);
        }
        self.made += 1;
        let container_id = format!("c{}", self.made);
        let state = Container::Running;
        let (space_id, made) = (space_id.to_owned(), container_id.clone());
        machine.containers.push(Seen { space_id, generation, container_id, state, started_at: now_ms });
        (Ok(made), wrong)
    }

    /// What is wrong with a start.
    fn judge(&self, place: &(String, usize), generation: u64) -> Option<Wrong> {
        let (space_id, node) = place;
        if !self.asked.contains(place) {
            let says = format!("runs the space {space_id}, which nobody has asked it to");
            return Some(Wrong { says, is_never_excused: true });
        }
        let says = if self.removed.contains(&(space_id.clone(), *node, generation)) {
            format!("makes the container of start {generation} of space {space_id} again, which it said ran")
        } else if self.deleted.contains(place) {
            format!("runs the space {space_id}, which it has said is deleted")
        } else {
            return None;
        };
        Some(Wrong { says, is_never_excused: false })
    }

    pub(crate) fn stop(&mut self, node: usize, space_id: &str) {
        let seen = self.machines.get_mut(&node).into_iter().flat_map(|machine| &mut machine.containers);
        let runs = seen.filter(|seen| seen.space_id == space_id && seen.state == Container::Running);
        runs.for_each(|seen| seen.state = Container::Exited(0));
    }

    pub(crate) fn remove(&mut self, node: usize, space_id: &str, with_volumes: bool) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        machine.containers.retain(|seen| seen.space_id != space_id);
        if with_volumes {
            machine.volumes.remove(space_id);
        }
    }
}
