//! The OpenAPI 3.1 document, made from the operations that are routed.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::operation::{Needs, Operation};
use knot_engine::documents::{COLLECTION_BYTES_MAX, KEY_BYTES_MAX, ZONE_BYTES_MAX};

/// The document that describes these operations.
pub(super) fn document(operations: &[impl AsRef<Operation>], version: &str) -> Value {
    // Definitions go where OpenAPI keeps them.
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut schemas = settings.into_generator();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for operation in operations.iter().map(AsRef::as_ref) {
        let path = operation.path.replace("{*", "{");
        paths
            .entry(path)
            .or_default()
            .insert(operation.method.as_str().to_lowercase(), described(operation, &mut schemas));
    }
    link(&mut paths, &schemas);
    let error = json!({
        "type": "object",
        "description": "What is wrong, and what to do about it.",
        "properties": {
            "error": {"type": "string"},
            "hint": {"type": "string"},
            "urls": {"type": "array", "items": {"type": "string"}, "description": "With 421: servers of the zone."},
            "etag": {"type": ["string", "null"], "description": "With 410 and 412: the state of the document."},
        },
        "required": ["error", "hint"],
    });
    let mut definitions = schemas.take_definitions(true);
    definitions.insert("Error".to_owned(), error);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "knot",
            "version": version,
            "description": "Replicated JSON documents, and the users, tokens and servers around them. docs/http-api.md says more of documents.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": super::guard::SESSION_COOKIE},
            },
        },
    })
}

fn described(operation: &Operation, schemas: &mut SchemaGenerator) -> Value {
    let mut said = json!({
        "operationId": operation_id(operation),
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": parameters(operation, schemas),
        "responses": responses(operation, schemas),
    });
    let Some(object) = said.as_object_mut() else { return said };
    if !operation.bodies.is_empty() {
        let bodies = operation.bodies.iter();
        let content: Map<String, Value> = bodies
            .map(|(media, schema)| ((*media).to_owned(), json!({"schema": required(operation, schema(schemas))})))
            .collect();
        object.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    if let Some(needs) = needed(operation.needs) {
        object.insert("description".to_owned(), needs.into());
    } else {
        object.insert("security".to_owned(), json!([]));
    }
    said
}

/// What it takes to ask; none where anybody may.
pub(super) fn needed(needs: Needs) -> Option<String> {
    Some(match needs {
        Needs::Nothing => return None,
        Needs::Login => "Takes a login or a token.".to_owned(),
        Needs::OneOf(permissions) => {
            let titles: Vec<_> = permissions.iter().map(|permission| permission.title()).collect();
            format!("Takes the permission {}.", titles.join(" or "))
        }
        Needs::OwnOr(permission) => {
            format!("Takes the permission {}, but of who asks about themselves.", permission.title())
        }
        Needs::Collection => "Takes the permission to read, or to edit, the collection.".to_owned(),
    })
}

fn operation_id(operation: &Operation) -> String {
    let words = operation.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<_> =
        std::iter::once(operation.method.as_str().to_lowercase()).chain(words.map(str::to_owned)).collect();
    words.join("_")
}

fn parameters(operation: &Operation, schemas: &mut SchemaGenerator) -> Vec<Value> {
    let names = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": name_in_path(name)});
    let mut parameters: Vec<Value> = names.map(in_path).collect();
    let Some(query) = operation.query else { return parameters };
    let schema = resolved(query(schemas), schemas);
    let required: Vec<Value> = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    for (name, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let required = required.contains(&Value::from(name.as_str()));
        let schema = without_null(schema);
        parameters.push(json!({"name": name, "in": "query", "required": required, "schema": schema}));
    }
    parameters
}

/// A schema with the members that the operation requires beside its own.
fn required(operation: &Operation, schema: Schema) -> Value {
    let mut schema = schema.to_value();
    if let Some(object) = schema.as_object_mut().filter(|_| !operation.required.is_empty()) {
        object.insert("required".to_owned(), json!(operation.required));
    }
    schema
}

/// What may stand in a path under this name.
fn name_in_path(name: &str) -> Value {
    let label = |bytes_max: usize| json!({"type": "string", "pattern": format!("^[A-Za-z0-9._-]{{1,{bytes_max}}}$")});
    match name {
        "collection" => label(COLLECTION_BYTES_MAX),
        "zone" => label(ZONE_BYTES_MAX),
        // No character of a key takes more than four bytes, and none is a control character.
        "key" => {
            json!({"type": "string", "pattern": format!("^[^\\x00-\\x1f\\x7f-\\x9f]{{1,{}}}$", KEY_BYTES_MAX / 4)})
        }
        _ => json!({"type": "string", "minLength": 1}),
    }
}

/// What is left out of a query is not there: nothing can be sent in it that is null.
fn without_null(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let Some(Value::Array(kinds)) = schema.get_mut("type") else { return schema };
    kinds.retain(|kind| kind != "null");
    if let [only] = &kinds[..] {
        let only = only.clone();
        schema["type"] = only;
    }
    schema
}

/// Says of each operation that makes something which others take the id that it answers.
fn link(paths: &mut BTreeMap<String, Map<String, Value>>, schemas: &SchemaGenerator) {
    let mut takers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, methods) in &*paths {
        let ids = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        for id in ids.filter(|name| name.ends_with("_id")) {
            let names = methods.values().filter_map(|said| said.get("operationId")?.as_str().map(str::to_owned));
            takers.entry(id.to_owned()).or_default().extend(names);
        }
    }
    for made in paths.values_mut().flat_map(Map::values_mut).filter_map(|said| said.pointer_mut("/responses/201")) {
        let name = made.pointer("/content/application~1json/schema/$ref").and_then(Value::as_str);
        let schema = name.and_then(|path| schemas.definitions().get(path.rsplit('/').next()?));
        let members = schema.and_then(|schema| schema.get("properties")?.as_object()).into_iter().flatten();
        let mut links = Map::new();
        for (id, takers) in members.filter_map(|(id, _)| Some((id, takers.get(id)?))) {
            let taken = json!({id: format!("$response.body#/{id}")});
            let link = |taker: &String| (taker.clone(), json!({"operationId": taker, "parameters": taken}));
            links.extend(takers.iter().map(link));
        }
        if let Some(made) = made.as_object_mut().filter(|_| !links.is_empty()) {
            made.insert("links".to_owned(), links.into());
        }
    }
}

/// The schema behind a reference.
fn resolved(schema: Schema, schemas: &SchemaGenerator) -> Value {
    let schema = schema.to_value();
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    name.and_then(|name| schemas.definitions().get(name)).cloned().unwrap_or(schema)
}

fn responses(operation: &Operation, schemas: &mut SchemaGenerator) -> Value {
    let refused = json!({
        "description": "Refused, or not done.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    });
    let mut done = json!({"description": "Done."});
    if let (Some((media, schema)), Some(object)) = (operation.answer, done.as_object_mut()) {
        object.insert("content".to_owned(), json!({media: {"schema": schema(schemas)}}));
    }
    let mut responses = Map::from_iter([("4XX".to_owned(), refused.clone()), ("5XX".to_owned(), refused)]);
    for status in &operation.statuses {
        let answer = if *status == 304 { json!({"description": "It is as it was."}) } else { done.clone() };
        responses.insert(status.to_string(), answer);
    }
    responses.into()
}
