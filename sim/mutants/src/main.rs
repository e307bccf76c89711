//! How many changes of the engine the simulator notices.
//!
//! cargo-mutants says what may be changed, and to what. It builds everything anew for each change, which takes many
//! times longer than the campaign that is to notice it. Here one build holds all that were drawn, each behind a switch:
//! `KNOT_MUTANT=7` runs the engine with the seventh. What no switch can hold is built alone.

mod build;
mod mutant;
mod survivors;
mod switch;
mod tree;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::build::Build;
use crate::mutant::{Mutant, drawn};
use crate::survivors::Survivors;
use crate::tree::Tree;
use crate::trial::Trial;

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
    /// A campaign that takes so many times longer than without a change counts as one that does not end
    #[arg(long, default_value_t = 6)]
    patience: u32,
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
    let survivors = Survivors::read(&tree.notes()?)?;
    let is_meant = |name: &str| {
        options.of.as_deref().is_none_or(|text| name.contains(text)) && (!options.again || survivors.hold(name))
    };
    let sample = drawn(&known, options.seed, is_meant, if options.again { usize::MAX } else { options.sample });
    if options.list {
        sample.iter().for_each(|mutant| println!("{mutant}"));
        return Ok(());
    }
    let (switched, alone): (Vec<&Mutant>, Vec<&Mutant>) = sample.iter().partition(|mutant| mutant.is_switchable());
    println!("{} of {} changes: {} behind switches, {} alone", sample.len(), known.len(), switched.len(), alone.len());
    let mut trial = Trial::new(options.jobs, tree.notes()?, survivors);

    let build = together(&tree, switched)?;
    println!("{} do not compile; the others are built", build.invalid.len());
    let took = trial.unchanged(&build.binary)?;
    println!("the campaign takes {took:.1?} where nothing is changed");
    trial.wait_for(took * options.patience);
    trial.all(&build.binary, &build.switched)?;
    // What may have changed meanwhile, as a disk that is full, would be taken for so many changes that were noticed.
    trial.unchanged(&build.binary)?;
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
    // With its file as it was then: in another it may compile.
    let line = |mutant: &Mutant| Ok::<_, Failed>(format!("{} {mutant}", tree.digest(&mutant.file)?));
    let notes = tree.notes()?.join("invalid.txt");
    let known = std::fs::read_to_string(&notes).unwrap_or_default();
    let mut known: BTreeSet<String> = known.lines().map(str::to_owned).collect();
    let (mut invalid, mut switched) = (Vec::new(), Vec::new());
    for mutant in mutants {
        if known.contains(&line(mutant)?) { invalid.push(mutant) } else { switched.push(mutant) }
    }
    let mut unswitchable = Vec::new();
    loop {
        let arms = switch::lay(tree, &switched)?;
        let errors = match build::campaign(tree)? {
            Build::Done(binary) => return Ok(Together { binary, switched, invalid, unswitchable }),
            Build::Failed(errors) => errors,
        };
        let (mut broken, mut constant) = (BTreeSet::new(), BTreeSet::new());
        for error in &errors {
            let named = switched.iter().filter(|mutant| error.wants_constant(mutant.function_name()));
            let named: Vec<usize> = named.map(|mutant| mutant.number).collect();
            if named.is_empty() {
                let arm = arms.iter().find(|arm| error.is_in(&arm.file, &arm.lines));
                broken.extend(arm.map(|arm| arm.mutant));
            }
            constant.extend(named);
        }
        if broken.is_empty() && constant.is_empty() {
            return Err(format!("the switched engine does not compile:\n{}", errors[0].rendered).into());
        }
        println!("{} do not compile, {} are asked for by constants: again", broken.len(), constant.len());
        invalid.extend(switched.iter().copied().filter(|mutant| broken.contains(&mutant.number)));
        unswitchable.extend(switched.iter().copied().filter(|mutant| constant.contains(&mutant.number)));
        switched.retain(|mutant| !broken.contains(&mutant.number) && !constant.contains(&mutant.number));
        for mutant in &invalid {
            known.insert(line(mutant)?);
        }
        std::fs::write(&notes, known.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    }
}
