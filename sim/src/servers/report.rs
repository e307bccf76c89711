//! What clients saw, held against what was promised.

use std::collections::BTreeSet;
use std::time::Duration;

use knot_engine::Instant;

use super::clients::{Findings, Loss};
use super::patches;
use super::request::Answer;
use crate::checker::{Checkers, Invariant, Seen, Violation, written_fields};
use crate::ledger::{Outcome, Write};
use crate::report::{Counts, Report};
use crate::scenario::{Action, Fault, Operation, Scenario};
use crate::tap::Tap;

/// Holds what clients saw against what was promised.
pub(crate) fn report(
    scenario: &Scenario,
    findings: Findings,
    (ended, elapsed): (Result<(), String>, Duration),
) -> Report {
    let zones: Vec<String> = scenario.nodes.iter().map(|node| node.zone.clone()).collect();
    let tap = Tap::new(|_| None, zones.len());
    let mut checkers = Checkers::new(tap, BTreeSet::new(), Vec::new(), zones);
    checkers.violations.clone_from(&findings.accusations);
    let end = Instant::ZERO + elapsed;
    let began = |fault: &Fault| fault.begins_at_ms().count() as u64;
    let faults = scenario.faults.iter().map(began).sum();
    let mut counts = Counts { faults, ..Counts::default() };
    let mut reads = Vec::new();
    for (index, (asked, reply)) in &findings.answers {
        let operation = &scenario.operations[*index];
        if operation.action == Action::Read {
            // What broke off is no object, as documents are.
            let is_read = |(_, answer): &&(Instant, Answer)| answer.status == 200 && answer.body.is_object();
            reads.extend(reply.iter().find(is_read).map(|reply| (operation, *asked, reply)));
            continue;
        }
        checkers.ledger.ask(operation, *asked);
        checkers.ledger.settle(operation.id, outcome(reply.as_ref(), &mut counts));
    }
    excuse(&findings.losses, &mut checkers);
    patches::tell(scenario, &findings, &mut checkers);
    patches::check(scenario, &findings, &mut checkers);
    check_fenced(scenario, &findings, &mut checkers);
    for (operation, asked, &(at, ref answer)) in reads {
        let (node, target) = (operation.node, &operation.target);
        checkers.check_fields(node, target, &answer.body, at);
        if target.only_grows() {
            let shown = written_fields(&answer.body).into_iter().collect();
            checkers.count_read(target, &shown, asked);
            checkers.check_own_writes((node, set_back(&findings.losses, node, at)), target, &shown, asked, at);
        }
    }
    let settled_us = match (ended, findings.settled) {
        (Err(why), _) => {
            checkers.report(Invariant::Progress, end, 0, || why);
            None
        }
        (Ok(()), Some(Ok(settled))) => Some(u64::try_from(settled.as_micros()).unwrap_or(u64::MAX)),
        (Ok(()), Some(Err(difference))) => {
            checkers.report(Invariant::Convergence, end, 0, || difference);
            None
        }
        (Ok(()), None) => None,
    };
    checkers.audit_shown(&findings.seen, end);
    for (target, histories) in &findings.histories {
        histories.iter().for_each(|(node, history)| checkers.check_history(*node, target, history, end));
    }
    for (target, replicas) in findings.seen.iter().filter(|(target, _)| target.only_grows()) {
        let shown = |seen: &Seen| seen.value.iter().flat_map(written_fields).collect::<BTreeSet<u32>>();
        let by_all = replicas.iter().map(|(_, seen)| shown(seen)).reduce(|one, other| &one & &other);
        checkers.count_read(target, &by_all.unwrap_or_default(), end);
    }
    if scenario.canary {
        checkers.report(Invariant::Canary, end, 0, || "this run was to fail".to_owned());
    }
    Report {
        seed: scenario.seed,
        nodes: scenario.nodes.len(),
        trace: String::new(),
        simulated_us: end.as_micros(),
        settled_us,
        counts,
        account: checkers
            .account(|write| write.operation.target.only_grows() && write.operation.action != Action::Increment),
        violations: checkers.violations,
        marks: Vec::new(),
        left_behind: None,
    }
}

/// Who has stepped back makes no change that it is asked for later.
fn check_fenced(scenario: &Scenario, findings: &Findings, checkers: &mut Checkers) {
    for (index, (_, reply)) in &findings.answers {
        let Operation { node, id, .. } = scenario.operations[*index];
        let Some((at, answer)) = reply else { continue };
        let is_made = matches!(patches::outcome(*at, answer), Outcome::Acknowledged { changed: true, .. });
        let meanwhile = findings.fenced.iter().find(|fenced| fenced.node == node && *at <= fenced.until);
        if is_made && scenario.operations[*index].action != Action::Read {
            checkers.check_not_fenced(node, id, meanwhile.map(|fenced| fenced.from), *at);
        }
    }
}

