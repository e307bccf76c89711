//! What must not be shown: passwords, tokens and what a browser keeps.

use std::fmt;

use serde::Deserialize;

/// A text that only its comparison and its hash get to see. Its debug output is empty.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret from what is known.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A secret of 32 fresh bytes, base64url with padding: 44 characters.
    #[must_use]
    pub fn fresh(bytes: [u8; 32]) -> Self {
        Self(format!("{}=", crate::storage::base64url(&bytes)))
    }

    /// The text, for the one who may see it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Under what a secret of 32 random bytes is stored: the first 16 bytes of its hash, in hexadecimal. Whoever reads it
    /// learns nothing of the secret.
    #[must_use]
    pub fn digest(&self) -> String {
        let hash = blake3::derive_key("knot 2026 stored secret", self.0.as_bytes());
        hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_and_its_digest_says_nothing() {
        let secret = Secret::fresh([7; 32]);
        assert_eq!(format!("{secret:?}"), "Secret");
        assert_eq!(secret.reveal().len(), 44);
        assert_eq!(secret.digest().len(), 32);
        assert_ne!(secret.digest(), Secret::fresh([8; 32]).digest());
    }
}
