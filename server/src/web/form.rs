//! Forms and queries as browsers send them: `application/x-www-form-urlencoded`.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{HeaderMap, Uri};
use serde_json::Value;

use crate::accounts::Secret;
use crate::api::error::{ApiError, Form};
use crate::api::{Api, body, path};

/// Most fields of a form. A role has a box for each permission; a user one for each role and group.
const FIELDS_MAX: usize = 4_096;

/// Names and values, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Those of a form that was sent.
    pub(super) async fn read(api: &Api, headers: &HeaderMap, body: Body) -> Result<Self, ApiError> {
        let bytes = body::read(api, headers, body).await?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Form::BadPath("the form is not UTF-8"))?;
        Self::parse(text)
    }

    /// Those of a page's address. One that is malformed has none.
    pub(super) fn of(uri: &Uri) -> Self {
        uri.query().and_then(|query| Self::parse(query).ok()).unwrap_or_default()
    }

    fn parse(text: &str) -> Result<Self, ApiError> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        if pairs.clone().count() > FIELDS_MAX {
            return Err(Form::BadPath("the form has more than 4,096 fields").into());
        }
        let fields = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((path::decode(&name.replace('+', " "))?, path::decode(&value.replace('+', " "))?))
        });
        fields.collect::<Result<_, ApiError>>().map(Self)
    }

    /// The first value of this name; nothing where there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value.as_str())
    }

    /// The same without space around it.
    pub(super) fn text(&self, name: &str) -> String {
        self.get(name).trim().to_owned()
    }

    /// The same where it is to be kept from sight.
    pub(super) fn secret(&self, name: &str) -> Secret {
        Secret::new(self.get(name))
    }

    /// Whether a box is ticked.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(found, _)| found == name)
    }

    /// All values of this name.
    pub(super) fn all(&self, name: &str) -> BTreeSet<String> {
        self.0.iter().filter(|(found, _)| found == name).map(|(_, value)| value.clone()).collect()
    }

    /// All values of this name, in the order in which they came.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }

    /// A whole number, 0 where nothing is filled in; what is none, which no record takes, as it is.
    pub(super) fn count(&self, name: &str) -> Value {
        match self.get(name).trim() {
            "" => 0.into(),
            text => text.parse::<u64>().map_or_else(|_| text.into(), Value::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_reads_as_it_was_filled_in() {
        let fields = Fields::parse("name=Leaf+Test&scope=read&scope=leaf&empty=&a%26b=%C3%A9%3D+&on").unwrap();
        assert_eq!(fields.get("name"), "Leaf Test");
        assert_eq!(fields.all("scope"), ["leaf".to_owned(), "read".to_owned()].into());
        assert_eq!((fields.get("empty"), fields.get("none")), ("", ""));
        assert_eq!((fields.get("a&b"), fields.text("a&b").as_str()), ("\u{e9}= ", "\u{e9}="));
        assert!(fields.has("on") && !fields.has("off"));
        assert!(Fields::parse("a=%zz").is_err());
        assert!(Fields::parse(&"a&".repeat(FIELDS_MAX)).is_ok());
        assert!(Fields::parse(&"a&".repeat(FIELDS_MAX + 1)).is_err(), "what is beyond is not left out silently");
    }

    #[test]
    fn a_number_that_is_none_is_not_nothing() {
        let fields = Fields::parse("few=+7+&many=4294967296&none=x&empty=").unwrap();
        assert_eq!(
            ["few", "many", "empty", "absent"].map(|name| fields.count(name)),
            [7, 4_294_967_296_u64, 0, 0].map(Value::from)
        );
        assert_eq!(fields.count("none"), "x");
    }
}
