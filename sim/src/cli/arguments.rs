//! Arguments that several commands take.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use knot_engine::{Fault, Faults};

use super::CliError;
use crate::campaign::{options, plant_option};
use crate::level::{Level, NotRun};
use crate::library::{LIBRARY, about, named};
use crate::scenario::{DocumentKind, Length, Profile, Scenario, Shape};

#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "What seeds draw")]
pub(super) struct ShapeArgs {
    /// How many servers; the seed chooses 3 to 20 otherwise
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=64))]
    nodes: Option<u64>,
    /// What is replicated
    #[arg(long, value_enum, default_value_t = DocumentKind::Model)]
    document: DocumentKind,
    /// Which kinds of faults
    #[arg(long, value_enum, default_value_t = Profile::Mixed)]
    profile: Profile,
    /// How long faults go on; the seed chooses otherwise
    #[arg(long, value_enum)]
    length: Option<Length>,
    /// Make one seed in a hundred fail, to see that failures are noticed.
    #[arg(long)]
    canary: bool,
}

impl ShapeArgs {
    pub(super) fn shape(self) -> Shape {
        Shape {
            profile: self.profile,
            length: self.length,
            nodes: self.nodes.and_then(|nodes| usize::try_from(nodes).ok()),
            document: self.document,
            canary: self.canary,
        }
    }
}

/// How much of a server.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct LevelArgs {
    /// 1 for engines alone, 2 for whole servers with HTTP, sessions and storage, which is some hundred times slower, 3 for
    /// processes of the real binary in network namespaces, which takes as long as it says
    #[arg(long, value_enum, default_value_t, value_name = "N", hide_possible_values = true)]
    level: Level,
}

impl LevelArgs {
    /// The level, if this build has it, and this machine can play it with these bugs.
    pub(super) fn playable(self, planted: Faults) -> Result<Level, CliError> {
        if !self.level.is_built() {
            return Err(NotRun::NotBuilt(self.level.number()).into());
        }
        if self.level == Level::Processes && planted != Faults::default() {
            let why = "no bug can be planted in a binary: leave out --plant, or --level 3";
            return Err(CliError::Usage(why.to_owned()));
        }
        #[cfg(all(feature = "l3", target_os = "linux"))]
        if self.level == Level::Processes {
            crate::l3::ready().map_err(NotRun::from)?;
        }
        Ok(self.level)
    }
}

/// Refuses what cannot be played.
pub(super) fn check_played(level: Level, name: &str, scenario: &Scenario) -> Result<(), CliError> {
    let missing = level.cannot_play(scenario);
    if missing.is_empty() {
        return Ok(());
    }
    let why = NotRun::NotPlayed { level: level.number(), missing };
    Err(CliError::NotPlayed { what: name.to_owned(), why })
}

/// Which run.
#[derive(Clone, Debug, Args)]
pub(super) struct RunOf {
    /// A seed, a scenario of `knot-sim list`, or a scenario's file
    #[arg(value_name = "SEED|SCENARIO|FILE", required_unless_present = "seed")]
    what: Option<String>,
    /// The seed, in place of the scenario's own
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Plant a bug, by its flag's name
    #[arg(long, value_name = "BUG", value_parser = planted_by_name)]
    plant: Option<Faults>,
    #[command(flatten)]
    level: LevelArgs,
    #[command(flatten)]
    shape: ShapeArgs,
}

impl RunOf {
    pub(super) fn pick(&self) -> Result<Picked, CliError> {
        let planted = self.plant.unwrap_or_default();
        let how = How { planted, level: self.level.playable(planted)? };
        pick(self.what.as_deref(), self.seed, &self.shape.shape(), how)
    }
}

/// What is run of a scenario.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    pub(super) planted: Faults,
    pub(super) level: Level,
}

/// A run that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Picked {
    /// What people call it.
    pub(super) name: String,
    /// What it is about, where its file says so.
    pub(super) about: Option<String>,
    pub(super) scenario: Scenario,
    pub(super) planted: Faults,
    pub(super) level: Level,
    /// What names it on a command line.
    arguments: String,
}

impl Picked {
    /// The line that does `command` to it.
    pub(super) fn line(&self, command: &str) -> String {
        format!("knot-sim {command} {}", self.arguments)
    }
}

