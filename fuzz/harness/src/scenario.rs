//! Scenario files: whatever a person writes is a scenario, which its own file gives back, or complained of.

use knot_sim::scenario::Scenario;

use crate::Target;

/// An input is a file.
pub const TARGET: Target = Target { name: "scenario", run, memory_bytes_max: 1 << 20, memory_bytes_per_byte: 512 };

fn run(input: &[u8]) -> usize {
    match Scenario::from_toml(&String::from_utf8_lossy(input)) {
        Ok(scenario) => {
            // TOML's numbers end before some of a scenario's do.
            if let Ok(text) = scenario.to_toml() {
                assert_eq!(Scenario::from_toml(&text).ok(), Some(scenario.clone()), "its own file is another: {text}");
            }
            1 + scenario.operations.len() + scenario.faults.len()
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            0
        }
    }
}
