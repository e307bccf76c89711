//! What a page's script is given. Times are microseconds, in columns each the difference from the one before.

use std::collections::BTreeMap;

use knot_engine::{Fault, Instant, ScopeStatus};
use serde::Serialize;

use super::Page;
use super::thin::{self, Rule, kept_at};
use crate::recording::{Asked, Fate, Message};
use crate::scenario::words;
use crate::state::{Disagreement, NodeState, disagreements, status_name};
use crate::watch::{Answer, Kind};

/// Most bytes of the scenario's file.
const TOML_BYTES_MAX: usize = 220_000;
/// Most documents that are listed as different.
const DIFFERENT_MAX: usize = 40;
/// Longest line of the log, in characters.
const LINE_CHARACTERS_MAX: usize = 240;

/// How much of everything a page holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    messages: usize,
    operations: usize,
    roots: usize,
    beliefs: usize,
    lines: usize,
}

impl Default for Share {
    fn default() -> Self {
        Self { messages: 20_000, operations: 6_000, roots: 16_000, beliefs: 6_000, lines: 300 }
    }
}

impl Share {
    /// Half as much; none where that would show nothing.
    pub(super) fn smaller(self) -> Option<Self> {
        let Self { messages, operations, roots, beliefs, lines } = self;
        let halved = Self {
            messages: messages / 2,
            operations: operations / 2,
            roots: roots / 2,
            beliefs: beliefs / 2,
            lines: lines / 2,
        };
        (halved.messages > 100).then_some(halved)
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Data<'a> {
    name: &'a str,
    seed: u64,
    document: &'static str,
    planted: Vec<&'static str>,
    replay: &'a str,
    shrink: Option<&'a str>,
    /// The scenario's file; none when it is too long, and then `replay` names it.
    toml: Option<String>,
    zones: Vec<&'a str>,
    /// Name and zone.
    nodes: Vec<(&'a str, &'a str)>,
    end: u64,
    quiet: u64,
    settled: Option<u64>,
    trace: &'a str,
    counts: Counts,
    violations: Vec<Violation<'a>>,
    kinds: Vec<&'static str>,
    /// Kinds below this number are about documents.
    replication: usize,
    lives: Vec<Vec<(u64, Option<u64>, &'static str)>>,
    pauses: Vec<Vec<(u64, Option<u64>)>>,
    faults: Vec<Disturbance>,
    rule: Rule,
    messages: Messages,
    operations: Operations,
    scopes: Vec<String>,
    roots: Roots,
    beliefs: Vec<(u64, usize, usize, &'static str)>,
    repairs: Vec<(u64, usize, usize)>,
    state: Vec<State<'a>>,
    different: BTreeMap<String, Disagreement>,
    lines: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Counts {
    datagrams: u64,
    lost: u64,
    frames: u64,
    acknowledged: u64,
    refused: u64,
    unknown: u64,
    faults: u64,
    crashes: u64,
    repairs: u64,
}

#[derive(Debug, Serialize)]
struct Violation<'a> {
    name: String,
    promise: &'static str,
    at: u64,
    node: usize,
    detail: &'a str,
}

#[derive(Debug, Serialize)]
struct Disturbance {
    from: u64,
    to: Option<u64>,
    kind: String,
    text: String,
    nodes: Vec<usize>,
    /// The sides of a cut.
    sides: Option<[Vec<usize>; 2]>,
}

/// `took` is the time under way; less than zero is how it was lost, with the time of that where it is known.
#[derive(Debug, Default, Serialize)]
struct Messages {
    sent: Vec<u64>,
    from: Vec<usize>,
    to: Vec<usize>,
    kind: Vec<usize>,
    took: Vec<i64>,
    bytes: Vec<usize>,
    /// How those that did not arrive were lost, by their place.
    lost: BTreeMap<usize, &'static str>,
}

#[derive(Debug, Default, Serialize)]
struct Operations {
    asked: usize,
    at: Vec<u64>,
    id: Vec<u32>,
    node: Vec<usize>,
    action: Vec<usize>,
    target: Vec<usize>,
    /// 0 acknowledged, 1 acknowledged without a change, 2 refused, 3 unknown, 4 a read.
    answer: Vec<u8>,
    took: Vec<i64>,
    /// How long until every server that is entitled to it held it; -1 when one never did.
    spread: Vec<i64>,
    refusals: BTreeMap<usize, String>,
    actions: Vec<String>,
    targets: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct Roots {
    changes: usize,
    step: u64,
    names: Vec<String>,
    series: Vec<Series>,
}

/// Server, scope, times, places in the names of roots, documents.
type Series = (usize, usize, Vec<u64>, Vec<usize>, Vec<u64>);

#[derive(Debug, Serialize)]
struct State<'a> {
    process: crate::state::ProcessState,
    members: Vec<(&'a str, &'static str, &'a str)>,
    scopes: &'a [ScopeStatus],
    queues: Vec<(&'static str, usize, usize)>,
}

impl<'a> Data<'a> {
    pub(super) fn new(page: &Page<'a>, share: Share) -> Self {
        let Page { scenario, report, recording, .. } = *page;
        let end = Instant::from_micros(report.simulated_us);
        let zones = scenario.zones();
        let mut sent = recording.messages.clone();
        sent.sort_by_key(|message| message.sent);
        let (drawn, rule) = thin::messages(&sent, share.messages, end);
        let scopes: Vec<String> = scopes_of(page);
        let roots = roots(page, &scopes, share.roots, rule.all_from);
        let scope_number = |name: &str| scopes.iter().position(|scope| scope == name).unwrap_or_default();
        Self {
            name: page.name,
            seed: report.seed,
            document: scenario.document.name(),
            planted: Fault::ALL.iter().filter(|bug| page.planted.has(**bug)).map(|bug| bug.name()).collect(),
            replay: page.replay,
            shrink: page.shrink,
            toml: scenario.to_toml().ok().filter(|text| text.len() <= TOML_BYTES_MAX),
            zones,
            nodes: scenario.nodes.iter().map(|node| (node.name.as_str(), node.zone.as_str())).collect(),
            end: end.as_micros(),
            quiet: scenario.quiet_at_ms.saturating_mul(1_000),
            settled: report.settled_us,
            trace: &report.trace,
            counts: counts(page),
            violations: violations(page),
            kinds: Kind::ALL.iter().map(|kind| kind.name()).collect(),
            replication: Kind::ALL.iter().filter(|kind| kind.is_replication()).count(),
            lives: lives(page),
            pauses: pauses(page),
            faults: faults(page),
            rule,
            messages: messages(&drawn),
            operations: operations(page, share.operations),
            roots,
            beliefs: beliefs(page, share.beliefs),
            repairs: last(&recording.repairs, share.beliefs)
                .map(|(at, node, scope)| (at.as_micros(), *node, scope_number(scope)))
                .collect(),
            scopes,
            state: recording.state.iter().map(state).collect(),
            different: disagreements(&recording.state).into_iter().take(DIFFERENT_MAX).collect(),
            lines: last_lines(page, share.lines),
        }
    }
}

fn counts(page: &Page<'_>) -> Counts {
    let counts = &page.report.counts;
    Counts {
        datagrams: counts.datagrams,
        lost: counts.datagrams_lost,
        frames: counts.frames,
        acknowledged: counts.acknowledged,
        refused: counts.refused,
        unknown: counts.unknown,
        faults: counts.faults,
        crashes: counts.crashes,
        repairs: counts.repairs,
    }
}

fn violations<'a>(page: &Page<'a>) -> Vec<Violation<'a>> {
    let violation = |violation: &'a crate::checker::Violation| Violation {
        name: violation.invariant.to_string(),
        promise: violation.invariant.promise(),
        at: violation.at_us,
        node: violation.node,
        detail: &violation.detail,
    };
    page.report.violations.iter().map(violation).collect()
}

fn lives(page: &Page<'_>) -> Vec<Vec<(u64, Option<u64>, &'static str)>> {
    let of = |node: usize| {
        let lives = page.recording.lives.get(&node).into_iter().flatten();
        let life = lives.map(|life| {
            let (ends, how) = life.ends.map_or((None, ""), |(at, how)| (Some(at.as_micros()), how));
            (life.starts.as_micros(), ends, how)
        });
        life.collect()
    };
    (0..page.scenario.nodes.len()).map(of).collect()
}

fn pauses(page: &Page<'_>) -> Vec<Vec<(u64, Option<u64>)>> {
    let of = |node: usize| {
        let pauses = page.recording.pauses.get(&node).into_iter().flatten();
        pauses.map(|(from, to)| (from.as_micros(), to.map(Instant::as_micros))).collect()
    };
    (0..page.scenario.nodes.len()).map(of).collect()
}

fn faults(page: &Page<'_>) -> Vec<Disturbance> {
    let named = page.recording.faults.iter().filter_map(|open| Some((open, page.scenario.faults.get(open.fault)?)));
    named
        .map(|(open, fault)| Disturbance {
            from: open.begins.as_micros(),
            to: open.ends.map(Instant::as_micros),
            kind: words::kind(&fault.kind),
            text: words::fault(fault, &page.scenario.nodes),
            nodes: fault.kind.nodes(),
            sides: fault.kind.sides(),
        })
        .collect()
}

fn messages(drawn: &[Message]) -> Messages {
    let mut columns = Messages::default();
    let mut before = 0;
    for (place, message) in drawn.iter().enumerate() {
        let sent = message.sent.as_micros();
        let took = |at: Instant| i64::try_from(at.as_micros().saturating_sub(sent)).unwrap_or(i64::MAX);
        let (took, lost) = match message.fate {
            Fate::Arrived(at) => (took(at), None),
            Fate::UnderWay => (-1, Some("under way at the end")),
            Fate::Lost => (-1, Some("lost")),
            Fate::Blocked => (-1, Some("link cut")),
            Fate::NobodyThere(at) => (-took(at).max(1), Some("nobody there")),
            Fate::StreamEnded(at) => (-took(at).max(1), Some("stream ended")),
        };
        columns.sent.push(sent - before);
        columns.from.push(message.from);
        columns.to.push(message.to);
        columns.kind.push(Kind::ALL.iter().position(|kind| *kind == message.kind).unwrap_or_default());
        columns.took.push(took);
        columns.bytes.push(message.bytes);
        if let Some(lost) = lost {
            columns.lost.insert(place, lost);
        }
        before = sent;
    }
    columns
}

/// The last `most` of a list.
fn last<L: IntoIterator<IntoIter: ExactSizeIterator>>(list: L, most: usize) -> impl Iterator<Item = L::Item> {
    let list = list.into_iter();
    let surplus = list.len().saturating_sub(most);
    list.skip(surplus)
}

fn operations(page: &Page<'_>, most: usize) -> Operations {
    let all = &page.recording.operations;
    let mut columns = Operations { asked: all.len(), ..Operations::default() };
    let mut places: [BTreeMap<String, usize>; 2] = Default::default();
    let mut before = 0;
    for (place, asked) in last(all, most).enumerate() {
        let Asked { at, operation, answer } = asked;
        let [actions, targets] = &mut places;
        columns.action.push(place_of(actions, words::action(operation.action)));
        columns.target.push(place_of(targets, operation.target.id().to_string()));
        columns.at.push(at.as_micros() - before);
        before = at.as_micros();
        columns.id.push(operation.id);
        columns.node.push(operation.node);
        let took = answer.as_ref().map(|(answered, _)| answered.as_micros() - before);
        columns.took.push(took.map_or(-1, |took| i64::try_from(took).unwrap_or(i64::MAX)));
        columns.answer.push(match answer {
            _ if operation.action == crate::scenario::Action::Read => 4,
            Some((_, Answer::Acknowledged { changed: true })) => 0,
            Some((_, Answer::Acknowledged { changed: false })) => 1,
            Some((_, Answer::Refused(why))) => {
                columns.refusals.insert(place, why.clone());
                2
            }
            Some((_, Answer::Unknown)) | None => 3,
        });
        let nodes = page.scenario.nodes.iter().enumerate();
        let entitled = nodes.filter(|(_, node)| operation.target.is_held_in(&node.zone)).map(|(node, _)| node);
        let entitled: Vec<usize> = entitled.collect();
        let spread = page.recording.spread.took_us(operation.id, &entitled, entitled.len());
        columns.spread.push(spread.map_or(-1, |took| i64::try_from(took).unwrap_or(i64::MAX)));
    }
    let [actions, targets] = places;
    columns.actions = in_order(actions);
    columns.targets = in_order(targets);
    columns
}

fn place_of(places: &mut BTreeMap<String, usize>, name: String) -> usize {
    let next = places.len();
    *places.entry(name).or_insert(next)
}

fn in_order(places: BTreeMap<String, usize>) -> Vec<String> {
    let mut names: Vec<(usize, String)> = places.into_iter().map(|(name, place)| (place, name)).collect();
    names.sort_unstable();
    names.into_iter().map(|(_, name)| name).collect()
}

fn scopes_of(page: &Page<'_>) -> Vec<String> {
    let mut scopes: Vec<String> = page.recording.scopes.keys().map(|(_, scope)| scope.clone()).collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

fn roots(page: &Page<'_>, scopes: &[String], most: usize, all_from: u64) -> Roots {
    let all = &page.recording.scopes;
    let series: Vec<&[(Instant, ScopeStatus)]> = all.values().map(Vec::as_slice).collect();
    let step = thin::steps(&series, most, all_from);
    let mut names = BTreeMap::new();
    let mut kept = Vec::new();
    for ((node, scope), series) in all {
        let scope = scopes.iter().position(|name| name == scope).unwrap_or_default();
        let (mut times, mut roots, mut documents) = (Vec::new(), Vec::new(), Vec::new());
        let mut before = 0;
        for (at, status) in kept_at(series, step, all_from).into_iter().filter_map(|place| series.get(place)) {
            times.push(at.as_micros() - before);
            before = at.as_micros();
            roots.push(place_of(&mut names, status.root.chars().take(8).collect()));
            documents.push(status.documents);
        }
        kept.push((*node, scope, times, roots, documents));
    }
    let changes = all.values().map(Vec::len).sum();
    Roots { changes, step, names: in_order(names), series: kept }
}

fn beliefs(page: &Page<'_>, most: usize) -> Vec<(u64, usize, usize, &'static str)> {
    let belief = |(at, observer, subject, status): &(Instant, usize, usize, knot_engine::membership::Status)| {
        (at.as_micros(), *observer, *subject, status_name(*status))
    };
    last(&page.recording.beliefs, most).map(belief).collect()
}

fn state(node: &NodeState) -> State<'_> {
    let members = node.members.iter();
    State {
        process: node.process,
        members: members.map(|member| (member.name.as_str(), member.status, member.incarnation.as_str())).collect(),
        scopes: &node.scopes,
        queues: node.queues.iter().map(|queue| (queue.name, queue.depth, queue.limit)).collect(),
    }
}

fn last_lines(page: &Page<'_>, most: usize) -> Vec<String> {
    last(&page.recording.lines, most).map(|line| line.chars().take(LINE_CHARACTERS_MAX).collect()).collect()
}
