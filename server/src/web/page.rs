//! What all pages are shown in: the menu, who is logged in, and what there is to say.

use std::sync::Arc;

use askama::Template;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};

use super::assets::{ADDRESSES, Addresses};
use super::cluster;
use super::form::Fields;
use crate::accounts::{Caller, Permission, Who};
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::operation::Needs;
use crate::api::path::encode;

/// What a form has led to, by the word in the address that says so after the redirect.
const DONE: [(&str, &str); 32] = [
    ("welcome", "Welcome. You are the first administrator of this cluster."),
    ("token-revoked", "The token is revoked. It is good nowhere any more."),
    ("user-created", "The user is made, and can log in on every server."),
    ("user-changed", "The user is changed."),
    ("user-deleted", "The user is deleted, with all sessions and tokens."),
    ("group-created", "The group is made."),
    ("group-changed", "The group is changed."),
    ("group-deleted", "The group is deleted."),
    ("role-created", "The role is made."),
    ("role-changed", "The role is changed."),
    ("role-deleted", "The role is deleted."),
    ("template-created", "The template is made."),
    ("template-changed", "The template is changed."),
    ("template-deleted", "The template is deleted. Spaces that were made from it stay."),
    ("variable-created", "The variable is made."),
    ("variable-changed", "The variable is changed."),
    ("variable-deleted", "The variable is deleted."),
    ("server-evicted", "The server is shut out of the cluster. Every server hears of it as soon as it can be reached."),
    ("server-readmitted", "The server is let in again."),
    ("profile-changed", "Your profile is changed."),
    ("password-changed", "Your password is changed. All your other sessions have ended."),
    ("session-ended", "The session has ended, on every server."),
    ("space-created", "The space is made."),
    ("space-started", "The space is being started. This page says what becomes of it."),
    ("space-stopped", "The space is being stopped."),
    ("space-changed", "The space is changed."),
    ("space-deleted", "The space is deleted, with its volumes."),
    ("space-given", "The space is another user's now."),
    ("space-shared", "Who the space is shared with is changed."),
    ("server-left", "The server is taken out of the cluster."),
    ("document-saved", "The document is saved. Other servers have it as soon as they can be reached."),
    ("document-deleted", "The document is deleted."),
];

/// An entry of the menu.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) href: &'static str,
    pub(super) title: &'static str,
    pub(super) is_current: bool,
}

/// What a page is shown in.
#[derive(Clone, Debug)]
pub(super) struct Shell {
    pub(super) server: Arc<str>,
    pub(super) zone: Arc<str>,
    pub(super) version: Arc<str>,
    /// `light` or `dark`; nothing where the browser decides.
    pub(super) theme: &'static str,
    /// Who is logged in.
    pub(super) who: Option<String>,
    pub(super) menu: Vec<Entry>,
    /// Where the page hears of changes.
    pub(super) live: Option<String>,
    pub(super) done: Option<&'static str>,
    pub(super) banner: Option<String>,
    pub(super) assets: &'static Addresses,
}

