//! Running what is placed on this server: looks at what is wanted and at what runs, again and again, and does what the
//! comparison asks for.

mod facts;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::agent::{Container, Here, Knowledge, Step, decide, without_runtime};
use super::known::Known;
use super::record::{SPACES, Server, SpaceRecord, Wanted};
use super::runtime::{Missing, Owner, Runtime, RuntimeError, sockets};
use super::{Containers, Spaces, Stub};
use crate::accounts::AccountError;
use crate::handle::Stopped;
use crate::simulated::Defect;
use crate::templates::Platform;

/// How often it is looked at what runs, while anything does or should.
const LOOKS: Duration = Duration::from_secs(5);
/// How often a runtime is looked for where there is none, and what runs where nothing should.
const IDLE_LOOKS: Duration = Duration::from_secs(30);
/// What happens within so long is looked at once.
const QUIET: Duration = Duration::from_millis(50);
/// How many images are fetched at once.
const FETCHERS: usize = 4;
/// How often in a row a runtime may not say what it holds until that is said of what waits for it.
const BLIND_MAX: u32 = 3;
/// How often a server says how much it holds, at most.
const SIZES_INTERVAL: Duration = Duration::from_secs(3_600);

/// What a server has to run spaces on.
#[derive(Clone, Debug, Default)]
pub enum Hosting {
    /// It runs none, as its configuration says; or it has not looked yet.
    #[default]
    Not,
    /// Nothing that could: what is missing, and what to do.
    Without(String),
    /// This.
    On(Arc<dyn Containers>),
}

impl Hosting {
    /// What it is.
    #[must_use]
    pub fn platform(&self) -> Option<Platform> {
        match self {
            Self::On(containers) => Some(containers.platform()),
            Self::Not | Self::Without(_) => None,
        }
    }
}

/// Where what runs spaces comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A runtime behind one of these sockets; how much this folder holds is told to the others.
    Runtime(Sockets, PathBuf),
    /// A simulator's.
    Simulated(Arc<dyn Containers>),
}

/// Where to look for a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// Nowhere: this server runs no spaces.
    None,
    /// Where they usually are, or where `DOCKER_HOST` says.
    Usual,
    /// Here alone.
    At(PathBuf),
}

impl Sockets {
    fn places(&self) -> Result<Vec<PathBuf>, Missing> {
        let variable = |name: &str| std::env::var(name).ok();
        match self {
            Self::None => Ok(Vec::new()),
            Self::Usual => sockets(variable("DOCKER_HOST").as_deref(), variable("XDG_RUNTIME_DIR").as_deref()),
            Self::At(place) => Ok(vec![place.clone()]),
        }
    }
}

/// The task that runs spaces here.
struct Host {
    spaces: Arc<Spaces>,
    source: Source,
    owner: Owner,
    is_alone: bool,
    started_at: i64,
    /// Starts that were asked for before this server began.
    missed: BTreeSet<(String, u64)>,
    /// What is being done, for which spaces, and whether it was done.
    work: JoinSet<(String, bool)>,
    busy: BTreeSet<String>,
    /// Those that fetch images.
    fetchers: Arc<Semaphore>,
    /// The spaces of which something was here at the last look.
    here: BTreeSet<String>,
    /// Whether nothing ran, or should have, at the last look.
    is_idle: bool,
    /// How often in a row it could not be seen what runs.
    blind: u32,
    told_at: Option<Instant>,
}

impl Spaces {
    /// Runs the spaces that are placed on this server, for as long as it runs. `cluster` is told to the runtime, for
    /// servers that share one; a server `is_alone` has nobody to tell what it is.
    pub async fn host(self: Arc<Self>, source: Source, cluster: String, is_alone: bool) {
        let host = Host {
            owner: Owner { cluster, node_id: self.node_id.clone() },
            is_alone,
            started_at: self.accounts.now(),
            spaces: self,
            source,
            missed: BTreeSet::new(),
            work: JoinSet::new(),
            busy: BTreeSet::new(),
            fetchers: Arc::new(Semaphore::new(FETCHERS)),
            here: BTreeSet::new(),
            is_idle: false,
            blind: 0,
            told_at: None,
        };
        // It ends when the driver has.
        let _ = host.run().await;
    }

