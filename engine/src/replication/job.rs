//! Work on a document's content that a driver may run on another core.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::records::DocKey;
use crate::documents::{Document, DocumentId, Quarantine, Trial};
use crate::identity::ChangeHash;

/// Brings one document's content up to date: applies what passed before, then tries what has not.
/// A pure function of what is in it; the engine waits for its [`Verdict`] without blocking.
#[derive(Debug)]
pub struct Job<D> {
    pub(super) number: u64,
    pub(super) key: DocKey,
    /// What the genesis is derived from.
    pub(super) genesis: DocumentId,
    /// None to begin at the genesis.
    pub(super) base: Option<D>,
    pub(super) trusted: Vec<Bytes>,
    pub(super) candidates: Vec<Bytes>,
    /// How many changes of the log the document has seen when all is done, those in quarantine included.
    pub(super) reaches: usize,
}

/// What a [`Job`] found.
#[derive(Debug)]
pub struct Verdict<D> {
    pub(super) number: u64,
    pub(super) key: DocKey,
    pub(super) reaches: usize,
    /// Whether the document was made from its log, so that trying again would change nothing.
    pub(super) from_log: bool,
    pub(super) outcome: Result<Trial<D>, Quarantine>,
    /// The candidates that did not pass.
    pub(super) refused: Vec<(Bytes, ChangeHash, Quarantine)>,
}

impl<D: Document> Job<D> {
    /// Does the work: microseconds for a small document, milliseconds for a long history. Never panics, whatever the
    /// changes do.
    #[must_use]
    pub fn run(self) -> Verdict<D> {
        let Self { number, key, genesis, base, trusted, candidates, reaches } = self;
        let from_log = base.is_none();
        let work = || {
            let mut document = base.unwrap_or_else(|| D::new(&genesis));
            document.apply(&trusted)?;
            if candidates.is_empty() {
                return Ok(Trial { document, refused: Vec::new() });
            }
            document.trial(&candidates)
        };
        let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Quarantine::Panic));
        let refused = outcome.as_ref().map_or_else(|_| Vec::new(), |trial| chunks_of::<D>(&candidates, &trial.refused));
        Verdict { number, key, reaches, from_log, outcome, refused }
    }

    pub(super) fn is_small(&self) -> bool {
        self.candidates.is_empty() && self.trusted.iter().map(Bytes::len).sum::<usize>() <= INLINE_BYTES_MAX
    }
}

/// Trusted changes up to this many bytes are applied at once; moving them to another core would take longer.
const INLINE_BYTES_MAX: usize = 32 << 10;

fn chunks_of<D: Document>(
    candidates: &[Bytes],
    refused: &[(ChangeHash, Quarantine)],
) -> Vec<(Bytes, ChangeHash, Quarantine)> {
    if refused.is_empty() {
        return Vec::new();
    }
    let why = |hash: &ChangeHash| refused.iter().find(|(known, _)| known == hash).map(|(_, why)| *why);
    candidates
        .iter()
        .filter_map(|chunk| {
            let hash = D::header(chunk).ok()?.hash;
            Some((chunk.clone(), hash, why(&hash)?))
        })
        .collect()
}
