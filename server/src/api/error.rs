//! What goes wrong, as HTTP says it: the one place where errors become statuses, texts and hints.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use knot_engine::documents::{EditRefused, JSON_DEPTH_MAX, JSON_NODES_MAX, NameError};
use knot_engine::{EditError, Etag, ReadError, ReviewError};
use serde_json::json;

use super::operation::Needs;
use super::{BODY_BYTES_MAX, HEADER_BYTES_MAX, HEADERS_MAX, URI_BYTES_MAX, etag};
use crate::accounts::{AccountError, Permission, Refusal};
use crate::handle::Stopped;

/// Media types that PATCH takes.
pub(super) const PATCH_TYPES: &str =
    "application/merge-patch+json, application/json-patch+json, application/vnd.knot.increment+json";

/// Why a request is not answered as its sender hoped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ApiError {
    /// Nobody is logged in, and no token is good.
    Unauthorized,
    /// Who asks may not ask for this.
    Forbidden(Needs),
    /// The token is limited to other things.
    TokenLimited,
    /// A browser sends it for a page of somebody else's.
    CrossSite,
    Refused(Refusal),
    /// No such path.
    NoRoute,
    /// The path has other methods.
    WrongMethod,
    /// The collection is the cluster's own.
    OwnCollection,
    /// A literal `/history` is a document's history, which can only be read.
    HistoryIsReadOnly,
    /// The request is malformed or over a limit.
    Form(Form),
    Name(NameError),
    /// The zone is served elsewhere.
    Misdirected {
        zone: String,
        urls: Vec<String>,
    },
    Edit(EditError),
    Read(ReadError),
    Review(ReviewError),
    /// The version that is asked for is a delete.
    GoneThen,
    /// A GET whose If-Match does not hold.
    NotAsExpected(Etag),
    Member(MemberError),
    /// A request for the servers' own streams that asks for none.
    NoWebSocket(String),
    Stopping,
    NotReady(&'static str),
    /// What was read again is no configuration.
    BadConfig(String),
    TooManyConnections(usize),
    TooManyOfOneHost(usize),
}

