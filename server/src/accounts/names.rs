//! Names that only one may have, with nobody to ask.
//!
//! Each record says which name it wants and since when. Where several want one, the earliest has it, and of two at once
//! the lower id: a rule over what all servers come to hold, so all compute alike. A server refuses a name that somebody
//! has as far as it knows; two that were apart may each have given it, and then one of the two is called otherwise as
//! soon as they meet: its name, a tilde and the beginning of its id, which nobody can ask for.

use std::collections::{BTreeMap, BTreeSet};

use super::user::folded;

/// Digits of the id in the name of who has to be called otherwise.
const MARK_DIGITS: usize = 6;

/// Who wants which name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// By name without regard to case: since when, and who.
    wanted: BTreeMap<String, BTreeSet<(i64, String)>>,
}

impl Names {
    /// Somebody wants a name from then on. An empty name is none.
    pub fn insert(&mut self, name: &str, since: i64, id: &str) {
        if !name.is_empty() {
            self.wanted.entry(folded(name)).or_default().insert((since, id.to_owned()));
        }
    }

    /// Takes back what [`Names::insert`] did.
    pub fn remove(&mut self, name: &str, since: i64, id: &str) {
        let name = folded(name);
        if let Some(wanted) = self.wanted.get_mut(&name) {
            wanted.remove(&(since, id.to_owned()));
            if wanted.is_empty() {
                self.wanted.remove(&name);
            }
        }
    }

    /// Who has a name.
    #[must_use]
    pub fn holder(&self, name: &str) -> Option<&str> {
        let wanted = self.wanted.get(&folded(name))?;
        wanted.first().map(|(_, id)| id.as_str())
    }

    /// Those who want a name that another has.
    pub fn losers(&self) -> impl Iterator<Item = &str> {
        self.wanted.values().flat_map(|wanted| wanted.iter().skip(1).map(|(_, id)| id.as_str()))
    }
}

/// What somebody is called who wants a name that another has.
#[must_use]
pub(super) fn otherwise(name: &str, id: &str) -> String {
    let mark: String = id.chars().take(MARK_DIGITS).collect();
    format!("{name}~{mark}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_has_the_name_and_of_two_at_once_the_lower_id() {
        let mut names = Names::default();
        names.insert("Ann", 5, "b");
        assert_eq!(names.holder("ann"), Some("b"));
        names.insert("ann", 5, "a");
        names.insert("ANN", 4, "c");
        assert_eq!(names.holder("ann"), Some("c"));
        assert_eq!(names.losers().collect::<Vec<_>>(), ["a", "b"]);
        names.remove("ann", 4, "c");
        assert_eq!(names.holder("Ann"), Some("a"));
        names.remove("ann", 5, "a");
        names.remove("ann", 5, "b");
        assert_eq!(names, Names::default());
    }

    #[test]
    fn nothing_is_no_name() {
        let mut names = Names::default();
        names.insert("", 1, "a");
        assert_eq!(names.holder(""), None);
    }
}
