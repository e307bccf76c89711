//! How changes reach peers, told by what one engine sends, stores and answers.

mod hand;
mod held;
mod history;
mod windows;
