//! Templates: listed, made, looked at, changed, deleted.

mod editor;
mod preview;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::{get, post};

use self::editor::{Editor, Outcome};
use self::preview::Preview;
use super::form::Fields;
use super::merge::with;
use super::page::{Fault, Shell, show};
use super::record::{self, Draft, Record, unfit};
use super::users::SHOWN_MAX;
use super::{Page, page};
use crate::accounts::{Caller, Permission, Refusal};
use crate::api::Shared;
use crate::api::operation::Needs;
use crate::api::path::encode;
use crate::templates::{Complaint, Template};

pub(super) fn pages() -> Vec<Page> {
    const SEES: Needs = Needs::OneOf(&[Permission::UseSpaces, Permission::ManageTemplates]);
    const MANAGES: Needs = Needs::OneOf(&[Permission::ManageTemplates]);
    vec![
        page("/templates", SEES, || get(list)),
        page("/templates", MANAGES, || post(create)),
        page("/templates/new", MANAGES, || get(record::form_new::<Template>)),
        page("/templates/{id}", SEES, || get(show_one)),
        page("/templates/{id}", MANAGES, || post(change)),
        page("/templates/{id}/delete", MANAGES, || post(record::remove::<Template>)),
    ]
}

struct Row {
    template: Template,
    zones: String,
    groups: String,
}

#[derive(askama::Template)]
#[template(path = "templates.html")]
struct List {
    shell: Shell,
    rows: Vec<Row>,
    found: usize,
    query: String,
    text: String,
    may_manage: bool,
}

async fn list(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Fault> {
    api.accounts.ready().await?;
    let text = Fields::of(&uri).text("text");
    let wanted = text.to_lowercase();
    let (rows, found) = {
        let directory = api.accounts.directory();
        let is_found = |template: &&Template| {
            let texts = [&template.name, &template.description];
            directory.may_see(&by, template, &api.zone)
                && texts.iter().any(|text| text.to_lowercase().contains(&wanted))
        };
        let row = |template: &Template| Row {
            template: directory.named_template(template),
            zones: template.zones.join(", "),
            groups: template.groups.join(", "),
        };
        let mut templates: Vec<&Template> = directory.templates().filter(is_found).collect();
        templates.sort_by_cached_key(|template| (template.name.to_lowercase(), template.id.clone()));
        (templates.iter().take(SHOWN_MAX).copied().map(row).collect(), templates.len())
    };
    let may_manage = by.may(Permission::ManageTemplates);
    Ok(show(&List {
        shell: shell.watching(&[("watch", "templates")]),
        rows,
        found,
        query: encode(&text),
        text,
        may_manage,
    }))
}

#[derive(askama::Template)]
#[template(path = "template_view.html")]
struct View {
    shell: Shell,
    template: Template,
}

/// The editor for those who manage templates; for others, what it says.
async fn show_one(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Fault> {
    let template = record::known::<Template>(&api, &id).await?;
    if by.may(Permission::ManageTemplates) {
        let mut editor = Editor::new(&api, shell, Draft::of(Some(id), template)).await?;
        editor.was_opened_with(Fields::of(&uri).get("opened"));
        return Ok(editor.show());
    }
    let directory = api.accounts.directory();
    if !directory.may_see(&by, &template, &api.zone) {
        return Err(Refusal::Unknown(Template::KIND).into());
    }
    let template = directory.named_template(&template);
    Ok(show(&View { shell: shell.watching(&[("watch", "templates")]), template }))
}

async fn create(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    act(&api, shell, &by, None, &fields).await
}

async fn change(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    act(&api, shell, &by, Some(id), &fields).await
}

/// Does what the button is for by which the form was sent.
async fn act(api: &Shared, shell: Shell, by: &Caller, id: Option<String>, fields: &Fields) -> Result<Response, Fault> {
    let action = fields.get("action");
    if matches!(action, "" | "save") {
        return record::save::<Template>(api, shell, by, id, fields).await;
    }
    // Nothing is stored, so the form stays as it was sent, with what it was filled from.
    let held = match &id {
        None => Template::default(),
        Some(id) => record::known::<Template>(api, id).await?,
    };
    let template = with(&held, Template::filled(fields)).map_err(unfit)?;
    let draft = Draft { was: fields.get("was").to_owned(), ..Draft::of(id, template.clone()) };
    let complaints = if matches!(action, "check" | "preview") { complaints(api, &template) } else { Vec::new() };
    let (complaints, outcome) = match action {
        "preview" if complaints.is_empty() => match Preview::new(api, by, &template).await? {
            Ok(preview) => (complaints, Outcome::Preview(preview)),
            Err(complaints) => (complaints, Outcome::NoPreview),
        },
        "check" | "preview" => (complaints, Outcome::Checked),
        _ => (complaints, Outcome::None),
    };
    let mut editor = Editor::new(api, shell, Draft { complaints, ..draft }).await?;
    editor.outcome = outcome;
    editor.add_rows(fields);
    Ok(editor.show())
}

/// What is wrong with a template, another's name among it.
fn complaints(api: &Shared, template: &Template) -> Vec<Complaint> {
    let mut complaints = api.accounts.complaints(template);
    if api.accounts.directory().check_template_name(template).is_err() {
        complaints.push(Complaint::of("name", "is another template's", "choose another"));
    }
    complaints
}