/// How a request is malformed, or which limit it is over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Form {
    UriTooLong,
    TooManyHeaders,
    HeadersTooLong,
    BodyTooLong,
    HeadTimeout(Duration),
    BodyTimeout(Duration),
    /// The connection broke, or its framing did, while the body was read.
    BodyBroken,
    NotJson(String),
    /// Nested beyond what any document may be, so deep that it was not read to its end.
    TooDeep,
    /// JSON, but not what is asked for.
    BadBody(&'static str),
    /// JSON whose members are not those that are asked for; says which.
    WrongMembers(String),
    PatchType,
    /// A page's form that does not say what it was filled from.
    NoMarks,
    BadPath(&'static str),
    /// No name of a version.
    BadAt(&'static str),
    BadQuery(String),
    BadHeader {
        name: &'static str,
        why: &'static str,
    },
}

/// Why a member was not made to leave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MemberError {
    Unknown,
    /// Several have the name; these are their ids.
    Ambiguous(Vec<String>),
    Alive,
    ThisServer,
    /// Nobody of that name or id is shut out.
    NotEvicted,
}

impl From<Form> for ApiError {
    fn from(error: Form) -> Self {
        Self::Form(error)
    }
}

impl From<MemberError> for ApiError {
    fn from(error: MemberError) -> Self {
        Self::Member(error)
    }
}

impl From<EditError> for ApiError {
    fn from(error: EditError) -> Self {
        Self::Edit(error)
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<ReviewError> for ApiError {
    fn from(error: ReviewError) -> Self {
        Self::Review(error)
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl From<Refusal> for ApiError {
    fn from(error: Refusal) -> Self {
        Self::Refused(error)
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Refused(refusal) => Self::Refused(refusal),
            AccountError::Edit(error) => Self::Edit(error),
            AccountError::Read(error) => Self::Read(error),
            AccountError::Elsewhere { zone, urls } => Self::Misdirected { zone, urls },
            AccountError::Stopped => Self::Stopping,
        }
    }
}

impl From<Stopped> for ApiError {
    fn from(_: Stopped) -> Self {
        Self::Stopping
    }
}

/// A status, what is wrong, and what to do about it.
pub(crate) type Said = (StatusCode, Cow<'static, str>, Cow<'static, str>);

fn say(status: StatusCode, error: impl Into<Cow<'static, str>>, hint: impl Into<Cow<'static, str>>) -> Said {
    (status, error.into(), hint.into())
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, error, hint) = self.said();
        let mut body = json!({"error": error, "hint": hint});
        if let (Some(object), Some((name, value))) = (body.as_object_mut(), self.detail()) {
            object.insert(name.to_owned(), value);
        }
        let mut response = (status, axum::Json(body)).into_response();
        for (name, value) in self.headers(status) {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl ApiError {
    /// The answer as it goes over the wire, where there is no request to answer; the connection closes after it.
    pub(super) fn raw(&self) -> Vec<u8> {
        let (status, error, hint) = self.said();
        let body = json!({"error": error, "hint": hint}).to_string();
        let retry = if status == StatusCode::SERVICE_UNAVAILABLE { "retry-after: 5\r\n" } else { "" };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n{retry}\r\n"
        );
        [head, body].concat().into_bytes()
    }

    /// What is said of it: to programs as JSON, to people on a page.
    pub(crate) fn said(&self) -> Said {
        match self {
            Self::Unauthorized => say(
                StatusCode::UNAUTHORIZED,
                "nobody is logged in, and no good token is sent",
                "log in, or send the header `Authorization: Bearer <token>` with an API token; the machine's own is in the file `admin.token` in the server's data_dir",
            ),
            Self::Forbidden(needs) => say(
                StatusCode::FORBIDDEN,
                "you do not have the permission for this",
                format!("it takes {}; an administrator can give you a role that has it", needed(*needs)),
            ),
            Self::TokenLimited => say(
                StatusCode::FORBIDDEN,
                "this token is limited to other things",
                "its scopes are in the list of your tokens; make another, or widen them there",
            ),
            Self::CrossSite => say(
                StatusCode::FORBIDDEN,
                "this was sent for a page of another site, or nothing says for which",
                "send it from a page of this server; programs send a token instead of a cookie",
            ),
            Self::Refused(error) => refused(error),
            Self::NoRoute => say(
                StatusCode::NOT_FOUND,
                "no such path",
                "documents are at /api/documents/{collection}/{key}; the other paths are in docs/http-api.md",
            ),
            Self::WrongMethod => say(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path does not take that method",
                "the Allow header names those it takes",
            ),
            Self::OwnCollection => say(
                StatusCode::FORBIDDEN,
                "collections that begin with `knot.` are the cluster's own, and can only be read here",
                "evictions are made with POST /api/cluster/evict and /readmit, users and the like with requests of their own; documents of yours need another name",
            ),
            Self::HistoryIsReadOnly => say(
                StatusCode::METHOD_NOT_ALLOWED,
                "a path that ends in /history is a document's history, which can only be read",
                "to name a key that itself ends in /history, write its last slash as %2F",
            ),
            Self::Name(error) => say(
                StatusCode::BAD_REQUEST,
                error.to_string(),
                "the path is /api/documents/{collection}/{key}, or /api/zones/{zone}/documents/{collection}/{key}",
            ),
            Self::Misdirected { zone, urls } => misdirected(zone, urls),
            Self::Edit(error) => edit(error),
            Self::Read(error) => read(error),
            Self::Review(error) => review(error),
            Self::GoneThen => {
                say(StatusCode::GONE, "the document was deleted in this version", "its history has the versions before")
            }
            Self::NotAsExpected(_) => changed(),
            Self::Stopping => say(
                StatusCode::SERVICE_UNAVAILABLE,
                "the server is shutting down",
                "ask another server, or this one when it has started again",
            ),
            Self::NotReady(why) => say(StatusCode::SERVICE_UNAVAILABLE, *why, "ask another server; the log says more"),
            Self::BadConfig(why) => say(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!("the configuration stays as it was: {why}"),
                "mend the file that this server was started with, and ask again",
            ),
            Self::TooManyConnections(limit) => say(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{limit} connections are open already"),
                "try again after a moment, or ask another server; keep connections and reuse them",
            ),
            Self::TooManyOfOneHost(limit) => say(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{limit} connections from this host are open already"),
                "keep connections and reuse them; behind a reverse proxy, bound what it opens to one server",
            ),
            Self::Member(error) => member(error),
            Self::NoWebSocket(why) => say(
                StatusCode::UPGRADE_REQUIRED,
                format!("this is where other servers of the cluster open WebSockets: {why}"),
                "people and programs find the rest of the API in docs/http-api.md",
            ),
            Self::Form(error) => form(error),
        }
    }

    /// A member of the body beside `error` and `hint`.
    fn detail(&self) -> Option<(&'static str, serde_json::Value)> {
        if let Self::Misdirected { urls, .. } = self {
            return Some(("urls", json!(urls)));
        }
        self.present_state().map(|state| ("etag", json!(state.map(|etag| etag.to_string()))))
    }

    /// The document's state that a client needs to try again, where there is such a thing.
    fn present_state(&self) -> Option<Option<Etag>> {
        if let Self::Edit(EditError::Precondition { current }) = self {
            return Some(*current);
        }
        if let Self::NotAsExpected(etag) | Self::Read(ReadError::Gone { etag }) = self {
            return Some(Some(*etag));
        }
        None
    }

    /// Headers that go with the status.
    fn headers(&self, status: StatusCode) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        let mut add = |name, value| headers.push((name, HeaderValue::from_static(value)));
        if matches!(self, Self::Unauthorized | Self::Refused(Refusal::WrongPassword)) {
            add(header::WWW_AUTHENTICATE, "Bearer");
        }
        if *self == Self::HistoryIsReadOnly {
            add(header::ALLOW, "GET,HEAD");
        }
        if *self == Self::Form(Form::PatchType) {
            add(HeaderName::from_static("accept-patch"), PATCH_TYPES);
        }
        if matches!(self, Self::Form(Form::BodyTooLong | Form::BodyTimeout(_) | Form::BodyBroken)) {
            add(header::CONNECTION, "close");
        }
        if matches!(self, Self::Edit(EditError::Busy) | Self::Read(ReadError::Busy) | Self::Review(ReviewError::Busy)) {
            add(header::RETRY_AFTER, "1");
        } else if status == StatusCode::INSUFFICIENT_STORAGE {
            add(header::RETRY_AFTER, "30");
        } else if status == StatusCode::SERVICE_UNAVAILABLE {
            add(header::RETRY_AFTER, "5");
        }
        if let Self::Refused(Refusal::TooManyTries { wait_s }) = self {
            headers.push((header::RETRY_AFTER, HeaderValue::from(*wait_s)));
        }
        if let Some(Some(etag)) = self.present_state() {
            headers.push((header::ETAG, etag::header(etag)));
        }
        headers
    }
}

/// What is said of requests that are malformed or over a limit.
fn form(error: &Form) -> Said {
    let (status, error, hint) = match error {
        Form::UriTooLong => (
            StatusCode::URI_TOO_LONG,
            format!("the path and query are over {URI_BYTES_MAX} bytes"),
            "a key has at most 512 bytes",
        ),
        Form::TooManyHeaders => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            format!("there are more than {HEADERS_MAX} header fields"),
            "send fewer",
        ),
        Form::HeadersTooLong => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            format!("the header fields are over {HEADER_BYTES_MAX} bytes together"),
            "send less",
        ),
        Form::BodyTooLong => (
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is over {BODY_BYTES_MAX} bytes"),
            "split the document into several",
        ),
        Form::HeadTimeout(limit) => (
            StatusCode::REQUEST_TIMEOUT,
            format!("the head of the request did not arrive within {} s", limit.as_secs_f32()),
            "send it again, faster",
        ),
        Form::BodyTimeout(limit) => (
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", limit.as_secs_f32()),
            "send it again, faster",
        ),
        Form::BodyBroken => {
            (StatusCode::BAD_REQUEST, "the body broke off, or is not framed as HTTP says".to_owned(), "send it again")
        }
        Form::NotJson(why) => {
            (StatusCode::BAD_REQUEST, format!("the body is not JSON: {why}"), "check it with a tool such as jq")
        }
        Form::TooDeep => (
            StatusCode::BAD_REQUEST,
            format!("nested deeper than {JSON_DEPTH_MAX} levels"),
            "move what is inside to documents of its own",
        ),
        Form::BadBody(form) => {
            (StatusCode::BAD_REQUEST, "the body is JSON, but not of the form that is asked for".to_owned(), *form)
        }
        Form::WrongMembers(why) => (
            StatusCode::BAD_REQUEST,
            format!("the body is JSON, but not of the form that is asked for: {why}"),
            "/api/openapi.json describes what each request takes",
        ),
        Form::PatchType => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("PATCH does not take this Content-Type, but {PATCH_TYPES}"),
            "a merge patch is the simplest: send the members to change, null for those to remove",
        ),
        Form::NoMarks => (
            StatusCode::BAD_REQUEST,
            "the form does not say what it was filled from".to_owned(),
            "nothing was saved; load its page again",
        ),
        Form::BadPath(why) => (
            StatusCode::BAD_REQUEST,
            (*why).to_owned(),
            "percent-encode, as UTF-8, what is not a letter, a digit or one of - . _ ~",
        ),
        Form::BadAt(why) => (
            StatusCode::BAD_REQUEST,
            (*why).to_owned(),
            "the document's history (/history, knot doc history) has the hashes",
        ),
        Form::BadQuery(why) => (
            StatusCode::BAD_REQUEST,
            format!("the query is not valid: {why}"),
            "docs/http-api.md lists what each path takes",
        ),
        Form::BadHeader { name, why } => (StatusCode::BAD_REQUEST, format!("the header {name} is not valid"), *why),
    };
    say(status, error, hint)
}

