//! Users, groups, roles and tokens as they are at hand: what this server's documents say, in memory, with what follows
//! from it. It is a pure function of the documents, whatever order they came in, so servers that hold the same decide
//! alike.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::caller::{Caller, Who};
use super::fields::{is_deleted, time};
use super::names::{Names, otherwise};
use super::permission::{Permission, Permissions};
use super::refusal::Refusal;
use super::role::{ADMINISTRATOR, Group, Role, check_name};
use super::token::{Token, TokenScope};
use super::user::{User, check_username};
use super::{GROUPS, ROLES, TOKENS, USERS};
use crate::spaces::Known;
use crate::templates::{TEMPLATE_VARIABLES, TEMPLATES, Template, TemplateVariable};

/// Most users, and most tokens. Beyond it none is made here; those of other servers are taken all the same.
pub const USERS_MAX: usize = 1_000_000;
/// Most roles, and most groups.
pub const ROLES_MAX: usize = 10_000;

/// What this server knows of accounts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Directory {
    users: BTreeMap<String, User>,
    usernames: Names,
    emails: Names,
    roles: BTreeMap<String, Role>,
    role_names: Names,
    groups: BTreeMap<String, Group>,
    group_names: Names,
    /// With when their names were asked for.
    templates: BTreeMap<String, (Template, i64)>,
    template_names: Names,
    variables: BTreeMap<String, TemplateVariable>,
    tokens: BTreeMap<String, Token>,
    /// By user: their tokens that have not been revoked.
    tokens_of: BTreeMap<String, BTreeSet<String>>,
    spaces: Known,
}

/// What a user may have; none where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Spaces.
    pub max_spaces: Option<u64>,
    /// Compute units of all running spaces together.
    pub compute_units: Option<u64>,
    /// Storage units of all spaces together.
    pub storage_units: Option<u64>,
}

impl Directory {
    /// Takes over what a document says now; none where there is none any more.
    pub fn apply(&mut self, collection: &str, key: &str, value: Option<&Value>) {
        match collection {
            USERS => self.set_user(key, value.and_then(|value| User::read(key, value))),
            ROLES => self.set_role(key, value.and_then(|value| Role::read(key, value))),
            GROUPS => self.set_group(key, value.and_then(|value| Group::read(key, value))),
            TEMPLATES => self.set_template(key, value.filter(|value| !is_deleted(value))),
            TEMPLATE_VARIABLES => {
                let variable = value.filter(|value| !is_deleted(value)).map(TemplateVariable::read);
                match variable {
                    Some(variable) => {
                        self.variables.insert(key.to_owned(), TemplateVariable { id: key.to_owned(), ..variable })
                    }
                    None => self.variables.remove(key),
                };
            }
            TOKENS => self.set_token(key, value.map(|value| Token::read(key, value))),
            _ => self.spaces.apply(collection, key, value),
        }
    }

    fn set_user(&mut self, id: &str, user: Option<User>) {
        if let Some(old) = self.users.remove(id) {
            self.usernames.remove(&old.username, old.username_at, id);
            self.emails.remove(&old.email, old.email_at, id);
        }
        if let Some(user) = user {
            self.usernames.insert(&user.username, user.username_at, id);
            self.emails.insert(&user.email, user.email_at, id);
            self.users.insert(id.to_owned(), user);
        }
    }

    fn set_role(&mut self, id: &str, role: Option<Role>) {
        if let Some(old) = self.roles.remove(id) {
            self.role_names.remove(&old.name, old.name_at, id);
        }
        // No document is the role of administrators.
        if let Some(role) = role.filter(|role| role.id != ADMINISTRATOR) {
            self.role_names.insert(&role.name, role.name_at, id);
            self.roles.insert(id.to_owned(), role);
        }
    }

    fn set_group(&mut self, id: &str, group: Option<Group>) {
        if let Some(old) = self.groups.remove(id) {
            self.group_names.remove(&old.name, old.name_at, id);
        }
        if let Some(group) = group {
            self.group_names.insert(&group.name, group.name_at, id);
            self.groups.insert(id.to_owned(), group);
        }
    }

