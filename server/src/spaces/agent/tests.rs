use super::*;

const NODES: [&str; 2] = ["n1", "n2"];

fn record(wanted: Wanted, node: &str, generation: u64) -> SpaceRecord {
    let (id, node_id) = ("s1".to_owned(), node.to_owned());
    SpaceRecord { id, wanted, node_id, generation, ..SpaceRecord::default() }
}

fn seen(generation: u64, state: Container) -> Seen {
    Seen { space_id: "s1".to_owned(), generation, container_id: format!("c{generation}"), state, started_at: 5 }
}

/// What n1 does about one space, in short.
fn steps(record: Option<SpaceRecord>, report: Option<(State, u64)>, containers: &[Seen], is_kept: bool) -> Vec<String> {
    let records = record.into_iter().map(|record| (record.id.clone(), record)).collect();
    let reports = report.map(|(state, generation)| {
        let (node_id, container_id) = ("n1".to_owned(), format!("c{generation}"));
        let report = Report { node_id, generation, state, container_id, started_at: 5, at: 9, ..Report::default() };
        ("s1".to_owned(), [("n1".to_owned(), report)].into())
    });
    let kept = is_kept.then(|| "s1".to_owned()).into_iter().collect();
    let here = Here { containers: containers.to_vec(), kept };
    let shown = |step: &Step| match step {
        Step::Start { generation, .. } => format!("start {generation}"),
        Step::Stop { .. } => "stop".to_owned(),
        Step::Remove { with_volumes, .. } => format!("remove {with_volumes}"),
        Step::Report { report, .. } => format!("{:?} {}{}", report.state, report.generation, report.error),
    };
    decide(known("n1", &records, &reports.into_iter().collect()), &here).iter().map(shown).collect()
}

fn known<'a>(node_id: &'a str, records: &'a BTreeMap<String, SpaceRecord>, reports: &'a Reports) -> Knowledge<'a> {
    const NOTHING: &BTreeSet<(String, u64)> = &BTreeSet::new();
    Knowledge { node_id, records, reports, missed: NOTHING }
}

#[test]
fn what_is_placed_here_is_brought_to_what_is_wanted() {
    use Container::{Created, Exited, Running};
    let running = || Some(record(Wanted::Running, "n1", 3));
    let stopped = || Some(record(Wanted::Stopped, "n1", 3));
    for (record, report, containers, expected) in [
        (running(), None, vec![], &["start 3"][..]),
        (running(), Some((State::Running, 2)), vec![], &["start 3"]),
        (running(), Some((State::Starting, 3)), vec![], &["start 3"]),
        (running(), Some((State::Starting, 3)), vec![seen(3, Created)], &["start 3"]),
        (running(), Some((State::Starting, 3)), vec![seen(3, Running)], &["Running 3"]),
        (running(), Some((State::Running, 3)), vec![seen(3, Running)], &[]),
        (running(), Some((State::Running, 2)), vec![seen(2, Running)], &["start 3"]),
        (running(), Some((State::Running, 3)), vec![seen(2, Running), seen(3, Running)], &["start 3"]),
        (running(), Some((State::Running, 3)), vec![seen(3, Exited(0))], &["Stopped 3"]),
        (
            running(),
            Some((State::Running, 3)),
            vec![seen(3, Exited(137))],
            &["Failed 3its container ended with status 137: see its log, then start it again"],
        ),
        (
            running(),
            Some((State::Running, 3)),
            vec![],
            &["Failed 3its container was removed by somebody else: start it again"],
        ),
        (running(), Some((State::Failed, 3)), vec![], &[]),
        (running(), Some((State::Stopped, 3)), vec![], &[]),
        (stopped(), Some((State::Running, 3)), vec![seen(3, Running)], &["Stopping 3", "stop"]),
        (stopped(), Some((State::Stopping, 3)), vec![seen(3, Running)], &["stop"]),
        (stopped(), Some((State::Stopping, 3)), vec![seen(3, Exited(143))], &["Stopped 3"]),
        (stopped(), Some((State::Stopped, 3)), vec![seen(3, Exited(143))], &[]),
        (stopped(), None, vec![], &["Stopped 3"]),
        // The record has kept an earlier number than this server has run.
        (running(), Some((State::Running, 4)), vec![seen(4, Running)], &[]),
        (running(), Some((State::Starting, 4)), vec![], &["start 4"]),
        (stopped(), Some((State::Running, 4)), vec![seen(4, Running)], &["Stopping 4", "stop"]),
        // What cannot be made room for is not tried without end.
        (running(), Some((State::Failed, 3)), vec![seen(2, Running), seen(3, Running)], &[]),
    ] {
        let context = format!("{record:?} {report:?} {containers:?}");
        assert_eq!(steps(record, report, &containers, true), expected, "{context}");
    }
}

