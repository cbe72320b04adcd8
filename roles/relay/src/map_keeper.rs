//! Writes a relay's map down: seldom, and beside the loop. What the disk does not take is tried again.

use std::sync::Arc;
use std::time::Duration;

use keystore::{Keystore, KeystoreError};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

/// Changes within this time are written together: a network that is busy changes all the time, and
/// each time the whole map is written.
const GATHER: Duration = Duration::from_secs(1);

/// Between two attempts while the disk takes nothing.
const AGAIN: Duration = Duration::from_secs(10);

/// When the map has to be written, and the writing that is under way.
#[derive(Debug, Default)]
pub(crate) struct MapKeeper {
    due: Option<Instant>,
    is_failing: bool,
    writing: Option<JoinHandle<Result<(), KeystoreError>>>,
}

impl MapKeeper {
    /// The map has changed.
    pub(crate) fn note_change(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + GATHER);
    }

    /// What else is kept was not taken: it is due with the map.
    pub(crate) fn note_failure(&mut self, error: KeystoreError) {
        self.note(Err(error));
    }

    /// Waits until the map has to be written. Nothing is lost if the wait is given up.
    pub(crate) async fn due(&mut self) {
        self.written().await;
        match self.due {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Begins to write the map, and what else is kept, as they are now.
    pub(crate) fn write(&mut self, keystore: Arc<dyn Keystore>, entries: Vec<(String, Vec<u8>)>) {
        self.due = None;
        self.writing = Some(spawn_blocking(move || {
            entries.iter().try_for_each(|(name, bytes)| keystore.store(name, bytes))
        }));
    }

    /// Gives up what is to be written, and waits for what is under way.
    pub(crate) async fn stop(&mut self) {
        self.due = None;
        self.written().await;
    }

    async fn written(&mut self) {
        let Some(writing) = &mut self.writing else { return };
        let result = writing.await;
        self.writing = None;
        if let Ok(result) = result {
            self.note(result);
        }
    }

    /// Says when the disk stops, or begins again, to take what is to be kept.
    fn note(&mut self, result: Result<(), KeystoreError>) {
        let was_failing = std::mem::replace(&mut self.is_failing, result.is_err());
        match result {
            Ok(()) if was_failing => info!("the relay's state is kept again"),
            Ok(()) => {}
            Err(error) => {
                self.due.get_or_insert_with(|| Instant::now() + AGAIN);
                if !was_failing {
                    warn!(%error, "the relay's state cannot be kept and is tried again; is the disk full?");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(content: u8) -> Vec<(String, Vec<u8>)> {
        vec![("map".to_owned(), vec![content])]
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_disk_does_not_take_is_tried_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let keystore = keystore::FileKeystore::open(&path, None).expect("it opens");
        let keystore: Arc<dyn Keystore> = Arc::new(keystore);
        let (mut keeper, start) = (MapKeeper::default(), Instant::now());
        std::fs::remove_dir(&path).expect("it is empty");
        keeper.write(Arc::clone(&keystore), map(1));
        keeper.due().await;
        assert_eq!(start.elapsed(), AGAIN);
        std::fs::create_dir(&path).expect("a folder");
        keeper.write(Arc::clone(&keystore), map(1));
        keeper.stop().await;
        assert_eq!(keystore.load("map").expect("it reads").as_deref(), Some(&vec![1]));
        assert!(!keeper.is_failing);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_that_come_together_are_written_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let keystore = keystore::FileKeystore::open(folder.path(), None).expect("it opens");
        let keystore: Arc<dyn Keystore> = Arc::new(keystore);
        let (mut keeper, start) = (MapKeeper::default(), Instant::now());
        for _ in 0..100 {
            keeper.note_change();
        }
        keeper.due().await;
        assert_eq!(start.elapsed(), GATHER);
        keeper.write(Arc::clone(&keystore), map(1));
        keeper.note_change();
        keeper.due().await;
        assert_eq!(keystore.load("map").expect("it reads").as_deref(), Some(&vec![1]));
        keeper.write(Arc::clone(&keystore), map(2));
        keeper.stop().await;
        assert_eq!(keystore.load("map").expect("it reads").as_deref(), Some(&vec![2]));
        assert!(keeper.due.is_none());
    }
}
