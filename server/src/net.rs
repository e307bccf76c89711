//! The network as the runtime sees it: datagrams, streams, names. [`OsNetwork`] is the real one; a simulated one can
//! take its place.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

/// Bytes the kernel may hold of datagrams, each way: about two seconds of gossip at a thousand servers.
const DATAGRAM_BUFFER_BYTES: usize = 1 << 20;
/// How long a stream may be silent before the kernel asks whether the other side is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// How often it asks, and gives up after three times.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long another server may leave sent bytes unacknowledged, or take none, before the stream to it is given up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1_024;

/// A way to send and receive datagrams.
pub trait Datagrams: Send + Sync + 'static {
    /// Sends one, or drops it when the kernel has no room.
    fn send(&self, bytes: &[u8], to: SocketAddr);

    /// Waits for one and puts it into `buffer`.
    fn receive(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<(usize, SocketAddr)>> + Send;
}

/// A place where streams arrive.
pub trait Listener: Send + 'static {
    /// What arrives.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next one.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Sockets and names.
pub trait Network: Clone + Send + Sync + 'static {
    /// Its datagrams.
    type Datagrams: Datagrams;
    /// Its listeners.
    type Listener: Listener<Stream = Self::Stream>;
    /// Its streams.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Binds a socket for datagrams.
    fn bind(&self, to: SocketAddr) -> impl Future<Output = io::Result<Self::Datagrams>> + Send;

    /// Listens for streams of clients, which may be slow for as long as the server lets them.
    fn listen(&self, on: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// Listens for streams of other servers, whose silence is noticed.
    fn listen_for_servers(&self, on: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>> + Send {
        self.listen(on)
    }

    /// Opens a stream to another server.
    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Every address of `host:port`, resolved anew.
    fn resolve(&self, address: &str) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;
}

/// The operating system's network.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsNetwork;

impl Network for OsNetwork {
    type Datagrams = Arc<UdpSocket>;
    type Listener = OsListener;
    type Stream = TcpStream;

    async fn bind(&self, to: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
        dual_stack(&socket, to)?;
        // Less than asked for is fine: the kernel caps it.
        let _ = socket.set_recv_buffer_size(DATAGRAM_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(DATAGRAM_BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&to.into())?;
        UdpSocket::from_std(socket.into()).map(Arc::new)
    }

    async fn listen(&self, on: SocketAddr) -> io::Result<OsListener> {
        Ok(OsListener { listener: listener(on)?, tune })
    }

    async fn listen_for_servers(&self, on: SocketAddr) -> io::Result<OsListener> {
        Ok(OsListener { listener: listener(on)?, tune: tune_for_servers })
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        let stream = socket.connect(to).await?;
        tune_for_servers(&stream)?;
        Ok(stream)
    }

    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host(address).await?.collect())
    }
}

impl Datagrams for Arc<UdpSocket> {
    fn send(&self, bytes: &[u8], to: SocketAddr) {
        // A datagram may be lost anyway; the engine probes again.
        let _ = self.try_send_to(bytes, to);
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from(buffer).await
    }
}

/// A TCP port of this machine, and what is set on each stream that arrives there.
#[derive(Debug)]
pub struct OsListener {
    listener: TcpListener,
    tune: fn(&TcpStream) -> io::Result<()>,
}

impl Listener for OsListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, from) = self.listener.accept().await?;
        (self.tune)(&stream)?;
        Ok((stream, from))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn listener(on: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(on), Type::STREAM, Some(Protocol::TCP))?;
    dual_stack(&socket, on)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&on.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// `[::]` takes IPv4 as well; any other IPv6 address only itself.
fn dual_stack(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    if to.is_ipv6() {
        socket.set_only_v6(!to.ip().is_unspecified())?;
    }
    Ok(())
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn tune_for_servers(stream: &TcpStream) -> io::Result<()> {
    tune(stream)?;
    // Keepalive does not ask while data waits to be acknowledged. This also ends a stream whose other side acknowledges
    // but makes no room, which a client that reads slowly does lawfully and a server does not.
    SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn accepted(mut listener: OsListener) -> (TcpStream, TcpStream) {
        let opened = OsNetwork.connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, opened)
    }

    #[tokio::test]
    async fn only_streams_between_servers_are_given_up_for_making_no_room() {
        let timeout = |stream: &TcpStream| SockRef::from(stream).tcp_user_timeout().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (client, _) = accepted(OsNetwork.listen(any).await.unwrap()).await;
        assert_eq!(timeout(&client), None);
        let (server, opened) = accepted(OsNetwork.listen_for_servers(any).await.unwrap()).await;
        assert_eq!((timeout(&server), timeout(&opened)), (Some(UNACKNOWLEDGED), Some(UNACKNOWLEDGED)));
        for stream in [&client, &server, &opened] {
            assert!(stream.nodelay().unwrap() && SockRef::from(stream).keepalive().unwrap());
        }
    }
}
