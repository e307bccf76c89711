//! A short campaign on an engine that somebody has changed: `just mutants`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use knot_sim::campaign::{self, Campaign, Runs, Summary};
use knot_sim::costs::Costs;
#[cfg(feature = "l2")]
use knot_sim::level::Level;
use knot_sim::library::{self, LIBRARY};
use knot_sim::pipes;
use knot_sim::scenario::{DocumentKind, Length, Scenario, Shape};

/// With this set the bounds of all costs are measured, and written to their file.
const MEASURE: &str = "KNOT_MEASURE_COSTS";
/// With this set the costs of another group of seeds are looked at: none may be too dear, or the bounds are too tight.
const OTHERS: &str = "KNOT_COSTS_OF_GROUP";
/// Groups of seeds that bounds are measured with, and the first of them, of which costs are looked at.
const GROUPS: u64 = 12;
/// Of so many that no one group has, each may have a few.
const RARE_MOST: u64 = 5;
const RARE_AMOUNT_MOST: u64 = 400;

/// What each cost may be, by course.
type Bounds = BTreeMap<String, BTreeMap<String, u64>>;

fn run(campaign: &Campaign) -> Summary {
    let summary = campaign::run(campaign, &()).expect("neither engines nor servers ask anything of the machine");
    let failures: Vec<_> = summary.failures.iter().map(|report| (report.seed, &report.violations)).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    summary
}

fn tiny() -> Shape {
    Shape { length: Some(Length::Tiny), ..Shape::default() }
}

fn of(scenario: Scenario, seeds: u64) -> Campaign {
    Campaign { runs: Runs::Of(Box::new(scenario)), ..Campaign::new(0..seeds, Shape::default()) }
}

/// Runs that are looked at together, and how many seeds a group of them has. What takes least comes first.
fn courses() -> Vec<(&'static str, Campaign)> {
    let automerge = Shape { document: DocumentKind::Automerge, ..tiny() };
    let mut courses =
        vec![("tiny", Campaign::new(0..96, tiny())), ("tiny with automerge", Campaign::new(0..48, automerge))];
    let mut sizes = BTreeMap::new();
    for named in LIBRARY {
        let scenario = named.scenario().expect("what is in the library is a scenario");
        let seeds = if scenario.nodes.len() > 12 { 1 } else { 3 };
        sizes.insert(named.name, scenario.nodes.len());
        courses.push((named.name, of(scenario, seeds)));
    }
    courses.sort_by_key(|(course, _)| sizes.get(course).copied());
    courses
}

/// The same course with other seeds.
fn group(campaign: &Campaign, number: u64) -> Campaign {
    let length = campaign.seeds.end - campaign.seeds.start;
    let start = number * length;
    Campaign { seeds: start..start + length, ..campaign.clone() }
}

fn rare(name: &str) -> u64 {
    let is_count = !["bytes", "held", "most", "milli", "micro"].iter().any(|unit| name.starts_with(unit));
    if is_count { RARE_MOST } else { RARE_AMOUNT_MOST }
}

fn bounds_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/costs.txt")
}

/// What each cost of a course may be: as much as in the dearest group, and what it may still be dearer by chance.
fn measured(campaign: &Campaign) -> BTreeMap<String, u64> {
    let groups: Vec<Costs> = (0..GROUPS).map(|number| run(&group(campaign, number)).counts.costs).collect();
    let names: BTreeSet<&str> = groups.iter().flat_map(Costs::iter).map(|(name, _)| name).collect();
    let bound = |name: &str| {
        let costs: Vec<u64> = groups.iter().map(|costs| costs.of(name)).collect();
        let (least, most) = (costs.iter().min().unwrap_or(&0), costs.iter().max().unwrap_or(&0));
        most + (most - least) + most / 20 + rare(name)
    };
    names.into_iter().map(|name| (name.to_owned(), bound(name))).collect()
}

