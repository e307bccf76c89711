//! What every request has to pass: limits on its head, who asks, and whether they may.
//!
//! Who asks is found out once, here, and goes to the handler as a [`Caller`]. A request that changes something and comes
//! with a cookie has to come from a page of this server: browsers send cookies along with what other pages ask for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::error::{ApiError, Form};
use super::operation::{Needs, Operation};
use super::path;
use super::{Api, HEADER_BYTES_MAX, HEADERS_MAX, Shared, URI_BYTES_MAX};
use crate::accounts::{Caller, Secret, SessionKey};
use crate::metrics::Route;
use crate::web;

/// The cookie that holds a browser's session. The prefix has browsers keep it to this host, and to TLS or loopback.
pub(super) const SESSION_COOKIE: &str = "__Host-knot";

/// Where a request's connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The path of the operation that answered, for counting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered(pub(crate) &'static str);

/// Checks what every request has to pass, and counts it.
pub(super) async fn count(State(api): State<Shared>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let response = match check_head(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let path = response.extensions().get().map_or("other", |Answered(path)| path);
    api.metrics.on_response(Route::new(&method, path), response.status(), began.elapsed());
    response
}

/// Lets those through who may ask for this operation.
pub(super) async fn admit(
    State((api, operation)): State<(Shared, Arc<Operation>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let admitted = async {
        if operation.needs == Needs::Nothing {
            // A page of somebody else's logs nobody in.
            let is_said = ["sec-fetch-site", "origin"].iter().any(|name| request.headers().contains_key(*name));
            let is_theirs = !is_safe(request.method()) && is_said && !is_same_origin(request.headers());
            return if is_theirs { Err(ApiError::CrossSite) } else { Ok(()) };
        }
        let caller = identify(&api, request.method(), request.headers()).await?.ok_or(ApiError::Unauthorized)?;
        check(&caller, operation.needs, request.method(), request.uri())?;
        request.extensions_mut().insert(caller);
        Ok::<_, ApiError>(())
    };
    let mut response = match admitted.await {
        Ok(()) => run(request, next).await,
        Err(error) => error.into_response(),
    };
    response.extensions_mut().insert(Answered(operation.path));
    response
}

/// Serves a request. What changes something runs to its end, also where nobody waits for the answer any more.
pub(crate) async fn run(request: Request, next: Next) -> Response {
    if is_safe(request.method()) {
        return next.run(request).await;
    }
    let done = tokio::spawn(next.run(request)).await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// What is answered where there is nothing: the same to all who have not logged in.
pub(super) async fn nothing(State(api): State<Shared>, request: Request) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let error = match identify(&api, request.method(), headers).await {
        Ok(None) if is_api(uri.path()) => ApiError::Unauthorized,
        Ok(_) => ApiError::NoRoute,
        Err(error) => error,
    };
    let shown = headers.get(header::ACCEPT).and_then(|kinds| kinds.to_str().ok());
    if shown.is_some_and(|kinds| kinds.contains("text/html")) && !is_api(uri.path()) {
        web::nothing(&api, uri, headers, error).await
    } else {
        error.into_response()
    }
}

fn is_api(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

fn check_head(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    if uri.path_and_query().is_some_and(|text| text.as_str().len() > URI_BYTES_MAX) {
        return Err(Form::UriTooLong.into());
    }
    // What takes a part of the path would say so in a form of its own.
    if uri.path().contains('%') {
        path::decode(uri.path())?;
    }
    if headers.len() > HEADERS_MAX {
        return Err(Form::TooManyHeaders.into());
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADER_BYTES_MAX { Err(Form::HeadersTooLong.into()) } else { Ok(()) }
}

/// Whether the caller may ask for what needs this.
pub(crate) fn check(caller: &Caller, needs: Needs, method: &Method, uri: &Uri) -> Result<(), ApiError> {
    let reads = is_safe(method);
    let (is_allowed, collection) = match needs {
        Needs::Nothing | Needs::Login => (true, None),
        Needs::OneOf(permissions) => (permissions.iter().any(|permission| caller.may(*permission)), None),
        Needs::OwnOr(permission) => (caller.may(permission) || caller.user() == named_user(uri.path()), None),
        Needs::Collection => {
            let collection = path::collection_of(uri.path())?;
            if !reads && collection.starts_with(crate::accounts::OWN_COLLECTIONS) {
                return Err(ApiError::OwnCollection);
            }
            (if reads { caller.may_read(&collection) } else { caller.may_edit(&collection) }, Some(collection))
        }
    };
    if !caller.is_within_limits(reads, collection.as_deref()) {
        return Err(ApiError::TokenLimited);
    }
    if is_allowed { Ok(()) } else { Err(ApiError::Forbidden(needs)) }
}

/// The user that a path is about: what stands after `/api/users/`.
fn named_user(path: &str) -> Option<&str> {
    path.strip_prefix("/api/users/")?.split('/').next()
}

pub(crate) fn is_safe(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

/// Who asks; none where nothing says so.
pub(crate) async fn identify(api: &Api, method: &Method, headers: &HeaderMap) -> Result<Option<Caller>, ApiError> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let token = value.as_bytes().split_at_checked("Bearer ".len());
        let token =
            token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer ")).map(|(_, token)| token.trim_ascii());
        let Some(token) = token.and_then(|token| std::str::from_utf8(token).ok()) else { return Ok(None) };
        // Compared by their hashes, whose comparison takes the same time wherever they differ.
        if blake3::hash(token.as_bytes()) == api.token {
            return Ok(Some(Caller::machine()));
        }
        return Ok(match SessionKey::parse(token) {
            Some(key) => api.accounts.by_session(&key).await?,
            None => api.accounts.by_token(&Secret::new(token)).await?,
        });
    }
    let Some(key) = shown_session(headers) else { return Ok(None) };
    let caller = api.accounts.by_session(&key).await?;
    if caller.is_some() && !is_safe(method) && !is_same_origin(headers) {
        return Err(ApiError::CrossSite);
    }
    Ok(caller)
}

/// The session whose cookie a browser shows, good or not.
pub(super) fn shown_session(headers: &HeaderMap) -> Option<SessionKey> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SESSION_COOKIE).and_then(|(_, value)| SessionKey::parse(value))
}

/// Whether a browser sends this for a page of this server, or at the wish of a person.
pub(crate) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok()) {
        return matches!(site, "same-origin" | "none");
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, authority)| authority == host),
        _ => false,
    }
}

