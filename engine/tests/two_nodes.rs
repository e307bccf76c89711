//! The example that `docs/embedding.md` walks through does what it says.

use std::time::Duration;

use serde_json::json;

#[path = "../examples/two_nodes.rs"]
#[expect(dead_code, reason = "the example has a main of its own")]
mod example;

#[test]
fn the_example_replicates_a_document_in_one_latency() {
    let (value, took) = example::replicate().unwrap();
    assert_eq!(value, json!({"name": "Ann", "visits": 1}));
    assert_eq!(took, Duration::from_millis(5));
}
