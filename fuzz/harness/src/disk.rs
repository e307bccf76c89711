//! What a start finds on a disk whose bytes are not what was written: the node's own records, one a document, and changes.
//!
//! An input alters entries of a disk that a node has written, and adds some. A record that does not decode stops a start;
//! whatever else is there, the node starts, answers every read, write and history, and says what it cannot read.

use std::cell::OnceCell;
use std::time::Duration;

use bytes::Bytes;
use knot_engine::documents::{AutomergeDocument, Document, DocumentId, Edit, ModelDocument, Scope};
use knot_engine::wire::{Frame, Wanted};
use knot_engine::{EditRequest, Event, Limits, Recovered, Table};
use serde_json::json;

use crate::hand::{Disk, Hand, id};
use crate::{Script, Target};

/// A stored change that passed its trial once is applied as it is, and may claim 100,000 operations.
pub const TARGET: Target = Target { name: "disk", run, memory_bytes_max: 192 << 20, memory_bytes_per_byte: 256 };

/// Most alterations in an input.
const ALTERED_MAX: u8 = 8;
/// Keys of documents on the disk.
const KEYS: [&str; 3] = ["ada", "bob", "eve"];

thread_local! {
    static MODEL: OnceCell<Disk> = const { OnceCell::new() };
    static AUTOMERGE: OnceCell<Disk> = const { OnceCell::new() };
}

/// How many of the documents could be read; none where the node does not start.
fn run(input: &[u8]) -> usize {
    let mut script = Script::new(input);
    if script.byte() & 1 == 0 {
        let disk = MODEL.with(|disk| disk.get_or_init(written::<ModelDocument>).clone());
        start::<ModelDocument>(alter(disk, &mut script))
    } else {
        let disk = AUTOMERGE.with(|disk| disk.get_or_init(written::<AutomergeDocument>).clone());
        start::<AutomergeDocument>(alter(disk, &mut script))
    }
}

/// A disk as a node leaves it.
fn written<D: Document>() -> Disk {
    let mut hand = Hand::<D>::recovered_as("au", Disk::new(), Limits::default());
    hand.settle();
    for key in KEYS {
        hand.write(&id(Scope::Global, key), 3);
    }
    hand.meet(2, "au");
    hand.now = hand.now + Duration::from_secs(5);
    hand.engine.handle_timeout(hand.now);
    hand.settle();
    hand.disk
}

fn alter(mut disk: Disk, script: &mut Script<'_>) -> Disk {
    for _ in 0..script.byte() % (ALTERED_MAX + 1) {
        let at = script.index(disk.len());
        let Some(((table, key), value)) = disk.iter().nth(at).map(|(place, value)| (place.clone(), value.clone()))
        else {
            break;
        };
        match script.byte() % 6 {
            0 => drop(disk.remove(&(table, key))),
            1 => drop(disk.insert((table, key), Bytes::copy_from_slice(script.bytes()))),
            2 | 3 => drop(disk.insert((table, key), spliced(&value, script))),
            4 => drop(disk.insert((table, spliced(&key, script)), value)),
            _ => {
                let table = Table::ALL[script.index(Table::ALL.len())];
                let key = Bytes::copy_from_slice(script.bytes());
                disk.insert((table, key), Bytes::copy_from_slice(script.bytes()));
            }
        }
    }
    disk
}

fn spliced(bytes: &Bytes, script: &mut Script<'_>) -> Bytes {
    let mut bytes = bytes.to_vec();
    let at = script.index(bytes.len() + 1);
    let end = bytes.len().min(at + usize::from(script.byte() & 3));
    bytes.splice(at..end, script.bytes().iter().copied());
    bytes.into()
}

fn start<D: Document>(disk: Disk) -> usize {
    let mut recovered = Recovered::new(true);
    for ((table, key), value) in &disk {
        if let Err(damage) = recovered.push(*table, key, value) {
            assert!(!damage.to_string().is_empty());
            return 0;
        }
    }
    let mut hand = Hand::<D>::recovered_as("au", disk, Limits::default());
    hand.settle();
    let session = hand.meet(2, "au");
    let documents: Vec<DocumentId> = KEYS.map(|key| id(Scope::Global, key)).into();
    for document in &documents {
        hand.engine.read(document, true, hand.now);
        hand.settle();
        hand.engine.history(document, hand.now);
        hand.edit(EditRequest::new(document.clone(), Edit::MergePatch(json!({"after": 1}))));
    }
    let wanted = documents.iter().map(|document| (document.clone(), Vec::new())).collect();
    hand.say(session, &Frame::Want { request: 1, wanted: Wanted::Documents { documents: wanted, after: None } });
    let range = Wanted::Range { scope: Scope::Global, prefix: Vec::new(), after: None };
    hand.say(session, &Frame::Want { request: 2, wanted: range });
    hand.now = hand.now + Duration::from_secs(5);
    hand.engine.handle_timeout(hand.now);
    hand.settle();
    let answered = |of: fn(&Event) -> bool| hand.events.iter().filter(|event| of(event)).count();
    assert_eq!(answered(|event| matches!(event, Event::Edited(..))), KEYS.len(), "an edit has no answer");
    assert_eq!(answered(|event| matches!(event, Event::Read(..))), KEYS.len(), "a read has no answer");
    assert_eq!(answered(|event| matches!(event, Event::History(..))), KEYS.len(), "a history has no answer");
    answered(|event| matches!(event, Event::Read(_, Ok(_))))
}