fn outcome(reply: Option<&(Instant, Answer)>, counts: &mut Counts) -> Outcome {
    let outcome = reply.map_or(Outcome::Unknown, |(at, answer)| patches::outcome(*at, answer));
    *match &outcome {
        Outcome::Acknowledged { .. } => &mut counts.acknowledged,
        Outcome::Refused(_) => &mut counts.refused,
        Outcome::Unknown | Outcome::Pending => &mut counts.unknown,
    } += 1;
    outcome
}

/// A packet between servers held what it may not.
pub(crate) fn accuse_of_leak(report: &mut Report, (node, canary): (usize, &str)) {
    let detail = format!("what it sends holds {canary:?} in the clear");
    let at_us = report.simulated_us;
    report.violations.push(Violation { invariant: Invariant::NoPlaintext, at_us, node, detail });
}

/// What only one disk held that was lost or set back, or whose server never came back, nobody could keep.
fn excuse(losses: &[Loss], checkers: &mut Checkers) {
    for loss in losses {
        // What was under way when a disk was copied may be acknowledged, and not in the copy.
        let is_lost = |write: &&Write| {
            let answered = matches!(write.outcome, Outcome::Acknowledged { at, .. } if at >= loss.since);
            write.operation.node == loss.node && answered && write.asked <= loss.until
        };
        let lost: Vec<u32> = checkers.ledger.writes().filter(is_lost).map(|write| write.operation.id).collect();
        lost.into_iter().for_each(|id| checkers.ledger.excuse(id));
    }
}

/// When a server's disk was last lost or set back before then.
pub(super) fn set_back(losses: &[Loss], node: usize, before: Instant) -> Instant {
    let own = losses.iter().filter(|loss| loss.node == node && loss.until <= before);
    own.map(|loss| loss.until).max().unwrap_or(Instant::ZERO)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const TWO_WRITES: &str = "
        format = 1
        quiet_at_ms = 9000
        [[nodes]]
        name = 'a'
        zone = 'z'
        [[nodes]]
        name = 'b'
        zone = 'z'
        [[operations]]
        id = 0
        at_us = 1000000
        node = 0
        action = 'merge'
        target = { collection = 'notes', key = 'k' }
        [[operations]]
        id = 1
        at_us = 5000000
        node = 0
        action = 'merge'
        target = { collection = 'notes', key = 'k' }
    ";

    fn at_s(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    /// Both writes have these answers, and in the end both servers show `value`.
    fn broken(statuses: [u16; 2], value: &Value, losses: &[Loss]) -> (Vec<Invariant>, u64) {
        let scenario = Scenario::from_toml(TWO_WRITES).unwrap();
        let asked = [at_s(1), at_s(5)];
        let reply = |place: usize| Answer { status: statuses[place], etag: None, body: Value::Null };
        let seen = Seen { value: Some(value.clone()), ..Seen::default() };
        let findings = Findings {
            answers: (0..2).map(|place| (place, (asked[place], Some((asked[place], reply(place)))))).collect(),
            settled: Some(Ok(Duration::ZERO)),
            seen: [(scenario.operations[0].target.clone(), vec![(0, seen.clone()), (1, seen)])].into(),
            losses: losses.to_vec(),
            ..Findings::default()
        };
        let report = report(&scenario, findings, (Ok(()), Duration::from_secs(20)));
        let broken: BTreeSet<Invariant> = report.violations.iter().map(|violation| violation.invariant).collect();
        (broken.into_iter().collect(), report.account.excused)
    }

    #[test]
    fn each_loss_of_a_disk_excuses_what_came_before_it() {
        let nothing = json!({});
        let loss = |seconds| Loss { node: 0, since: Instant::ZERO, until: at_s(seconds) };
        assert_eq!(broken([200; 2], &nothing, &[loss(2), loss(6)]), (vec![], 2));
        assert_eq!(broken([200; 2], &nothing, &[loss(2)]), (vec![Invariant::AcknowledgedKept], 1));
        let copied = Loss { since: at_s(4), ..loss(6) };
        assert_eq!(broken([200; 2], &json!({ "w0": 0 }), &[copied]), (vec![], 1));
        assert_eq!(broken([200; 2], &json!({ "w1": 1 }), &[copied]), (vec![Invariant::AcknowledgedKept], 1));
    }

    #[test]
    fn what_was_refused_does_not_show_and_what_failed_may() {
        let both = json!({ "w0": 0, "w1": 1 });
        for status in [400, 404, 410, 412, 421, 507] {
            assert_eq!(broken([200, status], &both, &[]).0, [Invariant::NoPhantom], "{status}");
            assert_eq!(broken([200, status], &json!({ "w0": 0 }), &[]).0, [], "{status}");
        }
        for status in [500, 503] {
            assert_eq!(broken([200, status], &both, &[]).0, [], "{status}");
        }
    }
}