fn member(error: &MemberError) -> Said {
    match error {
        MemberError::Unknown => {
            say(StatusCode::NOT_FOUND, "no such member", "GET /api/cluster lists the members with their names and ids")
        }
        MemberError::Ambiguous(ids) => say(
            StatusCode::CONFLICT,
            "several members have this name",
            format!("send one of their ids instead (--id): {}", ids.join(", ")),
        ),
        MemberError::Alive => {
            say(StatusCode::CONFLICT, "this member is alive", "stop it first, or insist with \"force\": true (--force)")
        }
        MemberError::NotEvicted => say(
            StatusCode::NOT_FOUND,
            "no such server is evicted",
            "GET /api/cluster/status lists the ids of those that are",
        ),
        MemberError::ThisServer => say(
            StatusCode::CONFLICT,
            "this is the server that you are asking",
            "POST /api/cluster/leave (knot cluster leave) retires it; or ask another server",
        ),
    }
}

/// What is said of what was not done about accounts.
fn refused(error: &Refusal) -> Said {
    let (status, hint) = match error {
        Refusal::Unknown(kind) => (StatusCode::NOT_FOUND, format!("the list has the {kind}s there are, with their ids").into()),
        Refusal::Taken { .. } => (StatusCode::CONFLICT, Cow::from("choose another, or change who has it first")),
        Refusal::Invalid { .. } | Refusal::Unfit(_) | Refusal::Complaints(_) => (StatusCode::BAD_REQUEST, "nothing was changed".into()),
        Refusal::Disputed(_) => (
            StatusCode::PRECONDITION_FAILED,
            "nothing was saved; look at what it says now, and save again to put yours in its place".into(),
        ),
        Refusal::LastAdministrator => (
            StatusCode::CONFLICT,
            "make somebody else an administrator first".into(),
        ),
        Refusal::AboveYou(_) => (
            StatusCode::FORBIDDEN,
            "ask somebody who has them: nobody gives more than they have, or changes who may do more".into(),
        ),
        Refusal::BuiltIn => (StatusCode::CONFLICT, "make a role of your own with the permissions it is to have".into()),
        Refusal::WrongPassword => (
            StatusCode::UNAUTHORIZED,
            "an administrator can set another password; on the machine itself, `knot user recover` can".into(),
        ),
        Refusal::TooManyTries { wait_s } => (
            StatusCode::TOO_MANY_REQUESTS,
            format!("try again in {wait_s} s; sessions and tokens that are good go on").into(),
        ),
        Refusal::SetupOver => (
            StatusCode::FORBIDDEN,
            "log in; where there is nobody yet, start the server again for another link, or use `knot user create --admin` on its machine".into(),
        ),
        Refusal::RevealsNone => (
            StatusCode::CONFLICT,
            "set `reveal_tokens = true` in [server.accounts] and start the server again; tokens made until then stay as they are".into(),
        ),
        Refusal::NotSealed => (StatusCode::CONFLICT, "revoke it and make another".into()),
        Refusal::TooMany { .. } => (StatusCode::CONFLICT, "delete some first".into()),
        Refusal::Unplaceable(_) => (StatusCode::CONFLICT, "nothing was changed".into()),
        Refusal::RunsElsewhere(_) => (StatusCode::CONFLICT, "stop it there first".into()),
        Refusal::Silent(_) => (
            StatusCode::CONFLICT,
            "wait for that server, or name another one to start it there: it then begins without what its volumes hold, and where the silent server lives on it may run twice until the two meet".into(),
        ),
        Refusal::VolumesAway(_) => (
            StatusCode::CONFLICT,
            "wait for that server, or name another one to start it there, without what the volumes hold".into(),
        ),
        Refusal::OverLimit { .. } => (StatusCode::CONFLICT, "delete or stop another space, or have the limit raised".into()),
    };
    say(status, error.to_string(), hint)
}

