//! The change feed: server-sent events of what becomes durable here, resumable after the last event that was read.
//!
//! A reader first gets a snapshot, the latest state of every document that changed after its `since`, page by page from
//! the engine's index in sequence order; then `snapshot-end`; then every change as it happens. Between the two nothing is
//! lost and nothing comes twice: the feed subscribes before it reads what turns out to be the last page, and skips live
//! changes that the page had. The body is made when the connection asks for more of it, so a slow reader holds no more
//! than the subscription's bounded buffer, and is told `reset` when that overflows.

use std::fmt::Write;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use axum::Extension;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;
use knot_engine::documents::{COLLECTION_BYTES_MAX, NameError, is_label};
use knot_engine::{NodeId, ReadError, Summary};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

use super::error::{ApiError, Form};
use super::query::{self, ChangesQuery};
use super::{Shared, guard};
use crate::accounts::Caller;
use crate::handle::{FEED_EVENTS_MAX, Stopped};
use crate::serve::stopped;

/// Documents of a snapshot that are read from the index at a time.
const PAGE: usize = 256;
/// Live changes that are sent in one write, at most.
const BATCH: usize = 256;
/// How soon a browser should reconnect, in milliseconds.
const RETRY_MS: u32 = 1_000;

pub(super) async fn changes(
    State(api): State<Shared>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query: ChangesQuery = query::parse(&uri)?;
    if query.collection.as_ref().is_some_and(|name| !is_label(name, COLLECTION_BYTES_MAX)) {
        return Err(NameError::Collection.into());
    }
    let since = since(query.since.as_deref(), headers.get("last-event-id"))?;
    let (node, sequence) = api.handle.look(|engine, _| (engine.me().record.node, engine.sequence())).await?;
    let mut feed = Feed::new(api, (caller, headers), node, query);
    feed.out.push_str(&format!("retry: {RETRY_MS}\n\n"));
    match since {
        Since::Start => {}
        Since::Event(id) if id.feed != node => feed.start_over("the id given is another server's"),
        Since::Event(id) if id.sequence > sequence => {
            feed.start_over("the id given is ahead of this server: it was restored")
        }
        Since::Event(id) => feed.cursor = id.sequence,
    }
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::new(FeedBody { next: Some(Box::pin(feed.next())) }.map_err(|never| match never {})))
        .into_response())
}

/// Where a reader left off.
#[derive(Debug, PartialEq, Eq)]
enum Since {
    Start,
    Event(EventId),
}

/// An event's id: which server's feed, and that server's count of document updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EventId {
    feed: NodeId,
    sequence: u64,
}

impl FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (feed, sequence) = text.split_once('-').ok_or(())?;
        Ok(Self { feed: feed.parse().map_err(|_| ())?, sequence: sequence.parse().map_err(|_| ())? })
    }
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.feed, self.sequence)
    }
}

/// Reads the position asked for. A browser that reconnects repeats the query of its first request and adds the header,
/// so the header is the later of the two.
fn since(query: Option<&str>, header: Option<&HeaderValue>) -> Result<Since, ApiError> {
    const FORM: &str = "an event id of this feed, or 0 for everything";
    if let Some(value) = header.filter(|value| !value.is_empty()) {
        let bad = Form::BadHeader { name: "Last-Event-ID", why: FORM };
        return value.to_str().ok().and_then(position).ok_or(bad.into());
    }
    let text = query.unwrap_or_default();
    position(text).ok_or_else(|| Form::BadQuery(format!("since is {FORM}")).into())
}

fn position(text: &str) -> Option<Since> {
    match text {
        "" | "0" => Some(Since::Start),
        id => id.parse().ok().map(Since::Event),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Snapshot,
    Live,
    Ended,
}

/// One reader's feed.
struct Feed {
    api: Shared,
    /// Who reads; what they may not is left out.
    caller: Caller,
    /// How they have said who they are.
    credentials: HeaderMap,
    node: NodeId,
    query: ChangesQuery,
    /// Everything up to here has been sent.
    cursor: u64,
    phase: Phase,
    receiver: broadcast::Receiver<Summary>,
    stopping: watch::Receiver<bool>,
    heartbeat: Interval,
    /// Text that is ready to be sent.
    out: String,
}

#[derive(Serialize)]
struct Change<'a> {
    sequence: u64,
    scope: String,
    collection: &'a str,
    key: &'a str,
    etag: String,
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
}

