//! The handshake from the cluster key and the keys of both nodes, in three messages.
//!
//! ```text
//! 1 initiator:  version u8 | key id 4 | ephemeral 32 | proof 32
//! 2 responder:  ephemeral 32 | length u16 | identity, sealed | proof 32
//! 3 initiator:  length u16 | identity, sealed | proof 32
//! ```
//!
//! It is shaped after the pattern XXpsk0 of the Noise protocol framework (revision 34), which is to take its place. The
//! fresh nonce of each side is an ephemeral X25519 public key. Both sides keep a chain key, which starts from the cluster
//! key and takes in each Diffie-Hellman result in turn, and a hash of every byte sent so far. All keys and proofs are
//! derived from both, each under a label that names its side, so they bind the cluster key, both nonces, both identities,
//! the roles and the whole transcript:
//!
//! - proof 1 needs the cluster key; a responder stays silent until it has seen it;
//! - identity 2 is sealed after (ephemeral, ephemeral), proof 2 made after (static, ephemeral): the responder holds the
//!   secret half of its public key;
//! - proof 3 comes after (ephemeral, static): so does the initiator.
//!
//! A recorded first message draws a second one, sealed, from a responder that cannot know it for a recording; the
//! recording's sender can make nothing of it, and its third message fails. Compromised cluster and node keys do not open
//! recordings of earlier sessions, whose ephemeral secrets are gone.

use std::fmt;

use bytes::{Buf, BufMut, BytesMut};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};

use super::{Agreed, Config, Handshake, PeerMisbehaved, Role, SESSION_VERSION, SessionError};
use crate::seal::KeyId;
use crate::{NodeKey, PeerIdentity};

const PUBLIC_BYTES: usize = 32;
const PROOF_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 4;
const HELLO_BYTES: usize = 1 + KEY_ID_BYTES + PUBLIC_BYTES;
const LENGTH_BYTES: usize = 2;
const TAG_BYTES: usize = 16;
/// The longest sealed identity; today's are about 90 bytes.
const IDENTITY_BYTES_MAX: usize = 256;

const SESSION_CONTEXT: &str = "knot 2026-11-21 session key v1";
/// A handshake key seals one message only.
const NONCE: [u8; 12] = [0; 12];

/// The handshake by cluster key and node keys.
#[derive(Debug)]
pub struct KeyedHandshake {
    role: Role,
    step: Step,
    key_id: KeyId,
    identity: PeerIdentity,
    node_key: NodeKey,
    ephemeral: NodeKey,
    chain: Chain,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Start,
    AwaitHello,
    AwaitResponder,
    AwaitInitiator,
    Over,
}

/// What differs between the two messages that carry an identity.
#[derive(Clone, Copy, Debug)]
struct Labels {
    identity: &'static str,
    proof: &'static str,
}

const RESPONDER: Labels = Labels { identity: "responder identity", proof: "responder proof" };
const INITIATOR: Labels = Labels { identity: "initiator identity", proof: "initiator proof" };

impl KeyedHandshake {
    /// A handshake whose ephemeral secret is `random`.
    ///
    /// # Panics
    /// When the public key of `config.identity` is not that of `config.node_key`.
    #[must_use]
    pub fn new(role: Role, config: Config, random: [u8; 32]) -> Self {
        assert_eq!(config.identity.public, config.node_key.public(), "a node introduces itself by its own key");
        Self {
            role,
            step: Step::Start,
            key_id: config.key.id(),
            identity: config.identity,
            node_key: config.node_key,
            ephemeral: NodeKey::from_bytes(random),
            chain: Chain::new(config.key.derive(SESSION_CONTEXT, &[])),
        }
    }

    fn send_hello(&mut self, transmit: &mut BytesMut) {
        let start = transmit.len();
        transmit.put_u8(SESSION_VERSION);
        transmit.put_slice(&self.key_id.0);
        transmit.put_slice(&self.ephemeral.public());
        self.chain.absorb(transmit.get(start..).unwrap_or_default());
        self.send_proof("initiator hello", transmit);
    }

