//! `knot-sim run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use knot_engine::Faults;

use super::arguments::{
    How, LevelArgs, Picked, Seeds, ShapeArgs, check_played, jobs, pick, planted_by_name, read_scenario,
};
use super::output::{print, print_json};
use super::progress::ProgressLine;
use super::{CliError, Exit, account, failure};
use crate::campaign::{self, Campaign, FAILURES_MAX, Listener, Progress, Runs, Summary};
use crate::level::Level;
use crate::report::Report;
use crate::scenario::Shape;

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  knot-sim run --seeds 0..1000
  knot-sim run --seeds 0..50 --document automerge --nodes 10
  knot-sim run --minutes 10 --seeds 5000..        from seed 5000 on, for ten minutes
  knot-sim run --scenario region-lost             a scenario as its file has it
  knot-sim run --scenario mine.toml --seeds 0..200
  knot-sim run --level 2 --seeds 0..50            whole servers, with HTTP, sessions and storage
  knot-sim run --level 3 --scenario zone-split    processes of the real binary, in the machine's time

Each seed that fails leaves a page that any browser shows, the line that replays it, and the line that shrinks it.
After ten failures the rest is not run.";

/// A short campaign misses most marks, and nobody wants to read them all.
const MARKS_LISTED_MAX: usize = 12;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Seeds from A up to but not including B; B may be left out with --minutes [default: 0..100, at level 3 0..3]
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Option<Seeds>,
    /// One seed
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Go on from the first seed for this long, in minutes
    #[arg(long, value_name = "M", value_parser = minutes)]
    minutes: Option<Duration>,
    /// A scenario by its name or file, with each of these seeds; with its own where none is given
    #[arg(long, value_name = "SCENARIO|FILE")]
    scenario: Option<String>,
    #[command(flatten)]
    level: LevelArgs,
    /// How many runs at once; as many as there are processors otherwise
    #[arg(long, value_name = "J")]
    jobs: Option<usize>,
    /// Fail when a state that should be reached is not; see `engine/src/marks.rs`
    #[arg(long, conflicts_with_all = ["seed", "scenario"])]
    require_marks: bool,
    /// Where pages of failures go [default: knot-sim-failures among the system's temporary files]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Plant a bug, by its flag's name
    #[arg(long, value_name = "BUG", value_parser = planted_by_name)]
    plant: Option<Faults>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    shape: ShapeArgs,
}

/// Seeds, with or without an end.
fn seeds(text: &str) -> Result<Seeds, String> {
    let whole = if text.ends_with("..") { format!("{text}{}", u64::MAX) } else { text.to_owned() };
    whole.parse().map_err(|error: super::arguments::NotARange| error.to_string())
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "minutes are a number, such as 10 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| error.to_string())
}

impl RunArgs {
    fn campaign(&self) -> Result<Campaign, CliError> {
        let planted = self.plant.unwrap_or_default();
        let level = self.level.playable(planted)?;
        if self.require_marks && level != Level::Engines {
            return Err(CliError::Usage(
                "--require-marks wants all that a campaign of engines alone comes by: leave it out, or leave out --level"
                    .to_owned(),
            ));
        }
        let scenario = self.scenario.as_deref().map(read_scenario).transpose()?.map(|(scenario, _)| scenario);
        if let (Some(name), Some(scenario)) = (&self.scenario, &scenario) {
            check_played(level, name, scenario)?;
        }
        let one = |seed: u64| seed..seed.saturating_add(1);
        let own = scenario.as_ref().filter(|_| self.minutes.is_none()).map(|scenario| one(scenario.seed));
        let given = self.seeds.clone().map(|seeds| seeds.0).or(self.seed.map(one));
        let seeds = match (given, self.minutes) {
            (Some(given), Some(_)) => given.start..u64::MAX,
            (Some(given), None) if given.end == u64::MAX => {
                return Err(CliError::Usage("seeds without an end need an end in time: add --minutes".to_owned()));
            }
            (Some(given), None) => given,
            (None, Some(_)) => 0..u64::MAX,
            (None, None) => own.unwrap_or(if level == Level::Processes { 0..3 } else { 0..100 }),
        };
        Ok(Campaign {
            seeds,
            lasting: self.minutes,
            level,
            runs: scenario.map_or_else(|| Runs::Drawn(self.shape.shape()), |scenario| Runs::Of(Box::new(scenario))),
            planted,
            // Processes share their machine with nobody, or its haste is theirs.
            jobs: if level == Level::Processes { self.jobs.unwrap_or(1) } else { jobs(self.jobs) },
        })
    }
}

