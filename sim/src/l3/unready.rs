//! Why a machine cannot play, or could not play to the end.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why this machine cannot run servers in namespaces, or could not go on. Nothing is known of the servers then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unready {
    /// There is no binary.
    #[error("there is no knot at {}", .0.display())]
    NoBinary(PathBuf),
    /// The system does not let us.
    #[error("no network namespaces here: {0}")]
    NoNamespaces(String),
    /// Servers cannot be made to die with their simulator.
    #[error("no setpriv here that knows --pdeathsig: {0}")]
    NoSetpriv(String),
    /// A file, a device or a process.
    #[error("{place}: {source}")]
    Io {
        /// Which.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// It began, and broke off.
    #[error("{why}; what the servers left behind is in {}", folder.display())]
    BrokeOff {
        /// Why.
        why: Box<Self>,
        /// Where their folders and logs are.
        folder: PathBuf,
    },
}

impl Unready {
    /// What may help.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoBinary(_) => {
                "`cargo build --release -p knot-server` makes it; KNOT_BINARY says where it is otherwise"
            }
            Self::NoNamespaces(_) => "they need root, and ip of iproute2; levels 1 and 2 need neither",
            Self::NoSetpriv(_) => "it is part of util-linux; levels 1 and 2 do without",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "nothing is there: TMPDIR says where servers have their folders, `modprobe tun` makes /dev/net/tun"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room there, or let TMPDIR name a folder that has some"
            }
            Self::Io { .. } => "level 3 needs root, and a folder for temporary files; levels 1 and 2 need neither",
            Self::BrokeOff { why, .. } => why.hint(),
        }
    }
}

/// Says where it was that something failed.
pub(super) trait At<T> {
    fn at(self, place: impl fmt::Display) -> Result<T, Unready>;

    fn at_path(self, path: &Path) -> Result<T, Unready>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, place: impl fmt::Display) -> Result<T, Unready> {
        self.map_err(|source| Unready::Io { place: place.to_string(), source })
    }

    fn at_path(self, path: &Path) -> Result<T, Unready> {
        self.at(path.display())
    }
}