    /// The initiator's ephemeral key. A hello is refused at its first wrong byte, not at its last.
    fn take_hello(&mut self, received: &mut BytesMut) -> Result<Option<[u8; PUBLIC_BYTES]>, SessionError> {
        let Some((&[version], rest)) = received.split_first_chunk::<1>() else {
            return Ok(None);
        };
        if version != SESSION_VERSION {
            return Err(SessionError::Version { theirs: version });
        }
        let Some((key_id, rest)) = rest.split_first_chunk::<KEY_ID_BYTES>() else {
            return Ok(None);
        };
        if *key_id != self.key_id.0 {
            return Err(SessionError::WrongKey { theirs: KeyId(*key_id), ours: self.key_id });
        }
        let Some((ephemeral, rest)) = rest.split_first_chunk::<PUBLIC_BYTES>() else {
            return Ok(None);
        };
        let Some((proof, rest)) = rest.split_first_chunk::<PROOF_BYTES>() else {
            return Ok(None);
        };
        if !rest.is_empty() {
            return Err(PeerMisbehaved::TooEarly { bytes: rest.len() }.into());
        }
        let (ephemeral, proof) = (*ephemeral, *proof);
        self.chain.absorb(received.get(..HELLO_BYTES).unwrap_or_default());
        self.check_proof("initiator hello", &proof)?;
        received.clear();
        Ok(Some(ephemeral))
    }

    fn answer_hello(&mut self, theirs: &[u8; PUBLIC_BYTES], transmit: &mut BytesMut) -> Result<(), PeerMisbehaved> {
        let ours = self.ephemeral.public();
        transmit.put_slice(&ours);
        self.chain.absorb(&ours);
        self.chain.mix(self.ephemeral.agree(theirs))?;
        self.send_identity(RESPONDER, transmit)?;
        self.chain.mix(self.node_key.agree(theirs))?;
        self.send_proof(RESPONDER.proof, transmit);
        Ok(())
    }

    fn take_responder(
        &mut self,
        received: &mut BytesMut,
        transmit: &mut BytesMut,
    ) -> Result<Option<PeerIdentity>, PeerMisbehaved> {
        let Some((theirs, rest)) = received.split_first_chunk::<PUBLIC_BYTES>() else {
            return Ok(None);
        };
        let theirs = *theirs;
        let Some(message) = IdentityMessage::parse(rest)? else {
            return Ok(None);
        };
        received.advance(PUBLIC_BYTES + message.total_bytes());
        self.chain.absorb(&theirs);
        self.chain.mix(self.ephemeral.agree(&theirs))?;
        let peer = self.open_identity(RESPONDER, &message)?;
        self.chain.mix(self.ephemeral.agree(&peer.public))?;
        self.check_proof(RESPONDER.proof, &message.proof)?;

        self.send_identity(INITIATOR, transmit)?;
        self.chain.mix(self.node_key.agree(&theirs))?;
        self.send_proof(INITIATOR.proof, transmit);
        Ok(Some(peer))
    }

    fn take_initiator(&mut self, received: &mut BytesMut) -> Result<Option<PeerIdentity>, PeerMisbehaved> {
        let Some(message) = IdentityMessage::parse(received)? else {
            return Ok(None);
        };
        received.advance(message.total_bytes());
        let peer = self.open_identity(INITIATOR, &message)?;
        self.chain.mix(self.ephemeral.agree(&peer.public))?;
        self.check_proof(INITIATOR.proof, &message.proof)?;
        Ok(Some(peer))
    }

    fn send_proof(&mut self, label: &str, transmit: &mut BytesMut) {
        let proof = self.chain.derive(label);
        self.chain.absorb(proof.as_bytes());
        transmit.put_slice(proof.as_bytes());
    }

    fn check_proof(&mut self, label: &str, proof: &[u8; PROOF_BYTES]) -> Result<(), PeerMisbehaved> {
        // Hashes compare in constant time.
        if self.chain.derive(label) != blake3::Hash::from_bytes(*proof) {
            return Err(PeerMisbehaved::HandshakeForged);
        }
        self.chain.absorb(proof);
        Ok(())
    }

