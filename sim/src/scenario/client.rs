//! Clients that ask at intervals, so that a scenario written by hand need not list every request.

use serde::{Deserialize, Serialize};

use super::{Action, Operation, Scenario, Target};
use crate::draw::Draw;

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSpec {
    /// The servers it asks, one at random each time; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<usize>,
    /// When it begins, in milliseconds.
    #[serde(default)]
    pub from_ms: u64,
    /// When it ends, in milliseconds; none for when all is quiet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Between two requests, in milliseconds, half more or less at random.
    pub every_ms: u64,
    /// What it asks for, one at random each time.
    #[serde(default = "usual_actions")]
    pub actions: Vec<Action>,
    /// The zone that alone holds its documents; none for global ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The collection of its documents.
    #[serde(default = "usual_collection")]
    pub collection: String,
    /// How many documents it asks about.
    #[serde(default = "usual_keys")]
    pub keys: u64,
    /// How many peers must hold each write before the answer.
    #[serde(default)]
    pub replicas: usize,
}

fn usual_actions() -> Vec<Action> {
    vec![Action::Put, Action::Merge, Action::Read]
}

fn usual_collection() -> String {
    "users".to_owned()
}

const fn usual_keys() -> u64 {
    10
}

impl Scenario {
    /// The scenario with all that its clients ask for among its operations, and no clients.
    #[must_use]
    pub fn expanded(mut self) -> Self {
        for (index, client) in std::mem::take(&mut self.clients).into_iter().enumerate() {
            let free = self.operations.iter().map(|operation| operation.id + 1).max().unwrap_or_default();
            let draw = Draw::new(self.seed, &format!("client {index}"));
            let operations = client.operations(draw, self.nodes.len(), self.quiet_at_ms, free);
            self.operations.extend(operations);
        }
        self.operations.sort_by_key(|operation| operation.at_us);
        self
    }
}

impl ClientSpec {
    fn operations(&self, mut draw: Draw, count: usize, quiet_at_ms: u64, first_id: u32) -> Vec<Operation> {
        let all: Vec<usize> = (0..count).collect();
        let nodes = if self.nodes.is_empty() { &all } else { &self.nodes };
        let until_us = self.until_ms.unwrap_or(quiet_at_ms) * 1_000;
        let gap_us = self.every_ms * 1_000;
        let mut at_us = self.from_ms * 1_000;
        let mut operations = Vec::new();
        for id in first_id.. {
            at_us += draw.between(gap_us / 2, gap_us + gap_us / 2 + 1);
            if at_us >= until_us {
                break;
            }
            let key = format!("k{}", draw.between(0, self.keys.max(1)));
            operations.push(Operation {
                id,
                at_us,
                node: *draw.pick(nodes),
                action: *draw.pick(&self.actions),
                replicas: self.replicas,
                target: Target { zone: self.zone.clone(), collection: self.collection.clone(), key },
            });
        }
        operations
    }
}
