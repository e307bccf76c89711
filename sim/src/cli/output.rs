//! What commands print.

use crate::scenario::Scenario;

pub(super) fn print_scenario(scenario: &Scenario) -> Result<(), String> {
    let text = scenario.to_toml().map_err(|error| format!("cannot write the scenario as TOML: {error}"))?;
    print!("{text}");
    Ok(())
}

pub(super) fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("cannot print JSON: {error}"),
    }
}
