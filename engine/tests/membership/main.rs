//! The membership machine, many of them, through their public API on a virtual clock.

mod evidence;
mod hostile;
mod world;

use std::time::Duration;

use knot_engine::membership::{ForceLeaveError, Message, STARTS_SKIPPED_MAX, Standing, Status, Update, Via};
use knot_engine::{Address, Boot, Incarnation, Instant};
use knot_engine::{Fault, Faults};

use crate::world::{Change, World};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn joined(seed: u8, count: usize, zones: u8) -> World {
    let mut world = World::new(seed, count, zones);
    world.start_all();
    let took = world.run_until(secs(30), World::is_agreed);
    println!("{count} members in {zones} zones joined after {took:?}");
    assert!(took.is_some_and(|took| took < secs(8)), "no full view: {took:?}");
    world.run(secs(10));
    world.changes.clear();
    world
}

fn failures(world: &World) -> usize {
    world.changes.iter().filter(|change| change.to == Status::Failed).count()
}

#[test]
fn one_seed_leads_to_a_full_view() {
    for (count, zones) in [(2, 1), (3, 3), (10, 2), (50, 3)] {
        let world = joined(1, count, zones);
        let hash = world.machine(0).view_hash();
        assert!(world.running().iter().all(|index| world.machine(*index).view_hash() == hash));
    }
}

#[test]
fn members_that_start_at_once_with_each_other_as_seeds_find_together() {
    let mut world = World::new(2, 12, 3);
    for index in 0..12 {
        world.start(index, &[(index + 1) % 12, index]);
    }
    assert!(world.run_until(secs(10), World::is_agreed).is_some());
}

#[test]
fn a_crashed_process_on_a_live_host_is_failed_everywhere_within_three_seconds() {
    for (count, zones) in [(2, 1), (3, 3), (10, 2), (50, 3)] {
        let mut world = joined(3, count, zones);
        world.crash(1, false);
        let took = world.run_until(secs(60), |world| world.everyone_sees(1, Status::Failed));
        println!("process crash, {count} members: {took:?}");
        assert!(took.is_some_and(|took| took < secs(3)), "{count}: {took:?}");
        assert!(world.changes.iter().all(|change| change.node == 1));
    }
}

#[test]
fn a_host_that_vanishes_is_failed_everywhere_within_the_bound() {
    for (count, zones, bound) in [(3, 1, 30), (3, 3, 40), (10, 2, 20), (50, 3, 40)] {
        let mut world = joined(4, count, zones);
        world.crash(1, true);
        let took = world.run_until(secs(120), |world| world.everyone_sees(1, Status::Failed));
        println!("host crash, {count} members in {zones} zones: {took:?}");
        assert!(took.is_some_and(|took| took < secs(bound)), "{count}: {took:?}");
        world.run(secs(60));
        assert!(world.changes.iter().all(|change| change.node == 1));
    }
}

fn lossy(faults: Faults) -> World {
    let mut world = World::new(5, 30, 2);
    world.faults = faults;
    world.start_all();
    assert!(world.run_until(secs(20), World::is_agreed).is_some());
    world.changes.clear();
    world.loss_permille = 100;
    world.lossy_streams = true;
    world.run(secs(300));
    world
}

#[test]
fn loss_of_a_tenth_fails_nobody() {
    let world = lossy(Faults::default());
    let suspicions: u64 = (0..30).map(|index| world.machine(index).stats().suspicions).sum();
    println!("{suspicions} suspicions in 300 s at 10 % loss");
    assert!(suspicions > 0, "the test could not fail");
    assert_eq!(failures(&world), 0);
}

#[test]
fn the_planted_unchecked_suspicion_is_found() {
    let world = lossy(Fault::SuspicionUnchecked.into());
    println!("{} false failures with the bug", failures(&world));
    assert!(failures(&world) > 0);
}