#[test]
fn what_is_placed_elsewhere_is_never_started_and_ends_where_it_runs() {
    let elsewhere = |wanted| Some(record(wanted, "n2", 4));
    for wanted in [Wanted::Running, Wanted::Stopped] {
        assert_eq!(steps(elsewhere(wanted), Some((State::Running, 3)), &[], true), [""; 0]);
        for generation in [3, 4, 5] {
            let ran = [seen(generation, Container::Running)];
            assert_eq!(steps(elsewhere(wanted), Some((State::Running, 3)), &ran, true), ["remove false"]);
        }
    }
    // A record that is not here is still to come.
    assert_eq!(steps(None, None, &[seen(1, Container::Running)], true), [""; 0]);
    assert_eq!(steps(None, None, &[], true), [""; 0]);
}

#[test]
fn what_may_have_been_decided_elsewhere_meanwhile_is_not_started() {
    let records = BTreeMap::from([("s1".to_owned(), record(Wanted::Running, "n1", 3))]);
    let missed = BTreeSet::from([("s1".to_owned(), 3)]);
    let starting = Report { node_id: "n1".to_owned(), generation: 3, state: State::Starting, ..Report::default() };
    let later = Report { node_id: "n2".to_owned(), generation: 4, state: State::Running, ..Report::default() };
    let reports =
        |report: &Report| Reports::from([("s1".to_owned(), [(report.node_id.clone(), report.clone())].into())]);
    let created = Here { containers: vec![seen(3, Container::Created)], ..Here::default() };
    let running = Here { containers: vec![seen(3, Container::Running)], ..Here::default() };
    let said = |known: Knowledge<'_>, here: &Here| match &decide(known, here)[..] {
        [Step::Report { report, .. }] => format!("{:?} {}", report.state, report.error),
        steps => format!("{steps:?}"),
    };
    for reports in [Reports::default(), reports(&starting)] {
        for here in [&Here::default(), &created] {
            let known = Knowledge { missed: &missed, ..known("n1", &records, &reports) };
            assert_eq!(said(known, here), "Failed its server was down before it ran: start it again");
        }
        // What runs goes on.
        let known = Knowledge { missed: &missed, ..known("n1", &records, &reports) };
        assert_eq!(said(known, &running), "Running ");
    }
    let overtaken = said(known("n1", &records, &reports(&later)), &Here::default());
    assert_eq!(overtaken, "Failed another server has had a later start of it: start it again");
}

#[test]
fn what_is_deleted_goes_with_its_volumes_from_every_server_that_had_it() {
    let deleted = |node| Some(record(Wanted::Deleted, node, 3));
    assert_eq!(steps(deleted("n1"), None, &[seen(3, Container::Running)], true), ["remove true"]);
    assert_eq!(steps(deleted("n1"), None, &[], true), ["remove true"]);
    assert_eq!(steps(deleted("n2"), None, &[], true), ["remove true"]);
    assert_eq!(steps(deleted("n1"), None, &[], false), ["Removed 3"]);
    assert_eq!(steps(deleted("n2"), None, &[], false), [""; 0]);
}

#[test]
fn without_a_runtime_what_should_start_fails_and_says_why() {
    for (wanted, node, report, is_told) in [
        (Wanted::Running, "n1", None, true),
        (Wanted::Running, "n1", Some((State::Starting, 3)), true),
        (Wanted::Running, "n1", Some((State::Stopped, 2)), true),
        (Wanted::Running, "n1", Some((State::Running, 3)), false),
        (Wanted::Running, "n1", Some((State::Failed, 3)), false),
        (Wanted::Running, "n1", Some((State::Running, 4)), false),
        (Wanted::Running, "n2", None, false),
        (Wanted::Stopped, "n1", None, false),
    ] {
        let records = BTreeMap::from([("s1".to_owned(), record(wanted, node, 3))]);
        let told = report.map(|(state, generation)| {
            let report = Report { node_id: "n1".to_owned(), generation, state, ..Report::default() };
            ("s1".to_owned(), [("n1".to_owned(), report)].into())
        });
        let steps = without_runtime(known("n1", &records, &told.into_iter().collect()), "no runtime");
        let failure = failed(&records["s1"], "no runtime");
        let expected = is_told.then(|| Step::Report { space_id: "s1".to_owned(), report: failure });
        assert_eq!(steps, expected.into_iter().collect::<Vec<_>>(), "{wanted:?} {node} {report:?}");
    }
}

