//! Begins anew after a change that could not be kept.
//!
//! A machine whose change is lost is ahead of the disk: what it said next could follow from what nobody will remember. So it goes,
//! with all connections and questions, and one that knows what the disk knows takes its place. Its first change shows whether the
//! disk takes any; in between nobody is answered. The process stays, since a relay may share it, which needs no disk to go on.

use std::time::Duration;

use control_proto::{Controller, ControllerConfig, Stored};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, error};

use crate::clock;
use crate::driver::{Command, Driver};
use crate::keeper::Keeper;
use crate::store::{Store, StoreError};

/// Between two attempts: whoever makes room on the disk should see that it helps.
const REST: Duration = Duration::from_secs(2);

/// What every machine begins with, beside what is kept.
pub(crate) struct Supervisor<S> {
    pub(crate) config: ControllerConfig,
    pub(crate) store: S,
    pub(crate) commands: mpsc::Receiver<Command>,
}

impl<S: Store + Clone + 'static> Supervisor<S> {
    /// Runs to the end.
    ///
    /// # Errors
    /// If what is kept makes no sense: then nothing but a backup helps. If the last changes before the end cannot be kept.
    pub(crate) async fn run(mut self, mut stored: Stored) -> Result<(), StoreError> {
        let mut has_failed = false;
        loop {
            let machine = Controller::new(self.config.clone(), stored, clock::now());
            let keeper = Keeper::start(self.store.clone());
            let mut driver = Driver::new(machine, keeper, has_failed);
            let Err(error) = driver.run(&mut self.commands).await else { return Ok(()) };
            if driver.is_stopping() {
                return Err(error);
            }
            if driver.is_trying() {
                debug!(%error, "still no change can be kept");
            } else {
                error!(%error, "a change cannot be kept, so that nobody is answered until one can; is the disk full?");
            }
            drop(driver);
            has_failed = true;
            stored = loop {
                if !self.rest().await {
                    return Ok(());
                }
                match self.store.load().await {
                    Ok(Some(stored)) => break stored,
                    Ok(None) => return Err(StoreError::Corrupt { table: "settings" }),
                    Err(error @ StoreError::Corrupt { .. }) => return Err(error),
                    Err(error) => debug!(%error, "what is kept cannot be read now"),
                }
            };
        }
    }

    /// Turns everybody away for a while; false if the controller is to end.
    async fn rest(&mut self) -> bool {
        let refuse = async {
            loop {
                match self.commands.recv().await {
                    None | Some(Command::Stop) => return,
                    // Who asked hears of it by the end of what he would be answered through.
                    Some(command) => drop(command),
                }
            }
        };
        timeout(REST, refuse).await.is_err()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use control_proto::{
        AdminAnswer, AdminRequest, AuditEntry, Change, EventRecord, InviteRequest, Mode, Settings,
    };
    use identity::{NetworkKey, UnixTime};
    use noise_channel::PathSecret;

    use super::*;
    use crate::secrets::ControllerSecrets;
    use crate::server::{Ended, ask};
    use crate::store::{Logged, Page};

    /// A disk in memory that may be full.
    #[derive(Clone)]
    struct Disk(Arc<Mutex<(Stored, bool)>>);

    impl Disk {
        fn fill(&self, full: bool) {
            self.0.lock().unwrap().1 = full;
        }
    }

    impl Store for Disk {
        async fn load(&self) -> Result<Option<Stored>, StoreError> {
            Ok(Some(self.0.lock().unwrap().0.clone()))
        }

        async fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
            let (stored, full) = &mut *self.0.lock().unwrap();
            if *full {
                let source = std::io::ErrorKind::StorageFull.into();
                return Err(StoreError::File { path: "disk".to_owned(), source });
            }
            changes.iter().for_each(|change| stored.apply(change));
            Ok(())
        }

        async fn events(&self, _: Page) -> Result<Vec<Logged<EventRecord>>, StoreError> {
            Ok(Vec::new())
        }

        async fn audit(&self, _: Page) -> Result<Vec<Logged<AuditEntry>>, StoreError> {
            Ok(Vec::new())
        }

        async fn verify_logs(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    fn supervisor() -> (Supervisor<Disk>, mpsc::Sender<Command>) {
        let (root, now) = (NetworkKey::generate(&mut clock::rng()), clock::now().wall.as_secs());
        let secrets =
            ControllerSecrets::generate(&root, Mode::Simple, &mut clock::rng(), UnixTime(now));
        let config = ControllerConfig {
            keys: secrets.keys,
            channel_key: secrets.channel,
            path_secret: PathSecret::from_bytes(*secrets.path_secret.0),
            servers: Vec::new(),
            epoch: None,
        };
        let stored = Stored::new(Settings::new(root.id(), "home".parse().unwrap()));
        let store = Disk(Arc::new(Mutex::new((stored, false))));
        let (sender, commands) = mpsc::channel(8);
        (Supervisor { config, store, commands }, sender)
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_disk_is_full_nothing_is_granted_and_what_was_granted_stays() {
        let (supervisor, commands) = supervisor();
        let disk = supervisor.store.clone();
        let stored = disk.load().await.unwrap().unwrap();
        let running = tokio::spawn(supervisor.run(stored));
        let create = || ask(&commands, AdminRequest::CreateInvite(InviteRequest::default()));
        let count = async || match ask(&commands, AdminRequest::Invites).await {
            Ok(Ok(AdminAnswer::Invites { invites })) => Some(invites.len()),
            Ok(_) | Err(Ended) => None,
        };
        create().await.unwrap().unwrap();
        disk.fill(true);
        for _ in 0..5 {
            assert_eq!(create().await.err(), Some(Ended));
            tokio::time::sleep(REST * 2).await;
        }
        disk.fill(false);
        while create().await.is_err() {
            tokio::time::sleep(REST).await;
        }
        assert_eq!(count().await, Some(2), "those that were granted, and no others");
        commands.send(Command::Stop).await.unwrap();
        running.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_room_can_be_stopped() {
        let (supervisor, commands) = supervisor();
        supervisor.store.fill(true);
        let stored = supervisor.store.load().await.unwrap().unwrap();
        let running = tokio::spawn(supervisor.run(stored));
        assert_eq!(ask(&commands, AdminRequest::Invites).await.err(), Some(Ended));
        commands.send(Command::Stop).await.unwrap();
        running.await.unwrap().unwrap();
    }
}