    fn set_template(&mut self, id: &str, value: Option<&Value>) {
        if let Some((old, since)) = self.templates.remove(id) {
            self.template_names.remove(&old.name, since, id);
        }
        if let Some(value) = value {
            let template = Template { id: id.to_owned(), ..Template::read(value) };
            let since = time(value, "name_at").unwrap_or(i64::MAX);
            self.template_names.insert(&template.name, since, id);
            self.templates.insert(id.to_owned(), (template, since));
        }
    }

    fn set_token(&mut self, id: &str, token: Option<Token>) {
        if let Some(old) = self.tokens.remove(id)
            && let Some(tokens) = self.tokens_of.get_mut(&old.user)
        {
            tokens.remove(id);
            if tokens.is_empty() {
                self.tokens_of.remove(&old.user);
            }
        }
        if let Some(token) = token.filter(|token| token.revoked_at.is_none()) {
            self.tokens_of.entry(token.user.clone()).or_default().insert(id.to_owned());
            self.tokens.insert(id.to_owned(), token);
        }
    }

    /// Spaces, and the servers for them.
    #[must_use]
    pub fn spaces(&self) -> &Known {
        &self.spaces
    }

    /// What a user may have: their own limits, and what their groups give besides.
    #[must_use]
    pub fn limits(&self, user: &User) -> Limits {
        let groups: Vec<&Group> = user.groups.iter().filter_map(|id| self.groups.get(id)).collect();
        let limit = |own: u32, of: fn(&Group) -> u32| {
            let more: u64 = groups.iter().map(|group| u64::from(of(group))).sum();
            (own > 0).then(|| u64::from(own) + more)
        };
        Limits {
            max_spaces: limit(user.max_spaces, |group| group.max_spaces),
            compute_units: limit(user.compute_units, |group| group.compute_units),
            storage_units: limit(user.storage_units, |group| group.storage_units),
        }
    }

    /// All users, by id.
    pub fn users(&self) -> impl ExactSizeIterator<Item = &User> {
        self.users.values()
    }

    /// One user.
    #[must_use]
    pub fn user(&self, id: &str) -> Option<&User> {
        self.users.get(id)
    }

