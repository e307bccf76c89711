//! Running what is placed on this server: looks at what is wanted and at what runs, again and again, and does what the
//! comparison asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use knot_engine::Summary;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::agent::{self, Step, decide, without_runtime};
use super::known::{Facts, Known, SERVERS};
use super::record::{Report, SPACE_STATES, SPACES, Server, SpaceRecord};
use super::runtime::{Missing, Owner, Progress, Runtime, RuntimeError, Start, sockets};
use super::spec::{ContainerSpec, container};
use super::{Containers, Spaces};
use crate::accounts::{AccountError, Directory};
use crate::handle::{ServerEngine, Stopped};
use crate::records;
use crate::simulated::Defect;
use crate::templates::{self, Complaint, Platform, Template, TemplateVariable, effective};

/// How often it is looked at what runs, while anything does or should.
const LOOKS: Duration = Duration::from_secs(5);
/// How often a runtime is looked for where there is none, and what runs where nothing should.
const IDLE_LOOKS: Duration = Duration::from_secs(30);
/// What happens within so long is looked at once.
const QUIET: Duration = Duration::from_millis(50);
/// How many spaces are started, stopped or removed at once.
const WORKERS: usize = 4;
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
    Simulated(Arc<dyn Containers>, Option<Defect>),
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
    started_at: i64,
    /// What is being done, and for which spaces.
    work: JoinSet<(String, bool)>,
    busy: BTreeSet<String>,
    workers: Arc<Semaphore>,
    /// Whether there was anything here at the last look.
    is_idle: bool,
    told_at: Option<Instant>,
}

impl Spaces {
    /// Runs the spaces that are placed on this server, for as long as it runs. `cluster` is told to the runtime, for
    /// servers that share one.
    pub async fn host(self: Arc<Self>, source: Source, cluster: String) {
        let host = Host {
            owner: Owner { cluster, node_id: self.node_id.clone() },
            started_at: self.accounts.now(),
            spaces: self,
            source,
            work: JoinSet::new(),
            busy: BTreeSet::new(),
            workers: Arc::new(Semaphore::new(WORKERS)),
            is_idle: false,
            told_at: None,
        };
        // It ends when the driver has.
        let _ = host.run().await;
    }

    /// Takes a report down as this server's.
    async fn report(&self, record: &SpaceRecord, report: Report) -> Result<(), AccountError> {
        let report = Report { at: self.accounts.now(), ..report };
        let held = self.accounts.read_in(record.scope(), SPACE_STATES, &record.id).await?;
        if let Some(patch) = report.patch(&held.unwrap_or_else(|| serde_json::json!({}))) {
            self.accounts.merge_in(record.scope(), SPACE_STATES, &record.id, patch).await?;
        }
        Ok(())
    }

    /// What a space is to run, from all that is known here.
    fn spec(&self, directory: &Directory, record: &SpaceRecord) -> Result<ContainerSpec, String> {
        let gone = "its template was deleted: delete the space, or make the template anew and the space from it";
        let template = directory.template(&record.template_id).ok_or(gone)?;
        let said =
            |complaints: Vec<Complaint>| complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        container(template, &self.facts(directory, template, record)).map_err(said)
    }

    fn facts(&self, directory: &Directory, template: &Template, record: &SpaceRecord) -> templates::Facts {
        let user = directory.user(&record.user_id).cloned().unwrap_or_default();
        let variables: Vec<TemplateVariable> = directory.variables().cloned().collect();
        templates::Facts {
            space_id: record.id.clone(),
            space_name: record.name.clone(),
            is_first_boot: record.generation <= 1,
            username: directory.username(&user).into_owned(),
            user_id: user.id,
            email: user.email,
            user_timezone: user.timezone,
            template_id: template.id.clone(),
            template_name: template.name.clone(),
            server_url: self.url.clone(),
            zone: self.zone.to_string(),
            server_timezone: String::new(),
            wildcard_domain: String::new(),
            base_image_registry: String::new(),
            custom: record.custom(template),
            variables: effective(&variables, &self.zone),
        }
    }
}

