//! One stream to a peer: the handshake, then frames both ways, until either side ends it.

#[cfg(test)]
mod tests;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use knot_engine::membership::Closed;
use knot_engine::seal::KeyId;
use knot_engine::session::{self, Role, SendError, Session, SessionError};
use knot_engine::{SessionEvent, SessionId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::Input;
use super::half_open::Place;
use crate::links::Pipe;
use crate::websocket::DialError;

/// How long a handshake may take.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Frames that may wait for one stream; the engine bounds most of their bytes, and a stream with more is cut.
pub(super) const FRAMES_MAX: usize = 16_384;
/// How long a segment may take from its first byte to its last; the longest takes less over 20 kbit/s.
const SEGMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer may take nothing of what is to be sent to it. TCP gives up by itself before, where there is no proxy in
/// between. One that goes on reading is waited for, but for what lies in between: a WebSocket and TLS take up to 192 KiB at
/// a time before it shows that any has left, so who takes less than 13 kbit/s does not count as reading.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a session seals under one key.
const KEY_AGE_MAX: Duration = Duration::from_secs(3_600);
/// How long a stream that is closed may still take to write what was given to it.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes sealed before they are written.
const WRITE_BYTES: usize = 512 << 10;
/// When a queue that had this many bytes is empty again, the engine is told, unless it waits for shorter ones.
const DRAINED_FROM: usize = 64 << 10;

/// Bytes that may wait for one stream; one with more is cut. Above the engine's own bound for pushes.
pub(super) const QUEUED_MAX: usize = 64 << 20;
/// Bytes of frames of one stream that the driver may have yet to handle; the stream is read no further meanwhile.
const UNHANDLED_MAX: u32 = 4 << 20;

/// The driver's end of a stream. Dropping it ends the stream, whatever the peer does.
#[derive(Debug)]
pub(super) struct StreamHandle {
    frames: mpsc::Sender<Bytes>,
    queued: Arc<AtomicUsize>,
    /// The cluster key that both ends hold, once they have agreed.
    pub(super) key: Option<KeyId>,
    /// What it goes through.
    pub(super) pipe: Pipe,
    /// The address it was opened to, or the host it came from.
    pub(super) address: String,
    open: oneshot::Sender<()>,
}

impl StreamHandle {
    /// Both ends, for an engine that waits for a queue of so many bytes to be empty.
    pub(super) fn new(peer_queue_bytes: usize, pipe: Pipe, address: String) -> (Self, Outbox) {
        let (frames, waiting) = mpsc::channel(FRAMES_MAX);
        let (open, closed) = oneshot::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let drained_from = DRAINED_FROM.min(peer_queue_bytes);
        let outbox = Outbox { frames: waiting, queued: queued.clone(), high: 0, drained_from, closed };
        (Self { frames, queued, key: None, pipe, address, open }, outbox)
    }

    /// Queues a frame and returns how many bytes wait; none when the stream is gone or too far behind.
    pub(super) fn send(&self, frame: Bytes) -> Option<usize> {
        let len = frame.len();
        let queued = self.queued.fetch_add(len, Ordering::Relaxed) + len;
        (queued <= QUEUED_MAX && self.frames.try_send(frame).is_ok()).then_some(queued)
    }

    /// Ends the stream once what was given to it has been written, or after [`FINISH_TIMEOUT`].
    pub(super) fn finish(self) {
        // One that has ended needs no telling.
        let _ = self.open.send(());
    }
}

/// The stream's end of its queue.
#[derive(Debug)]
pub(super) struct Outbox {
    frames: mpsc::Receiver<Bytes>,
    queued: Arc<AtomicUsize>,
    high: usize,
    drained_from: usize,
    closed: oneshot::Receiver<()>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the peer closed the stream")]
    Eof,
    #[error(
        "the peer closed the stream during the handshake; does it hold the same key, and is its cluster's name the same?"
    )]
    HandshakeEof,
    #[error("the handshake took longer than {} s", HANDSHAKE_TIMEOUT.as_secs())]
    HandshakeTimeout,
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(
        "the rest of a segment did not come within {} s: its length was altered on the way, or the way is dead",
        SEGMENT_TIMEOUT.as_secs()
    )]
    Stalled,
    #[error("the peer took nothing of what was sent to it for {} s", WRITE_STALL_TIMEOUT.as_secs())]
    Unread,
    #[error("this side closed it")]
    Local,
}

