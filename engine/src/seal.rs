//! Datagrams sealed between two boots, and the cluster key that everything secret is derived from.
//!
//! ```text
//! version u8 | key id 4 | sender 16 | counter u64 | sealed body | tag 16        integers little-endian
//! ```
//!
//! The key of a datagram is derived from the cluster key, the sender, the receiver and the present boot of each, in that
//! order, so each direction between two boots has a key of its own and a restart of either side voids every recording.
//! The header is additional data. The cipher is XChaCha20-Poly1305; its 24-byte nonce is sixteen zero bytes and the
//! counter. A counter is never used twice under one key, which is what makes that nonce sound: it rises with each
//! datagram, stops at its maximum, and a peer whose state was dropped starts again above all that were dropped.
//!
//! A node that holds several keys opens what comes under any of them, and seals for a peer with the one under which that
//! peer last spoke; until it has, with the first. A counter goes on when the key changes, and a key's replay window outlives
//! it, so a change there and back gives nobody a second chance.
//!
//! Nothing here answers. What does not open is a [`DatagramDrop`] for the caller to count. State about a peer exists only
//! once we sealed for it or it sealed for us; unverified bytes never make any.

mod key;
mod window;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305};

pub use self::key::{BadClusterKey, CLUSTER_KEY_CHARACTERS, ClusterKey, KeyId, KeyRing};
pub use self::window::{REPLAY_WINDOW, ReplayWindow};
use crate::{Boot, NodeId};

/// The version of the datagram layout, its first byte.
pub const DATAGRAM_VERSION: u8 = 1;
/// The longest datagram, everything included; it passes every path that carries IPv6.
pub const DATAGRAM_BYTES_MAX: usize = 1_200;
/// The longest body that [`Datagrams::seal`] takes.
pub const DATAGRAM_BODY_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEADER_BYTES - TAG_BYTES;
/// Pairs of (peer, boot) that are kept at once.
pub const PEERS_MAX: usize = 16_384;

const HEADER_BYTES: usize = 1 + 4 + 16 + 8;
const TAG_BYTES: usize = 16;
/// Keys under which one boot of a peer may have spoken and whose windows are kept: more than a server holds at once.
const RECEIVING_MAX: usize = 32;
/// What a datagram names where there is no key.
const NO_KEY: KeyId = KeyId([0; 4]);
const KEY_CONTEXT: &str = "knot 2026-11-21 datagram key v1";

/// Why a datagram was dropped. No reason is ever told to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum DatagramDrop {
    /// It cannot hold a header and a tag.
    #[error("too short to be a datagram")]
    TooShort,
    /// It is longer than [`DATAGRAM_BYTES_MAX`].
    #[error("longer than a datagram may be")]
    TooLong,
    /// It has another layout than this node speaks.
    #[error("of another version")]
    Version,
    /// It was sealed with another cluster key, or is no datagram of ours.
    #[error("sealed under another cluster key")]
    UnknownKey,
    /// We know no present boot of the node it names.
    #[error("from a node whose boot is not known")]
    UnknownSender,
    /// It was altered, meant for another node, or belongs to another boot of either side.
    #[error("it does not verify for this pair of boots")]
    Forged,
    /// Its counter was seen before, or is too old to tell.
    #[error("its counter was seen before or is too old")]
    Replayed,
    /// There are [`PEERS_MAX`] peers already, none of them forgotten.
    #[error("too many peers")]
    Crowded,
}

/// Seals and opens the datagrams of one boot of one node.
#[derive(Debug)]
pub struct Datagrams {
    keys: Option<KeyRing>,
    me: End,
    peers: BTreeMap<End, Peer>,
    /// Peers in the order in which they were forgotten: they make room first, and until then a peer that returns with
    /// the same boot finds its replay window as it left it.
    retired: BTreeMap<u64, End>,
    retirements: u64,
    /// Above every counter of a peer that was dropped.
    first_counter: u64,
}

/// One boot of one node.
type End = (NodeId, Boot);

#[derive(Debug, Default)]
struct Peer {
    sending: Option<Sending>,
    /// By the keys under which it spoke, in the order in which it first did. Counters that somebody used who held one of them, and had it
    /// taken away, close no window of another.
    receiving: Vec<Receiving>,
    /// The key under which it last spoke.
    heard_under: Option<KeyId>,
    retired: Option<u64>,
}

#[derive(Debug)]
struct Sending {
    key: KeyId,
    cipher: Cipher,
    next: u64,
}

#[derive(Debug)]
struct Receiving {
    key: KeyId,
    cipher: Cipher,
    window: ReplayWindow,
}

