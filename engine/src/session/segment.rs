//! Sealed segments: the order and the truth of a byte stream.
//!
//! A segment that holds nothing says that what follows is sealed under the next key, which both sides derive from the one
//! before as Noise does (REKEY), so that a key that leaks later opens nothing that was sealed under an earlier one.

use std::mem::take;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};

use super::noise::nonce;
use super::{PeerMisbehaved, SendError};

/// The most that one segment seals: with its tag it is the longest message that Noise allows.
pub(super) const SEGMENT_PLAIN_BYTES_MAX: usize = u16::MAX as usize - TAG_BYTES;

/// Bytes that one key seals, give or take a frame, before the next takes its place.
pub(super) const KEY_BYTES_MAX: u64 = 1 << 30;

/// A buffer that a burst left longer than this is not used again.
const BUFFER_BYTES_KEPT: usize = 128 << 10;
const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 2;

/// One direction's cipher. A counter seals one segment, then the next, and goes on from key to key.
struct Direction {
    cipher: ChaCha20Poly1305,
    counter: u64,
}

impl Direction {
    fn new(key: &[u8; 32]) -> Self {
        Self { cipher: ChaCha20Poly1305::new(key.into()), counter: 0 }
    }

    /// None when every counter but the last, which makes the next key, has had its segment.
    fn next_nonce(&mut self) -> Option<chacha20poly1305::Nonce> {
        let counter = self.counter;
        self.counter = counter.checked_add(1)?;
        Some(nonce(counter))
    }

    /// Goes on with the next key.
    fn rekey(&mut self) -> Option<()> {
        let mut key = [0; 32];
        let _tag = self.cipher.encrypt_inout_detached(&nonce(u64::MAX), &[], key.as_mut_slice().into()).ok()?;
        self.cipher = ChaCha20Poly1305::new(&key.into());
        Some(())
    }
}

/// Turns bytes into segments. The last one stays open until the stream can take it, so that small writes share it.
pub(super) struct Sealer {
    direction: Direction,
    buffer: BytesMut,
    /// Where the open segment's length begins.
    open_at: Option<usize>,
    /// What the present key has sealed.
    key_bytes: u64,
}

