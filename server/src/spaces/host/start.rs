//! Starting a space: from its record to a container, and what came of it.

use std::time::Duration;

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::StepError;
use crate::accounts::{AccountError, Directory, User};
use crate::simulated::Defect;
use crate::spaces::agent;
use crate::spaces::record::{Report, SPACE_STATES, SpaceRecord};
use crate::spaces::runtime::{Progress, Start};
use crate::spaces::spec::{ContainerSpec, container};
use crate::spaces::{Containers, Spaces};
use crate::templates::{self, Complaint, Template, TemplateVariable, effective};

/// How long a start waits for its template and its owner to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);
/// How often it looks for them.
const ARRIVES_LOOKS: Duration = Duration::from_millis(500);
/// Longest that is shown of how far a start is, in characters.
const PROGRESS_CHARS_MAX: usize = 200;

impl Spaces {
    /// Writes what became of a start, unless something else is wanted by now.
    pub(super) async fn report(&self, record: &SpaceRecord, report: Report) -> Result<(), AccountError> {
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
}

/// Starts a space, and says what came of it. That it runs is seen at the next look. After whatever takes long, it is looked
/// again at what is wanted.
pub(super) async fn start(
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
