//! Spaces: listed with where they can run, made from a template.

mod one;

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use super::form::Fields;
use super::moment::Moment;
use super::page::{Fault, Problem, Shell, show, show_as};
use super::{Page, page};
use crate::accounts::{Caller, Permission, Refusal};
use crate::api::Shared;
use crate::api::operation::Needs;
use crate::spaces::record::CustomValue;
use crate::spaces::{Away, NAME_BYTES_MAX, NewSpace, Place, Start, View};
use crate::templates::Template as SpaceTemplate;

/// How the inputs of a template's own fields begin.
const FIELD: &str = "field:";

pub(super) fn pages() -> Vec<Page> {
    const USES: Needs = Needs::OneOf(&[Permission::UseSpaces, Permission::ManageSpaces]);
    vec![
        page("/spaces", USES, || get(list).post(create)),
        page("/spaces/new", USES, || get(form)),
        page("/spaces/{id}", USES, || get(one::show_one).post(one::change)),
        page("/spaces/{id}/start", USES, || post(one::start)),
        page("/spaces/{id}/restart", USES, || post(one::restart)),
        page("/spaces/{id}/stop", USES, || post(one::stop)),
        page("/spaces/{id}/share", USES, || post(one::share)),
        page("/spaces/{id}/unshare", USES, || post(one::unshare)),
        page("/spaces/{id}/transfer", USES, || post(one::transfer)),
        page("/spaces/{id}/delete", USES, || post(one::remove)),
    ]
}

/// A space as pages show it.
struct Row {
    view: View,
    state: &'static str,
    /// How the state is coloured, by the states of servers.
    colour: &'static str,
    is_mine: bool,
    since: Option<Moment>,
}

impl Row {
    fn of(view: View, by: &Caller, now: i64) -> Self {
        let state = view.state();
        let colour = match state {
            "running" => "alive",
            "failed" => "failed",
            "stopped" | "removed" => "left",
            _ => "suspect",
        };
        let since = view.silent_since().or(view.started_at()).map(|at| Moment::of(at, now));
        Self { state, colour, is_mine: by.user() == Some(&view.record.user_id), since, view }
    }

    /// Whether it will be something else by itself soon.
    fn is_moving(&self) -> bool {
        matches!(self.state, "pending" | "starting" | "stopping" | "deleting")
    }
}

#[derive(Template)]
#[template(path = "spaces.html")]
struct List {
    shell: Shell,
    rows: Vec<Row>,
    away: Vec<Away>,
    /// Zones, and whether spaces can run there.
    zones: Vec<(String, bool)>,
    /// Servers, for those who may see them.
    places: Option<Vec<Place>>,
    is_moving: bool,
}

impl List {
    /// Where a space that is resident elsewhere can be seen.
    fn link(&self, away: &Away) -> Option<String> {
        let url = away.urls.iter().find(|url| is_web(url))?;
        Some(format!("{url}/spaces/{}", away.stub.space_id))
    }

    fn can_run(&self) -> bool {
        self.zones.iter().any(|(_, can_run)| *can_run)
    }
}

/// Whether an address that a server says is its own may be linked to.
fn is_web(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}

fn has_runtime(place: &Place) -> bool {
    place.facts.as_ref().is_some_and(|facts| facts.platform().is_some())
}

async fn list(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
) -> Result<Response, Fault> {
    let seen = api.spaces.list(&by).await?;
    let now = api.accounts.now();
    let rows: Vec<Row> = seen.here.into_iter().map(|view| Row::of(view, &by, now)).collect();
    let mut places: Vec<Place> = api.spaces.places().await?.into_values().collect();
    places.sort_by_cached_key(|place| (place.zone.clone(), place.name.clone()));
    let mut zones: BTreeMap<String, bool> = BTreeMap::new();
    for place in &places {
        *zones.entry(place.zone.clone()).or_default() |= place.is_alive && has_runtime(place);
    }
    let may_see = by.may(Permission::ClusterInfo) || by.may(Permission::ManageCluster);
    Ok(show(&List {
        shell: shell.watching(&[("watch", "spaces")]),
        is_moving: rows.iter().any(Row::is_moving),
        rows,
        away: seen.away,
        zones: zones.into_iter().collect(),
        places: may_see.then_some(places),
    }))
}

/// A template that one may make spaces from.
struct Choice {
    id: String,
    name: String,
    description: String,
}

#[derive(Template)]
#[template(path = "space_choose.html")]
struct Choose {
    shell: Shell,
    choices: Vec<Choice>,
}

#[derive(Template)]
#[template(path = "space_new.html")]
struct Form {
    shell: Shell,
    problem: Option<Problem>,
    template: SpaceTemplate,
    fields: Vec<Field>,
    zones: Vec<String>,
    zone: String,
    name: String,
    description: String,
    resident: bool,
    starts: bool,
    name_max: usize,
}

