//! Records that have a list, a form and a delete each: what the pages of all of them have in common.

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::form::Fields;
use super::merge::{Marks, Merged, Said, members, with};
use super::page::{Fault, Problem, Shell, show_as};
use crate::accounts::{AccountError, Accounts, Caller, Directory, Refusal};
use crate::api::Shared;
use crate::api::error::{ApiError, Form};
use crate::templates::Complaint;

/// A kind of record. Its form has fields under the names of its members, and writes those that were changed.
pub(super) trait Record: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Where the list of them is: `/groups`.
    const PATH: &'static str;
    /// What one is called in addresses: `group`.
    const KIND: &'static str;

    /// The one of this id.
    fn find(directory: &Directory, id: &str) -> Option<Self>;

    /// What a form says.
    fn filled(fields: &Fields) -> Said;

    /// What a form shows of it.
    fn shown(&self) -> Said {
        let on_form = Self::filled(&Fields::default());
        members(self).into_iter().filter(|(name, _)| on_form.contains_key(name)).collect()
    }

    /// What is said of a field in place of a value that no form shows.
    fn unshown(&self, _field: &str) -> Option<&'static str> {
        None
    }

    /// The page with its form.
    fn page(
        api: &Shared,
        shell: Shell,
        draft: Draft<Self>,
    ) -> impl Future<Output = Result<impl Template + Send, ApiError>> + Send;

    /// Changes one, or makes one where no id is given.
    fn put(
        accounts: &Accounts,
        by: &Caller,
        id: Option<&str>,
        change: impl FnOnce(Self) -> Result<Self, Refusal> + Send,
    ) -> impl Future<Output = Result<String, AccountError>> + Send;

    /// Deletes one.
    fn delete(accounts: &Accounts, by: &Caller, id: &str) -> impl Future<Output = Result<(), AccountError>> + Send;
}

/// What is in a form.
#[derive(Clone, Debug)]
pub(super) struct Draft<R> {
    /// None for one that is to be made.
    pub(super) id: Option<String>,
    /// What forms show of it, and nothing else.
    pub(super) record: R,
    /// What the form was filled from.
    pub(super) was: String,
    pub(super) problem: Option<Problem>,
    /// What somebody else made meanwhile of fields that were changed here too.
    pub(super) theirs: Said,
    pub(super) complaints: Vec<Complaint>,
}

impl<R: Record> Draft<R> {
    /// The form of one as it is.
    pub(super) fn of(id: Option<String>, record: R) -> Self {
        let shown = record.shown();
        let was = Marks::of(&shown).text();
        // What is shown is of the types that it was of.
        let record = with(&R::default(), shown).unwrap_or_default();
        Self { id, record, was, problem: None, theirs: Said::new(), complaints: Vec::new() }
    }

    /// The form of one as it is by now, with what was changed in a form that was sent.
    pub(super) fn sent(id: Option<String>, held: &R, was: &Marks, mine: &Said) -> Result<Self, Refusal> {
        let shown = held.shown();
        let Merged { changed, disputed } = Merged::new(was, mine, &shown, &members(held));
        let draft = Self::of(id, held.clone());
        let record = with(&draft.record, changed).map_err(unfit)?;
        let theirs = shown.into_iter().filter(|(name, _)| disputed.contains(name));
        let said = |(name, value): (String, Value)| {
            let value = held.unshown(&name).map_or(value, Value::from);
            (name, value)
        };
        let theirs = theirs.map(said).collect();
        Ok(Self { record, theirs, ..draft })
    }
}

impl<R> Draft<R> {
    /// What a field says by now, where somebody else has changed it to something else than is in the form.
    pub(super) fn theirs(&self, field: &str) -> Option<String> {
        let theirs = self.theirs.get(field)?;
        let text = theirs.as_str().map_or_else(|| plain(theirs), str::to_owned);
        Some(if text.is_empty() { "nothing".to_owned() } else { text })
    }
}

/// A value as people read it: a row a line.
fn plain(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join("\n"),
        Value::Object(members) => {
            members.values().map(plain).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ")
        }
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

pub(super) fn unfit(error: serde_json::Error) -> Refusal {
    Refusal::Unfit(error.to_string())
}

/// What is known under an id.
pub(super) async fn known<R: Record>(api: &Shared, id: &str) -> Result<R, ApiError> {
    api.accounts.ready().await?;
    Ok(R::find(&api.accounts.directory(), id).ok_or(Refusal::Unknown(R::KIND))?)
}

/// Shows a form, and what there is to say of it.
pub(super) async fn show<R: Record>(api: &Shared, shell: Shell, draft: Draft<R>) -> Result<Response, Fault> {
    let status = draft.problem.as_ref().map_or(axum::http::StatusCode::OK, |problem| problem.status);
    Ok(show_as(status, &R::page(api, shell, draft).await?))
}

pub(super) async fn form_new<R: Record>(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
) -> Result<Response, Fault> {
    api.accounts.ready().await?;
    show(&api, shell, Draft::of(None, R::default())).await
}

pub(super) async fn form_of<R: Record>(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let record = known::<R>(&api, &id).await?;
    show(&api, shell, Draft::of(Some(id), record)).await
}

pub(super) async fn create<R: Record>(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    save::<R>(&api, shell, &by, None, &fields).await
}

pub(super) async fn change<R: Record>(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    save::<R>(&api, shell, &by, Some(id), &fields).await
}

/// What a form that was sent was filled from: one for what is to be made, from nothing.
pub(super) fn marks<R: Record>(id: Option<&str>, fields: &Fields) -> Result<Marks, ApiError> {
    match id {
        None => Ok(Marks::of(&R::default().shown())),
        Some(_) => Ok(Marks::read(fields).ok_or(Form::NoMarks)?),
    }
}

/// Stores what was changed in a form.
pub(super) async fn save<R: Record>(
    api: &Shared,
    shell: Shell,
    by: &Caller,
    id: Option<String>,
    fields: &Fields,
) -> Result<Response, Fault> {
    let (was, mine) = (marks::<R>(id.as_deref(), fields)?, R::filled(fields));
    let change = |held: R| {
        let changed = Merged::new(&was, &mine, &held.shown(), &members(&held)).undisputed()?;
        with(&held, changed).map_err(unfit)
    };
    let Err(error) = R::put(&api.accounts, by, id.as_deref(), change).await else {
        let done = if id.is_none() { "created" } else { "changed" };
        return Ok(Redirect::to(&format!("{}?done={}-{done}", R::PATH, R::KIND)).into_response());
    };
    let held = match &id {
        None => R::default(),
        Some(id) => known::<R>(api, id).await?,
    };
    let draft = Draft::sent(id, &held, &was, &mine)?;
    show(api, shell, refused(draft, error)).await
}

/// The same form with what there is to say of an error.
fn refused<R>(draft: Draft<R>, error: AccountError) -> Draft<R> {
    if let AccountError::Refused(Refusal::Complaints(complaints)) = error {
        let hint = "Nothing was saved. What is wrong is said where it is.";
        return Draft { problem: Some(Problem::new("This cannot be used as it is.", hint)), complaints, ..draft };
    }
    Draft { problem: Some(Problem::of(&error.into())), ..draft }
}

pub(super) async fn remove<R: Record>(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let Err(error) = R::delete(&api.accounts, &by, &id).await else {
        return Ok(Redirect::to(&format!("{}?done={}-deleted", R::PATH, R::KIND)).into_response());
    };
    let record = known::<R>(&api, &id).await?;
    show(&api, shell, refused(Draft::of(Some(id), record), error)).await
}
