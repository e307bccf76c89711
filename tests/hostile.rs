//! A peer that owns the cluster key and means harm: every server stays up, keeps apart what the rules forbid and says so,
//! and goes on replicating the rest.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

#[allow(dead_code, unreachable_pub, reason = "the fuzzer needs more of it, in a library")]
#[path = "../fuzz/harness/src/gate/parts.rs"]
mod parts;
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use knot_engine::documents::{DocumentId, Scope};
use knot_engine::membership::{BUCKETS, Message, Record, STARTS_MAX, Standing, Status, Update};
use knot_engine::wire::{Differences, DocumentChanges, Frame, Root, Wanted};
use knot_engine::{ChangeHash, Incarnation, NodeId, Sum};
use parts::{Parts, unsigned};
use serde_json::{Value, json};
use support::cluster::{self, SPREAD_TIMEOUT, statuses, wait_until_equal, wait_until_reads};
use support::intruder::Intruder;
use support::{Server, Setup, wait_for};

/// How long a server may take to act on what an intruder said.
const ACT_TIMEOUT: Duration = Duration::from_secs(30);
/// Changes whose dependencies nobody has.
const ORPHANS: usize = 5_000;
/// Changes of one push.
const AT_ONCE: usize = 500;
/// For how long an intruder leads a repair on.
const MISLED: Duration = Duration::from_secs(6);

fn three() -> Vec<Server> {
    cluster::start(Setup::cluster(&["au", "au", "gb"]))
}

fn victim() -> DocumentId {
    DocumentId::new(Scope::Global, "users", "ada").unwrap()
}

/// What a server says of itself besides documents.
fn status(server: &Server) -> Value {
    server.client().get("/api/cluster/status").expect(200).json()
}

fn node(server: &Server) -> NodeId {
    status(server)["id"].as_str().unwrap().parse().unwrap()
}

/// All are up and know each other, none holds on to memory, and what a client writes is everywhere.
#[track_caller]
fn still_well(servers: &mut [Server], what: &str) {
    for server in servers.iter_mut() {
        assert_eq!(server.exit_status(), None, "{what}");
        let log = server.log();
        assert!(!log.contains("panicked"), "{what}: {log}");
        for queue in status(server)["queues"].as_array().unwrap() {
            assert!(queue["depth"].as_u64() <= queue["limit"].as_u64(), "{what}: {queue}");
        }
    }
    let said = json!({"after": what});
    let path = format!("/api/documents/after/{}", what.replace(' ', "-"));
    servers[1].client().put(&path, &said).expect(201);
    wait_until_reads(servers.iter(), &path, &said);
    for server in servers.iter() {
        let client = server.client();
        wait_for(&format!("{what}: all are alive"), ACT_TIMEOUT, || {
            let statuses = statuses(&client)?;
            ["n0", "n1", "n2"]
                .iter()
                .all(|name| statuses.get(*name).is_some_and(|status| status == "alive"))
                .then_some(())
        });
    }
}

/// The changes of a document, as its servers store them.
fn changes_of(intruder: &mut Intruder, document: &DocumentId) -> Vec<Bytes> {
    let documents = vec![(document.clone(), Vec::new())];
    intruder.say(&Frame::Want { request: 7, wanted: Wanted::Documents { documents, after: None } });
    wait_for("the document is sent", ACT_TIMEOUT, || {
        intruder.frames().into_iter().find_map(|frame| {
            let Frame::Window { request: 7, changes, .. } = frame else { return None };
            changes.into_iter().next().map(|changes| changes.changes)
        })
    })
}

fn push(intruder: &mut Intruder, changes: Vec<Bytes>) {
    let changes = vec![DocumentChanges { document: victim(), changes }];
    intruder.say(&Frame::Push { seq: 1, ack: false, changes });
}

/// What breaks the rules, made of the last change to a document, by the reason for which it is kept apart.
fn forbidden(last: &Bytes, intruder: &Intruder) -> Vec<(&'static str, Parts)> {
    let honest = Parts::read(last).unwrap();
    let next = Parts { deps: vec![parts::hash(last)], ..honest.clone() };
    let own = |number: u8| Parts {
        actor: [&intruder.node().0[..], &[number; 8]].concat(),
        seq: 1,
        start_op: honest.start_op + 2,
        ..next.clone()
    };
    let mut million = own(5);
    let mut run = Vec::new();
    parts::signed(&mut run, 1_000_000);
    run.push(1);
    million.columns = vec![(0x42, run)];
    vec![
        ("sequence number is not the author's next", Parts { seq: 9, ..own(1) }),
        ("sequence number is not the author's next", Parts { seq: honest.seq + 7, ..next.clone() }),
        ("operation counter does not follow", Parts { start_op: u64::from(u32::MAX), ..own(2) }),
        ("actor is not bound to a node", Parts { actor: vec![7; 16], ..own(3) }),
        ("refers to an actor", Parts { actors: vec![vec![9; 24]], ..own(4) }),
        // Of these no bytes are kept.
        ("", million),
        ("", Parts { extra: vec![1, 2, 3], ..own(6) }),
        ("", Parts { checksum_flip: 1, ..own(7) }),
    ]
}