#[test]
fn a_healed_partition_is_one_cluster_again_within_seconds() {
    for (seed, count, zones, cut) in [(6, 3, 3, 1), (7, 3, 1, 1), (8, 10, 2, 5), (9, 20, 3, 6), (10, 2, 1, 1)] {
        let mut world = joined(seed, count, zones);
        (0..cut).for_each(|index| world.nodes[index].side = 1);
        world.run(secs(60));
        let noticed = failures(&world);
        world.nodes.iter_mut().for_each(|node| node.side = 0);
        world.changes.clear();
        let took = world.run_until(secs(30), World::is_agreed);
        println!("{cut} of {count} healed after {took:?}, {noticed} failures seen");
        assert!(took.is_some_and(|took| took < secs(3)), "{took:?}");
        world.run(secs(60));
        let side = |node: usize| node < cut;
        let false_here = |change: &&Change| change.to == Status::Failed && side(change.node) == side(change.observer);
        assert_eq!(world.changes.iter().filter(false_here).count(), 0);
        let hash = world.machine(0).view_hash();
        assert!(world.running().iter().all(|index| world.machine(*index).view_hash() == hash));
    }
}

#[test]
fn a_direction_in_which_nothing_comes_fails_nobody_whom_others_reach() {
    for (seed, count, zones, mute) in
        [(25, 5, 1, vec![(0, 1)]), (26, 6, 2, vec![(0, 1), (2, 3)]), (27, 10, 3, vec![(0, 1), (0, 2), (0, 3)])]
    {
        let mut world = joined(seed, count, zones);
        world.mute = mute;
        world.run(secs(180));
        assert_eq!(failures(&world), 0, "{count}: {:?}", world.changes);
        world.mute.clear();
        assert!(world.run_until(secs(10), World::is_agreed).is_some());
        let hash = world.machine(0).view_hash();
        world.run(secs(10));
        assert!(world.running().iter().all(|index| world.machine(*index).view_hash() == world.machine(0).view_hash()));
        assert!(hash != 0);
    }
}

#[test]
fn a_goodbye_shows_as_left_everywhere() {
    for retire in [false, true] {
        let mut world = joined(11, 10, 2);
        world.with(2, |machine, now| machine.leave(retire, now));
        assert!(world.run_until(secs(2), |world| world.nodes[2].left_done).is_some());
        world.crash(2, false);
        world.run(secs(30));
        assert!(world.everyone_sees(2, Status::Left));
        assert_eq!(failures(&world), 0);
        let id = world.nodes[2].id;
        let durable = |index: usize| world.machine(index).member(&id).unwrap().durable;
        assert!(world.running().iter().all(|index| durable(*index) != retire));
        world.start(2, &[0]);
        assert!(world.run_until(secs(5), World::is_agreed).is_some());
        assert!(world.machine(0).member(&id).unwrap().durable);
    }
}

#[test]
fn a_failed_member_can_be_made_to_leave_and_a_live_one_only_by_force() {
    let mut world = joined(12, 5, 1);
    let (me, gone, live) = (world.nodes[0].id, world.nodes[4].id, world.nodes[1].id);
    world.crash(4, false);
    assert!(world.run_until(secs(5), |world| world.everyone_sees(4, Status::Failed)).is_some());
    let unknown = knot_engine::NodeId([9; 16]);
    let refuse = |world: &mut World, who| world.with(0, |machine, now| machine.force_leave(&who, false, now));
    assert_eq!(refuse(&mut world, me), Err(ForceLeaveError::Myself));
    assert_eq!(refuse(&mut world, unknown), Err(ForceLeaveError::Unknown));
    assert_eq!(refuse(&mut world, live), Err(ForceLeaveError::Alive));
    assert_eq!(refuse(&mut world, gone), Ok(()));
    world.run(secs(3));
    assert!(world.everyone_sees(4, Status::Left));
    assert!((0..4).all(|index| !world.machine(index).member(&gone).unwrap().durable));
    assert_eq!(world.with(0, |machine, now| machine.force_leave(&live, true, now)), Ok(()));
    assert!(world.run_until(secs(5), |world| world.is_agreed()).is_some(), "it denies that");
}

