//! Changes that a peer forges: the inline checks, the trial, and what a document is worth afterwards.
//!
//! An input describes up to four changes, each a real one with fields altered by a [`forger`]; length, checksum and hash are
//! repaired, so that what is tried is the gate and not SHA-256. Whatever they are, the document must read, take an edit,
//! reopen, and come out the same on a replica that met the changes in another order.

pub mod forger;
pub mod parts;

use std::cell::OnceCell;

use bytes::Bytes;
use knot_engine::documents::{AutomergeDocument, Document, Edit, EditRefused, Judgement};
use serde_json::json;

use self::forger::Pool;
use crate::replica::{Replica, exchange, id};
use crate::{Script, Target};

/// A hundred bytes may rightly claim 100,000 operations, which Automerge expands; four such changes, on as many copies as
/// a trial takes.
pub const TARGET: Target = Target { name: "gate", run, memory_bytes_max: 512 << 20, memory_bytes_per_byte: 0 };

/// Most forged changes in an input.
const FORGED_MAX: usize = 4;

thread_local! {
    static HISTORY: OnceCell<Vec<Bytes>> = const { OnceCell::new() };
    static BEFORE: OnceCell<Vec<Replica<AutomergeDocument>>> = const { OnceCell::new() };
}

/// What two honest replicas wrote, each change after its dependencies.
pub fn history() -> Vec<Bytes> {
    HISTORY.with(|history| history.get_or_init(write).clone())
}

fn write() -> Vec<Bytes> {
    let (mut a, mut b) = (Replica::new(1), Replica::new(2));
    a.put(json!({"name": "Ada", "tags": [1, 2, {"x": [3]}], "m": {"k": 1}, "f": 1.5}));
    b.put(json!({"m": {"l": 2}, "tags": ["y"]}));
    exchange::<AutomergeDocument>(&mut a, &mut b);
    a.increment("/n", 3);
    b.put(json!({"name": "Eve", "tags": [], "m": {"k": 5, "l": null}}));
    exchange(&mut a, &mut b);
    a.increment("/n", 4);
    a.edit(&Edit::JsonPatch(json!([{"op": "add", "path": "/list", "value": [1, 2, 3, 4]}])));
    a.edit(&Edit::JsonPatch(json!([{"op": "remove", "path": "/list/1"}])));
    a.edit(&Edit::Delete);
    a.changes
}

/// A replica that holds the first `count` changes of the history.
fn before(count: usize) -> Replica<AutomergeDocument> {
    let make = || {
        let changes = history();
        let of = |count: usize| {
            let mut replica = Replica::new(7);
            for change in &changes[..count] {
                assert_eq!(replica.receive(change), Judgement::Admit);
            }
            replica
        };
        (0..=changes.len()).map(of).collect()
    };
    BEFORE.with(|before| before.get_or_init(make)[count].clone())
}

/// How many forged changes were admitted.
fn run(input: &[u8]) -> usize {
    let mut script = Script::new(input);
    let honest = history();
    let shared = script.index(honest.len() + 1);
    let mut pool = Pool::of(&honest);
    let mut forged = Vec::new();
    for _ in 0..FORGED_MAX {
        if script.is_over() {
            break;
        }
        let change = forge(&mut script, &pool);
        if let Ok(header) = AutomergeDocument::header(&change) {
            assert!(!header.deps.is_empty());
            pool.add(&change);
            forged.push(change);
        }
    }
    // What is no change is let go before anything is done with it.
    if forged.is_empty() {
        return 0;
    }
    let mut replica = before(shared);
    let admitted = forged.iter().filter(|change| replica.receive(change) == Judgement::Admit).count();
    let met = replica.changes.len();
    works(&mut replica);
    agrees(&replica, before(shared), met, usize::from(script.byte()));
    admitted
}

fn forge(script: &mut Script<'_>, pool: &Pool) -> Bytes {
    let mut parts = pool.parts(script.index(pool.len()));
    let alterations = script.byte() % 8;
    for _ in 0..alterations {
        parts.alter(script, pool);
    }
    parts.chunk()
}

/// Takes an edit and shows it.
fn works(replica: &mut Replica<AutomergeDocument>) {
    replica.doc.value();
    replica.doc.conflicts();
    let after = json!({"after": [1, {"x": 2}]});
    match replica.try_edit(&Edit::Put(after.clone())) {
        Ok(Some(_)) => assert_eq!(replica.doc.value(), after),
        // It holds more than one change may remove, or it was the forger who wrote just that.
        Err(EditRefused::TooLarge) | Ok(None) => {}
        Err(refused) => panic!("an honest edit is refused: {refused}"),
    }
    // A delete has no operations, so there is always room for it.
    if !replica.log.is_deleted() {
        assert!(replica.edit(&Edit::Delete).is_some());
    }
    let changes = replica.changes.iter().enumerate();
    let live: Vec<_> = changes
        .filter(|(index, _)| replica.log.quarantined(*index).is_none())
        .map(|(_, change)| change.clone())
        .collect();
    let mut reopened = AutomergeDocument::new(&id()).trial(&live).expect("a new document is sound");
    assert_eq!(reopened.refused, vec![], "what was admitted one by one is admitted as a whole");
    assert_eq!(reopened.document.value(), replica.doc.value());
}

/// Another replica, which began as this one did, met the forged changes in another order, and then everything since.
fn agrees(replica: &Replica<AutomergeDocument>, mut other: Replica<AutomergeDocument>, met: usize, first: usize) {
    let (forged, since) = replica.changes[other.changes.len()..].split_at(met - other.changes.len());
    let mut waiting: Vec<&Bytes> = forged.iter().collect();
    waiting.rotate_left(first % forged.len().max(1));
    waiting.extend(since);
    // Each round takes what the rounds before brought the dependencies of.
    while !waiting.is_empty() {
        let before = waiting.len();
        waiting.retain(|change| matches!(other.receive(change), Judgement::Orphan { .. }));
        assert!(waiting.len() < before, "a change that was taken there is an orphan here");
    }
    assert_eq!(other.log.heads(), replica.log.heads());
    assert_eq!(other.log.live_heads(), replica.log.live_heads(), "they hold the same and disagree on what counts");
    let mut shown = replica.doc.clone();
    assert_eq!(other.doc.value(), shown.value());
}