/// `knot cluster quarantine …`: its exit code, and what it prints where it succeeds or complains of.
fn try_quarantine(server: &Server, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knot"));
    command.args(["cluster", "quarantine"]).args(arguments).arg("--config").arg(server.config());
    let output = command.env_clear().current_dir("/").output().unwrap();
    let printed = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
}

/// What `knot cluster quarantine …` prints.
fn quarantine(server: &Server, arguments: &[&str]) -> String {
    let (code, printed) = try_quarantine(server, arguments);
    assert_eq!(code, 0, "{printed}");
    printed
}

/// Changes of the victim that break the rules are judged again and put aside, by the commands for that.
fn look_again(servers: &[Server], count: usize, hash: &str) {
    let victim = "global/users/ada";
    let released = quarantine(&servers[0], &["release", victim]);
    assert_eq!(released.matches("still refused: ").count(), count, "{released}");
    let released: Value = serde_json::from_str(&quarantine(&servers[0], &["release", victim, hash, "--json"])).unwrap();
    let outcome = &released["data"][0];
    assert!(outcome["hash"].as_str().unwrap().starts_with(hash) && outcome["quarantine"].is_string(), "{released}");

    let (code, complaint) = try_quarantine(&servers[0], &["drop", victim, hash]);
    assert!(code == 2 && complaint.contains("--yes"), "{complaint}");
    let (code, complaint) = try_quarantine(&servers[0], &["drop", victim, "ffffffffffff", "--yes"]);
    assert!(code == 5 && complaint.contains("no such change in quarantine"), "{complaint}");
    let (code, complaint) = try_quarantine(&servers[0], &["release", "users/nobody"]);
    assert!(code == 5 && complaint.contains("no such document"), "{complaint}");
    let (code, complaint) = try_quarantine(&servers[0], &["release", "nothing"]);
    assert!(code != 0 && complaint.contains("global/users/ann"), "{complaint}");

    let dropped = quarantine(&servers[0], &["drop", victim, hash, "--yes"]);
    assert!(dropped.contains(hash) && dropped.contains("is dropped here"), "{dropped}");
    let counted = |server: &Server| status(server)["quarantined"][0]["changes"].clone();
    assert_eq!((counted(&servers[0]), counted(&servers[1])), (json!(count - 1), json!(count)));
    let list = quarantine(&servers[0], &["list"]);
    assert!(!list.contains(hash) && list.lines().count() == count, "{list}");
    let listed = quarantine(&servers[1], &["list"]);
    assert!(listed.contains(hash), "it is for the other to say: {listed}");
    wait_until_equal(servers, ACT_TIMEOUT);
    quarantine(&servers[0], &["release", victim, hash]);
    assert_eq!(counted(&servers[0]), json!(count), "a release takes it up again");
}