    fn send_identity(&mut self, labels: Labels, transmit: &mut BytesMut) -> Result<(), PeerMisbehaved> {
        let mut sealed = postcard::to_allocvec(&self.identity).map_err(|_| PeerMisbehaved::IdentityGarbage)?;
        let length = u16::try_from(sealed.len() + TAG_BYTES).unwrap_or(u16::MAX).to_le_bytes();
        self.chain.absorb(&length);
        let tag = self
            .chain
            .cipher(labels.identity)
            .encrypt_inout_detached(&NONCE.into(), &[], sealed.as_mut_slice().into())
            .map_err(|_| PeerMisbehaved::IdentityGarbage)?;
        sealed.extend_from_slice(&tag);
        self.chain.absorb(&sealed);
        transmit.put_slice(&length);
        transmit.put_slice(&sealed);
        Ok(())
    }

    fn open_identity(&mut self, labels: Labels, message: &IdentityMessage) -> Result<PeerIdentity, PeerMisbehaved> {
        self.chain.absorb(&message.length);
        let cipher = self.chain.cipher(labels.identity);
        self.chain.absorb(&message.sealed);
        let mut sealed = message.sealed.clone();
        let (identity, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>().ok_or(PeerMisbehaved::HandshakeForged)?;
        cipher
            .decrypt_inout_detached(&NONCE.into(), &[], (&mut *identity).into(), (&*tag).into())
            .map_err(|_| PeerMisbehaved::HandshakeForged)?;
        match postcard::take_from_bytes(identity) {
            Ok((identity, [])) => Ok(identity),
            Ok(_) | Err(_) => Err(PeerMisbehaved::IdentityGarbage),
        }
    }

    fn agreed(&mut self, peer: PeerIdentity) -> Agreed {
        let from_initiator = *self.chain.derive("traffic from initiator").as_bytes();
        let from_responder = *self.chain.derive("traffic from responder").as_bytes();
        let (sending_key, receiving_key) = match self.role {
            Role::Initiator => (from_initiator, from_responder),
            Role::Responder => (from_responder, from_initiator),
        };
        Agreed { peer, sending_key, receiving_key }
    }
}

impl Handshake for KeyedHandshake {
    fn advance(&mut self, received: &mut BytesMut, transmit: &mut BytesMut) -> Result<Option<Agreed>, SessionError> {
        if let Step::Start = self.step {
            self.step = match self.role {
                Role::Initiator => {
                    self.send_hello(transmit);
                    Step::AwaitResponder
                }
                Role::Responder => Step::AwaitHello,
            };
        }
        let peer = match self.step {
            Step::AwaitHello => {
                if let Some(ephemeral) = self.take_hello(received)? {
                    self.answer_hello(&ephemeral, transmit)?;
                    self.step = Step::AwaitInitiator;
                }
                None
            }
            Step::AwaitResponder => self.take_responder(received, transmit)?,
            Step::AwaitInitiator => self.take_initiator(received)?,
            Step::Start | Step::Over => None,
        };
        Ok(peer.map(|peer| {
            self.step = Step::Over;
            self.agreed(peer)
        }))
    }
}

/// The part that messages two and three have in common.
#[derive(Debug)]
struct IdentityMessage {
    length: [u8; LENGTH_BYTES],
    sealed: Vec<u8>,
    proof: [u8; PROOF_BYTES],
}

impl IdentityMessage {
    /// None until all of it has arrived.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, PeerMisbehaved> {
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let sealed_bytes = usize::from(u16::from_le_bytes(*length));
        if sealed_bytes > IDENTITY_BYTES_MAX {
            return Err(PeerMisbehaved::IdentityTooLong { bytes: sealed_bytes });
        }
        let Some((sealed, rest)) = rest.split_at_checked(sealed_bytes) else {
            return Ok(None);
        };
        Ok(rest.first_chunk::<PROOF_BYTES>().map(|proof| Self {
            length: *length,
            sealed: sealed.to_vec(),
            proof: *proof,
        }))
    }

    fn total_bytes(&self) -> usize {
        LENGTH_BYTES + self.sealed.len() + PROOF_BYTES
    }
}

