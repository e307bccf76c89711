//! How changes reach peers, told by what one engine sends, stores and answers.

mod damaged;
mod hand;
mod held;
mod history;
mod range;
mod windows;
