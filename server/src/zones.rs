//! Where something may be: the one rule by which a list of zones is read.
//!
//! An empty list allows every zone. `gb` names a zone, `!gb` excludes one. A zone is allowed if it is not excluded and,
//! where the list names any, is one of those; so a list of exclusions alone allows all others.

use knot_engine::documents::{ZONE_BYTES_MAX, is_label};

use crate::config::nearest;

/// Most entries of a list.
pub const ZONES_MAX: usize = 256;

/// Whether `zones` allows `zone`.
#[must_use]
pub fn allows(zones: &[String], zone: &str) -> bool {
    let mut names_any = false;
    let mut names_it = false;
    for entry in zones {
        match entry.strip_prefix('!') {
            Some(excluded) if excluded == zone => return false,
            Some(_) => {}
            None => {
                names_any = true;
                names_it |= entry == zone;
            }
        }
    }
    names_it || !names_any
}

/// What is wrong with a list of zones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ZonesError {
    /// It is too long.
    #[error("a list of zones has at most {ZONES_MAX} entries, not {0}")]
    TooMany(usize),
    /// An entry is no zone.
    #[error(
        "\"{entry}\" is no zone: write 1 to {ZONE_BYTES_MAX} letters, digits, '.', '_' or '-', with a '!' in front to exclude it"
    )]
    NoZone {
        /// Its place in the list, from 0.
        at: usize,
        /// What was written.
        entry: String,
    },
    /// A zone is named and excluded.
    #[error("{zone} is both named and excluded, so it is excluded: remove one of \"{zone}\" and \"!{zone}\"")]
    Both {
        /// The place of the later one in the list, from 0.
        at: usize,
        /// The zone.
        zone: String,
    },
    /// No server is in the zone, and another's name is close to it.
    #[error("no server is in zone {zone}: did you mean {near}?")]
    Unknown {
        /// Its place in the list, from 0.
        at: usize,
        /// What was written.
        zone: String,
        /// The zone that was probably meant.
        near: String,
    },
}

/// Everything that is wrong with a list, whichever zones there are.
#[must_use]
pub fn check(zones: &[String]) -> Vec<ZonesError> {
    if zones.len() > ZONES_MAX {
        return vec![ZonesError::TooMany(zones.len())];
    }
    let mut wrong = Vec::new();
    for (at, entry) in zones.iter().enumerate() {
        let zone = name(entry);
        if !is_label(zone, ZONE_BYTES_MAX) {
            wrong.push(ZonesError::NoZone { at, entry: entry.chars().take(ZONE_BYTES_MAX).collect() });
        } else if zones[..at].iter().any(|earlier| name(earlier) == zone && earlier != entry) {
            wrong.push(ZonesError::Both { at, zone: zone.to_owned() });
        }
    }
    wrong
}

/// Entries for zones that nobody is in but that look like a slip of the hand. A zone whose servers are yet to come is
/// no mistake.
#[must_use]
pub fn misspelt(zones: &[String], known: &[String]) -> Vec<ZonesError> {
    let strangers = zones.iter().map(|entry| name(entry)).enumerate();
    strangers
        .filter(|(_, zone)| !known.iter().any(|known| known == zone))
        .filter_map(|(at, zone)| {
            let near = nearest(zone, known.iter().map(String::as_str))?;
            Some(ZonesError::Unknown { at, zone: zone.to_owned(), near: near.to_owned() })
        })
        .collect()
}

fn name(entry: &str) -> &str {
    entry.strip_prefix('!').unwrap_or(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(zones: &[&str]) -> Vec<String> {
        zones.iter().map(|&zone| zone.to_owned()).collect()
    }

    #[test]
    fn a_zone_is_allowed_if_it_is_not_excluded_and_named_where_any_is() {
        for (zones, zone, expected) in [
            (&[][..], "gb", true),
            (&["gb"], "gb", true),
            (&["gb"], "us", false),
            (&["gb"], "GB", false),
            (&["gb", "us"], "us", true),
            (&["!gb"], "gb", false),
            (&["!gb"], "us", true),
            (&["!gb", "!us"], "us", false),
            (&["!gb", "!us"], "de", true),
            (&["gb", "!us"], "gb", true),
            (&["gb", "!us"], "us", false),
            (&["gb", "!us"], "de", false),
            (&["gb", "!gb"], "gb", false),
            (&["!gb", "gb"], "gb", false),
            (&["!"], "gb", true),
            (&[""], "gb", false),
        ] {
            assert_eq!(allows(&list(zones), zone), expected, "{zones:?} and {zone}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said_with_its_place() {
        for (zones, said) in [
            (&["gb", "!us", "eu-west.1"][..], &[][..]),
            (&["g b"], &["\"g b\" is no zone"]),
            (&["", "!"], &["\"\" is no zone", "\"!\" is no zone"]),
            (&["!!gb"], &["\"!!gb\" is no zone"]),
            (&["gb", "!gb"], &["gb is both named and excluded"]),
        ] {
            let wrong: Vec<String> = check(&list(zones)).iter().map(ToString::to_string).collect();
            assert_eq!(wrong.len(), said.len(), "{zones:?}: {wrong:?}");
            assert!(wrong.iter().zip(said).all(|(wrong, said)| wrong.starts_with(said)), "{zones:?}: {wrong:?}");
        }
        assert_eq!(check(&vec!["gb".to_owned(); ZONES_MAX + 1]), [ZonesError::TooMany(ZONES_MAX + 1)]);
    }

    #[test]
    fn a_zone_that_nobody_is_in_is_a_slip_only_if_it_is_close_to_another() {
        let found = misspelt(&list(&["frankfrut", "tokyo", "!london"]), &list(&["frankfurt", "london"]));
        let expected = ZonesError::Unknown { at: 0, zone: "frankfrut".to_owned(), near: "frankfurt".to_owned() };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn order_and_repetition_change_nothing_and_an_exclusion_always_holds() {
        fn property(entries: Vec<(bool, u8)>, zone: u8) -> bool {
            let zone = format!("z{}", zone % 4);
            let mut zones: Vec<String> =
                entries.iter().map(|(out, at)| format!("{}z{}", if *out { "!" } else { "" }, at % 4)).collect();
            let allowed = allows(&zones, &zone);
            let reversed: Vec<String> = zones.iter().chain(&zones).rev().cloned().collect();
            let same = allows(&reversed, &zone) == allowed;
            zones.push(format!("!{zone}"));
            same && !allows(&zones, &zone)
        }
        quickcheck::quickcheck(property as fn(Vec<(bool, u8)>, u8) -> bool);
    }
}
