//! Servers probe each other, know how far away they are, and hold the streams by which news travel.

use std::time::Duration;

use knot_engine::Instant;

use super::{Checkers, Invariant};

/// Fewest streams of a server where not each holds one with each: one neighbour in its zone, and one anywhere.
pub(crate) const STREAMS_MIN: usize = 2;

impl Checkers {
    /// A server watches another of its zone, and last heard from it so long ago.
    pub(crate) fn report_unheard(&mut self, (node, other): (usize, usize), ago: Option<Duration>, now: Instant) {
        self.report(Invariant::HeardInTime, now, node, || match ago {
            Some(ago) => format!("it heard of n{other}, which it watches, {ago:?} ago"),
            None => format!("it has never heard of n{other}, which it watches"),
        });
    }

    /// A server takes the round trip to another for something that the network does not allow.
    pub(crate) fn check_round_trip(
        &mut self,
        (node, other): (usize, usize),
        measured: Option<Duration>,
        (least, most): (Duration, Duration),
        now: Instant,
    ) {
        if measured.is_none_or(|rtt| rtt < least || rtt > most) {
            self.report(Invariant::HeardInTime, now, node, || {
                format!("it takes the way to n{other} and back for {measured:?}, and it is from {least:?} to {most:?}")
            });
        }
    }

    /// A server holds these streams, and what it says of their number.
    pub(crate) fn check_streams(&mut self, node: usize, with: &[usize], says: usize, now: Instant) {
        if with.len() < STREAMS_MIN || with.len() > says {
            self.report(Invariant::HeardInTime, now, node, || {
                format!("it holds streams with {with:?}, and says that they are {says}")
            });
        }
    }

    /// Streams do not join all servers: this one is not reached from the first.
    pub(crate) fn report_apart(&mut self, node: usize, now: Instant) {
        self.report(Invariant::HeardInTime, now, node, || "no way by streams leads to it from the others".to_owned());
    }

    /// A server has no stream with another, where each holds one with each.
    pub(crate) fn report_unconnected(&mut self, (node, other): (usize, usize), quiet: Duration, now: Instant) {
        self.report(Invariant::Connected, now, node, || {
            format!("nothing has happened for {quiet:?}, and it has no stream with n{other}")
        });
    }
}
