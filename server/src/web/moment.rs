//! Times as pages show them: when, and how long ago.

use std::time::Duration;

use knot_engine::Wall;

use crate::api::rfc3339;

/// A time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// For programs.
    pub(super) iso: String,
    /// For people: to the second, in UTC.
    pub(super) text: String,
    /// How long ago, or until then.
    pub(super) ago: String,
}

impl Moment {
    /// The moment `at`, as it is spoken of at `now`; both in milliseconds since 1970.
    pub(super) fn of(at: i64, now: i64) -> Self {
        let iso = rfc3339(Wall(at));
        let text = iso.get(..19).unwrap_or(&iso).replace('T', " ");
        let apart = Duration::from_millis(now.abs_diff(at));
        let ago = match spoken(apart) {
            _ if apart < Duration::from_secs(1) => "just now".to_owned(),
            long if at > now => format!("in {long}"),
            long => format!("{long} ago"),
        };
        Self { iso, text: format!("{text} UTC"), ago }
    }
}

/// A length of time in its greatest unit that fits.
pub(super) fn spoken(long: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let seconds = long.as_secs();
    let fits = UNITS.into_iter().find(|(unit, _)| seconds >= *unit);
    fits.map_or_else(|| "0 s".to_owned(), |(unit, name)| format!("{} {name}", seconds / unit))
}

/// A round trip, or another short time.
pub(super) fn milliseconds(long: Duration) -> String {
    let ms = long.as_secs_f64() * 1_000.0;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spoken_of_as_people_do() {
        let at = Moment::of(1_795_253_400_123, 1_795_253_400_500);
        assert_eq!((at.text.as_str(), at.ago.as_str()), ("2026-11-21 09:30:00 UTC", "just now"));
        assert_eq!(Moment::of(0, 90_000).ago, "1 min ago");
        assert_eq!(Moment::of(90_000_000, 0).ago, "in 1 d");
        assert_eq!(spoken(Duration::ZERO), "0 s");
        assert_eq!(milliseconds(Duration::from_micros(1_234)), "1.2 ms");
        assert_eq!(milliseconds(Duration::from_millis(120)), "120 ms");
    }
}
