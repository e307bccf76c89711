//! Frames within a byte stream, folded where that helps.
//!
//! `length u32 | codec u8 | content`. Codec 0 is the frame itself; codec 1 is the unfolded length as u32, then an LZ4 block.

use std::fmt;
use std::mem::take;

use bytes::{Buf, Bytes, BytesMut};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use super::PeerMisbehaved;

/// The longest frame, unfolded.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Shorter frames hardly ever shrink.
const COMPRESSED_FROM_BYTES: usize = 512;
/// A scratch buffer that a large frame left longer than this is given back.
const SCRATCH_BYTES_KEPT: usize = 64 << 10;
/// An LZ4 block never unfolds to more than this many times its length.
const LZ4_RATIO_MAX: usize = 255;

const LENGTH_BYTES: usize = 4;
const CODEC_BYTES: usize = 1;
const CODEC_PLAIN: u8 = 0;
const CODEC_LZ4: u8 = 1;

/// Writes frames.
pub(super) struct FrameEncoder {
    compression: bool,
    table: CompressTable,
    scratch: Vec<u8>,
}

impl FrameEncoder {
    pub(super) fn new(compression: bool) -> Self {
        Self { compression, table: CompressTable::default(), scratch: Vec::new() }
    }

    /// The head and the content of `frame`, which is at most [`FRAME_BYTES_MAX`] long.
    pub(super) fn encode<'a>(&'a mut self, frame: &'a [u8]) -> ([u8; LENGTH_BYTES + CODEC_BYTES], &'a [u8]) {
        if self.scratch.len() > SCRATCH_BYTES_KEPT {
            self.scratch = Vec::new();
        }
        let wanted = self.compression && frame.len() >= COMPRESSED_FROM_BYTES;
        let (codec, content) = match wanted.then(|| self.fold(frame)).flatten() {
            Some(folded) => (CODEC_LZ4, folded),
            None => (CODEC_PLAIN, frame),
        };
        let [a, b, c, d] = u32_length(CODEC_BYTES + content.len());
        ([a, b, c, d, codec], content)
    }

    /// The unfolded length and the block, when that saves at least a tenth.
    fn fold(&mut self, frame: &[u8]) -> Option<&[u8]> {
        let bound = LENGTH_BYTES + get_maximum_output_size(frame.len());
        if self.scratch.len() < bound {
            self.scratch.resize(bound, 0);
        }
        let (unfolded_bytes, block) = self.scratch.split_first_chunk_mut::<LENGTH_BYTES>()?;
        *unfolded_bytes = u32_length(frame.len());
        let block_bytes = compress_into_with_table(frame, block, &mut self.table).ok()?;
        let folded_bytes = LENGTH_BYTES + block_bytes;
        let worthwhile = folded_bytes <= frame.len() / 10 * 9;
        worthwhile.then(|| self.scratch.get(..folded_bytes)).flatten()
    }
}

impl fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameEncoder").field("compression", &self.compression).finish_non_exhaustive()
    }
}

/// Lengths are bounded by [`FRAME_BYTES_MAX`] and a head, far below what a u32 holds.
fn u32_length(bytes: usize) -> [u8; LENGTH_BYTES] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

/// Reads frames from a byte stream that comes in portions. It holds at most one frame that is not whole, and a frame that
/// came in one portion is a view of it.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    portion: Bytes,
    partial: BytesMut,
}

impl FrameDecoder {
    /// Takes the next portion of the stream.
    pub fn handle_bytes(&mut self, portion: Bytes) {
        if self.portion.is_empty() {
            self.portion = portion;
        } else {
            let mut joined = BytesMut::from(&self.portion[..]);
            joined.extend_from_slice(&portion);
            self.portion = joined.freeze();
        }
    }

    /// The next whole frame, unfolded; None until more bytes are there.
    ///
    /// # Errors
    /// When the stream does not hold frames. There is no way to go on from there.
    pub fn poll_frame(&mut self) -> Result<Option<Bytes>, PeerMisbehaved> {
        if self.partial.is_empty()
            && let Some((length, rest)) = self.portion.split_first_chunk::<LENGTH_BYTES>()
        {
            let frame_bytes = checked_length(*length)?;
            if rest.len() >= frame_bytes {
                self.portion.advance(LENGTH_BYTES);
                return unfold(self.portion.split_to(frame_bytes)).map(Some);
            }
        }
        if !self.fill_partial(LENGTH_BYTES) {
            return Ok(None);
        }
        let Some((length, _)) = self.partial.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let frame_bytes = checked_length(*length)?;
        if !self.fill_partial(LENGTH_BYTES + frame_bytes) {
            return Ok(None);
        }
        let mut frame = take(&mut self.partial).freeze();
        frame.advance(LENGTH_BYTES);
        unfold(frame).map(Some)
    }

    /// Moves bytes of the portion until the partial frame has `bytes`; false when there are not enough.
    fn fill_partial(&mut self, bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.partial.len());
        let moved = self.portion.split_to(missing.min(self.portion.len()));
        self.partial.extend_from_slice(&moved);
        self.partial.len() >= bytes
    }
}

fn checked_length(length: [u8; LENGTH_BYTES]) -> Result<usize, PeerMisbehaved> {
    let bytes = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    match bytes.checked_sub(CODEC_BYTES) {
        None => Err(PeerMisbehaved::FrameWithoutCodec),
        Some(bytes) if bytes > FRAME_BYTES_MAX => Err(PeerMisbehaved::FrameTooLong { bytes }),
        Some(_) => Ok(bytes),
    }
}

fn unfold(mut frame: Bytes) -> Result<Bytes, PeerMisbehaved> {
    match frame.try_get_u8() {
        Err(_) => Err(PeerMisbehaved::FrameWithoutCodec),
        Ok(CODEC_PLAIN) => Ok(frame),
        Ok(CODEC_LZ4) => unfold_lz4(&frame),
        Ok(codec) => Err(PeerMisbehaved::Codec { codec }),
    }
}

fn unfold_lz4(content: &[u8]) -> Result<Bytes, PeerMisbehaved> {
    let (length, block) = content.split_first_chunk::<LENGTH_BYTES>().ok_or(PeerMisbehaved::Compression)?;
    let bytes = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if bytes > FRAME_BYTES_MAX {
        return Err(PeerMisbehaved::FrameTooLong { bytes });
    }
    if bytes > block.len() * LZ4_RATIO_MAX {
        return Err(PeerMisbehaved::Compression);
    }
    let mut frame = vec![0; bytes];
    match decompress_into(block, &mut frame) {
        Ok(unfolded) if unfolded == bytes => Ok(frame.into()),
        Ok(_) | Err(_) => Err(PeerMisbehaved::Compression),
    }
}
