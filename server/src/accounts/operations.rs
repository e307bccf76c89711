//! What is done to accounts: look, decide, write, note it in the audit log. The deciding is the directory's.

use std::borrow::Cow;
use std::collections::BTreeSet;

use knot_engine::Precondition;
use knot_engine::documents::Edit;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::audit::about;
use super::role::deletion;
use super::token::TOKENS_A_USER_MAX;
use super::{
    AccountError, Accounts, Caller, Directory, GROUPS, Group, PASSWORDS, Permission, ROLES, Refusal, Role, SEALED,
    Secret, TOKENS, Token, USERS, USES, User,
};
use crate::simulated::Defect;

/// A user who is to be made.
#[derive(Clone, Debug, Default)]
pub struct NewUser {
    /// The name.
    pub username: String,
    /// The e-mail address, or nothing.
    pub email: String,
    /// The password.
    pub password: Secret,
    /// Ids of roles.
    pub roles: BTreeSet<String>,
    /// Whether the user may log in.
    pub active: bool,
    /// All the rest.
    pub rest: UserChange,
}

/// What is to become of a user; what is none stays.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct UserChange {
    /// The name.
    pub username: Option<String>,
    /// The e-mail address.
    pub email: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// Whether the user may log in.
    pub active: Option<bool>,
    /// Ids of roles.
    pub roles: Option<BTreeSet<String>>,
    /// Ids of groups.
    pub groups: Option<BTreeSet<String>>,
    /// See [`User`].
    pub max_spaces: Option<u32>,
    /// See [`User`].
    pub compute_units: Option<u32>,
    /// See [`User`].
    pub storage_units: Option<u32>,
    /// See [`User`].
    pub zone: Option<String>,
    /// See [`User`].
    pub timezone: Option<String>,
    /// See [`User`].
    pub preferred_shell: Option<String>,
    /// See [`User`].
    pub ssh_public_key: Option<String>,
    /// See [`User`].
    pub github_username: Option<String>,
}

/// What is to become of a token; what is none stays.
#[derive(Clone, Debug, Default)]
pub struct TokenChange {
    /// What its owner calls it.
    pub name: Option<String>,
    /// What it is limited to.
    pub scopes: Option<BTreeSet<String>>,
}

impl UserChange {
    /// Whether it changes what users may not change of themselves.
    fn is_for_managers(&self) -> bool {
        let numbers = [self.max_spaces, self.compute_units, self.storage_units];
        self.username.is_some()
            || self.active.is_some()
            || self.roles.is_some()
            || self.groups.is_some()
            || numbers.iter().any(Option::is_some)
    }

    fn apply(self, user: &User, now: i64) -> User {
        let mut new = user.clone();
        if let Some(username) = self.username.filter(|name| *name != user.username) {
            (new.username, new.username_at) = (username, now);
        }
        if let Some(email) = self.email.filter(|email| *email != user.email) {
            (new.email, new.email_at) = (email, now);
        }
        User {
            active: self.active.unwrap_or(user.active),
            roles: self.roles.unwrap_or(new.roles),
            groups: self.groups.unwrap_or(new.groups),
            max_spaces: self.max_spaces.unwrap_or(user.max_spaces),
            compute_units: self.compute_units.unwrap_or(user.compute_units),
            storage_units: self.storage_units.unwrap_or(user.storage_units),
            zone: self.zone.unwrap_or(new.zone),
            timezone: self.timezone.unwrap_or(new.timezone),
            preferred_shell: self.preferred_shell.unwrap_or(new.preferred_shell),
            ssh_public_key: self.ssh_public_key.unwrap_or(new.ssh_public_key),
            github_username: self.github_username.unwrap_or(new.github_username),
            updated_at: now,
            ..new
        }
    }
}

