//! Templates and their variables.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get as on_get, post as on_post, put as on_put};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{ApiError, Form};
use super::operation::{Needs, Operation, get, post, put};
use super::query::{self, ExportQuery};
use super::users::{DONE, Done};
use super::{Api, Shared, body, operation};
use crate::accounts::{Caller, Permission, Refusal};
use crate::templates::{Complaint, Template, TemplateVariable, to_toml, to_yaml};

const SEES: Needs = Needs::OneOf(&[Permission::UseSpaces, Permission::ManageTemplates]);
const MANAGES: Needs = Needs::OneOf(&[Permission::ManageTemplates]);
const VARIABLES: Needs = Needs::OneOf(&[Permission::ManageVariables]);
const TAG: &str = "Templates";

pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/api/templates", TAG, "List templates: those that one may use, or all to who manages them", SEES, || {
            on_get(list)
        })
        .gives::<TemplateList>(),
        post("/api/templates", TAG, "Make a template", MANAGES, || on_post(create))
            .takes::<Map<String, Value>>()
            .requires(&["name", "job"])
            .gives::<TemplateCreated>()
            .status(201),
        post("/api/templates/validate", TAG, "Say what is wrong with a template", MANAGES, || on_post(validate))
            .takes::<Map<String, Value>>()
            .gives::<Validation>(),
        get("/api/templates/{template_id}", TAG, "Read a template", SEES, || on_get(read))
            .gives::<Map<String, Value>>(),
        put("/api/templates/{template_id}", TAG, "Change a template: what is not sent stays", MANAGES, || {
            on_put(update)
        })
        .takes::<Map<String, Value>>()
        .gives::<Done>(),
        operation::delete("/api/templates/{template_id}", TAG, "Delete a template", MANAGES, || delete(remove))
            .gives::<Done>(),
        get("/api/templates/{template_id}/export", TAG, "Write a template as a file", SEES, || on_get(export))
            .query::<ExportQuery>()
            .gives_as::<String>("text/plain"),
        get("/api/templatevars", TAG, "List template variables", VARIABLES, || on_get(list_variables))
            .gives::<VariableList>(),
        post("/api/templatevars", TAG, "Make a template variable", VARIABLES, || on_post(create_variable))
            .takes::<Map<String, Value>>()
            .requires(&["name"])
            .gives::<VariableCreated>()
            .status(201),
        get("/api/templatevars/{templatevar_id}", TAG, "Read a template variable", VARIABLES, || on_get(read_variable))
            .gives::<Map<String, Value>>(),
        put("/api/templatevars/{templatevar_id}", TAG, "Change a template variable", VARIABLES, || {
            on_put(update_variable)
        })
        .takes::<Map<String, Value>>()
        .gives::<Done>(),
        operation::delete("/api/templatevars/{templatevar_id}", TAG, "Delete a template variable", VARIABLES, || {
            delete(remove_variable)
        })
        .gives::<Done>(),
    ]
}

