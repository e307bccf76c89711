//! Failed logins: counted by account and by host, so that guessing is slow and the owner is not shut out.
//!
//! An account takes at most [`TRIES_MAX`] wrong passwords an hour in the whole cluster. Each server allows its share of
//! that by itself, since servers that do not hear of each other must not each allow all; what other servers are known to
//! have counted comes off it. Who shows a session of the account's has a count of its own.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use super::refusal::Refusal;

/// Wrong passwords that an account takes in an hour.
pub const TRIES_MAX: u32 = 100;
/// Wrong passwords after which each next one is waited for.
const FREE_TRIES: u32 = 5;
/// Longest wait between two tries, in seconds.
const WAIT_S_MAX: u64 = 60;
/// Least share of a server in a large cluster.
const SHARE_MIN: u32 = FREE_TRIES;
/// Logins that are looked at from one host in a minute, right or wrong.
pub const HOST_TRIES_MAX: u32 = 120;
/// Accounts, and hosts, that are counted. Of more, those that failed longest ago are forgotten.
const COUNTED_MAX: usize = 20_000;

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

/// What is counted here.
#[derive(Debug, Default)]
pub struct Tries {
    /// By the hash of what names them.
    accounts: Mutex<HashMap<[u8; 16], Window>>,
    /// The same of names that nobody has, so that made-up ones drive no other out.
    strangers: Mutex<HashMap<[u8; 16], Window>>,
    hosts: Mutex<HashMap<[u8; 8], Window>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Which hour or minute, since 1970.
    period: i64,
    count: u32,
    /// When the last was counted, in milliseconds since 1970.
    last: i64,
}

/// Which hour it is, as counts are kept by.
#[must_use]
pub(super) fn hour(now: i64) -> i64 {
    now.div_euclid(HOUR_MS)
}

/// Whether other servers are told of a count: of so few that guessing does not fill their disks.
#[must_use]
pub(super) fn is_told(count: u32) -> bool {
    count >= FREE_TRIES && count.is_multiple_of(FREE_TRIES) && (count / FREE_TRIES).is_power_of_two()
}

impl Tries {
    /// Counts a try as a wrong one before it is looked at, so that many at once are no way around the count; says how many
    /// there are now. `elsewhere` is what other servers have counted in this hour, `servers` how many there are, this one
    /// included.
    ///
    /// # Errors
    /// When it has to wait. It is not counted then.
    pub fn begin(&self, account: &str, elsewhere: u32, servers: usize, now: i64) -> Result<u32, Refusal> {
        let key = hashed(account);
        let mut accounts = self.counts(account).lock().unwrap_or_else(PoisonError::into_inner);
        let known = accounts.get(&key).filter(|window| window.period == hour(now)).copied().unwrap_or_default();
        if known.count >= share(servers).min(TRIES_MAX.saturating_sub(elsewhere)) {
            return Err(until_next_hour(now));
        }
        if let Some(over) = known.count.checked_sub(FREE_TRIES) {
            let wait_s = 1_u64.checked_shl(over).unwrap_or(WAIT_S_MAX).min(WAIT_S_MAX);
            let passed_s = u64::try_from(now.saturating_sub(known.last) / 1_000).unwrap_or(0);
            if passed_s < wait_s {
                return Err(Refusal::TooManyTries { wait_s: wait_s - passed_s });
            }
        }
        Ok(count_in(&mut accounts, key, hour(now), now))
    }

    /// The password was right after all: forgets what was counted.
    pub fn forget(&self, account: &str) {
        self.counts(account).lock().unwrap_or_else(PoisonError::into_inner).remove(&hashed(account));
    }

    fn counts(&self, account: &str) -> &Mutex<HashMap<[u8; 16], Window>> {
        if account.starts_with('?') { &self.strangers } else { &self.accounts }
    }

    /// Counts a login from a host.
    ///
    /// # Errors
    /// When it has to wait.
    pub fn count_host(&self, host: [u8; 8], now: i64) -> Result<(), Refusal> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if count_in(&mut hosts, host, now.div_euclid(MINUTE_MS), now) <= HOST_TRIES_MAX {
            return Ok(());
        }
        let left = MINUTE_MS - now.rem_euclid(MINUTE_MS);
        Err(Refusal::TooManyTries { wait_s: u64::try_from(left / 1_000).unwrap_or(0) + 1 })
    }
}