    /// All roles, that of administrators first.
    pub fn roles(&self) -> impl Iterator<Item = Cow<'_, Role>> {
        std::iter::once(Cow::Owned(Role::administrator())).chain(self.roles.values().map(Cow::Borrowed))
    }

    /// One role.
    #[must_use]
    pub fn role(&self, id: &str) -> Option<Cow<'_, Role>> {
        if id == ADMINISTRATOR {
            Some(Cow::Owned(Role::administrator()))
        } else {
            self.roles.get(id).map(Cow::Borrowed)
        }
    }

    /// All groups, by id.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Group> {
        self.groups.values()
    }

    /// One group.
    #[must_use]
    pub fn group(&self, id: &str) -> Option<&Group> {
        self.groups.get(id)
    }

    /// All templates, by id.
    pub fn templates(&self) -> impl ExactSizeIterator<Item = &Template> {
        self.templates.values().map(|(template, _)| template)
    }

    /// One template.
    #[must_use]
    pub fn template(&self, id: &str) -> Option<&Template> {
        self.templates.get(id).map(|(template, _)| template)
    }

    /// A template with the name in force, which is another than was asked for where another template has that.
    #[must_use]
    pub fn named_template(&self, template: &Template) -> Template {
        Template { name: self.template_name(template).into_owned(), ..template.clone() }
    }

    /// What a template is called.
    #[must_use]
    pub fn template_name<'a>(&self, template: &'a Template) -> Cow<'a, str> {
        called(&self.template_names, &template.name, &template.id)
    }

    /// Whether a template may have its name.
    ///
    /// # Errors
    /// When another has it.
    pub fn check_template_name(&self, template: &Template) -> Result<(), Refusal> {
        free("template name", &self.template_names, &template.name, &template.id)
    }

    /// All template variables, by id.
    pub fn variables(&self) -> impl ExactSizeIterator<Item = &TemplateVariable> {
        self.variables.values()
    }

    /// One template variable.
    #[must_use]
    pub fn variable(&self, id: &str) -> Option<&TemplateVariable> {
        self.variables.get(id)
    }

    /// A user's tokens that have not been revoked, by id.
    pub fn tokens_of(&self, user: &str) -> impl Iterator<Item = &Token> {
        self.tokens_of.get(user).into_iter().flatten().filter_map(|id| self.tokens.get(id))
    }

    /// One token, unless it was revoked.
    #[must_use]
    pub fn token(&self, id: &str) -> Option<&Token> {
        self.tokens.get(id)
    }

    /// All tokens that have not been revoked, by id.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &Token> {
        self.tokens.values()
    }

    /// What a user is called: the name that was asked for, or another where somebody else has that.
    #[must_use]
    pub fn username<'a>(&self, user: &'a User) -> Cow<'a, str> {
        called(&self.usernames, &user.username, &user.id)
    }

    /// What a role is called.
    #[must_use]
    pub fn role_name<'a>(&self, role: &'a Role) -> Cow<'a, str> {
        if role.id == ADMINISTRATOR { (&role.name).into() } else { called(&self.role_names, &role.name, &role.id) }
    }

    /// What a group is called.
    #[must_use]
    pub fn group_name<'a>(&self, group: &'a Group) -> Cow<'a, str> {
        called(&self.group_names, &group.name, &group.id)
    }

    /// The user that logs in with this: an e-mail address or a name.
    #[must_use]
    pub fn find_user(&self, login: &str) -> Option<&User> {
        let holder = self.emails.holder(login).or_else(|| self.usernames.holder(login));
        if let Some(id) = holder {
            return self.users.get(id);
        }
        // Somebody who has to be called otherwise.
        let (name, mark) = login.trim().rsplit_once('~')?;
        let mut named = self.usernames.losers().filter(|id| id.starts_with(mark)).filter_map(|id| self.users.get(id));
        named.find(|user| otherwise(&user.username, &user.id) == otherwise(name, &user.id))
    }

    /// Users whose name somebody else has.
    pub fn misnamed(&self) -> impl Iterator<Item = &User> {
        self.usernames.losers().filter_map(|id| self.users.get(id))
    }

    /// What a user may do.
    #[must_use]
    pub fn permissions(&self, user: &User) -> Permissions {
        self.allowed_by(&user.roles)
    }

    /// A user as who asks, by a session or by a token with its limits.
    #[must_use]
    pub fn caller(&self, user: &User, session: Option<String>, limits: Option<Vec<TokenScope>>) -> Caller {
        let username = self.username(user).into_owned();
        let who = Who::User { id: user.id.clone(), username, session };
        Caller { who, permissions: self.permissions(user), limits }
    }

    /// What roles allow together; one that does not exist allows nothing.
    #[must_use]
    pub fn allowed_by(&self, roles: &BTreeSet<String>) -> Permissions {
        let allowed = roles.iter().filter_map(|id| self.role(id)).map(|role| role.allows());
        allowed.fold(Permissions::default(), Permissions::with)
    }

    /// Whether somebody other than this user is an administrator and may log in.
    fn is_administered_without(&self, id: &str) -> bool {
        self.users.values().any(|user| user.id != id && is_administrator(user))
    }

    /// Whether `by` may make this user.
    ///
    /// # Errors
    /// When it may not.
    pub fn check_new_user(&self, by: Permissions, user: &User) -> Result<(), Refusal> {
        user.check()?;
        check_username(&user.username)?;
        if self.users.len() >= USERS_MAX {
            return Err(Refusal::TooMany { kind: "users", max: USERS_MAX });
        }
        free("user name", &self.usernames, &user.username, &user.id)?;
        free("e-mail address", &self.emails, &user.email, &user.id)?;
        self.check_memberships(user)?;
        covers(by, self.permissions(user))
    }

    /// Whether `by` may make of the user `old` what `new` says. `own` says that it is the user itself who asks.
    ///
    /// # Errors
    /// When it may not.
    pub fn check_user_change(&self, by: Permissions, own: bool, old: &User, new: &User) -> Result<(), Refusal> {
        new.check()?;
        if old.username != new.username {
            check_username(&new.username)?;
            free("user name", &self.usernames, &new.username, &new.id)?;
        }
        if folded_differ(&old.email, &new.email) {
            free("e-mail address", &self.emails, &new.email, &new.id)?;
        }
        let gained: BTreeSet<String> = new.roles.difference(&old.roles).cloned().collect();
        self.check_memberships(&User {
            roles: gained.clone(),
            groups: new.groups.difference(&old.groups).cloned().collect(),
            ..User::default()
        })?;
        covers(by, self.allowed_by(&gained))?;
        if !own {
            covers(by, self.permissions(old))?;
        }
        if is_administrator(old) && !is_administrator(new) && !self.is_administered_without(&old.id) {
            return Err(Refusal::LastAdministrator);
        }
        Ok(())
    }

    /// Whether `by` may delete this user.
    ///
    /// # Errors
    /// When it may not.
    pub fn check_user_deletion(&self, by: Permissions, user: &User) -> Result<(), Refusal> {
        covers(by, self.permissions(user))?;
        if is_administrator(user) && !self.is_administered_without(&user.id) {
            return Err(Refusal::LastAdministrator);
        }
        Ok(())
    }

    /// Whether `by` may store this role, in place of the one of its id where there is one.
    ///
    /// # Errors
    /// When it may not.
    pub fn check_role(&self, by: Permissions, role: &Role) -> Result<(), Refusal> {
        check_name(&role.name)?;
        let old = self.role(&role.id);
        if role.id == ADMINISTRATOR {
            return Err(Refusal::BuiltIn);
        }
        if old.is_none() && self.roles.len() >= ROLES_MAX {
            return Err(Refusal::TooMany { kind: "roles", max: ROLES_MAX });
        }
        if role.name.eq_ignore_ascii_case(&Role::administrator().name) {
            return Err(Refusal::Taken { kind: "role name", name: role.name.clone() });
        }
        free("role name", &self.role_names, &role.name, &role.id)?;
        // Taking from a role, too, is for those who have what it gives.
        covers(by, role.allows().with(old.map(|old| old.allows()).unwrap_or_default()))
    }

    /// Whether `by` may delete this role.
    ///
    /// # Errors
    /// When it may not.
    pub fn check_role_deletion(&self, by: Permissions, role: &Role) -> Result<(), Refusal> {
        if role.id == ADMINISTRATOR { Err(Refusal::BuiltIn) } else { covers(by, role.allows()) }
    }

    /// Whether this group may be stored, in place of the one of its id where there is one.
    ///
    /// # Errors
    /// When it may not.
    pub fn check_group(&self, group: &Group) -> Result<(), Refusal> {
        check_name(&group.name)?;
        if !self.groups.contains_key(&group.id) && self.groups.len() >= ROLES_MAX {
            return Err(Refusal::TooMany { kind: "groups", max: ROLES_MAX });
        }
        free("group name", &self.group_names, &group.name, &group.id)
    }

    fn check_memberships(&self, user: &User) -> Result<(), Refusal> {
        if user.roles.iter().any(|id| self.role(id).is_none()) {
            return Err(Refusal::Unknown("role"));
        }
        if user.groups.iter().any(|id| !self.groups.contains_key(id)) {
            return Err(Refusal::Unknown("group"));
        }
        Ok(())
    }
}

fn is_administrator(user: &User) -> bool {
    user.active && user.roles.contains(ADMINISTRATOR)
}

fn called<'a>(names: &Names, name: &'a str, id: &str) -> Cow<'a, str> {
    if names.holder(name) == Some(id) { name.into() } else { otherwise(name, id).into() }
}

fn folded_differ(old: &str, new: &str) -> bool {
    super::user::folded(old) != super::user::folded(new)
}

fn free(kind: &'static str, names: &Names, name: &str, id: &str) -> Result<(), Refusal> {
    match names.holder(name) {
        Some(holder) if holder != id => Err(Refusal::Taken { kind, name: name.to_owned() }),
        Some(_) | None => Ok(()),
    }
}

fn covers(by: Permissions, wanted: Permissions) -> Result<(), Refusal> {
    if by.covers(wanted) {
        return Ok(());
    }
    let lacking: Vec<Permission> = wanted.iter().filter(|permission| !by.has(*permission)).collect();
    Err(Refusal::AboveYou(lacking))
}

#[cfg(test)]
mod tests;
