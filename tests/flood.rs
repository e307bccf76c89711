//! Connections that want nothing but to be in the way: deadlines and caps hold, and members go on talking.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::collections::VecDeque;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use knot_engine::documents::Scope;
use knot_engine::seal::ClusterKey;
use knot_engine::wire::{Frame, Wanted};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use support::authority::Authority;
use support::between::Between;
use support::client::read_reply;
use support::cluster::{self, statuses, wait_for_status, wait_until_alive, wait_until_equal, wait_until_reads};
use support::intruder::Intruder;
use support::{Client, KEY, Server, Setup, wait_for};

/// Streams of one host that may be shaking hands at once: the server's limit.
const HANDSHAKES_A_HOST_MAX: usize = 32;
/// How long a handshake may take, and what a busy machine adds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(5);
/// Connections at once from one host.
const FLOOD: usize = 150;
/// Memory that a server may hold while it is flooded.
const RESIDENT_BYTES_MAX: u64 = 256 << 20;
/// Of the requests of one peer eight are answered at once, by 256 KiB each, and one frame may be longer.
const ANSWERS_BYTES_MAX: u64 = 3 << 20;

/// Connections that the API takes at once: the server's limits, in all and of one host.
const CONNECTIONS_MAX: usize = 1_024;
const CONNECTIONS_A_HOST_MAX: usize = 768;
/// Connections a second of the attack under which the API is measured, half of them to each of a server's doors.
const ATTACK_RATE: usize = 1_000;
/// Rounds of that, each with a calm part and one under attack, and the time of a part.
const ROUNDS: usize = 5;
const PART: Duration = Duration::from_secs(2);
/// What the 99th percentile under attack may be: so many times the calm one, and what a loaded machine adds.
const SLOWER_MAX: u32 = 2;
const LOADED: Duration = Duration::from_millis(20);

fn pair() -> Vec<Server> {
    cluster::start(Setup::cluster(&["au", "gb"]))
}

fn cluster_address(server: &Server) -> SocketAddr {
    server.setup.cluster.as_ref().unwrap().address.parse().unwrap()
}

/// A connection from another host of this machine: 127.0.0.2 and on are its own too.
fn connect(from: u8, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0)).into()).unwrap();
    socket.connect_timeout(&to.into(), Duration::from_secs(2)).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true).unwrap();
    Some(stream)
}

/// Connections that one host opens at a steady rate. It says nothing on them, and lets the oldest go beyond so many.
struct Attack {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Attack {
    fn begin(from: u8, to: SocketAddr, a_second: usize, held_max: usize) -> Self {
        const STEP: Duration = Duration::from_millis(10);
        let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (until, count) = (stop.clone(), opened.clone());
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            let mut held = VecDeque::new();
            while !until.load(Ordering::Relaxed) {
                let due = usize::try_from(began.elapsed().as_millis()).unwrap() * a_second / 1_000;
                for _ in count.load(Ordering::Relaxed)..due {
                    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0)).into()).unwrap();
                    socket.set_nonblocking(true).unwrap();
                    // It goes on by itself, if it does.
                    let _ = socket.connect(&to.into());
                    held.push_back(socket);
                }
                count.store(due, Ordering::Relaxed);
                held.drain(..held.len().saturating_sub(held_max));
                std::thread::sleep(STEP);
            }
        });
        Self { stop, opened, thread: Some(thread) }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether the server has left a connection open.
fn is_open(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// A client of one server writes, and all can read it.
#[track_caller]
fn go_on(servers: &[Server], what: &str) {
    let said = json!({"during": what});
    let path = format!("/api/documents/flood/{}", what.replace(' ', "-"));
    servers[0].client().put(&path, &said).expect(201);
    wait_until_reads(servers, &path, &said);
    for server in servers {
        let statuses = statuses(&server.client()).unwrap();
        assert_eq!((statuses["n0"].as_str(), statuses["n1"].as_str()), ("alive", "alive"), "{what}");
    }
}

fn resident_bytes(client: &Client) -> u64 {
    let metrics = client.get("/metrics").expect(200).text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("knot_process_resident_memory_bytes "));
    line.unwrap().parse().unwrap()
}

#[test]
fn half_open_handshakes_of_one_host_are_few_and_short() {
    let servers = pair();
    let to = cluster_address(&servers[0]);
    let started = Instant::now();
    let mut flood: Vec<TcpStream> = (0..FLOOD).filter_map(|_| connect(2, to)).collect();
    assert_eq!(flood.len(), FLOOD);
    wait_for("those beyond the cap are closed at once", HANDSHAKE_TIMEOUT, || {
        flood.retain_mut(is_open);
        (flood.len() <= HANDSHAKES_A_HOST_MAX).then_some(())
    });
    // Another host shakes hands meanwhile.
    assert!(!Intruder::meet(&servers[0], 0x31).is_over());
    go_on(&servers, "half-open handshakes");
    wait_for("the others are closed in time", HANDSHAKE_TIMEOUT + SLACK, || {
        flood.retain_mut(is_open);
        flood.is_empty().then_some(())
    });
    assert!(started.elapsed() >= HANDSHAKE_TIMEOUT, "they were let wait for as long as a handshake may take");
    assert!(connect(2, to).is_some_and(|mut stream| is_open(&mut stream)), "and there is room again");
}

