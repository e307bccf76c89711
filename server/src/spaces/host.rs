//! Running what is placed on this server: looks at what is wanted and at what runs, again and again, and does what the
//! comparison asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::agent::{self, Container, Here, Knowledge, Step, decide, without_runtime};
use super::known::{Facts, Known, SERVERS};
use super::record::{Report, SPACE_STATES, SPACES, Server, SpaceRecord, Wanted};
use super::runtime::{Missing, Owner, Progress, Runtime, RuntimeError, Start, sockets};
use super::spec::{ContainerSpec, container};
use super::{Containers, Spaces, Stub};
use crate::accounts::{AccountError, Directory, User};
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
/// How many images are fetched at once.
const FETCHERS: usize = 4;
/// How long a start waits for its template and its owner to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);
/// How often it looks for them.
const ARRIVES_LOOKS: Duration = Duration::from_millis(500);
/// How often in a row a runtime may not say what it holds until that is said of what waits for it.
const BLIND_MAX: u32 = 3;
/// Longest that is shown of how far a start is, in characters.
const PROGRESS_CHARS_MAX: usize = 200;
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
    /// servers that share one.
    pub async fn host(self: Arc<Self>, source: Source, cluster: String) {
        let host = Host {
            owner: Owner { cluster, node_id: self.node_id.clone() },
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

    /// Writes what became of a start, unless something else is wanted by now.
    async fn report(&self, record: &SpaceRecord, report: Report) -> Result<(), AccountError> {
        if !self.is_current(record) {
            return Ok(());
        }
        let report = Report { at: self.accounts.now(), ..report };
        let key = format!("{}.{}", record.id, self.node_id);
        let held = self.accounts.read_in(record.scope(), SPACE_STATES, &key).await?;
        if let Some(patch) = report.patch(&held.unwrap_or_else(|| json!({}))) {
            self.accounts.merge_in(record.scope(), SPACE_STATES, &key, patch).await?;
        }
        Ok(())
    }

    /// Whether a space is still to be as this record says.
    fn is_current(&self, record: &SpaceRecord) -> bool {
        if self.accounts.has(Defect::SilentIsTakenOver) {
            return true;
        }
        let directory = self.accounts.directory();
        let now = directory.spaces().records().get(&record.id);
        now.is_some_and(|now| {
            (&now.node_id, now.generation, now.wanted) == (&record.node_id, record.generation, record.wanted)
        })
    }

    /// What a space is to run, once all that it is made of has arrived here, or why it cannot.
    async fn spec(&self, record: &SpaceRecord) -> Result<ContainerSpec, String> {
        let until = Instant::now() + ARRIVES_WITHIN;
        loop {
            let spec = self.spec_now(&self.accounts.directory(), record);
            if let Some(spec) = spec {
                return spec;
            }
            if Instant::now() >= until {
                let error =
                    "its template or its owner is not known here, or was deleted: see to both, then start it again";
                return Err(error.to_owned());
            }
            tokio::time::sleep(ARRIVES_LOOKS).await;
        }
    }

    fn spec_now(&self, directory: &Directory, record: &SpaceRecord) -> Option<Result<ContainerSpec, String>> {
        let template = directory.template(&record.template_id)?;
        let user = directory.user(&record.user_id)?;
        let said =
            |complaints: Vec<Complaint>| complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Some(container(template, &self.facts(directory, template, user, record)).map_err(said))
    }

    fn facts(&self, directory: &Directory, template: &Template, user: &User, record: &SpaceRecord) -> templates::Facts {
        let variables: Vec<TemplateVariable> = directory.variables().cloned().collect();
        templates::Facts {
            space_id: record.id.clone(),
            space_name: record.name.clone(),
            is_first_boot: record.generation <= 1,
            user_id: user.id.clone(),
            username: directory.username(user).into_owned(),
            email: user.email.clone(),
            user_timezone: user.timezone.clone(),
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
        let altered = self.altered().await?;
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
    async fn altered(&self) -> Result<Option<Known>, Stopped> {
        let accounts = &self.spaces.accounts;
        let (takes_over, forgets) = (accounts.has(Defect::SilentIsTakenOver), accounts.has(Defect::StartIsRepeated));
        if !takes_over && !forgets {
            return Ok(None);
        }
        let servers = self.spaces.servers().await?;
        let mut known = accounts.directory().spaces().clone();
        if takes_over {
            known.take_over(&self.owner.node_id, |node| matches!(servers.state(node), Server::Silent(_)));
        } else {
            known.forget_reports();
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
            Source::Simulated(_) => Ok(0),
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
        match records::patch(&held.unwrap_or_else(|| json!({})), facts) {
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
            return start(spaces, &**runtime, fetchers, record, generation).await;
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

/// Starts a space, and says what came of it. That it runs is seen at the next look. After whatever takes long, it is looked
/// again at what is wanted.
async fn start(
    spaces: &Spaces,
    runtime: &dyn Containers,
    fetchers: &Semaphore,
    record: &SpaceRecord,
    generation: u64,
) -> Result<bool, StepError> {
    let as_run = SpaceRecord { generation, ..record.clone() };
    let spec = match spaces.spec(record).await {
        Ok(spec) => spec,
        Err(wrong) => return fail(spaces, record, agent::failed(&as_run, &wrong)).await,
    };
    spaces.report(record, agent::starting(&as_run)).await?;
    let fetched = {
        let _one_of_few = fetchers.acquire().await;
        let mut progress = |progress: Progress| spaces.set_progress(&record.id, Some(said(&progress)));
        let fetched = if spaces.is_current(record) { runtime.prepare(&spec, &mut progress).await } else { Ok(()) };
        spaces.set_progress(&record.id, None);
        fetched
    };
    if let Err(error) = fetched {
        return fail(spaces, record, agent::failed(&as_run, &error.to_string())).await;
    }
    spaces.accounts.caught_up().await.map_err(AccountError::from)?;
    if !spaces.is_current(record) {
        return Ok(true);
    }
    match runtime.start(Start { space_id: &record.id, generation, spec: &spec }).await {
        Ok(_) => Ok(true),
        Err(error) => fail(spaces, record, agent::failed(&as_run, &error.to_string())).await,
    }
}

async fn fail(spaces: &Spaces, record: &SpaceRecord, failed: Report) -> Result<bool, StepError> {
    tracing::info!(space = record.id, error = failed.error, "a space was not started");
    spaces.report(record, failed).await?;
    Ok(false)
}

fn said(progress: &Progress) -> String {
    let Progress { part, status, bytes } = progress;
    let part = if part.is_empty() { String::new() } else { format!("{part}: ") };
    let said = match bytes {
        Some((done, all)) if *all > 0 => format!("{part}{status}, {done} of {all} bytes"),
        Some(_) | None => format!("{part}{status}"),
    };
    // A registry has chosen these words.
    said.chars().filter(|c| !c.is_control()).take(PROGRESS_CHARS_MAX).collect()
}

fn space_of(step: &Step) -> &String {
    match step {
        Step::Start { space_id, .. }
        | Step::Stop { space_id }
        | Step::Remove { space_id, .. }
        | Step::Report { space_id, .. } => space_id,
    }
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
