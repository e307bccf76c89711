//! Tokens that can be shown again: the document `knot.sealed/{token}`, written only where `reveal_tokens` is on and the
//! owner asks for it.
//!
//! A token is sealed with ChaCha20-Poly1305 under a key that argon2id makes of the owner's password and a salt of its own.
//! The key is stored nowhere, so nobody else can read the token: no administrator, and nobody who steals the data. It also
//! goes with the password: a token that was sealed under an earlier one is shown no more.

use std::collections::BTreeSet;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use serde_json::{Value, json};

use super::audit::about;
use super::fields::{number, text};
use super::{
    AccountError, Accounts, Caller, LoginFrom, PasswordCost, Passwords, Refusal, SEALED, Secret, TOKENS, Token,
};

const SALT_BYTES: usize = 16;

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    salt: [u8; SALT_BYTES],
    cost: PasswordCost,
    text: Vec<u8>,
    /// What tells the password from others.
    mark: String,
}

impl Sealed {
    /// Seals a token. `salt` is fresh.
    pub(super) async fn seal(
        passwords: &Passwords,
        password: &Secret,
        mark: String,
        salt: [u8; SALT_BYTES],
        token: &Token,
        secret: &Secret,
    ) -> Option<Self> {
        let cost = passwords.cost();
        let key = passwords.key(password, salt, cost).await?;
        let payload = Payload { msg: secret.reveal().as_bytes(), aad: token.id.as_bytes() };
        let text = ChaCha20Poly1305::new(&key.into()).encrypt(&NONCE.into(), payload).ok()?;
        Some(Self { salt, cost, text, mark })
    }

    /// The token, where it was sealed with this password.
    pub(super) async fn open(&self, passwords: &Passwords, password: &Secret, token: &Token) -> Option<Secret> {
        let key = passwords.key(password, self.salt, self.cost).await?;
        let payload = Payload { msg: &self.text, aad: token.id.as_bytes() };
        let text = ChaCha20Poly1305::new(&key.into()).decrypt(&NONCE.into(), payload).ok()?;
        let secret = Secret::new(String::from_utf8(text).ok()?);
        (secret.digest() == token.id).then_some(secret)
    }

    /// What the document says; none where it is none, or asks for more than any server spends.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let cost = PasswordCost { memory_kib: number(value, "memory_kib"), passes: number(value, "passes") };
        let is_bounded = cost.memory_kib <= PasswordCost::MEMORY_KIB_MAX && cost.passes <= PasswordCost::PASSES_MAX;
        Some(Self {
            salt: unhex(&text(value, "salt"))?.try_into().ok()?,
            cost,
            text: unhex(&text(value, "text"))?,
            mark: text(value, "mark"),
        })
        .filter(|_| is_bounded)
    }

    /// The document.
    pub(super) fn document(&self) -> Value {
        let PasswordCost { memory_kib, passes } = self.cost;
        let (salt, text) = (hex(&self.salt), hex(&self.text));
        json!({"salt": salt, "memory_kib": memory_kib, "passes": passes, "text": text, "mark": self.mark})
    }
}

/// A key seals once: its salt is fresh.
const NONCE: [u8; 12] = [0; 12];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

impl Accounts {
    /// Whether tokens can be made that are shown again.
    #[must_use]
    pub fn reveals_tokens(&self) -> bool {
        self.reveals_tokens
    }

    /// Makes a token of the caller's that can be shown again to who knows their password. A wrong one counts as a failed
    /// login.
    ///
    /// # Errors
    /// As for [`Accounts::create_token`], and when this server keeps none such, or the password is wrong.
    pub async fn create_revealable_token(
        self: &Arc<Self>,
        by: &Caller,
        (name, scopes, expires_at): (String, BTreeSet<String>, Option<i64>),
        password: &Secret,
        from: &LoginFrom,
    ) -> Result<(Token, Secret), AccountError> {
        self.check_reveals()?;
        self.ready().await?;
        let secret = self.fresh_secret();
        let token = Token::fresh(&secret, name, scopes, expires_at);
        self.check_new_token(by, &token)?;
        let mark = self.prove_own(by, password, from).await?;
        let sealed = Sealed::seal(&self.passwords, password, mark, self.fresh_bytes(), &token, &secret).await;
        let sealed = sealed.ok_or_else(|| Refusal::invalid("password", "one that argon2id takes"))?;
        let token = self.create_token_of(by, token, Some(sealed.document())).await?;
        Ok((token, secret))
    }

