//! What each path takes in its query. A name that is misspelt is refused, not ignored.

use axum::extract::Query;
use axum::http::Uri;
use knot_engine::membership::MEMBERS_MAX;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::{ApiError, Form};
use super::{audit, list};

/// PUT, PATCH and DELETE.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EditQuery {
    /// How many other servers must hold the edit durably.
    #[schemars(range(max = MEMBERS_MAX))]
    pub(super) w: Option<usize>,
    /// How long to wait for them, in milliseconds.
    #[schemars(range(max = 60_000))]
    pub(super) timeout: Option<u64>,
}

/// GET of a document.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadQuery {
    #[serde(default)]
    pub(super) conflicts: bool,
    /// As of this change: its hash in the history, or how that begins; several with commas between.
    pub(super) at: Option<String>,
}

/// A path that takes none.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

/// GET of a collection.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    #[serde(default)]
    pub(super) prefix: String,
    pub(super) after: Option<String>,
    #[schemars(range(min = 1, max = list::LIMIT_MAX))]
    pub(super) limit: Option<usize>,
    pub(super) values: Option<bool>,
}

/// The change feed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesQuery {
    pub(super) since: Option<String>,
    pub(super) collection: Option<String>,
    #[serde(default)]
    pub(super) prefix: String,
    #[serde(default)]
    pub(super) values: bool,
}

/// The member list.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MembersQuery {
    #[schemars(extend("enum" = ["alive", "suspect", "failed", "left", "evicted"]))]
    pub(super) status: Option<String>,
}

/// What became of servers; of all where none is named.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TimelineQuery {
    pub(super) name: Option<String>,
    pub(super) id: Option<String>,
}

/// The users.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UsersQuery {
    /// What the name or the e-mail address holds.
    pub(super) q: Option<String>,
    /// How many at most; all where it is not said.
    pub(super) limit: Option<usize>,
    /// How many to leave out first.
    pub(super) offset: Option<usize>,
}

/// The spaces.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SpacesQuery {
    /// Only those of this user, by id.
    pub(super) user_id: Option<String>,
    /// Only those made from this template, by id.
    pub(super) template_id: Option<String>,
    /// Only those in this zone.
    pub(super) zone: Option<String>,
}

/// With whom a space is to be shared no more.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UnshareQuery {
    /// The user, by id or name; everybody if nobody is said.
    pub(super) user_id: Option<String>,
}

/// A template as a file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportQuery {
    /// `toml` if not said, or `yaml`.
    #[schemars(extend("enum" = ["toml", "yaml"]))]
    pub(super) format: Option<String>,
}

/// The audit log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AuditQuery {
    /// What the details, the actor or the event hold.
    pub(super) q: Option<String>,
    pub(super) actor: Option<String>,
    /// The event, or how it begins, such as `user.`.
    pub(super) event: Option<String>,
    /// Where the page before ended.
    pub(super) after: Option<String>,
    /// 100 if not said, at most 1000.
    #[schemars(range(min = 1, max = audit::LIMIT_MAX))]
    pub(super) max_items: Option<usize>,
}

/// Reads the query of `uri`.
pub(super) fn parse<T: DeserializeOwned + Default>(uri: &Uri) -> Result<T, ApiError> {
    if uri.query().is_none() {
        return Ok(T::default());
    }
    Query::try_from_uri(uri).map(|Query(query)| query).map_err(|error| {
        let text = error.body_text();
        Form::BadQuery(text.trim_start_matches("Failed to deserialize query string: ").to_owned()).into()
    })
}
