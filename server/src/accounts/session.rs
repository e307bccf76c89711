//! Sessions of browsers and of `knot login`: the document `knot.sessions/{user}.{digest}`. A session made on one server is
//! good on all, and dies on all when it is revoked.

use serde_json::{Value, json};

use super::fields::{text, time};
use super::secret::Secret;

/// How long a session lasts, in milliseconds: 14 days.
pub const SESSION_MS: i64 = 14 * 24 * 3_600 * 1_000;
/// Longest browser description that is kept, in bytes.
const AGENT_BYTES_MAX: usize = 256;

/// A session. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The digest of its secret.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// When it began.
    pub created_at: i64,
    /// When it ends by itself.
    pub expires_at: i64,
    /// From where.
    pub address: String,
    /// With what.
    pub agent: String,
    /// What tells the password that it was begun with from others.
    pub password: String,
    /// When it was ended; never taken back.
    pub revoked_at: Option<i64>,
}

impl Session {
    /// One that begins now.
    #[must_use]
    pub fn new(user: &str, secret: &Secret, now: i64, address: String, agent: &str) -> Self {
        let mut agent: String = agent.chars().filter(|c| !c.is_control()).collect();
        agent.truncate(agent.floor_char_boundary(AGENT_BYTES_MAX));
        let (id, user) = (secret.digest(), user.to_owned());
        let expires_at = now.saturating_add(SESSION_MS);
        Self { id, user, created_at: now, expires_at, address, agent, ..Self::default() }
    }

    /// What the document says; none where its key is not of a session.
    #[must_use]
    pub fn read(key: &str, value: &Value) -> Option<Self> {
        let (user, id) = key.split_once('.')?;
        Some(Self {
            id: id.to_owned(),
            user: user.to_owned(),
            created_at: time(value, "created_at").unwrap_or_default(),
            expires_at: time(value, "expires_at").unwrap_or_default(),
            address: text(value, "address"),
            agent: text(value, "agent"),
            password: text(value, "password"),
            revoked_at: time(value, "revoked_at"),
        })
    }

    /// The document of a session that is new.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({
            "created_at": self.created_at, "expires_at": self.expires_at, "address": self.address, "agent": self.agent,
            "password": self.password,
        })
    }

    /// The key of its document.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}.{}", self.user, self.id)
    }

    /// The merge patch that ends it for good.
    #[must_use]
    pub fn revocation(at: i64) -> Value {
        json!({"revoked_at": at})
    }

    /// Whether it is good at this time.
    #[must_use]
    pub fn is_good(&self, now: i64) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}

/// What a browser shows to go on with a session: whose it is, and its secret.
#[derive(Clone, Debug)]
pub struct SessionKey {
    /// The user's id.
    pub user: String,
    /// What only the browser knows.
    pub secret: Secret,
}

impl SessionKey {
    /// As it was given to the browser; none where it is of another form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (user, secret) = text.split_once('.')?;
        let is_id = user.len() == 32 && user.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| Self { user: user.to_owned(), secret: Secret::new(secret) })
    }

    /// As it is given to the browser.
    #[must_use]
    pub fn text(&self) -> Secret {
        Secret::new(format!("{}.{}", self.user, self.secret.reveal()))
    }

    /// The key of the session's document.
    #[must_use]
    pub fn document_key(&self) -> String {
        format!("{}.{}", self.user, self.secret.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_shows_leads_to_the_session() {
        let key = SessionKey { user: "0".repeat(32), secret: Secret::fresh([1; 32]) };
        let session = Session::new(&key.user, &key.secret, 1_000, "127.0.0.1".to_owned(), "curl\n");
        assert_eq!(session.agent, "curl");
        let shown = SessionKey::parse(key.text().reveal()).unwrap();
        assert_eq!(shown.document_key(), session.key());
        assert_eq!(Session::read(&session.key(), &session.document()), Some(session.clone()));
        assert!(session.is_good(1_000) && !session.is_good(1_000 + SESSION_MS));
        assert!(!Session { revoked_at: Some(0), ..session }.is_good(1_000));
        for text in ["", ".", "x.y", "00.secret"] {
            assert!(SessionKey::parse(text).is_none(), "{text}");
        }
    }
}
