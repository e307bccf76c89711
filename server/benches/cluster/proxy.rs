//! Distance between servers: whoever talks to a server talks to its proxy, which passes everything on later.
//!
//! Each direction of a stream is delayed by the same time, in order; datagrams one way, which is the only way they take
//! through one proxy. The handshake of TCP itself is not delayed. Threads and not tasks do it, because a runtime's timer
//! is a millisecond coarse and a thread's is not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Chunks on their way in one direction; a sender beyond waits.
const CHUNKS_MAX: usize = 4_096;
const CHUNK_BYTES: usize = 64 << 10;

/// A server's address as the others know it.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Proxy {
    /// Passes on to `target`, `delay` later.
    pub(crate) fn start(target: SocketAddr, delay: Duration) -> Self {
        let (listener, socket) = bind();
        let address = listener.local_addr().expect("a bound socket has an address");
        let bytes = Arc::new(AtomicU64::new(0));
        let route = Route { target, delay, bytes: bytes.clone() };
        {
            let route = route.clone();
            thread::spawn(move || route.datagrams(&socket));
        }
        thread::spawn(move || route.streams(&listener));
        Self { address, bytes }
    }

    /// Bytes of streams and datagrams that went through, both ways.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// TCP and UDP on one port.
fn bind() -> (TcpListener, UdpSocket) {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        if let Ok(socket) = UdpSocket::bind(address) {
            return (listener, socket);
        }
    }
}

#[derive(Clone)]
struct Route {
    target: SocketAddr,
    delay: Duration,
    bytes: Arc<AtomicU64>,
}

impl Route {
    fn streams(&self, listener: &TcpListener) {
        for near in listener.incoming().flatten() {
            // A server that is down refuses; so does its proxy.
            let Ok(far) = TcpStream::connect(self.target) else { continue };
            for (from, to) in [(&near, &far), (&far, &near)] {
                let _ = to.set_nodelay(true);
                if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
                    self.pump(from, to);
                }
            }
        }
    }

    /// Carries one direction of a stream until it ends.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let (chunks, waiting) = mpsc::sync_channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
        let (delay, bytes) = (self.delay, self.bytes.clone());
        thread::spawn(move || {
            let mut buffer = vec![0; CHUNK_BYTES];
            while let Ok(len @ 1..) = from.read(&mut buffer) {
                bytes.fetch_add(len as u64, Ordering::Relaxed);
                if chunks.send((Instant::now() + delay, buffer[..len].to_vec())).is_err() {
                    break;
                }
            }
        });
        thread::spawn(move || {
            for (due, chunk) in waiting {
                sleep_until(due);
                if to.write_all(&chunk).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
    }

    fn datagrams(&self, socket: &UdpSocket) {
        let (datagrams, waiting) = mpsc::sync_channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
        let out = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let target = self.target;
        thread::spawn(move || {
            for (due, datagram) in waiting {
                sleep_until(due);
                let _ = out.send_to(&datagram, target);
            }
        });
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(len) = socket.recv(&mut buffer) {
            self.bytes.fetch_add(len as u64, Ordering::Relaxed);
            let _ = datagrams.try_send((Instant::now() + self.delay, buffer[..len].to_vec()));
        }
    }
}

fn sleep_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}