/// Why a feed goes no further.
enum End {
    /// The server stops, or the driver has.
    Stopping,
    /// The reader has to begin again where it left off.
    Reset(&'static str),
}

impl From<Stopped> for End {
    fn from(_: Stopped) -> Self {
        Self::Stopping
    }
}

impl Feed {
    fn new(api: Shared, (caller, credentials): (Caller, HeaderMap), node: NodeId, query: ChangesQuery) -> Self {
        let mut heartbeat = tokio::time::interval(api.limits.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        Self {
            receiver: api.handle.subscribe(),
            stopping: api.stopping.clone(),
            api,
            caller,
            credentials,
            node,
            query,
            cursor: 0,
            phase: Phase::Snapshot,
            heartbeat,
            out: String::new(),
        }
    }

    /// The next piece of the body, and the feed to make the one after; none at its end.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        while self.out.is_empty() {
            if let Err(end) = self.advance().await {
                self.phase = Phase::Ended;
                match end {
                    End::Stopping => return None,
                    End::Reset(reason) => self.push_reset(reason, None),
                }
            }
        }
        Some((std::mem::take(&mut self.out).into(), self))
    }

    async fn advance(&mut self) -> Result<(), End> {
        if *self.stopping.borrow() {
            return Err(End::Stopping);
        }
        match self.phase {
            Phase::Snapshot => self.snapshot().await,
            Phase::Live => self.live().await,
            Phase::Ended => Err(End::Stopping),
        }
    }

    async fn snapshot(&mut self) -> Result<(), End> {
        self.look_again().await?;
        self.receiver = self.api.handle.subscribe();
        let cursor = self.cursor;
        let page = self.api.handle.look(move |engine, _| engine.changes_since(cursor, PAGE)).await?;
        for summary in &page {
            self.push_change(summary).await?;
        }
        if page.len() < PAGE {
            self.phase = Phase::Live;
            let data = json!({"sequence": self.cursor});
            self.push("snapshot-end", Some(self.cursor), &data);
        }
        Ok(())
    }

    async fn live(&mut self) -> Result<(), End> {
        tokio::select! {
            biased;
            () = stopped(&mut self.stopping) => Err(End::Stopping),
            _ = self.heartbeat.tick() => {
                self.look_again().await?;
                let data = json!({"sequence": self.cursor});
                self.push("heartbeat", Some(self.cursor), &data);
                Ok(())
            }
            summary = self.receiver.recv() => self.on_live(summary).await,
        }
    }

    /// What the reader may see can change while it reads: its token may be revoked, its role taken away.
    async fn look_again(&mut self) -> Result<(), End> {
        let caller = guard::identify(&self.api, &Method::GET, &self.credentials).await;
        self.caller = caller.ok().flatten().ok_or(End::Stopping)?;
        Ok(())
    }

    async fn on_live(&mut self, first: Result<Summary, RecvError>) -> Result<(), End> {
        let mut summary = match first {
            Ok(summary) => summary,
            Err(RecvError::Closed) => return Err(End::Stopping),
            Err(RecvError::Lagged(_)) => {
                return Err(End::Reset("the reader is too slow: more changes wait than are kept"));
            }
        };
        for _ in 0..BATCH {
            if summary.sequence > self.cursor {
                self.push_change(&summary).await?;
            }
            // A lag that shows here shows again at the next wait.
            match self.receiver.try_recv() {
                Ok(next) => summary = next,
                Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => break,
                Err(broadcast::error::TryRecvError::Lagged(_)) => {
                    return Err(End::Reset("the reader is too slow: more changes wait than are kept"));
                }
            }
        }
        Ok(())
    }

    /// Writes the change if the reader asked for it; either way it counts as sent.
    async fn push_change(&mut self, summary: &Summary) -> Result<(), End> {
        let id = &summary.id;
        let asked = self.query.collection.as_deref().is_none_or(|name| name == id.collection());
        let may_read = self.caller.may_read(id.collection());
        if asked && may_read && id.key().starts_with(&self.query.prefix) {
            let mut change = Change {
                sequence: summary.sequence,
                scope: id.scope().to_string(),
                collection: id.collection(),
                key: id.key(),
                etag: summary.etag.to_string(),
                deleted: summary.deleted,
                value: None,
            };
            if self.query.values {
                fill_value(&self.api, summary, &mut change).await?;
            }
            push(&mut self.out, "change", Some(EventId { feed: self.node, sequence: summary.sequence }), &change);
        }
        self.cursor = summary.sequence;
        Ok(())
    }

