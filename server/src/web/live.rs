//! Tells open pages that what they show has changed, so that they fetch it again. It carries no data: what a page then
//! gets is for its own guard to decide.
//!
//! `/live?since=..&seen=..&watch=..` is a stream of server-sent events: `page` when what the page watches has changed,
//! `cluster` when a server came or went, `gone` when whoever reads may no more.

use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use knot_engine::Summary;
use knot_engine::documents::Scope;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until};

use super::form::Fields;
use super::page::LOGIN;
use super::{Page, page};
use crate::accounts::{AUDIT, Caller, GROUPS, OWN_COLLECTIONS, ROLES, SESSIONS, TOKENS, USERS, USES};
use crate::api::Shared;
use crate::api::guard::identify;
use crate::serve::stopped;
use crate::spaces::{SERVERS, SPACE_STATES, SPACE_STUBS, SPACES};
use crate::templates::{TEMPLATE_VARIABLES, TEMPLATES};

/// Least time between two events of one reader: changes in between are told as one.
const QUIET: Duration = Duration::from_millis(50);
/// Changes that are looked at when a page begins to read. More are taken for one that matters.
const CAUGHT_UP_MAX: usize = 256;
/// Where evictions are kept.
const EVICTIONS: &str = "knot.evicted";

pub(super) fn pages() -> Vec<Page> {
    vec![page("/live", LOGIN, || get(live))]
}

/// What a page is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Watched {
    /// Nothing but what all pages are told.
    Nothing,
    /// Users, groups and roles.
    Accounts,
    /// Templates, their variables, and groups, for whose members templates are.
    Templates,
    /// One's own tokens, sessions and profile.
    Own,
    /// Spaces, and what they are made from and run on.
    Spaces,
    /// The audit log.
    Audit,
    /// All that is no collection of knot's own.
    Documents,
    /// A collection of a scope.
    Collection(Scope, String),
    /// A document.
    Document(Scope, String, String),
}

impl Watched {
    fn of(fields: &Fields) -> Self {
        let scope = || match fields.get("zone") {
            "" => Scope::Global,
            zone => Scope::Zone(zone.into()),
        };
        match (fields.get("watch"), fields.get("collection"), fields.get("key")) {
            ("accounts", _, _) => Self::Accounts,
            ("templates", _, _) => Self::Templates,
            ("own", _, _) => Self::Own,
            ("spaces", _, _) => Self::Spaces,
            ("audit", _, _) => Self::Audit,
            ("documents", "", _) => Self::Documents,
            ("documents", collection, "") => Self::Collection(scope(), collection.to_owned()),
            ("documents", collection, key) => Self::Document(scope(), collection.to_owned(), key.to_owned()),
            _ => Self::Nothing,
        }
    }

    /// Whether the page shows what has changed, and its reader may know.
    fn is_about(&self, summary: &Summary, caller: &Caller) -> bool {
        let (collection, key) = (summary.id.collection(), summary.id.key());
        let is_own = |id: &str| caller.user().is_some_and(|user| user == id);
        match self {
            Self::Nothing => false,
            Self::Accounts => matches!(collection, USERS | GROUPS | ROLES),
            Self::Templates => matches!(collection, TEMPLATES | TEMPLATE_VARIABLES | GROUPS),
            Self::Own => match collection {
                SESSIONS => key.split_once('.').is_some_and(|(user, _)| is_own(user)),
                USERS => is_own(key),
                TOKENS | USES => true,
                _ => false,
            },
            Self::Spaces => matches!(collection, SPACES | SPACE_STATES | SPACE_STUBS | SERVERS),
            Self::Audit => collection == AUDIT,
            Self::Documents => !collection.starts_with(OWN_COLLECTIONS),
            Self::Collection(scope, name) => {
                collection == name && summary.id.scope() == scope && caller.may_read(collection)
            }
            Self::Document(scope, name, document) => {
                collection == name && key == document && summary.id.scope() == scope && caller.may_read(collection)
            }
        }
    }
}

