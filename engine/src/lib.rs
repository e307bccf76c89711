//! skeleton
pub mod documents;
mod faults;
mod identity;
pub mod membership;
mod random;
pub mod storage;
mod time;
pub use self::faults::Faults;
pub use self::identity::*;
pub use self::random::{Random, Seed};
pub use self::time::{Instant, Wall};