fn needed(needs: Needs) -> String {
    let titles = |permissions: &[Permission]| {
        permissions.iter().map(|permission| permission.title()).collect::<Vec<_>>().join(" or ")
    };
    match needs {
        Needs::Nothing | Needs::Login => "a login".to_owned(),
        Needs::OneOf(permissions) => titles(permissions),
        Needs::OwnOr(permission) => titles(&[permission]),
        Needs::Collection => {
            "Read Documents or Edit Documents; knot's own collections take the permission to manage what is in them, and passwords are shown to nobody".to_owned()
        }
    }
}

fn misdirected(zone: &str, urls: &[String]) -> Said {
    let hint = if urls.is_empty() {
        "no server of that zone is alive as seen from here".to_owned()
    } else {
        format!("ask one of {}", urls.join(", "))
    };
    say(
        StatusCode::MISDIRECTED_REQUEST,
        format!("this server is not in zone {zone}, and the zone's documents stay inside it"),
        hint,
    )
}

fn changed() -> Said {
    say(
        StatusCode::PRECONDITION_FAILED,
        "the document is not in the state that If-Match or If-None-Match asks for",
        "read it again and repeat the edit with its ETag, which is in this answer too if the document exists",
    )
}

fn not_found() -> Said {
    say(StatusCode::NOT_FOUND, "no such document", "PUT creates it")
}

