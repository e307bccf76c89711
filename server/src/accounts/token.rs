//! API tokens: what a program shows in place of a password. Only a token's digest is stored, as the key of
//! `knot.tokens/{digest}`; when it was last used is kept apart, in `knot.uses/{digest}`, so that a use never writes to the
//! document that says whether it was revoked.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde_json::{Value, json};

use super::Secret;
use super::fields::{self, flag, set, text, time};
use super::refusal::Refusal;

/// Longest name of a token, in bytes.
pub const TOKEN_NAME_BYTES_MAX: usize = 64;
/// Most scopes of a token.
pub const SCOPES_MAX: usize = 32;
/// Most tokens of one user.
pub const TOKENS_A_USER_MAX: usize = 1_000;

/// A token. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// The digest of the secret.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// What its owner calls it.
    pub name: String,
    /// What it is limited to; empty for all that its user may do.
    pub scopes: BTreeSet<String>,
    /// Whether it was ever limited: without scopes it then allows nothing, as when two have each taken another away.
    pub limited: bool,
    /// When it was made.
    pub created_at: i64,
    /// When it ceases to be good; none for never.
    pub expires_at: Option<i64>,
    /// When it was revoked. Once set it is never taken back, so a use elsewhere cannot bring a token to life again.
    pub revoked_at: Option<i64>,
}

impl Token {
    /// A new one of this text, whose owner and beginning are yet to be said.
    #[must_use]
    pub fn fresh(secret: &Secret, name: String, scopes: BTreeSet<String>, expires_at: Option<i64>) -> Self {
        let limited = !scopes.is_empty();
        Self { id: secret.digest(), name, scopes, limited, expires_at, ..Self::default() }
    }

    /// What the document says.
    #[must_use]
    pub fn read(id: &str, value: &Value) -> Self {
        Self {
            id: id.to_owned(),
            user: text(value, "user"),
            name: text(value, "name"),
            scopes: set(value, "scopes"),
            limited: flag(value, "limited"),
            created_at: time(value, "created_at").unwrap_or_default(),
            expires_at: time(value, "expires_at"),
            revoked_at: time(value, "revoked_at").or(fields::is_deleted(value).then_some(0)),
        }
    }

    /// The document of a token that is new.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut value = json!({
            "user": self.user, "name": self.name, "scopes": fields::set_value(&self.scopes), "created_at": self.created_at,
            "limited": self.limited,
        });
        if let (Some(object), Some(at)) = (value.as_object_mut(), self.expires_at) {
            object.insert("expires_at".to_owned(), at.into());
        }
        value
    }

    /// The merge patch that ends it for good.
    #[must_use]
    pub fn revocation(at: i64) -> Value {
        json!({"revoked_at": at})
    }

    /// Whether it is good at this time.
    #[must_use]
    pub fn is_good(&self, now: i64) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }

    /// What it is limited to, if it is; a scope that is not known allows nothing.
    #[must_use]
    pub fn limits(&self) -> Option<Vec<TokenScope>> {
        let is_limited = self.limited || !self.scopes.is_empty();
        is_limited.then(|| self.scopes.iter().map(|scope| scope.parse().unwrap_or(TokenScope::Nothing)).collect())
    }

    /// Whether it may be stored.
    ///
    /// # Errors
    /// The first field that may not.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.name.trim().is_empty()
            || self.name.len() > TOKEN_NAME_BYTES_MAX
            || self.name.chars().any(char::is_control)
        {
            let why = format!("1 to {TOKEN_NAME_BYTES_MAX} bytes without control characters");
            return Err(Refusal::invalid("name", why));
        }
        if self.scopes.len() > SCOPES_MAX {
            return Err(Refusal::invalid("scopes", format!("at most {SCOPES_MAX}")));
        }
        if self.scopes.iter().any(|scope| scope.parse::<TokenScope>().is_err()) {
            return Err(Refusal::invalid("scopes", "each is `read`, `leaf`, or `documents:` and a collection"));
        }
        Ok(())
    }
}

/// What a token is limited to. One with several may do what any of them allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenScope {
    /// Reading, whatever its user may read.
    Read,
    /// The documents of one collection.
    Collection(String),
    /// Connecting a leaf.
    Leaf,
    /// Written by a version that knows more.
    Nothing,
}

impl FromStr for TokenScope {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            None if text == "read" => Ok(Self::Read),
            None if text == "leaf" => Ok(Self::Leaf),
            Some(("documents", collection))
                if knot_engine::documents::is_label(collection, knot_engine::documents::COLLECTION_BYTES_MAX) =>
            {
                Ok(Self::Collection(collection.to_owned()))
            }
            None | Some(_) => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token { id: "1".to_owned(), user: "u".to_owned(), name: "Leaf Test".to_owned(), ..Token::default() }
    }

    #[test]
    fn what_is_written_is_read() {
        let limited = Token { scopes: ["read".to_owned()].into(), expires_at: Some(9), ..token() };
        assert_eq!(Token::read("1", &limited.document()), limited);
        assert_eq!(limited.limits(), Some(vec![TokenScope::Read]));
        assert!(limited.is_good(8) && !limited.is_good(9));
        assert!(token().is_good(i64::MAX));
    }

    #[test]
    fn a_revoked_token_is_no_good_whatever_else_is_written() {
        let mut value = token().document();
        value["revoked_at"] = 5.into();
        assert!(!Token::read("1", &value).is_good(0));
        value["name"] = "another".into();
        assert!(!Token::read("1", &value).is_good(0));
    }

    #[test]
    fn scopes_that_nobody_knows_allow_nothing() {
        let odd = Token { scopes: ["everything".to_owned()].into(), ..token() };
        assert!(odd.check().is_err());
        assert_eq!(odd.limits(), Some(vec![TokenScope::Nothing]));
        assert_eq!(Token { limited: true, ..token() }.limits(), Some(Vec::new()));
        assert_eq!(token().limits(), None);
        assert_eq!("documents:users".parse(), Ok(TokenScope::Collection("users".to_owned())));
        assert_eq!("documents:a b".parse::<TokenScope>(), Err(()));
        assert_eq!(token().check(), Ok(()));
        assert!(Token { name: " ".to_owned(), ..token() }.check().is_err());
    }
}
