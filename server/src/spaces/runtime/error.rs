//! What goes wrong between knot and a container runtime, in words for whoever started the space.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error;

use super::CONTAINERS_MAX;

/// Longest text of a runtime that is handed on, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Why there is no runtime.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Missing {
    /// None is installed, or none listens.
    #[error(
        "no container runtime was found at {places}: install Podman and run `systemctl enable --now podman.socket`, or install Docker, or say in DOCKER_HOST where its socket is"
    )]
    Nowhere {
        /// Where was looked.
        places: String,
    },
    /// Something is there, and is no runtime.
    #[error("{} is no container runtime: {message}", socket.display())]
    NotOne {
        /// Where.
        socket: PathBuf,
        /// What it did instead, and what to do.
        message: String,
    },
    /// The variable names what cannot be used.
    #[error(
        "DOCKER_HOST is {0}, and knot speaks to a runtime on its own machine alone: write unix:///path/of/its.sock"
    )]
    NotLocal(String),
}

/// Why a runtime did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// It says nothing.
    #[error("{runtime} did not {what} within {limit:?}: see whether it still works, with `podman ps` or `docker ps`")]
    Timeout {
        /// Which.
        runtime: String,
        /// What it was asked for.
        what: String,
        /// How long it had.
        limit: Duration,
    },
    /// It cannot be reached any more.
    #[error("{runtime} does not answer at {}: {message}; see whether it still runs", socket.display())]
    Unreachable {
        /// Which.
        runtime: String,
        /// Where.
        socket: PathBuf,
        /// Why.
        message: String,
    },
    /// It said no.
    #[error("{runtime} did not {what}: {message}")]
    Refused {
        /// Which.
        runtime: String,
        /// What it was asked for.
        what: String,
        /// As HTTP has it.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// The image is not here.
    #[error(
        "image {image} is not on this server and could not be fetched: {message}; see whether its name is right, and whether this server reaches the registry"
    )]
    NoImage {
        /// Which.
        image: String,
        /// The runtime's words.
        message: String,
    },
    /// The space was started again meanwhile.
    #[error("start {here} of space {space} is here already, so start {asked} is over: start the space again")]
    Newer {
        /// Which.
        space: String,
        /// What was asked for.
        asked: u64,
        /// What is here.
        here: u64,
    },
    /// Another container has the name.
    #[error(
        "another container is called {name}: let the template's container_name hold ${{{{ .space.id }}}}, or leave it out"
    )]
    NameTaken {
        /// Which.
        name: String,
    },
    /// The volume is not this space's.
    #[error("volume {name} belongs to {}: let its name hold ${{{{ .space.id }}}}", if owner.is_empty() { "something else".to_owned() } else { format!("space {owner}") })]
    ForeignVolume {
        /// Which.
        name: String,
        /// The space that it is of; empty if of none.
        owner: String,
    },
    /// More than knot looks at.
    #[error(
        "{found} containers of this server are here, and {CONTAINERS_MAX} are the most: remove spaces, or add servers"
    )]
    TooMany {
        /// How many.
        found: usize,
    },
}

impl RuntimeError {
    pub(super) fn of(error: Error, what: &str, runtime: &str, socket: &Path) -> Self {
        let (runtime, what) = (runtime.to_owned(), what.to_owned());
        if let Error::DockerResponseServerError { status_code: status, message } = error {
            return Self::Refused { runtime, what, status, message: shortened(&message) };
        }
        if is_of_the_socket(&error) {
            return Self::Unreachable { runtime, socket: socket.to_owned(), message: message(error) };
        }
        Self::Refused { runtime, what, status: 0, message: message(error) }
    }
}

fn is_of_the_socket(error: &Error) -> bool {
    matches!(
        error,
        Error::SocketNotFoundError(_)
            | Error::HyperLegacyError { .. }
            | Error::HyperResponseError { .. }
            | Error::IOError { .. }
            | Error::RequestTimeoutError
    )
}

/// What an error says, with what is behind it.
pub(super) fn message(error: Error) -> String {
    if let Error::DockerResponseServerError { message, .. } | Error::DockerStreamError { error: message } = error {
        return shortened(&message);
    }
    let mut text = error.to_string();
    let mut behind = std::error::Error::source(&error);
    while let Some(cause) = behind {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        behind = cause.source();
    }
    shortened(&text)
}

/// On one line, and not without end.
pub(super) fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line[..line.floor_char_boundary(MESSAGE_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_runtime_says_is_handed_on_in_one_short_line() {
        let server = |message: &str| Error::DockerResponseServerError { status_code: 500, message: message.to_owned() };
        let error = RuntimeError::of(server("no\n such  port"), "start it", "Podman 4", Path::new("/p.sock"));
        assert_eq!(error.to_string(), "Podman 4 did not start it: no such port");
        assert_eq!(message(server(&"é".repeat(2000))).len(), MESSAGE_BYTES_MAX);
        let gone = RuntimeError::of(Error::RequestTimeoutError, "start it", "Podman 4", Path::new("/p.sock"));
        assert!(gone.to_string().starts_with("Podman 4 does not answer at /p.sock: "), "{gone}");
    }

    #[test]
    fn what_to_write_into_a_template_is_said_as_it_is_written() {
        let name = RuntimeError::NameTaken { name: "web".to_owned() }.to_string();
        assert!(name.contains("hold ${{ .space.id }}, or"), "{name}");
        let owner = |owner: &str| RuntimeError::ForeignVolume { name: "home".to_owned(), owner: owner.to_owned() };
        assert!(
            owner("").to_string().starts_with("volume home belongs to something else: let its name hold ${{ .space")
        );
        assert!(owner("s1").to_string().starts_with("volume home belongs to space s1: "));
    }
}
