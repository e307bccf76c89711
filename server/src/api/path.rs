//! Which document or collection a request path names.
//!
//! Paths are split before they are percent-decoded, so an encoded slash is never a separator. A key may hold slashes,
//! plain or encoded; they name the same key. The one ambiguity is a key that ends in `/history`: a path that ends in a
//! plain `/history` after a key is that key's history, and the key itself is written with its last slash encoded.

use knot_engine::documents::{COLLECTION_BYTES_MAX, DocumentId, NameError, Scope, ZONE_BYTES_MAX, is_label};

use super::error::{ApiError, Form};

/// What a path under a collection names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Document(DocumentId),
    History(DocumentId),
}

/// The document or history at `path`, which is one of the document routes.
pub(super) fn resource(path: &str) -> Result<Resource, ApiError> {
    let (scope, rest) = scope(path)?;
    let (collection, key) = rest.split_once('/').ok_or(ApiError::NoRoute)?;
    let collection = decode(collection)?;
    match key.strip_suffix("/history") {
        Some(key) if !key.is_empty() => Ok(Resource::History(DocumentId::new(scope, &collection, &decode(key)?)?)),
        _ => Ok(Resource::Document(DocumentId::new(scope, &collection, &decode(key)?)?)),
    }
}

/// The scope and collection at `path`, which is one of the list routes.
pub(super) fn collection(path: &str) -> Result<(Scope, String), ApiError> {
    let (scope, rest) = scope(path)?;
    Ok((scope, label(rest)?))
}

/// The collection that `path` is about, which is one of the document or list routes.
pub(super) fn collection_of(path: &str) -> Result<String, ApiError> {
    let (_, rest) = scope(path)?;
    label(rest.split('/').next().unwrap_or_default())
}

fn label(text: &str) -> Result<String, ApiError> {
    let collection = decode(text)?;
    if is_label(&collection, COLLECTION_BYTES_MAX) { Ok(collection) } else { Err(NameError::Collection.into()) }
}

fn scope(path: &str) -> Result<(Scope, &str), ApiError> {
    if let Some(rest) = path.strip_prefix("/api/documents/") {
        return Ok((Scope::Global, rest));
    }
    let rest = path.strip_prefix("/api/zones/").ok_or(ApiError::NoRoute)?;
    let (zone, rest) = rest.split_once('/').ok_or(ApiError::NoRoute)?;
    let rest = rest.strip_prefix("documents/").ok_or(ApiError::NoRoute)?;
    let zone = decode(zone)?;
    if is_label(&zone, ZONE_BYTES_MAX) { Ok((Scope::Zone(zone.into()), rest)) } else { Err(NameError::Zone.into()) }
}

/// What percent-encoded text says.
pub(crate) fn decode(text: &str) -> Result<String, ApiError> {
    const ESCAPE: Form = Form::BadPath("a % in the path is not followed by two hexadecimal digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let high = rest.next().and_then(digit).ok_or(ESCAPE)?;
            let low = rest.next().and_then(digit).ok_or(ESCAPE)?;
            high << 4 | low
        } else {
            byte
        });
    }
    String::from_utf8(bytes).map_err(|_| Form::BadPath("the path is not UTF-8 when decoded").into())
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(scope: Scope, collection: &str, key: &str) -> Resource {
        Resource::Document(DocumentId::new(scope, collection, key).unwrap())
    }

    fn history(key: &str) -> Resource {
        Resource::History(DocumentId::new(Scope::Global, "users", key).unwrap())
    }

    #[test]
    fn keys_may_hold_slashes_plain_or_encoded() {
        for path in ["/api/documents/users/a/b", "/api/documents/users/a%2Fb", "/api/documents/users/a%2fb"] {
            assert_eq!(resource(path).unwrap(), document(Scope::Global, "users", "a/b"));
        }
        assert_eq!(resource("/api/documents/users/%C3%A9+x").unwrap(), document(Scope::Global, "users", "\u{e9}+x"));
        assert_eq!(
            resource("/api/zones/eu-1/documents/users/documents/x").unwrap(),
            document(Scope::Zone("eu-1".into()), "users", "documents/x")
        );
    }

    #[test]
    fn a_plain_history_suffix_is_the_history() {
        assert_eq!(resource("/api/documents/users/ann/history").unwrap(), history("ann"));
        assert_eq!(resource("/api/documents/users/a/b/history").unwrap(), history("a/b"));
        assert_eq!(resource("/api/documents/users/ann%2Fhistory/history").unwrap(), history("ann/history"));
        assert_eq!(
            resource("/api/documents/users/ann%2Fhistory").unwrap(),
            document(Scope::Global, "users", "ann/history")
        );
        assert_eq!(resource("/api/documents/users/history").unwrap(), document(Scope::Global, "users", "history"));
    }

    #[test]
    fn what_is_encoded_reads_back() {
        let text = "a/b c?d&e=\u{e9}%+";
        assert_eq!(decode(&encode(text)), Ok(text.to_owned()));
        assert_eq!(encode(text), "a%2Fb%20c%3Fd%26e%3D%C3%A9%25%2B");
        assert_eq!(encode("a/b c%\u{e9}.-_~"), "a%2Fb%20c%25%C3%A9.-_~");
    }

    #[test]
    fn malformed_paths_are_refused() {
        for path in [
            "/api/documents/users/%",
            "/api/documents/users/%2",
            "/api/documents/users/%zz",
            "/api/documents/users/%FF",
        ] {
            assert!(matches!(resource(path), Err(ApiError::Form(Form::BadPath(_)))), "{path}");
        }
        let long = format!("/api/documents/users/{}", "k".repeat(513));
        for path in
            ["/api/documents/us%20ers/a", "/api/documents/users/%00", "/api/zones/a%2Fb/documents/users/a", &long]
        {
            assert!(matches!(resource(path), Err(ApiError::Name(_))), "{path}");
        }
        assert_eq!(collection("/api/documents/us%2Fers"), Err(NameError::Collection.into()));
        assert_eq!(collection("/api/zones/uk/documents/users"), Ok((Scope::Zone("uk".into()), "users".to_owned())));
    }
}
