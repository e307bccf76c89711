use knot_engine::seal::{ClusterKey, KeyRing};
use knot_engine::{Boot, ClusterId, NodeKey, PeerIdentity};
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;

/// Bytes between the two ends that nobody has read.
const ROOM: usize = 4 << 10;
const KEY: &str = "0123456789abcdefghijklmnopqrstuv";

fn session(role: Role, number: u8) -> Session {
    let node_key = NodeKey::from_bytes([number; 32]);
    let identity = PeerIdentity {
        public: node_key.public(),
        boot: Boot([number; 16]),
        cluster: ClusterId([7; 16]),
        empty: false,
        wire: 1,
    };
    let keys = KeyRing::from(ClusterKey::new(KEY).unwrap());
    let config = session::Config { keys, cluster: "test".to_owned(), identity, node_key, compression: false };
    Session::new(role, config, [number; 32])
}

/// A stream as the driver has it, and a peer that has shaken hands and does from there on what a test has it do.
struct Fixture {
    handle: StreamHandle,
    carried: JoinHandle<StreamError>,
    peer: DuplexStream,
    session: Session,
}

async fn start() -> Fixture {
    let (here, mut peer) = duplex(ROOM);
    let (handle, outbox) = StreamHandle::new(1 << 20, Pipe::WebSocket, "192.0.2.1".to_owned());
    let (inputs, mut reports) = mpsc::channel(64);
    tokio::spawn(async move { while reports.recv().await.is_some() {} });
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let carried = tokio::spawn(run(here, SessionId(1), session(Role::Responder, 1), outbox, inputs, deadline, None));
    let mut session = session(Role::Initiator, 2);
    let mut buffer = vec![0; ROOM];
    loop {
        while let Some(bytes) = session.poll_transmit() {
            peer.write_all(&bytes).await.unwrap();
        }
        if session.is_established() {
            break;
        }
        let read = peer.read(&mut buffer).await.unwrap();
        session.handle_bytes(&buffer[..read]).unwrap();
    }
    Fixture { handle, carried, peer, session }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_waited_for_so_long_and_no_longer() {
    let Fixture { handle, carried, peer, .. } = start().await;
    let began = Instant::now();
    assert!(handle.send(vec![1; 4 * ROOM].into()).is_some());
    let ended = carried.await.unwrap();
    assert!(matches!(ended, StreamError::Unread), "{ended}");
    assert_eq!(began.elapsed().as_secs(), WRITE_STALL_TIMEOUT.as_secs());
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_talks_and_takes_nothing_is_not_waited_for_either() {
    let Fixture { handle, mut carried, mut peer, mut session } = start().await;
    let began = Instant::now();
    assert!(handle.send(vec![1; 4 * ROOM].into()).is_some());
    let talk = async {
        loop {
            // An unknown kind, as a later version may send.
            session.send_frame(&[0xfe; 64]).unwrap();
            while let Some(bytes) = session.poll_transmit() {
                peer.write_all(&bytes).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ended = tokio::select! {
        ended = &mut carried => ended.unwrap(),
        () = talk => unreachable!("it goes on for ever"),
    };
    assert!(matches!(ended, StreamError::Unread), "{ended}");
    assert!(began.elapsed() < 2 * WRITE_STALL_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_is_waited_for() {
    let Fixture { handle, mut carried, mut peer, mut session } = start().await;
    let began = Instant::now();
    let frame = vec![1; 4 * ROOM];
    assert!(handle.send(frame.clone().into()).is_some());
    let mut got = None;
    while got.is_none() {
        tokio::time::sleep(WRITE_STALL_TIMEOUT - Duration::from_secs(1)).await;
        let mut bytes = vec![0; ROOM / 2];
        let read = peer.read(&mut bytes).await.unwrap();
        session.handle_bytes(&bytes[..read]).unwrap();
        while let Some(event) = session.poll_event() {
            if let session::SessionEvent::Frame(frame) = event {
                got = Some(frame);
            }
        }
    }
    assert_eq!(got.as_deref(), Some(&frame[..]));
    assert!(began.elapsed() > 2 * WRITE_STALL_TIMEOUT);
    // And one to whom there is nothing to say may be silent for as long as it likes.
    tokio::time::sleep(10 * WRITE_STALL_TIMEOUT).await;
    assert!(timeout(Duration::ZERO, &mut carried).await.is_err());
}
