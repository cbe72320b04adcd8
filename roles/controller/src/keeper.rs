//! Writes batches of changes, in order, several at a time when they come faster than the disk.

use control_proto::{Change, PersistId};
use tokio::sync::mpsc;

use crate::store::{Store, StoreError};

/// Batches that wait for the disk; the machine waits beyond that.
const BATCHES: usize = 1_024;

/// Changes in one transaction, beyond which further batches wait for the next.
const CHANGES_AT_ONCE: usize = 4_096;

/// The way to the disk.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) batches: mpsc::Sender<(PersistId, Vec<Change>)>,
    pub(crate) kept: mpsc::Receiver<Result<PersistId, StoreError>>,
}

impl Keeper {
    /// Starts writing; ends with the first failure, or when its handle is dropped.
    pub(crate) fn start(store: impl Store + 'static) -> Self {
        let (batches, mut waiting) = mpsc::channel::<(PersistId, Vec<Change>)>(BATCHES);
        let (results, kept) = mpsc::channel(BATCHES);
        tokio::spawn(async move {
            while let Some((mut id, mut changes)) = waiting.recv().await {
                while changes.len() < CHANGES_AT_ONCE
                    && let Ok((next, more)) = waiting.try_recv()
                {
                    id = next;
                    changes.extend(more);
                }
                let result = store.commit(&changes).await.map(|()| id);
                let failed = result.is_err();
                if results.send(result).await.is_err() || failed {
                    return;
                }
            }
        });
        Self { batches, kept }
    }
}
