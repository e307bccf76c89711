//! Names that no document can have, and what names in a scope are, said without the engine.

use knot_engine::documents::DocumentId;
use serde_json::json;

use crate::draw::Draw;

/// Longest collection, in bytes.
const LABEL_BYTES_MAX: usize = 64;
/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 512;

/// A name that is none, of a document that a server in this zone would hold.
pub(super) fn drawn(draw: &mut Draw, zone: &str) -> Option<DocumentId> {
    let (label, key) = ("hostile".to_owned(), "h".to_owned());
    let (collection, key) = match draw.index(7) {
        0 => (String::new(), key),
        1 => ("no label".to_owned(), key),
        2 => ("l".repeat(LABEL_BYTES_MAX + 1), key),
        3 => (label, String::new()),
        4 => (label, "k".repeat(KEY_BYTES_MAX + 1)),
        5 => (label, "line\nbreak".to_owned()),
        _ => ("coll\u{e9}ction".to_owned(), key),
    };
    let scope = if draw.chance(700) { json!("Global") } else { json!({ "Zone": zone }) };
    serde_json::from_value(json!({ "scope": scope, "collection": collection, "key": key })).ok()
}

/// Whether documents may have this name.
pub(crate) fn is_name(document: &DocumentId) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let (collection, key) = (document.collection(), document.key());
    (1..=LABEL_BYTES_MAX).contains(&collection.len())
        && collection.bytes().all(is_letter)
        && (1..=KEY_BYTES_MAX).contains(&key.len())
        && !key.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use knot_engine::documents::Scope;

    use super::*;

    #[test]
    fn what_is_drawn_is_no_name() {
        let mut draw = Draw::new(1, "names");
        for _ in 0..100 {
            let document = drawn(&mut draw, "eu").expect("it can be written down");
            assert!(!is_name(&document) && document.check().is_err(), "{document:?}");
        }
        assert!(is_name(&DocumentId::new(Scope::Global, "notes", "k1").expect("a name")));
    }
}