struct Telling<'a> {
    line: ProgressLine,
    scenario: Option<&'a str>,
    shape: Shape,
    how: How,
    out: PathBuf,
    /// Where the lines of failures go: to stdout, or, when JSON goes there, to stderr.
    json: bool,
}

impl Telling<'_> {
    fn picked(&self, seed: u64) -> Result<Picked, CliError> {
        pick(self.scenario, Some(seed), &self.shape, self.how)
    }
}

impl Listener for Telling<'_> {
    fn on_progress(&self, progress: &Progress) {
        self.line.show(progress);
    }

    fn on_failure(&self, report: &Report) {
        let Ok(picked) = self.picked(report.seed) else {
            return;
        };
        let lines = failure::lines(&picked, report, failure::write_page(&picked, &self.out));
        if self.json {
            self.line.say(&lines);
        } else {
            self.line.clear();
            // Whoever closed stdout does not want to know; the exit code says it too.
            let _ = print(lines);
        }
    }
}

pub(super) fn perform(args: &RunArgs) -> Result<Exit, CliError> {
    let campaign = args.campaign()?;
    let telling = Telling {
        line: ProgressLine::new(),
        scenario: args.scenario.as_deref(),
        shape: args.shape.shape(),
        how: How { planted: campaign.planted, level: campaign.level },
        out: args.out.clone().unwrap_or_else(failure::usual_folder),
        json: args.json,
    };
    let summary = campaign::run(&campaign, &telling);
    telling.line.clear();
    let summary = summary?;
    if args.json {
        print_json(&with_lines(&summary, &telling)?)?;
    } else {
        print(text(&summary, args.require_marks, campaign.level))?;
    }
    let missed = args.require_marks && !summary.marks_missed().is_empty();
    Ok(Exit::held(summary.failures.is_empty() && !missed))
}

/// The summary, each failure with its page and the lines to go on with.
fn with_lines(summary: &Summary, telling: &Telling<'_>) -> Result<serde_json::Value, CliError> {
    let mut value = serde_json::to_value(summary)?;
    let failures = value.get_mut("failures").and_then(serde_json::Value::as_array_mut);
    for (failure, report) in failures.into_iter().flatten().zip(&summary.failures) {
        let picked = telling.picked(report.seed)?;
        failure["replay"] = picked.line("replay").into();
        failure["shrink"] = picked.line("shrink").into();
        if let Some(path) = failure::page_path(&picked, &telling.out) {
            failure["page"] = path.display().to_string().into();
        }
    }
    Ok(value)
}

fn text(summary: &Summary, all_marks: bool, level: Level) -> String {
    let counts = &summary.counts;
    let [middle, most] = summary.settled_s;
    let enough = if summary.failures.len() >= FAILURES_MAX { "; that is enough, the rest was not run" } else { "" };
    let rows: [(&str, String); 9] = [
        ("runs", format!("{}, {} failed{enough}", summary.runs, summary.failures.len())),
        ("simulated", format!("{:.0} s, {:.0} s a processor second", summary.simulated_s, summary.speed())),
        ("events", counts.events.to_string()),
        ("datagrams", format!("{}, {} lost", counts.datagrams, counts.datagrams_lost)),
        ("frames", format!("{} on {} connections", counts.frames, counts.connects)),
        (
            "edits",
            format!("{} acknowledged, {} refused, {} unknown", counts.acknowledged, counts.refused, counts.unknown),
        ),
        ("faults", format!("{}, {} crashes", counts.faults, counts.crashes)),
        ("repairs", counts.repairs.to_string()),
        ("settled", format!("{middle:.1} s in the middle, {most:.1} s at most")),
    ];
    let mut lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<10} {value}")).collect();
    lines.extend(account::lines(&summary.account, 10));
    lines.extend(counts.drops.iter().map(|(reason, count)| format!("dropped    {count:>8}  {reason}")));
    // Only of engines alone is it said which states a campaign has to reach.
    if level == Level::Engines {
        lines.extend(marks(summary, all_marks));
    }
    lines.join("\n")
}

/// Which states were reached, and which were not.
fn marks(summary: &Summary, all: bool) -> Vec<String> {
    let missed = summary.marks_missed();
    let is_long = missed.len() > MARKS_LISTED_MAX && !all;
    let rest = if is_long { "; --require-marks lists the others" } else { "" };
    let reached = summary.marks.len() - missed.len();
    let mut lines = vec![format!("marks      {reached} of {} reached{rest}", summary.marks.len())];
    lines.extend(missed.iter().filter(|_| !is_long).map(|mark| format!("           not reached: {mark}")));
    if all && !missed.is_empty() {
        lines.push("FAILED     for these marks: a campaign that never reaches a state says nothing of it".to_owned());
    }
    lines
}
