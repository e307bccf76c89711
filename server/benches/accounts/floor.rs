//! The least that a request could take: what has to be done in any case, and nothing around it.

use std::io;
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use knot_server::accounts::PasswordCost;
use serde_json::Value;

use crate::fill::PASSWORD;
use crate::report::percentile;

const VERIFICATIONS: usize = 50;
const SERIALISATIONS: usize = 200;

/// The median time of one pass of argon2id over a password, at the cost that passwords have.
pub(crate) fn verification() -> Duration {
    let PasswordCost { memory_kib, passes } = PasswordCost::default();
    let params = Params::new(memory_kib, passes, 1, None).expect("the cost is one that argon2 takes");
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    // Memory that is there already: asking the system for it takes as long again.
    let mut memory = vec![Block::default(); argon2.params().block_count()];
    let verify = |_| {
        let began = Instant::now();
        let mut hash = [0; 32];
        let hashed = argon2.hash_password_into_with_memory(PASSWORD.as_bytes(), &[7; 16], &mut hash, &mut memory);
        hashed.expect("a password is hashed");
        std::hint::black_box(hash);
        began.elapsed()
    };
    percentile(&mut (0..VERIFICATIONS).map(verify).collect::<Vec<_>>(), 50)
}

/// The median time of writing an answer's JSON once more.
pub(crate) fn serialising(answer: &str) -> io::Result<Duration> {
    let value: Value = serde_json::from_str(answer)?;
    let mut samples = Vec::with_capacity(SERIALISATIONS);
    for _ in 0..SERIALISATIONS {
        let began = Instant::now();
        std::hint::black_box(serde_json::to_vec(&value)?);
        samples.push(began.elapsed());
    }
    Ok(percentile(&mut samples, 50))
}