    /// Has other zones know of what is resident in this one, and no longer of what is not.
    async fn mend_stubs(&self) -> Result<(), AccountError> {
        let wrong: Vec<SpaceRecord> = {
            let directory = self.accounts.directory();
            let known = directory.spaces();
            let is_wrong = |record: &&SpaceRecord| {
                let told = known.told_elsewhere(&record.id);
                record.resident
                    && match record.wanted {
                        Wanted::Deleted => told.is_some(),
                        Wanted::Running | Wanted::Stopped => told != Some(&Stub::of(record)),
                    }
            };
            known.records().values().filter(is_wrong).cloned().collect()
        };
        for record in wrong {
            self.tell_elsewhere(&record).await?;
        }
        Ok(())
    }
}

impl Host {
    async fn run(mut self) -> Result<(), Stopped> {
        self.spaces.accounts.ready().await?;
        self.missed = {
            let directory = self.spaces.accounts.directory();
            let records = directory.spaces().records().values();
            let asked = records.filter(|record| record.node_id == self.owner.node_id);
            asked.map(|record| (record.id.clone(), record.generation)).collect()
        };
        let mut feed = self.spaces.accounts.handle().subscribe();
        let mut looks = tokio::time::interval(LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle_until = Instant::now();
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    if self.is_idle && Instant::now() < idle_until {
                        continue;
                    }
                    if let Err(error) = self.spaces.mend_stubs().await {
                        tracing::debug!(%error, "other zones are told later what is resident here");
                    }
                }
                heard = feed.recv() => match heard {
                    Ok(summary) if summary.id.collection() == SPACES => {
                        tokio::time::sleep(QUIET).await;
                        self.spaces.accounts.caught_up().await?;
                        if !self.is_mine(summary.id.key()) {
                            continue;
                        }
                    }
                    Ok(_) => continue,
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Ok(()),
                },
                Some(done) = self.work.join_next() => {
                    // A worker that panicked has left its space busy for good, which is the least harm.
                    let Ok((space_id, is_done)) = done else { continue };
                    self.busy.remove(&space_id);
                    // What failed is tried again at the next tick.
                    if !is_done { continue }
                }
            }
            self.spaces.accounts.caught_up().await?;
            self.look().await?;
            idle_until = Instant::now() + IDLE_LOOKS;
        }
    }

    /// Whether a space is placed here, or something of it is here.
    fn is_mine(&self, space_id: &str) -> bool {
        let directory = self.spaces.accounts.directory();
        let record = directory.spaces().records().get(space_id);
        self.here.contains(space_id) || record.is_some_and(|record| record.node_id == self.owner.node_id)
    }

    async fn look(&mut self) -> Result<(), Stopped> {
        self.look_for_runtime().await;
        self.tell_facts().await?;
        let hosting = self.spaces.hosting();
        let Some(seen) = self.see(&hosting).await else { return Ok(()) };
        let altered = self.altered(seen.as_ref().ok()).await?;
        let (steps, records) = {
            let directory = self.spaces.accounts.directory();
            let spaces = altered.as_ref().unwrap_or_else(|| directory.spaces());
            let (records, reports) = (spaces.records(), spaces.reports());
            let known = Knowledge { node_id: &self.owner.node_id, records, reports, missed: &self.missed };
            let steps = match &seen {
                Ok(here) => decide(known, here),
                Err(missing) => without_runtime(known, missing),
            };
            let should_run =
                |record: &SpaceRecord| record.node_id == self.owner.node_id && record.wanted == Wanted::Running;
            let here = seen.unwrap_or_default();
            self.is_idle = here.containers.iter().all(|seen| seen.state != Container::Running)
                && !records.values().any(should_run);
            self.here = here.containers.into_iter().map(|seen| seen.space_id).chain(here.kept).collect();
            let named: BTreeSet<&String> = steps.iter().map(space_of).collect();
            let records: BTreeMap<String, SpaceRecord> =
                named.into_iter().filter_map(|id| Some((id.clone(), records.get(id)?.clone()))).collect();
            (steps, records)
        };
        self.begin(steps, &records, &hosting);
        Ok(())
    }

    /// What is here, or why nothing can be; none where that is to be asked again first.
    async fn see(&mut self, hosting: &Hosting) -> Option<Result<Here, String>> {
        let runtime = match hosting {
            Hosting::Not => {
                return Some(Err("this server runs no spaces, as it is configured: start it on another".to_owned()));
            }
            Hosting::Without(missing) => return Some(Err(missing.clone())),
            Hosting::On(runtime) => runtime,
        };
        match runtime.list().await {
            Ok(here) => {
                self.blind = 0;
                Some(Ok(here))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot see which spaces run");
                self.blind += 1;
                // It is looked for anew.
                self.spaces.hosting.send_replace(Hosting::Without(error.to_string()));
                (self.blind >= BLIND_MAX).then(|| Err(error.to_string()))
            }
        }
    }

    /// Has these steps done, those for one space one after another.
    fn begin(&mut self, steps: Vec<Step>, records: &BTreeMap<String, SpaceRecord>, hosting: &Hosting) {
        let mut by_space: BTreeMap<String, Vec<Step>> = BTreeMap::new();
        for step in steps {
            by_space.entry(space_of(&step).clone()).or_default().push(step);
        }
        for (space_id, steps) in by_space {
            let Some(record) = records.get(&space_id).cloned() else { continue };
            if !self.busy.insert(space_id.clone()) {
                continue;
            }
            let (spaces, fetchers, hosting) = (self.spaces.clone(), self.fetchers.clone(), hosting.clone());
            self.work.spawn(async move {
                let mut is_done = true;
                for step in steps {
                    is_done = match carry_out(&spaces, &hosting, &fetchers, &record, step).await {
                        Ok(is_done) => is_done,
                        Err(error) => {
                            tracing::warn!(space = space_id, %error, "a space is not as it should be: tried again soon");
                            false
                        }
                    };
                    if !is_done {
                        break;
                    }
                }
                (space_id, is_done)
            });
        }
    }

    /// What is known, where a bug on purpose knows otherwise.
    async fn altered(&self, here: Option<&Here>) -> Result<Option<Known>, Stopped> {
        let accounts = &self.spaces.accounts;
        let (takes_over, forgets) = (accounts.has(Defect::SilentIsTakenOver), accounts.has(Defect::StartIsRepeated));
        if !takes_over && !forgets {
            return Ok(None);
        }
        let servers = self.spaces.servers().await?;
        let mut known = accounts.directory().spaces().clone();
        if takes_over {
            known.take_over(&self.owner.node_id, |node| matches!(servers.state(node), Server::Silent(_)));
        } else if let Some(here) = here {
            known.forget_reports(here);
        }
        Ok(Some(known))
    }

    async fn look_for_runtime(&self) {
        if self.spaces.hosting().platform().is_some() {
            return;
        }
        let sockets = match &self.source {
            Source::Runtime(Sockets::None, _) => return,
            Source::Runtime(sockets, _) => sockets,
            Source::Simulated(containers) => {
                self.spaces.hosting.send_replace(Hosting::On(containers.clone()));
                return;
            }
        };
        let found = match sockets.places() {
            Ok(places) => Runtime::find(&places, self.owner.clone()).await,
            Err(missing) => Err(missing),
        };
        let hosting = match found {
            Ok(runtime) => {
                tracing::info!(runtime = runtime.name(), socket = %runtime.socket().display(), "spaces can run here");
                Hosting::On(Arc::new(runtime))
            }
            Err(missing) => Hosting::Without(missing.to_string()),
        };
        self.spaces.hosting.send_replace(hosting);
    }
}

