//! Tries changes on copies: apply, read, save, load, compare, and begin a write.
//!
//! A change is judged on its ancestors alone: on the document itself where the change depends on all its heads, else on
//! a fork at its dependencies. A chain of changes is tried as one and taken apart only when it fails. A change that
//! passes on its ancestors is then merged into the document by the same trial; should that fail, which no change is known to
//! do, it is refused as well, since a document that cannot be opened would lose everything else in it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, Change, ChangeHash as AutomergeHash, ROOT, ReadDoc};
use bytes::Bytes;

use super::{AutomergeDocument, chunk, first, read};
use crate::documents::{Quarantine, Trial};
use crate::identity::ChangeHash;

/// Tries `candidates` in order. One that is not a well-formed change is refused under an all-zero hash.
pub(super) fn run(document: AutomergeDocument, candidates: &[Bytes]) -> Result<Trial<AutomergeDocument>, Quarantine> {
    let AutomergeDocument { id, doc, creation, applied_bytes } = document;
    let doc = match doc {
        Some(doc) => doc,
        None => catch_unwind(|| first(&id, creation.as_ref())).map_err(|_panic| Quarantine::Panic)?,
    };
    let mut court = Court { applied_bytes, doc: *doc, refused: BTreeMap::new() };
    let mut order = Vec::with_capacity(candidates.len());
    let mut waiting = Vec::with_capacity(candidates.len());
    for bytes in candidates {
        match chunk::parse(bytes) {
            Ok((change, header)) => {
                order.push(header.hash);
                waiting.push(change);
            }
            Err(_) => {
                order.push(ChangeHash([0; 32]));
                court.refused.insert(ChangeHash([0; 32]), Quarantine::Apply);
            }
        }
    }
    while let Some(chain) = court.next_chain(&mut waiting) {
        court.try_chain(&chain)?;
    }
    let Court { doc, applied_bytes, mut refused } = court;
    let refused = order.into_iter().filter_map(|hash| refused.remove(&hash).map(|reason| (hash, reason))).collect();
    let document = AutomergeDocument { id, doc: Some(Box::new(doc)), creation: None, applied_bytes };
    Ok(Trial { document, refused })
}

/// Applies changes whose dependencies are here or among them.
pub(super) fn apply(doc: &mut Automerge, changes: Vec<Change>) -> Result<(), Quarantine> {
    doc.apply_changes(changes).map_err(|_| Quarantine::Apply)?;
    if doc.get_missing_deps(&[]).is_empty() { Ok(()) } else { Err(Quarantine::Apply) }
}

struct Court {
    doc: Automerge,
    applied_bytes: usize,
    refused: BTreeMap<ChangeHash, Quarantine>,
}

impl Court {
    /// Takes the first change that waits, and those after it that continue it in a line.
    /// Changes that are here already are dropped, and those that descend from a refused one refused.
    fn next_chain(&mut self, waiting: &mut Vec<Change>) -> Option<Vec<Change>> {
        let mut chain: Vec<Change> = Vec::new();
        let mut left = Vec::new();
        for change in waiting.drain(..) {
            if self.holds(&change.hash()) {
                continue;
            }
            if change.deps().iter().any(|dep| self.refused.contains_key(&ChangeHash(dep.0))) {
                self.refuse(&change, Quarantine::Ancestor);
                continue;
            }
            let in_chain = |dep: &AutomergeHash| chain.iter().rev().any(|link| link.hash() == *dep);
            let continues = match chain.last() {
                None => true,
                Some(last) => change.deps().contains(&last.hash()),
            };
            if continues && change.deps().iter().all(|dep| in_chain(dep) || self.holds(dep)) {
                chain.push(change);
            } else if chain.is_empty() {
                self.refuse(&change, Quarantine::Apply);
            } else {
                left.push(change);
            }
        }
        *waiting = left;
        (!chain.is_empty()).then_some(chain)
    }

    fn try_chain(&mut self, chain: &[Change]) -> Result<(), Quarantine> {
        match self.admit(chain) {
            Ok(()) => return Ok(()),
            Err(reason) => {
                // The document itself may be what fails.
                tried(self.doc.clone(), &[])?;
                if let [only] = chain {
                    self.refuse(only, reason);
                    return Ok(());
                }
            }
        }
        let mut links = chain.iter();
        for change in links.by_ref() {
            if let Err(reason) = self.admit(std::slice::from_ref(change)) {
                self.refuse(change, reason);
                break;
            }
        }
        for descendant in links {
            self.refuse(descendant, Quarantine::Ancestor);
        }
        Ok(())
    }

    /// Adds a chain to the document if it passes.
    fn admit(&mut self, chain: &[Change]) -> Result<(), Quarantine> {
        let deps = chain.first().map(Change::deps).unwrap_or_default();
        let on_top = self.doc.get_heads().iter().all(|head| deps.contains(head));
        if !on_top {
            let doc = &self.doc;
            let fork = catch_unwind(AssertUnwindSafe(|| doc.fork_at(deps)))
                .map_err(|_panic| Quarantine::Panic)?
                .map_err(|_error| Quarantine::Apply)?;
            tried(fork, chain)?;
        }
        self.doc = tried(self.doc.clone(), chain)?;
        self.applied_bytes += chain.iter().map(|change| change.raw_bytes().len()).sum::<usize>();
        Ok(())
    }

    fn holds(&self, hash: &AutomergeHash) -> bool {
        self.doc.get_missing_deps(std::slice::from_ref(hash)).is_empty()
    }

    fn refuse(&mut self, change: &Change, reason: Quarantine) {
        self.refused.insert(ChangeHash(change.hash().0), reason);
    }
}

/// The copy with `changes` applied, if it survives all that will be done to it.
fn tried(copy: Automerge, changes: &[Change]) -> Result<Automerge, Quarantine> {
    catch_unwind(AssertUnwindSafe(move || survives(copy, changes))).map_err(|_panic| Quarantine::Panic)?
}

fn survives(mut doc: Automerge, changes: &[Change]) -> Result<Automerge, Quarantine> {
    apply(&mut doc, changes.to_vec())?;
    let value = read::document(&doc).map_err(|_| Quarantine::Apply)?;
    let saved = doc.save_nocompress();
    let mut loaded = Automerge::load(&saved).map_err(|_| Quarantine::Reload)?;
    let reloaded = read::document(&loaded).map_err(|_| Quarantine::Reload)?;
    if loaded.get_heads() != doc.get_heads() || reloaded != value {
        return Err(Quarantine::Reload);
    }
    loaded.set_actor(ActorId::from(&[0; 16][..]));
    let mut write = loaded.transaction();
    write.put(ROOT, "", 0).map_err(|_| Quarantine::Apply)?;
    write.rollback();
    Ok(doc)
}