impl StreamError {
    /// As membership wants to know it.
    pub(super) fn closed(&self) -> Closed {
        match self {
            Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => Closed::Refused,
            Self::Connect(error) | Self::Io(error) if error.kind() == io::ErrorKind::TimedOut => Closed::Timeout,
            // What refuses a WebSocket may be a proxy, of which nothing follows for the server behind it.
            Self::Dial(_) | Self::HandshakeTimeout | Self::Stalled | Self::Unread => Closed::Timeout,
            Self::Connect(_) | Self::Io(_) => Closed::Reset,
            Self::Eof | Self::HandshakeEof => Closed::Eof,
            Self::Session(_) | Self::Local => Closed::Local,
        }
    }

    /// Whether a stream that ends so before both sides have agreed needs a person, rather than having been one too many,
    /// or a stranger's.
    pub(super) fn is_trouble(&self, role: Role) -> bool {
        match self {
            Self::Session(SessionError::WrongKey { .. } | SessionError::OtherCluster) => true,
            Self::Connect(_)
            | Self::Dial(_)
            | Self::Session(_)
            | Self::Io(_)
            | Self::Eof
            | Self::HandshakeEof
            | Self::HandshakeTimeout => role == Role::Initiator,
            Self::Stalled | Self::Unread | Self::Local => false,
        }
    }
}

/// Shakes hands by `deadline` and reports the peer, then carries frames until the stream ends. `place` counts the stream among
/// those that are shaking hands.
pub(super) async fn run<S>(
    stream: S,
    id: SessionId,
    session: Session,
    outbox: Outbox,
    inputs: mpsc::Sender<Input>,
    deadline: Instant,
    place: Option<Place>,
) -> StreamError
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let unhandled = Arc::new(Semaphore::new(UNHANDLED_MAX as usize));
    let mut carrier = Carrier {
        stream,
        session,
        id,
        outbox,
        inputs,
        unhandled,
        unflushed: false,
        unfinished: None,
        blocked: None,
        key_since: Instant::now(),
    };
    match timeout_at(deadline, carrier.shake_hands()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return error,
        Err(_) => return StreamError::HandshakeTimeout,
    }
    drop(place);
    carrier.carry().await
}

/// A way in which a stream goes on.
#[derive(Clone, Copy, Debug)]
enum Way {
    Read,
    Write,
    /// Taking a frame to be sent.
    Take,
}

impl Way {
    const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Take];
}

/// How it went on.
#[derive(Debug)]
enum Step {
    Read(io::Result<usize>),
    Wrote(io::Result<usize>),
    Flushed(io::Result<()>),
    /// The peer has taken nothing for too long.
    Unread,
    Took(Bytes),
    /// The driver has no more use for it.
    Closed,
    /// Nor for anything beyond what it has given to it.
    Finish,
}

