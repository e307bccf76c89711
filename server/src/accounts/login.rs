//! Logging in and out, and who comes with which session or token.

use std::net::IpAddr;
use std::sync::Arc;

use knot_engine::documents::{Edit, Scope};
use knot_engine::{Etag, EtagMatch, Precondition, Wall};
use serde_json::{Map, Value, json};

use super::audit::about;
use super::fields::{text, time};
use super::{
    AccountError, Accounts, Caller, EMAIL_BYTES_MAX, FAILURES, PASSWORDS, Permission, Refusal, SESSIONS, Secret,
    Session, SessionKey, TOKENS, Token, USES, User, Verdict, tries,
};
use crate::hosts;
use crate::simulated::Defect;

/// Sessions of one user that are looked for at once.
const SESSIONS_PAGE: usize = 500;
/// How coarsely the last use of a token is kept, in milliseconds: one hour.
const USE_MS: i64 = 3_600_000;

/// From where somebody logs in.
#[derive(Clone, Debug)]
pub struct LoginFrom {
    /// The address.
    pub address: IpAddr,
    /// What the browser calls itself.
    pub agent: String,
    /// What session it has shown.
    pub session: Option<SessionKey>,
}

impl Accounts {
    /// Logs in by e-mail address or user name; gives what the browser is to keep.
    ///
    /// # Errors
    /// When it is wrong, too often wrong, or cannot be written.
    pub async fn login(
        self: &Arc<Self>,
        name: &str,
        password: &Secret,
        from: LoginFrom,
    ) -> Result<SessionKey, AccountError> {
        let (user, mark) = self.prove(name, password, &from).await?;
        self.begin_session(&user, mark, &from).await
    }

    /// Whose name or e-mail address and password these are. Wrong ones count as failed logins.
    ///
    /// # Errors
    /// When it is wrong, too often wrong, or cannot be written.
    pub async fn authenticate(
        self: &Arc<Self>,
        name: &str,
        password: &Secret,
        from: &LoginFrom,
    ) -> Result<User, AccountError> {
        Ok(self.prove(name, password, from).await?.0)
    }

    /// The same, and what tells the password from others.
    pub(super) async fn prove(
        self: &Arc<Self>,
        name: &str,
        password: &Secret,
        from: &LoginFrom,
    ) -> Result<(User, String), AccountError> {
        self.ready().await?;
        let now = self.now();
        if name.len() > EMAIL_BYTES_MAX {
            return Err(Refusal::WrongPassword.into());
        }
        self.tries.count_host(hosts::host(from.address), now)?;
        let user = self.directory().find_user(name).cloned();
        let account = self.account(user.as_ref(), name, from.session.as_ref()).await?;
        let elsewhere = match &user {
            Some(user) => self.failures_elsewhere(&user.id, now).await?,
            None => 0,
        };
        let servers = self.handle.look(|engine, _| engine.members().filter(|member| member.durable).count()).await?;
        let failures = self.tries.begin(&account, elsewhere, servers, now)?;
        // The same work for who is not there.
        let view = self.view(PASSWORDS, user.as_ref().map_or("nobody", |user| &user.id)).await?;
        let etag = view.as_ref().map(|view| view.summary.etag);
        let stored = view.map(|view| view.value);
        let mark = stored.as_ref().map(|value| text(value, "mark")).unwrap_or_default();
        let stored = stored.and_then(|value| value.get("hash").and_then(Value::as_str).map(str::to_owned));
        let verdict = self.passwords.verify(password, stored).await;
        let known = user.as_ref().map(|user| user.id.clone());
        let Some(user) = user.filter(|user| user.active && verdict != Verdict::Wrong) else {
            if let Some(user) = known.filter(|_| tries::is_told(failures)) {
                // After the answer, which would otherwise tell that there is such a user.
                let told = self.clone();
                tokio::spawn(async move { told.tell_failures(&user, failures, now).await });
            }
            return Err(Refusal::WrongPassword.into());
        };
        self.tries.forget(&account);
        if verdict == Verdict::RightButStale {
            self.store_anew(&user.id, password, etag).await?;
        }
        Ok((user, mark))
    }

