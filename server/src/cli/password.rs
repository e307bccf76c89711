//! Asking a person for a password, or a program for one on its standard input.

use std::io::{self, BufRead, IsTerminal};

use clap::Args;

use super::CliError;
use crate::accounts::Secret;

/// Where a password comes from. Never from the command line, which others on the machine can read.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct PasswordArgs {
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
}

impl PasswordArgs {
    /// A password that is to be checked.
    pub(super) fn ask(self, prompt: &str) -> Result<Secret, CliError> {
        if self.password_stdin || !io::stdin().is_terminal() { from_stdin() } else { from_terminal(prompt) }
    }

    /// A password that is to be set, asked for twice.
    pub(super) fn ask_new(self, prompt: &str) -> Result<Secret, CliError> {
        let password = self.ask(prompt)?;
        if !self.password_stdin && io::stdin().is_terminal() && from_terminal("Again: ")? != password {
            return Err(CliError::Usage("the two are not the same; nothing was changed".to_owned()));
        }
        Ok(password)
    }
}

fn from_terminal(prompt: &str) -> Result<Secret, CliError> {
    let password = rpassword::prompt_password(prompt)
        .map_err(|source| CliError::Io { what: "cannot read the password".to_owned(), source })?;
    if password.is_empty() {
        Err(CliError::Usage("no password was given; nothing was changed".to_owned()))
    } else {
        Ok(Secret::new(password))
    }
}

fn from_stdin() -> Result<Secret, CliError> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|source| CliError::Io { what: "cannot read the password".to_owned(), source })?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(CliError::Usage("no password on standard input".to_owned()));
    }
    Ok(Secret::new(password))
}
