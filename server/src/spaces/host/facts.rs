//! What a server tells the others of itself: since when it is up, what it has to run spaces on, how much it holds.

use std::path::Path;

use knot_engine::documents::Scope;
use serde_json::json;
use tokio::time::Instant;

use super::{Host, Hosting, SIZES_INTERVAL, Source};
use crate::accounts::AccountError;
use crate::handle::{ServerEngine, Stopped};
use crate::records;
use crate::spaces::{Facts, SERVERS, Spaces};
use crate::templates::Platform;

impl Host {
    /// Tells the others what this server is, where that is news.
    pub(super) async fn tell_facts(&mut self) -> Result<(), Stopped> {
        let hosting = self.spaces.hosting();
        let told = self.spaces.own_facts().unwrap_or_default();
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
        if !self.is_alone
            && let Err(error) = self.spaces.say(&facts).await
        {
            // A full disk, say: there is another look.
            tracing::debug!(%error, "the others are told later what this server is");
            return Ok(());
        }
        self.spaces.set_own_facts(&facts);
        Ok(())
    }
}

impl Spaces {
    async fn say(&self, facts: &Facts) -> Result<(), AccountError> {
        let scope = Scope::Global;
        let held = self.accounts.read_in(scope.clone(), SERVERS, &self.node_id).await?;
        match records::patch(&held.unwrap_or_else(|| json!({})), facts) {
            Some(patch) => self.accounts.merge_in(scope, SERVERS, &self.node_id, patch).await,
            None => Ok(()),
        }
    }
}

fn platform_name(platform: Platform) -> String {
    let name = Platform::NAMES.iter().find(|(_, known)| *known == platform);
    name.map(|(name, _)| (*name).to_owned()).unwrap_or_default()
}

/// What the files of a folder take, as far as it can be seen.
fn bytes_in(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
}
