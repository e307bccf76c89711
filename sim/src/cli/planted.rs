//! `knot-sim planted`.

use clap::Args;

use super::output::print_json;
use crate::planted::{Detection, PLANTED, detect};

#[derive(Debug, Args)]
pub(super) struct PlantedArgs {
    /// Give up on a bug after this many seeds.
    #[arg(long, default_value_t = 500)]
    seeds_max: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only this bug.
    #[arg(long)]
    only: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn perform(args: &PlantedArgs) -> bool {
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| only == name);
    let mut found: Vec<Detection> = Vec::new();
    for planted in PLANTED.iter().filter(|planted| wanted(planted.name)) {
        let detection = detect(planted, args.first, args.seeds_max);
        if !args.json {
            print_detection(&detection);
        }
        found.push(detection);
    }
    if args.json {
        print_json(&found);
    }
    found.iter().all(|detection| detection.seeds.is_some())
}

fn print_detection(detection: &Detection) {
    match (detection.seeds, &detection.invariant) {
        (Some(seeds), Some(invariant)) => {
            let name = detection.name;
            println!("{name:<24} {seeds:>5} seeds   {invariant}");
        }
        _ => println!("{:<24}     -         not found", detection.name),
    }
}
