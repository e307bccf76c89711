//! Everything that servers say to each other, in the hands of a test: each server is known to the others by the address of
//! a proxy, which records what passes and, when told to, spoils it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Setup, free_port};

const CHUNK_BYTES: usize = 16 << 10;
/// How long a delayed chunk waits.
const DELAY: Duration = Duration::from_millis(150);
/// Of so many chunks of a stream one is spoilt.
const SPOILT_ONE_IN: usize = 4;

/// What is done to streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// Nothing.
    Honest,
    /// A bit is flipped.
    Rewrite,
    /// Chunks arrive later.
    Delay,
    /// The end of a chunk is left out, and the stream goes on.
    Truncate,
    /// The first half of a chunk comes after the second.
    Reorder,
    /// A chunk says that it is longer than it is, so that the receiver waits for more.
    Stretch,
    /// A chunk comes twice.
    Repeat,
    /// The stream ends in the middle of a chunk.
    Cut,
}

/// One stream, both ways, as far as it was passed on.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub to_server: Vec<u8>,
    pub from_server: Vec<u8>,
}

/// What went to one server and, on streams, came back.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub datagrams: Vec<Vec<u8>>,
    pub streams: Vec<Stream>,
}

impl Recording {
    /// Every run of bytes that went over the wire in one piece.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let streams = self.streams.iter().flat_map(|stream| [&stream.to_server[..], &stream.from_server]);
        self.datagrams.iter().map(Vec::as_slice).chain(streams)
    }
}

/// A server's address as the others know it.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    recording: Mutex<Recording>,
    mischief: Mutex<Mischief>,
    spoilt: AtomicUsize,
}

impl Proxy {
    /// Passes on to `target` for as long as the process lives.
    pub fn start(target: SocketAddr) -> Self {
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()).into();
        let (listener, socket) = (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap());
        let shared = Arc::new(Shared {
            target,
            recording: Mutex::default(),
            mischief: Mutex::new(Mischief::Honest),
            spoilt: AtomicUsize::new(0),
        });
        let (datagrams, streams) = (shared.clone(), shared.clone());
        thread::spawn(move || datagrams.pass_datagrams(&socket));
        thread::spawn(move || streams.pass_streams(&listener));
        Self { address, shared }
    }

    /// Puts a proxy in front of each of these servers, which know each other by it only.
    pub fn before(setups: &mut [Setup]) -> Vec<Self> {
        let target = |setup: &Setup| setup.cluster.as_ref().unwrap().address.parse().unwrap();
        let proxies: Vec<Self> = setups.iter().map(|setup| Self::start(target(setup))).collect();
        let addresses: Vec<String> = proxies.iter().map(|proxy| proxy.address.to_string()).collect();
        for (setup, address) in setups.iter_mut().zip(&addresses) {
            let cluster = setup.cluster.as_mut().unwrap();
            cluster.advertised = Some(address.clone());
            cluster.peers = addresses.clone();
        }
        proxies
    }

    /// What has passed so far.
    pub fn recording(&self) -> Recording {
        self.shared.recording().clone()
    }

    /// How many streams were opened so far.
    pub fn streams(&self) -> usize {
        self.shared.recording().streams.len()
    }

    /// How many chunks were spoilt so far.
    pub fn spoilt(&self) -> usize {
        self.shared.spoilt.load(Ordering::Relaxed)
    }

    /// Does this to streams from now on, those that are open included.
    pub fn set(&self, mischief: Mischief) {
        *self.shared.mischief.lock().unwrap_or_else(PoisonError::into_inner) = mischief;
    }
}

impl Shared {
    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_datagrams(&self, socket: &UdpSocket) {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            // An error is about a datagram sent before, to a server that is down.
            let Ok((bytes, _)) = socket.recv_from(&mut buffer) else { continue };
            self.recording().datagrams.push(buffer[..bytes].to_vec());
            let _ = socket.send_to(&buffer[..bytes], self.target);
        }
    }

    fn pass_streams(self: &Arc<Self>, listener: &TcpListener) {
        for near in listener.incoming() {
            let (Ok(near), Ok(far)) = (near, TcpStream::connect(self.target)) else { continue };
            let (Ok(near_back), Ok(far_back)) = (near.try_clone(), far.try_clone()) else { continue };
            let number = {
                let mut recording = self.recording();
                recording.streams.push(Stream::default());
                recording.streams.len() - 1
            };
            let (there, back) = (self.clone(), self.clone());
            thread::spawn(move || there.pass(near, far, |recording| &mut recording.streams[number].to_server));
            thread::spawn(move || {
                back.pass(far_back, near_back, |recording| &mut recording.streams[number].from_server)
            });
        }
    }

    /// Passes one direction of a stream on until either end closes it.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream, record: impl Fn(&mut Recording) -> &mut Vec<u8>) {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut chunks = 0;
        while let Ok(bytes @ 1..) = from.read(&mut buffer) {
            record(&mut self.recording()).extend(&buffer[..bytes]);
            let mut chunk = buffer[..bytes].to_vec();
            chunks += 1;
            let goes_on = chunks % SPOILT_ONE_IN != 0 || self.spoil(&mut chunk);
            if to.write_all(&chunk).is_err() || !goes_on {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }

    /// False where the stream ends with what is left.
    fn spoil(&self, chunk: &mut Vec<u8>) -> bool {
        let mischief = *self.mischief.lock().unwrap_or_else(PoisonError::into_inner);
        let half = chunk.len() / 2;
        match mischief {
            Mischief::Honest => return true,
            Mischief::Rewrite => chunk[half] ^= 0x10,
            Mischief::Delay => thread::sleep(DELAY),
            Mischief::Truncate => chunk.truncate(half),
            Mischief::Reorder => chunk.rotate_left(half),
            // A chunk begins with a segment's length, mostly.
            Mischief::Stretch => chunk.iter_mut().take(2).for_each(|byte| *byte = 0xff),
            Mischief::Repeat => chunk.extend_from_within(..),
            Mischief::Cut => chunk.truncate(half),
        }
        self.spoilt.fetch_add(1, Ordering::Relaxed);
        mischief != Mischief::Cut
    }
}
