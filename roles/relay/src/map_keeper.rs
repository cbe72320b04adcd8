//! Writes a relay's map down: seldom, and beside the loop.

use std::sync::Arc;
use std::time::Duration;

use keystore::{Keystore, KeystoreError};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

/// Changes within this time are written together: a network that is busy changes all the time, and
/// each time the whole map is written.
const GATHER: Duration = Duration::from_secs(1);

/// When the map has to be written, and the writing that is under way.
#[derive(Debug, Default)]
pub(crate) struct MapKeeper {
    due: Option<Instant>,
    writing: Option<JoinHandle<Result<(), KeystoreError>>>,
}

impl MapKeeper {
    /// The map has changed.
    pub(crate) fn note_change(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + GATHER);
    }

    /// Waits until the map has to be written. Nothing is lost if the wait is given up.
    pub(crate) async fn due(&mut self) {
        self.written().await;
        match self.due {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Begins to write the map as it is now.
    pub(crate) fn write(&mut self, keystore: Arc<dyn Keystore>, name: String, map: Vec<u8>) {
        self.due = None;
        self.writing = Some(spawn_blocking(move || keystore.store(&name, &map)));
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
        if let Ok(Err(error)) = result {
            warn!(%error, "the map cannot be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        keeper.write(Arc::clone(&keystore), "map".to_owned(), vec![1]);
        keeper.note_change();
        keeper.due().await;
        assert_eq!(keystore.load("map").expect("it reads").as_deref(), Some(&vec![1]));
        keeper.write(Arc::clone(&keystore), "map".to_owned(), vec![2]);
        keeper.stop().await;
        assert_eq!(keystore.load("map").expect("it reads").as_deref(), Some(&vec![2]));
        assert!(keeper.due.is_none());
    }
}
