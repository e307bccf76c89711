//! Passwords: argon2id, a few at a time. Checking one of a user that does not exist costs the same.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use super::refusal::Refusal;
use super::secret::Secret;

/// Shortest password, in characters.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Longest, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// How many are looked at at once, since each takes a core and much memory.
const AT_ONCE: usize = 2;

/// What a password costs. The defaults are those that OWASP recommends for argon2id with one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for PasswordCost {
    fn default() -> Self {
        Self { memory_kib: 46 << 10, passes: 1 }
    }
}

impl PasswordCost {
    /// Least memory that is allowed, in KiB.
    pub const MEMORY_KIB_MIN: u32 = 8;
    /// Most memory that is allowed, in KiB.
    pub const MEMORY_KIB_MAX: u32 = 1 << 20;
    /// Most passes that are allowed.
    pub const PASSES_MAX: u32 = 64;
}

/// Hashes and checks passwords.
#[derive(Clone, Debug)]
pub struct Passwords {
    argon2: Arc<Argon2<'static>>,
    permits: Arc<Semaphore>,
    /// What is checked where there is no user: nobody's password.
    nobody: Arc<str>,
    /// Whether work stays on the task that asks, as a simulator wants it.
    inline: bool,
}

/// What came of checking a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is wrong.
    Wrong,
    /// It is right.
    Right,
    /// It is right, and stored at another cost than passwords are now.
    RightButStale,
}

impl Passwords {
    /// At this cost.
    ///
    /// # Errors
    /// When argon2 does not take it.
    pub fn new(cost: PasswordCost, inline: bool) -> Result<Self, argon2::Error> {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None)?;
        let argon2 = Arc::new(Argon2::new(Algorithm::Argon2id, Version::V0x13, params));
        let nobody = hash_with(&argon2, &[0; 32], &[0; 16]).ok_or(argon2::Error::OutputTooShort)?.into();
        Ok(Self { argon2, permits: Arc::new(Semaphore::new(AT_ONCE)), nobody, inline })
    }

    /// Hashes a password with this salt. The text holds all it takes to check it.
    ///
    /// # Errors
    /// When it is too short or too long.
    pub async fn hash(&self, password: &Secret, salt: [u8; 16]) -> Result<String, Refusal> {
        check(password)?;
        let (argon2, password) = (self.argon2.clone(), password.clone());
        let hashed = self.work(move || hash_with(&argon2, password.reveal().as_bytes(), &salt)).await.flatten();
        hashed.ok_or_else(|| Refusal::invalid("password", "another one, please: this one cannot be hashed"))
    }

    /// Checks a password against what is stored; against nobody's where nothing is.
    pub async fn verify(&self, password: &Secret, stored: Option<String>) -> Verdict {
        let is_known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.nobody.to_string());
        let (argon2, password) = (self.argon2.clone(), password.clone());
        let verdict = self.work(move || verify_with(&argon2, &password, &stored)).await;
        verdict.filter(|_| is_known).unwrap_or(Verdict::Wrong)
    }

    /// What a password costs now.
    pub(super) fn cost(&self) -> PasswordCost {
        let params = self.argon2.params();
        PasswordCost { memory_kib: params.m_cost(), passes: params.t_cost() }
    }

    /// A key that takes the password to make. Salts are fresh, so it is another than what any password is checked with.
    pub(super) async fn key(&self, password: &Secret, salt: [u8; 16], cost: PasswordCost) -> Option<[u8; 32]> {
        let password = password.clone();
        let derive = move || {
            let params = Params::new(cost.memory_kib, cost.passes, 1, None).ok()?;
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let mut key = [0; 32];
            argon2.hash_password_into(password.reveal().as_bytes(), &salt, &mut key).ok().map(|()| key)
        };
        self.work(derive).await.flatten()
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        // It goes with the work, which goes on when whoever asked is gone.
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        let work = move || {
            let _permit = permit;
            work()
        };
        if self.inline { Some(work()) } else { tokio::task::spawn_blocking(work).await.ok() }
    }
}

/// Whether a password may be set.
///
/// # Errors
/// When it is too short or too long.
pub(super) fn check(password: &Secret) -> Result<(), Refusal> {
    let text = password.reveal();
    if text.chars().count() < PASSWORD_CHARS_MIN {
        return Err(Refusal::invalid("password", format!("at least {PASSWORD_CHARS_MIN} characters")));
    }
    if text.len() > PASSWORD_BYTES_MAX {
        return Err(Refusal::invalid("password", format!("at most {PASSWORD_BYTES_MAX} bytes")));
    }
    Ok(())
}

fn hash_with(argon2: &Argon2<'static>, password: &[u8], salt: &[u8]) -> Option<String> {
    argon2.hash_password_with_salt(password, salt).ok().map(|hash: PasswordHash| hash.to_string())
}

fn verify_with(argon2: &Argon2<'static>, password: &Secret, stored: &str) -> Verdict {
    let Ok(hash) = PasswordHash::new(stored) else { return Verdict::Wrong };
    if argon2.verify_password(password.reveal().as_bytes(), &hash).is_err() {
        return Verdict::Wrong;
    }
    let is_present = Params::try_from(&hash)
        .is_ok_and(|params| params.m_cost() == argon2.params().m_cost() && params.t_cost() == argon2.params().t_cost());
    if is_present { Verdict::Right } else { Verdict::RightButStale }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap(passes: u32) -> Passwords {
        Passwords::new(PasswordCost { memory_kib: 8, passes }, false).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_checked_against_its_hash() {
        let passwords = cheap(1);
        let stored = passwords.hash(&Secret::new("correct horse"), [1; 16]).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{stored}");
        assert_eq!(passwords.verify(&Secret::new("correct horse"), Some(stored.clone())).await, Verdict::Right);
        assert_eq!(passwords.verify(&Secret::new("wrong horse"), Some(stored.clone())).await, Verdict::Wrong);
        assert_eq!(cheap(2).verify(&Secret::new("correct horse"), Some(stored)).await, Verdict::RightButStale);
    }

    #[tokio::test]
    async fn what_is_no_hash_and_nobody_are_wrong() {
        let passwords = cheap(1);
        assert_eq!(passwords.verify(&Secret::new("anything"), None).await, Verdict::Wrong);
        assert_eq!(passwords.verify(&Secret::new("anything"), Some("rubbish".to_owned())).await, Verdict::Wrong);
        // Nor does the password of nobody let anybody in.
        let nobody = Secret::new(String::from_utf8(vec![0; 32]).unwrap());
        assert_eq!(passwords.verify(&nobody, None).await, Verdict::Wrong);
    }

    #[tokio::test]
    async fn lengths_are_bounded() {
        for bad in ["short", &"x".repeat(PASSWORD_BYTES_MAX + 1)] {
            assert!(cheap(1).hash(&Secret::new(bad), [1; 16]).await.is_err());
        }
    }
}