/// A field of a template with what is filled in.
struct Field {
    name: String,
    description: String,
    value: String,
}

fn fields_of(template: &SpaceTemplate, value: impl Fn(&str) -> String) -> Vec<Field> {
    let field = |field: &crate::templates::CustomField| Field {
        value: value(&field.name),
        name: field.name.clone(),
        description: field.description.clone(),
    };
    template.custom_fields.iter().map(field).collect()
}

fn filled(template: &SpaceTemplate, fields: &Fields) -> Vec<CustomValue> {
    let names = template.custom_fields.iter().map(|field| field.name.clone());
    names.map(|name| CustomValue { value: fields.get(&format!("{FIELD}{name}")).to_owned(), name }).collect()
}

impl Form {
    async fn new(api: &Shared, shell: Shell, by: &Caller, template: SpaceTemplate) -> Result<Self, Fault> {
        let zones = api.spaces.servers().await?.zones();
        let zones: Vec<String> = zones.into_iter().filter(|zone| template.is_allowed_in(zone)).collect();
        let directory = api.accounts.directory();
        let home = by.user().and_then(|id| directory.user(id)).map(|user| user.zone.clone()).unwrap_or_default();
        let zone = [home, api.zone.to_string()].into_iter().find(|zone| zones.contains(zone)).unwrap_or_default();
        let fields = fields_of(&template, |_| String::new());
        let (name, description) = (String::new(), String::new());
        let (resident, starts, name_max) = (false, true, NAME_BYTES_MAX);
        Ok(Self { shell, problem: None, template, fields, zones, zone, name, description, resident, starts, name_max })
    }
}

/// The templates that `by` may make spaces from in some zone of the cluster.
async fn usable(api: &Shared, by: &Caller) -> Result<Vec<SpaceTemplate>, Fault> {
    api.accounts.caught_up().await?;
    let zones: BTreeSet<String> = api.spaces.servers().await?.zones();
    let directory = api.accounts.directory();
    let may_use = |template: &&SpaceTemplate| {
        template.active
            && (by.may(Permission::ManageSpaces) || zones.iter().any(|zone| directory.may_use(by, template, zone)))
    };
    let mut templates: Vec<_> =
        directory.templates().filter(may_use).map(|template| directory.named_template(template)).collect();
    templates.sort_by_cached_key(|template| template.name.to_lowercase());
    Ok(templates)
}

async fn form(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Fault> {
    let wanted = Fields::of(&uri).text("template");
    let mut templates = usable(&api, &by).await?;
    if let Some(at) = templates.iter().position(|template| template.id == wanted) {
        return Ok(show(&Form::new(&api, shell, &by, templates.swap_remove(at)).await?));
    }
    let choice =
        |template: SpaceTemplate| Choice { id: template.id, name: template.name, description: template.description };
    let choices = templates.into_iter().map(choice).collect();
    Ok(show(&Choose { shell: shell.watching(&[("watch", "templates")]), choices }))
}

async fn create(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let fields = Fields::read(&api, &headers, body).await?;
    let wanted = fields.text("template");
    let template = usable(&api, &by).await?.into_iter().find(|template| template.id == wanted);
    let template = template.ok_or(Refusal::Unknown("template"))?;
    let new = NewSpace {
        name: fields.text("name"),
        description: fields.text("description"),
        template_id: template.id.clone(),
        zone: Some(fields.text("zone")).filter(|zone| !zone.is_empty()),
        resident: fields.has("resident"),
        custom_fields: filled(&template, &fields),
        ..NewSpace::default()
    };
    let starts = fields.has("start");
    match api.spaces.create(&by, new.clone()).await {
        Ok(id) if starts => match api.spaces.start(&by, &id, Start::Somewhere).await {
            Ok(()) => Ok(Redirect::to(&format!("/spaces/{id}?done=space-started")).into_response()),
            // It is made all the same, and its page has the way to start it.
            Err(error) => one::refuse(&api, shell, &by, &id, &error.into()).await,
        },
        Ok(id) => Ok(Redirect::to(&format!("/spaces/{id}?done=space-created")).into_response()),
        Err(error) => {
            let problem = Problem::of(&error.into());
            let given = fields_of(&template, |name| fields.get(&format!("{FIELD}{name}")).to_owned());
            let form = Form {
                fields: given,
                zone: new.zone.unwrap_or_default(),
                name: new.name,
                description: new.description,
                resident: new.resident,
                starts,
                ..Form::new(&api, shell, &by, template).await?
            };
            Ok(show_as(problem.status, &Form { problem: Some(problem), ..form }))
        }
    }
}