/// Measures the courses that are named, or all that have bounds, and writes down what they may cost.
fn measure(names: &str) {
    let known = bounds();
    let named = |course: &str| {
        if names == "all" { known.contains_key(course) } else { names.split(',').any(|name| name == course) }
    };
    for (course, campaign) in courses().into_iter().filter(|(course, _)| named(course)) {
        let new = measured(&campaign);
        let mut bounds = bounds();
        bounds.insert(course.to_owned(), new);
        write(&bounds);
    }
}

fn write(bounds: &Bounds) {
    let mut text = "# What runs of each course cost together at most. KNOT_MEASURE_COSTS=all measures it.\n".to_owned();
    for (course, costs) in bounds {
        text.push_str(&format!("[{course}]\n"));
        for (name, most) in costs {
            text.push_str(&format!("{name} = {most}\n"));
        }
    }
    std::fs::write(bounds_file(), text).expect("the file of bounds can be written");
}

fn bounds() -> Bounds {
    let text = std::fs::read_to_string(bounds_file()).expect("the file of bounds is there");
    let mut bounds: Bounds = BTreeMap::new();
    let mut course = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut course);
        } else if let Some((name, most)) = line.rsplit_once(" = ") {
            let most = most.parse().expect("a cost is a number");
            bounds.entry(course.clone()).or_default().insert(name.to_owned(), most);
        }
    }
    bounds
}

/// What a course costs too much, in words.
fn too_dear(course: &str, costs: &Costs, bounds: &Bounds) -> Vec<String> {
    let Some(bounds) = bounds.get(course) else { return Vec::new() };
    let most = |name: &str| bounds.get(name).copied().unwrap_or_else(|| rare(name));
    let dear = costs.iter().filter(|(name, cost)| *cost > most(name));
    dear.map(|(name, cost)| format!("{course}: {name}: {cost}, and at most {}", most(name))).collect()
}

#[test]
fn the_engine_keeps_its_promises() {
    if let Ok(names) = std::env::var(MEASURE) {
        measure(&names);
        return;
    }
    if let Some(number) = std::env::var(OTHERS).ok().and_then(|number| number.parse().ok()) {
        let bounds = bounds();
        let costs = |campaign: &Campaign| run(&group(campaign, number)).counts.costs;
        let bounded = courses().into_iter().filter(|(course, _)| bounds.contains_key(*course));
        let dear: Vec<_> = bounded.flat_map(|(course, of)| too_dear(course, &costs(&of), &bounds)).collect();
        assert!(dear.is_empty(), "{dear:#?}");
        return;
    }
    // What takes least to notice a change comes first.
    for seed in 0..20 {
        assert_eq!(pipes::run(seed), Ok(()), "seed {seed}");
    }
    run(&Campaign::new(0..8, tiny()));
    let bounds = bounds();
    for (course, campaign) in courses() {
        let seeds = if bounds.contains_key(course) { campaign.seeds.clone() } else { 0..1 };
        let campaign = Campaign { seeds, ..campaign };
        let dear = too_dear(course, &run(&campaign).counts.costs, &bounds);
        assert!(dear.is_empty(), "{dear:#?}");
    }
    run(&Campaign::new(96..256, tiny()));
    let automerge = Shape { document: DocumentKind::Automerge, ..Shape::default() };
    run(&Campaign::new(3..7, automerge));
    run(&Campaign::new(0..12, Shape::default()));
    let hostile = library::named("hostile-member").expect("it is in the library").scenario().expect("a scenario");
    for (document, seeds) in [(DocumentKind::Model, 16), (DocumentKind::Automerge, 6)] {
        run(&of(Scenario { document, ..hostile.clone() }, seeds));
    }
    // Sessions, seals and what HTTP shows are only in whole servers.
    #[cfg(feature = "l2")]
    run(&Campaign {
        level: Level::Servers,
        ..Campaign::new(0..4, Shape { length: Some(Length::Short), nodes: Some(4), ..Shape::default() })
    });
}
