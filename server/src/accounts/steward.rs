//! What has to be done about accounts that nobody asks for: whoever has a name that another has is given another for
//! good, and tokens that nobody uses go.
//!
//! One server does it, the one with the lowest id of those that are alive as it sees them. Where servers are apart several
//! do, and that is no harm: all write the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use knot_engine::documents::{Edit, Scope};
use knot_engine::membership::Status;
use knot_engine::{EtagMatch, Precondition};
use serde_json::json;

use super::names::otherwise;
use super::{AUDIT, AccountError, Accounts, AuditEntry, TOKENS, Token, USERS, audit};
use crate::simulated::Defect;

/// How often it is seen whether there is anything to do.
const ROUND: Duration = Duration::from_secs(5);
/// How many rounds pass between two looks at all tokens: an hour.
const TOKEN_ROUNDS: u64 = 720;
/// How long a token may be unused, in milliseconds: two weeks, and the hour to which uses are kept.
const UNUSED_MS: i64 = (14 * 24 + 1) * 3_600_000;
/// How long before the last entry of the audit log may be where tokens end by the clock, in milliseconds: two days. A
/// clock that is far off would end all of them.
const CLOCK_MS: u64 = 2 * 24 * 3_600_000;

impl Accounts {
    /// Runs for as long as the server does.
    pub async fn keep(self: Arc<Self>) {
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for round in 0_u64.. {
            rounds.tick().await;
            let kept = self.keep_once(round % TOKEN_ROUNDS == TOKEN_ROUNDS / 2).await;
            match kept {
                Ok(()) => {}
                Err(AccountError::Stopped) => return,
                // A full disk, say: there is another round.
                Err(error) => tracing::debug!(%error, "accounts are kept later"),
            }
        }
    }

    async fn keep_once(&self, with_tokens: bool) -> Result<(), AccountError> {
        self.ready().await?;
        if self.has(Defect::NamesByArrival) || !self.is_first().await? {
            return Ok(());
        }
        let misnamed: Vec<String> = self.directory().misnamed().map(|user| user.id.clone()).collect();
        for id in misnamed {
            match self.rename(&id).await {
                Err(AccountError::Stopped) => return Err(AccountError::Stopped),
                // Another round may do it; the others are renamed all the same.
                Err(error) => tracing::warn!(%error, user = id, "cannot give a user another name"),
                Ok(()) => {}
            }
        }
        if with_tokens { self.end_unused_tokens().await } else { Ok(()) }
    }

    /// Whether this server is the one of those alive that does what one is to do.
    async fn is_first(&self) -> Result<bool, AccountError> {
        let look = |engine: &mut crate::handle::ServerEngine, _| {
            let me = engine.me().record.node;
            engine.members().filter(|member| member.status == Status::Alive).all(|member| member.record.node >= me)
        };
        Ok(self.handle.look(look).await?)
    }

    /// Has a user be called for good what they are called since another has their name, unless somebody has given them
    /// another meanwhile. Every server that does it writes the same, also to the audit log.
    async fn rename(&self, id: &str) -> Result<(), AccountError> {
        let _turn = self.turn.lock().await;
        self.caught_up().await?;
        let Some(view) = self.view(USERS, id).await? else { return Ok(()) };
        let Some(user) = self.directory().misnamed().find(|user| user.id == id).cloned() else { return Ok(()) };
        let name = otherwise(&user.username, &user.id);
        let patch = json!({"username": name, "renamed_from": user.username});
        let unchanged =
            Precondition { if_match: Some(EtagMatch::OneOf(vec![view.summary.etag])), ..Precondition::default() };
        self.edit(USERS, &user.id, Edit::MergePatch(patch), unchanged).await?;
        let said =
            format!("{} is called {name}: another user has the name, from while servers were apart", user.username);
        let (id, about) =
            (audit::key(user.username_at, &format!("renamed-{}", user.id)), audit::about([("user_id", &user.id)]));
        let entry = AuditEntry::of_knot(id, "user.rename", user.username_at, said, about);
        self.merge(AUDIT, &entry.id, entry.document()).await
    }

    /// Whether this server's clock can be right: the latest that is known to have been done anywhere was not long before.
    async fn is_clock_plausible(&self) -> Result<bool, AccountError> {
        let latest = |engine: &mut crate::handle::ServerEngine, _| engine.list(&Scope::Global, AUDIT, "", None, 1);
        let latest = self.handle.look(latest).await?;
        let now = self.now();
        Ok(latest.first().is_some_and(|entry| now.abs_diff(entry.modified.0) < CLOCK_MS))
    }

    /// Ends tokens that have not been used for two weeks, but only where every server is known to hold just what this one
    /// does: none can then hold a later use.
    async fn end_unused_tokens(&self) -> Result<(), AccountError> {
        if !self.is_clock_plausible().await? || !self.handle.look(|engine, _| engine.is_held_by_all()).await? {
            return Ok(());
        }
        let now = self.now();
        let old = |token: &&Token| token.created_at < now.saturating_sub(UNUSED_MS);
        let old: Vec<Token> = self.directory().tokens().filter(old).cloned().collect();
        let mut unused = BTreeMap::new();
        for token in old {
            let last = self.last_use(&token.id).await?.unwrap_or(token.created_at);
            if last < now.saturating_sub(UNUSED_MS) || !token.is_good(now) {
                unused.insert(token.id.clone(), token);
            }
        }
        for (id, token) in unused {
            self.merge(TOKENS, &id, Token::revocation(now)).await?;
            let said = format!("removed the token {:?}, which was not used for two weeks or is over", token.name);
            let (key, about) = (audit::key(now, &format!("unused-{id}")), audit::about([("token_id", &id)]));
            let expired = AuditEntry::of_knot(key, "token.expire", now, said, about);
            let entry = AuditEntry { zone: self.zone.to_string(), ..expired };
            self.merge(AUDIT, &entry.id, entry.document()).await?;
        }
        Ok(())
    }
}