impl Accounts {
    /// Makes a user; gives the id.
    ///
    /// # Errors
    /// When `by` may not, the user may not be so, or it cannot be written.
    pub async fn create_user(&self, by: &Caller, new: NewUser) -> Result<String, AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        self.create_user_in_turn(by, new).await
    }

    pub(super) async fn create_user_in_turn(&self, by: &Caller, new: NewUser) -> Result<String, AccountError> {
        let now = self.now();
        let NewUser { username, email, password, roles, active, rest } = new;
        let blank = User { id: self.fresh_id(), created_at: now, ..User::default() };
        let said = UserChange { username: Some(username), roles: Some(roles), active: Some(active), ..rest };
        let user = User { email_at: now, ..UserChange { email: Some(email), ..said }.apply(&blank, now) };
        self.directory().check_new_user(by.permissions, &user)?;
        let hash = self.passwords.hash(&password, self.fresh_bytes()).await?;
        // Without its password a user cannot log in, so that comes first.
        self.set_password(&user.id, hash, None).await?;
        self.create(USERS, &user.id, user.document()).await?;
        self.note(by, "user.create", format!("made the user {}", user.username), about_user(&user)).await;
        self.caught_up().await?;
        Ok(user.id)
    }

    /// Changes a user. Who changes their own may do less than who manages users. A new password ends the user's other
    /// sessions.
    ///
    /// # Errors
    /// When `by` may not, the user may not be so, or it cannot be written.
    pub async fn change_user(&self, by: &Caller, id: &str, change: UserChange) -> Result<(), AccountError> {
        self.change_user_by(by, id, |_, _| Ok(change)).await
    }

    /// The same with what is to be changed made of the user as they are by then.
    ///
    /// # Errors
    /// As for [`Accounts::change_user`], and what `change` says.
    pub async fn change_user_by(
        &self,
        by: &Caller,
        id: &str,
        change: impl FnOnce(&Directory, &User) -> Result<UserChange, Refusal> + Send,
    ) -> Result<(), AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        let own = by.user() == Some(id);
        let is_manager = by.may(Permission::ManageUsers);
        let above = || Refusal::AboveYou(vec![Permission::ManageUsers]);
        if !is_manager && !own {
            return Err(above().into());
        }
        let (old, new, password) = {
            let directory = self.directory();
            let old = directory.user(id).ok_or(Refusal::Unknown("user"))?.clone();
            let change = change(&directory, &old)?;
            if !is_manager && change.is_for_managers() {
                return Err(above().into());
            }
            let password = change.password.clone();
            let new = change.apply(&old, self.now());
            match directory.check_user_change(by.permissions, own, &old, &new) {
                Err(Refusal::LastAdministrator) if self.has(Defect::LastAdministratorGoes) => {}
                checked => checked?,
            }
            (old, new, password)
        };
        let patch = old.patch(&new);
        if let Some(password) = &password {
            let hash = self.passwords.hash(password, self.fresh_bytes()).await?;
            self.set_password(id, hash, by.session().filter(|_| own)).await?;
        }
        let mut changed: Vec<String> =
            patch.iter().flat_map(Value::as_object).flatten().map(|(name, _)| name.clone()).collect();
        changed.retain(|name| !name.ends_with("_at"));
        if let Some(patch) = patch {
            self.merge(USERS, id, patch).await?;
        }
        if password.is_some() {
            changed.push("password".to_owned());
        }
        if !changed.is_empty() {
            let details = format!("changed {} of the user {}", changed.join(", "), new.username);
            self.note(by, "user.update", details, about_user(&new)).await;
        }
        Ok(self.caught_up().await?)
    }

    /// Deletes a user, with their tokens and sessions.
    ///
    /// # Errors
    /// When `by` may not, or it cannot be written.
    pub async fn delete_user(&self, by: &Caller, id: &str) -> Result<(), AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        let (user, tokens) = {
            let directory = self.directory();
            let user = directory.user(id).ok_or(Refusal::Unknown("user"))?.clone();
            directory.check_user_deletion(by.permissions, &user)?;
            let tokens: Vec<String> = directory.tokens_of(id).map(|token| token.id.clone()).collect();
            (user, tokens)
        };
        let now = self.now();
        if self.has(Defect::DeletedUserReturns) {
            self.edit(USERS, id, Edit::Delete, Precondition::default()).await?;
        } else {
            self.merge(USERS, id, User::deletion(now)).await?;
        }
        self.merge(PASSWORDS, id, json!({"hash": null, "mark": self.fresh_id()})).await?;
        for token in tokens {
            self.merge(TOKENS, &token, Token::revocation(now)).await?;
        }
        self.note(by, "user.delete", format!("deleted the user {}", user.username), about_user(&user)).await;
        Ok(self.caught_up().await?)
    }

    /// Changes a role, or makes one where no id is given, of one that allows nothing. Gives the id.
    ///
    /// # Errors
    /// When `by` may not, the role may not be so, or it cannot be written.
    pub async fn put_role(
        &self,
        by: &Caller,
        id: Option<&str>,
        change: impl FnOnce(Role) -> Result<Role, Refusal>,
    ) -> Result<String, AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        let old = self.known(id, "role", |directory, id| directory.role(id).map(Cow::into_owned))?;
        let id = id.map_or_else(|| self.fresh_id(), str::to_owned);
        let role = Role { id, name_at: self.now(), ..change(old.clone().unwrap_or_default())? };
        self.directory().check_role(by.permissions, &role)?;
        match &old {
            None => self.create(ROLES, &role.id, role.document()).await?,
            Some(old) => self.merge_if(ROLES, &role.id, old.patch(&role)).await?,
        }
        let event = if old.is_none() { "role.create" } else { "role.update" };
        self.note(by, event, format!("stored the role {}", role.name), about([("role_id", &role.id)])).await;
        self.caught_up().await?;
        Ok(role.id)
    }

    /// Deletes a role. Who had it has what their other roles give.
    ///
    /// # Errors
    /// When `by` may not, or it cannot be written.
    pub async fn delete_role(&self, by: &Caller, id: &str) -> Result<(), AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        let role = self.directory().role(id).ok_or(Refusal::Unknown("role"))?.into_owned();
        self.directory().check_role_deletion(by.permissions, &role)?;
        self.merge(ROLES, id, deletion(self.now())).await?;
        self.note(by, "role.delete", format!("deleted the role {}", role.name), about([("role_id", id)])).await;
        Ok(self.caught_up().await?)
    }

    /// Changes a group, or makes one where no id is given. Gives the id.
    ///
    /// # Errors
    /// When the group may not be so, or it cannot be written.
    pub async fn put_group(
        &self,
        by: &Caller,
        id: Option<&str>,
        change: impl FnOnce(Group) -> Result<Group, Refusal>,
    ) -> Result<String, AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        let old = self.known(id, "group", |directory, id| directory.group(id).cloned())?;
        let id = id.map_or_else(|| self.fresh_id(), str::to_owned);
        let group = Group { id, name_at: self.now(), ..change(old.clone().unwrap_or_default())? };
        self.directory().check_group(&group)?;
        match &old {
            None => self.create(GROUPS, &group.id, group.document()).await?,
            Some(old) => self.merge_if(GROUPS, &group.id, old.patch(&group)).await?,
        }
        let event = if old.is_none() { "group.create" } else { "group.update" };
        self.note(by, event, format!("stored the group {}", group.name), about([("group_id", &group.id)])).await;
        self.caught_up().await?;
        Ok(group.id)
    }

    /// Deletes a group.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn delete_group(&self, by: &Caller, id: &str) -> Result<(), AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        let group = self.directory().group(id).ok_or(Refusal::Unknown("group"))?.clone();
        self.merge(GROUPS, id, deletion(self.now())).await?;
        self.note(by, "group.delete", format!("deleted the group {}", group.name), about([("group_id", id)])).await;
        Ok(self.caught_up().await?)
    }

    /// Makes a token of the caller's. Its text is shown this once: only its digest is kept.
    ///
    /// # Errors
    /// When the caller is no user, the token may not be so, or it cannot be written.
    pub async fn create_token(
        &self,
        by: &Caller,
        name: String,
        scopes: BTreeSet<String>,
        expires_at: Option<i64>,
    ) -> Result<(Token, Secret), AccountError> {
        let secret = self.fresh_secret();
        let token = self.create_token_of(by, Token::fresh(&secret, name, scopes, expires_at), None).await?;
        Ok((token, secret))
    }

    /// Whether the caller may have one more token, and such a one.
    pub(super) fn check_new_token(&self, by: &Caller, new: &Token) -> Result<(), Refusal> {
        new.check()?;
        if new.expires_at.is_some_and(|at| at <= self.now()) {
            return Err(Refusal::invalid("expires_after", "a time to come"));
        }
        let user = by.user().ok_or(Refusal::Unknown("user"))?;
        if self.directory().tokens_of(user).count() >= TOKENS_A_USER_MAX {
            return Err(Refusal::TooMany { kind: "tokens", max: TOKENS_A_USER_MAX });
        }
        Ok(())
    }

    /// Stores a new token of the caller's, where it is kept sealed with what it is shown again from.
    pub(super) async fn create_token_of(
        &self,
        by: &Caller,
        new: Token,
        sealed: Option<Value>,
    ) -> Result<Token, AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        self.check_new_token(by, &new)?;
        let user = by.user().ok_or(Refusal::Unknown("user"))?.to_owned();
        let token = Token { user, created_at: self.now(), ..new };
        // Of no use without its token, so that comes first.
        if let Some(sealed) = sealed {
            self.create(SEALED, &token.id, sealed).await?;
        }
        self.create(TOKENS, &token.id, token.document()).await?;
        self.note(by, "token.create", format!("made the token {:?}", token.name), about([("token_id", &token.id)]))
            .await;
        self.caught_up().await?;
        Ok(token)
    }

    /// Changes a token of the caller's.
    ///
    /// # Errors
    /// When there is none, it may not be so, or it cannot be written.
    pub async fn change_token(&self, by: &Caller, id: &str, change: TokenChange) -> Result<(), AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        let old = self.token_for(by, id)?;
        if by.user() != Some(&old.user) {
            return Err(Refusal::Unknown("token").into());
        }
        let new = Token {
            name: change.name.unwrap_or_else(|| old.name.clone()),
            scopes: change.scopes.unwrap_or_else(|| old.scopes.clone()),
            ..old.clone()
        };
        new.check()?;
        let mut patch = Map::new();
        if new.name != old.name {
            patch.insert("name".to_owned(), new.name.as_str().into());
        }
        if new.scopes != old.scopes {
            patch.insert("limited".to_owned(), (!new.scopes.is_empty()).into());
        }
        patch.extend(super::fields::set_patch(&old.scopes, &new.scopes).map(|scopes| ("scopes".to_owned(), scopes)));
        self.merge_if(TOKENS, id, (!patch.is_empty()).then_some(patch.into())).await?;
        self.note(by, "token.update", format!("changed the token {:?}", new.name), about([("token_id", id)])).await;
        Ok(self.caught_up().await?)
    }

    /// Ends a token of the caller's, or of whom they manage, for good.
    ///
    /// # Errors
    /// When there is none, or it cannot be written.
    pub async fn revoke_token(&self, by: &Caller, id: &str) -> Result<(), AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        let token = self.token_for(by, id)?;
        self.merge(TOKENS, id, Token::revocation(self.now())).await?;
        self.note(by, "token.revoke", format!("revoked the token {:?}", token.name), about([("token_id", id)])).await;
        Ok(self.caught_up().await?)
    }

    /// When a token was last used, to the hour.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn last_use(&self, token: &str) -> Result<Option<i64>, AccountError> {
        Ok(self.read(USES, token).await?.and_then(|value| super::fields::time(&value, "at")))
    }

    fn token_for(&self, by: &Caller, id: &str) -> Result<Token, Refusal> {
        let directory = self.directory();
        let token = directory.token(id).ok_or(Refusal::Unknown("token"))?;
        if by.user() == Some(&token.user) {
            return Ok(token.clone());
        }
        let owner = directory.user(&token.user).map(|owner| directory.permissions(owner)).unwrap_or_default();
        let manages = by.may(Permission::ManageUsers) && by.permissions.covers(owner);
        if manages { Ok(token.clone()) } else { Err(Refusal::Unknown("token")) }
    }

    /// What is known under an id, where one is given.
    pub(super) fn known<T>(
        &self,
        id: Option<&str>,
        kind: &'static str,
        find: impl FnOnce(&Directory, &str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        id.map(|id| find(&self.directory(), id).ok_or(Refusal::Unknown(kind))).transpose()
    }

    async fn merge_if(&self, collection: &str, key: &str, patch: Option<Value>) -> Result<(), AccountError> {
        match patch {
            Some(patch) => self.merge(collection, key, patch).await,
            None => Ok(()),
        }
    }
}

fn about_user(user: &User) -> Map<String, Value> {
    about([("user_id", &user.id), ("username", &user.username)])
}
