//! A short campaign on an engine that somebody has changed: `just mutants`.

use knot_engine::Faults;
use knot_sim::campaign::{self, Campaign};
use knot_sim::library::LIBRARY;
use knot_sim::scenario::{DocumentKind, Length, Shape};

fn assert_well(seeds: std::ops::Range<u64>, shape: Shape) {
    let summary = campaign::run(&Campaign::new(seeds, shape), &());
    let failures: Vec<_> = summary.failures.iter().map(|report| (report.seed, &report.violations)).collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn the_engine_keeps_its_promises() {
    assert_well(0..150, Shape { length: Some(Length::Tiny), ..Shape::default() });
    assert_well(0..24, Shape::default());
    assert_well(0..4, Shape { document: DocumentKind::Automerge, ..Shape::default() });
    for named in LIBRARY {
        let scenario = named.scenario().expect("what is in the library is a scenario");
        let report = campaign::run_scenario(scenario, Faults::default(), None);
        assert!(report.violations.is_empty(), "{}: {:#?}", named.name, report.violations);
    }
}