#[test]
fn a_byte_now_and_then_is_not_waited_for() {
    let servers = pair();
    let to = cluster_address(&servers[0]);
    let id = ClusterKey::new(KEY).unwrap().id().0;
    let hello = [&[2][..], &id, &[9; 48]].concat();
    let mut slow: Vec<TcpStream> = (0..10).filter_map(|_| connect(2, to)).collect();
    let (started, mut sent) = (Instant::now(), 0);
    wait_for("who says a byte a second is closed in time", HANDSHAKE_TIMEOUT + SLACK, || {
        if started.elapsed() >= Duration::from_secs(sent) {
            // All that there is to check is right, so that more is waited for.
            let byte = hello[usize::try_from(sent).unwrap()];
            slow.iter_mut().for_each(|stream| drop(stream.write(&[byte])));
            sent += 1;
        }
        slow.retain_mut(is_open);
        slow.is_empty().then_some(())
    });
    go_on(&servers, "a byte a second");
}

#[test]
fn lengths_beyond_measure_are_refused_before_they_cost_anything() {
    let servers = pair();
    let before = resident_bytes(&servers[0].client());
    // To other servers: the third message of a handshake, or rather what would be its length.
    let mut streams: Vec<TcpStream> = (0..20).filter_map(|_| connect(2, cluster_address(&servers[0]))).collect();
    streams.iter_mut().for_each(|stream| drop(stream.write(&[0xff; 4_096])));
    wait_for("they are closed", SLACK, || {
        streams.retain_mut(is_open);
        streams.is_empty().then_some(())
    });
    // To clients: 4 GiB of a document.
    let token = servers[0].setup.token.clone().unwrap();
    let mut stream = TcpStream::connect(servers[0].address()).unwrap();
    write!(
        stream,
        "PUT /api/documents/flood/large HTTP/1.1\r\nhost: n0\r\nauthorization: Bearer {token}\r\ncontent-length: 4294967296\r\n\r\n{{\"a\":"
    )
    .unwrap();
    let mut answer = String::new();
    // The connection may be broken behind the answer.
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let grown = resident_bytes(&servers[0].client()).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    go_on(&servers, "lengths");
}

#[test]
fn who_asks_and_never_reads_is_owed_a_bounded_amount() {
    let servers = pair();
    let client = servers[0].client();
    for number in 0..300 {
        let value = json!({ "text": noise(number, 6_000) });
        client.put(&format!("/api/documents/large/{number}"), &value).expect(201);
    }
    wait_until_equal(&servers, SLACK * 4);
    let mut intruder = Intruder::meet(&servers[0], 0x33);
    let wanted = || Wanted::Range { scope: Scope::Global, prefix: Vec::new(), after: None };
    for request in 0..4_000 {
        intruder.say(&Frame::Want { request, wanted: wanted() });
    }
    go_on(&servers, "somebody who never reads");
    let resident = resident_bytes(&client);
    assert!(resident < RESIDENT_BYTES_MAX, "{resident} bytes are held");
    for queue in client.get("/api/cluster/status").expect(200).json()["queues"].as_array().unwrap() {
        let limit = queue["limit"].as_u64().unwrap();
        // What was being answered when the limit was reached is still sent.
        let over = if queue["name"] == "peer_queue_bytes" { ANSWERS_BYTES_MAX } else { 0 };
        assert!(queue["depth"].as_u64().unwrap() <= limit + over, "{queue}");
    }
}

/// Text that does not shrink.
fn noise(seed: u32, characters: usize) -> String {
    let mut state = u64::from(seed) | 1 << 40;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from_digit(u32::try_from(state >> 60).unwrap(), 16).unwrap()
    };
    (0..characters).map(|_| next()).collect()
}

#[test]
fn a_server_without_file_descriptors_comes_back_when_it_has_some() {
    let mut setups = Setup::cluster(&["au", "gb"]);
    setups[0].descriptors = Some(128);
    let mut servers = cluster::start(setups);
    go_on(&servers, "before the flood");
    let (to, http) = (cluster_address(&servers[0]), servers[0].address());
    // More hosts than the cap of one could stand for, to both of its doors.
    let mut flood: Vec<TcpStream> = (2..10).flat_map(|host| (0..20).filter_map(move |_| connect(host, to))).collect();
    flood.extend((0..100).filter_map(|_| connect(2, http)));
    let said = json!({"to": "the other"});
    servers[1].client().put("/api/documents/flood/other", &said).expect(201);
    let member = statuses(&servers[1].client()).unwrap();
    assert_eq!(member["n0"], "alive", "the members' stream was open before");
    assert_eq!(servers[0].exit_status(), None);
    drop(flood);
    let client = servers[0].client();
    wait_for("it answers again", HANDSHAKE_TIMEOUT + SLACK, || {
        let reply = client.try_request("GET", "/readyz", &[], None).ok()?;
        (reply.status == 200).then_some(())
    });
    wait_until_reads(&servers, "/api/documents/flood/other", &said);
    go_on(&servers, "after the flood");
}

