//! Circuits that nobody wants: opened in anybody's name to anybody, never answered, fed beyond their windows.

use bytes::Bytes;
use knot_engine::wire::Frame;
use knot_engine::{CIRCUIT_PIECE_BYTES, CIRCUIT_ROOM_BYTES, CIRCUIT_WINDOW_BYTES, CircuitId, NodeId, Step};

use crate::draw::Draw;

/// Numbers that its circuits have, so that it says more of some of them.
const NUMBERS: u64 = 3;

/// A step of a circuit between two of these.
pub(super) fn step(draw: &mut Draw, me: NodeId, everybody: &[NodeId]) -> Bytes {
    let somebody = |draw: &mut Draw| *draw.pick(everybody);
    let (one, other) = if draw.chance(600) { (me, somebody(draw)) } else { (somebody(draw), somebody(draw)) };
    let step = match draw.index(8) {
        0..4 => Step::Open,
        4 | 5 => Step::Bytes(vec![0; 1 + draw.index(CIRCUIT_PIECE_BYTES)].into()),
        6 => {
            let room = draw.between(CIRCUIT_ROOM_BYTES as u64, CIRCUIT_WINDOW_BYTES as u64 + 1);
            Step::Room(u32::try_from(room).unwrap_or(u32::MAX))
        }
        _ => Step::End,
    };
    let circuit = CircuitId { opener: one, target: other, number: draw.between(0, NUMBERS) };
    Frame::Circuit { circuit, step }.encode()
}
