//! The API for people who write programs: rendered from the OpenAPI document that programs read.

use std::collections::BTreeMap;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use serde_json::Value;

use super::page::{Fault, LOGIN, Shell, show};
use super::{Page, page};
use crate::api::Shared;
use crate::api::error::ApiError;

/// How deep a reference to a schema is followed.
const DEPTH_MAX: usize = 4;

pub(super) fn pages() -> Vec<Page> {
    vec![page("/api-docs", LOGIN, || get(docs)), page("/api-docs/{tag}", LOGIN, || get(part))]
}

/// A parameter, or a member of a body.
struct Field {
    name: String,
    kind: String,
    is_required: bool,
    help: String,
}

struct Operation {
    method: String,
    path: String,
    summary: String,
    help: String,
    parameters: Vec<Field>,
    body: Vec<Field>,
    body_kind: String,
    answer: Vec<Field>,
    answer_kind: String,
}

struct Group {
    tag: String,
    operations: Vec<Operation>,
}

#[derive(Template)]
#[template(path = "apidocs.html")]
struct Docs {
    shell: Shell,
    groups: Vec<Group>,
    /// Whether operations are shown with all that there is to say of them.
    is_part: bool,
}

async fn docs(State(api): State<Shared>, Extension(shell): Extension<Shell>) -> Response {
    show(&Docs { shell, groups: groups(&api.openapi), is_part: false })
}

async fn part(
    State(api): State<Shared>,
    Extension(shell): Extension<Shell>,
    Path(tag): Path<String>,
) -> Result<Response, Fault> {
    let groups: Vec<Group> = groups(&api.openapi).into_iter().filter(|group| group.tag == tag).collect();
    if groups.is_empty() { Err(ApiError::NoRoute.into()) } else { Ok(show(&Docs { shell, groups, is_part: true })) }
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn members<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.get(name).and_then(Value::as_object).into_iter().flatten()
}

fn groups(openapi: &Value) -> Vec<Group> {
    let mut groups: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
    for (path, methods) in members(openapi, "paths") {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let tag = list(operation, "tags").next().and_then(Value::as_str).unwrap_or_default().to_owned();
            groups.entry(tag).or_default().push(described(openapi, path, method, operation));
        }
    }
    groups.into_iter().map(|(tag, operations)| Group { tag, operations }).collect()
}

fn described(openapi: &Value, path: &str, method: &str, operation: &Value) -> Operation {
    let parameter = |parameter: &Value| Field {
        name: text(parameter, "name"),
        kind: format!("{}, {}", text(parameter, "in"), kind(openapi, parameter.get("schema").unwrap_or(&Value::Null))),
        is_required: parameter.get("required").and_then(Value::as_bool).unwrap_or(false),
        help: text(parameter, "description"),
    };
    let (body_kind, body) = content(openapi, operation.get("requestBody").unwrap_or(&Value::Null));
    let good = members(operation, "responses").find(|(status, _)| status.starts_with('2'));
    let (answer_kind, answer) = good.map(|(_, answer)| content(openapi, answer)).unwrap_or_default();
    Operation {
        method: method.to_uppercase(),
        path: path.to_owned(),
        summary: text(operation, "summary"),
        help: text(operation, "description"),
        parameters: list(operation, "parameters").map(parameter).collect(),
        body,
        body_kind,
        answer,
        answer_kind,
    }
}

/// The media type of a body, with what it is, and its members.
fn content(openapi: &Value, body: &Value) -> (String, Vec<Field>) {
    let contents: Vec<(&String, &Value)> = members(body, "content").collect();
    let schema_of = |content: &Value| content.get("schema").cloned().unwrap_or_default();
    let said = contents.iter().map(|(media, content)| format!("{}, as {media}", kind(openapi, &schema_of(content))));
    let said = said.collect::<Vec<_>>().join("; or ");
    // Of several forms each has members of its own.
    let [(_, content)] = &contents[..] else { return (said, Vec::new()) };
    let schema = &schema_of(content);
    let mut resolved = resolve(openapi, schema);
    if let Some(items) = resolved.get("items") {
        resolved = resolve(openapi, items);
    }
    let required: Vec<&str> =
        list(resolved, "required").chain(list(schema, "required")).filter_map(Value::as_str).collect();
    let field = |(name, schema): (&String, &Value)| Field {
        kind: kind(openapi, schema),
        is_required: required.contains(&name.as_str()),
        help: text(schema, "description"),
        name: name.clone(),
    };
    (said, members(resolved, "properties").map(field).collect())
}

fn resolve<'a>(openapi: &'a Value, schema: &'a Value) -> &'a Value {
    let mut found = schema;
    for _ in 0..DEPTH_MAX {
        let Some(reference) = found.get("$ref").and_then(Value::as_str) else { break };
        let Some(target) = reference.strip_prefix('#').and_then(|pointer| openapi.pointer(pointer)) else { break };
        found = target;
    }
    found
}

/// What a schema allows, in a word or two.
fn kind(openapi: &Value, schema: &Value) -> String {
    let resolved = resolve(openapi, schema);
    if let Some(items) = resolved.get("items") {
        return format!("list of {}", kind(openapi, items));
    }
    match resolved.get("type") {
        Some(Value::String(one)) => one.clone(),
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => "any value".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_referred_to_is_shown() {
        let openapi = json!({
            "paths": {"/api/things": {"post": {
                "operationId": "make", "tags": ["Things"], "summary": "Make a thing",
                "parameters": [{"name": "w", "in": "query", "schema": {"type": "integer"}}],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
                "responses": {"201": {}, "default": {}},
            }}},
            "components": {"schemas": {"Thing": {
                "type": "object", "required": ["name"],
                "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
            }}},
        });
        let groups = groups(&openapi);
        let [Group { tag, operations }] = &groups[..] else { panic!("one group") };
        let [made] = &operations[..] else { panic!("one operation") };
        assert_eq!((tag.as_str(), made.method.as_str(), made.path.as_str()), ("Things", "POST", "/api/things"));
        assert_eq!(made.parameters[0].kind, "query, integer");
        let shown = |field: &Field| (field.name.clone(), field.kind.clone(), field.is_required);
        let body: Vec<_> = made.body.iter().map(shown).collect();
        assert_eq!(body[0], ("name".to_owned(), "string".to_owned(), true));
        assert_eq!(body[1], ("tags".to_owned(), "list of string".to_owned(), false));
    }
}