/// From where a request comes: the connection's other end, or whom a proxy that is trusted names.
pub(super) fn origin(api: &Api, peer: Option<&Peer>, headers: &HeaderMap) -> IpAddr {
    let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |Peer(peer)| peer.ip().to_canonical());
    let is_trusted = |address: &IpAddr| api.trusted_proxies.iter().any(|network| network.contains(address));
    if !is_trusted(&peer) {
        return peer;
    }
    let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = forwarded.flat_map(|hops| hops.split(',')).collect();
    let mut nearest = peer;
    // Each proxy adds whom it has heard from; the last that is none of ours is the one that counts. What stands before
    // it, anybody may have made up.
    for hop in hops.into_iter().rev() {
        let Ok(hop) = hop.trim().parse::<IpAddr>() else { break };
        nearest = hop.to_canonical();
        if !is_trusted(&nearest) {
            break;
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_other_pages_ask_for_is_told_from_what_ours_do() {
        assert!(is_same_origin(&headers(&[("sec-fetch-site", "same-origin")])));
        assert!(is_same_origin(&headers(&[("sec-fetch-site", "none")])));
        assert!(is_same_origin(&headers(&[("origin", "https://knot.internal:3000"), ("host", "knot.internal:3000")])));
        for other in [
            &[("sec-fetch-site", "cross-site"), ("origin", "https://knot"), ("host", "knot")][..],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "https://evil"), ("host", "knot")],
            &[("origin", "null"), ("host", "knot")],
            &[("host", "knot")],
            &[],
        ] {
            assert!(!is_same_origin(&headers(other)), "{other:?}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let session = "__Host-knot=00000000000000000000000000000000.secret=";
        let shown = HeaderValue::from_str(&format!("a=b; {session}; c=d")).unwrap();
        let headers: HeaderMap = [(header::COOKIE, shown)].into_iter().collect();
        assert_eq!(shown_session(&headers).unwrap().secret, Secret::new("secret="));
        assert!(shown_session(&HeaderMap::new()).is_none());
    }
}
