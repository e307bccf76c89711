//! Streams between servers inside WebSockets inside TLS, for where nothing but HTTPS gets through.
//!
//! What goes through is a session as it is over TCP, sealed between the two servers: TLS is for what stands in between,
//! which may end it, look into it and go on with it, and neither reads nor forges what the servers say. One binary message
//! carries one run of bytes; where it begins and ends means nothing.

mod accept;
mod dial;
mod frames;

pub use self::accept::{Arrival, Pipe};
pub(crate) use self::accept::{Switched, switch};
pub use self::dial::Dialer;
pub(crate) use self::dial::{DialError, connect};
pub use self::frames::WebSocket;

/// Where a server answers other servers' WebSockets, behind the prefix of its address.
pub const PATH: &str = "/api/cluster/stream";
