//! A short campaign on an engine that somebody has changed: `just mutants`.

use knot_engine::Faults;
use knot_sim::campaign::{self, Campaign};
#[cfg(feature = "l2")]
use knot_sim::level::Level;
use knot_sim::library::{self, LIBRARY};
use knot_sim::scenario::{DocumentKind, Length, Scenario, Shape};

fn assert_well(campaign: &Campaign) {
    let summary = campaign::run(campaign, &()).expect("neither engines nor servers ask anything of the machine");
    let failures: Vec<_> = summary.failures.iter().map(|report| (report.seed, &report.violations)).collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn the_engine_keeps_its_promises() {
    // What takes least to notice a change comes first.
    for seeds in [0..8, 8..32, 32..128, 128..512] {
        assert_well(&Campaign::new(seeds, Shape { length: Some(Length::Tiny), ..Shape::default() }));
    }
    let automerge = Shape { document: DocumentKind::Automerge, ..Shape::default() };
    assert_well(&Campaign::new(0..40, Shape { length: Some(Length::Tiny), ..automerge }));
    assert_well(&Campaign::new(3..7, automerge));
    assert_well(&Campaign::new(0..24, Shape::default()));
    for named in LIBRARY {
        let scenario = named.scenario().expect("what is in the library is a scenario");
        let report = campaign::run_scenario(scenario, Faults::default(), None);
        assert!(report.violations.is_empty(), "{}: {:#?}", named.name, report.violations);
    }
    let hostile = library::named("hostile-member").expect("it is in the library").scenario().expect("a scenario");
    for (document, seeds) in [(DocumentKind::Model, 0..40), (DocumentKind::Automerge, 0..12)] {
        for seed in seeds {
            let scenario = Scenario { seed, document, ..hostile.clone() };
            let report = campaign::run_scenario(scenario, Faults::default(), None);
            assert!(report.violations.is_empty(), "{:#?}", report.violations);
        }
    }
    // Sessions, seals and what HTTP shows are only in whole servers.
    #[cfg(feature = "l2")]
    assert_well(&Campaign {
        level: Level::Servers,
        ..Campaign::new(0..4, Shape { length: Some(Length::Short), nodes: Some(4), ..Shape::default() })
    });
}