impl Host {
    async fn run(mut self) -> Result<(), Stopped> {
        self.spaces.accounts.ready().await?;
        let mut feed = self.spaces.accounts.handle().subscribe();
        let mut looks = tokio::time::interval(LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle_until = Instant::now();
        loop {
            tokio::select! {
                _ = looks.tick() => if self.is_idle && Instant::now() < idle_until { continue },
                heard = feed.recv() => match heard {
                    Ok(summary) if is_about_spaces(&summary) => tokio::time::sleep(QUIET).await,
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
            // What came meanwhile is looked at now, together.
            while feed.try_recv().is_ok() {}
            self.spaces.accounts.caught_up().await?;
            self.look().await?;
            idle_until = Instant::now() + IDLE_LOOKS;
        }
    }

    async fn look(&mut self) -> Result<(), Stopped> {
        self.look_for_runtime().await;
        self.tell_facts().await?;
        let hosting = self.spaces.hosting();
        let here = match &hosting {
            Hosting::Not => return Ok(()),
            Hosting::Without(_) => None,
            Hosting::On(runtime) => match runtime.list().await {
                Ok(here) => Some(here),
                Err(error) => {
                    // It is looked for anew, and only if it is gone then, something is said of spaces.
                    tracing::warn!(%error, "cannot see which spaces run");
                    self.spaces.hosting.send_replace(Hosting::Without(error.to_string()));
                    return Ok(());
                }
            },
        };
        let altered = self.altered().await?;
        let (steps, records) = {
            let directory = self.spaces.accounts.directory();
            let known = altered.as_ref().unwrap_or_else(|| directory.spaces());
            let (records, reports) = (known.records(), known.reports());
            let node = &self.owner.node_id;
            let steps = match (&here, &hosting) {
                (Some(here), _) => decide(node, records, reports, here),
                (None, Hosting::Without(missing)) => without_runtime(node, records, reports, missing),
                (None, Hosting::Not | Hosting::On(_)) => Vec::new(),
            };
            let is_mine = |record: &&SpaceRecord| record.node_id == *node;
            self.is_idle = here.as_ref().is_none_or(|here| here.containers.is_empty())
                && !records.values().any(|record| is_mine(&record));
            let named: BTreeSet<&String> = steps.iter().map(space_of).collect();
            let records: BTreeMap<String, SpaceRecord> =
                named.into_iter().filter_map(|id| Some((id.clone(), records.get(id)?.clone()))).collect();
            (steps, records)
        };
        let mut by_space: BTreeMap<String, Vec<Step>> = BTreeMap::new();
        for step in steps {
            by_space.entry(space_of(&step).clone()).or_default().push(step);
        }
        for (space_id, steps) in by_space {
            if !self.busy.insert(space_id.clone()) {
                continue;
            }
            let record = records.get(&space_id).cloned();
            let (spaces, workers, hosting) = (self.spaces.clone(), self.workers.clone(), hosting.clone());
            self.work.spawn(async move {
                let _worker = workers.acquire_owned().await;
                let mut is_done = true;
                for step in steps {
                    let outcome = carry_out(&spaces, &hosting, record.as_ref(), step).await;
                    if let Err(error) = outcome {
                        tracing::warn!(space = space_id, %error, "a space is not as it should be: tried again soon");
                        is_done = false;
                        break;
                    }
                }
                (space_id, is_done)
            });
        }
        Ok(())
    }

    /// What is known, where a bug on purpose knows otherwise.
    async fn altered(&self) -> Result<Option<Known>, Stopped> {
        let Source::Simulated(_, Some(defect)) = &self.source else { return Ok(None) };
        let servers = self.spaces.servers().await?;
        let mut known = self.spaces.accounts.directory().spaces().clone();
        if *defect == Defect::SilentIsTakenOver {
            known.take_over(&self.owner.node_id, |node| matches!(servers.state(node), Server::Silent(_)));
        } else if *defect == Defect::StartIsRepeated {
            known.forget_reports();
        } else {
            return Ok(None);
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
            Source::Simulated(containers, _) => {
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

    /// Tells the others what this server is, where that is news.
    async fn tell_facts(&mut self) -> Result<(), Stopped> {
        let hosting = self.spaces.hosting();
        let told = self.spaces.accounts.directory().spaces().server(&self.owner.node_id).cloned().unwrap_or_default();
        let (platform, runtime, missing) = match &hosting {
            Hosting::Not => (String::new(), String::new(), String::new()),
            Hosting::Without(missing) => (String::new(), String::new(), missing.clone()),
            Hosting::On(runtime) => (platform_name(runtime.platform()), runtime.name(), String::new()),
        };
        let facts = Facts { started_at: self.started_at, platform, runtime, missing, ..told.clone() };
        let is_news = facts != told;
        if !is_news && self.told_at.is_some_and(|at| at.elapsed() < SIZES_INTERVAL) {
            return Ok(());
        }
        self.told_at = Some(Instant::now());
        let count = |engine: &mut ServerEngine, _| engine.scopes().iter().map(|scope| scope.documents).sum();
        let documents: u64 = self.spaces.accounts.handle().look(count).await?;
        let bytes = match self.source.clone() {
            Source::Runtime(_, data_dir) => tokio::task::spawn_blocking(move || bytes_in(&data_dir)).await,
            Source::Simulated(..) => Ok(0),
        };
        let bytes = bytes.unwrap_or_default();
        if !is_news && told.documents.abs_diff(documents) * 10 < documents && told.bytes.abs_diff(bytes) * 10 < bytes {
            return Ok(());
        }
        let facts = Facts { documents, bytes, at: self.spaces.accounts.now(), ..facts };
        if let Err(error) = self.spaces.say(&facts).await {
            // A full disk, say: there is another look.
            tracing::debug!(%error, "the others are told later what this server is");
            self.told_at = None;
        }
        Ok(())
    }
}

impl Spaces {
    async fn say(&self, facts: &Facts) -> Result<(), AccountError> {
        let scope = knot_engine::documents::Scope::Global;
        let held = self.accounts.read_in(scope.clone(), SERVERS, &self.node_id).await?;
        match records::patch(&held.unwrap_or_else(|| serde_json::json!({})), facts) {
            Some(patch) => self.accounts.merge_in(scope, SERVERS, &self.node_id, patch).await,
            None => Ok(()),
        }
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

async fn carry_out(
    spaces: &Spaces,
    hosting: &Hosting,
    record: Option<&SpaceRecord>,
    step: Step,
) -> Result<(), StepError> {
    match (step, hosting, record) {
        (Step::Report { report, .. }, _, Some(record)) => Ok(spaces.report(record, report).await?),
        (Step::Start { .. }, Hosting::On(runtime), Some(record)) => start(spaces, &**runtime, record).await,
        (Step::Stop { space_id }, Hosting::On(runtime), _) => Ok(runtime.stop(&space_id).await?),
        (Step::Remove { space_id, with_volumes }, Hosting::On(runtime), _) => {
            Ok(runtime.remove(&space_id, with_volumes).await?)
        }
        // Without a runtime nothing is asked for but reports, and those are on records.
        (Step::Report { .. } | Step::Start { .. } | Step::Stop { .. } | Step::Remove { .. }, _, _) => Ok(()),
    }
}

/// Starts a space, and says what came of it. That it runs is seen at the next look.
async fn start(spaces: &Spaces, runtime: &dyn Containers, record: &SpaceRecord) -> Result<(), StepError> {
    let spec = spaces.spec(&spaces.accounts.directory(), record);
    let spec = match spec {
        Ok(spec) => spec,
        Err(wrong) => return Ok(spaces.report(record, agent::failed(record, &wrong)).await?),
    };
    spaces.report(record, agent::starting(record)).await?;
    let wanted = Start { space_id: &record.id, generation: record.generation, spec: &spec };
    let mut progress = |progress: Progress| spaces.set_progress(&record.id, Some(said(&progress)));
    let started = runtime.start(wanted, &mut progress).await;
    spaces.set_progress(&record.id, None);
    if let Err(error) = started {
        tracing::info!(space = record.id, %error, "a space was not started");
        spaces.report(record, agent::failed(record, &error.to_string())).await?;
    }
    Ok(())
}

fn said(progress: &Progress) -> String {
    let Progress { part, status, bytes } = progress;
    let part = if part.is_empty() { String::new() } else { format!("{part}: ") };
    match bytes {
        Some((done, all)) if *all > 0 => format!("{part}{status}, {done} of {all} bytes"),
        Some(_) | None => format!("{part}{status}"),
    }
}

fn space_of(step: &Step) -> &String {
    match step {
        Step::Start { space_id, .. }
        | Step::Stop { space_id }
        | Step::Remove { space_id, .. }
        | Step::Report { space_id, .. } => space_id,
    }
}

fn is_about_spaces(summary: &Summary) -> bool {
    matches!(summary.id.collection(), SPACES | SPACE_STATES)
}

fn platform_name(platform: Platform) -> String {
    let name = Platform::NAMES.iter().find(|(_, known)| *known == platform);
    name.map(|(name, _)| (*name).to_owned()).unwrap_or_default()
}

/// What the files of a folder take, as far as it can be seen.
fn bytes_in(folder: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
}
