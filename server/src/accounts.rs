//! Accounts: users, groups, roles, tokens, sessions and what the audit log says of them, as typed views over documents
//! that knot replicates like all others.
//!
//! - Every record is a document in a collection of knot's own. A change is a merge patch of what differs, so that two
//!   administrators who are apart both have their way, and what another version wrote beside it stays.
//! - What has to be decided over many records at once is decided by the [`Directory`], in memory, by rules that all
//!   servers compute alike: who has a name, what a user may do, who is the last administrator.
//! - Nothing that is revoked or deleted comes back: both are marks that are only ever set.
//! - Passwords, tokens and sessions are stored as hashes; their texts are [`Secret`]s.

mod audit;
mod caller;
mod directory;
mod fields;
mod follow;
mod library;
mod login;
mod names;
mod operations;
mod password;
mod permission;
mod refusal;
mod role;
mod sealed;
mod secret;
mod session;
mod setup;
mod steward;
mod token;
mod tries;
mod user;

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use knot_engine::documents::{DocumentId, Edit, Scope};
use knot_engine::{DocumentView, EditError, EditRequest, EtagMatch, Precondition, Random, ReadError, Seed};
use serde_json::{Map, Value};
use tokio::sync::{MutexGuard, watch};

pub use self::audit::{AuditEntry, AuditFilter};
pub use self::caller::{Caller, Who};
pub use self::directory::{Directory, Limits, ROLES_MAX, USERS_MAX};
pub use self::library::TEMPLATES_MAX;
pub use self::login::LoginFrom;
pub use self::names::Names;
pub use self::operations::{NewUser, TokenChange, UserChange};
pub use self::password::{PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, PasswordCost, Passwords, Verdict};
pub use self::permission::{Permission, Permissions};
pub use self::refusal::Refusal;
pub use self::role::{ADMINISTRATOR, Group, NAME_BYTES_MAX, Role};
pub use self::secret::Secret;
pub use self::session::{SESSION_MS, Session, SessionKey};
pub use self::setup::SETUP_MS;
pub use self::token::{SCOPES_MAX, TOKEN_NAME_BYTES_MAX, TOKENS_A_USER_MAX, Token, TokenScope};
pub use self::tries::{HOST_TRIES_MAX, TRIES_MAX, Tries};
pub use self::user::{EMAIL_BYTES_MAX, MEMBERSHIPS_MAX, TEXT_BYTES_MAX, USERNAME_CHARS_MAX, User};
use crate::handle::{Handle, Stopped};
use crate::run::WallClock;
use crate::simulated::Defect;

/// How collections begin that knot keeps for itself.
pub const OWN_COLLECTIONS: &str = "knot.";
/// [`User`]s.
pub const USERS: &str = "knot.users";
/// By user id: `{"hash"}`.
pub const PASSWORDS: &str = "knot.passwords";
/// [`Group`]s.
pub const GROUPS: &str = "knot.groups";
/// [`Role`]s.
pub const ROLES: &str = "knot.roles";
/// [`Token`]s.
pub const TOKENS: &str = "knot.tokens";
/// By token id: `{"at"}`, when it was last used, to the hour.
pub const USES: &str = "knot.uses";
/// By token id: tokens that can be shown again, sealed.
pub const SEALED: &str = "knot.sealed";
/// [`Session`]s.
pub const SESSIONS: &str = "knot.sessions";
/// By user id: by hour, what each server has counted of failed logins.
pub const FAILURES: &str = "knot.failures";
/// [`AuditEntry`]s.
pub const AUDIT: &str = "knot.audit";

/// Why an operation on accounts was not carried out, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// It is the asker's to mend.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A document could not be written.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// A document could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is kept in a zone that this server is not in.
    #[error("this is kept in zone {zone}, and this server is not in it")]
    Elsewhere {
        /// The zone.
        zone: String,
        /// Where servers of the zone are asked.
        urls: Vec<String>,
    },
    /// The server stops.
    #[error("the server is shutting down")]
    Stopped,
}

impl From<Stopped> for AccountError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// The accounts that this server's documents make up.
#[derive(Debug)]
pub struct Accounts {
    handle: Handle,
    directory: RwLock<Directory>,
    followed: watch::Sender<Followed>,
    passwords: Passwords,
    tries: Tries,
    setup: Mutex<Option<setup::Setup>>,
    /// Operations that look before they write are made one after the other.
    turn: tokio::sync::Mutex<()>,
    random: Mutex<Random>,
    clock: Clock,
    zone: Arc<str>,
    /// Whether tokens are sealed and shown again where their owners ask for it.
    reveals_tokens: bool,
    /// A bug on purpose, of a simulator's.
    defect: Option<Defect>,
}

/// How far the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Followed {
    /// It has not been read whole yet.
    Not,
    /// All but its tokens has been read: who comes with one is looked up in the token's own document.
    ButTokens,
    /// It has taken over all updates up to this one.
    UpTo(u64),
    /// It takes over nothing any more: the server stops.
    NoMore,
}

/// The wall clock, which says nothing when it is debugged.
struct Clock(WallClock);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl Accounts {
    /// The accounts behind this handle. They are at hand once [`Accounts::follow`] runs.
    #[must_use]
    pub fn new(handle: Handle, passwords: Passwords, wall: WallClock, seed: &Seed, zone: &str) -> Self {
        Self {
            handle,
            directory: RwLock::default(),
            followed: watch::Sender::new(Followed::Not),
            passwords,
            tries: Tries::default(),
            setup: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            random: Mutex::new(Random::new(seed, "accounts")),
            clock: Clock(wall),
            zone: zone.into(),
            reveals_tokens: false,
            defect: None,
        }
    }

