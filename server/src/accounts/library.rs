//! Templates and their variables, under the same rules as accounts: names are had by one, a delete is a mark, and what is
//! done is in the audit log.

use serde_json::json;

use super::audit::about;
use super::role::deletion;
use super::{AccountError, Accounts, Caller, Directory, Permission, Refusal, User};
use crate::templates::{Complaint, TEMPLATE_VARIABLES, TEMPLATES, Template, TemplateVariable, check, check_variable};

/// Most templates, and most variables.
pub const TEMPLATES_MAX: usize = 100_000;

impl Directory {
    /// Whether a user may make spaces from a template in a zone: it is active, of the zone, and for one of their groups.
    #[must_use]
    pub fn may_use(&self, by: &Caller, template: &Template, zone: &str) -> bool {
        let user = by.user().and_then(|id| self.user(id));
        let is_for_them = || user.map_or(template.groups.is_empty(), |user| self.is_in_groups(user, &template.groups));
        template.active && template.is_allowed_in(zone) && is_for_them()
    }

    /// Whether a user is in one of these groups, or none is named.
    #[must_use]
    pub fn is_in_groups(&self, user: &User, groups: &[String]) -> bool {
        let theirs = user.groups.iter().filter_map(|id| self.group(id)).map(|group| self.group_name(group));
        let names: Vec<_> = theirs.collect();
        groups.is_empty() || groups.iter().any(|group| names.iter().any(|name| name == group))
    }

    /// Whether somebody is shown a template: who manages them sees all, others what they may use.
    #[must_use]
    pub fn may_see(&self, by: &Caller, template: &Template, zone: &str) -> bool {
        by.may(Permission::ManageTemplates) || (by.may(Permission::UseSpaces) && self.may_use(by, template, zone))
    }

    fn variable_names(&self) -> Vec<String> {
        self.variables().map(|variable| variable.name.clone()).collect()
    }
}

impl Accounts {
    /// What is wrong with a template.
    pub fn complaints(&self, template: &Template) -> Vec<Complaint> {
        let names = self.directory().variable_names();
        check(template, Some(&names))
    }

    /// Changes a template, or makes one where no id is given. Gives the id.
    ///
    /// # Errors
    /// When it is wrong, another has its name, or it cannot be written.
    pub async fn put_template(
        &self,
        by: &Caller,
        id: Option<&str>,
        change: impl FnOnce(Template) -> Result<Template, Refusal>,
    ) -> Result<String, AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        let is_new = id.is_none();
        let old = self.known(id, "template", |directory, id| directory.template(id).cloned())?;
        let id = id.map_or_else(|| self.fresh_id(), str::to_owned);
        let template = Template { id, ..change(old.unwrap_or_default())? };
        refuse(self.complaints(&template))?;
        {
            let directory = self.directory();
            if is_new && directory.templates().len() >= TEMPLATES_MAX {
                return Err(Refusal::TooMany { kind: "templates", max: TEMPLATES_MAX }.into());
            }
            directory.check_template_name(&template)?;
        }
        let old = self.read(TEMPLATES, &template.id).await?.unwrap_or_else(|| json!({}));
        if let Some(mut patch) = template.patch(&old) {
            if let Some(patch) = patch.as_object_mut().filter(|patch| patch.contains_key("name")) {
                patch.insert("name_at".to_owned(), self.now().into());
            }
            self.merge(TEMPLATES, &template.id, patch).await?;
        }
        let event = if is_new { "template.create" } else { "template.update" };
        self.note(by, event, format!("stored the template {}", template.name), about([("template_id", &template.id)]))
            .await;
        self.caught_up().await?;
        Ok(template.id)
    }

    /// Deletes a template. Spaces that were made from it stay.
    ///
    /// # Errors
    /// When there is none, or it cannot be written.
    pub async fn delete_template(&self, by: &Caller, id: &str) -> Result<(), AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        let template = self.directory().template(id).cloned().ok_or(Refusal::Unknown("template"))?;
        self.merge(TEMPLATES, id, deletion(self.now())).await?;
        let details = format!("deleted the template {}", template.name);
        self.note(by, "template.delete", details, about([("template_id", id)])).await;
        Ok(self.caught_up().await?)
    }

    /// Changes a template variable, or makes one where no id is given. Gives the id. The value of a protected one is never
    /// shown, so an empty one leaves it as it is, and it stays protected unless another is given.
    ///
    /// # Errors
    /// When it is wrong, or cannot be written.
    pub async fn put_variable(
        &self,
        by: &Caller,
        id: Option<&str>,
        change: impl FnOnce(TemplateVariable) -> Result<TemplateVariable, Refusal>,
    ) -> Result<String, AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        let is_new = id.is_none();
        let old = self.known(id, "variable", |directory, id| directory.variable(id).cloned())?.unwrap_or_default();
        let id = id.map_or_else(|| self.fresh_id(), str::to_owned);
        let mut variable = TemplateVariable { id, ..change(old.clone())? };
        if old.protected && (variable.value.is_empty() || variable.value == old.value) {
            if !variable.protected {
                return Err(
                    Refusal::invalid("protected", "what is protected stays so, unless another value is given").into()
                );
            }
            variable.value = old.value;
        }
        if variable.restricted || variable.local {
            let why = "this version keeps variables on all servers; leave `restricted` and `local` out";
            return Err(Refusal::invalid("restricted", why).into());
        }
        refuse(check_variable(&variable))?;
        if is_new && self.directory().variables().len() >= TEMPLATES_MAX {
            return Err(Refusal::TooMany { kind: "variables", max: TEMPLATES_MAX }.into());
        }
        let old = self.read(TEMPLATE_VARIABLES, &variable.id).await?.unwrap_or_else(|| json!({}));
        if let Some(patch) = variable.patch(&old) {
            self.merge(TEMPLATE_VARIABLES, &variable.id, patch).await?;
        }
        let event = if is_new { "variable.create" } else { "variable.update" };
        let details = format!("stored the template variable {}", variable.name);
        self.note(by, event, details, about([("templatevar_id", &variable.id)])).await;
        self.caught_up().await?;
        Ok(variable.id)
    }

    /// Deletes a template variable.
    ///
    /// # Errors
    /// When there is none, or it cannot be written.
    pub async fn delete_variable(&self, by: &Caller, id: &str) -> Result<(), AccountError> {
        let (_turn, by) = &self.take_turn(by).await?;
        let variable = self.directory().variable(id).cloned().ok_or(Refusal::Unknown("variable"))?;
        self.merge(TEMPLATE_VARIABLES, id, json!({"deleted_at": self.now(), "value": null})).await?;
        let details = format!("deleted the template variable {}", variable.name);
        self.note(by, "variable.delete", details, about([("templatevar_id", id)])).await;
        Ok(self.caught_up().await?)
    }
}

fn refuse(complaints: Vec<Complaint>) -> Result<(), Refusal> {
    if complaints.is_empty() { Ok(()) } else { Err(Refusal::Complaints(complaints)) }
}
