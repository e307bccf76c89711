//! The page of a run: one file, small, that asks nobody for anything.

use knot_engine::{Fault, Faults};
use knot_sim::campaign::run_scenario;
use knot_sim::page::{BYTES_MAX, Page};
use knot_sim::recording::record;
use knot_sim::scenario::{Length, Scenario, Shape};
use serde_json::Value;

fn page(scenario: &Scenario, planted: Faults) -> String {
    let (report, recording) = record(scenario.clone(), planted, None, None, false);
    let (name, replay) = ("a <run> & more", "knot-sim replay 1");
    Page { name, scenario, planted, report: &report, recording: &recording, replay, shrink: Some("knot-sim shrink 1") }
        .html()
}

fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").expect("the data");
    let (data, _) = rest.split_once("</script>").expect("its end");
    serde_json::from_str(data).expect("JSON")
}

#[test]
fn recording_changes_nothing_of_a_run() {
    for (seed, planted) in [(3, Faults::default()), (0, Fault::ScopeIgnored.into())] {
        let scenario = Scenario::generate(seed, &Shape { nodes: Some(5), ..Shape::default() });
        let (recorded, _) = record(scenario.clone(), planted, None, None, true);
        assert_eq!(run_scenario(scenario, planted, None).trace, recorded.trace);
    }
}

#[test]
fn the_page_of_a_big_failure_stays_small_and_says_what_it_leaves_out() {
    let shape = Shape { nodes: Some(14), length: Some(Length::Long), ..Shape::default() };
    let html = page(&Scenario::generate(3, &shape), Fault::WindowTruncated.into());
    assert!(html.len() <= BYTES_MAX, "{} bytes", html.len());
    let data = data(&html);
    assert!(!data["violations"].as_array().expect("a list").is_empty());
    let rule = &data["rule"];
    let drawn = data["messages"]["sent"].as_array().expect("a column").len();
    assert_eq!(rule["drawn"], drawn);
    assert!(rule["sent"].as_u64() > rule["drawn"].as_u64(), "{rule}");
    for column in ["from", "to", "kind", "took", "bytes"] {
        assert_eq!(data["messages"][column].as_array().map(Vec::len), Some(drawn), "{column}");
    }
}

#[test]
fn a_name_ends_no_script() {
    let mut scenario = Scenario::generate(0, &Shape { nodes: Some(3), ..Shape::default() });
    let name = "</script><script>alert('x')</script><!--";
    scenario.nodes[0].name = name.to_owned();
    let html = page(&scenario, Fault::ScopeIgnored.into());
    assert_eq!(html.matches("</script>").count(), 2, "the data's and the script's");
    assert!(!html.contains("<script>alert"));
    assert!(html.contains("<title>a &lt;run> &amp; more</title>"));
    assert_eq!(data(&html)["nodes"][0][0], name);
}

#[test]
fn a_page_asks_nobody_for_anything() {
    let html = page(&Scenario::generate(0, &Shape { nodes: Some(3), ..Shape::default() }), Fault::ScopeIgnored.into());
    for asks in
        ["http://", "https://", "src=", "<link", "@import", "url(", "fetch(", "XMLHttpRequest", "WebSocket", "import("]
    {
        assert!(!html.contains(asks), "{asks}");
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn a_page_holds_the_scenario_and_the_lines_to_go_on_with() {
    let scenario = Scenario::generate(0, &Shape { nodes: Some(3), ..Shape::default() });
    let data = data(&page(&scenario, Fault::ScopeIgnored.into()));
    let toml = data["toml"].as_str().expect("the scenario");
    assert_eq!(Scenario::from_toml(toml).expect("it reads back"), scenario);
    assert_eq!(data["replay"], "knot-sim replay 1");
    assert_eq!(data["planted"][0], "scope_ignored");
    let violation = &data["violations"][0];
    assert_eq!(violation["name"], "document left its zone");
    assert!(violation["promise"].as_str().is_some_and(|promise| promise.contains("never leave it")), "{violation}");
}