    /// The same where tokens are sealed and shown again, or not.
    #[must_use]
    pub fn revealing_tokens(self, reveals_tokens: bool) -> Self {
        Self { reveals_tokens, ..self }
    }

    /// The same with a bug on purpose.
    pub(crate) fn with(self, defect: Option<Defect>) -> Self {
        Self { defect, ..self }
    }

    pub(crate) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// Waits for the others that look before they write, and says what the caller may do by then.
    pub(crate) async fn take_turn(&self, by: &Caller) -> Result<(MutexGuard<'_, ()>, Caller), AccountError> {
        let turn = self.turn.lock().await;
        self.caught_up().await?;
        let permissions = match by.user() {
            None => by.permissions,
            Some(id) => {
                let directory = self.directory();
                let user = directory.user(id).filter(|user| user.active);
                user.map(|user| directory.permissions(user)).unwrap_or_default()
            }
        };
        Ok((turn, Caller { permissions, ..by.clone() }))
    }

    /// What is known now. Hold it for as short as can be: nothing is taken over meanwhile.
    pub fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory_mut(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since 1970, by this server's clock.
    pub fn now(&self) -> i64 {
        (self.clock.0)().0
    }

    fn fresh_secret(&self) -> Secret {
        Secret::fresh(self.random.lock().unwrap_or_else(PoisonError::into_inner).bytes())
    }

    fn fresh_bytes(&self) -> [u8; 16] {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).bytes16()
    }

    /// The way to the driver.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn fresh_id(&self) -> String {
        self.fresh_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes a document that is not there yet.
    async fn create(&self, collection: &str, key: &str, value: Value) -> Result<(), AccountError> {
        let precondition = Precondition { if_none_match: Some(EtagMatch::Any), ..Precondition::default() };
        self.edit(collection, key, Edit::Put(value), precondition).await
    }

    /// Changes members of a document, and makes it where it is not there.
    async fn merge(&self, collection: &str, key: &str, patch: Value) -> Result<(), AccountError> {
        self.merge_in(Scope::Global, collection, key, patch).await
    }

    /// The same of one that may be kept in a zone alone.
    pub(crate) async fn merge_in(
        &self,
        scope: Scope,
        collection: &str,
        key: &str,
        patch: Value,
    ) -> Result<(), AccountError> {
        let document = document(scope, collection, key)?;
        self.handle.edit(EditRequest::new(document, Edit::MergePatch(patch))).await??;
        Ok(())
    }

    async fn edit(
        &self,
        collection: &str,
        key: &str,
        edit: Edit,
        precondition: Precondition,
    ) -> Result<(), AccountError> {
        let document = document(Scope::Global, collection, key)?;
        self.handle.edit(EditRequest { precondition, ..EditRequest::new(document, edit) }).await??;
        Ok(())
    }

    /// What a document says; none where there is none.
    async fn read(&self, collection: &str, key: &str) -> Result<Option<Value>, AccountError> {
        self.read_in(Scope::Global, collection, key).await
    }

    /// The same of one that may be kept in a zone alone.
    pub(crate) async fn read_in(
        &self,
        scope: Scope,
        collection: &str,
        key: &str,
    ) -> Result<Option<Value>, AccountError> {
        Ok(self.view_in(scope, collection, key).await?.map(|view| view.value))
    }

    /// The same, and which state that is.
    async fn view(&self, collection: &str, key: &str) -> Result<Option<DocumentView>, AccountError> {
        self.view_in(Scope::Global, collection, key).await
    }

    async fn view_in(&self, scope: Scope, collection: &str, key: &str) -> Result<Option<DocumentView>, AccountError> {
        match self.handle.read(document(scope, collection, key)?, false).await? {
            Ok(view) => Ok(Some(view)),
            Err(ReadError::NotFound | ReadError::Gone { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes in the audit log what was done, and to what.
    pub(crate) async fn note_about<const N: usize>(
        &self,
        by: &Caller,
        event: &'static str,
        details: String,
        what: [(&str, &str); N],
    ) {
        self.note(by, event, details, audit::about(what)).await;
    }

    /// Notes in the audit log what was done. What cannot be noted was done all the same, and is in this server's log.
    async fn note(&self, by: &Caller, event: &'static str, details: String, properties: Map<String, Value>) {
        let (actor, actor_type) = by.actor();
        let when = self.now();
        let entry = AuditEntry {
            id: audit::key(when, &self.fresh_id()),
            zone: self.zone.to_string(),
            actor: actor.to_owned(),
            actor_type: actor_type.to_owned(),
            event: event.to_owned(),
            when,
            details,
            properties,
        };
        if let Err(error) = self.create(AUDIT, &entry.id, entry.document()).await {
            let AuditEntry { actor, details, .. } = entry;
            tracing::error!(%error, actor, event, details, "cannot write to the audit log");
        }
    }
}

/// The document of a record. Keys come from requests, so they may be none.
fn document(scope: Scope, collection: &str, key: &str) -> Result<DocumentId, AccountError> {
    DocumentId::new(scope, collection, key).map_err(|_| Refusal::Unknown("record").into())
}
