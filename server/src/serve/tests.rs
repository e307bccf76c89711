use std::net::SocketAddr;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::accounts::{Accounts, PasswordCost, Passwords};
use crate::api::ApiState;
use crate::handle::{Command, Handle};
use crate::net::{Network, OsNetwork};
use crate::spaces::Spaces;

/// Long enough for anything that is to happen, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

/// A server whose driver is the test.
struct Fixture {
    address: SocketAddr,
    commands: tokio::sync::mpsc::Receiver<Command>,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
}

async fn start(limits: Limits) -> Fixture {
    let (handle, commands, _) = Handle::new();
    let (stop, stopping) = watch::channel(false);
    let metrics = Arc::new(Metrics::default());
    let wall: crate::run::WallClock = Arc::new(|| knot_engine::Wall(0));
    let passwords = Passwords::new(PasswordCost::default(), true).unwrap();
    let accounts = Arc::new(Accounts::new(handle.clone(), passwords, wall.clone(), &[0; 32], "au"));
    let router = api::router(ApiState {
        spaces: Arc::new(Spaces::new(accounts.clone(), String::new(), "au", "", wall.clone())),
        accounts,
        trusted_proxies: [].into(),
        handle,
        token: "token".into(),
        name: "n1".into(),
        zone: "au".into(),
        version: "0".into(),
        started: tokio::time::Instant::now(),
        wall,
        metrics: Arc::clone(&metrics),
        stopping: stopping.clone(),
        certificate: None,
        reload: None,
        stream_prefixes: Vec::new(),
        is_clustered: false,
        limits: api::Limits { body_timeout: SHORT, ..api::Limits::default() },
    });
    let listener = OsNetwork.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let served =
        tokio::spawn(serve(listener, Serving { router, tls: None, arrivals: None, metrics, limits }, stopping));
    Fixture { address, commands, stop, served }
}

impl Fixture {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `text` and reads until the server closes.
    async fn converse(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("the server closes").unwrap();
    answer
}

async fn read_some(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 4_096];
    let length = timeout(PATIENCE, stream.read(&mut answer)).await.expect("the server answers").unwrap();
    answer.truncate(length);
    String::from_utf8(answer).unwrap()
}

const PING: &str = "GET /api/ping HTTP/1.1\r\nhost: x\r\n\r\n";
const SLOW: &str =
    "PUT /api/documents/a/b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer token\r\ncontent-length: 2\r\n\r\n{";

