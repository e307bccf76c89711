//! A peer that owns the cluster key and is no server: a real session over TCP, on which it says what a test tells it to.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use knot_engine::membership::{BUCKETS, Message, Record};
use knot_engine::seal::ClusterKey;
use knot_engine::session::{Config, Role, Session, SessionEvent};
use knot_engine::wire::{Frame, WIRE_VERSION};
use knot_engine::{Address, Boot, Incarnation, NodeId, NodeKey, PeerIdentity};

use super::{KEY, Server};

/// How long one read waits.
const READ_TIMEOUT: Duration = Duration::from_millis(50);
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// It, and its stream to one server.
pub struct Intruder {
    pub key: NodeKey,
    pub boot: Boot,
    stream: TcpStream,
    session: Session,
    over: bool,
}

impl Intruder {
    /// Shakes hands with a server of the cluster `knot` and introduces itself as one of it. Intruders of one number are one
    /// node.
    pub fn meet(server: &Server, number: u8) -> Self {
        let (key, boot) = (NodeKey::from_bytes([number; 32]), Boot([number; 16]));
        let cluster_key = ClusterKey::new(KEY).unwrap();
        let cluster = cluster_key.cluster_id("knot");
        let identity = PeerIdentity { public: key.public(), boot, cluster, empty: false, wire: WIRE_VERSION };
        let config = Config {
            keys: cluster_key.into(),
            cluster: "knot".to_owned(),
            identity,
            node_key: key.clone(),
            compression: true,
        };
        let stream = TcpStream::connect(&server.setup.cluster.as_ref().unwrap().address).unwrap();
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        let mut intruder =
            Self { session: Session::new(Role::Initiator, config, [number; 32]), key, boot, stream, over: false };
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        while !intruder.session.is_established() {
            assert!(Instant::now() < deadline && !intruder.over, "the server does not shake hands");
            intruder.frames();
        }
        let record = intruder.record();
        intruder.introduce(record);
        intruder
    }

    /// What an honest server of this key would say of itself. Nobody listens at its address.
    pub fn record(&self) -> Record {
        Record {
            node: self.node(),
            boot: self.boot,
            incarnation: Incarnation { starts: 1, refutations: 0 },
            name: format!("intruder-{}", self.boot.0[0]),
            zone: "au".to_owned(),
            addresses: vec![Address::from("127.0.0.1:9")],
            version: String::new(),
            url: String::new(),
        }
    }

    pub fn node(&self) -> NodeId {
        self.key.node_id()
    }

    pub fn introduce(&mut self, record: Record) {
        let digest = Message::SyncDigest { record: record.into(), answer: false, buckets: vec![0; BUCKETS] };
        self.say(&Frame::Membership(digest, Vec::new()));
    }

    pub fn say(&mut self, frame: &Frame) {
        self.say_bytes(&frame.encode());
    }

    /// Says anything, whether it is a frame or not.
    pub fn say_bytes(&mut self, bytes: &[u8]) {
        if self.session.send_frame(bytes).is_err() {
            self.over = true;
        }
        self.write();
    }

    /// Whether the server has closed the stream.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// What the server has said since the last time. Its probes are answered, as a server's would be.
    pub fn frames(&mut self) -> Vec<Frame> {
        self.write();
        let mut buffer = vec![0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.over = true,
            Ok(bytes) => self.over |= self.session.handle_bytes(&buffer[..bytes]).is_err(),
            Err(error) => self.over |= !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
        let mut frames = Vec::new();
        while let Some(event) = self.session.poll_event() {
            let SessionEvent::Frame(bytes) = event else { continue };
            match Frame::decode(&bytes).unwrap() {
                Some(Frame::Membership(Message::Ping { seq, view, .. }, _)) => {
                    self.say(&Frame::Membership(
                        Message::Ack { seq, view, clock: None, updates: Vec::new() },
                        Vec::new(),
                    ));
                }
                Some(frame) => frames.push(frame),
                None => {}
            }
        }
        self.write();
        frames
    }

    fn write(&mut self) {
        while let Some(bytes) = self.session.poll_transmit() {
            self.over |= self.stream.write_all(&bytes).is_err();
        }
    }
}