    fn start_over(&mut self, reason: &'static str) {
        self.cursor = 0;
        self.push_reset(reason, Some(0));
    }

    /// A reset without a sequence leaves the reader's last event id as it is: it resumes after what it has.
    fn push_reset(&mut self, reason: &'static str, sequence: Option<u64>) {
        let data = json!({"reason": reason, "sequence": self.cursor, "buffer": FEED_EVENTS_MAX});
        self.push("reset", sequence, &data);
    }

    fn push(&mut self, name: &str, sequence: Option<u64>, data: &impl Serialize) {
        let id = sequence.map(|sequence| EventId { feed: self.node, sequence });
        push(&mut self.out, name, id, data);
    }
}

/// The document may be later than the change by now; then its etag is too, and the later change follows.
async fn fill_value(api: &Shared, summary: &Summary, change: &mut Change<'_>) -> Result<(), End> {
    if summary.deleted {
        return Ok(());
    }
    match api.handle.read(summary.id.clone(), false).await? {
        Ok(view) => {
            change.etag = view.summary.etag.to_string();
            change.value = Some(view.value);
        }
        Err(ReadError::Gone { etag }) => {
            change.etag = etag.to_string();
            change.deleted = true;
        }
        Err(ReadError::Busy) => return Err(End::Reset("too many reads are waiting")),
        // Without its value, which a read by name explains.
        Err(_) => {}
    }
    Ok(())
}

fn push(out: &mut String, name: &str, id: Option<EventId>, data: &impl Serialize) {
    // Writing to a string does not fail, and these types serialise; JSON on one line holds no line break.
    let _ = writeln!(out, "event: {name}");
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}");
    }
    let data = serde_json::to_string(data).unwrap_or_default();
    let _ = writeln!(out, "data: {data}\n");
}

/// A body that makes its next piece when it is asked for it.
struct FeedBody {
    next: Option<NextPiece>,
}

type NextPiece = Pin<Box<dyn Future<Output = Option<(Bytes, Feed)>> + Send>>;

impl HttpBody for FeedBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let Poll::Ready(made) = next.as_mut().poll(cx) else { return Poll::Pending };
        self.next = None;
        Poll::Ready(made.map(|(bytes, feed)| {
            self.next = Some(Box::pin(feed.next()));
            Ok(Frame::data(bytes))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "00112233445566778899aabbccddeeff";

    fn event(sequence: u64) -> Since {
        Since::Event(EventId { feed: NODE.parse().unwrap(), sequence })
    }

    #[test]
    fn ids_read_back_as_they_are_written() {
        let id = EventId { feed: NODE.parse().unwrap(), sequence: 42 };
        assert_eq!(id.to_string(), format!("{NODE}-42"));
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn the_header_is_later_than_the_query() {
        let header = HeaderValue::from_str(&format!("{NODE}-9")).unwrap();
        assert_eq!(since(None, None), Ok(Since::Start));
        assert_eq!(since(Some("0"), None), Ok(Since::Start));
        assert_eq!(since(Some(&format!("{NODE}-7")), None), Ok(event(7)));
        assert_eq!(since(Some(&format!("{NODE}-7")), Some(&header)), Ok(event(9)));
        assert_eq!(since(Some("0"), Some(&HeaderValue::from_static(""))), Ok(Since::Start));
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in
            ["7", "x-1", &format!("{NODE}-"), &format!("{NODE}--1"), &format!("{NODE}-99999999999999999999"), NODE]
        {
            assert!(since(Some(text), None).is_err(), "{text}");
            assert!(since(None, Some(&HeaderValue::from_str(text).unwrap())).is_err(), "{text}");
        }
    }

    #[test]
    fn an_event_is_framed_on_lines_of_its_own() {
        let mut out = String::new();
        push(&mut out, "change", Some(EventId { feed: NODE.parse().unwrap(), sequence: 1 }), &json!({"key": "a\nb"}));
        assert_eq!(out, format!("event: change\nid: {NODE}-1\ndata: {{\"key\":\"a\\nb\"}}\n\n"));
        out.clear();
        push(&mut out, "reset", None, &json!({}));
        assert_eq!(out, "event: reset\ndata: {}\n\n");
    }
}