#[test]
fn forged_changes_are_kept_apart_and_named() {
    let mut servers = three();
    servers[0].client().put("/api/documents/users/ada", &json!({"name": "Ada", "visits": 1})).expect(201);
    wait_until_equal(&servers, SPREAD_TIMEOUT);
    let mut intruder = Intruder::meet(&servers[0], 0x21);
    let last = changes_of(&mut intruder, &victim()).pop().unwrap();
    let forged = forbidden(&last, &intruder);
    let named: Vec<&str> = forged.iter().map(|(why, _)| *why).filter(|why| !why.is_empty()).collect();
    for (_, parts) in &forged {
        push(&mut intruder, vec![parts.clone().chunk()]);
    }
    let mut held = Value::Null;
    let deadline = Instant::now() + ACT_TIMEOUT;
    while held[0]["changes"] != json!(named.len()) {
        assert!(Instant::now() < deadline, "{} changes are in quarantine, but for {held}", named.len());
        intruder.frames();
        held = status(&servers[0])["quarantined"].clone();
    }
    wait_for("an operator is told", ACT_TIMEOUT, || {
        let log = servers[0].log();
        (log.contains("a change is in quarantine: it is kept and counted, and not applied")
            && log.contains("global/users/ada")
            && log.contains(named[0]))
        .then_some(())
    });
    let client = servers[0].client();
    let history = client.get("/api/documents/users/ada/history").expect(200).json();
    for why in named {
        let entries = history["data"].as_array().unwrap();
        let told = entries.iter().any(|entry| entry["quarantine"].as_str().is_some_and(|told| told.contains(why)));
        assert!(told, "{why}: {history}");
    }
    let list = quarantine(&servers[0], &["list"]);
    assert_eq!(list.lines().count(), 1 + forged.iter().filter(|(why, _)| !why.is_empty()).count(), "{list}");
    let last = list.lines().last().unwrap();
    assert!(last.contains("global/users/ada"), "{list}");
    let hash = last.split_whitespace().next().unwrap().trim_end_matches('.');
    let shown = quarantine(&servers[0], &["show", hash]);
    assert!(shown.contains(hash) && shown.contains(&intruder.node().to_string()), "{shown}");
    client.patch("/api/documents/users/ada", "application/merge-patch+json", &json!({"visits": 2})).expect(200);
    wait_until_reads(&servers, "/api/documents/users/ada", &json!({"name": "Ada", "visits": 2}));
    // They count in heads, so that all servers agree on what they hold.
    wait_until_equal(&servers, ACT_TIMEOUT);
    let count = list.lines().count() - 1;
    wait_for("all servers have refused them", ACT_TIMEOUT, || {
        (status(&servers[1])["quarantined"][0]["changes"] == json!(count)).then_some(())
    });
    look_again(&servers, count, hash);
    still_well(&mut servers, "forged changes");
}

#[test]
fn floods_of_changes_are_bounded() {
    let mut servers = three();
    servers[0].client().put("/api/documents/users/ada", &json!({"name": "Ada"})).expect(201);
    wait_until_equal(&servers, SPREAD_TIMEOUT);
    let mut intruder = Intruder::meet(&servers[0], 0x22);
    let last = changes_of(&mut intruder, &victim()).pop().unwrap();
    let honest = Parts::read(&last).unwrap();
    let orphan = |number: usize| {
        let mut dep = [0xee; 32];
        dep[..8].copy_from_slice(&number.to_le_bytes());
        let actor = [&intruder.node().0[..], &number.to_le_bytes()].concat();
        Parts { deps: vec![dep], actor, seq: 1, start_op: 2, ..honest.clone() }.chunk()
    };
    let orphans: Vec<Bytes> = (0..ORPHANS).map(orphan).collect();
    for some in orphans.chunks(AT_ONCE) {
        push(&mut intruder, some.to_vec());
    }
    still_well(&mut servers, "orphans");

    // An honest change of the year 2099: its clock labels it, and decides nothing.
    let actor = [&intruder.node().0[..], &[1; 8]].concat();
    let (deps, seq, start_op) = (vec![parts::hash(&last)], 1, honest.start_op + 1);
    let late = Parts { deps, actor, seq, start_op, time: 4_070_908_800_000, ..honest };
    push(&mut intruder, vec![late.clone().chunk()]);
    push(&mut intruder, vec![deflated(&late)]);
    // A mebibyte of nothing, folded to some kilobytes, in a frame of a kind that nobody knows.
    for _ in 0..20 {
        intruder.say_bytes(&[&[200], vec![0; (1 << 20) - 1].as_slice()].concat());
    }
    still_well(&mut servers, "bombs");
    wait_until_equal(&servers, ACT_TIMEOUT);
    let client = servers[0].client();
    client.patch("/api/documents/users/ada", "application/merge-patch+json", &json!({"name": "Eve"})).expect(200);
    wait_until_reads(&servers, "/api/documents/users/ada", &json!({"name": "Eve"}));
    assert!(client.get("/health").status == 200);
}

/// The change as Automerge deflates it, except that it unfolds to 160 times its length: one literal and copies of it.
fn deflated(parts: &Parts) -> Bytes {
    // Bits from the lowest: a last block of fixed codes, the literal 0, then copies of 258 bytes from a byte back.
    let mut bits: Vec<bool> = vec![true, true, false];
    bits.extend([false, false, true, true, false, false, false, false]);
    for _ in 0..40_000 {
        bits.extend([true, true, false, false, false, true, false, true]);
        bits.extend([false; 5]);
    }
    bits.extend([false; 7]);
    let byte = |bits: &[bool]| bits.iter().rev().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit));
    let body: Vec<u8> = bits.chunks(8).map(byte).collect();
    let whole = parts.clone().chunk();
    let mut chunk = [&whole[..8], &[2]].concat();
    unsigned(&mut chunk, body.len() as u64);
    chunk.extend(body);
    chunk.into()
}

