//! The one writer: takes whatever batches wait, makes them durable with one sync, says so.

use std::sync::Arc;

use knot_engine::{BatchId, StorageEvent, Write};
use tokio::sync::mpsc;

use super::Input;
use crate::simulated::{Defect, Simulated};
use crate::storage::{Storage, StorageError};

/// Batches that may wait for the committer. The engine bounds their bytes.
const QUEUE_MAX: usize = 65_536;
/// Batches in one transaction.
const GROUP_MAX: usize = 1_024;

/// A batch as the engine handed it out.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: BatchId,
    pub(super) epoch: u32,
    pub(super) writes: Vec<Write>,
}

/// The way to the committer. Dropping it ends the committer once it has written what waits.
#[derive(Debug)]
pub(super) struct Committer {
    batches: mpsc::Sender<Batch>,
    writer: Running,
}

/// What the writer runs on.
#[derive(Debug)]
enum Running {
    Thread(std::thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl Committer {
    /// Starts it: on a thread of its own, or, in a simulation, on a task of this runtime.
    pub(super) fn start(
        storage: Arc<dyn Storage>,
        inputs: mpsc::Sender<Input>,
        simulated: Option<Simulated>,
    ) -> std::io::Result<Self> {
        let (batches, mut waiting) = mpsc::channel::<Batch>(QUEUE_MAX);
        let mut writer = Writer { storage, refused: None, failed: false };
        if let Some(simulated) = simulated {
            let task = tokio::spawn(async move {
                let mut group = Vec::new();
                while waiting.recv_many(&mut group, GROUP_MAX).await > 0 {
                    assert!(!simulated.has(Defect::CommitterPanics), "planted: the committer panics");
                    if simulated.has(Defect::AnsweredUnwritten)
                        && let Some(last) = group.last()
                    {
                        let _ = inputs.send(Input::Storage(StorageEvent::Persisted(last.id))).await;
                    }
                    tokio::time::sleep((simulated.commit_takes)()).await;
                    for event in writer.write(group.drain(..)) {
                        // Without a driver nobody wants to know.
                        let _ = inputs.send(Input::Storage(event)).await;
                    }
                }
            });
            return Ok(Self { batches, writer: Running::Task(task) });
        }
        let thread = std::thread::Builder::new().name("committer".to_owned()).spawn(move || {
            let mut group = Vec::new();
            while waiting.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
                for event in writer.write(group.drain(..)) {
                    let _ = inputs.blocking_send(Input::Storage(event));
                }
            }
        })?;
        Ok(Self { batches, writer: Running::Thread(thread) })
    }

    /// Queues a batch; false when the committer has no room, or is gone.
    pub(super) fn commit(&self, batch: Batch) -> bool {
        self.batches.try_send(batch).is_ok()
    }

    /// Waits until all that was queued is written. Nothing may be left to receive its events by then.
    pub(super) async fn finish(self) {
        let Self { batches, writer } = self;
        drop(batches);
        let panicked = match writer {
            Running::Thread(thread) => thread.join().is_err(),
            Running::Task(task) => task.await.is_err(),
        };
        if panicked {
            tracing::error!("the committer panicked");
        }
    }
}

struct Writer {
    storage: Arc<dyn Storage>,
    /// Batches up to this epoch build on one that was refused.
    refused: Option<u32>,
    failed: bool,
}

impl Writer {
    fn write(&mut self, group: impl Iterator<Item = Batch>) -> Vec<StorageEvent> {
        let group: Vec<Batch> =
            group.filter(|batch| !self.failed && self.refused.is_none_or(|refused| batch.epoch > refused)).collect();
        let Some(last) = group.last() else { return Vec::new() };
        match self.commit(&group) {
            Ok(()) => vec![StorageEvent::Persisted(last.id)],
            Err(StorageError::Full) => {
                self.refused = Some(last.epoch);
                tracing::warn!("no room on disk: writes are refused until there is");
                vec![StorageEvent::Full(last.id)]
            }
            Err(error) => {
                self.failed = true;
                tracing::error!(%error, "storage failed: nothing more is acknowledged");
                vec![StorageEvent::Failed(last.id)]
            }
        }
    }

    fn commit(&self, group: &[Batch]) -> Result<(), StorageError> {
        let writes: Vec<&[Write]> = group.iter().map(|batch| batch.writes.as_slice()).collect();
        self.storage.commit(&writes)
    }
}
