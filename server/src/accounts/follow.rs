//! Keeps the [`Directory`] at what the documents say: reads all at a start, then what changes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use knot_engine::documents::{DocumentId, Scope};
use knot_engine::{ReadError, Summary};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Accounts, Followed, GROUPS, ROLES, TOKENS, USERS};
use crate::handle::{ServerEngine, Stopped};
use crate::simulated::Defect;
use crate::spaces::{SERVERS, SPACE_STATES, SPACE_STUBS, SPACES};
use crate::templates::{TEMPLATE_VARIABLES, TEMPLATES};

/// What the directory is made of besides tokens, in the order in which it is read at a start.
const COLLECTIONS: [&str; 9] =
    [ROLES, GROUPS, USERS, TEMPLATES, TEMPLATE_VARIABLES, SERVERS, SPACES, SPACE_STATES, SPACE_STUBS];
/// What of it may be kept in this server's zone alone.
const COLLECTIONS_OF_ZONE: [&str; 2] = [SPACES, SPACE_STATES];
/// Documents that are looked for at once.
const PAGE: usize = 512;
/// Documents that are read at once.
const READS_MAX: usize = 16;
/// How long to wait when too many others read.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Tells those who wait that nothing more comes, however it ends.
struct End<'a>(&'a watch::Sender<Followed>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.send_replace(Followed::NoMore);
    }
}

impl Accounts {
    /// Runs for as long as the server does.
    pub async fn follow(self: Arc<Self>) {
        let _end = End(&self.followed);
        // It ends when the driver has.
        let _ = self.keep_up().await;
    }

    async fn keep_up(&self) -> Result<(), Stopped> {
        let mut cursor = self.handle.look(|engine, _| engine.sequence()).await?;
        let global = COLLECTIONS.into_iter().map(|collection| (Scope::Global, collection));
        let own = COLLECTIONS_OF_ZONE.into_iter().map(|collection| (self.own_scope(), collection));
        for (scope, collection) in global.chain(own) {
            let mut after = None;
            while let Some(from) = self.take_page(&scope, collection, after.take()).await? {
                after = Some(from);
            }
        }
        self.followed.send_replace(Followed::ButTokens);
        let mut after = None;
        while let Some(from) = self.take_page(&Scope::Global, TOKENS, after.take()).await? {
            after = Some(from);
            // Tokens are by far the most. What is changed of the rest meanwhile does not wait for them.
            while self.take_changes(&mut cursor).await? {}
        }
        loop {
            let mut feed = self.handle.subscribe();
            while self.take_changes(&mut cursor).await? {}
            self.followed.send_replace(Followed::UpTo(cursor));
            loop {
                match feed.recv().await {
                    Ok(summary) if summary.sequence > cursor => {
                        cursor = summary.sequence;
                        self.take_over(&[summary]).await?;
                        self.followed.send_replace(Followed::UpTo(cursor));
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Ok(()),
                }
            }
        }
    }

    /// Takes over some documents of a collection; gives the last one's key where there may be more.
    async fn take_page(
        &self,
        scope: &Scope,
        collection: &'static str,
        after: Option<String>,
    ) -> Result<Option<String>, Stopped> {
        let scope = scope.clone();
        let list = move |engine: &mut ServerEngine, _| engine.list(&scope, collection, "", after.as_deref(), PAGE);
        let page = self.handle.look(list).await?;
        self.take_over(&page).await?;
        Ok(page.last().filter(|_| page.len() == PAGE).map(|last| last.id.key().to_owned()))
    }

    /// Takes over some of what has changed since; says whether there may be more.
    async fn take_changes(&self, cursor: &mut u64) -> Result<bool, Stopped> {
        let since = *cursor;
        let page = self.handle.look(move |engine, _| engine.changes_since(since, PAGE)).await?;
        self.take_over(&page).await?;
        *cursor = page.last().map_or(since, |last| last.sequence);
        Ok(page.len() == PAGE)
    }

    /// Reads those of these documents that the directory is made of.
    async fn take_over(&self, summaries: &[Summary]) -> Result<(), Stopped> {
        let own = self.own_scope();
        let is_ours = |summary: &&Summary| match summary.id.scope() {
            Scope::Global => COLLECTIONS.contains(&summary.id.collection()) || summary.id.collection() == TOKENS,
            scope => *scope == own && COLLECTIONS_OF_ZONE.contains(&summary.id.collection()),
        };
        let mut wanted: VecDeque<DocumentId> =
            summaries.iter().filter(is_ours).map(|summary| summary.id.clone()).collect();
        while !wanted.is_empty() {
            let mut reads = JoinSet::new();
            for id in wanted.drain(..wanted.len().min(READS_MAX)) {
                let handle = self.handle.clone();
                reads.spawn(async move { (id.clone(), handle.read(id, false).await) });
            }
            // Their order does not matter: each says what its document is now.
            for (id, answer) in reads.join_all().await {
                let value = match answer? {
                    Ok(view) => Some(view.value),
                    Err(ReadError::NotFound | ReadError::Gone { .. }) => None,
                    Err(ReadError::Busy) => {
                        wanted.push_back(id);
                        tokio::time::sleep(BUSY_PAUSE).await;
                        continue;
                    }
                    Err(error) => {
                        tracing::error!(document = %id, %error, "cannot read an account: it stays as it was known");
                        continue;
                    }
                };
                let value = value.map(|value| self.as_heard_of(id.key(), value));
                self.directory_mut().apply(id.collection(), id.key(), value.as_ref());
            }
        }
        Ok(())
    }

    fn own_scope(&self) -> Scope {
        Scope::Zone(self.zone.as_ref().into())
    }

    /// What a document says, but for a bug on purpose.
    fn as_heard_of(&self, id: &str, mut value: Value) -> Value {
        if self.has(Defect::NamesByArrival)
            && let Some(user) = value.as_object_mut()
        {
            let known = self.directory().user(id).map(|user| user.username_at);
            user.insert("username_at".to_owned(), known.unwrap_or_else(|| self.now()).into());
        }
        if self.has(Defect::DeletedSpaceReturns)
            && let Some(record) = value.as_object_mut()
            && record.contains_key("space_id")
        {
            record.remove("deleted_at");
        }
        value
    }

    /// Waits until the directory holds all that is durable here by now.
    pub(crate) async fn caught_up(&self) -> Result<(), Stopped> {
        let wanted = self.handle.look(|engine, _| engine.sequence()).await?;
        self.followed_until(|known| matches!(known, Followed::UpTo(known) if *known >= wanted)).await
    }

    async fn followed_until(&self, is_enough: impl Fn(&Followed) -> bool) -> Result<(), Stopped> {
        let mut followed = self.followed.subscribe();
        let known = followed.wait_for(|known| *known == Followed::NoMore || is_enough(known)).await;
        if known.is_ok_and(|known| *known != Followed::NoMore) { Ok(()) } else { Err(Stopped) }
    }

    /// Waits until the directory has been read once, but for tokens.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn ready(&self) -> Result<(), Stopped> {
        self.followed_until(|known| *known != Followed::Not).await
    }
}