/// A key that takes in secrets, and a hash that takes in what was sent.
struct Chain {
    key: [u8; 32],
    transcript: blake3::Hasher,
}

impl Chain {
    fn new(key: [u8; 32]) -> Self {
        Self { key, transcript: blake3::Hasher::new() }
    }

    fn absorb(&mut self, sent: &[u8]) {
        self.transcript.update(sent);
    }

    fn mix(&mut self, shared: Option<[u8; 32]>) -> Result<(), PeerMisbehaved> {
        let shared = shared.ok_or(PeerMisbehaved::DegenerateKey)?;
        self.key = *blake3::keyed_hash(&self.key, &shared).as_bytes();
        Ok(())
    }

    fn derive(&self, label: &str) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(self.transcript.finalize().as_bytes());
        hasher.update(label.as_bytes());
        hasher.finalize()
    }

    fn cipher(&self, label: &str) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(self.derive(label).as_bytes().into())
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::ClusterKey;
    use crate::session::Session;
    use crate::{Boot, ClusterId};

    fn handshake(role: Role, secret: u8) -> KeyedHandshake {
        let node_key = NodeKey::from_bytes([secret; 32]);
        let identity = PeerIdentity {
            public: node_key.public(),
            boot: Boot([1; 16]),
            cluster: ClusterId([2; 16]),
            empty: false,
            wire: 1,
        };
        let config = Config {
            key: ClusterKey::new("NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl").unwrap(),
            identity,
            node_key,
            compression: false,
        };
        KeyedHandshake::new(role, config, [secret + 100; 32])
    }

    fn session(handshake: KeyedHandshake) -> Session {
        Session::with_handshake(Box::new(handshake), false)
    }

    /// A holder of the cluster key that knows another node's public key, and not its secret.
    fn impostor(role: Role) -> KeyedHandshake {
        let mut impostor = handshake(role, 1);
        impostor.identity.public = NodeKey::from_bytes([7; 32]).public();
        impostor
    }

    fn refusal(initiator: KeyedHandshake, responder: KeyedHandshake) -> Option<SessionError> {
        let (mut initiator, mut responder) = (session(initiator), session(responder));
        for turn in 0..3 {
            let (from, to) = match turn {
                1 => (&mut responder, &mut initiator),
                _ => (&mut initiator, &mut responder),
            };
            let bytes = from.poll_transmit().unwrap();
            if let Err(error) = to.handle_bytes(&bytes) {
                assert_eq!(to.poll_transmit(), None);
                assert!(!to.is_established());
                return Some(error);
            }
        }
        None
    }

    #[test]
    fn nobody_passes_for_a_node_whose_secret_it_does_not_hold() {
        let forged = Some(PeerMisbehaved::HandshakeForged.into());
        let (initiator, responder) = (Role::Initiator, Role::Responder);
        assert_eq!(refusal(handshake(initiator, 1), handshake(responder, 2)), None);
        assert_eq!(refusal(impostor(initiator), handshake(responder, 2)), forged);
        assert_eq!(refusal(handshake(initiator, 2), impostor(responder)), forged);
    }

    #[test]
    fn a_public_key_that_everybody_shares_is_refused() {
        let degenerate = Some(PeerMisbehaved::DegenerateKey.into());
        let mut initiator = handshake(Role::Initiator, 1);
        initiator.identity.public = [0; 32];
        assert_eq!(refusal(initiator, handshake(Role::Responder, 2)), degenerate);
        let mut responder = handshake(Role::Responder, 1);
        responder.identity.public = [0; 32];
        assert_eq!(refusal(handshake(Role::Initiator, 2), responder), degenerate);
    }

    #[test]
    #[should_panic(expected = "its own key")]
    fn a_node_cannot_introduce_itself_by_another_key() {
        let mut wrong = handshake(Role::Initiator, 1);
        wrong.identity.public = [0; 32];
        let config = Config {
            key: ClusterKey::new("NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl").unwrap(),
            identity: wrong.identity,
            node_key: wrong.node_key,
            compression: false,
        };
        let _ = KeyedHandshake::new(Role::Initiator, config, [0; 32]);
    }
}
