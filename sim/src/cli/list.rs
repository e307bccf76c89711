//! `knot-sim list`.

use clap::Args;
use serde_json::json;

use super::output::{print, print_json, table, text_of};
use super::{CliError, Exit};
use crate::library::LIBRARY;

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  knot-sim list
  knot-sim list --json | jq -r '.[].name' | xargs -n 1 knot-sim replay";

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn perform(args: &ListArgs) -> Result<Exit, CliError> {
    if args.json {
        let all: Vec<_> = LIBRARY.iter().map(|known| json!({ "name": known.name, "about": known.about() })).collect();
        print_json(&all)?;
    } else {
        let mut table = table(&[]);
        for known in LIBRARY {
            table.add_row([known.name, &known.about()]);
        }
        print(text_of(table))?;
    }
    Ok(Exit::Held)
}
