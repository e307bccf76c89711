//! Spaces: containers that people work in, made from templates.
//!
//! What is wanted of a space is a document that any server may write ([`record`]); where it runs is a choice made once,
//! by whoever starts it ([`placement`]). The server that was chosen compares documents with what its container runtime
//! runs ([`agent`]), acts ([`runtime`]) and reports in a document that it alone writes. A space runs where its record
//! says and nowhere else: no server takes over from another that is silent, so none ever runs twice because a link is
//! down.

pub mod agent;
mod containers;
mod host;
mod known;
mod limits;
mod operations;
pub mod placement;
pub mod record;
pub mod runtime;
mod servers;
pub mod spec;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

pub use self::containers::{Containers, Doing};
pub use self::host::{Hosting, Sockets, Source};
pub use self::known::{Facts, Known, SERVERS, SPACE_STUBS, Stub};
pub use self::operations::{NewSpace, SpaceChange, Start};
pub use self::placement::Unplaceable;
pub use self::record::{NAME_BYTES_MAX, SPACE_STATES, SPACES, Shown};
pub use self::servers::{Place, Servers};
pub use self::view::{Away, View, Views};
use crate::accounts::Accounts;
use crate::run::WallClock;

/// Most spaces; beyond it none is made here. Those of other servers are taken all the same.
pub const SPACES_MAX: usize = 100_000;

/// The spaces that this server's documents make up, and what it has to run them on.
pub struct Spaces {
    accounts: Arc<Accounts>,
    node_id: String,
    zone: Arc<str>,
    url: String,
    wall: WallClock,
    hosting: watch::Sender<Hosting>,
    /// What this server says of itself.
    own_facts: Mutex<Option<Facts>>,
    /// By space that is being started here: how far that is.
    progress: Mutex<BTreeMap<String, String>>,
}

impl std::fmt::Debug for Spaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spaces").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl Spaces {
    /// The spaces of the server `node_id` in this zone, whose API is at `url`. None is run here until
    /// [`Spaces::host`] does.
    #[must_use]
    pub fn new(accounts: Arc<Accounts>, node_id: String, zone: &str, url: &str, wall: WallClock) -> Self {
        Self {
            accounts,
            node_id,
            zone: zone.into(),
            url: url.to_owned(),
            wall,
            hosting: watch::Sender::new(Hosting::Not),
            own_facts: Mutex::default(),
            progress: Mutex::default(),
        }
    }

    /// What this server has to run spaces on.
    #[must_use]
    pub fn hosting(&self) -> Hosting {
        self.hosting.borrow().clone()
    }

    fn own_facts(&self) -> Option<Facts> {
        self.own_facts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_own_facts(&self, facts: &Facts) {
        *self.own_facts.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts.clone());
    }

    /// How far the start of a space is that this server makes.
    fn progress_of(&self, space_id: &str) -> Option<String> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).get(space_id).cloned()
    }

    fn set_progress(&self, space_id: &str, said: Option<String>) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match said {
            Some(said) => progress.insert(space_id.to_owned(), said),
            None => progress.remove(space_id),
        };
    }
}
