//! A WebSocket as a stream of bytes.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};

/// Most bytes in a message that is sent: one segment of a session.
const MESSAGE_BYTES: usize = 64 << 10;
/// Longest message that is taken.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Bytes that are gathered before they are written without being asked for.
const WRITE_BYTES: usize = 128 << 10;
/// Bytes that may wait to be written; no more than one message is given before there is room.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// How often a ping goes, which keeps what stands in between from closing a stream that is silent: nginx does after 60 s.
const PING_INTERVAL: Duration = Duration::from_secs(25);

/// Bytes both ways through a WebSocket.
pub struct WebSocket<S> {
    inner: WebSocketStream<S>,
    /// What of the last message has not been read.
    arrived: Bytes,
    pings: Interval,
    ping: Ping,
}

/// How far a ping has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ping {
    /// None is to go yet.
    Waits,
    /// One is to go as soon as there is room.
    Due,
    /// One was given, and may not have left yet.
    Given,
}

impl<S> fmt::Debug for WebSocket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("arrived", &self.arrived.len()).finish_non_exhaustive()
    }
}

/// Limits of both sides.
pub(super) fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .write_buffer_size(WRITE_BYTES)
        .max_write_buffer_size(WRITE_BYTES_MAX)
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// The side that was asked, once it has answered; `early` is what has come already.
    pub(super) async fn accepted(stream: S, early: Bytes) -> Self {
        Self::new(WebSocketStream::from_partially_read(stream, early.into(), Role::Server, Some(limits())).await)
    }

    pub(super) fn new(inner: WebSocketStream<S>) -> Self {
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        Self { inner, arrived: Bytes::new(), pings, ping: Ping::Waits }
    }

    fn poll_ping(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.pings.poll_tick(context).is_ready() {
            self.ping = Ping::Due;
        }
        if self.ping == Ping::Due {
            ready!(Pin::new(&mut self.inner).poll_ready(context))?;
            Pin::new(&mut self.inner).start_send(Message::Ping(Bytes::new()))?;
            self.ping = Ping::Given;
        }
        if self.ping == Ping::Given {
            ready!(Pin::new(&mut self.inner).poll_flush(context))?;
            self.ping = Ping::Waits;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_ping(context) {
            return Poll::Ready(io_error(error));
        }
        while self.arrived.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.arrived = bytes,
                // They are answered beneath.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a text message, where servers send binary ones",
                    )));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(io_error(error)),
            }
        }
        let taken = self.arrived.len().min(into.remaining());
        into.put_slice(&self.arrived[..taken]);
        self.arrived.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = bytes.len().min(MESSAGE_BYTES);
        if let Err(error) = ready!(Pin::new(&mut self.inner).poll_ready(context)) {
            return Poll::Ready(io_error(error).and(Err(io::ErrorKind::BrokenPipe.into())));
        }
        let message = Message::Binary(Bytes::copy_from_slice(&bytes[..taken]));
        match Pin::new(&mut self.inner).start_send(message) {
            Ok(()) => Poll::Ready(Ok(taken)),
            Err(error) => Poll::Ready(io_error(error).and(Err(io::ErrorKind::BrokenPipe.into()))),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context).map(|done| done.or_else(io_error))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context).map(|done| done.or_else(io_error))
    }
}

/// What a stream makes of it: one whose other side has gone, in order or not, is at its end.
#[expect(clippy::wildcard_enum_match_arm, reason = "everything else is what no server sends")]
fn io_error(error: Error) -> io::Result<()> {
    match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ok(()),
        Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Error::Io(error) => Err(error),
        error => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    async fn pair(room: usize) -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
        let (near, far) = duplex(room);
        let client = WebSocketStream::from_raw_socket(near, Role::Client, Some(limits())).await;
        (WebSocket::new(client), WebSocket::accepted(far, Bytes::new()).await)
    }

    #[tokio::test]
    async fn bytes_arrive_as_they_were_sent_through_little_room() {
        let (mut client, mut server) = pair(700).await;
        let sent: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.flush().await.unwrap();
            client
        });
        let mut got = vec![0; expected.len()];
        server.read_exact(&mut got).await.unwrap();
        assert!(got == expected);
        drop(writing.await.unwrap());
        assert_eq!(server.read(&mut got).await.unwrap(), 0, "a side that is gone ends the stream");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_kept_open_by_pings() {
        let (mut client, far) = {
            let (near, far) = duplex(1 << 10);
            let client = WebSocketStream::from_raw_socket(near, Role::Client, Some(limits())).await;
            (WebSocket::new(client), far)
        };
        let reading = tokio::spawn(async move { client.read(&mut [0; 8]).await });
        let mut far = WebSocketStream::from_raw_socket(far, Role::Server, Some(limits())).await;
        let mut next = async || std::future::poll_fn(|context| Pin::new(&mut far).poll_next(context)).await;
        for _ in 0..3 {
            let before = tokio::time::Instant::now();
            assert!(matches!(next().await, Some(Ok(Message::Ping(_)))));
            assert!(before.elapsed() <= PING_INTERVAL);
        }
        reading.abort();
    }

    #[tokio::test]
    async fn messages_that_no_server_sends_are_refused() {
        let (near, far) = duplex(1 << 20);
        let mut near = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let mut server = WebSocket::accepted(far, Bytes::new()).await;
        let mut say = async |message| {
            Pin::new(&mut near).start_send(message).unwrap();
            std::future::poll_fn(|context| Pin::new(&mut near).poll_flush(context)).await.unwrap();
        };
        say(Message::text("hello")).await;
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        say(Message::Binary(vec![0; MESSAGE_BYTES_MAX + 1].into())).await;
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
