//! How fast the membership machine works, and for how long it remembers.

use std::time::Duration;

use super::records::Records;

/// Periods and limits of failure detection and gossip. The defaults suit servers from one rack to across continents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Between two probes of this node, times its local health (1 to 9). 1 s, as in memberlist.
    pub probe_interval: Duration,
    /// Least wait for a direct answer, however short the measured round trip. 100 ms.
    pub probe_timeout_min: Duration,
    /// Most wait for a direct answer inside the zone, and the wait before any was measured. 500 ms, as in memberlist.
    pub probe_timeout_max: Duration,
    /// The same across zones. 2 s.
    pub cross_zone_timeout_max: Duration,
    /// Members asked to probe on this node's behalf after a miss. 3, as in SWIM.
    pub indirect_probes: usize,
    /// Between two rounds of gossip while there is something to tell. 200 ms, as in memberlist.
    pub gossip_interval: Duration,
    /// Members told in a round. 3.
    pub gossip_fanout: usize,
    /// A suspicion that enough others confirm lasts this times log10(n), with n at least 10. 4 s, as in memberlist.
    pub suspicion_min: Duration,
    /// An unconfirmed suspicion lasts this many times longer. 6, as in Lifeguard.
    pub suspicion_max_factor: u32,
    /// Accusers beside the first that bring a suspicion down to its minimum. 3, as in Lifeguard.
    pub suspicion_confirmations: usize,
    /// How long failures are held back while this node seems to be the one cut off. 30 s.
    pub cut_off_hold: Duration,
    /// Between two attempts at the seeds while no stream to any member is open. 3 s.
    pub seed_retry: Duration,
    /// The same once isolation has lasted for `seed_patience`. 30 s.
    pub seed_retry_slow: Duration,
    /// 5 min.
    pub seed_patience: Duration,
    /// Between two attempts at one seed that no connected member answers for, while all is well. 60 s.
    pub seed_refresh: Duration,
    /// First wait before connecting again to a member; doubles up to `connect_retry_max`. 250 ms.
    pub connect_retry_min: Duration,
    /// 5 s, so that a healed partition is noticed soon.
    pub connect_retry_max: Duration,
    /// Between two attempts at a better way than the stream to a member goes. 60 s.
    pub better_retry: Duration,
    /// How long an attempt may go unanswered before it counts as failed. 5 s.
    pub connect_timeout: Duration,
    /// How long the member with the higher id leaves connecting to the other. 2 s.
    pub connect_courtesy: Duration,
    /// Between two attempts at a member that failed longer than `failed_patience` ago. 30 s.
    pub failed_retry: Duration,
    /// 10 min.
    pub failed_patience: Duration,
    /// Between two datagrams to suspect and failed members, taking turns. 1 s.
    pub failed_probe: Duration,
    /// How long a failed member stays listed. 72 h.
    pub failed_retention: Duration,
    /// How long a member that left stays listed. 24 h.
    pub left_retention: Duration,
    /// How long a member known from before a restart may stay silent before it counts as failed. 30 s.
    pub restored_grace: Duration,
    /// Most time a goodbye takes. 2 s.
    pub leave_timeout: Duration,
    /// Most live members, this node included, of whom each holds a stream with each and sends its changes to each; beyond,
    /// both take ways round. 32.
    pub full_mesh: usize,
    /// With whom records are shared. Nobody.
    pub records: Records,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_secs(1),
            probe_timeout_min: Duration::from_millis(100),
            probe_timeout_max: Duration::from_millis(500),
            cross_zone_timeout_max: Duration::from_secs(2),
            indirect_probes: 3,
            gossip_interval: Duration::from_millis(200),
            gossip_fanout: 3,
            suspicion_min: Duration::from_secs(4),
            suspicion_max_factor: 6,
            suspicion_confirmations: 3,
            cut_off_hold: Duration::from_secs(30),
            seed_retry: Duration::from_secs(3),
            seed_retry_slow: Duration::from_secs(30),
            seed_patience: Duration::from_secs(300),
            seed_refresh: Duration::from_secs(60),
            connect_retry_min: Duration::from_millis(250),
            connect_retry_max: Duration::from_secs(5),
            better_retry: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            connect_courtesy: Duration::from_secs(2),
            failed_retry: Duration::from_secs(30),
            failed_patience: Duration::from_secs(600),
            failed_probe: Duration::from_secs(1),
            failed_retention: Duration::from_secs(72 * 3600),
            left_retention: Duration::from_secs(24 * 3600),
            restored_grace: Duration::from_secs(30),
            leave_timeout: Duration::from_secs(2),
            full_mesh: 32,
            records: Records::default(),
        }
    }
}
