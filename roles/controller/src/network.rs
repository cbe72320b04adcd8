//! A network's life on disk: created once, backed up, restored under a new epoch.
//!
//! The network's own key is written once, under a passphrase, to a file of the owner's, and forgotten. What
//! stays with the controller are the keys that it delegated: all of them in simple mode, those to renew and to
//! revoke in strict mode. A backup holds those and the database, under a passphrase as well. Restoring takes the
//! network's key, since nodes refuse records older than those they know: the root begins a new epoch, in which
//! the controller signs anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use control_proto::{Change, Mode, Settings};
use identity::{Epoch, NetworkId, NetworkKey, NetworkName, Signed, UnixTime};
use keystore::{
    FileKeystore, KeystoreError, open_with_passphrase, seal_with_passphrase, write_private_file,
};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::secrets::{ControllerSecrets, SecretsError};
use crate::store::{SqliteStore, Store as _, StoreError};

/// What a sealed network key begins with, inside the seal.
const KEY_MAGIC: &[u8] = b"shadowmesh network key 1\n";
/// The largest backup that is looked at.
const MAX_BACKUP: u64 = 1 << 30;

/// The folder in which a controller keeps its network.
#[derive(Debug, Clone)]
pub struct NetworkFolder(PathBuf);

/// Why a network was not created, backed up or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A network is here already.
    #[error("{} holds a network already; choose another --state-dir", .0.display())]
    Exists(PathBuf),
    /// No network is here.
    #[error("{} holds no network; `shadowmesh serve` or `shadowmesh network create` makes one", .0.display())]
    Missing(PathBuf),
    /// The file is there already, and could be the only copy of something.
    #[error("{} exists already; choose another file", .0.display())]
    FileExists(PathBuf),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not what it was taken for, though its passphrase fits.
    #[error("{} is not {what}", path.display())]
    WrongFile {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// The key belongs to another network than the backup.
    #[error("the key is of network {key}, the backup of network {backup}")]
    OtherNetwork {
        /// The key's network.
        key: NetworkId,
        /// The backup's network.
        backup: NetworkId,
    },
    /// The keystore or a seal fails.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// The secrets make no sense.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is asked when a network is created.
#[derive(Debug)]
pub struct NewNetwork<'a> {
    /// Its name.
    pub name: NetworkName,
    /// Which keys its controller holds.
    pub mode: Mode,
    /// Where the network's key goes.
    pub key_file: &'a Path,
    /// Under which passphrase.
    pub passphrase: &'a [u8],
}

