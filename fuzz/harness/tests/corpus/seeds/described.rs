//! Descriptions of what a peer does, and of what a disk holds.

use knot_fuzz::script::written;

use super::Seed;

/// A small number, and one of those that are telling, as a script reads them.
const fn small(number: u8) -> u8 {
    0x40 | number
}
const MAX: u8 = 15;
const U32_MAX: u8 = 11;

/// `before | (change | alterations, each with what it takes) ...`. The eleven changes of the history are those of
/// `gate::history`.
pub(crate) fn gate() -> Vec<Seed> {
    let forged = |before: u8, change: u8, alterations: &[&[u8]]| {
        let count = u8::try_from(alterations.len()).unwrap();
        [&[before, change, count], alterations.concat().as_slice()].concat()
    };
    let run = |count: u8, value: u8| [&[19, 5, 0][..], &[count, value]].concat();
    let column = |id: u8, data: &[u8]| [&[15, id][..], &written(data)].concat();
    let million = [0xc0, 0x84, 0x3d, 1];
    let hundred_thousand = [0xa0, 0x8d, 0x06, 1];
    vec![
        ("honest", forged(4, 4, &[]), 1),
        ("known", forged(4, 3, &[]), 0),
        ("ahead", forged(2, 6, &[]), 0),
        ("two-in-turn", [forged(4, 4, &[]), vec![5, 0]].concat(), 2),
        ("sequence-gap", forged(4, 4, &[&[0, small(9)]]), 0),
        ("operation-counter-at-its-end", forged(4, 4, &[&[1, U32_MAX]]), 0),
        ("operation-counter-beyond", forged(4, 4, &[&[1, MAX]]), 0),
        ("clock-at-its-end", forged(4, 4, &[&[2, 13]]), 1),
        ("actor-of-another", forged(4, 4, &[&[4, 1]]), 0),
        ("actor-of-nobody", forged(4, 4, &[&[5, 3, 0, 1, 2, 3]]), 0),
        ("on-what-is-not-there", forged(4, 4, &[&[6, 1]]), 0),
        ("checksum", forged(4, 4, &[&[13, 1]]), 0),
        ("trailing", forged(4, 4, &[&[12, 1, 0, 9]]), 0),
        ("refers-to-nobody", forged(4, 4, &[&[10, 14]]), 0),
        ("column-of-runs", forged(4, 4, &[&run(small(3), 0)]), 0),
        ("column-that-nobody-writes", forged(4, 4, &[&column(13, &[1, 2])]), 0),
        ("million-operations", forged(4, 4, &[&[14, 0], &column(6, &million)]), 0),
        ("many-operations", forged(4, 4, &[&[14, 0], &column(6, &hundred_thousand)]), 0),
    ]
}

/// Steps: `stream | kind | what it takes`.
pub(crate) fn repair() -> Vec<Seed> {
    // One root of the global scope that fits nothing.
    let roots = [0, 3, 1, 0, small(9), small(1), small(2)];
    let pass = |tens: u8| [0, 11, tens];
    let differing = [&roots[..], &pass(25), &roots, &pass(25), &roots, &pass(25), &roots, &pass(25)].concat();
    let push = [0, 6, small(1), 1, 1, 0, 0, 0, 0, 2];
    let range = [&[0, 5, 0, 1, 0][..], &written(&[])].concat();
    let compare = [&[0, 4, 0][..], &written(&[]), &[7, 1, 3, small(1), MAX, MAX]].concat();
    let digest_of_itself = [&[0, 8, 6, 0, 0, U32_MAX, U32_MAX][..], &written(b"n"), &[0, 0]].concat();
    // What it asks is answered with more to compare, again and again.
    let deeper = [&[0, 1, 0, 0][..], &written(&[0, 1, 255]), &written(&[])].concat();
    let window = [0, 2, 0, 0, 1, 0, 0, 0, 0, 3];
    vec![
        ("differing-roots", differing.clone(), 4),
        ("compare", compare, 1),
        ("want-all", range, 1),
        ("push", push.to_vec(), 0),
        ("record-of-itself", digest_of_itself, 0),
        ("ever-deeper", [&differing[..], &deeper, &deeper, &deeper, &pass(200)].concat(), 4),
        ("windows", [&differing[..], &window, &window, &pass(200)].concat(), 1),
        ("silence", [&differing[..], &[0, 13, 0], &pass(255)].concat(), 1),
        // From the first to the second: asked for, granted, 16 KiB, room for 0, over.
        ("circuit-between", [[0, 14, 2, 3, 1, 0], [1, 14, 2, 3, 1, 0], [0, 14, 2, 3, 1, 1]].concat(), 0),
        // From the second to the node by way of the first; its session opens to the third, which it is not.
        ("circuit-to-another", [&[0, 14, 3, 0, 1, 0][..], &[0, 15, 0, 1, 2]].concat(), 0),
        ("rubbish", [&[0, 0][..], &written(&[2, 1, 2, 3]), &[1, 10], &written(&[9; 40])].concat(), 0),
    ]
}

/// `model or Automerge | alterations | (entry | alteration, with what it takes) ...`.
pub(crate) fn disk() -> Vec<Seed> {
    let splice = |entry: u8, at: u8, cut: u8, bytes: &[u8]| [&[entry, 2, at, cut][..], &written(bytes)].concat();
    let altered = |kind: u8, alterations: &[Vec<u8>]| {
        let count = u8::try_from(alterations.len()).unwrap();
        [&[kind, count], alterations.concat().as_slice()].concat()
    };
    let entry = |table: u8, key: &[u8], value: &[u8]| [&[0, 5, table][..], &written(key), &written(value)].concat();
    vec![
        ("as-written", altered(0, &[]), 3),
        ("as-written-automerge", altered(1, &[]), 3),
        ("node-cut", altered(0, &[splice(1, 10, 3, &[])]), 0),
        ("record-of-a-later-layout", altered(0, &[splice(2, 0, 1, &[9])]), 0),
        ("change-altered", altered(1, &[splice(6, 30, 1, &[7])]), 2),
        ("change-gone", altered(1, &[vec![6, 0]]), 2),
        ("change-of-a-later-layout", altered(0, &[splice(6, 0, 1, &[9])]), 2),
        ("entry-of-nobody", altered(0, &[entry(2, &[1; 28], b"\x01\x00rubbish")]), 3),
    ]
}
