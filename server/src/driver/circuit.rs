//! A stream that the engine carries through another member: a pipe in memory, one end of which is the engine's.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use knot_engine::{CIRCUIT_PIECE_BYTES, CIRCUIT_STEP_BYTES_MIN, CIRCUIT_WINDOW_BYTES, SessionId, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::Input;

/// Steps that may wait for a session. The engine lets through no more than a window holds, nor room for more than that.
const STEPS_MAX: usize = 2 * CIRCUIT_WINDOW_BYTES / CIRCUIT_STEP_BYTES_MIN;
/// Bytes that the pipe itself holds, each way.
const PIPE_BYTES: usize = CIRCUIT_PIECE_BYTES;
/// How long the other end may take nothing of what it was sent, when no more may be sent before it does.
const ROOM_TIMEOUT: Duration = Duration::from_secs(30);

/// The engine's end.
#[derive(Debug)]
pub(super) struct CircuitHandle(mpsc::Sender<Step>);

impl CircuitHandle {
    /// The pipe's end for a session, and the engine's.
    pub(super) fn open(session: SessionId, inputs: mpsc::Sender<Input>) -> (DuplexStream, Self) {
        let (near, far) = duplex(PIPE_BYTES);
        let (steps, arriving) = mpsc::channel(STEPS_MAX);
        let (read, write) = split(far);
        let ends = Ends { session, inputs, room: Semaphore::new(CIRCUIT_WINDOW_BYTES) };
        tokio::spawn(async move { tokio::join!(ends.take_out(read), ends.put_in(write, arriving)) });
        (near, Self(steps))
    }

    /// Hands on what happened to the stream; false when nobody takes it any more.
    pub(super) fn tell(&self, step: Step) -> bool {
        self.0.try_send(step).is_ok()
    }
}

struct Ends {
    session: SessionId,
    inputs: mpsc::Sender<Input>,
    /// What may go out.
    room: Semaphore,
}

impl Ends {
    /// What the session writes goes to the engine as far as there is room, until the session ends.
    async fn take_out(&self, mut session: ReadHalf<DuplexStream>) {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(CIRCUIT_PIECE_BYTES);
            // The pipe holds no more than a piece.
            let read = session.read_buf(&mut buffer).await;
            if !matches!(read, Ok(1..)) || !self.give(buffer.split().freeze()).await {
                break;
            }
        }
        self.report(Step::End).await;
    }

    /// Waits for room, and gives bytes to the engine; false when it takes no more.
    async fn give(&self, bytes: Bytes) -> bool {
        let step = Step::Bytes(bytes);
        let weight = u32::try_from(step.weight()).unwrap_or(u32::MAX);
        match timeout(ROOM_TIMEOUT, self.room.acquire_many(weight)).await {
            Ok(Ok(room)) => {
                room.forget();
                self.report(step).await
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// What the engine hands on goes to the session, until there is no more. Room is for what the session has written,
    /// whether it goes on or not.
    async fn put_in(&self, mut session: WriteHalf<DuplexStream>, mut arriving: mpsc::Receiver<Step>) {
        while let Some(step) = arriving.recv().await {
            match &step {
                Step::Bytes(bytes) => {
                    // One that has ended takes nothing, and nobody waits for that.
                    let _ = session.write_all(bytes).await;
                    self.report(step.room_of()).await;
                }
                Step::Room(_) => self.room.add_permits(step.weight()),
                Step::Open | Step::End => break,
            }
        }
        self.room.close();
        let _ = session.shutdown().await;
    }

    async fn report(&self, step: Step) -> bool {
        self.inputs.send(Input::Circuit(self.session, step)).await.is_ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends where what it needs is not there")]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(2);

    async fn reported(inputs: &mut mpsc::Receiver<Input>) -> Step {
        let Some(Input::Circuit(SESSION, step)) = inputs.recv().await else { panic!("a step of the session") };
        step
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_room_waits_and_is_given_up_in_the_end() {
        let (inputs, mut reports) = mpsc::channel(16);
        let (mut near, circuit) = CircuitHandle::open(SESSION, inputs);
        let writer = tokio::spawn(async move {
            let _ = near.write_all(&vec![1; 3 * CIRCUIT_WINDOW_BYTES]).await;
        });
        let mut given = 0;
        while given < CIRCUIT_WINDOW_BYTES {
            given += reported(&mut reports).await.weight();
        }
        let begun = tokio::time::Instant::now();
        tokio::time::sleep(ROOM_TIMEOUT / 2).await;
        assert!(reports.is_empty(), "there is no room");
        assert!(circuit.tell(Step::Room(u32::try_from(CIRCUIT_WINDOW_BYTES).unwrap())));
        for _ in 0..CIRCUIT_WINDOW_BYTES / CIRCUIT_PIECE_BYTES {
            assert!(matches!(reported(&mut reports).await, Step::Bytes(_)));
        }
        // Its session ends, and the far end takes nothing any more.
        writer.abort();
        assert_eq!(reported(&mut reports).await, Step::End);
        assert!(begun.elapsed() < 2 * ROOM_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_written_goes_out_before_the_end() {
        let (inputs, mut reports) = mpsc::channel(16);
        let (mut near, circuit) = CircuitHandle::open(SESSION, inputs);
        assert!(circuit.tell(Step::Bytes(Bytes::from_static(b"theirs"))));
        near.write_all(b"last words").await.unwrap();
        near.shutdown().await.unwrap();
        drop(near);
        let mut steps = [reported(&mut reports).await, reported(&mut reports).await, reported(&mut reports).await];
        steps.sort_by_key(|step| matches!(step, Step::Room(_)));
        assert_eq!(steps[0], Step::Bytes(Bytes::from_static(b"last words")));
        assert_eq!(steps[1], Step::End);
    }

    #[tokio::test(start_paused = true)]
    async fn the_far_end_ends_it() {
        let (inputs, mut reports) = mpsc::channel(16);
        let (mut near, circuit) = CircuitHandle::open(SESSION, inputs);
        assert!(circuit.tell(Step::Bytes(Bytes::from_static(b"hello"))));
        assert!(circuit.tell(Step::End));
        let mut read = Vec::new();
        near.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"hello");
        drop(near);
        assert!(matches!(reported(&mut reports).await, Step::Room(_)));
        assert_eq!(reported(&mut reports).await, Step::End);
        assert!(!circuit.tell(Step::End));
    }
}
