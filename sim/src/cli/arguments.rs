//! Arguments that several commands take.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use clap::Args;
use knot_engine::{Fault, Faults};

use crate::scenario::{DocumentKind, Length, Profile, Scenario, Shape};

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ShapeArgs {
    /// How many servers; the seed chooses 3 to 20 otherwise.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=64))]
    nodes: Option<u64>,
    /// What is replicated.
    #[arg(long, value_enum, default_value_t = DocumentKind::Model)]
    document: DocumentKind,
    /// Which kinds of faults.
    #[arg(long, value_enum, default_value_t = Profile::Mixed)]
    profile: Profile,
    /// How long faults go on; the seed chooses otherwise.
    #[arg(long, value_enum)]
    length: Option<Length>,
}

impl ShapeArgs {
    pub(super) fn shape(self) -> Shape {
        Shape {
            profile: self.profile,
            length: self.length,
            nodes: self.nodes.and_then(|nodes| usize::try_from(nodes).ok()),
            document: self.document,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Seeds(pub(super) Range<u64>);

#[derive(Debug)]
pub(super) struct NotARange;

impl fmt::Display for NotARange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seeds are A..B, with A less than B")
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

pub(super) fn read_scenario(path: &Path) -> Result<Scenario, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Scenario::from_toml(&text).map_err(|error| format!("{} is no scenario: {error}", path.display()))
}