#[test]
fn one_host_that_takes_all_it_can_get_leaves_the_api_to_others() {
    let servers = pair();
    let http = servers[0].address();
    let mut flood: Vec<TcpStream> = (0..CONNECTIONS_MAX + 200).filter_map(|_| connect(2, http)).collect();
    wait_for("those beyond its share are refused", SLACK, || {
        flood.retain_mut(is_open);
        (flood.len() <= CONNECTIONS_A_HOST_MAX).then_some(())
    });
    assert_eq!(flood.len(), CONNECTIONS_A_HOST_MAX);
    go_on(&servers, "all that one host may have");
    let metrics = servers[0].client().get("/metrics").expect(200).text();
    let refused = metrics.lines().find_map(|line| line.strip_prefix("knot_http_connections_refused_total "));
    assert!(refused.unwrap().parse::<usize>().unwrap() >= CONNECTIONS_MAX + 200 - CONNECTIONS_A_HOST_MAX);
}

/// Streams by WebSocket come through the API's door, so who keeps that shut keeps servers apart.
#[test]
fn servers_that_speak_by_wss_alone_meet_again_during_a_flood() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let signed = authority.sign("gate", "127.0.0.1", |_| {});
    let mut setups = Setup::cluster(&["au", "gb"]);
    let gates: Vec<Between> =
        setups.iter().map(|setup| Between::ending_tls(&signed, "", (setup.host, setup.port).into())).collect();
    let addresses: Vec<String> = gates.iter().map(|gate| format!("wss://{}", gate.address)).collect();
    for (setup, address) in setups.iter_mut().zip(&addresses) {
        setup.extra = format!("[server.cluster.tls]\nca_file = {:?}\n", authority.file);
        let cluster = setup.cluster.as_mut().unwrap();
        (cluster.address, cluster.peers) = (address.clone(), addresses.clone());
    }
    let mut servers = cluster::start(setups);
    let _attacks = [2, 3].map(|host| {
        let to = servers[usize::from(host - 2)].address();
        Attack::begin(host, to, 500, 2 * CONNECTIONS_MAX)
    });
    let refuses = |server: &Server| {
        let metrics = server.client().get("/metrics").expect(200).text();
        !metrics.contains("knot_http_connections_refused_total 0")
    };
    wait_for("one host has all it may", SLACK, || refuses(&servers[0]).then_some(()));
    servers[1].kill();
    wait_for_status(&servers[0], "n1", "failed", Duration::from_secs(60));
    servers[1].restart();
    wait_until_alive(&servers);
    go_on(&servers, "a flood of what is theirs too");
}

/// How long the slowest of a hundred of the requests took, each made for so long, one after another.
fn p99(client: &Client, request: &str) -> Duration {
    let mut stream = client.connect().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < PART {
        let asked = Instant::now();
        stream.write_all(request.as_bytes()).unwrap();
        let reply = read_reply(&mut reader, "GET").unwrap();
        took.push(asked.elapsed());
        assert!([200, 201].contains(&reply.status), "{}", reply.text());
    }
    took.sort_unstable();
    took[(took.len() * 99).div_ceil(100) - 1]
}

fn median(mut of: Vec<Duration>) -> Duration {
    of.sort_unstable();
    of[of.len() / 2]
}

#[test]
fn the_api_is_hardly_slower_under_a_flood_of_connections() {
    let servers = pair();
    let (http, cluster, client) = (servers[0].address(), cluster_address(&servers[0]), servers[0].client());
    let path = "/api/documents/flood/measured";
    client.put(path, &json!({"text": "as it was"})).expect(201);
    let body = json!({"pointer": "/visits", "by": 1}).to_string();
    let read = client.head("GET", path, &[]) + "\r\n";
    let headers = [("content-type", "application/vnd.knot.increment+json")];
    let write = client.head("PATCH", path, &headers) + &format!("content-length: {}\r\n\r\n{body}", body.len());
    for (what, request) in [("read", read), ("write", write)] {
        let (mut calm, mut flooded, mut rate) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            calm.push(p99(&client, &request));
            let began = Instant::now();
            let attacks = [http, cluster].map(|to| Attack::begin(2, to, ATTACK_RATE / 2, 2 * CONNECTIONS_MAX));
            flooded.push(p99(&client, &request));
            let opened: usize = attacks.iter().map(|attack| attack.opened.load(Ordering::Relaxed)).sum();
            rate.push(opened as f64 / began.elapsed().as_secs_f64());
        }
        let (calm, flooded) = (median(calm), median(flooded));
        let slowest = rate.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{what}: p99 {calm:?} calm, {flooded:?} at {slowest:.0} connections a second or more");
        assert!(slowest > 0.8 * ATTACK_RATE as f64, "the attack was slow: {rate:?} connections a second");
        assert!(flooded <= calm * SLOWER_MAX + LOADED, "{what}: {flooded:?} under attack, {calm:?} when calm");
    }
    go_on(&servers, "being measured");
}
