//! Campaigns on changed engines.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Failed;
use crate::mutant::Mutant;
use crate::survivors::Survivors;

/// What a campaign may take of memory, in bytes: changed engines may ask for all there is.
#[cfg(unix)]
const MEMORY_MAX: u64 = 8 << 30;

/// How a test ends in which a promise was broken.
const FAILED: &str = "test result: FAILED";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// A promise was broken.
    Noticed,
    /// The campaign took far longer than it does.
    Endless,
    /// The campaign took all the memory that it may have, or died otherwise.
    Died,
    Survived,
}

#[derive(Debug)]
pub(crate) struct Trial<'a> {
    timeout: Duration,
    jobs: usize,
    notes: PathBuf,
    survivors: Mutex<Survivors>,
    outcomes: BTreeMap<usize, (&'a Mutant, Outcome)>,
}

impl<'a> Trial<'a> {
    pub(crate) const fn new(jobs: usize, notes: PathBuf, survivors: Survivors) -> Self {
        let survivors = Mutex::new(survivors);
        Self { timeout: Duration::MAX, jobs, notes, survivors, outcomes: BTreeMap::new() }
    }

    /// After how long a campaign counts as one that does not end.
    pub(crate) const fn wait_for(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// How long the campaign takes on the engine as it is, which it must hold for.
    pub(crate) fn unchanged(&self, binary: &Path) -> Result<Duration, Failed> {
        let start = Instant::now();
        if self.outcome(binary, None)? != Outcome::Survived {
            return Err(format!("the campaign fails without a change: {}", self.log(None).display()).into());
        }
        Ok(start.elapsed())
    }

    fn log(&self, mutant: Option<usize>) -> PathBuf {
        self.notes.join(format!("{}.log", mutant.unwrap_or(0)))
    }

    /// One campaign. None runs the engine as it is.
    fn outcome(&self, binary: &Path, mutant: Option<usize>) -> Result<Outcome, Failed> {
        let log = File::create(self.log(mutant))?;
        let mut campaign = limited(binary);
        campaign.env("KNOT_MUTANT", mutant.unwrap_or(0).to_string());
        campaign.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let start = Instant::now();
        let mut campaign = campaign.spawn()?;
        loop {
            if let Some(status) = campaign.try_wait()? {
                let is_failure = || Ok::<_, Failed>(std::fs::read_to_string(self.log(mutant))?.contains(FAILED));
                return Ok(if status.success() {
                    Outcome::Survived
                } else if is_failure()? {
                    Outcome::Noticed
                } else {
                    Outcome::Died
                });
            }
            if start.elapsed() > self.timeout {
                campaign.kill()?;
                campaign.wait()?;
                return Ok(Outcome::Endless);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn note(&self, mutant: &Mutant, outcome: Outcome) -> Result<(), Failed> {
        let mut survivors = self.survivors.lock().unwrap_or_else(PoisonError::into_inner);
        survivors.note(mutant.to_string(), outcome == Outcome::Survived)
    }

    /// All that one binary holds.
    pub(crate) fn all(&mut self, binary: &Path, mutants: &[&'a Mutant]) -> Result<(), Failed> {
        let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || -> Result<(), Failed> {
            while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                let start = Instant::now();
                let outcome = self.outcome(binary, Some(mutant.number))?;
                let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                outcomes.push((*mutant, outcome));
                self.note(mutant, outcome)?;
                said(mutant, outcome, start.elapsed(), outcomes.len(), mutants.len());
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.jobs.max(1)).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker panicked")?)
        })?;
        let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.outcomes.extend(outcomes.into_iter().map(|(mutant, outcome)| (mutant.number, (mutant, outcome))));
        Ok(())
    }

    /// One whose binary holds it alone.
    pub(crate) fn alone(&mut self, binary: &Path, mutant: &'a Mutant) -> Result<(), Failed> {
        let start = Instant::now();
        let outcome = self.outcome(binary, Some(mutant.number))?;
        self.note(mutant, outcome)?;
        said(mutant, outcome, start.elapsed(), 1, 1);
        self.outcomes.insert(mutant.number, (mutant, outcome));
        Ok(())
    }

    /// What was not noticed, and the share that was.
    pub(crate) fn report(&self, invalid: &[&Mutant]) {
        let count = |meant: Outcome| self.outcomes.values().filter(|(_, outcome)| *outcome == meant).count();
        let (noticed, endless) = (count(Outcome::Noticed), count(Outcome::Endless));
        let (died, survived) = (count(Outcome::Died), count(Outcome::Survived));
        println!();
        for (mutant, outcome) in self.outcomes.values() {
            if *outcome == Outcome::Survived {
                println!("not noticed: {mutant}");
            }
        }
        let tried = self.outcomes.len();
        let per_mille = (tried - survived) * 1000 / tried.max(1);
        println!(
            "{tried} tried: {noticed} broke a promise, {endless} did not end, {died} died, {survived} not noticed; \
             {} did not compile",
            invalid.len()
        );
        println!("score {}.{} %", per_mille / 10, per_mille % 10);
    }
}

fn said(mutant: &Mutant, outcome: Outcome, took: Duration, done: usize, of: usize) {
    let outcome = match outcome {
        Outcome::Noticed => "noticed",
        Outcome::Endless => "did not end",
        Outcome::Died => "died",
        Outcome::Survived => "NOT NOTICED",
    };
    println!("{done}/{of}  {outcome} after {took:.1?}: {} {mutant}", mutant.number);
}

/// A command that may not take all memory there is.
#[cfg(unix)]
fn limited(binary: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -v {} && exec \"$0\"", MEMORY_MAX >> 10)).arg(binary);
    command
}

#[cfg(not(unix))]
fn limited(binary: &Path) -> Command {
    Command::new(binary)
}
