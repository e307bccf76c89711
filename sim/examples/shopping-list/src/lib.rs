//! A household's shopping list: one document, which everybody may edit on the nearest server, all the time.
//!
//! Each item is a field of its own. So two people who add different things at once both succeed, and what one person
//! crosses off another does not bring back by adding something else.

use knot_engine::documents::{DocumentId, Edit, Scope};
use serde_json::{Value, json};

/// What people do to a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something is needed.
    Add(String),
    /// It has been bought.
    CrossOff(String),
}

/// The document of a household.
///
/// # Panics
/// When `household` is empty or too long to name a document.
#[must_use]
pub fn document(household: &str) -> DocumentId {
    DocumentId::new(Scope::Global, "lists", household).expect("a household's name is a key")
}

/// How a change edits the list, which is `list` where it is asked for; none where there is nothing to do.
#[must_use]
pub fn edit(change: &Change, list: Option<&Value>) -> Option<Edit> {
    let listed = |item: &str| list.is_some_and(|list| list.get(item).is_some());
    match change {
        Change::Add(item) => Some(Edit::MergePatch(json!({ item: { "bought": false } }))),
        Change::CrossOff(item) => listed(item).then(|| Edit::MergePatch(json!({ item: null }))),
    }
}

/// What is still to be bought.
#[must_use]
pub fn items(list: Option<&Value>) -> Vec<String> {
    let items = list.and_then(Value::as_object);
    items.into_iter().flatten().map(|(item, _)| item.clone()).collect()
}

/// The same list as one array, as a first draft would have it: whoever writes last decides the whole of it.
#[must_use]
pub fn edit_as_array(change: &Change, list: Option<&Value>) -> Option<Edit> {
    let mut items: Vec<String> = list
        .and_then(|list| list["items"].as_array())
        .map(|items| items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
        .unwrap_or_default();
    match change {
        Change::Add(item) => items.push(item.clone()),
        Change::CrossOff(item) => items.retain(|other| other != item),
    }
    Some(Edit::Put(json!({ "items": items })))
}
