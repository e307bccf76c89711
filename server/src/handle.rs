//! How the rest of the server speaks to the driver, the one task that owns the engine.

use std::fmt;

use knot_engine::documents::{AutomergeDocument, DocumentId};
use knot_engine::seal::KeyRing;
use knot_engine::{
    ChangeHash, DocumentView, EditError, EditRequest, Edited, Engine, HistoryEntry, ReadError, Review, ReviewError,
    Reviewed, Summary, VersionView,
};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::links::Links;
use crate::transitions::Transitions;

/// The engine as the server runs it.
pub type ServerEngine = Engine<AutomergeDocument>;

/// Most commands that wait for the driver; a sender beyond it waits.
pub const COMMANDS_MAX: usize = 4_096;
/// Document updates a slow feed reader may be behind before it is told to start over.
pub const FEED_EVENTS_MAX: usize = 8_192;

/// A closure that looks at the engine, or asks it something, on the driver's task.
pub type Look = Box<dyn FnOnce(&mut ServerEngine, knot_engine::Instant) + Send>;

/// What the driver is asked for.
pub(crate) enum Command {
    /// Make an edit.
    Edit(EditRequest, oneshot::Sender<Result<Edited, EditError>>),
    /// Read a document, with its conflicts or without.
    Read(DocumentId, bool, oneshot::Sender<Result<DocumentView, ReadError>>),
    /// Read a document's history.
    History(DocumentId, oneshot::Sender<Result<Vec<HistoryEntry>, ReadError>>),
    /// Read what a document was when these changes were its heads.
    Version(DocumentId, Vec<ChangeHash>, oneshot::Sender<Result<VersionView, ReadError>>),
    /// Look again at changes in quarantine.
    Review(DocumentId, Review, oneshot::Sender<Result<Vec<Reviewed>, ReviewError>>),
    /// Look at the engine.
    Look(Look),
    /// Hold these cluster keys, and no others.
    SetKeys(KeyRing),
    /// Leave the cluster and stop; true retires the server from the durable set.
    Leave(bool),
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Edit(..) => "Edit",
            Self::Read(..) => "Read",
            Self::History(..) => "History",
            Self::Version(..) => "Version",
            Self::Review(..) => "Review",
            Self::Look(_) => "Look",
            Self::SetKeys(_) => "SetKeys",
            Self::Leave(_) => "Leave",
        })
    }
}

/// The driver has stopped: the server is shutting down.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the server is shutting down")]
pub struct Stopped;

/// A way to the driver. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    feed: broadcast::Sender<Summary>,
    links: Links,
    transitions: Transitions,
}

impl Handle {
    /// A handle and the driver's ends of it.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Command>, broadcast::Sender<Summary>) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (feed, _) = broadcast::channel(FEED_EVENTS_MAX);
        (
            Self { commands, feed: feed.clone(), links: Links::default(), transitions: Transitions::default() },
            receiver,
            feed,
        )
    }

    /// Makes an edit; returns when it is durable, and held by as many peers as were asked for or their time is up.
    ///
    /// # Errors
    /// The outer one when the driver has stopped.
    pub async fn edit(&self, request: EditRequest) -> Result<Result<Edited, EditError>, Stopped> {
        self.ask(|answer| Command::Edit(request, answer)).await
    }

    /// Reads a document.
    ///
    /// # Errors
    /// The outer one when the driver has stopped.
    pub async fn read(&self, id: DocumentId, conflicts: bool) -> Result<Result<DocumentView, ReadError>, Stopped> {
        self.ask(|answer| Command::Read(id, conflicts, answer)).await
    }

    /// Reads a document's history, oldest first.
    ///
    /// # Errors
    /// The outer one when the driver has stopped.
    pub async fn history(&self, id: DocumentId) -> Result<Result<Vec<HistoryEntry>, ReadError>, Stopped> {
        self.ask(|answer| Command::History(id, answer)).await
    }

    /// Reads what a document was when these changes were its heads.
    ///
    /// # Errors
    /// The outer one when the driver has stopped.
    pub async fn version(
        &self,
        id: DocumentId,
        heads: Vec<ChangeHash>,
    ) -> Result<Result<VersionView, ReadError>, Stopped> {
        self.ask(|answer| Command::Version(id, heads, answer)).await
    }

    /// Looks again at changes of a document that are in quarantine; returns when what came of it is durable.
    ///
    /// # Errors
    /// The outer one when the driver has stopped.
    pub async fn review(&self, id: DocumentId, review: Review) -> Result<Result<Vec<Reviewed>, ReviewError>, Stopped> {
        self.ask(|answer| Command::Review(id, review, answer)).await
    }

    /// Runs `look` on the driver's task. Keep it short: nothing else runs meanwhile.
    ///
    /// # Errors
    /// When the driver has stopped.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut ServerEngine, knot_engine::Instant) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        self.ask(|answer| {
            Command::Look(Box::new(move |engine, now| {
                // The asker may be gone; then nobody wants to know.
                let _ = answer.send(look(engine, now));
            }))
        })
        .await
    }

    /// Holds these cluster keys from now on. Streams that were opened under one that is not among them are closed.
    ///
    /// # Errors
    /// When the driver has stopped.
    pub async fn set_keys(&self, keys: KeyRing) -> Result<(), Stopped> {
        self.commands.send(Command::SetKeys(keys)).await.map_err(|_| Stopped)
    }

    /// Leaves the cluster and stops the server; `retire` also takes it out of the durable set.
    ///
    /// # Errors
    /// When the driver has stopped already.
    pub async fn leave(&self, retire: bool) -> Result<(), Stopped> {
        self.commands.send(Command::Leave(retire)).await.map_err(|_| Stopped)
    }

    /// Document updates from now on, in sequence order. A reader more than [`FEED_EVENTS_MAX`] behind is told so.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Summary> {
        self.feed.subscribe()
    }

    /// What there is to know of streams to other servers.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// What there is to know of servers that came and went.
    #[must_use]
    pub fn transitions(&self) -> &Transitions {
        &self.transitions
    }

    /// Whether the driver still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}
