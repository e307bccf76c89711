//! What an owner may have: names of their own, and so many spaces.

use super::SPACES_MAX;
use super::record::{SpaceRecord, State, Wanted};
use crate::accounts::{Directory, Refusal, User};
use crate::templates::Template;

/// One owner's spaces have names of their own, as far as is known here.
pub(super) fn unique(record: &SpaceRecord, directory: &Directory) -> Result<(), Refusal> {
    let records = directory.spaces().records();
    let mut others = records.values().filter(|other| other.id != record.id && other.user_id == record.user_id);
    let is_taken =
        |other: &SpaceRecord| other.wanted != Wanted::Deleted && other.name.eq_ignore_ascii_case(&record.name);
    if others.any(is_taken) {
        return Err(Refusal::Taken { kind: "space name", name: record.name.clone() });
    }
    let are = || records.values().filter(|other| other.wanted != Wanted::Deleted).count();
    if !records.contains_key(&record.id) && are() >= SPACES_MAX {
        return Err(Refusal::TooMany { kind: "spaces", max: SPACES_MAX });
    }
    Ok(())
}

/// Refuses one more space than a user may have, and what it would keep.
pub(super) fn within_limits(
    directory: &Directory,
    owner: &User,
    record: &SpaceRecord,
    template: &Template,
) -> Result<(), Refusal> {
    let limits = directory.limits(owner);
    let stubs = directory.spaces().stubs().filter(|stub| stub.user_id == owner.id).count();
    let others: Vec<&SpaceRecord> = others_of(directory, owner, record).collect();
    let units = |record: &&SpaceRecord| directory.template(&record.template_id).map_or(0, |of| of.storage_units.into());
    let storage: u64 = others.iter().map(units).sum();
    limit("spaces", limits.max_spaces, others.len() as u64 + stubs as u64 + 1)?;
    limit("storage units", limits.storage_units, storage + u64::from(template.storage_units))
}

/// Refuses to have more run than a user may.
pub(super) fn compute_within_limits(
    directory: &Directory,
    owner: &User,
    record: &SpaceRecord,
    template: &Template,
) -> Result<(), Refusal> {
    let known = directory.spaces();
    let has_ended = |record: &SpaceRecord| {
        let report = known.report(record).filter(|report| report.is_of(record));
        report.is_some_and(|report| matches!(report.state, State::Stopped | State::Failed | State::Removed))
    };
    let running = others_of(directory, owner, record)
        .filter(|other| other.wanted == Wanted::Running && !has_ended(other))
        .filter_map(|other| directory.template(&other.template_id));
    let compute: u64 = running.map(|template| u64::from(template.compute_units)).sum();
    limit("compute units", directory.limits(owner).compute_units, compute + u64::from(template.compute_units))
}

/// What else an owner has.
fn others_of<'a>(
    directory: &'a Directory,
    owner: &'a User,
    record: &'a SpaceRecord,
) -> impl Iterator<Item = &'a SpaceRecord> {
    directory
        .spaces()
        .records()
        .values()
        .filter(move |other| other.id != record.id && other.user_id == owner.id && other.wanted != Wanted::Deleted)
}

fn limit(kind: &'static str, max: Option<u64>, wanted: u64) -> Result<(), Refusal> {
    match max {
        Some(max) if wanted > max => Err(Refusal::OverLimit { kind, max, wanted }),
        Some(_) | None => Ok(()),
    }
}
