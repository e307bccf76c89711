//! A workload with the commands of one run, as the event loop sees it: without their type.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use knot_engine::documents::{DocumentId, Edit, Scope};
use serde_json::Value;

use super::{Cluster, Done, Draws, Finished, Outcome, Planned, Server, Workload};
use crate::draw::Draw;
use crate::scenario::{Action, Operation, Scenario, Target};

/// What the event loop asks of an application.
pub(crate) trait Application {
    /// The edit of command `id`, on a server where the document is this.
    fn edit(&self, id: u32, document: Option<&Value>) -> Option<Edit>;

    /// Whether the application's promises hold.
    fn check(
        &self,
        outcomes: &dyn Fn(u32) -> Outcome,
        documents: BTreeMap<usize, BTreeMap<DocumentId, Value>>,
    ) -> Result<(), String>;
}

/// A workload and the commands of one run.
pub(crate) struct Bound<W: Workload> {
    workload: Rc<W>,
    commands: Rc<BTreeMap<u32, Planned<W::Command>>>,
}

impl<W: Workload> Clone for Bound<W> {
    fn clone(&self) -> Self {
        Self { workload: Rc::clone(&self.workload), commands: Rc::clone(&self.commands) }
    }
}

impl<W: Workload> Bound<W> {
    /// Has `workload` fill `scenario` with commands in place of the simulator's own operations.
    pub(crate) fn new(workload: Rc<W>, scenario: &mut Scenario) -> Self {
        let cluster = Cluster {
            servers: scenario
                .nodes
                .iter()
                .map(|node| Server { name: node.name.clone(), zone: node.zone.clone() })
                .collect(),
            until: Duration::from_millis(scenario.quiet_at_ms),
        };
        let mut draws = Draws::new(Draw::new(scenario.seed, "application"));
        let mut planned = workload.generate(&mut draws, &cluster);
        planned.retain(|planned| planned.server < cluster.servers.len() && planned.at < cluster.until);
        planned.sort_by_key(|planned| planned.at);
        let commands: BTreeMap<u32, Planned<W::Command>> = (0..).zip(planned).collect();
        scenario.operations = commands
            .iter()
            .map(|(id, planned)| Operation {
                id: *id,
                at_us: u64::try_from(planned.at.as_micros()).unwrap_or(u64::MAX),
                node: planned.server,
                action: Action::Own,
                replicas: 0,
                target: target(&workload.document(&planned.command)),
            })
            .collect();
        Self { workload, commands: Rc::new(commands) }
    }

    /// A command, for people.
    pub(crate) fn describe(&self, id: u32) -> String {
        self.commands.get(&id).map(|planned| format!("{:?}", planned.command)).unwrap_or_default()
    }
}

fn target(document: &DocumentId) -> Target {
    Target {
        zone: match document.scope() {
            Scope::Zone(zone) => Some(zone.to_string()),
            Scope::Global => None,
        },
        collection: document.collection().to_owned(),
        key: document.key().to_owned(),
    }
}

impl<W: Workload> Application for Bound<W> {
    fn edit(&self, id: u32, document: Option<&Value>) -> Option<Edit> {
        self.workload.apply(&self.commands.get(&id)?.command, document)
    }

    fn check(
        &self,
        outcomes: &dyn Fn(u32) -> Outcome,
        documents: BTreeMap<usize, BTreeMap<DocumentId, Value>>,
    ) -> Result<(), String> {
        let done =
            |(id, planned): (&u32, &Planned<W::Command>)| Done { planned: planned.clone(), outcome: outcomes(*id) };
        let commands = self.commands.iter().map(done).collect();
        self.workload.check(&Finished { commands, documents })
    }
}