impl Datagrams {
    /// The datagrams of `boot` of node `me`. Without a key nothing is secret or proven, but layout, sizes, replay windows
    /// and the binding to both boots stay as they are: that is for the simulator.
    #[must_use]
    pub fn new(keys: Option<KeyRing>, me: NodeId, boot: Boot) -> Self {
        Self {
            keys,
            me: (me, boot),
            peers: BTreeMap::new(),
            retired: BTreeMap::new(),
            retirements: 0,
            first_counter: 0,
        }
    }

    /// Holds these keys from now on, and none that is not among them.
    pub fn set_keys(&mut self, keys: KeyRing) {
        self.keys = Some(keys);
    }

    /// A datagram that carries `body` to boot `to_boot` of `to`. None when `body` is longer than
    /// [`DATAGRAM_BODY_BYTES_MAX`], when there are [`PEERS_MAX`] other peers, or when the counter has reached its maximum.
    pub fn seal(&mut self, to: NodeId, to_boot: Boot, body: &[u8]) -> Option<Bytes> {
        if body.len() > DATAGRAM_BODY_BYTES_MAX {
            return None;
        }
        let (me, them) = (self.me, (to, to_boot));
        let heard_under = self.activate(them)?.heard_under;
        let cluster_key = key_for(self.keys.as_ref(), heard_under);
        let key = cluster_key.map_or(NO_KEY, ClusterKey::id);
        let first_counter = self.first_counter;
        let peer = self.peers.get_mut(&them)?;
        if peer.sending.as_ref().is_none_or(|sending| sending.key != key) {
            let cipher = Cipher::new(cluster_key, me, them);
            let next = peer.sending.as_ref().map_or(first_counter, |sending| sending.next);
            peer.sending = Some(Sending { key, cipher, next });
        }
        let sending = peer.sending.as_mut()?;
        let counter = sending.next;
        sending.next = counter.checked_add(1)?;

        let header = Header { version: DATAGRAM_VERSION, key_id: key, sender: me.0, counter };
        let mut datagram = BytesMut::with_capacity(HEADER_BYTES + body.len() + TAG_BYTES);
        header.put(&mut datagram);
        datagram.put_slice(body);
        let (header, body) = datagram.split_at_mut_checked(HEADER_BYTES)?;
        let tag = sending.cipher.seal(counter, header, body)?;
        datagram.put_slice(&tag);
        Some(datagram.freeze())
    }

    /// The sender and the body of a datagram that was sealed for this boot. `boot_of` knows the present boot of a node.
    ///
    /// # Errors
    /// Why the datagram is to be dropped, without an answer.
    pub fn open(
        &mut self,
        datagram: &[u8],
        boot_of: impl Fn(NodeId) -> Option<Boot>,
    ) -> Result<(NodeId, Bytes), DatagramDrop> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(DatagramDrop::TooLong);
        }
        let (head, sealed) = datagram.split_first_chunk::<HEADER_BYTES>().ok_or(DatagramDrop::TooShort)?;
        let (body, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(DatagramDrop::TooShort)?;
        let header = Header::parse(head);
        if header.version != DATAGRAM_VERSION {
            return Err(DatagramDrop::Version);
        }
        let key = header.key_id;
        let cluster_key = match &self.keys {
            Some(keys) => Some(keys.by_id(key).ok_or(DatagramDrop::UnknownKey)?),
            None if key == NO_KEY => None,
            None => return Err(DatagramDrop::UnknownKey),
        };
        let boot = boot_of(header.sender).ok_or(DatagramDrop::UnknownSender)?;
        let them = (header.sender, boot);

        let counter = header.counter;
        let mut body = BytesMut::from(body);
        if let Some(Peer { receiving, heard_under, .. }) = self.peers.get_mut(&them)
            && let Some(receiving) = receiving.iter_mut().find(|receiving| receiving.key == key)
        {
            if !receiving.window.is_fresh(counter) {
                return Err(DatagramDrop::Replayed);
            }
            receiving.cipher.open(counter, head, &mut body, tag)?;
            receiving.window.accept(counter);
            *heard_under = Some(key);
        } else {
            let cipher = Cipher::new(cluster_key, them, self.me);
            cipher.open(counter, head, &mut body, tag)?;
            let mut window = ReplayWindow::new();
            window.accept(counter);
            let peer = self.activate(them).ok_or(DatagramDrop::Crowded)?;
            if peer.receiving.len() >= RECEIVING_MAX {
                peer.receiving.remove(0);
            }
            peer.receiving.push(Receiving { key, cipher, window });
            peer.heard_under = Some(key);
        }
        Ok((header.sender, body.freeze()))
    }

    /// Gives up the state about every boot of `node` as soon as room is needed. A node that returns before that with the
    /// same boot finds its counters and its replay window as they were.
    pub fn forget(&mut self, node: NodeId) {
        self.retire_boots(node, None);
    }

    /// The state about `them`, made where it is missing; all other boots of that node are retired. None when there is no
    /// room.
    fn activate(&mut self, them: End) -> Option<&mut Peer> {
        let active = self.peers.get(&them).is_some_and(|peer| peer.retired.is_none());
        if !active {
            self.retire_boots(them.0, Some(them.1));
            if !self.peers.contains_key(&them) {
                self.make_room()?;
            }
            let peer = self.peers.entry(them).or_default();
            if let Some(turn) = peer.retired.take() {
                self.retired.remove(&turn);
            }
        }
        self.peers.get_mut(&them)
    }

    fn retire_boots(&mut self, node: NodeId, except: Option<Boot>) {
        let all = (node, Boot([0; 16]))..=(node, Boot([0xff; 16]));
        for (them, peer) in self.peers.range_mut(all) {
            if Some(them.1) != except && peer.retired.is_none() {
                self.retirements += 1;
                peer.retired = Some(self.retirements);
                self.retired.insert(self.retirements, *them);
            }
        }
    }

    fn make_room(&mut self) -> Option<()> {
        if self.peers.len() < PEERS_MAX {
            return Some(());
        }
        let (_, oldest) = self.retired.pop_first()?;
        if let Some(sending) = self.peers.remove(&oldest).and_then(|peer| peer.sending) {
            self.first_counter = self.first_counter.max(sending.next);
        }
        Some(())
    }
}

