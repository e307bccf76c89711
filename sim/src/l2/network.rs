//! The network as a server sees it: [`Wires`] to other servers, turmoil's TCP to clients.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use knot_server::net::{Datagrams, Listener, Network};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use super::wires::{End, Wires};
use crate::network::Process;

/// The network of one process.
#[derive(Clone, Debug)]
pub(super) struct SimNetwork {
    pub(super) process: Process,
    pub(super) names: std::sync::Arc<[String]>,
    pub(super) wires: Wires,
}

#[derive(Debug)]
pub(super) struct SimDatagrams(SimNetwork);

pub(super) enum SimListener {
    /// For clients.
    Http(TcpListener),
    /// For servers.
    Cluster(SimNetwork, SocketAddr),
}

/// A stream of a server's.
pub(super) enum SimStream {
    /// To a client.
    Http(TcpStream),
    /// To another server.
    Cluster(Wire),
}

/// One end of a stream between servers.
#[derive(Debug)]
pub(super) struct Wire {
    end: End,
    wires: Wires,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.wires.get().close(self.end);
    }
}

impl std::fmt::Debug for SimStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(_) => f.write_str("Http"),
            Self::Cluster(wire) => wire.fmt(f),
        }
    }
}

impl Network for SimNetwork {
    type Datagrams = SimDatagrams;
    type Listener = SimListener;
    type Stream = SimStream;

    async fn bind(&self, _: SocketAddr) -> io::Result<SimDatagrams> {
        Ok(SimDatagrams(self.clone()))
    }

    async fn listen(&self, on: SocketAddr) -> io::Result<SimListener> {
        TcpListener::bind(on).await.map(SimListener::Http)
    }

    async fn listen_for_servers(&self, on: SocketAddr) -> io::Result<SimListener> {
        Ok(SimListener::Cluster(self.clone(), on))
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<SimStream> {
        let end = self.wires.get().connect(self.process, to);
        // From here on it is closed when the attempt is given up.
        let wire = Wire { end, wires: self.wires.clone() };
        poll_fn(|context| self.wires.get().poll_connected(end, context)).await?;
        Ok(SimStream::Cluster(wire))
    }

    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let node = self.names.iter().position(|name| name == host).ok_or(io::ErrorKind::NotFound)?;
        Ok(vec![self.wires.get().address(node)])
    }
}

impl Datagrams for SimDatagrams {
    fn send(&self, bytes: &[u8], to: SocketAddr) {
        self.0.wires.get().send_datagram(self.0.process, bytes, to);
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let len = poll_fn(|context| self.0.wires.get().poll_datagram(self.0.process, buffer, context)).await;
        // Nobody asks where it came from: what is sealed says who sent it.
        Ok((len, SocketAddr::from(([0, 0, 0, 0], 0))))
    }
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&mut self) -> io::Result<(SimStream, SocketAddr)> {
        match self {
            Self::Http(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok((SimStream::Http(stream), from))
            }
            Self::Cluster(network, _) => {
                let accept = poll_fn(|context| network.wires.get().poll_accept(network.process, context));
                let (end, from) = accept.await;
                Ok((SimStream::Cluster(Wire { end, wires: network.wires.clone() }), from))
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Http(listener) => listener.local_addr(),
            Self::Cluster(_, on) => Ok(*on),
        }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http(stream) => Pin::new(stream).poll_read(context, into),
            Self::Cluster(wire) => {
                let bytes = ready!(wire.wires.get().poll_read(wire.end, into.remaining(), context))?;
                into.put_slice(&bytes);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Http(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Cluster(wire) => wire.wires.get().poll_write(wire.end, bytes, context),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http(stream) => Pin::new(stream).poll_flush(context),
            Self::Cluster(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Cluster(wire) => {
                wire.wires.get().close(wire.end);
                Poll::Ready(Ok(()))
            }
        }
    }
}
