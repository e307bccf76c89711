//! The first administrator: made by who has the setup link that a server without users prints at its start, or by who
//! can read its admin token. There is no default password.

use std::sync::PoisonError;

use super::operations::NewUser;
use super::{ADMINISTRATOR, AccountError, Accounts, Caller, LoginFrom, Refusal, Secret, SessionKey};
use crate::hosts;

/// How long a setup link is good, in milliseconds: one hour.
pub const SETUP_MS: i64 = 3_600_000;

/// A link that was given out.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    digest: String,
    until: i64,
}

impl Accounts {
    /// A code that makes the first administrator, once, within [`SETUP_MS`]; none where there are users. An earlier one
    /// ceases to be good.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn open_setup(&self) -> Result<Option<Secret>, AccountError> {
        self.ready().await?;
        if self.directory().users().len() > 0 {
            return Ok(None);
        }
        let code = self.fresh_secret();
        let setup = Setup { digest: code.digest(), until: self.now().saturating_add(SETUP_MS) };
        *self.setup.lock().unwrap_or_else(PoisonError::into_inner) = Some(setup);
        Ok(Some(code))
    }

    /// Whether a code could be used now.
    pub fn is_setup_open(&self, code: &Secret) -> bool {
        let setup = self.setup.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_given = setup.is_some_and(|setup| setup.digest == code.digest() && self.now() < setup.until);
        is_given && self.directory().users().len() == 0
    }

    /// Makes the first administrator, and logs it in. The code is used up when that has happened.
    ///
    /// # Errors
    /// When the code is not good, there are users, or the user cannot be made.
    pub async fn set_up(&self, code: &Secret, new: NewUser, from: LoginFrom) -> Result<SessionKey, AccountError> {
        self.tries.count_host(hosts::host(from.address), self.now())?;
        let _turn = self.turn.lock().await;
        self.caught_up().await?;
        if !self.is_setup_open(code) {
            return Err(Refusal::SetupOver.into());
        }
        let new = NewUser { roles: [ADMINISTRATOR.to_owned()].into(), active: true, ..new };
        let id = self.create_user_in_turn(&Caller::machine(), new).await?;
        *self.setup.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let user = self.directory().user(&id).cloned().ok_or(Refusal::Unknown("user"))?;
        self.begin_session(&user, self.password_mark(&id).await?, &from).await
    }
}
