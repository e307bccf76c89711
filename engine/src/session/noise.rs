//! What the Noise protocol is made of here: randomness that is handed in, the curve and the cipher that the rest of the
//! engine uses as well, and BLAKE2s.

use blake2::{Blake2s256, Digest};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};

use crate::NodeKey;

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// Takes all that is random in a handshake from this seed, which is used nowhere else.
pub(super) struct Primitives(pub(super) [u8; KEY_BYTES]);

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Drawn(blake3::Hasher::new_keyed(&self.0).finalize_xof())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(Curve25519::default()) as _)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::Blake2s).then(|| Box::new(Blake2s(Blake2s256::new())) as _)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::new(ChaChaPoly(cipher(&[0; KEY_BYTES]))) as _)
    }
}

struct Drawn(blake3::OutputReader);

impl Random for Drawn {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.0.fill(dest);
        Ok(())
    }
}

/// A key pair, once there is one.
#[derive(Default)]
struct Curve25519 {
    key: Option<NodeKey>,
    secret: [u8; KEY_BYTES],
    public: [u8; KEY_BYTES],
}

impl Curve25519 {
    fn of(secret: [u8; KEY_BYTES]) -> Self {
        let key = NodeKey::from_bytes(secret);
        Self { public: key.public(), key: Some(key), secret }
    }
}

impl Dh for Curve25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    fn set(&mut self, privkey: &[u8]) {
        if let Ok(secret) = privkey.try_into() {
            *self = Self::of(secret);
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut secret = [0; KEY_BYTES];
        rng.try_fill_bytes(&mut secret)?;
        *self = Self::of(secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.secret
    }

    /// Refuses the few points for which everybody can compute the outcome: else whoever holds the cluster key could pass
    /// for the node that such a point names.
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let theirs = pubkey.first_chunk().ok_or(Error::Input)?;
        let shared = self.key.as_ref().and_then(|key| key.agree(theirs)).ok_or(Error::Dh)?;
        out.get_mut(..KEY_BYTES).ok_or(Error::Input)?.copy_from_slice(&shared);
        Ok(())
    }
}

struct ChaChaPoly(ChaCha20Poly1305);

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY_BYTES]) {
        self.0 = cipher(key);
    }

    /// # Panics
    /// When `out` has no room for the tag, or what is to be sealed is longer than any message of this protocol.
    fn encrypt(&self, counter: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (sealed, rest) = out.split_at_mut(plaintext.len());
        sealed.copy_from_slice(plaintext);
        let tag = self.0.encrypt_inout_detached(&nonce(counter), authtext, sealed.into());
        rest[..TAG_BYTES].copy_from_slice(&tag.expect("a message is far shorter than the cipher's limit"));
        plaintext.len() + TAG_BYTES
    }

    fn decrypt(&self, counter: u64, authtext: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let (sealed, tag) = ciphertext.split_last_chunk::<TAG_BYTES>().ok_or(Error::Decrypt)?;
        let plain = out.get_mut(..sealed.len()).ok_or(Error::Input)?;
        plain.copy_from_slice(sealed);
        self.0
            .decrypt_inout_detached(&nonce(counter), authtext, plain.into(), tag.into())
            .map_err(|_| Error::Decrypt)?;
        Ok(sealed.len())
    }
}

struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        KEY_BYTES
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = self.0.finalize_reset();
        out.iter_mut().zip(hash).for_each(|(out, byte)| *out = byte);
    }
}

fn cipher(key: &[u8; KEY_BYTES]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(key.into())
}

/// A counter as the nonce that Noise makes of it.
pub(super) fn nonce(counter: u64) -> chacha20poly1305::Nonce {
    let [a, b, c, d, e, f, g, h] = counter.to_le_bytes();
    [0, 0, 0, 0, a, b, c, d, e, f, g, h].into()
}
