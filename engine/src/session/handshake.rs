//! The handshake: `Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s`, revision 34 of the Noise protocol framework, by snow.
//!
//! ```text
//! 1 initiator:  version u8 | key id 4 | ephemeral 32 | tag 16
//! 2 responder:  length u16 | ephemeral 32 | static key, sealed 48 | introduction, sealed
//! 3 initiator:  length u16 | static key, sealed 48 | introduction, sealed
//! ```
//!
//! The pre-shared key is derived from the cluster key and the cluster's name, the prologue holds version, key id and
//! name, and the static keys are those of the two nodes, so a node is who its id says. The key id in the clear is a hint
//! at which of several keys to try. A first message that does not verify gets no answer.
//!
//! A recorded first message draws a second one, sealed, from a responder that cannot know it for a recording; the
//! recording's sender can make nothing of it, and its third message fails. Compromised cluster and node keys do not open
//! recordings of earlier sessions, whose ephemeral secrets are gone.

use std::fmt;

use bytes::{Buf, BufMut, BytesMut};
use serde::{Deserialize, Serialize};
use snow::{Builder, HandshakeState};

use super::noise::Primitives;
use super::{Agreed, Config, Handshake, PeerMisbehaved, Role, SESSION_VERSION, SessionError};
use crate::seal::{ClusterKey, KeyId};
use crate::{Boot, ClusterId, PeerIdentity};

const PATTERN: &str = "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s";
const PSK_CONTEXT: &str = "knot 2026-11-22 session psk v2";
const KEY_ID_BYTES: usize = 4;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES;
/// The first message: an ephemeral public key and the tag of an empty payload.
const HELLO_BYTES: usize = 32 + 16;
const LENGTH_BYTES: usize = 2;
/// The longest second or third message; today's are about 150 bytes.
const MESSAGE_BYTES_MAX: usize = 512;

/// The handshake by cluster keys and node keys.
pub struct NoiseHandshake {
    config: Config,
    random: [u8; 32],
    step: Step,
}

enum Step {
    /// Nothing has been sent.
    Start,
    /// A responder waits for the first message.
    Hello,
    /// Waits for the second or third message under this key.
    Message(Box<HandshakeState>, KeyId),
    Over,
}

/// What a node says of itself beside its static key.
#[derive(Debug, Serialize, Deserialize)]
struct Introduction {
    boot: Boot,
    cluster: ClusterId,
    empty: bool,
    wire: u16,
}

impl NoiseHandshake {
    /// A handshake whose ephemeral secret is derived from `random`.
    ///
    /// # Panics
    /// When the public key of `config.identity` is not that of `config.node_key`.
    #[must_use]
    pub fn new(role: Role, config: Config, random: [u8; 32]) -> Self {
        assert_eq!(config.identity.public, config.node_key.public(), "a node introduces itself by its own key");
        let step = match role {
            Role::Initiator => Step::Start,
            Role::Responder => Step::Hello,
        };
        Self { config, random, step }
    }

    fn state(&self, role: Role, key: &ClusterKey) -> Result<HandshakeState, snow::Error> {
        let psk = key.derive(PSK_CONTEXT, &[self.config.cluster.as_bytes()]);
        let prologue = [&head(key.id())[..], self.config.cluster.as_bytes()].concat();
        let secret = self.config.node_key.secret();
        let builder = Builder::with_resolver(PATTERN.parse()?, Box::new(Primitives(self.random)))
            .local_private_key(&secret)?
            .psk(0, &psk)?
            .prologue(&prologue)?;
        match role {
            Role::Initiator => builder.build_initiator(),
            Role::Responder => builder.build_responder(),
        }
    }

    fn send_hello(&mut self, transmit: &mut BytesMut) -> Result<(), SessionError> {
        let mut state = self.state(Role::Initiator, self.config.keys.first()).map_err(forged)?;
        let key = self.config.keys.first().id();
        let mut message = [0; HELLO_BYTES];
        let written = state.write_message(&[], &mut message).map_err(forged)?;
        transmit.put_slice(&head(key));
        transmit.put_slice(message.get(..written).unwrap_or_default());
        self.step = Step::Message(Box::new(state), key);
        Ok(())
    }