struct Carrier<S> {
    stream: S,
    session: Session,
    id: SessionId,
    outbox: Outbox,
    inputs: mpsc::Sender<Input>,
    unhandled: Arc<Semaphore>,
    /// What was written may not have left yet.
    unflushed: bool,
    /// The segment of which the rest is waited for, and until when.
    unfinished: Option<(u64, Instant)>,
    /// Until when something of what is to be sent has to leave.
    blocked: Option<Instant>,
    /// When it began to seal under its present key.
    key_since: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Carrier<S> {
    async fn shake_hands(&mut self) -> Result<(), StreamError> {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        loop {
            while let Some(bytes) = self.session.poll_transmit() {
                self.stream.write_all(&bytes).await?;
            }
            self.stream.flush().await?;
            if let Some(key) = self.session.key() {
                if self.inputs.send(Input::Agreed(self.id, key)).await.is_err() {
                    return Err(StreamError::Local);
                }
                return self.report().await;
            }
            buffer.clear();
            if self.stream.read_buf(&mut buffer).await? == 0 {
                return Err(StreamError::HandshakeEof);
            }
            self.session.handle_bytes(&buffer)?;
        }
    }

    async fn carry(mut self) -> StreamError {
        let mut incoming = vec![0; READ_BYTES];
        let mut outgoing = Bytes::new();
        let mut first = 0;
        loop {
            if outgoing.is_empty() {
                outgoing = self.session.poll_transmit().unwrap_or_default();
            }
            self.blocked = if outgoing.is_empty() && !self.unflushed {
                None
            } else {
                self.blocked.or_else(|| Some(Instant::now() + WRITE_STALL_TIMEOUT))
            };
            let blocked = self.blocked;
            let until = self.unfinished.map(|(_, until)| until).into_iter().chain(blocked).min();
            let step = poll_fn(|context| self.poll_step(&mut incoming, &outgoing, first, context));
            let step = match until {
                None => step.await,
                Some(until) => match timeout_at(until, step).await {
                    Ok(step) => step,
                    Err(_) if Some(until) == blocked => return StreamError::Unread,
                    Err(_) => return StreamError::Stalled,
                },
            };
            first = (first + 1) % Way::ALL.len();
            let went_on = match step {
                Step::Read(Ok(0)) => Err(StreamError::Eof),
                Step::Read(Ok(read)) => self.on_bytes(incoming.get(..read).unwrap_or_default()).await,
                Step::Wrote(Ok(written)) => {
                    self.blocked = None;
                    self.unflushed = true;
                    self.on_written(&mut outgoing, written).await;
                    Ok(())
                }
                Step::Flushed(Ok(())) => {
                    self.unflushed = false;
                    Ok(())
                }
                Step::Read(Err(error)) | Step::Wrote(Err(error)) | Step::Flushed(Err(error)) => Err(error.into()),
                Step::Unread => Err(StreamError::Unread),
                Step::Took(frame) if self.queue(&frame) => Ok(()),
                Step::Took(_) | Step::Closed => Err(StreamError::Local),
                Step::Finish => {
                    // A peer that reads nothing waits in vain, and nobody for it.
                    let _ = timeout(FINISH_TIMEOUT, self.finish(outgoing)).await;
                    return StreamError::Local;
                }
            };
            if let Err(error) = went_on {
                return error;
            }
        }
    }

    /// Waits for whichever way the stream can go on. Which is tried first changes from step to step, so that none starves
    /// and a simulated run can be repeated.
    fn poll_step(
        &mut self,
        incoming: &mut [u8],
        outgoing: &[u8],
        first: usize,
        context: &mut Context<'_>,
    ) -> Poll<Step> {
        if let Poll::Ready(told) = Pin::new(&mut self.outbox.closed).poll(context) {
            return Poll::Ready(told.map_or(Step::Closed, |()| Step::Finish));
        }
        let has_room = self.session.pending_transmit_bytes() < WRITE_BYTES;
        for way in Way::ALL.iter().cycle().skip(first).take(Way::ALL.len()) {
            let step = match way {
                Way::Read => {
                    let mut read = ReadBuf::new(incoming);
                    let done = Pin::new(&mut self.stream).poll_read(context, &mut read);
                    done.map(|done| Step::Read(done.map(|()| read.filled().len())))
                }
                Way::Write if !outgoing.is_empty() => {
                    let wrote = Pin::new(&mut self.stream).poll_write(context, outgoing).map(Step::Wrote);
                    self.unless_unread(wrote)
                }
                Way::Write if self.unflushed => {
                    let flushed = Pin::new(&mut self.stream).poll_flush(context).map(Step::Flushed);
                    self.unless_unread(flushed)
                }
                Way::Write => Poll::Pending,
                Way::Take if has_room => {
                    self.outbox.frames.poll_recv(context).map(|frame| frame.map_or(Step::Closed, Step::Took))
                }
                Way::Take => Poll::Pending,
            };
            if step.is_ready() {
                return step;
            }
        }
        Poll::Pending
    }

    /// A peer that takes nothing may have so much to say that nobody waits for it.
    fn unless_unread(&self, step: Poll<Step>) -> Poll<Step> {
        let is_late = step.is_pending() && self.blocked.is_some_and(|until| Instant::now() >= until);
        if is_late { Poll::Ready(Step::Unread) } else { step }
    }

    async fn finish(&mut self, mut outgoing: Bytes) -> io::Result<()> {
        loop {
            self.stream.write_all(&outgoing).await?;
            outgoing = match self.session.poll_transmit() {
                Some(bytes) => bytes,
                None => match self.outbox.frames.try_recv() {
                    Ok(frame) if self.queue(&frame) => Bytes::new(),
                    Ok(_) | Err(_) => break,
                },
            };
        }
        self.stream.shutdown().await
    }

    async fn on_bytes(&mut self, incoming: &[u8]) -> Result<(), StreamError> {
        let verified = self.session.handle_bytes(incoming);
        self.report().await?;
        let waited_for = self.unfinished.map(|(segment, _)| segment);
        let unfinished = self.session.unfinished_segment();
        if unfinished != waited_for {
            self.unfinished = unfinished.map(|segment| (segment, Instant::now() + SEGMENT_TIMEOUT));
        }
        Ok(verified?)
    }

    async fn on_written(&mut self, outgoing: &mut Bytes, written: usize) {
        outgoing.advance(written);
        if outgoing.is_empty() {
            self.drained().await;
        }
    }

    /// Hands what the session has to tell to the driver; waiting here is what slows a peer down that sends too much.
    async fn report(&mut self) -> Result<(), StreamError> {
        while let Some(event) = self.session.poll_event() {
            let (event, bytes) = match event {
                session::SessionEvent::Established(peer) => (SessionEvent::Opened(peer), 0),
                session::SessionEvent::Frame(frame) => {
                    let bytes = u32::try_from(frame.len()).unwrap_or(UNHANDLED_MAX);
                    (SessionEvent::Frame(frame), bytes)
                }
            };
            let Ok(room) = self.unhandled.clone().acquire_many_owned(bytes.min(UNHANDLED_MAX)).await else {
                return Err(StreamError::Local);
            };
            if self.inputs.send(Input::Session(self.id, event, Some(room))).await.is_err() {
                return Err(StreamError::Local);
            }
        }
        Ok(())
    }

    /// Seals a frame and as many more as wait, up to what is written at once.
    fn queue(&mut self, frame: &[u8]) -> bool {
        let mut sealed = frame.len();
        let mut taken = self.seal(frame);
        while taken
            && self.session.pending_transmit_bytes() < WRITE_BYTES
            && let Ok(frame) = self.outbox.frames.try_recv()
        {
            sealed += frame.len();
            taken = self.seal(&frame);
        }
        let before = self.outbox.queued.fetch_sub(sealed, Ordering::Relaxed);
        self.outbox.high = self.outbox.high.max(before);
        taken
    }

    fn seal(&mut self, frame: &[u8]) -> bool {
        if self.key_since.elapsed() >= KEY_AGE_MAX {
            self.key_since = Instant::now();
            if self.session.renew_key().is_err() {
                return false;
            }
        }
        match self.session.send_frame(frame) {
            Ok(()) => true,
            Err(SendError::FrameTooLong { bytes }) => {
                tracing::error!(bytes, "a frame is too long to send, which is a bug in knot; it is left out");
                true
            }
            Err(SendError::NotEstablished | SendError::Full | SendError::Exhausted) => false,
            Err(error) => {
                tracing::error!(%error, "cannot send a frame");
                false
            }
        }
    }

    /// Tells the engine that a queue that was long is empty.
    async fn drained(&mut self) {
        if self.outbox.high >= self.outbox.drained_from && self.outbox.queued.load(Ordering::Relaxed) == 0 {
            self.outbox.high = 0;
            let event = SessionEvent::Writable { queued: 0 };
            let _ = self.inputs.send(Input::Session(self.id, event, None)).await;
        }
    }
}