impl NetworkFolder {
    /// The folder, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder of the keystore.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// The database file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.0.join("controller.db")
    }

    /// The secrets of the network that is kept here; nothing if there is none.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn secrets(&self) -> Result<Option<ControllerSecrets>, NetworkError> {
        if !self.keys().exists() {
            return Ok(None);
        }
        Ok(ControllerSecrets::load(&self.keystore()?)?)
    }

    /// Makes a network: its key goes to a sealed file, delegated keys and a database stay here.
    ///
    /// # Errors
    /// If a network is here or the key's file exists, or something cannot be written. The key's file is written first: a failure
    /// later leaves nothing that looks like a network.
    pub async fn create(
        &self,
        new: NewNetwork<'_>,
        rng: &mut dyn CryptoRng,
        now: UnixTime,
    ) -> Result<NetworkId, NetworkError> {
        self.must_be_empty()?;
        if new.key_file.exists() {
            return Err(NetworkError::FileExists(new.key_file.to_owned()));
        }
        let keystore = self.keystore()?;
        let root = NetworkKey::generate(rng);
        let secrets = ControllerSecrets::generate(&root, new.mode, rng, now);
        let plain = Zeroizing::new([KEY_MAGIC, root.to_bytes().as_slice()].concat());
        write_private_file(new.key_file, &seal_with_passphrase(&plain, new.passphrase))?;

        let store = SqliteStore::open(&self.database()).await?;
        store.commit(&[Change::Settings(Settings::new(root.id(), new.name))]).await?;
        store.close().await;
        secrets.store(&keystore)?;
        Ok(root.id())
    }

    /// Writes keys and database to one sealed file. The controller may be running.
    ///
    /// # Errors
    /// If there is no network here, the file exists, or something cannot be read or written.
    pub async fn backup(&self, file: &Path, passphrase: &[u8]) -> Result<(), NetworkError> {
        let secrets = self.secrets()?.ok_or_else(|| NetworkError::Missing(self.0.clone()))?;
        if file.exists() {
            return Err(NetworkError::FileExists(file.to_owned()));
        }
        let snapshot = self.0.join(format!(".backup.{}.db", std::process::id()));
        let store = SqliteStore::open(&self.database()).await?;
        let copied = store.copy_to(&snapshot).await;
        store.close().await;
        let database = copied.map_err(NetworkError::from).and_then(|()| read(&snapshot));
        // Nothing is lost if the copy stays: it is one of the database beside it.
        let _ = fs::remove_file(&snapshot);
        let backup = Backup { secrets: secrets.to_bytes().to_vec(), database: database? };
        let plain =
            Zeroizing::new(minicbor::to_vec(&backup).expect("writing to memory cannot fail"));
        Ok(write_private_file(file, &seal_with_passphrase(&plain, passphrase))?)
    }

    /// Puts a backup in place and begins a new epoch, so that nodes take its records.
    ///
    /// Both files are opened by their own passphrase.
    ///
    /// # Errors
    /// If a network is here, a passphrase or file is wrong, or key and backup are of different networks.
    pub fn restore(
        &self,
        backup: (&Path, &[u8]),
        key: (&Path, &[u8]),
        now: UnixTime,
    ) -> Result<NetworkId, NetworkError> {
        self.must_be_empty()?;
        let root = network_key(key.0, key.1)?;
        let plain = open_with_passphrase(&read(backup.0)?, backup.1)?;
        let wrong =
            || NetworkError::WrongFile { path: backup.0.to_owned(), what: "a backup of a network" };
        let contents: Backup = minicbor::decode(&plain).map_err(|_| wrong())?;
        let mut secrets = ControllerSecrets::from_bytes(&contents.secrets)?;
        let network = secrets.keys.network();
        if root.id() != network {
            return Err(NetworkError::OtherNetwork { key: root.id(), backup: network });
        }
        let keystore = self.keystore()?;
        write_private_file(&self.database(), &contents.database)?;
        // The number is the time, so that it is above every epoch begun before, even one that this backup does not know of.
        secrets.epoch = Some(Signed::sign(network, &root, &Epoch { number: now.0, at: now }));
        secrets.store(&keystore)?;
        Ok(network)
    }

    fn must_be_empty(&self) -> Result<(), NetworkError> {
        let taken = self.secrets()?.is_some() || self.database().exists();
        if taken { Err(NetworkError::Exists(self.0.clone())) } else { Ok(()) }
    }

    fn keystore(&self) -> Result<FileKeystore, NetworkError> {
        Ok(FileKeystore::open(self.keys(), None)?)
    }
}

/// Opens the sealed file of a network's key.
///
/// # Errors
/// If the file cannot be read, the passphrase does not fit, or it holds something else.
pub fn network_key(file: &Path, passphrase: &[u8]) -> Result<NetworkKey, NetworkError> {
    let plain = open_with_passphrase(&read(file)?, passphrase)?;
    let seed = plain.strip_prefix(KEY_MAGIC).and_then(|seed| <&[u8; 32]>::try_from(seed).ok());
    let wrong = || NetworkError::WrongFile { path: file.to_owned(), what: "the key of a network" };
    Ok(NetworkKey::from_bytes(seed.ok_or_else(wrong)?))
}

fn read(file: &Path) -> Result<Vec<u8>, NetworkError> {
    let failed = |source| NetworkError::Io { path: file.to_owned(), source };
    if fs::metadata(file).map_err(failed)?.len() > MAX_BACKUP {
        return Err(NetworkError::WrongFile { path: file.to_owned(), what: "of a sensible size" });
    }
    fs::read(file).map_err(failed)
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Backup {
    #[cbor(n(0), with = "minicbor::bytes")]
    secrets: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    database: Vec<u8>,
}

impl Drop for Backup {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secrets);
    }
}
