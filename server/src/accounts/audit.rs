//! Who did what: documents `knot.audit/{key}`, whose keys sort the latest first.

use knot_engine::documents::Scope;
use serde_json::{Map, Value, json};

use super::fields::{text, time};
use super::{AUDIT, AccountError, Accounts};

/// Entries that are looked at for one page. A search that finds fewer than it may goes on with the next page.
const LOOKED_AT_MAX: usize = 5_000;
/// Entries that are looked for at once.
const PAGE: usize = 200;

/// One thing that was done.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// The key of its document.
    pub id: String,
    /// The zone of the server where it was done.
    pub zone: String,
    /// Who, as people are shown: a user's name, or what of knot itself.
    pub actor: String,
    /// `user`, `machine` or `system`.
    pub actor_type: String,
    /// What, such as `user.create`.
    pub event: String,
    /// When, in milliseconds since 1970 by that server's clock.
    pub when: i64,
    /// A sentence about it.
    pub details: String,
    /// More of it, for programs.
    pub properties: Map<String, Value>,
}

impl AuditEntry {
    /// What knot itself has done.
    pub(super) fn of_knot(id: String, event: &str, when: i64, details: String, properties: Map<String, Value>) -> Self {
        let (zone, actor, actor_type) = (String::new(), "knot".to_owned(), "system".to_owned());
        Self { id, zone, actor, actor_type, event: event.to_owned(), when, details, properties }
    }

    /// What the document says.
    #[must_use]
    pub fn read(id: &str, value: &Value) -> Self {
        Self {
            id: id.to_owned(),
            zone: text(value, "zone"),
            actor: text(value, "actor"),
            actor_type: text(value, "actor_type"),
            event: text(value, "event"),
            when: time(value, "when").unwrap_or_default(),
            details: text(value, "details"),
            properties: value.get("properties").and_then(Value::as_object).cloned().unwrap_or_default(),
        }
    }

    /// Its document.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({
            "zone": self.zone, "actor": self.actor, "actor_type": self.actor_type, "event": self.event, "when": self.when,
            "details": self.details, "properties": self.properties,
        })
    }
}

/// Which entries are wanted; all of those where nothing is said.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// What the details, the actor or the event hold, without regard to case.
    pub text: Option<String>,
    /// The actor.
    pub actor: Option<String>,
    /// The event, or how it begins, such as `user.`.
    pub event: Option<String>,
    /// The key of the entry after which to begin.
    pub after: Option<String>,
}

impl AuditFilter {
    fn matches(&self, entry: &AuditEntry) -> bool {
        let holds = |text: &String| {
            let text = text.to_lowercase();
            [&entry.details, &entry.actor, &entry.event].iter().any(|field| field.to_lowercase().contains(&text))
        };
        self.text.as_ref().is_none_or(holds)
            && self.actor.as_ref().is_none_or(|actor| *actor == entry.actor)
            && self.event.as_ref().is_none_or(|event| entry.event.starts_with(event))
    }
}

impl Accounts {
    /// At most `limit` entries, the latest first, and the key to go on after; none at the end.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn audit_log(
        &self,
        filter: &AuditFilter,
        limit: usize,
    ) -> Result<(Vec<AuditEntry>, Option<String>), AccountError> {
        let mut after = filter.after.clone();
        let (mut found, mut looked_at) = (Vec::new(), 0);
        while looked_at < LOOKED_AT_MAX {
            let from = after.clone();
            let list = move |engine: &mut crate::handle::ServerEngine, _| {
                engine.list(&Scope::Global, AUDIT, "", from.as_deref(), PAGE)
            };
            let page = self.handle.look(list).await?;
            let is_last = page.len() < PAGE;
            for summary in page {
                let key = summary.id.key();
                after = Some(key.to_owned());
                looked_at += 1;
                let entry = self.read(AUDIT, key).await?.map(|value| AuditEntry::read(key, &value));
                found.extend(entry.filter(|entry| filter.matches(entry)));
                if found.len() == limit {
                    return Ok((found, after));
                }
            }
            if is_last {
                return Ok((found, None));
            }
        }
        Ok((found, after))
    }
}

/// What an entry is about, for programs.
pub(super) fn about<const N: usize>(facts: [(&str, &str); N]) -> Map<String, Value> {
    facts.into_iter().map(|(name, fact)| (name.to_owned(), fact.into())).collect()
}

/// The key of an entry: later ones come first, and two of one moment are told apart by `mark`.
#[must_use]
pub(super) fn key(when: i64, mark: &str) -> String {
    const LAST: u64 = (1 << 48) - 1;
    let before_last = LAST.saturating_sub(u64::try_from(when).unwrap_or(0));
    format!("{before_last:012x}-{mark}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_entries_come_first() {
        let now = 1_800_000_000_000;
        assert!(key(now + 1, "b") < key(now, "a"));
        assert!(key(now, "a") < key(now, "b"));
        assert!(key(i64::MAX, "x") < key(0, "x") && key(-5, "x") == key(0, "x"));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut entry = AuditEntry::read("k", &json!({}));
        entry.event = "user.create".to_owned();
        entry.properties.insert("user_id".to_owned(), "1".into());
        assert_eq!(AuditEntry::read("k", &entry.document()), entry);
    }
}