impl Shell {
    pub(super) async fn new(
        api: &Shared,
        caller: Option<&Caller>,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Self, ApiError> {
        let mut shell = Self::bare(api, headers);
        let Some(caller) = caller else { return Ok(shell) };
        // Read before what the page shows, so that a change in between is heard of.
        let seen = *api.handle.transitions().watch().borrow();
        let (since, banner) =
            api.handle.look(|engine, _| (engine.sequence(), cluster::cut_off(&cluster::sights(engine)))).await?;
        shell.live = Some(format!("/live?since={since}&seen={seen}"));
        shell.banner = banner;
        shell.who = Some(match &caller.who {
            Who::Machine => "this machine".to_owned(),
            Who::User { username, .. } => username.clone(),
        });
        shell.menu = menu(caller, api.is_clustered, uri.path());
        let word = Fields::of(uri);
        shell.done = DONE.iter().find(|(name, _)| *name == word.get("done")).map(|(_, text)| *text);
        Ok(shell)
    }

    /// What is shown to those who have not logged in.
    pub(super) fn bare(api: &Shared, headers: &HeaderMap) -> Self {
        Self {
            server: api.name.clone(),
            zone: api.zone.clone(),
            version: api.version.clone(),
            theme: theme(headers),
            who: None,
            menu: Vec::new(),
            live: None,
            done: None,
            banner: None,
            assets: &ADDRESSES,
        }
    }

    /// The same on a page that is about this; see `web/live.rs` for what can be watched.
    pub(super) fn watching(mut self, what: &[(&str, &str)]) -> Self {
        if let Some(live) = &mut self.live {
            for (name, value) in what {
                live.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        self
    }

    /// The letter that stands for who is logged in.
    pub(super) fn letter(&self) -> String {
        self.who.iter().flat_map(|who| who.chars().next()).flat_map(char::to_uppercase).collect()
    }

    /// The page that says why there is another.
    pub(super) fn refuse(self, error: &ApiError) -> Response {
        let problem = Problem::of(error);
        show_as(problem.status, &Refusal { shell: self, problem })
    }
}

fn menu(caller: &Caller, is_clustered: bool, path: &str) -> Vec<Entry> {
    const CLUSTER: &[Permission] = &[Permission::ClusterInfo, Permission::ManageCluster];
    const DOCUMENTS: &[Permission] = &[Permission::ReadDocuments];
    const TEMPLATES: &[Permission] = &[Permission::UseSpaces, Permission::ManageTemplates];
    let entries: [(&str, &str, &[Permission]); 12] = [
        ("/", "Dashboard", &[]),
        ("/spaces", "Spaces", &[Permission::UseSpaces, Permission::ManageSpaces]),
        ("/templates", "Templates", TEMPLATES),
        ("/variables", "Variables", &[Permission::ManageVariables]),
        ("/cluster-info", "Cluster Info", CLUSTER),
        ("/documents", "Documents", DOCUMENTS),
        ("/api-tokens", "API Tokens", &[Permission::UseTokens]),
        ("/users", "Users", &[Permission::ManageUsers]),
        ("/groups", "Groups", &[Permission::ManageGroups]),
        ("/roles", "Roles", &[Permission::ManageRoles]),
        ("/audit", "Audit log", &[Permission::ViewAuditLogs]),
        ("/api-docs", "API", &[]),
    ];
    let is_shown = |(href, _, permissions): &(&str, &str, &[Permission])| {
        (permissions.is_empty() || permissions.iter().any(|permission| caller.may(*permission)))
            && (*href != "/cluster-info" || is_clustered)
    };
    let is_current = |href: &str| match path.strip_prefix(href) {
        Some(rest) => rest.is_empty() || (href != "/" && rest.starts_with('/')),
        None => false,
    };
    let entry = |(href, title, _)| Entry { href, title, is_current: is_current(href) };
    entries.into_iter().filter(is_shown).map(entry).collect()
}

/// What the browser was told to remember. The page's script sets it, so that no page flashes in the other colours.
fn theme(headers: &HeaderMap) -> &'static str {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).map(str::trim);
    pairs
        .find_map(|pair| match pair {
            "knot-theme=dark" => Some("dark"),
            "knot-theme=light" => Some("light"),
            _ => None,
        })
        .unwrap_or("")
}

/// What is wrong, and what to do about it.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) error: String,
    pub(super) hint: String,
}

impl Problem {
    pub(super) fn of(error: &ApiError) -> Self {
        let (status, error, hint) = error.said();
        Self { status, error: sentence(&error), hint: sentence(&hint) }
    }

    /// What only a page's form can be wrong in.
    pub(super) fn new(error: &str, hint: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error: error.to_owned(), hint: hint.to_owned() }
    }
}

/// A text as a sentence of its own.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    let end = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}

#[derive(Template)]
#[template(path = "problem.html")]
struct Refusal {
    shell: Shell,
    problem: Problem,
}

impl Refusal {
    fn needs_login(&self) -> bool {
        self.shell.who.is_none()
    }
}

/// An error that takes the place of the page; the guard shows it.
#[derive(Clone, Debug)]
pub(super) struct Fault(pub(super) ApiError);

impl<E: Into<ApiError>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// A page.
pub(super) fn show(page: &impl Template) -> Response {
    show_as(StatusCode::OK, page)
}

/// A page with a status of its own.
pub(super) fn show_as(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render a page");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Whoever asks for nothing but a login.
pub(super) const LOGIN: Needs = Needs::Login;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Template)]
    #[template(source = "<p title=\"{{ text }}\">{{ text }}</p>", ext = "html")]
    struct Shown {
        text: &'static str,
    }

    #[test]
    fn what_others_have_written_is_never_markup() {
        let shown = Shown { text: "<script>\"'&" }.render().unwrap();
        assert!(!shown.contains("<script>") && !shown.contains("\"'"), "{shown}");
    }

    #[test]
    fn a_text_is_made_a_sentence() {
        assert_eq!(sentence("no such user"), "No such user.");
        assert_eq!(sentence("Really?"), "Really?");
        assert_eq!(sentence(""), ".");
    }

    #[test]
    fn the_menu_has_what_the_caller_may_see() {
        let titles = |caller: &Caller, is_clustered| {
            menu(caller, is_clustered, "/users/1").iter().map(|entry| entry.title).collect::<Vec<_>>()
        };
        let machine = Caller::machine();
        assert_eq!(titles(&machine, true).len(), 12);
        assert!(!titles(&machine, false).contains(&"Cluster Info"));
        let nobody = Caller { permissions: crate::accounts::Permissions::default(), ..machine.clone() };
        assert_eq!(titles(&nobody, true), ["Dashboard", "API"]);
        let current: Vec<_> = menu(&machine, true, "/users/1").into_iter().filter(|entry| entry.is_current).collect();
        assert_eq!(current.iter().map(|entry| entry.href).collect::<Vec<_>>(), ["/users"]);
    }

    #[test]
    fn only_known_colours_are_remembered() {
        let theme = |cookie: &'static str| {
            theme(&[(header::COOKIE, header::HeaderValue::from_static(cookie))].into_iter().collect())
        };
        assert_eq!((theme("a=b; knot-theme=dark"), theme("knot-theme=red"), theme("")), ("dark", "", ""));
    }
}