fn gone() -> Said {
    say(StatusCode::GONE, "the document is deleted", "its history can still be read; PUT creates it anew")
}

fn not_here() -> Said {
    misdirected("of this document", &[])
}

fn unreadable() -> Said {
    say(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the stored document cannot be read",
        "ask another server, which holds it as well; this one's log says more",
    )
}

fn edit(error: &EditError) -> Said {
    match error {
        EditError::NotHeldHere => not_here(),
        EditError::Refused(refused) => edit_refused(refused),
        EditError::Precondition { .. } => changed(),
        EditError::NotFound => not_found(),
        EditError::Gone => gone(),
        EditError::DiskFull => say(
            StatusCode::INSUFFICIENT_STORAGE,
            error.to_string(),
            "reads go on; writes return by themselves when there is room, and other servers may have some",
        ),
        EditError::Busy => say(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), "try again after a moment"),
        EditError::StorageFailed => say(
            StatusCode::SERVICE_UNAVAILABLE,
            error.to_string(),
            "the write may or may not be kept; ask another server, and see this one's log",
        ),
        EditError::Unreadable => unreadable(),
        EditError::Left => say(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), "ask another server"),
        _ => say(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), "the log says more"),
    }
}

fn edit_refused(refused: &EditRefused) -> Said {
    let (status, hint) = match refused {
        EditRefused::NotAnObject(_) => {
            (StatusCode::BAD_REQUEST, Cow::from("wrap the value in an object: {\"value\": ...}"))
        }
        EditRefused::TooDeep => (StatusCode::BAD_REQUEST, format!("keep it to {JSON_DEPTH_MAX} levels").into()),
        EditRefused::TooManyNodes => {
            (StatusCode::BAD_REQUEST, format!("keep it to {JSON_NODES_MAX}, or split the document into several").into())
        }
        EditRefused::TooLarge => {
            (StatusCode::BAD_REQUEST, "make the edit in several steps, or split the document".into())
        }
        EditRefused::Patch(_) => (
            StatusCode::BAD_REQUEST,
            "a JSON Patch is an array of operations as in RFC 6902; the document is as it was".into(),
        ),
        EditRefused::PatchTest(_) => {
            (StatusCode::CONFLICT, "the document is as it was; read it and decide again".into())
        }
        EditRefused::Increment(_) => {
            (StatusCode::BAD_REQUEST, "the pointer (RFC 6901) names a number, or a new member of an object".into())
        }
        EditRefused::Number(_) => {
            (StatusCode::BAD_REQUEST, "write it as a string, or keep it within 64 bits or a double".into())
        }
        _ => (StatusCode::BAD_REQUEST, "the document is as it was".into()),
    };
    say(status, refused.to_string(), hint)
}

