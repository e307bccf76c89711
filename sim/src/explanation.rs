//! A scenario as a person would tell it.

use serde::Serialize;

use crate::checker::settle_bound;
use crate::network::Links;
use crate::scenario::{Action, Scenario, words};

/// What a scenario is, in words and a few numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Its zones, in order.
    pub zones: Vec<Zone>,
    /// One way between zones, in milliseconds, without jitter: from the zone of the row to that of the column.
    pub latencies_ms: Vec<Vec<f64>>,
    /// What the network and the disks are like.
    pub conditions: Vec<String>,
    /// What clients do.
    pub clients: Vec<String>,
    /// What happens, in the order of time.
    pub events: Vec<Event>,
    /// What must hold.
    pub promises: Vec<String>,
}

/// A zone.
#[derive(Clone, Debug, Serialize)]
pub struct Zone {
    /// Its name.
    pub zone: String,
    /// Its servers.
    pub servers: Vec<String>,
}

/// Something that goes wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// For how long, in milliseconds; none for ever.
    pub for_ms: Option<u64>,
    /// What.
    pub text: String,
}

impl Explanation {
    /// Explains a scenario.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        let mut events = late_starts(scenario);
        events.extend(scenario.faults.iter().map(|fault| Event {
            at_ms: fault.at_ms,
            for_ms: fault.for_ms,
            text: words::fault(fault, &scenario.nodes),
        }));
        events.sort_by_key(|event| event.at_ms);
        Self {
            zones: zones(scenario),
            latencies_ms: latencies(scenario),
            conditions: conditions(scenario),
            clients: clients(scenario),
            events,
            promises: promises(scenario),
        }
    }
}

fn zones(scenario: &Scenario) -> Vec<Zone> {
    let servers = |zone: &str| {
        let of_zone = scenario.nodes.iter().filter(|node| node.zone == zone);
        of_zone.map(|node| node.name.clone()).collect()
    };
    scenario.zones().into_iter().map(|zone| Zone { zone: zone.to_owned(), servers: servers(zone) }).collect()
}

fn latencies(scenario: &Scenario) -> Vec<Vec<f64>> {
    let links = Links::new(scenario.seed, &scenario.network, &scenario.nodes);
    // The first and the last server of a zone: they differ where a zone has two, and a zone of one has no way within.
    let of_zone = |zone: &str| {
        let first = scenario.nodes.iter().position(|node| node.zone == zone);
        first.zip(scenario.nodes.iter().rposition(|node| node.zone == zone))
    };
    let ends: Vec<(usize, usize)> = scenario.zones().into_iter().filter_map(of_zone).collect();
    let millis = |from: usize, to: usize| links.base_latency(from, to).as_secs_f64() * 1e3;
    ends.iter().map(|(from, _)| ends.iter().map(|(_, to)| millis(*from, *to)).collect()).collect()
}

fn conditions(scenario: &Scenario) -> Vec<String> {
    let network = &scenario.network;
    let mut conditions = vec![format!("Each packet takes up to {} % longer than that.", network.jitter_percent)];
    for (per_mille, what) in [
        (network.loss_per_mille, "are lost"),
        (network.duplicate_per_mille, "arrive twice"),
        (network.reorder_per_mille, "are overtaken"),
    ] {
        if per_mille > 0 {
            conditions.push(format!("All along, {} of datagrams {what}.", words::percent(per_mille)));
        }
    }
    let [least, most] = [scenario.disk.commit_min_us, scenario.disk.commit_max_us].map(micros);
    conditions.push(format!("A commit to disk takes {least} to {most}."));
    for node in &scenario.nodes {
        if node.clock_offset_s != 0 {
            conditions.push(format!("The wall clock of {} is off by {} s.", node.name, node.clock_offset_s));
        }
        if node.clock_drift_ppm != 0 {
            conditions.push(format!("The clock of {} gains {} millionths.", node.name, node.clock_drift_ppm));
        }
        if node.later_version {
            conditions.push(format!("{} runs a later version, and says things nobody else knows of.", node.name));
        }
        if node.hostile {
            conditions.push(format!("{} is hostile: it sends changes that no server makes.", node.name));
        }
    }
    conditions
}

fn micros(micros: u64) -> String {
    if micros < 1_000 { format!("{micros} us") } else { words::millis(micros / 1_000) }
}

fn clients(scenario: &Scenario) -> Vec<String> {
    let scenario = scenario.clone().expanded();
    let operations = &scenario.operations;
    let Some((first, last)) = operations.first().zip(operations.last()) else {
        return vec!["Nobody asks for anything.".to_owned()];
    };
    let reads = operations.iter().filter(|operation| operation.action == Action::Read).count();
    let zoned = operations.iter().filter(|operation| operation.target.zone.is_some()).count();
    let waiting = operations.iter().filter(|operation| operation.replicas > 0).count();
    let documents: std::collections::BTreeSet<_> = operations.iter().map(|operation| &operation.target).collect();
    let mut sentences = vec![format!(
        "Between {} and {} clients make {} writes and {reads} reads of {} documents.",
        micros(first.at_us),
        micros(last.at_us),
        operations.len() - reads,
        documents.len()
    )];
    if zoned > 0 {
        sentences.push(format!("{zoned} of these are about documents that live in one zone only."));
    }
    if waiting > 0 {
        sentences.push(format!("{waiting} writes wait until other servers hold them too."));
    }
    sentences
}

fn late_starts(scenario: &Scenario) -> Vec<Event> {
    let late = scenario.nodes.iter().filter(|node| node.start_at_ms > 1_000);
    late.map(|node| Event {
        at_ms: node.start_at_ms,
        for_ms: None,
        text: format!("{} starts for the first time", node.name),
    })
    .collect()
}

fn promises(scenario: &Scenario) -> Vec<String> {
    let bound = settle_bound(scenario.nodes.len()).as_secs();
    let quiet = words::millis(scenario.quiet_at_ms);
    let healed = match scenario.core.as_slice() {
        [] => "nothing goes wrong and nobody writes".to_owned(),
        core => {
            let names = core.iter().filter_map(|node| scenario.nodes.get(*node)).map(|node| node.name.as_str());
            let names: Vec<&str> = names.collect();
            format!(
                "nobody writes, and nothing goes wrong with {}, while the others stay as they are",
                names.join(", ")
            )
        }
    };
    vec![
        "All along: no write is acknowledged or sent before it is durable, none is lost once it is acknowledged, no \
         document leaves its zone, no value appears that nobody wrote, no healthy server that can be reached is declared \
         failed, every queue stays under its limit."
            .to_owned(),
        format!(
            "From {quiet} on {healed}. Within {bound} s each of these servers must see all that live \
             and no other, and all must hold the same documents, each with every acknowledged write in its history."
        ),
        "Then the cluster must fall silent but for its probes.".to_owned(),
    ]
}