#[test]
fn a_restart_elsewhere_is_the_same_member() {
    let mut world = joined(13, 6, 2);
    world.crash(3, false);
    world.run(secs(1));
    world.nodes[3].address = Address::from("elsewhere:1");
    world.start(3, &[0]);
    assert!(world.run_until(secs(5), World::is_agreed).is_some());
    assert_eq!(world.moves, 5);
    let id = world.nodes[3].id;
    assert!(
        world
            .running()
            .iter()
            .all(|index| { &*world.machine(*index).member(&id).unwrap().record.addresses[0].0 == "elsewhere:1" })
    );
}

#[test]
fn a_restored_table_leads_back_without_seeds() {
    let mut world = joined(14, 5, 1);
    let known = world.machine(2).persistent();
    assert_eq!(known.len(), 4);
    assert!(world.with(2, |machine, _| machine.take_dirty()));
    assert!(!world.with(2, |machine, _| machine.take_dirty()));
    world.crash(2, true);
    world.run(secs(60));
    world.start(2, &[]);
    world.with(2, |machine, now| machine.restore(known, now));
    assert_eq!(world.count(2, Status::Suspect), 4);
    assert!(world.run_until(secs(8), World::is_agreed).is_some());
}

#[test]
fn what_is_restored_and_stays_silent_is_failed() {
    let mut world = joined(15, 3, 1);
    let known = world.machine(0).persistent();
    (0..3).for_each(|index| world.crash(index, true));
    world.start(0, &[]);
    world.with(0, |machine, now| machine.restore(known, now));
    world.run(secs(40));
    assert_eq!(world.count(0, Status::Failed), 2);
}

#[test]
fn who_starts_without_a_network_accuses_nobody_when_it_has_one() {
    let mut world = joined(24, 5, 1);
    let known = world.machine(2).persistent();
    world.crash(2, true);
    world.run(secs(60));
    world.nodes[2].side = 1;
    world.start(2, &[]);
    world.with(2, |machine, now| machine.restore(known, now));
    world.run(secs(60));
    assert_eq!(world.count(2, Status::Failed), 4);
    let denials = |world: &World| [0, 1, 3, 4].map(|index| world.machine(index).stats().refutations);
    let before = denials(&world);
    world.changes.clear();
    world.nodes[2].side = 0;
    assert!(world.run_until(secs(8), World::is_agreed).is_some());
    world.run(secs(30));
    assert!(world.changes.iter().all(|change| change.observer == 2 || change.node == 2), "{:?}", world.changes);
    assert_eq!(denials(&world), before, "nobody had anything to deny");
}

#[test]
fn a_start_below_what_the_cluster_remembers_rises_above_it() {
    let mut world = joined(16, 4, 1);
    world.crash(1, false);
    world.run(secs(5));
    world.nodes[1].starts = 0;
    world.start(1, &[0]);
    world.start(1, &[0]);
    world.nodes[1].starts = 0;
    assert!(world.run_until(secs(10), World::is_agreed).is_some());
}

#[test]
fn a_statement_that_its_member_never_made_keeps_it_out_for_a_moment_only() {
    for (starts, refutations, status) in [
        (u32::MAX - 1, u32::MAX, Status::Alive),
        (u32::MAX - 1, 0, Status::Left),
        (70_000, u32::MAX, Status::Failed),
        (65_537, u32::MAX, Status::Suspect),
    ] {
        let mut world = joined(22, 5, 2);
        let mut lie = world.record(1);
        lie.incarnation = Incarnation { starts, refutations };
        lie.boot = Boot([9; 16]);
        let standing = Standing { status, accuser: Some(world.nodes[4].id), ..Standing::ALIVE };
        let liar = world.nodes[4].id;
        for hearer in 0..4 {
            let update = Update::Full { record: lie.clone().into(), standing };
            let message = Message::Gossip { updates: vec![update] };
            world.with(hearer, |machine, now| machine.handle_message(liar, Via::Stream, message, now));
        }
        let heard = |world: &World, index: usize| world.machine(index).member(&world.nodes[1].id).unwrap().record.boot;
        let truth = world.nodes[1].boot;
        let mended = |world: &World| world.is_agreed() && (0..5).all(|index| heard(world, index) == truth);
        let took = world.run_until(secs(60), mended);
        assert!(took.is_some_and(|took| took < secs(20)), "{starts}.{refutations} {status:?}: {took:?}");
        world.run(secs(60));
        assert!(mended(&world), "{starts}.{refutations} {status:?}: it lasts");
        assert!(world.machine(1).me().record.incarnation.starts <= 1 + STARTS_SKIPPED_MAX);
        world.crash(1, false);
        world.run(secs(5));
        world.start(1, &[0]);
        assert!(world.run_until(secs(20), World::is_agreed).is_some(), "{starts}.{refutations} {status:?}: it returns");
    }
}