    /// Shows a token of the caller's again. A wrong password counts as a failed login.
    ///
    /// # Errors
    /// When this server shows none, there is none, it was not sealed with this password, or that is wrong.
    pub async fn reveal_token(
        self: &Arc<Self>,
        by: &Caller,
        id: &str,
        password: &Secret,
        from: &LoginFrom,
    ) -> Result<(Token, Secret), AccountError> {
        self.check_reveals()?;
        self.ready().await?;
        let now = self.now();
        // From its own document: a server that has just started may not have read all tokens yet.
        let token = self.read(TOKENS, id).await?.map(|value| Token::read(id, &value));
        let token = token.filter(|token| by.user() == Some(&token.user) && token.is_good(now));
        let token = token.ok_or(Refusal::Unknown("token"))?;
        self.prove_own(by, password, from).await?;
        let sealed = self.read(SEALED, id).await?.as_ref().and_then(Sealed::read).ok_or(Refusal::NotSealed)?;
        let secret = sealed.open(&self.passwords, password, &token).await.ok_or(Refusal::NotSealed)?;
        self.note(by, "token.reveal", format!("was shown the token {:?} again", token.name), about([("token_id", id)]))
            .await;
        Ok((token, secret))
    }

    /// Those of a user's tokens that can be shown again to who knows the present password.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn revealable<'a>(
        &self,
        user: &str,
        tokens: impl IntoIterator<Item = &'a Token>,
    ) -> Result<BTreeSet<String>, AccountError> {
        let mut revealable = BTreeSet::new();
        if !self.reveals_tokens {
            return Ok(revealable);
        }
        let mark = self.password_mark(user).await?;
        for token in tokens {
            let sealed = self.read(SEALED, &token.id).await?;
            if sealed.as_ref().and_then(Sealed::read).is_some_and(|sealed| sealed.mark == mark) {
                revealable.insert(token.id.clone());
            }
        }
        Ok(revealable)
    }

    fn check_reveals(&self) -> Result<(), Refusal> {
        if self.reveals_tokens { Ok(()) } else { Err(Refusal::RevealsNone) }
    }

    /// Checks the caller's own password; gives what tells it from others.
    async fn prove_own(
        self: &Arc<Self>,
        by: &Caller,
        password: &Secret,
        from: &LoginFrom,
    ) -> Result<String, AccountError> {
        let name = {
            let directory = self.directory();
            let user = by.user().and_then(|id| directory.user(id)).ok_or(Refusal::Unknown("user"))?;
            directory.username(user).into_owned()
        };
        let (user, mark) = self.prove(&name, password, from).await?;
        if by.user() == Some(&user.id) { Ok(mark) } else { Err(Refusal::WrongPassword.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sealed(password: &str) -> (Passwords, Token, Secret, Sealed) {
        let passwords = Passwords::new(PasswordCost { memory_kib: 8, passes: 1 }, true).unwrap();
        let secret = Secret::fresh([3; 32]);
        let token = Token { id: secret.digest(), ..Token::default() };
        let (mark, password) = (String::new(), Secret::new(password));
        let sealed = Sealed::seal(&passwords, &password, mark, [1; SALT_BYTES], &token, &secret).await.unwrap();
        (passwords, token, secret, sealed)
    }

    #[tokio::test]
    async fn a_token_is_shown_to_the_password_that_it_was_sealed_with() {
        let (passwords, token, secret, sealed) = sealed("correct horse").await;
        let stored = Sealed::read(&sealed.document()).unwrap();
        assert_eq!(stored, sealed);
        assert_eq!(stored.open(&passwords, &Secret::new("correct horse"), &token).await, Some(secret.clone()));
        assert_eq!(stored.open(&passwords, &Secret::new("wrong horse"), &token).await, None);
        let other = Token { id: Secret::fresh([4; 32]).digest(), ..token };
        assert_eq!(stored.open(&passwords, &Secret::new("correct horse"), &other).await, None);
        assert!(!sealed.document().to_string().contains(secret.reveal()));
    }

    #[tokio::test]
    async fn a_document_that_asks_for_too_much_work_is_none() {
        let (_, _, _, sealed) = sealed("correct horse").await;
        for (field, value) in
            [("memory_kib", json!(u32::MAX)), ("passes", json!(65)), ("salt", json!("00")), ("text", json!("0x"))]
        {
            let mut document = sealed.document();
            document[field] = value;
            assert_eq!(Sealed::read(&document), None, "{field}");
        }
    }
}
