//! `ETag`, `If-Match` and `If-None-Match` as RFC 9110 has them.
//!
//! Lenient where nothing is lost: a weak prefix is ignored and quotes may be missing. A tag that is none of ours is
//! not an error, it just matches nothing.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use knot_engine::{Etag, EtagMatch, Precondition};

use super::error::{ApiError, Form};

/// Most tags in one header.
pub(super) const ETAGS_MAX: usize = 64;

/// The tag as a header's value, quoted.
pub(super) fn header(etag: Etag) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{etag}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// The conditions of a request.
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, ApiError> {
    Ok(Precondition {
        if_match: list(headers, &header::IF_MATCH, "If-Match")?,
        if_none_match: list(headers, &header::IF_NONE_MATCH, "If-None-Match")?,
    })
}

/// Whether `tags` names the state `etag` of an existing document.
pub(super) fn matches(tags: &EtagMatch, etag: Etag) -> bool {
    match tags {
        EtagMatch::Any => true,
        EtagMatch::OneOf(tags) => tags.contains(&etag),
    }
}

fn list(headers: &HeaderMap, header: &HeaderName, name: &'static str) -> Result<Option<EtagMatch>, ApiError> {
    let mut found = None;
    for value in headers.get_all(header) {
        let bad = |why| ApiError::from(Form::BadHeader { name, why });
        let text = value.to_str().map_err(|_| bad("it holds characters that no tag of ours has"))?;
        let tags = found.get_or_insert_with(|| EtagMatch::OneOf(Vec::new()));
        add(tags, text).map_err(bad)?;
    }
    Ok(found)
}

fn add(tags: &mut EtagMatch, text: &str) -> Result<(), &'static str> {
    let mut rest = text.trim();
    if rest == "*" {
        *tags = EtagMatch::Any;
        return Ok(());
    }
    let mut seen = 0_usize;
    while !rest.is_empty() {
        let (tag, after) = next_tag(rest)?;
        seen += 1;
        if seen > ETAGS_MAX {
            return Err("it lists more than 64 tags");
        }
        if let (EtagMatch::OneOf(list), Ok(etag)) = (&mut *tags, tag.parse()) {
            list.push(etag);
        }
        rest = after;
    }
    if seen == 0 { Err("send \"*\" or a list of quoted tags") } else { Ok(()) }
}

/// The first tag of a list, without quotes, and what follows its comma.
fn next_tag(text: &str) -> Result<(&str, &str), &'static str> {
    const FORM: &str = "tags are in double quotes, with commas between them";
    let text = text.strip_prefix("W/").unwrap_or(text);
    let (tag, after) = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').ok_or(FORM)?,
        None => text.find(',').map_or((text, ""), |comma| text.split_at(comma)),
    };
    let after = after.trim_start();
    if after.is_empty() {
        return Ok((tag.trim_end(), after));
    }
    let after = after.strip_prefix(',').ok_or(FORM)?;
    Ok((tag.trim_end(), after.trim_start_matches([',', ' ', '\t'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "00112233445566778899aabbccddeeff";
    const B: &str = "ffeeddccbbaa99887766554433221100";

    fn parse(values: &[&str]) -> Result<Option<EtagMatch>, ApiError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_str(value).unwrap());
        }
        Ok(precondition(&headers)?.if_match)
    }

    fn tags(tags: &[&str]) -> Option<EtagMatch> {
        Some(EtagMatch::OneOf(tags.iter().map(|tag| tag.parse().unwrap()).collect()))
    }

    #[test]
    fn a_header_is_quoted_and_reads_back() {
        let etag: Etag = A.parse().unwrap();
        let text = header(etag);
        assert_eq!(text.to_str().unwrap(), format!("\"{A}\""));
        assert_eq!(parse(&[text.to_str().unwrap()]).unwrap(), tags(&[A]));
    }

    #[test]
    fn lists_stars_and_weak_tags_are_read() {
        assert_eq!(parse(&[]).unwrap(), None);
        assert_eq!(parse(&["*"]).unwrap(), Some(EtagMatch::Any));
        assert_eq!(parse(&[&format!("\"{A}\" , W/\"{B}\"")]).unwrap(), tags(&[A, B]));
        assert_eq!(parse(&[&format!("{A},{B}")]).unwrap(), tags(&[A, B]));
        assert_eq!(parse(&[&format!("\"{A}\""), &format!("\"{B}\"")]).unwrap(), tags(&[A, B]));
        assert_eq!(parse(&[&format!(r#""{A}",, "{B}","#)]).unwrap(), tags(&[A, B]));
    }

    #[test]
    fn tags_of_others_match_nothing_and_are_no_error() {
        assert_eq!(parse(&["\"a, comma\""]).unwrap(), tags(&[]));
        assert_eq!(parse(&[&format!("\"xyz\", \"{A}\"")]).unwrap(), tags(&[A]));
    }

    #[test]
    fn malformed_lists_are_refused() {
        for text in ["", "\"open", &format!("\"{A}\" \"{B}\""), &"\"a\",".repeat(ETAGS_MAX + 1)] {
            assert!(parse(&[text]).is_err(), "{text}");
        }
    }
}