async fn live(
    State(api): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let fields = Fields::of(&uri);
    let feed = Feed::new(api, caller, headers, &fields);
    let pieces = stream::unfold(feed, |feed| Box::pin(feed.next()));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

/// What is to be told.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    page: bool,
    cluster: bool,
    gone: bool,
    pulse: bool,
}

impl News {
    fn text(self) -> String {
        let events = [(self.page, "page"), (self.cluster, "cluster"), (self.gone, "gone")];
        let told = events.into_iter().filter(|(is_told, _)| *is_told);
        let pulse = if self.pulse { ":\n\n" } else { "" };
        told.map(|(_, name)| format!("event: {name}\ndata:\n\n")).chain([pulse.to_owned()]).collect()
    }
}

/// One page's feed.
struct Feed {
    api: Shared,
    caller: Caller,
    credentials: HeaderMap,
    watched: Watched,
    /// What the page has been told of.
    cursor: u64,
    seen: u64,
    is_new: bool,
    has_ended: bool,
    /// Nothing is told before.
    quiet_until: Instant,
    receiver: broadcast::Receiver<Summary>,
    transitions: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    heartbeat: Interval,
}

impl Feed {
    fn new(api: Shared, caller: Caller, credentials: HeaderMap, fields: &Fields) -> Self {
        let mut heartbeat = tokio::time::interval(api.limits.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        Self {
            receiver: api.handle.subscribe(),
            transitions: api.handle.transitions().watch(),
            stopping: api.stopping.clone(),
            caller,
            credentials,
            watched: Watched::of(fields),
            cursor: fields.get("since").parse().unwrap_or(0),
            seen: fields.get("seen").parse().unwrap_or(0),
            is_new: true,
            has_ended: false,
            quiet_until: Instant::now(),
            heartbeat,
            api,
        }
    }

    /// The next piece, and the feed to make the one after; none at its end.
    async fn next(mut self) -> Option<(Result<Bytes, std::convert::Infallible>, Self)> {
        if self.has_ended {
            return None;
        }
        let news = if std::mem::take(&mut self.is_new) { self.catch_up().await? } else { self.wait().await? };
        if news.page {
            // What is fetched again is shown from what follows these changes.
            tokio::select! {
                biased;
                () = stopped(&mut self.stopping) => return None,
                caught_up = self.api.accounts.caught_up() => caught_up.ok()?,
            }
        }
        self.has_ended = news.gone;
        self.quiet_until = Instant::now() + QUIET;
        Some((Ok(news.text().into()), self))
    }

    /// What has happened since the page was made.
    async fn catch_up(&mut self) -> Option<News> {
        let cursor = self.cursor;
        let look = move |engine: &mut crate::handle::ServerEngine, _| {
            (engine.changes_since(cursor, CAUGHT_UP_MAX), engine.sequence())
        };
        let (changes, sequence) = self.api.handle.look(look).await.ok()?;
        let is_restored = sequence < cursor;
        self.cursor = sequence;
        let many = changes.len() == CAUGHT_UP_MAX || is_restored;
        let page = many || changes.iter().any(|change| self.watched.is_about(change, &self.caller));
        let cluster = *self.transitions.borrow_and_update() != self.seen;
        Some(News { page, cluster, gone: false, pulse: true })
    }

    /// What happens next that is worth telling.
    async fn wait(&mut self) -> Option<News> {
        loop {
            let mut news = News::default();
            tokio::select! {
                biased;
                () = stopped(&mut self.stopping) => return None,
                _ = self.heartbeat.tick() => {
                    news.pulse = true;
                    self.look_again(&mut news).await;
                }
                changed = self.transitions.changed() => {
                    changed.ok()?;
                    news.cluster = true;
                }
                first = self.receiver.recv() => match first {
                    Ok(summary) => self.hear(&summary, &mut news).await,
                    Err(RecvError::Lagged(_)) => news.page = true,
                    Err(RecvError::Closed) => return None,
                },
            }
            if news.page || news.cluster {
                sleep_until(self.quiet_until).await;
            }
            self.hear_rest(&mut news).await;
            if news.page || news.cluster || news.gone || news.pulse {
                return Some(news);
            }
        }
    }

    /// What else has happened by now.
    async fn hear_rest(&mut self, news: &mut News) {
        for _ in 0..crate::handle::FEED_EVENTS_MAX {
            match self.receiver.try_recv() {
                Ok(summary) => self.hear(&summary, news).await,
                Err(TryRecvError::Lagged(_)) => news.page = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    async fn hear(&mut self, summary: &Summary, news: &mut News) {
        if summary.sequence <= self.cursor {
            return;
        }
        self.cursor = summary.sequence;
        news.page |= self.watched.is_about(summary, &self.caller);
        news.cluster |= summary.id.collection() == EVICTIONS;
        let is_own_session = summary.id.collection() == SESSIONS
            && self.caller.user().is_some_and(|user| summary.id.key().starts_with(user));
        if is_own_session {
            self.look_again(news).await;
        }
    }

    /// The session may have ended, or a role have been taken away.
    async fn look_again(&mut self, news: &mut News) {
        match identify(&self.api, &Method::GET, &self.credentials).await {
            Ok(Some(caller)) => self.caller = caller,
            Ok(None) => news.gone = true,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use knot_engine::documents::DocumentId;
    use knot_engine::{Etag, Wall};

    use super::*;
    use crate::accounts::{Permissions, Who};

    fn change(collection: &str, key: &str) -> Summary {
        Summary {
            id: DocumentId::new(Scope::Global, collection, key).unwrap(),
            etag: Etag([0; 16]),
            deleted: false,
            revived: false,
            sequence: 1,
            modified: Wall(0),
            changes: 1,
        }
    }

    fn watched(query: &str) -> Watched {
        Watched::of(&Fields::of(&format!("/live?{query}").parse().unwrap()))
    }

    #[test]
    fn a_page_hears_of_what_it_shows_and_of_nothing_else() {
        let ann = Who::User { id: "a".repeat(32), username: "ann".to_owned(), session: None };
        let ann = Caller { who: ann, ..Caller::machine() };
        let own = format!("{}.1", "a".repeat(32));
        for (query, collection, key, is_about) in [
            ("watch=documents", "plans", "trip", true),
            ("watch=documents", USERS, "1", false),
            ("watch=documents&collection=plans", "plans", "trip", true),
            ("watch=documents&collection=plans", "notes", "trip", false),
            ("watch=documents&collection=plans&key=trip", "plans", "trip", true),
            ("watch=documents&collection=plans&key=trip", "plans", "other", false),
            ("watch=documents&collection=plans&zone=eu", "plans", "trip", false),
            ("watch=accounts", ROLES, "1", true),
            ("watch=templates", TEMPLATES, "1", true),
            ("watch=templates", USERS, "1", false),
            ("watch=own", SESSIONS, &own, true),
            ("watch=own", SESSIONS, "b.1", false),
            ("watch=spaces", SPACES, "1", true),
            ("watch=spaces", SERVERS, "1", true),
            ("watch=spaces", USERS, "1", false),
            ("watch=audit", AUDIT, "1", true),
            ("", "plans", "trip", false),
        ] {
            assert_eq!(watched(query).is_about(&change(collection, key), &ann), is_about, "{query} {collection}");
        }
        let nobody = Caller { permissions: Permissions::default(), ..ann };
        assert!(!watched("watch=documents&collection=plans").is_about(&change("plans", "trip"), &nobody));
    }

    #[test]
    fn news_are_events() {
        let news = News { page: true, cluster: true, ..News::default() };
        assert_eq!(news.text(), "event: page\ndata:\n\nevent: cluster\ndata:\n\n");
        assert_eq!(News { pulse: true, ..News::default() }.text(), ":\n\n");
    }
}
