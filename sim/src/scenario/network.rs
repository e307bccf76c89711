//! What packets go through when nothing is wrong.

use serde::{Deserialize, Serialize};

/// The network between all servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSpec {
    /// One way within a zone, in microseconds.
    pub near_us: u64,
    /// One way between zones that no link names, in microseconds.
    pub far_us: u64,
    /// Up to this much more, in per cent of the latency.
    pub jitter_percent: u64,
    /// How the jitter is spread.
    pub spread: Spread,
    /// Datagrams lost of a thousand.
    pub loss_per_mille: u64,
    /// Datagrams that arrive twice, of a thousand.
    pub duplicate_per_mille: u64,
    /// Datagrams that are overtaken, of a thousand.
    pub reorder_per_mille: u64,
    /// Pairs of zones that are not as the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkSpec>,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            near_us: 300,
            far_us: 40_000,
            jitter_percent: 5,
            spread: Spread::Even,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            reorder_per_mille: 0,
            links: Vec::new(),
        }
    }
}

impl NetworkSpec {
    /// Nothing about it makes anybody wait longer than a packet takes.
    pub(super) fn be_well(&mut self) {
        (self.loss_per_mille, self.reorder_per_mille, self.spread) = (0, 0, Spread::Even);
        for link in &mut self.links {
            (link.loss_per_mille, link.bytes_per_s) = (0, None);
        }
    }

    /// Datagrams lost of a thousand where most are.
    #[must_use]
    pub fn loss_per_mille_most(&self) -> u64 {
        self.loss_per_mille + self.links.iter().map(|link| link.loss_per_mille).max().unwrap_or_default()
    }
}

/// How latencies lie between the least and the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// Each as often as any other.
    #[default]
    Even,
    /// Mostly near the least, now and then far beyond the most: the jitter is the mean of an exponential distribution,
    /// cut off at eight times itself.
    Tail,
}

/// The network between two zones, or within one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// The two zones; twice the same for the network within it.
    pub between: [String; 2],
    /// From the first to the second, in microseconds.
    pub one_way_us: u64,
    /// From the second to the first, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_us: Option<u64>,
    /// Datagrams lost of a thousand, beside those of the network.
    #[serde(default)]
    pub loss_per_mille: u64,
    /// Bytes a second that each pair of servers gets through, each way; none for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<u64>,
}

impl LinkSpec {
    /// A link that is the same both ways and loses nothing.
    #[must_use]
    pub fn new(one: &str, other: &str, one_way_us: u64) -> Self {
        Self {
            between: [one.to_owned(), other.to_owned()],
            one_way_us,
            back_us: None,
            loss_per_mille: 0,
            bytes_per_s: None,
        }
    }
}