#[test]
fn two_nodes_of_one_name_are_reported() {
    let mut world = joined(17, 3, 1);
    let mut record = world.record(2);
    record.name = "server-1".to_owned();
    record.incarnation.starts += 1;
    world.crash(2, false);
    world.nodes[2].boot = Boot([3; 16]);
    record.boot = Boot([3; 16]);
    let random = knot_engine::Random::new(&[1; 32], "membership");
    let mut machine =
        knot_engine::membership::Membership::new(world.config.clone(), record, random, world.faults, world.now);
    machine.join(vec![world.nodes[0].address.clone()], world.now);
    world.nodes[2].machine = Some(machine);
    world.run(secs(5));
    assert!(world.names_taken > 0);
}

#[test]
fn a_departed_member_is_forgotten_everywhere_and_stays_so() {
    let mut world = World::new(18, 4, 1);
    world.config.failed_retention = secs(30);
    world.start_all();
    world.run(secs(10));
    world.crash(3, true);
    assert!(world.run_until(secs(60), |world| world.everyone_sees(3, Status::Failed)).is_some());
    world.run(secs(45));
    assert!((0..3).all(|index| world.status(index, 3).is_none()));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let mut world = World::new(seed, 8, 2);
        world.loss_permille = 50;
        world.start_all();
        world.run(secs(20));
        world.crash(2, false);
        world.run(secs(20));
        world.trace.finalize()
    };
    assert_eq!(trace(19), trace(19));
    assert_ne!(trace(19), trace(20));
}

#[test]
fn an_idle_cluster_stays_below_three_hundred_bytes_a_second() {
    for count in [3, 10, 50] {
        let mut world = joined(21, count, 3);
        world.run(secs(60));
        world.nodes.iter_mut().for_each(|node| node.sent_bytes = 0);
        let syncs = |world: &World| (0..count).map(|index| world.machine(index).stats().syncs).sum::<u64>();
        let before = syncs(&world);
        world.run(secs(100));
        let most = world.nodes.iter().map(|node| node.sent_bytes / 100).max().unwrap();
        let mean = world.nodes.iter().map(|node| node.sent_bytes / 100).sum::<usize>() / count;
        println!("{count} members idle: mean {mean} B/s, most {most} B/s a node");
        assert!(mean < 300, "{mean}");
        assert_eq!(syncs(&world), before);
        assert!(world.now > Instant::ZERO);
    }
}

#[test]
fn a_stream_that_was_silent_while_its_member_was_suspect_is_replaced() {
    for (seed, zones) in (20..60).zip([1, 3].into_iter().cycle()) {
        let mut world = joined(seed, 3, zones);
        world.nodes.iter_mut().zip(0..).for_each(|(node, side)| node.side = side);
        world.run(secs(14));
        assert_eq!(failures(&world), 0, "nobody is counted as failed so soon");
        let pairs = [(0, 1), (1, 2), (2, 0)];
        let stale = pairs.map(|(a, b)| world.session(a, b));
        world.nodes.iter_mut().for_each(|node| node.side = 0);
        let took = world.run_until(secs(10), |world| {
            let fresh = pairs.map(|(a, b)| world.session(a, b));
            fresh.iter().zip(stale).all(|(fresh, stale)| fresh.is_some() && *fresh != stale)
        });
        println!("three healed after {took:?}");
        assert!(took.is_some_and(|took| took < secs(3)), "{took:?}");
    }
}
