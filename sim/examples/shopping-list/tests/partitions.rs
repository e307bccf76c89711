//! The list, on clusters that fall apart, crash and lose power: what was added and not crossed off is on it.

use std::collections::BTreeSet;
use std::time::Duration;

use knot_engine::documents::{DocumentId, Edit};
use knot_sim::application::{Cluster, Draws, Finished, Outcome, Planned, Workload, rehearse};
use serde_json::Value;
use shopping_list::{Change, document, edit, edit_as_array, items};

const ITEMS: [&str; 8] = ["milk", "bread", "eggs", "rice", "tea", "soap", "figs", "oats"];
const HOUSEHOLD: &str = "baker-street-221b";

/// A household in which everybody shops, with the edits of one version of the application.
struct Household {
    edit: fn(&Change, Option<&Value>) -> Option<Edit>,
    items: fn(Option<&Value>) -> Vec<String>,
}

impl Workload for Household {
    type Command = Change;

    fn generate(&self, draws: &mut Draws, cluster: &Cluster) -> Vec<Planned<Change>> {
        let until = u64::try_from(cluster.until.as_millis()).unwrap_or(u64::MAX);
        (0..draws.between(20, 60))
            .map(|_| {
                let item = (*draws.pick(&ITEMS)).to_owned();
                let server = draws.between(0, cluster.servers.len() as u64);
                Planned {
                    at: Duration::from_millis(draws.between(1_000, until)),
                    server: usize::try_from(server).expect("few servers"),
                    command: if draws.percent(25) { Change::CrossOff(item) } else { Change::Add(item) },
                }
            })
            .collect()
    }

    fn document(&self, _: &Change) -> DocumentId {
        document(HOUSEHOLD)
    }

    fn apply(&self, change: &Change, list: Option<&Value>) -> Option<Edit> {
        (self.edit)(change, list)
    }

    fn check(&self, finished: &Finished<Change>) -> Result<(), String> {
        let listed: BTreeSet<String> = (self.items)(finished.document(&document(HOUSEHOLD))).into_iter().collect();
        for item in ITEMS {
            let asked = |wanted: &Change, outcomes: &[Outcome]| {
                let matching = finished.commands.iter().filter(|done| done.planned.command == *wanted);
                matching.filter(|done| outcomes.contains(&done.outcome)).count() > 0
            };
            let added = asked(&Change::Add(item.to_owned()), &[Outcome::Acknowledged]);
            let maybe_crossed_off =
                asked(&Change::CrossOff(item.to_owned()), &[Outcome::Acknowledged, Outcome::Unknown]);
            if added && !maybe_crossed_off && !listed.contains(item) {
                return Err(format!("somebody added {item}, nobody crossed it off, and it is not on the list"));
            }
            let maybe_added = asked(&Change::Add(item.to_owned()), &[Outcome::Acknowledged, Outcome::Unknown]);
            if listed.contains(item) && !maybe_added {
                return Err(format!("{item} is on the list, and nobody added it"));
            }
        }
        Ok(())
    }
}

#[test]
fn what_is_needed_stays_on_the_list() {
    rehearse(Household { edit, items }).seeds(0..60).servers(3..=5).run();
}

/// The rehearsal would have found the mistake of the first draft.
#[test]
fn a_list_that_is_one_array_forgets_what_somebody_added() {
    let as_array = |list: Option<&Value>| {
        let items = list.and_then(|list| list["items"].as_array());
        items.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let rehearsal = rehearse(Household { edit: edit_as_array, items: as_array }).servers(3..=5);
    let failure = (0..60).find_map(|seed| rehearsal.failure(seed, false)).expect("it is found");
    assert!(failure.contains("is not on the list"), "{failure}");
    assert!(failure.contains("The least that does, of "), "{failure}");
    println!("{failure}");
}
