//! What the API can be asked: each operation with its path, who may ask, what goes in and what comes out. Routing,
//! permissions, metrics and the OpenAPI document are all made from these, so none can be told otherwise than it is.

use axum::http::Method;
use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::Shared;
use crate::accounts::Permission;

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Anybody.
    Nothing,
    /// Whoever has logged in.
    Login,
    /// Who has one of these permissions.
    OneOf(&'static [Permission]),
    /// Who asks about themselves, and who has this permission. The path names the user.
    OwnOr(Permission),
    /// Who may read, or edit, the collection in the path.
    Collection,
}

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) needs: Needs,
    pub(super) query: Option<SchemaOf>,
    /// Media types that are taken, each with what it holds.
    pub(super) bodies: Vec<(&'static str, SchemaOf)>,
    /// Members that it must have beside those that its schema requires.
    pub(super) required: &'static [&'static str],
    /// What the answer may be where all went well, the usual one first.
    pub(super) statuses: Vec<u16>,
    pub(super) answer: Option<(&'static str, SchemaOf)>,
    pub(super) handler: fn() -> MethodRouter<Shared>,
}

const JSON: &str = "application/json";

impl Operation {
    fn new(
        method: Method,
        path: &'static str,
        tag: &'static str,
        summary: &'static str,
        needs: Needs,
        handler: fn() -> MethodRouter<Shared>,
    ) -> Self {
        Self {
            method,
            path,
            tag,
            summary,
            needs,
            query: None,
            bodies: Vec::new(),
            required: &[],
            statuses: vec![200],
            answer: None,
            handler,
        }
    }

    /// What the query may hold.
    pub(super) fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// What is sent, as JSON.
    pub(super) fn takes<T: JsonSchema>(self) -> Self {
        self.takes_as::<T>(JSON)
    }

    /// What is sent as this media type. Said again, it is another that is taken too.
    pub(super) fn takes_as<T: JsonSchema>(mut self, media: &'static str) -> Self {
        self.bodies.push((media, SchemaGenerator::subschema_for::<T>));
        self
    }

    /// What must be sent here, where the same form goes with less elsewhere.
    pub(super) fn requires(mut self, members: &'static [&'static str]) -> Self {
        self.required = members;
        self
    }

    /// What is answered, as JSON.
    pub(super) fn gives<T: JsonSchema>(self) -> Self {
        self.gives_as::<T>(JSON)
    }

    /// What is answered, as this media type.
    pub(super) fn gives_as<T: JsonSchema>(mut self, media: &'static str) -> Self {
        self.answer = Some((media, SchemaGenerator::subschema_for::<T>));
        self
    }

    /// The status of an answer, where it is not 200.
    pub(super) fn status(mut self, status: u16) -> Self {
        self.statuses = vec![status];
        self
    }

    /// Another status of an answer, with the same body; 304 has none.
    pub(super) fn also(mut self, status: u16) -> Self {
        self.statuses.push(status);
        self
    }
}

macro_rules! methods {
    ($($name:ident $method:ident)+) => {
        $(pub(super) fn $name(
            path: &'static str,
            tag: &'static str,
            summary: &'static str,
            needs: Needs,
            handler: fn() -> MethodRouter<Shared>,
        ) -> Operation {
            Operation::new(Method::$method, path, tag, summary, needs, handler)
        })+
    };
}

methods! { get GET put PUT post POST patch PATCH delete DELETE }
