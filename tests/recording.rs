//! Somebody records all that three servers say to each other: it tells him nothing, and said again it does nothing.

#![allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use support::cluster::{self, JOIN_TIMEOUT, SPREAD_TIMEOUT, members, wait_until_alive, wait_until_equal};
use support::proxy::{Proxy, Recording};
use support::{Client, Server, Setup, wait_for};

/// In every name and value that may not be seen.
const CANARY: &str = "canary-8c41f7";
/// The cluster's key, as long as one has to be.
const KEY: &str = "canary-8c41f7-Wv0qT3bXz9LmRkYd2p";
/// Datagrams that each server must have been sent before the recording is of any use.
const DATAGRAMS_MIN: usize = 12;
/// Datagrams said again at once: no more than a socket has room for.
const AT_ONCE: usize = 32;
/// Bytes of a handshake's first message, and the most that answers it.
const HELLO_BYTES: usize = 53;
const ANSWER_BYTES_MAX: usize = 2 + 512;
/// How long a server may take to close a stream that it wants nothing of.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(8);

struct Recorded {
    servers: Vec<Server>,
    recordings: Vec<Recording>,
}

/// Three servers that have talked for a while.
fn record() -> Recorded {
    let mut setups = Setup::cluster(&["au-canary-8c41f7", "gb-canary-8c41f7", "us"]);
    for setup in &mut setups {
        setup.name = format!("{CANARY}-{}", setup.name);
        setup.token = Some(format!("{CANARY}-the-token-of-all"));
        setup.cluster.as_mut().unwrap().keys = vec![KEY.to_owned()];
    }
    let proxies = Proxy::before(&mut setups);
    let servers = cluster::start(setups);
    let client = servers[0].client();
    for number in 0..20 {
        // Long enough for a frame to be compressed before it is sealed.
        let value = json!({ CANARY: format!("{CANARY} ").repeat(40), "number": number });
        client.put(&format!("/api/documents/{CANARY}/{CANARY}-{number}?w=2"), &value).expect(201);
        let path = format!("/api/documents/{CANARY}/{CANARY}-{number}");
        servers[1].client().patch(&path, "application/merge-patch+json", &json!({ "more": CANARY })).expect(200);
    }
    wait_until_equal(&servers, SPREAD_TIMEOUT);
    wait_for("enough is recorded", JOIN_TIMEOUT, || {
        let enough = |proxy: &Proxy| proxy.recording().datagrams.len() >= DATAGRAMS_MIN;
        proxies.iter().all(enough).then_some(())
    });
    let recordings: Vec<Recording> = proxies.iter().map(Proxy::recording).collect();
    let streams: usize = recordings.iter().map(|recording| recording.streams.len()).sum();
    let bytes: usize = recordings.iter().flat_map(Recording::pieces).map(<[u8]>::len).sum();
    assert!(streams >= 3 && bytes > 10_000, "{streams} streams, {bytes} bytes: that cannot be all");
    Recorded { servers, recordings }
}

#[test]
fn a_recording_tells_nothing_and_said_again_does_nothing() {
    let Recorded { mut servers, recordings } = record();
    tells_nothing(&servers, &recordings);
    does_nothing(&servers, &recordings, "the recording");
    for server in &mut servers {
        assert!(server.stop().success());
    }
    servers.iter_mut().for_each(Server::restart);
    wait_until_alive(&servers);
    wait_until_equal(&servers, SPREAD_TIMEOUT);
    does_nothing(&servers, &recordings, "a restart");
}

fn tells_nothing(servers: &[Server], recordings: &[Recording]) {
    let mut secrets: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut keep = |what: &str, bytes: &[u8]| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        secrets.insert(format!("{what} in hexadecimal"), hex.to_uppercase().into_bytes());
        secrets.insert(format!("{what} in hexadecimal, lower case"), hex.into_bytes());
        secrets.insert(format!("{what} in base64"), base64(bytes));
        secrets.insert(format!("{what}, backwards"), bytes.iter().rev().copied().collect());
        secrets.insert(what.to_owned(), bytes.to_vec());
    };
    keep("a name or a value", CANARY.as_bytes());
    keep("the cluster key", KEY.as_bytes());
    for server in servers {
        let file = fs::read_to_string(server.data_dir().join("node.key")).unwrap();
        keep("a node's key as it is kept", file.trim().as_bytes());
        keep("a node's key", &bytes_of_hex(file.trim()));
    }
    for piece in recordings.iter().flat_map(Recording::pieces) {
        for (what, secret) in &secrets {
            assert!(!piece.windows(secret.len()).any(|window| window == secret), "{what} is on the wire");
        }
    }
    let told = recordings.iter().flat_map(Recording::pieces).any(|piece| piece.len() > CANARY.len());
    assert!(told && !secrets.is_empty(), "there was something to look through");
}

