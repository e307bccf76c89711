//! Lists of zones in forms: what one means for each zone of the cluster.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::get;
use knot_engine::membership::Status;

use super::form::Fields;
use super::page::{Fault, sentence, show};
use super::{Page, page};
use crate::accounts::Permission;
use crate::api::Shared;
use crate::api::operation::Needs;
use crate::handle::Stopped;
use crate::zones;

pub(super) fn pages() -> Vec<Page> {
    const WRITES: Needs = Needs::OneOf(&[Permission::ManageTemplates, Permission::ManageVariables]);
    vec![page("/zones", WRITES, || get(meaning))]
}

/// A zone that servers are in.
pub(super) struct Zone {
    pub(super) name: String,
    pub(super) is_allowed: bool,
    pub(super) is_here: bool,
}

/// What a list of zones means now.
pub(super) struct Meant {
    /// The list as it is typed.
    pub(super) text: String,
    pub(super) zones: Vec<Zone>,
    /// What is wrong with it, or is likely to be.
    pub(super) doubts: Vec<String>,
}

impl Meant {
    pub(super) async fn new(api: &Shared, list: &[String]) -> Result<Self, Stopped> {
        let known = api.handle.look(|engine, _| {
            let is_here = |member: &knot_engine::membership::Member| {
                member.status != Status::Left && !engine.evicted().contains(&member.record.node)
            };
            engine.members().filter(is_here).map(|member| member.record.zone.clone()).collect::<BTreeSet<String>>()
        });
        let known: Vec<String> = known.await?.into_iter().collect();
        let zone = |name: &String| Zone {
            is_allowed: zones::allows(list, name),
            is_here: **name == *api.zone,
            name: name.clone(),
        };
        let doubts = zones::check(list).into_iter().chain(zones::misspelt(list, &known));
        let doubts = doubts.map(|wrong| sentence(&wrong.to_string())).collect();
        Ok(Self { text: list.join(", "), zones: known.iter().map(zone).collect(), doubts })
    }
}

/// The entries of a list as it is typed.
pub(super) fn entries(text: &str) -> Vec<String> {
    text.split([',', ' ', '\t', '\n', '\r']).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

#[derive(Template)]
#[template(path = "zones_meant.html")]
struct Meaning {
    meant: Meant,
}

async fn meaning(State(api): State<Shared>, uri: Uri) -> Result<Response, Fault> {
    let list = entries(Fields::of(&uri).get("zones"));
    Ok(show(&Meaning { meant: Meant::new(&api, &list).await? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_behind_commas_or_spaces() {
        assert_eq!(entries("!gb, us  de,\r\n"), ["!gb", "us", "de"]);
        assert!(entries(" , ").is_empty());
    }
}
