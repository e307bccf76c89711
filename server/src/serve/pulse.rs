//! What a connection has last done, as far as its timeouts care.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Limits;

/// Nothing has been read yet.
const NEW: u8 = 0;
/// A request's head has begun to arrive.
const HEAD: u8 = 1;
/// A request is being answered.
const BUSY: u8 = 2;
/// The last answer has been made; it may still be on its way.
const IDLE: u8 = 3;
/// No write is waiting.
const UNBLOCKED: u64 = u64::MAX;

/// Which timeout has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// A head has begun and not ended: the peer can be told.
    Head,
    /// Nothing was asked, or nothing is read: there is nobody to tell.
    Silent,
}

/// A connection's state. Only the connection's own task touches it; the atomics are there because tasks move between
/// threads, so nothing needs an order between them.
#[derive(Debug)]
pub(super) struct Pulse {
    origin: Instant,
    phase: AtomicU8,
    /// When `phase` began, or bytes last went out while idle, in milliseconds after `origin`.
    since_ms: AtomicU64,
    /// Since when a write has waited.
    blocked_ms: AtomicU64,
    /// The last answer ends the conversation in HTTP.
    switched: AtomicBool,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self {
            origin: Instant::now(),
            phase: AtomicU8::new(NEW),
            since_ms: AtomicU64::new(0),
            blocked_ms: AtomicU64::new(UNBLOCKED),
            switched: AtomicBool::new(false),
        }
    }

    /// The timeout that has passed, if one has.
    pub(super) fn overdue(&self, limits: &Limits) -> Option<Overdue> {
        let blocked = self.blocked_ms.load(Ordering::Relaxed);
        if blocked != UNBLOCKED && self.has_passed(blocked, limits.write_timeout) {
            return Some(Overdue::Silent);
        }
        let since = self.since_ms.load(Ordering::Relaxed);
        match self.phase.load(Ordering::Relaxed) {
            NEW => self.has_passed(since, limits.header_timeout).then_some(Overdue::Silent),
            HEAD => self.has_passed(since, limits.header_timeout).then_some(Overdue::Head),
            IDLE => self.has_passed(since, limits.idle_timeout).then_some(Overdue::Silent),
            _ => None,
        }
    }

    /// A request's head is complete.
    pub(super) fn on_request(&self) {
        self.phase.store(BUSY, Ordering::Relaxed);
    }

    /// A request has its answer, whose body may still be made.
    pub(super) fn on_answer(&self) {
        self.enter(IDLE);
    }

    /// What follows the answer is no HTTP.
    pub(super) fn on_switch(&self) {
        self.switched.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_switched(&self) -> bool {
        self.switched.load(Ordering::Relaxed)
    }

    fn on_read(&self) {
        if matches!(self.phase.load(Ordering::Relaxed), NEW | IDLE) {
            self.enter(HEAD);
        }
    }

    fn on_write(&self, done: bool) {
        if !done {
            if self.blocked_ms.load(Ordering::Relaxed) == UNBLOCKED {
                self.blocked_ms.store(self.now_ms(), Ordering::Relaxed);
            }
            return;
        }
        self.blocked_ms.store(UNBLOCKED, Ordering::Relaxed);
        if self.phase.load(Ordering::Relaxed) == IDLE {
            self.since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
        self.since_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn has_passed(&self, since_ms: u64, limit: Duration) -> bool {
        u128::from(self.now_ms().saturating_sub(since_ms)) >= limit.as_millis()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(UNBLOCKED - 1)
    }
}

/// A stream that keeps a [`Pulse`].
#[derive(Debug)]
pub(super) struct Watched<I> {
    io: I,
    pulse: Arc<Pulse>,
}

impl<I> Watched<I> {
    pub(super) fn new(io: I, pulse: Arc<Pulse>) -> Self {
        Self { io, pulse }
    }

    pub(super) fn into_inner(self) -> I {
        self.io
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pulse.on_read();
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.pulse.on_write(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.pulse.on_write(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if flushed.is_pending() {
            self.pulse.on_write(false);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