/// Says everything again to every server: to whom it was meant for, and to the others. They go on, which is `after` what.
fn does_nothing(servers: &[Server], recordings: &[Recording], after: &str) {
    let before = state(servers);
    for (index, server) in servers.iter().enumerate() {
        let (mut own, mut others) = (0, 0);
        for (target, recording) in recordings.iter().enumerate() {
            let count = if target == index { &mut own } else { &mut others };
            *count += say_datagrams(server, recording);
            say_streams(server, recording);
        }
        assert!(own >= DATAGRAMS_MIN && others >= DATAGRAMS_MIN);
    }
    assert_eq!(state(servers), before, "a recording changed something");
    for server in servers {
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
    let status = servers[0].client().put("/api/documents/after/all?w=2", &json!({"after": after})).status;
    assert!([200, 201].contains(&status), "{status}: the servers go on");
}

/// Says datagrams again and waits until all were dropped. Returns how many.
fn say_datagrams(server: &Server, recording: &Recording) -> usize {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let client = server.client();
    for some in recording.datagrams.chunks(AT_ONCE) {
        let before = dropped(&client, "datagram");
        for datagram in some {
            socket.send_to(datagram, address(server)).unwrap();
        }
        wait_for("what was recorded is dropped and counted", SPREAD_TIMEOUT, || {
            (dropped(&client, "datagram") >= before + some.len() as u64).then_some(())
        });
    }
    let answer = socket.recv_from(&mut [0; 2_048]);
    assert_eq!(answer.map_err(|error| error.kind()).unwrap_err(), ErrorKind::WouldBlock, "a recording was answered");
    recording.datagrams.len()
}

/// Says streams again, at once and as their first owner did. No recording gets beyond the handshake's second message,
/// which is sealed with keys that its sender does not have, and is another each time.
fn say_streams(server: &Server, recording: &Recording) {
    let client = server.client();
    for stream in recording.streams.iter().filter(|stream| stream.to_server.len() > HELLO_BYTES) {
        let before = dropped(&client, "stream that did not verify");
        let answer = tell(server, &[&stream.to_server]);
        assert_eq!(answer, b"", "a recording was answered");
        let (hello, rest) = stream.to_server.split_at(HELLO_BYTES);
        let answer = tell(server, &[hello, rest]);
        assert!(answer.len() <= ANSWER_BYTES_MAX, "{} bytes answer a recording", answer.len());
        assert!(!stream.from_server.starts_with(&answer) || answer.is_empty(), "it answers as it did");
        assert_eq!(tell(server, &[&stream.from_server]), b"", "a server's own words were answered");
        wait_for("streams that did not verify are counted", SPREAD_TIMEOUT, || {
            (dropped(&client, "stream that did not verify") >= before + 3).then_some(())
        });
    }
}

/// Says these parts on a stream, each after an answer to the one before it, and returns all that is answered until the
/// server closes the stream.
fn tell(server: &Server, parts: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address(server)).unwrap();
    stream.set_read_timeout(Some(CLOSE_TIMEOUT)).unwrap();
    let mut answer = Vec::new();
    let (last, first) = parts.split_last().unwrap();
    for part in first {
        stream.write_all(part).unwrap();
        let mut buffer = [0; 4_096];
        let bytes = stream.read(&mut buffer).unwrap_or(0);
        answer.extend(&buffer[..bytes]);
    }
    // It may be closed by now.
    let _ = stream.write_all(last);
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the server closes it"),
    }
    answer
}

fn address(server: &Server) -> &str {
    &server.setup.cluster.as_ref().unwrap().address
}

/// How much a server has dropped, over all reasons that begin so.
fn dropped(client: &Client, reason: &str) -> u64 {
    let metrics = client.get("/metrics").expect(200).text();
    let start = format!("knot_drops_total{{reason=\"{reason}");
    metrics.lines().filter(|line| line.starts_with(&start)).map(count).sum()
}

fn count(line: &str) -> u64 {
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line} has no number"))
}

/// What a recording could have changed: documents, members and what is known of them.
fn state(servers: &[Server]) -> Vec<(BTreeMap<String, Value>, Vec<Value>)> {
    let of = |server: &Server| {
        let client = server.client();
        let documents = cluster::documents(&client, CANARY);
        let told = |member: Value| json!([member["id"], member["name"], member["zone"], member["status"]]);
        (documents, members(&client).unwrap().into_iter().map(told).collect())
    };
    servers.iter().map(of).collect()
}

fn bytes_of_hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

/// Without what it ends with: a longer text goes on differently there.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |three: &[u8]| {
        let number = three.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| DIGITS[number >> shift & 63])
    };
    bytes.chunks_exact(3).flat_map(digits).collect()
}
