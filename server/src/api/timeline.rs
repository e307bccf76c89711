//! What became of servers since this one started, and on what evidence.

use axum::extract::State;
use axum::http::Uri;
use knot_engine::NodeId;
use knot_engine::membership::{Accusation, Evidence};
use schemars::JsonSchema;
use serde::Serialize;

use super::cluster::{Who, find, status_name};
use super::error::{ApiError, Form, MemberError};
use super::query::{self, TimelineQuery};
use super::{Shared, timestamp};
use crate::transitions::Transition;

/// The latest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct Timeline {
    data: Vec<Row>,
    total: usize,
}

#[derive(Serialize, JsonSchema)]
struct Row {
    at: String,
    id: String,
    name: String,
    zone: String,
    from: Option<&'static str>,
    to: &'static str,
    evidence: &'static str,
    /// Who accused it, gave it up, or took it out.
    by: Option<Witness>,
    /// Whom its host refused.
    refused: Vec<Witness>,
    /// Whom it did not answer.
    unanswered: Vec<Witness>,
    /// For how long this server had heard nothing of it when it was accused.
    unheard_ms: Option<u64>,
    /// All that in words.
    why: String,
}

#[derive(Serialize, JsonSchema)]
struct Witness {
    id: String,
    name: String,
}

pub(super) async fn timeline(State(api): State<Shared>, uri: Uri) -> Result<axum::Json<Timeline>, ApiError> {
    let TimelineQuery { name, id } = query::parse(&uri)?;
    let who = match (name, id) {
        (None, None) => None,
        (name, id) => Some(Who::of(name, id).ok_or_else(|| {
            Form::BadQuery("name one server: name=<its name>, or id=<32 hexadecimal digits>".to_owned())
        })?),
    };
    let steps = api.handle.transitions().clone();
    let picked = api.handle.look(move |engine, _| match who {
        None => Ok(steps.pick(|_| true)),
        Some(who) => match find(engine, &who) {
            Ok((node, _)) => Ok(steps.of(node)),
            // Nobody remembers it but these steps.
            Err(MemberError::Unknown) => {
                let of_it = steps.pick(|step| who.is(&step.node, &step.name));
                if of_it.is_empty() { Err(MemberError::Unknown) } else { Ok(of_it) }
            }
            Err(error) => Err(error),
        },
    });
    let data: Vec<Row> = picked.await??.iter().map(row).collect();
    Ok(axum::Json(Timeline { total: data.len(), data }))
}

fn row(transition: &Transition) -> Row {
    let witness = |node: &NodeId| Witness { id: node.to_string(), name: transition.name_of(node) };
    let (by, accusation) = (transition.evidence.by(), transition.evidence.accusation());
    let witnesses =
        |named: fn(&Accusation) -> &Vec<NodeId>| accusation.map(named).into_iter().flatten().map(witness).collect();
    let unheard_for = accusation.and_then(|accusation| accusation.unheard_for);
    Row {
        at: timestamp::rfc3339(transition.at),
        id: transition.node.to_string(),
        name: transition.name.clone(),
        zone: transition.zone.clone(),
        from: transition.from.map(status_name),
        to: status_name(transition.to),
        evidence: kind(&transition.evidence),
        by: by.as_ref().map(witness),
        refused: witnesses(|accusation| &accusation.refused),
        unanswered: witnesses(|accusation| &accusation.unanswered),
        unheard_ms: unheard_for.map(|long| u64::try_from(long.as_millis()).unwrap_or(u64::MAX)),
        why: transition.why(),
    }
}

fn kind(evidence: &Evidence) -> &'static str {
    match evidence {
        Evidence::Met => "met",
        Evidence::HeardAgain => "heard_again",
        Evidence::Started => "started",
        Evidence::Denied => "denied",
        Evidence::Accused(_) => "accused",
        Evidence::Unheard => "unheard",
        Evidence::Goodbye => "goodbye",
        Evidence::TakenOut { .. } => "taken_out",
        Evidence::ShutOut => "shut_out",
    }
}