/// Why a step was not carried out.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// Gives whether it was done for good, so that what comes next may be looked at.
async fn carry_out(
    spaces: &Spaces,
    hosting: &Hosting,
    fetchers: &Semaphore,
    record: &SpaceRecord,
    step: Step,
) -> Result<bool, StepError> {
    match (step, hosting) {
        (Step::Report { report, .. }, _) => spaces.report(record, report).await?,
        (Step::Start { generation, .. }, Hosting::On(runtime)) => {
            return start::start(spaces, &**runtime, fetchers, record, generation).await;
        }
        (Step::Stop { space_id }, Hosting::On(runtime)) => runtime.stop(&space_id).await?,
        (Step::Remove { space_id, with_volumes }, Hosting::On(runtime)) => {
            runtime.remove(&space_id, with_volumes).await?;
        }
        // Without a runtime nothing is asked for but reports.
        (Step::Start { .. } | Step::Stop { .. } | Step::Remove { .. }, Hosting::Not | Hosting::Without(_)) => {}
    }
    Ok(true)
}

fn space_of(step: &Step) -> &String {
    match step {
        Step::Start { space_id, .. }
        | Step::Stop { space_id }
        | Step::Remove { space_id, .. }
        | Step::Report { space_id, .. } => space_id,
    }
}
