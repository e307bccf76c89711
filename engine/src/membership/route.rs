//! What the stream to a member goes through, and whether there is better.

use crate::identity::Address;

/// What a stream goes through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// The member opened it. It knows what it went through, and looks for better itself.
    #[default]
    Accepted,
    /// This node opened it to an address.
    To(Address),
    /// It goes through a third member, whoever asked for that.
    Circuit,
}

impl Route {
    /// How many of the member's addresses, from the first, would be better. An address that is none of them counts as
    /// the best: somebody has given it as a seed.
    #[must_use]
    pub fn better(&self, addresses: &[Address]) -> usize {
        match self {
            Self::Accepted => 0,
            Self::To(to) => addresses.iter().position(|address| address == to).unwrap_or_default(),
            Self::Circuit => addresses.len().max(1),
        }
    }
}
