//! Logging in and out, and who comes with which session or token.

use std::net::IpAddr;

use knot_engine::Wall;
use knot_engine::documents::Scope;
use serde_json::{Map, Value, json};

use super::{
    AccountError, Accounts, Caller, FAILURES, PASSWORDS, Permission, Refusal, SESSIONS, Secret, Session, SessionKey,
    TOKENS, Token, USES, User, Verdict, Who, tries,
};
use crate::hosts;

/// Sessions of one user that are looked at. A user with more has them end by themselves.
const SESSIONS_LISTED_MAX: usize = 1_000;
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
    pub async fn login(&self, name: &str, password: &Secret, from: LoginFrom) -> Result<SessionKey, AccountError> {
        let user = self.authenticate(name, password, &from).await?;
        self.begin_session(&user, &from).await
    }

    /// Whose name or e-mail address and password these are. Wrong ones count as failed logins.
    ///
    /// # Errors
    /// When it is wrong, too often wrong, or cannot be written.
    pub async fn authenticate(&self, name: &str, password: &Secret, from: &LoginFrom) -> Result<User, AccountError> {
        self.ready().await?;
        let now = self.now();
        self.tries.count_host(hosts::host(from.address), now)?;
        let user = self.directory().find_user(name).cloned();
        let account = self.account(user.as_ref(), name, from.session.as_ref()).await?;
        let elsewhere = match &user {
            Some(user) => self.failures_elsewhere(&user.id, now).await?,
            None => 0,
        };
        let servers = self.handle.look(|engine, _| engine.members().filter(|member| member.durable).count()).await?;
        let failures = self.tries.begin(&account, elsewhere, servers, now)?;
        let stored = match &user {
            Some(user) => self.read(PASSWORDS, &user.id).await?,
            // The same work for who is not there.
            None => self.read(PASSWORDS, "nobody").await?,
        };
        let stored = stored.and_then(|value| value.get("hash").and_then(Value::as_str).map(str::to_owned));
        let verdict = self.passwords.verify(password, stored).await;
        let Some(user) = user.filter(|user| user.active && verdict != Verdict::Wrong) else {
            self.tell_failures(name, failures, now).await?;
            return Err(Refusal::WrongPassword.into());
        };
        self.tries.forget(&account);
        if verdict == Verdict::RightButStale {
            let hash = self.passwords.hash(password, self.fresh_bytes()).await?;
            self.merge(PASSWORDS, &user.id, json!({"hash": hash})).await?;
        }
        Ok(user)
    }

    /// Begins a session of a user's.
    pub(super) async fn begin_session(&self, user: &User, from: &LoginFrom) -> Result<SessionKey, AccountError> {
        let secret = self.fresh_secret();
        let session = Session::new(&user.id, &secret, self.now(), from.address.to_string(), &from.agent);
        let by = Caller {
            who: Who::User {
                id: user.id.clone(),
                username: self.directory().username(user).into_owned(),
                session: None,
            },
            permissions: self.directory().permissions(user),
            limits: None,
        };
        let about: Map<String, Value> = [
            ("session_id".to_owned(), session.id.as_str().into()),
            ("address".to_owned(), session.address.as_str().into()),
        ]
        .into_iter()
        .collect();
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
        let document_key = key.document_key();
        let Some(value) = self.read(SESSIONS, &document_key).await? else { return Ok(None) };
        let session = Session::read(&document_key, &value).filter(|session| session.is_good(self.now()));
        let Some(session) = session else { return Ok(None) };
        Ok(self.caller(&key.user, Some(session.id), None))
    }

    /// Who comes with this token; none where it is not good, or its user is not.
    ///
    /// # Errors
    /// When it cannot be read or its use noted.
    pub async fn by_token(&self, token: &Secret) -> Result<Option<Caller>, AccountError> {
        let id = token.digest();
        let now = self.now();
        let Some(value) = self.read(TOKENS, &id).await? else { return Ok(None) };
        let token = Token::read(&id, &value);
        if !token.is_good(now) {
            return Ok(None);
        }
        let limits = (!token.scopes.is_empty()).then(|| token.limits());
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
        let username = directory.username(user).into_owned();
        let who = Who::User { id: user.id.clone(), username, session };
        Some(Caller { who, permissions: directory.permissions(user), limits })
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
        let prefix = format!("{user}.");
        let list = move |engine: &mut crate::handle::ServerEngine, _| {
            engine.list(&Scope::Global, SESSIONS, &prefix, None, SESSIONS_LISTED_MAX)
        };
        let now = self.now();
        let mut sessions = Vec::new();
        for summary in self.handle.look(list).await? {
            // Most of them have ended long ago.
            if summary.modified < Wall(now.saturating_sub(super::SESSION_MS)) {
                continue;
            }
            let key = summary.id.key();
            let session = self.read(SESSIONS, key).await?.and_then(|value| Session::read(key, &value));
            sessions.extend(session.filter(|session| session.is_good(now)));
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
        let about = [("session_id".to_owned(), session.into()), ("user_id".to_owned(), user.into())];
        self.note(by, "session.revoke", "ended a session".to_owned(), about.into_iter().collect()).await;
        Ok(())
    }

    async fn end_session(&self, user: &str, session: &str) -> Result<(), AccountError> {
        self.merge(SESSIONS, &format!("{user}.{session}"), Session::revocation(self.now())).await
    }

    /// Ends all of a user's sessions but one.
    pub(super) async fn end_sessions(&self, user: &str, but: Option<&str>) -> Result<(), AccountError> {
        for session in self.sessions(user).await? {
            if Some(session.id.as_str()) != but {
                self.end_session(user, &session.id).await?;
            }
        }
        Ok(())
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
            && self.read(SESSIONS, &key.document_key()).await?.is_some()
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
    async fn tell_failures(&self, name: &str, count: u32, now: i64) -> Result<(), AccountError> {
        let user = self.directory().find_user(name).map(|user| user.id.clone());
        let Some(user) = user.filter(|_| tries::is_told(count)) else { return Ok(()) };
        let hour = tries::hour(now);
        let known = self.read(FAILURES, &user).await?.unwrap_or_default();
        let past = known.as_object().into_iter().flatten().map(|(hour, _)| hour.clone());
        let mut patch: Map<String, Value> = past.map(|hour| (hour, Value::Null)).collect();
        patch.insert(hour.to_string(), json!({self.node().await?: count}));
        match self.merge(FAILURES, &user, patch.into()).await {
            // It was wrong all the same.
            Ok(()) | Err(AccountError::Edit(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn node(&self) -> Result<String, AccountError> {
        Ok(self.handle.look(|engine, _| engine.me().record.node.to_string()).await?)
    }
}
