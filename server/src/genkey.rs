//! Cluster keys.

/// Characters in a key.
pub use knot_engine::seal::CLUSTER_KEY_CHARACTERS as KEY_CHARACTERS;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A fresh key of 32 letters and digits, each equally likely: 190 bits.
///
/// # Errors
/// When the system has no randomness to give.
pub fn generate_key() -> Result<String, getrandom::Error> {
    let mut key = String::with_capacity(KEY_CHARACTERS);
    while key.len() < KEY_CHARACTERS {
        let mut bytes = [0; KEY_CHARACTERS];
        getrandom::fill(&mut bytes)?;
        // Bytes whose low six bits name no character are drawn again; folding them over would favour the first two.
        let drawn = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 63)));
        key.extend(drawn.take(KEY_CHARACTERS - key.len()).map(|byte| char::from(*byte)));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClusterKey;

    #[test]
    fn a_key_is_accepted_by_the_config_and_never_the_same() {
        let (a, b) = (generate_key().expect("random"), generate_key().expect("random"));
        assert_ne!(a, b);
        assert!(a.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        ClusterKey::new(&a).expect("the config takes it");
    }
}
