//! Why a member has its standing.

use knot_engine::NodeId;
use knot_engine::membership::{Accusation, Evidence, Status};

use super::{joined, secs};
use crate::world::World;

/// What `observer` has seen of `node`, and forgets.
fn seen(world: &mut World, observer: usize, node: usize) -> Vec<(Status, Evidence)> {
    let changes = std::mem::take(&mut world.changes);
    let of_it = |change: &&crate::world::Change| change.observer == observer && change.node == node;
    changes.iter().filter(of_it).map(|change| (change.to, change.evidence.clone())).collect()
}

/// The accusation that a member failed on.
fn failure(seen: &[(Status, Evidence)]) -> &Accusation {
    match seen {
        [.., (Status::Failed, Evidence::Accused(accusation))] => accusation,
        _ => panic!("no failure: {seen:?}"),
    }
}

#[test]
fn a_refused_crash_names_whom_the_host_refused() {
    let mut world = joined(31, 5, 1);
    world.crash(4, false);
    assert!(world.run_until(secs(5), |world| world.everyone_sees(4, Status::Failed)).is_some());
    let others: Vec<NodeId> = world.nodes[..4].iter().map(|node| node.id).collect();
    let steps = seen(&mut world, 0, 4);
    let Accusation { by, refused, unanswered, unheard_for } = failure(&steps);
    assert!(by.is_some_and(|by| others.contains(&by)), "{steps:?}");
    assert!(refused.iter().all(|node| others.contains(node)) && !refused.is_empty(), "{steps:?}");
    assert!(unanswered.iter().all(|node| others.contains(node) && !refused.contains(node)), "{steps:?}");
    assert!(unheard_for.is_some_and(|long| long < secs(5)), "{steps:?}");

    world.start(4, &[0]);
    assert!(world.run_until(secs(5), World::is_agreed).is_some());
    assert_eq!(seen(&mut world, 0, 4), [(Status::Alive, Evidence::Started)]);
}

#[test]
fn a_silent_host_names_whom_it_did_not_answer() {
    let mut world = joined(32, 5, 1);
    world.crash(4, true);
    assert!(world.run_until(secs(60), |world| world.everyone_sees(4, Status::Failed)).is_some());
    let steps = seen(&mut world, 0, 4);
    let (to, Evidence::Accused(first)) = &steps[0] else { panic!("{steps:?}") };
    assert_eq!((*to, &first.refused[..], &first.unanswered[..]), (Status::Suspect, &[][..], first.by.as_slice()));
    let Accusation { refused, unanswered, unheard_for, .. } = failure(&steps);
    assert!(refused.is_empty() && unanswered.len() > 1, "{steps:?}");
    assert!(unheard_for.is_some_and(|long| long > secs(1)), "{steps:?}");
}

#[test]
fn a_goodbye_a_force_leave_an_eviction_and_a_denial_are_told_apart() {
    let mut world = joined(33, 5, 1);
    let [taker, taken] = [0, 4].map(|index| world.nodes[index].id);
    world.with(0, |machine, now| machine.force_leave(&taken, true, now)).unwrap();
    world.run(secs(5));
    for observer in [0, 1] {
        let changes = world.changes.clone();
        let steps = seen(&mut world, observer, 4);
        assert_eq!(steps, [(Status::Left, Evidence::TakenOut { by: taker }), (Status::Alive, Evidence::Denied)]);
        world.changes = changes;
    }
    world.changes.clear();
    world.with(0, |machine, now| machine.evict(taken, now));
    assert_eq!(seen(&mut world, 0, 4), [(Status::Left, Evidence::ShutOut)]);

    world.with(2, |machine, now| machine.leave(false, now));
    world.run(secs(2));
    assert_eq!(seen(&mut world, 1, 2), [(Status::Left, Evidence::Goodbye)]);
}

#[test]
fn who_was_known_before_is_heard_of_again_or_is_not() {
    let mut world = joined(34, 4, 1);
    let known = world.machine(2).persistent();
    world.crash(2, true);
    world.crash(3, true);
    world.run(secs(60));
    world.changes.clear();
    world.start(2, &[]);
    world.with(2, |machine, now| machine.restore(known, now));
    world.run(secs(60));
    let changes = world.changes.clone();
    assert_eq!(seen(&mut world, 2, 0), [(Status::Alive, Evidence::HeardAgain)]);
    world.changes = changes;
    assert!(matches!(&seen(&mut world, 2, 3)[..], [(Status::Failed, _)]), "others know that it failed");

    let mut world = joined(35, 2, 1);
    let known = world.machine(0).persistent();
    (0..2).for_each(|index| world.crash(index, true));
    world.changes.clear();
    world.start(0, &[]);
    world.with(0, |machine, now| machine.restore(known, now));
    world.run(secs(40));
    assert_eq!(seen(&mut world, 0, 1), [(Status::Failed, Evidence::Unheard)]);
}

#[test]
fn a_stranger_is_met() {
    let mut world = World::new(36, 2, 1);
    world.start_all();
    assert!(world.run_until(secs(8), World::is_agreed).is_some());
    assert_eq!(seen(&mut world, 0, 1), [(Status::Alive, Evidence::Met)]);
}
