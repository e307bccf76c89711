//! Reading a request's body within its limits.

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use bytes::BytesMut;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{ApiError, Form};
use super::{Api, BODY_BYTES_MAX};

/// Most of an overlong body that is read and dropped before it is refused, in bytes. A client that is still sending when
/// the connection closes never reads the refusal.
const DISCARD_BYTES_MAX: usize = 8 << 20;

/// Reads the body whole.
pub(crate) async fn read(api: &Api, headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let limit = api.limits.body_timeout;
    match tokio::time::timeout(limit, collect(headers, body)).await {
        Ok(result) => result,
        Err(_) => Err(Form::BodyTimeout(limit).into()),
    }
}

/// Reads the body as JSON.
pub(super) async fn json(api: &Api, headers: &HeaderMap, body: Body) -> Result<Value, ApiError> {
    parse(&read(api, headers, body).await?)
}

/// Reads the body as what is asked for. What does not belong there, or is missing, is named.
pub(super) async fn form<T: DeserializeOwned>(api: &Api, headers: &HeaderMap, body: Body) -> Result<T, ApiError> {
    let value = json(api, headers, body).await?;
    serde_json::from_value(value).map_err(|error| Form::WrongMembers(error.to_string()).into())
}

/// The same where an empty body asks for what is usual.
pub(super) async fn form_or_default<T: DeserializeOwned + Default>(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, ApiError> {
    let bytes = read(api, headers, body).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_value(parse(&bytes)?).map_err(|error| Form::WrongMembers(error.to_string()).into())
}

/// Reads `bytes` as JSON. Deep nesting ends in an error at 128 levels, long before the stack does.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let why = error.to_string();
        // serde_json has no other mark of it; a test holds the two together.
        if why.starts_with("recursion limit exceeded") { Form::TooDeep } else { Form::NotJson(why) }.into()
    })
}

async fn collect(headers: &HeaderMap, mut body: Body) -> Result<Bytes, ApiError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > BODY_BYTES_MAX {
        // Who waits for `100 Continue` has not sent anything, and need not.
        if !headers.contains_key(header::EXPECT) && announced <= DISCARD_BYTES_MAX {
            discard(body, 0).await;
        }
        return Err(Form::BodyTooLong.into());
    }
    let mut bytes = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Form::BodyBroken)?;
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + joined.len() + data.len();
        if length > BODY_BYTES_MAX {
            discard(body, length).await;
            return Err(Form::BodyTooLong.into());
        }
        // Most bodies come in one frame, which is then taken as it is.
        if bytes.is_empty() && joined.is_empty() {
            bytes = data;
        } else {
            joined.reserve(announced.saturating_sub(joined.len()).max(data.len()));
            joined.extend_from_slice(&std::mem::take(&mut bytes));
            joined.extend_from_slice(&data);
        }
    }
    Ok(if joined.is_empty() { bytes } else { joined.freeze() })
}

async fn discard(mut body: Body, mut length: usize) {
    while length <= DISCARD_BYTES_MAX {
        match body.frame().await {
            Some(Ok(frame)) => length += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => return,
        }
    }
}
