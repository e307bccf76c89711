//! The genesis is a protocol constant: these bytes may never change.

use automerge::transaction::CommitOptions;
use automerge::{ActorId, Automerge};
use knot_engine::documents::{AutomergeDocument, Document, DocumentId, ModelDocument, Scope};

use crate::replica::id;

#[test]
fn the_genesis_of_a_document_never_changes() {
    assert_eq!(
        AutomergeDocument::genesis_hash(&id()).to_string(),
        "6743c35af9e7719a625dee4899d63315dec41930b5213c221f12d309497fd85c"
    );
    assert_eq!(
        ModelDocument::genesis_hash(&id()).to_string(),
        "1c32655f8b08fa78ed1315049c1879d888068e67a89e37dbe3419c0ee2ab70ca"
    );
}

#[test]
fn the_genesis_is_the_empty_change_that_automerge_makes() {
    let actor = blake3::derive_key("knot 2026 automerge genesis, layout 1", id().to_string().as_bytes());
    let mut doc = Automerge::new();
    doc.set_actor(ActorId::from(&actor[..16]));
    let hash = doc.empty_commit(CommitOptions::default().with_time(0));
    assert_eq!(hash.0, AutomergeDocument::genesis_hash(&id()).0);
}

#[test]
fn every_document_has_its_own_genesis() {
    let other = DocumentId::new(Scope::Zone("au".into()), "users", "ada").unwrap();
    assert_ne!(AutomergeDocument::genesis_hash(&id()), AutomergeDocument::genesis_hash(&other));
}
