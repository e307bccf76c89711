//! How changes reach peers, told by what one engine sends, stores and answers.

mod circuits;
mod damaged;
mod displaced;
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod hand;
mod held;
mod history;
mod range;
mod review;
mod windows;