    /// A hello is refused at its first wrong byte, not at its last.
    fn take_hello(&mut self, received: &mut BytesMut, transmit: &mut BytesMut) -> Result<(), SessionError> {
        let Some((&[version], rest)) = received.split_first_chunk::<1>() else {
            return Ok(());
        };
        if version != SESSION_VERSION {
            return Err(SessionError::Version { theirs: version });
        }
        let Some((key_id, rest)) = rest.split_first_chunk::<KEY_ID_BYTES>() else {
            return Ok(());
        };
        let (theirs, ours) = (KeyId(*key_id), self.config.keys.first().id());
        let key = self.config.keys.by_id(theirs).ok_or(SessionError::WrongKey { theirs, ours })?;
        let Some((hello, rest)) = rest.split_first_chunk::<HELLO_BYTES>() else {
            return Ok(());
        };
        if !rest.is_empty() {
            return Err(PeerMisbehaved::TooEarly { bytes: rest.len() }.into());
        }
        let mut state = self.state(Role::Responder, key).map_err(forged)?;
        state.read_message(hello, &mut []).map_err(|error| {
            if error == snow::Error::Decrypt { SessionError::OtherCluster } else { forged(error).into() }
        })?;
        received.clear();
        self.send_message(&mut state, transmit)?;
        self.step = Step::Message(Box::new(state), theirs);
        Ok(())
    }

    /// The second or the third message: who this node is.
    fn send_message(&self, state: &mut HandshakeState, transmit: &mut BytesMut) -> Result<(), PeerMisbehaved> {
        let PeerIdentity { public: _, boot, cluster, empty, wire } = self.config.identity;
        let introduction = Introduction { boot, cluster, empty, wire };
        let payload = postcard::to_allocvec(&introduction).map_err(|_| PeerMisbehaved::IdentityGarbage)?;
        let mut message = [0; MESSAGE_BYTES_MAX];
        let written = state.write_message(&payload, &mut message).map_err(forged)?;
        transmit.put_u16_le(u16::try_from(written).unwrap_or(u16::MAX));
        transmit.put_slice(message.get(..written).unwrap_or_default());
        Ok(())
    }

    fn take_message(
        &self,
        state: &mut HandshakeState,
        received: &mut BytesMut,
    ) -> Result<Option<PeerIdentity>, PeerMisbehaved> {
        let Some((length, rest)) = received.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let bytes = usize::from(u16::from_le_bytes(*length));
        if bytes > MESSAGE_BYTES_MAX {
            return Err(PeerMisbehaved::IdentityTooLong { bytes });
        }
        let Some((message, _)) = rest.split_at_checked(bytes) else {
            return Ok(None);
        };
        let mut payload = [0; MESSAGE_BYTES_MAX];
        let read = state.read_message(message, &mut payload).map_err(forged)?;
        let public = state.get_remote_static().and_then(|key| key.first_chunk().copied());
        let public = public.ok_or(PeerMisbehaved::HandshakeForged)?;
        let peer = match postcard::take_from_bytes(payload.get(..read).unwrap_or_default()) {
            Ok((Introduction { boot, cluster, empty, wire }, [])) => {
                PeerIdentity { public, boot, cluster, empty, wire }
            }
            Ok(_) | Err(_) => return Err(PeerMisbehaved::IdentityGarbage),
        };
        received.advance(LENGTH_BYTES + bytes);
        Ok(Some(peer))
    }

    fn take_last(
        &mut self,
        mut state: Box<HandshakeState>,
        key: KeyId,
        received: &mut BytesMut,
        transmit: &mut BytesMut,
    ) -> Result<Option<Agreed>, SessionError> {
        let Some(peer) = self.take_message(&mut state, received)? else {
            self.step = Step::Message(state, key);
            return Ok(None);
        };
        if !state.is_handshake_finished() {
            self.send_message(&mut state, transmit)?;
        }
        let (from_initiator, from_responder) = state.dangerously_get_raw_split();
        let (sending_key, receiving_key) =
            if state.is_initiator() { (from_initiator, from_responder) } else { (from_responder, from_initiator) };
        Ok(Some(Agreed { peer, key, sending_key, receiving_key }))
    }
}

impl Handshake for NoiseHandshake {
    fn advance(&mut self, received: &mut BytesMut, transmit: &mut BytesMut) -> Result<Option<Agreed>, SessionError> {
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Start => self.send_hello(transmit).map(|()| None),
            Step::Hello => {
                self.step = Step::Hello;
                self.take_hello(received, transmit).map(|()| None)
            }
            Step::Message(state, key) => self.take_last(state, key, received, transmit),
            Step::Over => Ok(None),
        }
    }
}

impl fmt::Debug for NoiseHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Start => "start",
            Step::Hello => "waits for a hello",
            Step::Message(..) => "waits for an answer",
            Step::Over => "over",
        };
        f.debug_struct("NoiseHandshake").field("step", &step).finish_non_exhaustive()
    }
}

/// What goes ahead of the first message in the clear.
fn head(key_id: KeyId) -> [u8; HEAD_BYTES] {
    let [a, b, c, d] = key_id.0;
    [SESSION_VERSION, a, b, c, d]
}

fn forged(error: snow::Error) -> PeerMisbehaved {
    if error == snow::Error::Dh { PeerMisbehaved::DegenerateKey } else { PeerMisbehaved::HandshakeForged }
}