#[test]
fn an_error_is_cut_between_characters() {
    let error = "é".repeat(super::super::record::ERROR_BYTES_MAX);
    assert_eq!(failed(&record(Wanted::Running, "n1", 1), &error).error.len(), super::super::record::ERROR_BYTES_MAX);
}

/// Two servers with their runtimes, one space, and documents that each server knows some version of.
struct World {
    record: SpaceRecord,
    known: [SpaceRecord; 2],
    reports: Reports,
    here: [Here; 2],
    /// Starts of which it was said what became of them, with where.
    told: BTreeSet<(u64, usize)>,
}

impl World {
    fn new() -> Self {
        let record = record(Wanted::Stopped, "", 0);
        let known = [record.clone(), record.clone()];
        Self {
            record,
            known,
            reports: Reports::default(),
            here: [Here::default(), Here::default()],
            told: BTreeSet::new(),
        }
    }

    /// The latest start that anybody has reported on.
    fn last(&self) -> u64 {
        self.reports.values().flatten().map(|(_, report)| report.generation).max().unwrap_or_default()
    }

    fn look(&mut self, node: usize, steps_max: usize) {
        let records = [("s1".to_owned(), self.known[node].clone())].into();
        // A server that crashes leaves off anywhere.
        for step in decide(known(NODES[node], &records, &self.reports), &self.here[node]).into_iter().take(steps_max) {
            self.act(node, step);
        }
    }

    fn act(&mut self, node: usize, step: Step) {
        let here = &mut self.here[node];
        match step {
            Step::Start { generation, .. } => {
                assert_eq!(self.known[node].node_id, NODES[node], "started where it is not placed");
                let is_here = here.containers.iter().any(|seen| seen.generation == generation);
                assert!(is_here || !self.told.contains(&(generation, node)), "generation {generation} ran twice");
                here.containers = vec![seen(generation, Container::Running)];
                here.kept.insert("s1".to_owned());
            }
            Step::Stop { .. } => {
                here.containers.iter_mut().for_each(|seen| seen.state = Container::Exited(143));
            }
            Step::Remove { with_volumes, .. } => {
                here.containers.clear();
                if with_volumes {
                    here.kept.clear();
                }
            }
            Step::Report { report, .. } => {
                assert_eq!(report.node_id, NODES[node], "reported for another server");
                if matches!(report.state, State::Running | State::Stopped | State::Failed) {
                    self.told.insert((report.generation, node));
                }
                self.reports.entry("s1".to_owned()).or_default().insert(NODES[node].to_owned(), report);
            }
        }
    }
}

#[test]
fn a_space_runs_where_its_record_says_and_nowhere_else_once_all_have_heard() {
    fn property(events: Vec<(u8, bool)>) -> bool {
        let mut world = World::new();
        for (event, which) in events {
            let node = usize::from(which);
            match event % 7 {
                0 => world.record.start(NODES[node], world.last()),
                1 if world.record.wanted == Wanted::Running => world.record.wanted = Wanted::Stopped,
                2 => world.known[node] = world.record.clone(),
                3 => world.look(node, 1),
                4 => {
                    let containers = &mut world.here[node].containers;
                    containers.iter_mut().for_each(|seen| seen.state = Container::Exited(137));
                }
                5 => world.here[node].containers.clear(),
                _ => world.look(node, 9),
            }
        }
        world.record.start(NODES[0], world.last());
        world.known = [world.record.clone(), world.record.clone()];
        for _ in 0..4 {
            world.look(0, 9);
            world.look(1, 9);
        }
        let runs = |node: usize| world.here[node].containers.iter().map(|seen| seen.generation).collect::<Vec<_>>();
        let is_settled = (0..2).all(|node| {
            let records = [("s1".to_owned(), world.record.clone())].into();
            decide(known(NODES[node], &records, &world.reports), &world.here[node]).is_empty()
        });
        let is_running = world.reports["s1"][NODES[0]].state == State::Running;
        runs(0) == [world.record.generation] && runs(1).is_empty() && is_settled && is_running
    }
    quickcheck::QuickCheck::new().tests(2000).quickcheck(property as fn(Vec<(u8, bool)>) -> bool);
}