#[test]
fn a_repair_that_is_led_on_for_ever_keeps_nobody_from_others() {
    let mut servers = three();
    servers[2].client().put("/api/documents/users/ada", &json!({"name": "Ada"})).expect(201);
    let mut intruder = Intruder::meet(&servers[0], 0x23);
    let (started, mut asked, mut writes) = (Instant::now(), 0, 0);
    while started.elapsed() < MISLED && !intruder.is_over() {
        let sum = Sum { count: u64::MAX, sum: asked };
        intruder.say(&Frame::Roots(vec![Root { scope: Scope::Global, sum }]));
        for frame in intruder.frames() {
            let answer = if let Frame::Compare { request, .. } = frame {
                Frame::Differences { request, differences: ever_deeper(asked) }
            } else if let Frame::Want { request, .. } = frame {
                let changes = vec![DocumentChanges { document: victim(), changes: vec![vec![7; 64].into()] }];
                Frame::Window { request, changes, next: Some(Bytes::from_static(b"and so on")) }
            } else {
                continue;
            };
            asked += 1;
            intruder.say(&answer);
        }
        // Others go on meanwhile.
        writes += 1;
        let path = format!("/api/documents/meanwhile/{writes}?w=1");
        servers[1].client().put(&path, &json!({"n": writes})).expect(201);
    }
    assert!(asked > 3, "the server asked {asked} times: it was not led on");
    wait_until_equal(&servers, ACT_TIMEOUT);
    still_well(&mut servers, "misleading repair");
}

/// Everything differs below everything, and documents that there are not.
fn ever_deeper(asked: u128) -> Differences {
    let id = |number: u128| DocumentId::new(Scope::Global, "nowhere", &format!("{asked}-{number}")).unwrap();
    let documents = (0..20).map(|number| (id(number), vec![ChangeHash([9; 32])])).collect();
    Differences { documents, deeper: (0..=255).collect(), whole: vec![1, 1, 1] }
}

#[test]
fn lies_about_members_are_refuted_or_disowned() {
    let mut servers = three();
    let others = [node(&servers[1]), node(&servers[2])];
    let mut intruder = Intruder::meet(&servers[0], 0x24);
    let highest = Incarnation { starts: STARTS_MAX, refutations: u32::MAX };
    for victim in others {
        let lie = Record { node: victim, incarnation: highest, name: "stolen".to_owned(), ..intruder.record() };
        // As if it were that server, and as something it had heard.
        intruder.introduce(lie.clone());
        for status in [Status::Alive, Status::Suspect, Status::Failed, Status::Left] {
            let standing = Standing { status, accuser: Some(intruder.node()), ..Standing::ALIVE };
            let updates = vec![
                Update::Full { record: lie.clone().into(), standing },
                Update::Brief { node: victim, boot: intruder.boot, incarnation: highest, standing },
            ];
            intruder.say(&Frame::Membership(Message::Gossip { updates: updates.clone() }, Vec::new()));
            intruder.say(&Frame::Membership(Message::Sync { mask: u64::MAX, answer: false, updates }, Vec::new()));
        }
        intruder.say(&Frame::Membership(
            Message::Leave { boot: intruder.boot, incarnation: highest, retired: true },
            Vec::new(),
        ));
        intruder.frames();
    }
    still_well(&mut servers, "lies");

    // A number that nobody may have ends the stream.
    let mut intruder = Intruder::meet(&servers[0], 0x25);
    let beyond = Incarnation { starts: u32::MAX, refutations: 0 };
    let record = Record { incarnation: beyond, ..intruder.record() };
    let digest = Message::SyncDigest { record: record.into(), answer: true, buckets: vec![0; BUCKETS] };
    intruder.say(&Frame::Membership(digest, Vec::new()));
    wait_for("the stream is closed", ACT_TIMEOUT, || {
        intruder.frames();
        intruder.is_over().then_some(())
    });
    still_well(&mut servers, "numbers beyond the last");
    for server in &servers {
        let name = status(server)["name"].clone();
        assert_ne!(name, "stolen");
    }
}
