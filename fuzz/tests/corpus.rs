//! The committed seeds: what they are made of, and that they still reach what they were made to reach.
//!
//! `KNOT_WRITE_CORPUS=1 cargo test` in this folder writes them anew after a change of the wire format.

use std::fs;
use std::path::PathBuf;

use knot_engine::seal::{ClusterKey, Datagrams};
use knot_engine::session::{Role, Session};
use knot_fuzz::{Case, agreed, boot, key, node, session};

/// A file's name, its input, and how many bodies, events or frames come out of it.
type Seed = (&'static str, Vec<u8>, usize);

#[test]
fn every_committed_seed_decodes_as_it_was_made() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus/wire");
    for (name, input, expected) in seeds() {
        let file = folder.join(name);
        if std::env::var_os("KNOT_WRITE_CORPUS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &input).unwrap();
        }
        let committed = fs::read(&file).unwrap();
        assert_eq!(committed, input, "{name} is out of date");
        assert_eq!(Case::of(&committed).unwrap().run(), expected, "{name}");
    }
}

#[test]
fn every_file_of_the_corpus_runs() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus/wire");
    for entry in fs::read_dir(folder).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        if let Some(case) = Case::of(&input) {
            case.run();
        }
    }
}

fn seeds() -> Vec<Seed> {
    let [hello, answer, last] = handshake();
    let segments = segments();
    let (plain, folded) = frames();
    let mut altered = segments.clone();
    altered[20] ^= 1;
    let in_portions_of = |bytes: usize, stream: &[u8]| {
        let portion = u8::try_from(bytes - 1).unwrap();
        [&[portion], stream].concat()
    };
    let whole = in_portions_of(hello.len(), &[&hello[..], &last].concat());
    let bomb = [9, 0, 0, 0, 1, 0, 0, 16, 0, 31, 0, 1, 0];
    vec![
        ("datagram-sealed", Case::SealedDatagram(&datagram(Some(key()))).input(), 1),
        ("datagram-bare", Case::BareDatagram(&datagram(None)).input(), 1),
        ("datagram-short", Case::SealedDatagram(&datagram(None)[..30]).input(), 0),
        ("handshake-hello", Case::Responder(&in_portions_of(7, &hello)).input(), 0),
        ("handshake-whole", Case::Responder(&whole).input(), 2),
        ("handshake-answer", Case::Initiator(&in_portions_of(256, &answer)).input(), 1),
        ("segments", Case::Segments(&in_portions_of(9, &segments)).input(), 4),
        ("segments-cut", Case::Segments(&in_portions_of(9, &segments[..30])).input(), 1),
        ("segments-altered", Case::Segments(&in_portions_of(9, &altered)).input(), 1),
        ("frames", Case::Frames(&in_portions_of(8, &plain)).input(), 3),
        ("frame-folded", Case::Frames(&in_portions_of(256, &folded)).input(), 1),
        ("frame-bomb", Case::Frames(&in_portions_of(256, &bomb)).input(), 0),
    ]
}

fn datagram(key: Option<ClusterKey>) -> Vec<u8> {
    let mut theirs = Datagrams::new(key.map(Into::into), node(1), boot(1));
    theirs.seal(node(2), boot(2), b"a body").unwrap().to_vec()
}

/// The three messages, the last one with a frame behind it.
fn handshake() -> [Vec<u8>; 3] {
    let (mut initiator, mut responder) = (session(Role::Initiator), session(Role::Responder));
    let pass = |from: &mut Session, to: &mut Session| {
        let bytes = from.poll_transmit().unwrap();
        to.handle_bytes(&bytes).unwrap();
        bytes.to_vec()
    };
    let hello = pass(&mut initiator, &mut responder);
    let answer = pass(&mut responder, &mut initiator);
    initiator.send_frame(b"a frame").unwrap();
    let last = pass(&mut initiator, &mut responder);
    [hello, answer, last]
}

fn segments() -> Vec<u8> {
    let mut session = agreed();
    for frame in [&b"one"[..], &[b'2'; 600], b""] {
        session.send_frame(frame).unwrap();
    }
    session.poll_transmit().unwrap().to_vec()
}

/// Three plain frames, and one folded frame.
fn frames() -> (Vec<u8>, Vec<u8>) {
    let mut plain = Vec::new();
    for length in [0_u8, 5, 60] {
        plain.extend([length + 1, 0, 0, 0, 0]);
        plain.extend(vec![b'x'; length.into()]);
    }
    // 600 unfolded bytes: one literal, then 594 copies of it, then five literals.
    let block = [31, b'x', 1, 0, 255, 255, 65, 80, b'x', b'x', b'x', b'x', b'x'];
    let mut folded = vec![18, 0, 0, 0, 1, 88, 2, 0, 0];
    folded.extend(block);
    (plain, folded)
}