#[derive(Debug, Serialize, JsonSchema)]
struct TemplateList {
    count: usize,
    templates: Vec<Map<String, Value>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TemplateCreated {
    status: bool,
    template_id: String,
}

/// What is wrong; nothing where it could be stored.
#[derive(Debug, Serialize, JsonSchema)]
struct Validation {
    valid: bool,
    errors: Vec<Wrong>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Wrong {
    field: String,
    /// In the field's text, from 1.
    line: Option<usize>,
    message: String,
    hint: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct VariableList {
    count: usize,
    /// Without their values.
    variables: Vec<Map<String, Value>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct VariableCreated {
    status: bool,
    templatevar_id: String,
}

impl From<Complaint> for Wrong {
    fn from(complaint: Complaint) -> Self {
        let Complaint { field, line, path, message, hint } = complaint;
        let message = if path.is_empty() { message } else { format!("{path}: {message}") };
        Self { field, line, message, hint }
    }
}

fn object(record: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(record) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

/// Lays what is sent over what is there. A member that there is not is refused by its name.
fn laid_over<T: Serialize + for<'a> Deserialize<'a>>(
    old: &T,
    id: &str,
    sent: Map<String, Value>,
) -> Result<T, Refusal> {
    let mut fields = object(old);
    for (name, value) in sent {
        if name == id || fields.insert(name.clone(), value).is_none() {
            return Err(Refusal::Unfit(format!("unknown field `{name}`")));
        }
    }
    serde_json::from_value(fields.into()).map_err(|error| Refusal::Unfit(error.to_string()))
}

async fn list(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
) -> Result<axum::Json<TemplateList>, ApiError> {
    api.accounts.ready().await?;
    let directory = api.accounts.directory();
    let seen = directory.templates().filter(|template| directory.may_see(&by, template, &api.zone));
    let mut seen: Vec<&Template> = seen.collect();
    seen.sort_by_cached_key(|template| (template.name.to_lowercase(), template.id.clone()));
    let templates: Vec<_> = seen.into_iter().map(|template| object(&directory.named_template(template))).collect();
    Ok(axum::Json(TemplateList { count: templates.len(), templates }))
}

/// The template that is seen under an id.
async fn seen(api: &Api, by: &Caller, id: &str) -> Result<Template, ApiError> {
    api.accounts.ready().await?;
    let directory = api.accounts.directory();
    let template = directory.template(id).filter(|template| directory.may_see(by, template, &api.zone));
    Ok(directory.named_template(template.ok_or(Refusal::Unknown("template"))?))
}

async fn read(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<Map<String, Value>>, ApiError> {
    Ok(axum::Json(object(&seen(&api, &by, &id).await?)))
}

async fn create(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let sent = body::form(&api, &headers, body).await?;
    let template_id = api.accounts.put_template(&by, None, |new| laid_over(&new, "template_id", sent)).await?;
    Ok((StatusCode::CREATED, axum::Json(TemplateCreated { status: true, template_id })).into_response())
}

async fn validate(
    State(api): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<Validation>, ApiError> {
    let template = laid_over(&Template::default(), "template_id", body::form(&api, &headers, body).await?)?;
    api.accounts.ready().await?;
    let errors: Vec<Wrong> = api.accounts.complaints(&template).into_iter().map(Wrong::from).collect();
    Ok(axum::Json(Validation { valid: errors.is_empty(), errors }))
}

async fn update(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<Done>, ApiError> {
    let sent = body::form(&api, &headers, body).await?;
    api.accounts.put_template(&by, Some(&id), |old| laid_over(&old, "template_id", sent)).await?;
    Ok(DONE)
}

async fn remove(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<Done>, ApiError> {
    api.accounts.delete_template(&by, &id).await?;
    Ok(DONE)
}

async fn export(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let ExportQuery { format } = query::parse(&uri)?;
    let template = seen(&api, &by, &id).await?;
    let text = match format.as_deref() {
        None | Some("toml") => to_toml(&template),
        Some("yaml") => to_yaml(&template),
        Some(_) => return Err(Form::BadQuery("format is toml or yaml".to_owned()).into()),
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// A variable as it is shown: a protected one without its value.
fn shown(variable: &TemplateVariable) -> Map<String, Value> {
    let mut shown = object(variable);
    if variable.protected {
        shown.insert("value".to_owned(), "".into());
    }
    shown
}

async fn list_variables(State(api): State<Shared>) -> Result<axum::Json<VariableList>, ApiError> {
    api.accounts.ready().await?;
    let directory = api.accounts.directory();
    let mut variables: Vec<&TemplateVariable> = directory.variables().collect();
    variables.sort_by_cached_key(|variable| (variable.name.to_lowercase(), variable.id.clone()));
    let without_value = |variable: &TemplateVariable| {
        let mut shown = object(variable);
        shown.remove("value");
        shown
    };
    let variables: Vec<_> = variables.into_iter().map(without_value).collect();
    Ok(axum::Json(VariableList { count: variables.len(), variables }))
}

async fn read_variable(
    State(api): State<Shared>,
    Path(id): Path<String>,
) -> Result<axum::Json<Map<String, Value>>, ApiError> {
    api.accounts.ready().await?;
    let directory = api.accounts.directory();
    Ok(axum::Json(shown(directory.variable(&id).ok_or(Refusal::Unknown("variable"))?)))
}

async fn create_variable(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let sent = body::form(&api, &headers, body).await?;
    let templatevar_id = api.accounts.put_variable(&by, None, |new| laid_over(&new, "templatevar_id", sent)).await?;
    Ok((StatusCode::CREATED, axum::Json(VariableCreated { status: true, templatevar_id })).into_response())
}

async fn update_variable(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<axum::Json<Done>, ApiError> {
    let sent = body::form(&api, &headers, body).await?;
    api.accounts.put_variable(&by, Some(&id), |old| laid_over(&old, "templatevar_id", sent)).await?;
    Ok(DONE)
}

async fn remove_variable(
    State(api): State<Shared>,
    Extension(by): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<Done>, ApiError> {
    api.accounts.delete_variable(&by, &id).await?;
    Ok(DONE)
}