fn read(error: &ReadError) -> Said {
    match error {
        ReadError::NotHeldHere => not_here(),
        ReadError::NotFound => not_found(),
        ReadError::Gone { .. } => gone(),
        ReadError::Busy => say(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), "try again after a moment"),
        ReadError::Unreadable => unreadable(),
        ReadError::NoVersion => say(
            StatusCode::NOT_FOUND,
            error.to_string(),
            "the document's history has those that are here; one that was made elsewhere may still come",
        ),
        ReadError::NotApplied(_) => say(
            StatusCode::CONFLICT,
            error.to_string(),
            "read a version before it; GET /api/cluster/quarantine (knot cluster quarantine show) says more",
        ),
        ReadError::VersionTooLong => say(
            StatusCode::UNPROCESSABLE_ENTITY,
            error.to_string(),
            "earlier versions take fewer; the present one can be read",
        ),
        _ => say(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), "the log says more"),
    }
}

fn review(error: &ReviewError) -> Said {
    const LISTED: &str = "GET /api/cluster/quarantine (knot cluster quarantine list) names documents and changes";
    match error {
        ReviewError::NotHeldHere => not_here(),
        ReviewError::NotFound | ReviewError::NotQuarantined => say(StatusCode::NOT_FOUND, error.to_string(), LISTED),
        ReviewError::Unreadable => unreadable(),
        ReviewError::DiskFull => {
            say(StatusCode::INSUFFICIENT_STORAGE, error.to_string(), "all is as it was; ask again when there is room")
        }
        ReviewError::Busy => say(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), "try again after a moment"),
        ReviewError::StorageFailed => say(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), "see this server's log"),
        _ => say(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), "the log says more"),
    }
}
