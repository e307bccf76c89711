//! How many changes of the engine the simulator notices.
//!
//! cargo-mutants says what may be changed, and to what. It builds everything anew for each change, which takes many
//! times longer than the campaign that is to notice it. Here one build holds all that were drawn, each behind a switch:
//! `KNOT_MUTANT=7` runs the engine with the seventh. What no switch can hold is built alone.

mod build;
mod mutant;
mod switch;
mod tree;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::build::Build;
use crate::mutant::{Mutant, drawn};
use crate::tree::Tree;
use crate::trial::{Outcome, Trial};

type Failed = Box<dyn Error + Send + Sync>;

/// How many changes of the engine the simulator notices
///
/// Draws changes from those that cargo-mutants knows, builds an engine that holds all of them behind a switch, and runs
/// the campaign of sim/tests/mutation.rs with each. Ends with the changes that it did not notice.
///
///     just mutants                         # 200 of them
///     just mutants --sample 50 --seed 7    # 50 others
///     just mutants --of membership/probe   # those in one file
///     just mutants --again                 # those that were not noticed the last time
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment)]
struct Options {
    /// How many changes are tried
    #[arg(long, default_value_t = 200)]
    sample: usize,
    /// Which: another seed draws others
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only those whose place and name have this in them
    #[arg(long, value_name = "TEXT")]
    of: Option<String>,
    /// Only those that were not noticed the last time
    #[arg(long)]
    again: bool,
    /// How many campaigns run at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// After how long a campaign counts as one that does not end, in seconds
    #[arg(long, default_value_t = 360)]
    timeout: u64,
    /// Say what would be tried, and try nothing
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<(), Failed> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let known = mutant::listed(&workspace)?;
    let tree = Tree::new(&workspace)?;
    let survivors = tree.notes()?.join("survivors.txt");
    let last_time = if options.again { std::fs::read_to_string(&survivors)? } else { String::new() };
    let is_meant = |name: &str| {
        options.of.as_deref().is_none_or(|text| name.contains(text))
            && (!options.again || last_time.lines().any(|line| line == name))
    };
    let sample = drawn(&known, options.seed, is_meant, options.sample);
    if options.list {
        sample.iter().for_each(|mutant| println!("{mutant}"));
        return Ok(());
    }
    let (switched, alone): (Vec<&Mutant>, Vec<&Mutant>) = sample.iter().partition(|mutant| mutant.is_switchable());
    println!("{} of {} changes: {} behind switches, {} alone", sample.len(), known.len(), switched.len(), alone.len());
    let mut trial = Trial::new(Duration::from_secs(options.timeout), options.jobs, tree.notes()?);

    let build = together(&tree, switched)?;
    println!("{} do not compile; the others are built", build.invalid.len());
    let start = Instant::now();
    if trial.outcome(&build.binary, None)? != Outcome::Survived {
        return Err(format!("the campaign fails without a change: {}", trial.log(None).display()).into());
    }
    println!("the campaign takes {:.1?} where nothing is changed", start.elapsed());
    std::fs::write(&survivors, "")?;
    trial.all(&build.binary, &build.switched)?;
    let mut invalid = build.invalid;
    for mutant in alone.into_iter().chain(build.unswitchable) {
        let text = tree.original(&mutant.file)?;
        let changed = mutant.changed(text, 0..text.len());
        tree.lay(&BTreeMap::from([(mutant.file.clone(), changed)]))?;
        match build::campaign(&tree)? {
            Build::Done(binary) => trial.alone(&binary, mutant)?,
            Build::Failed(_) => invalid.push(mutant),
        }
    }
    trial.report(&invalid);
    Ok(())
}

/// The campaign with all these changes behind switches, and what became of those that cannot be.
struct Together<'a> {
    binary: PathBuf,
    switched: Vec<&'a Mutant>,
    invalid: Vec<&'a Mutant>,
    /// Switches are nothing that constants can ask.
    unswitchable: Vec<&'a Mutant>,
}

/// Builds, and leaves out what does not compile, until the rest does. What never did is remembered.
fn together<'a>(tree: &Tree, mutants: Vec<&'a Mutant>) -> Result<Together<'a>, Failed> {
    let notes = tree.notes()?.join("invalid.txt");
    let known = std::fs::read_to_string(&notes).unwrap_or_default();
    let known: BTreeSet<&str> = known.lines().collect();
    let (mut invalid, mut switched): (Vec<_>, Vec<_>) =
        mutants.into_iter().partition(|mutant| known.contains(&mutant.to_string()[..]));
    let mut unswitchable = Vec::new();
    loop {
        let arms = switch::lay(tree, &switched)?;
        let errors = match build::campaign(tree)? {
            Build::Done(binary) => return Ok(Together { binary, switched, invalid, unswitchable }),
            Build::Failed(errors) => errors,
        };
        let (mut broken, mut constant) = (BTreeSet::new(), BTreeSet::new());
        for error in &errors {
            if let Some(arm) = arms.iter().find(|arm| error.is_in(&arm.file, &arm.lines)) {
                broken.insert(arm.mutant);
            } else {
                let named = switched.iter().filter(|mutant| error.wants_constant(mutant.function_name()));
                constant.extend(named.map(|mutant| mutant.number));
            }
        }
        if broken.is_empty() && constant.is_empty() {
            return Err(format!("the switched engine does not compile:\n{}", errors[0].rendered).into());
        }
        println!("{} do not compile, {} are asked for by constants: again", broken.len(), constant.len());
        invalid.extend(switched.iter().copied().filter(|mutant| broken.contains(&mutant.number)));
        unswitchable.extend(switched.iter().copied().filter(|mutant| constant.contains(&mutant.number)));
        switched.retain(|mutant| !broken.contains(&mutant.number) && !constant.contains(&mutant.number));
        let lines = known.iter().map(|name| (*name).to_owned()).chain(invalid.iter().map(ToString::to_string));
        std::fs::write(&notes, lines.collect::<BTreeSet<_>>().into_iter().map(|line| line + "\n").collect::<String>())?;
    }
}