impl Sealer {
    /// `first` are bytes that go ahead of the first segment as they are.
    pub(super) fn new(key: &[u8; 32], first: BytesMut) -> Self {
        Self { direction: Direction::new(key), buffer: first, open_at: None, key_bytes: 0 }
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Appends `parts`, one behind the other.
    pub(super) fn push(&mut self, parts: &[&[u8]]) -> Result<(), SendError> {
        if self.key_bytes >= KEY_BYTES_MAX {
            self.rekey()?;
        }
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let segments = bytes / SEGMENT_PLAIN_BYTES_MAX + 2;
        self.buffer.reserve(bytes + segments * (LENGTH_BYTES + TAG_BYTES));
        parts.iter().try_for_each(|part| self.push_part(part))
    }

    fn push_part(&mut self, mut bytes: &[u8]) -> Result<(), SendError> {
        while !bytes.is_empty() {
            let start = self.open_segment();
            let filled = self.buffer.len() - start - LENGTH_BYTES;
            let room = SEGMENT_PLAIN_BYTES_MAX - filled;
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.buffer.put_slice(now);
            if now.len() == room {
                self.close_segment().ok_or(SendError::Exhausted)?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Seals what follows under the next key.
    pub(super) fn rekey(&mut self) -> Result<(), SendError> {
        self.close_segment().ok_or(SendError::Exhausted)?;
        self.open_segment();
        self.close_segment().ok_or(SendError::Exhausted)?;
        self.key_bytes = 0;
        self.direction.rekey().ok_or(SendError::Exhausted)
    }

    /// All that is pending, sealed; empty when nothing is, or when the key is used up.
    pub(super) fn take(&mut self) -> Bytes {
        match self.close_segment() {
            None => Bytes::new(),
            Some(()) if self.buffer.len() > BUFFER_BYTES_KEPT => take(&mut self.buffer).freeze(),
            Some(()) => self.buffer.split().freeze(),
        }
    }

    fn open_segment(&mut self) -> usize {
        *self.open_at.get_or_insert_with(|| {
            self.buffer.put_bytes(0, LENGTH_BYTES);
            self.buffer.len() - LENGTH_BYTES
        })
    }

    fn close_segment(&mut self) -> Option<()> {
        let Some(start) = self.open_at else {
            return Some(());
        };
        let segment = self.buffer.get_mut(start..)?;
        let (length, plain) = segment.split_first_chunk_mut::<LENGTH_BYTES>()?;
        *length = u16::try_from(plain.len() + TAG_BYTES).ok()?.to_le_bytes();
        self.key_bytes += plain.len() as u64;
        let nonce = self.direction.next_nonce()?;
        let tag = self.direction.cipher.encrypt_inout_detached(&nonce, length, plain.into()).ok()?;
        self.buffer.put_slice(&tag);
        self.open_at = None;
        Some(())
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("counter", &self.direction.counter)
            .field("pending_bytes", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

/// Turns segments back into bytes.
pub(super) struct Opener {
    direction: Direction,
}

impl Opener {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self { direction: Direction::new(key) }
    }

    /// Segments opened so far.
    pub(super) fn opened(&self) -> u64 {
        self.direction.counter
    }

    /// Removes the next whole segment from `received` and returns what it held, nothing where the key changes; None until
    /// all of it has arrived.
    pub(super) fn open_next(&mut self, received: &mut BytesMut) -> Result<Option<Bytes>, PeerMisbehaved> {
        let Some((length, rest)) = received.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = *length;
        let sealed_bytes = usize::from(u16::from_le_bytes(length));
        if sealed_bytes < TAG_BYTES {
            return Err(PeerMisbehaved::SegmentTooShort { bytes: sealed_bytes });
        }
        if rest.len() < sealed_bytes {
            return Ok(None);
        }
        received.advance(LENGTH_BYTES);
        let mut segment = received.split_to(sealed_bytes);
        let nonce = self.direction.next_nonce().ok_or(PeerMisbehaved::Exhausted)?;
        let (plain, tag) = segment.split_last_chunk_mut::<TAG_BYTES>().ok_or(PeerMisbehaved::SegmentForged)?;
        let plain_bytes = plain.len();
        self.direction
            .cipher
            .decrypt_inout_detached(&nonce, &length, plain.into(), (&*tag).into())
            .map_err(|_| PeerMisbehaved::SegmentForged)?;
        if plain_bytes == 0 {
            self.direction.rekey().ok_or(PeerMisbehaved::SegmentForged)?;
        }
        segment.truncate(plain_bytes);
        Ok(Some(segment.freeze()))
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("counter", &self.direction.counter).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_has_sealed_enough_is_replaced() {
        let (mut sealer, mut opener) = (Sealer::new(&[7; 32], BytesMut::new()), Opener::new(&[7; 32]));
        let mut carry = |sealer: &mut Sealer, bytes: &[u8]| {
            sealer.push(&[bytes]).unwrap();
            let mut sent = BytesMut::from(&sealer.take()[..]);
            let mut segments = 0;
            let mut opened = Vec::new();
            while let Some(plain) = opener.open_next(&mut sent).unwrap() {
                segments += 1;
                opened.extend_from_slice(&plain);
            }
            assert_eq!(opened, bytes);
            segments
        };
        assert_eq!(carry(&mut sealer, b"under the first"), 1);
        sealer.key_bytes = KEY_BYTES_MAX - 1;
        assert_eq!(carry(&mut sealer, b"the last of it"), 1);
        assert_eq!(carry(&mut sealer, b"under the second"), 2, "the change, and what was sent");
        assert_eq!(carry(&mut sealer, b"and on"), 1);
    }
}
