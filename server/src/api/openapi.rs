//! The OpenAPI 3.1 document, made from the operations that are routed.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::operation::{Needs, Operation};

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
    let error = json!({
        "type": "object",
        "description": "What is wrong, and what to do about it.",
        "properties": {"error": {"type": "string"}, "hint": {"type": "string"}},
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
    if let Some((media, schema)) = operation.body {
        let content = json!({media: {"schema": schema(schemas)}});
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
    let in_path = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    let mut parameters: Vec<Value> = names.map(in_path).collect();
    let Some(query) = operation.query else { return parameters };
    let schema = resolved(query(schemas), schemas);
    let required: Vec<Value> = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    for (name, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let required = required.contains(&Value::from(name.as_str()));
        parameters.push(json!({"name": name, "in": "query", "required": required, "schema": schema}));
    }
    parameters
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
    json!({operation.status.to_string(): done, "4XX": refused, "5XX": refused})
}
