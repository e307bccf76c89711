//! A stream that the engine carries through another member: a pipe in memory, one end of which is the engine's.

use std::sync::Arc;

use bytes::Bytes;
use knot_engine::{CIRCUIT_PIECE_BYTES, CIRCUIT_WINDOW_BYTES, SessionId, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{Semaphore, mpsc};

use super::Input;

/// Steps that may wait for a session: the engine lets no more bytes through than the window, nor room for more, and each
/// step has one byte at least.
const STEPS_MAX: usize = 2 * CIRCUIT_WINDOW_BYTES + 1;
/// Bytes that the pipe itself holds, each way.
const PIPE_BYTES: usize = CIRCUIT_PIECE_BYTES;

/// The engine's end.
#[derive(Debug)]
pub(super) struct CircuitHandle(mpsc::Sender<Step>);

impl CircuitHandle {
    /// The pipe's end for a session, and the engine's.
    pub(super) fn open(session: SessionId, inputs: mpsc::Sender<Input>) -> (DuplexStream, Self) {
        let (near, far) = duplex(PIPE_BYTES);
        let (steps, arriving) = mpsc::channel(STEPS_MAX);
        let (read, write) = split(far);
        let room = Arc::new(Semaphore::new(CIRCUIT_WINDOW_BYTES));
        let ends = Ends { session, inputs, room };
        tokio::spawn(async move { tokio::join!(ends.take_out(read), ends.put_in(write, arriving)) });
        (near, Self(steps))
    }

    /// Hands on what happened to the stream; false when its session has ended.
    pub(super) fn tell(&self, step: Step) -> bool {
        self.0.try_send(step).is_ok()
    }
}

struct Ends {
    session: SessionId,
    inputs: mpsc::Sender<Input>,
    /// Bytes that may go out.
    room: Arc<Semaphore>,
}

impl Ends {
    /// What the session writes goes to the engine as far as there is room, until the session ends.
    async fn take_out(&self, mut session: ReadHalf<DuplexStream>) {
        let mut buffer = [0; CIRCUIT_PIECE_BYTES];
        while let Ok(read) = session.read(&mut buffer).await {
            let bytes = Bytes::copy_from_slice(buffer.get(..read).unwrap_or_default());
            let Ok(room) = self.room.acquire_many(u32::try_from(read).unwrap_or(u32::MAX)).await else { break };
            room.forget();
            if bytes.is_empty() || !self.report(Step::Bytes(bytes)).await {
                break;
            }
        }
        self.report(Step::End).await;
    }

    /// What the engine hands on goes to the session, until there is no more.
    async fn put_in(&self, mut session: WriteHalf<DuplexStream>, mut arriving: mpsc::Receiver<Step>) {
        while let Some(step) = arriving.recv().await {
            match step {
                Step::Bytes(bytes) => {
                    let taken = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    if session.write_all(&bytes).await.is_err() || !self.report(Step::Room(taken)).await {
                        break;
                    }
                }
                Step::Room(bytes) => self.room.add_permits(usize::try_from(bytes).unwrap_or_default()),
                Step::Open | Step::End => break,
            }
        }
        // A session that waits for room has nobody left to send to.
        self.room.close();
        let _ = session.shutdown().await;
    }

    async fn report(&self, step: Step) -> bool {
        self.inputs.send(Input::Circuit(self.session, step)).await.is_ok()
    }
}
