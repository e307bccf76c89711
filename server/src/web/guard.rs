//! What every page has to pass: who asks, whether they may, and whether a form is one of this server's.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};

use super::Page;
use super::page::{Fault, Shell};
use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::guard::{Answered, check, identify, is_safe, is_same_origin, run};
use crate::api::operation::Needs;
use crate::api::path::encode;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Lets those through who may see this page; shows the others why not, or where to log in.
pub(super) async fn admit(
    State((api, page)): State<(Shared, Arc<Page>)>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut response = match Box::pin(let_in(&api, &page, &mut request)).await {
        Ok(Some(shell)) => {
            let mut response = run(request, next).await;
            match response.extensions_mut().remove::<Fault>() {
                Some(Fault(error)) => shell.refuse(&error),
                None => response,
            }
        }
        Ok(None) => to_login(request.method(), request.uri(), request.headers()),
        Err(Refused(error, shell)) => shell.unwrap_or_else(|| Shell::bare(&api, request.headers())).refuse(&error),
    };
    response.extensions_mut().insert(Answered(page.path));
    response
}

/// Why a page is not shown, and what it would have been shown in.
struct Refused(ApiError, Option<Shell>);

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self(error, None)
    }
}

/// What the page is shown in; none where somebody has to log in first. The page finds it, and who asks, in the request.
async fn let_in(api: &Shared, page: &Page, request: &mut Request) -> Result<Option<Shell>, Refused> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let headers = request.headers().clone();
    let caller = identify(api, &method, &headers).await?;
    let shell = Shell::new(api, caller.as_ref(), &headers, &uri).await?;
    request.extensions_mut().insert(shell.clone());
    if page.needs == Needs::Nothing {
        if !is_safe(&method) && !is_same_origin(&headers) {
            return Err(Refused(ApiError::CrossSite, Some(shell)));
        }
        return Ok(Some(shell));
    }
    let Some(caller) = caller else { return Ok(None) };
    if let Err(error) = check(&caller, page.needs, &method, &uri) {
        return Err(Refused(error, Some(shell)));
    }
    request.extensions_mut().insert(caller);
    Ok(Some(shell))
}

/// Sends whoever has not logged in to where they can, and back afterwards.
fn to_login(method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    let is_htmx = headers.contains_key("hx-request");
    let here = uri.path_and_query().map_or("/", |path| path.as_str());
    let shown = headers.get("hx-current-url").and_then(|url| url.to_str().ok()).and_then(path_of);
    let back = if is_htmx { shown.unwrap_or("/") } else { here };
    let back = if is_safe(method) || is_htmx { back } else { uri.path() };
    let login = if back == "/" { "/login".to_owned() } else { format!("/login?next={}", encode(back)) };
    if !is_htmx {
        return Redirect::to(&login).into_response();
    }
    // A part of a page is asked for: the whole page has to go.
    let location = HeaderValue::from_str(&login).unwrap_or(HeaderValue::from_static("/login"));
    (StatusCode::UNAUTHORIZED, [("hx-redirect", location)]).into_response()
}

/// The path and query of an address.
fn path_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    local_path(rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"))
}

/// The path to go on to after a login, where it is one of this server. Browsers read a backslash as a slash and leave out
/// control characters, so that both could lead elsewhere.
pub(super) fn local_path(path: &str) -> Option<&str> {
    let leads_elsewhere = path.starts_with("//") || path.contains('\\') || path.chars().any(char::is_control);
    (path.starts_with('/') && !leads_elsewhere).then_some(path)
}

/// Says what browsers may do with a page.
pub(super) async fn secure(request: Request, next: Next) -> Response {
    secured(next.run(request).await)
}

/// The same of one response.
pub(super) fn secured(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_server_are_followed() {
        for path in ["/", "/users", "/documents/global/plans/a%2Fb?x=//y", "/a//b"] {
            assert_eq!(local_path(path), Some(path));
        }
        for path in ["", "users", "//evil", "/\\evil", "https://evil", "/a\\b", "/\t/evil", "/a\nb", "javascript:x"] {
            assert_eq!(local_path(path), None, "{path:?}");
        }
    }

    #[test]
    fn who_is_sent_to_log_in_comes_back_to_where_they_were() {
        let at = |method: Method, uri: &str, headers: &[(&'static str, &'static str)]| {
            let headers: HeaderMap =
                headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
            let response = to_login(&method, &uri.parse().unwrap(), &headers);
            let location = response.headers().get("location").or(response.headers().get("hx-redirect"));
            location.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        assert_eq!(at(Method::GET, "/", &[]), "/login");
        assert_eq!(at(Method::GET, "/users?q=a", &[]), "/login?next=%2Fusers%3Fq%3Da");
        assert_eq!(at(Method::POST, "/api-tokens", &[]), "/login?next=%2Fapi-tokens");
        let htmx = [("hx-request", "true"), ("hx-current-url", "http://knot:3000/audit?actor=ann")];
        assert_eq!(at(Method::GET, "/banner", &htmx), "/login?next=%2Faudit%3Factor%3Dann");
    }
}