fn hashed(account: &str) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(account.as_bytes()).as_bytes()[..16]);
    key
}

/// A server's share of an hour's tries.
fn share(servers: usize) -> u32 {
    let servers = u32::try_from(servers.max(1)).unwrap_or(u32::MAX);
    (TRIES_MAX / servers).max(SHARE_MIN)
}

fn until_next_hour(now: i64) -> Refusal {
    let left = HOUR_MS - now.rem_euclid(HOUR_MS);
    Refusal::TooManyTries { wait_s: u64::try_from(left / 1_000).unwrap_or(0) + 1 }
}

fn count_in<K: Eq + Hash + Clone>(windows: &mut HashMap<K, Window>, key: K, period: i64, now: i64) -> u32 {
    if windows.len() >= COUNTED_MAX && !windows.contains_key(&key) {
        windows.retain(|_, window| window.period == period);
        if windows.len() >= COUNTED_MAX
            && let Some(oldest) = windows.iter().min_by_key(|(_, window)| window.last).map(|(key, _)| key.clone())
        {
            windows.remove(&oldest);
        }
    }
    let window = windows.entry(key).or_default();
    if window.period != period {
        *window = Window { period, ..Window::default() };
    }
    window.count = window.count.saturating_add(1);
    window.last = now;
    window.count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries as fast as one may, for an hour.
    fn guesses_in_an_hour(servers: usize, elsewhere: u32) -> u32 {
        let tries = Tries::default();
        let mut guesses = 0;
        for now in (0..HOUR_MS).step_by(500) {
            guesses += u32::from(tries.begin("ann", elsewhere, servers, now).is_ok());
        }
        guesses
    }

    #[test]
    fn all_servers_together_take_no_more_than_the_bound() {
        for servers in 1..=20 {
            let guesses = guesses_in_an_hour(servers, 0) * u32::try_from(servers).unwrap();
            assert!((50..=TRIES_MAX).contains(&guesses), "{servers} servers: {guesses}");
        }
        assert_eq!(guesses_in_an_hour(1, TRIES_MAX), 0);
        assert_eq!(guesses_in_an_hour(3, TRIES_MAX - 7), 7);
    }

    #[test]
    fn a_few_are_free_and_the_right_one_forgets_them() {
        let tries = Tries::default();
        for count in 1..=FREE_TRIES {
            assert_eq!(tries.begin("ann", 0, 1, 0), Ok(count));
        }
        assert_eq!(tries.begin("ann", 0, 1, 0), Err(Refusal::TooManyTries { wait_s: 1 }));
        assert_eq!(tries.begin("ann", 0, 1, 1_000), Ok(FREE_TRIES + 1));
        assert_eq!(tries.begin("bob", 0, 1, 0), Ok(1));
        tries.forget("ann");
        assert_eq!(tries.begin("ann", 0, 1, 0), Ok(1));
    }

    #[test]
    fn others_are_told_of_few_counts() {
        let told: Vec<u32> = (0..=TRIES_MAX).filter(|count| is_told(*count)).collect();
        assert_eq!(told, [5, 10, 20, 40, 80]);
    }

    #[test]
    fn a_host_has_a_bound_of_its_own_and_what_is_counted_is_bounded() {
        let tries = Tries::default();
        for _ in 0..HOST_TRIES_MAX {
            assert_eq!(tries.count_host([1; 8], 0), Ok(()));
        }
        assert!(tries.count_host([1; 8], 0).is_err());
        assert_eq!(tries.count_host([2; 8], 0), Ok(()));
        assert_eq!(tries.count_host([1; 8], MINUTE_MS), Ok(()));
        for account in 0..COUNTED_MAX + 5 {
            assert_eq!(tries.begin(&account.to_string(), 0, 1, i64::try_from(account).unwrap() / 1_000), Ok(1));
        }
        assert_eq!(tries.accounts.lock().unwrap().len(), COUNTED_MAX);
    }
}