/// The key to seal with for a peer that was last heard under this one.
fn key_for(keys: Option<&KeyRing>, heard_under: Option<KeyId>) -> Option<&ClusterKey> {
    let keys = keys?;
    Some(heard_under.and_then(|id| keys.by_id(id)).unwrap_or_else(|| keys.first()))
}

#[derive(Clone, Copy, Debug)]
struct Header {
    version: u8,
    key_id: KeyId,
    sender: NodeId,
    counter: u64,
}

impl Header {
    fn put(&self, datagram: &mut BytesMut) {
        datagram.put_u8(self.version);
        datagram.put_slice(&self.key_id.0);
        datagram.put_slice(&self.sender.0);
        datagram.put_u64_le(self.counter);
    }

    fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut rest = &bytes[..];
        let version = rest.get_u8();
        let (mut key_id, mut sender) = (KeyId([0; 4]), NodeId([0; 16]));
        rest.copy_to_slice(&mut key_id.0);
        rest.copy_to_slice(&mut sender.0);
        Self { version, key_id, sender, counter: rest.get_u64_le() }
    }
}

/// One direction between two boots.
#[derive(Debug)]
enum Cipher {
    Sealing(XChaCha20Poly1305),
    /// Sealing is off: the tag only tells the boots that it belongs to.
    Bare([u8; TAG_BYTES]),
}

impl Cipher {
    fn new(key: Option<&ClusterKey>, from: End, to: End) -> Self {
        let Some(key) = key else {
            let mut mark = from.1.0;
            mark.rotate_left(1);
            mark.iter_mut().zip(to.1.0).for_each(|(byte, other)| *byte ^= other);
            return Self::Bare(mark);
        };
        let parts = [&from.0.0[..], &to.0.0, &from.1.0, &to.1.0];
        let key = key.derive(KEY_CONTEXT, &parts);
        Self::Sealing(XChaCha20Poly1305::new(&key.into()))
    }

    fn seal(&self, counter: u64, header: &[u8], body: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
        match self {
            Self::Sealing(cipher) => {
                cipher.encrypt_inout_detached(&nonce(counter).into(), header, body.into()).map(Into::into).ok()
            }
            Self::Bare(mark) => Some(*mark),
        }
    }

    fn open(&self, counter: u64, header: &[u8], body: &mut [u8], tag: &[u8; TAG_BYTES]) -> Result<(), DatagramDrop> {
        let verified = match self {
            Self::Sealing(cipher) => {
                cipher.decrypt_inout_detached(&nonce(counter).into(), header, body.into(), tag.into()).is_ok()
            }
            Self::Bare(mark) => mark == tag,
        };
        verified.then_some(()).ok_or(DatagramDrop::Forged)
    }
}

fn nonce(counter: u64) -> [u8; 24] {
    let [a, b, c, d, e, f, g, h] = counter.to_le_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h]
}