    /// Stores a password at the cost that passwords have now, unless another was set meanwhile.
    async fn store_anew(&self, user: &str, password: &Secret, etag: Option<Etag>) -> Result<(), AccountError> {
        let hash = self.passwords.hash(password, self.fresh_bytes()).await?;
        let if_match = etag.map(|etag| EtagMatch::OneOf(vec![etag]));
        let unchanged = Precondition { if_match, ..Precondition::default() };
        match self.edit(PASSWORDS, user, Edit::MergePatch(json!({"hash": hash})), unchanged).await {
            // It is good as it is.
            Ok(()) | Err(AccountError::Edit(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Begins a session of a user's, with the password of this mark.
    pub(super) async fn begin_session(
        &self,
        user: &User,
        password: String,
        from: &LoginFrom,
    ) -> Result<SessionKey, AccountError> {
        let secret = self.fresh_secret();
        let began = Session::new(&user.id, &secret, self.now(), from.address.to_string(), &from.agent);
        let session = Session { password, ..began };
        let by = self.directory().caller(user, None, None);
        let about = about([("session_id", &session.id), ("address", &session.address)]);
        let key = session.key();
        let (made, ()) = tokio::join!(
            self.create(SESSIONS, &key, session.document()),
            self.note(&by, "user.login", format!("logged in from {}", session.address), about)
        );
        made?;
        Ok(SessionKey { user: user.id.clone(), secret })
    }

    /// Who comes with this session; none where it is not good, or its user is not.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn by_session(&self, key: &SessionKey) -> Result<Option<Caller>, AccountError> {
        self.ready().await?;
        let document_key = key.document_key();
        let Some(value) = self.read(SESSIONS, &document_key).await? else { return Ok(None) };
        let session = Session::read(&document_key, &value).filter(|session| session.is_good(self.now()));
        let Some(session) = session else { return Ok(None) };
        // A session ends with the password that it was begun with, on whichever server that was.
        if session.password != self.password_mark(&key.user).await? {
            return Ok(None);
        }
        Ok(self.caller(&key.user, Some(session.id), None))
    }

    /// Who comes with this token; none where it is not good, or its user is not.
    ///
    /// # Errors
    /// When it cannot be read or its use noted.
    pub async fn by_token(&self, token: &Secret) -> Result<Option<Caller>, AccountError> {
        self.ready().await?;
        let id = token.digest();
        let now = self.now();
        let Some(value) = self.read(TOKENS, &id).await? else { return Ok(None) };
        let token = Token::read(&id, &value);
        let used_since = || time(&value, "used_at") > token.revoked_at;
        if !(token.is_good(now) || self.has(Defect::UseUnrevokes) && used_since()) {
            return Ok(None);
        }
        if self.has(Defect::UseUnrevokes) {
            self.merge(TOKENS, &id, json!({"used_at": now})).await?;
        }
        let limits = token.limits();
        let Some(caller) = self.caller(&token.user, None, limits) else { return Ok(None) };
        if self.last_use(&id).await?.is_none_or(|at| at.div_euclid(USE_MS) < now.div_euclid(USE_MS)) {
            match self.merge(USES, &id, json!({"at": now.div_euclid(USE_MS) * USE_MS})).await {
                // Reading goes on where nothing can be written.
                Ok(()) | Err(AccountError::Edit(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(caller))
    }

    fn caller(&self, user: &str, session: Option<String>, limits: Option<Vec<super::TokenScope>>) -> Option<Caller> {
        let directory = self.directory();
        let user = directory.user(user).filter(|user| user.active)?;
        Some(directory.caller(user, session, limits))
    }

    /// Ends the session that the caller came by.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn logout(&self, by: &Caller) -> Result<(), AccountError> {
        match (by.user(), by.session()) {
            (Some(user), Some(session)) => self.end_session(user, session).await,
            _ => Ok(()),
        }
    }

    /// A user's sessions that are good, the latest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn sessions(&self, user: &str) -> Result<Vec<Session>, AccountError> {
        let (now, password) = (self.now(), self.password_mark(user).await?);
        let (mut sessions, mut after): (Vec<Session>, Option<String>) = (Vec::new(), None);
        loop {
            let (prefix, from) = (format!("{user}."), after.take());
            let list = move |engine: &mut crate::handle::ServerEngine, _| {
                engine.list(&Scope::Global, SESSIONS, &prefix, from.as_deref(), SESSIONS_PAGE)
            };
            let page = self.handle.look(list).await?;
            for summary in &page {
                // Most of them have ended long ago.
                if summary.modified < Wall(now.saturating_sub(super::SESSION_MS)) {
                    continue;
                }
                let key = summary.id.key();
                let session = self.read(SESSIONS, key).await?.and_then(|value| Session::read(key, &value));
                sessions.extend(session.filter(|session| session.is_good(now) && session.password == password));
            }
            match page.last() {
                Some(last) if page.len() == SESSIONS_PAGE => after = Some(last.id.key().to_owned()),
                Some(_) | None => break,
            }
        }
        sessions.sort_by_key(|session| std::cmp::Reverse(session.created_at));
        Ok(sessions)
    }

    /// Ends a session of the caller's, or of whom they manage.
    ///
    /// # Errors
    /// When there is none, or it cannot be written.
    pub async fn revoke_session(&self, by: &Caller, user: &str, session: &str) -> Result<(), AccountError> {
        let is_theirs = by.user() == Some(user) || by.may(Permission::ManageUsers);
        if !is_theirs || !self.sessions(user).await?.iter().any(|good| good.id == session) {
            return Err(Refusal::Unknown("session").into());
        }
        self.end_session(user, session).await?;
        let about = about([("session_id", session), ("user_id", user)]);
        self.note(by, "session.revoke", "ended a session".to_owned(), about).await;
        Ok(())
    }

    async fn end_session(&self, user: &str, session: &str) -> Result<(), AccountError> {
        self.merge(SESSIONS, &format!("{user}.{session}"), Session::revocation(self.now())).await
    }

    /// What tells a user's password from those before; changes with each that is set.
    pub(super) async fn password_mark(&self, user: &str) -> Result<String, AccountError> {
        Ok(self.read(PASSWORDS, user).await?.map(|value| text(&value, "mark")).unwrap_or_default())
    }

    /// Stores a password. All sessions that were begun with the one before end, but the one that is named.
    pub(super) async fn set_password(&self, user: &str, hash: String, but: Option<&str>) -> Result<(), AccountError> {
        let mark = self.fresh_id();
        self.merge(PASSWORDS, user, json!({"hash": hash, "mark": mark})).await?;
        match but {
            Some(session) => self.merge(SESSIONS, &format!("{user}.{session}"), json!({"password": mark})).await,
            None => Ok(()),
        }
    }

    /// Under what failures are counted: of who is known to the account, apart from those of strangers.
    async fn account(
        &self,
        user: Option<&User>,
        name: &str,
        session: Option<&SessionKey>,
    ) -> Result<String, AccountError> {
        let Some(user) = user else { return Ok(format!("?{}", super::user::folded(name))) };
        if let Some(key) = session.filter(|key| key.user == user.id)
            && self.by_session(key).await?.is_some()
        {
            return Ok(key.document_key());
        }
        Ok(user.id.clone())
    }

    async fn failures_elsewhere(&self, user: &str, now: i64) -> Result<u32, AccountError> {
        let Some(value) = self.read(FAILURES, user).await? else { return Ok(0) };
        let me = self.node().await?;
        let counts = value.get(tries::hour(now).to_string()).and_then(Value::as_object).into_iter().flatten();
        let others = counts.filter(|(node, _)| **node != me).filter_map(|(_, count)| count.as_u64());
        Ok(u32::try_from(others.sum::<u64>()).unwrap_or(u32::MAX))
    }

    /// Tells other servers of a count that is worth it. Of names that nobody has nothing is kept: anybody could make those
    /// up without end.
    async fn tell_failures(&self, user: &str, count: u32, now: i64) {
        // It was wrong all the same.
        if let Err(error) = self.write_failures(user, count, now).await {
            tracing::debug!(%error, "other servers are not told of failed logins");
        }
    }

    async fn write_failures(&self, user: &str, count: u32, now: i64) -> Result<(), AccountError> {
        let hour = tries::hour(now);
        let known = self.read(FAILURES, user).await?.unwrap_or_default();
        let (node, this_hour) = (self.node().await?, known.get(hour.to_string()));
        // Of who is known by a session there is a count beside that of strangers.
        if this_hour.and_then(|counts| counts.get(&node)).and_then(Value::as_u64) >= Some(count.into()) {
            return Ok(());
        }
        let past = known.as_object().into_iter().flatten().map(|(hour, _)| hour.clone());
        let mut patch: Map<String, Value> = past.map(|hour| (hour, Value::Null)).collect();
        patch.insert(hour.to_string(), json!({node: count}));
        self.merge(FAILURES, user, patch.into()).await
    }

    async fn node(&self) -> Result<String, AccountError> {
        Ok(self.handle.look(|engine, _| engine.me().record.node.to_string()).await?)
    }
}
