//! What a peer that asks for documents is sent, and what that costs the one that is asked.

use bytes::Bytes;
use knot_engine::documents::{Document, DocumentId, ModelDocument, Scope};
use knot_engine::wire::{DocumentHeads, Frame, Wanted};
use knot_engine::{ChangeHash, Limits, SessionId, Table};
use serde_json::json;

use crate::hand::{Hand, id};

const WINDOW_BYTES: usize = 8 << 10;

fn hand() -> Hand {
    Hand::new(Limits { window_bytes: WINDOW_BYTES, ..Limits::default() })
}

/// One window, and where the next begins.
fn window(hand: &mut Hand, session: SessionId, wanted: Wanted) -> (Vec<(DocumentId, Bytes)>, Option<Bytes>) {
    hand.frames.clear();
    hand.say(session, &Frame::Want { request: 7, wanted });
    let windows =
        hand.take(
            |_, frame| {
                if let Frame::Window { request: 7, changes, next } = frame { Some((changes, next)) } else { None }
            },
        );
    let [(changes, next)] = &windows[..] else { panic!("one answer: {windows:?}") };
    let of_one = |document: &knot_engine::wire::DocumentChanges| {
        let id = document.document.clone();
        document.changes.iter().map(move |chunk| (id.clone(), chunk.clone())).collect::<Vec<_>>()
    };
    (changes.iter().flat_map(of_one).collect(), next.clone())
}

/// All windows of one request, asked for with the heads that it began with.
fn all(hand: &mut Hand, session: SessionId, documents: &[DocumentHeads]) -> Vec<(DocumentId, Bytes)> {
    let (mut got, mut after, mut windows) = (Vec::new(), None, 0);
    loop {
        let (changes, next) = window(hand, session, Wanted::Documents { documents: documents.to_vec(), after });
        windows += 1;
        assert!(next.is_none() || !changes.is_empty(), "a window that is not the last has something");
        assert!(windows < 10_000, "it ends");
        got.extend(changes);
        after = next;
        if after.is_none() {
            return got;
        }
    }
}

/// The log of a document on disk, in order.
fn log(hand: &Hand) -> Vec<Bytes> {
    let changes = hand.disk.iter().filter(|((table, _), _)| *table == Table::Changes);
    changes.map(|(_, value)| value.slice(2..)).collect()
}

fn hash(chunk: &Bytes) -> ChangeHash {
    ModelDocument::header(chunk).expect("a change").hash
}

#[test]
fn a_long_history_is_read_in_pieces_and_once() {
    let mut hand = hand();
    let (ada, session) = (id(Scope::Global, "ada"), hand.meet(2, "au"));
    hand.write(&ada, 3_000);
    let stored = log(&hand);
    let bytes: usize = stored.iter().map(Bytes::len).sum();
    let largest = stored.iter().map(Bytes::len).max().unwrap_or(0);
    for (has, reads_most) in [(0, 2), (2_000, 3), (2_999, 2)] {
        hand.loads.clear();
        let heads = stored[..has].last().map(hash).into_iter().collect();
        let got: Vec<Bytes> = all(&mut hand, session, &[(ada.clone(), heads)]).into_iter().map(|(_, it)| it).collect();
        assert!(got == stored[has..], "{has}: what is lacking, in order, and once");
        let most = hand.loads.iter().copied().max().unwrap_or(0);
        assert!(most < WINDOW_BYTES + 2 * largest, "{has}: {most} bytes at once");
        let read: usize = hand.loads.iter().sum();
        assert!(read < reads_most * bytes, "{has}: {read} bytes read of a log of {bytes}");
    }
    hand.loads.clear();
    let heads = stored.last().map(hash).into_iter().collect();
    assert_eq!(all(&mut hand, session, &[(ada, heads)]), []);
    assert_eq!(hand.loads, Vec::<usize>::new(), "heads say enough");
}

#[test]
fn many_documents_go_in_as_many_windows_as_it_takes() {
    let mut hand = hand();
    let session = hand.meet(2, "au");
    let names: Vec<DocumentId> = (0..60).map(|number| id(Scope::Global, &format!("user-{number}"))).collect();
    for (number, name) in names.iter().enumerate() {
        hand.write(name, 1 + u32::try_from(number).unwrap_or(0) % 7);
    }
    let wanted: Vec<DocumentHeads> = names.iter().map(|name| (name.clone(), Vec::new())).collect();
    let mut got: Vec<Bytes> = all(&mut hand, session, &wanted).into_iter().map(|(_, chunk)| chunk).collect();
    let mut stored = log(&hand);
    got.sort();
    stored.sort();
    assert!(got == stored);
}

#[test]
fn a_change_larger_than_a_window_goes_alone() {
    let mut hand = hand();
    let (ada, session) = (id(Scope::Global, "ada"), hand.meet(2, "au"));
    for letter in ["a", "b", "c"] {
        hand.put(&ada, json!({ "text": letter.repeat(2 * WINDOW_BYTES) }));
        hand.put(&ada, json!({ "text": letter }));
    }
    let stored = log(&hand);
    let got = all(&mut hand, session, &[(ada.clone(), stored.first().map(hash).into_iter().collect())]);
    assert!(got.into_iter().map(|(_, chunk)| chunk).eq(stored[1..].iter().cloned()));
}

#[test]
fn a_place_that_no_answer_named_is_passed_over() {
    let mut hand = hand();
    let (ada, session) = (id(Scope::Global, "ada"), hand.meet(2, "au"));
    hand.write(&ada, 10);
    let key = hand.disk.keys().find(|(table, _)| *table == Table::Documents).map(|(_, key)| key.clone());
    let key = key.expect("it is stored");
    let runs = |runs: &[u8]| Bytes::from([&key[..], &[1], runs].concat());
    // Not a place; runs that end before they begin, overlap, or go past the end of the log.
    for after in [Bytes::from_static(b"x"), runs(&[1, 5, 2]), runs(&[2, 0, 4, 3, 5]), runs(&[1, 0, 200, 1])] {
        let documents = vec![(ada.clone(), Vec::new())];
        let (changes, next) = window(&mut hand, session, Wanted::Documents { documents, after: Some(after) });
        assert_eq!((changes.len(), next), (10, None));
    }
}