#[tokio::test]
async fn a_head_that_does_not_end_is_told_so() {
    let server = start(Limits { header_timeout: SHORT, ..Limits::default() }).await;
    let answer = server.converse("GET /api/ping HTTP/1.1\r\nhost:").await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    assert!(answer.contains("did not arrive within 0.3 s"), "{answer}");
    let mut kept = server.connect().await;
    kept.write_all(PING.as_bytes()).await.unwrap();
    assert!(read_some(&mut kept).await.starts_with("HTTP/1.1 200 OK\r\n"));
    kept.write_all(b"GET /api/pi").await.unwrap();
    let later = read_all(&mut kept).await;
    assert!(later.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{later}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let server = start(Limits { header_timeout: SHORT, idle_timeout: SHORT, ..Limits::default() }).await;
    assert_eq!(server.converse("").await, "");
    let began = Instant::now();
    let answer = server.converse(PING).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(began.elapsed() >= SHORT, "it was not kept");
}

/// More than the system buffers of an answer that nobody reads.
const LARGE_BYTES: usize = 64 << 20;

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_and_one_that_reads_slowly_is_not() {
    let large = async || vec![b'x'; LARGE_BYTES];
    let router = Router::new().route("/large", axum::routing::get(large));
    let metrics = Arc::new(Metrics::default());
    let limits = Limits { write_timeout: 2 * SHORT, ..Limits::default() };
    let listener = OsNetwork.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, stopping) = watch::channel(false);
    tokio::spawn(serve(listener, Serving { router, tls: None, arrivals: None, metrics, limits }, stopping));
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        (stream, Instant::now())
    };

    let (mut stalled, began) = ask().await;
    // The server's end is closed once a write of this one's is answered with a reset.
    let cut = async {
        while stalled.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, cut).await.expect("the server closes");
    assert!(began.elapsed() >= limits.write_timeout, "cut after {:?}", began.elapsed());

    let (mut slow, began) = ask().await;
    let (mut piece, mut got) = (vec![0; LARGE_BYTES / 8], 0);
    while got < LARGE_BYTES {
        sleep(limits.write_timeout / 3).await;
        let length = timeout(PATIENCE, slow.read_exact(&mut piece)).await.expect("it goes on").expect("it is not cut");
        got += length;
    }
    assert!(began.elapsed() > limits.write_timeout, "it was not slow");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_told_so() {
    let server = start(Limits::default()).await;
    let answer = server.converse(SLOW).await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    assert!(answer.contains("the body did not arrive within 0.3 s"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn connections_over_the_cap_are_told_so_and_room_is_used_again() {
    let server = start(Limits { connections_max: 2, ..Limits::default() }).await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    for stream in [&mut first, &mut second] {
        stream.write_all(PING.as_bytes()).await.unwrap();
        assert!(read_some(stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
    let answer = server.converse(PING).await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("2 connections are open already"), "{answer}");
    assert!(answer.contains("retry-after: 5\r\n"), "{answer}");

    drop(first);
    let again = async {
        loop {
            let mut stream = server.connect().await;
            stream.write_all(PING.as_bytes()).await.unwrap();
            if read_some(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n") {
                return;
            }
        }
    };
    timeout(PATIENCE, again).await.expect("there is room again");
    second.write_all(PING.as_bytes()).await.unwrap();
    assert!(read_some(&mut second).await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn a_stop_lets_requests_in_flight_finish() {
    let mut server = start(Limits::default()).await;
    let mut idle = server.connect().await;
    idle.write_all(PING.as_bytes()).await.unwrap();
    read_some(&mut idle).await;
    let mut busy = server.connect().await;
    busy.write_all(SLOW.as_bytes()).await.unwrap();
    busy.write_all(b"}").await.unwrap();
    let Some(Command::Edit(_, answer)) = timeout(PATIENCE, server.commands.recv()).await.unwrap() else {
        panic!("an edit is asked for");
    };
    server.stop.send(true).unwrap();
    assert_eq!(read_all(&mut idle).await, "");
    assert!(!server.served.is_finished());
    answer.send(Err(knot_engine::EditError::DiskFull)).unwrap();
    let text = read_all(&mut busy).await;
    assert!(text.starts_with("HTTP/1.1 507 Insufficient Storage\r\n"), "{text}");
    timeout(PATIENCE, server.served).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let mut server = start(Limits { shutdown_timeout: SHORT, ..Limits::default() }).await;
    let mut busy = server.connect().await;
    busy.write_all(format!("{SLOW}}}").as_bytes()).await.unwrap();
    let held = timeout(PATIENCE, server.commands.recv()).await.unwrap();
    assert!(matches!(held, Some(Command::Edit(..))));
    server.stop.send(true).unwrap();
    timeout(PATIENCE, server.served).await.unwrap().unwrap();
    let mut rest = Vec::new();
    // Cut off, which the system may report as a reset.
    let _ = timeout(PATIENCE, busy.read_to_end(&mut rest)).await.expect("the server closes");
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_driver_that_has_stopped_is_503() {
    let server = start(Limits::default()).await;
    drop(server.commands);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("shutting down"), "{answer}");
}

#[tokio::test]
async fn errors_of_the_engine_have_their_statuses() {
    use knot_engine::EditError;
    let mut server = start(Limits::default()).await;
    for (error, status) in [
        (EditError::DiskFull, "507"),
        (EditError::StorageFailed, "503"),
        (EditError::Busy, "503"),
        (EditError::Left, "503"),
        (EditError::Unreadable, "500"),
        (EditError::NotHeldHere, "421"),
        (EditError::Gone, "410"),
    ] {
        let mut stream = server.connect().await;
        let request =
            "DELETE /api/documents/a/b HTTP/1.1\r\nhost: x\r\nauthorization: bearer token\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let Some(Command::Edit(_, answer)) = timeout(PATIENCE, server.commands.recv()).await.unwrap() else {
            panic!("an edit is asked for");
        };
        answer.send(Err(error.clone())).unwrap();
        let text = read_all(&mut stream).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{error:?}: {text}");
        assert!(text.contains("\"error\":") && text.contains("\"hint\":"), "{text}");
        assert_eq!(text.contains("retry-after:"), status == "503" || status == "507", "{text}");
    }
}

#[tokio::test]
async fn one_host_cannot_hold_all_connections() {
    let server = start(Limits { connections_max: 4, connections_a_host_max: 2, ..Limits::default() }).await;
    let from = async |host: u8| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, host], 0).into()).unwrap();
        let mut stream = socket.connect(server.address).await.unwrap();
        stream.write_all(PING.as_bytes()).await.unwrap();
        let answer = read_some(&mut stream).await;
        (stream, answer)
    };
    let (first, answer) = from(2).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_second, _) = from(2).await;
    let (_, answer) = from(2).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("2 connections from this host"), "{answer}");
    let (_other, answer) = from(3).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(first);
    let again = async {
        while !from(2).await.1.starts_with("HTTP/1.1 200") {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, again).await.expect("a place that is given back is free again");
}
