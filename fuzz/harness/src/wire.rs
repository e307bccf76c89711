//! What is decoded of other servers' bytes before anything is done with it: datagrams, frames, and the messages in them.
//!
//! The first byte of an input chooses the decoder. Ciphers keep mutated bytes out of what lies behind them, so that is
//! reached without them: bare datagrams, the frame decoder by itself, messages as they come out of it.

use bytes::Bytes;
use knot_engine::seal::{ClusterKey, DATAGRAM_BYTES_MAX, Datagrams};
use knot_engine::session::{FRAME_BYTES_MAX, FrameDecoder, UNREAD_BYTES_MAX};
use knot_engine::wire::{Frame, Packet};
use knot_engine::{Boot, NodeId};

use crate::Target;

/// A frame is folded at most once and at most a mebibyte long. No message unfolds to more than a list of empty byte
/// strings does; and a list of any length may have a mebibyte reserved for it before its items are read.
pub const TARGET: Target = Target { name: "wire", run, memory_bytes_max: 6 << 20, memory_bytes_per_byte: 96 };

/// A decoder, and the bytes for it.
#[derive(Clone, Copy, Debug)]
pub enum Case<'a> {
    /// A datagram that has to be sealed.
    SealedDatagram(&'a [u8]),
    /// A datagram of a cluster whose sealing is off.
    BareDatagram(&'a [u8]),
    /// Frames in a stream. The first byte is the size of the portions in which bytes come.
    Frames(&'a [u8]),
    /// One message, of a frame and of a datagram.
    Message(&'a [u8]),
}

impl<'a> Case<'a> {
    /// The case that `input` describes; None when it is empty.
    pub fn of(input: &'a [u8]) -> Option<Self> {
        let (choice, bytes) = input.split_first()?;
        Some(match choice % 4 {
            0 => Self::SealedDatagram(bytes),
            1 => Self::BareDatagram(bytes),
            2 => Self::Frames(bytes),
            _ => Self::Message(bytes),
        })
    }

    /// The input that describes this case.
    pub fn input(self) -> Vec<u8> {
        let (choice, bytes) = match self {
            Self::SealedDatagram(bytes) => (0, bytes),
            Self::BareDatagram(bytes) => (1, bytes),
            Self::Frames(bytes) => (2, bytes),
            Self::Message(bytes) => (3, bytes),
        };
        [&[choice], bytes].concat()
    }
}

/// How many bodies, frames or messages came out of it.
fn run(input: &[u8]) -> usize {
    match Case::of(input) {
        Some(Case::SealedDatagram(bytes)) => open(Some(key()), bytes),
        Some(Case::BareDatagram(bytes)) => open(None, bytes),
        Some(Case::Frames(bytes)) => frames(bytes),
        Some(Case::Message(bytes)) => message(bytes),
        None => 0,
    }
}

/// The key that every target uses.
pub fn key() -> ClusterKey {
    ClusterKey::new("0123456789abcdefghijklmnopqrstuv").expect("32 printable characters")
}

/// The boot of node `me`, of which there are few.
pub fn boot(me: u8) -> Boot {
    Boot([me; 16])
}

/// The name of node `me`.
pub fn node(me: u8) -> NodeId {
    NodeId([me; 16])
}

/// A stream in portions of so many bytes as the first byte says.
pub(crate) fn portions(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (portion_bytes, stream) = bytes.split_first().unwrap_or((&0, &[]));
    stream.chunks(usize::from(*portion_bytes) + 1)
}

fn open(key: Option<ClusterKey>, bytes: &[u8]) -> usize {
    let mut ours = Datagrams::new(key.map(Into::into), node(2), boot(2));
    let opened = ours.open(bytes, |sender| (sender == node(1)).then(|| boot(1)));
    let Ok((sender, body)) = opened else {
        return 0;
    };
    assert!(bytes.len() <= DATAGRAM_BYTES_MAX && body.len() < bytes.len());
    assert_eq!(sender, node(1));
    let again = ours.open(bytes, |_| Some(boot(1)));
    assert!(again.is_err(), "a replay was opened");
    1
}

fn frames(bytes: &[u8]) -> usize {
    let mut decoder = FrameDecoder::default();
    let (mut frames, mut unfolded_bytes) = (0, 0);
    for portion in portions(bytes) {
        decoder.handle_bytes(Bytes::copy_from_slice(portion));
        loop {
            match decoder.poll_frame() {
                Err(_) => return frames,
                Ok(None) => break,
                Ok(Some(frame)) => {
                    assert!(frame.len() <= FRAME_BYTES_MAX);
                    frames += 1;
                    unfolded_bytes += frame.len();
                    message(&frame);
                }
            }
        }
        if unfolded_bytes > UNREAD_BYTES_MAX {
            break;
        }
    }
    frames
}

/// What was decoded says the same when it is encoded and decoded again.
fn message(bytes: &[u8]) -> usize {
    let frame = Frame::decode(bytes).ok().flatten();
    if let Some(frame) = &frame {
        assert!(!frame.kind().is_empty());
        assert_eq!(Frame::decode(&frame.encode()).as_ref().map(Option::as_ref), Ok(Some(frame)));
    }
    let packet = Packet::decode(bytes).ok().flatten();
    if let Some(packet) = &packet {
        assert_eq!(Packet::decode(&packet.encode()).as_ref().map(Option::as_ref), Ok(Some(packet)));
    }
    usize::from(frame.is_some()) + usize::from(packet.is_some())
}
