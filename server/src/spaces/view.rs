//! Spaces as people are shown them: what is wanted, what was reported and what is known of the server, put together.

use super::operations::{Found, find, may_change, may_see, may_see_stub};
use super::record::{Report, Shown, SpaceRecord, Wanted, shown};
use super::servers::Servers;
use super::{Spaces, Stub};
use crate::accounts::{AccountError, Caller, Directory, Refusal};

/// One space.
#[derive(Clone, Debug)]
pub struct View {
    /// What is wanted of it.
    pub record: SpaceRecord,
    /// How it is.
    pub shown: Shown,
    /// What its server said of this start.
    pub report: Option<Report>,
    /// What its owner is called.
    pub owner: String,
    /// What its template is called.
    pub template: String,
    /// What its server is called; empty if it has none.
    pub server: String,
    /// With whom it is shared: ids, and what they are called.
    pub shares: Vec<(String, String)>,
    /// How far its start is, where this server makes it.
    pub progress: Option<String>,
    /// Whether whoever sees it may change it, too.
    pub may_change: bool,
}

/// A space that is resident elsewhere.
#[derive(Clone, Debug)]
pub struct Away {
    /// All that is known of it.
    pub stub: Stub,
    /// What its owner is called.
    pub owner: String,
    /// Servers that know more.
    pub urls: Vec<String>,
}

/// What somebody sees.
#[derive(Clone, Debug, Default)]
pub struct Views {
    /// Spaces whose documents are here, by name.
    pub here: Vec<View>,
    /// Those that are resident in other zones.
    pub away: Vec<Away>,
}

impl View {
    /// A word for how it is.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.shown {
            Shown::Pending => "pending",
            Shown::Starting => "starting",
            Shown::Running => "running",
            Shown::Stopping => "stopping",
            Shown::Stopped => "stopped",
            Shown::Failed { .. } => "failed",
            Shown::Unreachable { .. } => "unreachable",
            Shown::Deleting => "deleting",
            Shown::Removed => "removed",
        }
    }

    /// Why it failed.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        if let Shown::Failed { error } = &self.shown { Some(error) } else { None }
    }

    /// Since when its server is silent, in milliseconds since 1970.
    #[must_use]
    pub fn silent_since(&self) -> Option<i64> {
        if let Shown::Unreachable { since } = self.shown { since } else { None }
    }

    /// When its container was started, in milliseconds since 1970, where it runs as far as is known.
    #[must_use]
    pub fn started_at(&self) -> Option<i64> {
        let runs = matches!(self.shown, Shown::Running | Shown::Unreachable { .. });
        self.report.as_ref().filter(|_| runs).map(|report| report.started_at).filter(|at| *at > 0)
    }
}

impl Spaces {
    /// The spaces that `by` sees.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn list(&self, by: &Caller) -> Result<Views, AccountError> {
        self.accounts.caught_up().await?;
        let servers = self.servers().await?;
        let directory = self.accounts.directory();
        let records = directory.spaces().records().values().filter(|record| may_see(by, record));
        let mut here: Vec<View> = records.map(|record| self.view(by, &directory, &servers, record)).collect();
        here.retain(|view| view.shown != Shown::Removed);
        here.sort_by_cached_key(|view| (view.record.name.to_lowercase(), view.owner.clone(), view.record.id.clone()));
        let stubs = directory.spaces().stubs().filter(|stub| may_see_stub(by, stub));
        let away = stubs.map(|stub| away(&directory, &servers, stub)).collect();
        Ok(Views { here, away })
    }

    /// One space that `by` sees.
    ///
    /// # Errors
    /// When there is none, it is kept elsewhere, or the server stops.
    pub async fn read(&self, by: &Caller, id: &str) -> Result<View, AccountError> {
        self.accounts.caught_up().await?;
        let servers = self.servers().await?;
        let directory = self.accounts.directory();
        match find(by, &directory, id)? {
            Found::Here(record, _) => {
                let view = self.view(by, &directory, &servers, &record);
                if view.shown == Shown::Removed { Err(Refusal::Unknown("space").into()) } else { Ok(view) }
            }
            Found::Away(stub) => {
                let urls = servers.urls_in(&stub.zone);
                Err(AccountError::Elsewhere { zone: stub.zone, urls })
            }
        }
    }

    fn view(&self, by: &Caller, directory: &Directory, servers: &Servers, record: &SpaceRecord) -> View {
        let report = directory.spaces().report(record);
        let template = directory.template(&record.template_id);
        let name_of = |id: &String| (id.clone(), name_of(directory, id));
        View {
            shown: shown(record, report, servers.state(&record.node_id)),
            report: report.filter(|report| report.is_of(record)).cloned(),
            owner: name_of(&record.user_id).1,
            template: template.map(|template| directory.template_name(template).into_owned()).unwrap_or_default(),
            server: servers.name(&record.node_id).to_owned(),
            shares: record.shares.iter().filter(|(_, is_in)| **is_in).map(|(id, _)| name_of(id)).collect(),
            may_change: may_change(by, record),
            progress: self.progress_of(&record.id).filter(|_| record.wanted == Wanted::Running),
            record: record.clone(),
        }
    }
}

fn away(directory: &Directory, servers: &Servers, stub: &Stub) -> Away {
    Away { stub: stub.clone(), owner: name_of(directory, &stub.user_id), urls: servers.urls_in(&stub.zone) }
}

fn name_of(directory: &Directory, user: &str) -> String {
    directory.user(user).map(|user| directory.username(user).into_owned()).unwrap_or_default()
}