/// The run that `what` names, or the seed alone.
pub(super) fn pick(what: Option<&str>, seed: Option<u64>, shape: &Shape, how: How) -> Result<Picked, CliError> {
    let How { planted, level } = how;
    let mut plant = plant_option(planted);
    if level != Level::Engines {
        plant.push_str(&format!(" --level {}", level.number()));
    }
    let number = what.map_or(seed, |what| what.parse().ok());
    if let Some(drawn) = number {
        if let (Some(what), Some(_)) = (what, seed) {
            return Err(CliError::Usage(format!("{what} is a seed already; leave out --seed")));
        }
        return Ok(Picked {
            name: format!("seed {drawn}"),
            about: None,
            scenario: level.generate(drawn, shape),
            planted,
            level,
            arguments: format!("{drawn}{}{plant}", options(shape)),
        });
    }
    let what = what.unwrap_or_default();
    let (mut scenario, about) = read_scenario(what)?;
    let mut arguments = quoted(what);
    if let Some(seed) = seed {
        scenario.seed = seed;
        arguments.push_str(&format!(" --seed {seed}"));
    }
    let stem = std::path::Path::new(what).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = stem.unwrap_or_else(|| what.to_owned());
    let name = if seed.is_some() { format!("{name}, seed {}", scenario.seed) } else { name };
    check_played(level, &name, &scenario)?;
    Ok(Picked { name, about, scenario, planted, level, arguments: format!("{arguments}{plant}") })
}

/// A word that a shell takes as one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./~+:@".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// A scenario by its name or from a file, and what it is about.
pub(super) fn read_scenario(what: &str) -> Result<(Scenario, Option<String>), CliError> {
    let text = match named(what) {
        Some(known) => known.text.to_owned(),
        None => {
            std::fs::read_to_string(what).map_err(|source| CliError::NoScenario { what: what.to_owned(), source })?
        }
    };
    let scenario =
        Scenario::from_toml(&text).map_err(|source| CliError::BadScenario { what: what.to_owned(), source })?;
    let about = Some(about(&text)).filter(|about| !about.is_empty());
    Ok((scenario, about))
}

/// The name in the list that is most like `what`, if one is.
pub(super) fn like(what: &str) -> Option<&'static str> {
    let distance = |name: &str| strsim::osa_distance(what, name);
    let nearest = LIBRARY.iter().min_by_key(|known| distance(known.name))?;
    (distance(nearest.name) <= 1 + nearest.name.len() / 3).then_some(nearest.name)
}

/// Seeds from A up to but not including B.
#[derive(Clone, Debug)]
pub(super) struct Seeds(pub(super) Range<u64>);

#[derive(Debug)]
pub(super) struct NotARange;

impl fmt::Display for NotARange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seeds are A..B, with A less than B, such as 0..1000")
    }
}

impl std::error::Error for NotARange {}

impl FromStr for Seeds {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let (first, end) = text.split_once("..").ok_or(NotARange)?;
        let first = first.parse().map_err(|_| NotARange)?;
        let end = end.parse().map_err(|_| NotARange)?;
        if first < end { Ok(Self(first..end)) } else { Err(NotARange) }
    }
}

/// A moment of a run, from its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(pub(super) knot_engine::Instant);

#[derive(Debug)]
pub(super) struct NotAMoment;

impl fmt::Display for NotAMoment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a moment is a number and a unit: 12.5s, 350ms or 900us")
    }
}

impl std::error::Error for NotAMoment {}

impl FromStr for Moment {
    type Err = NotAMoment;

    fn from_str(text: &str) -> Result<Self, NotAMoment> {
        let at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or(NotAMoment)?;
        let (number, unit) = text.split_at(at);
        let unit_s = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            _ => return Err(NotAMoment),
        };
        let number: f64 = number.parse().map_err(|_| NotAMoment)?;
        let after = Duration::try_from_secs_f64(number * unit_s).map_err(|_| NotAMoment)?;
        Ok(Self(knot_engine::Instant::ZERO + after))
    }
}

pub(super) fn planted_by_name(name: &str) -> Result<Faults, String> {
    fault_by_name(name).map(Faults::from)
}

pub(super) fn fault_by_name(name: &str) -> Result<Fault, String> {
    Fault::named(name).ok_or_else(|| {
        let names: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        format!("no such bug; there are {}", names.join(", "))
    })
}

/// How many runs at once.
pub(super) fn jobs(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_a_unit() {
        for (text, micros) in [("12.5s", 12_500_000), ("350ms", 350_000), ("900us", 900), ("1m", 60_000_000)] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(moment.0.as_micros(), micros, "{text}");
        }
        for text in ["12", "s", "-1s", "1h", "1e99s"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_recognised() {
        assert_eq!(like("region-los"), Some("region-lost"));
        assert_eq!(like("nothing of the kind"), None);
    }

    #[test]
    fn a_path_is_one_word_of_a_line() {
        assert_eq!(quoted("a/b.toml"), "a/b.toml");
        assert_eq!(quoted("it's here.toml"), "'it'\\''s here.toml'");
    }
}
