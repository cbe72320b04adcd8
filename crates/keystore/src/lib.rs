//! Keys at rest.
//!
//! A [`Keystore`] keeps named secrets. Its first backend is [`FileKeystore`]: one folder (0700) with
//! one file (0600) per secret. A write replaces a file as a whole and reaches the disk before it
//! returns, so a crash leaves either the old secret or the new one, never a part.
//!
//! With a passphrase the folder holds one random master key, sealed by the passphrase (Argon2id and
//! AES-256-GCM), and every secret is sealed by the master key under its own name. The slow
//! derivation is thus paid once per [`FileKeystore::open`], and two sealed files cannot be swapped.
//! Without a passphrase the files' permissions are the protection.
//!
//! [`seal_with_passphrase`] and [`open_with_passphrase`] are the same seal for a single blob that
//! leaves the device, such as the backup of a network key. [`write_private_file`] is the same atomic
//! write for state that is private without being a key.
//!
//! | module | what |
//! |---|---|
//! | `seal` | the two sealed formats and their limits |
//! | `file` | the folder of files and the atomic write |

#![forbid(unsafe_code)]

mod file;
mod seal;

use std::{fmt, io, path::PathBuf};

use zeroize::Zeroizing;

pub use file::{FileKeystore, write_private_file};
pub use seal::{open_with_passphrase, seal_with_passphrase};

/// The longest secret that a keystore takes, in bytes: a node keeps its whole network map here.
pub const MAX_SECRET: usize = 128 << 20;

/// A place that keeps named secrets.
///
/// Names are 1 to 128 characters of `a-z`, `0-9`, `-`, `_` and `.`, and do not begin with a dot.
pub trait Keystore: fmt::Debug + Send + Sync {
    /// Reads the secret of this name, `None` when there is none.
    ///
    /// # Errors
    /// When the name is malformed, the secret cannot be read, or it was sealed under another key.
    fn load(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeystoreError>;

    /// Stores a secret under this name in place of the one before; it is durable on return.
    ///
    /// # Errors
    /// When the name is malformed, the secret exceeds [`MAX_SECRET`] or cannot be written.
    fn store(&self, name: &str, secret: &[u8]) -> Result<(), KeystoreError>;

    /// Removes the secret of this name; removing what is not there succeeds.
    ///
    /// # Errors
    /// When the name is malformed or the secret cannot be removed.
    fn remove(&self, name: &str) -> Result<(), KeystoreError>;

    /// The names of all secrets, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn list(&self) -> Result<Vec<String>, KeystoreError>;
}

/// Why a keystore did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeystoreError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder in question.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The caller used a name that no secret can have.
    #[error("{0:?} is not a name for a secret")]
    Name(String),
    /// The caller's secret is longer than [`MAX_SECRET`].
    #[error("a secret of {0} bytes is longer than a keystore takes")]
    TooLong(usize),
    /// The store is sealed and no passphrase was given.
    #[error("{} is protected by a passphrase: give it", .0.display())]
    PassphraseNeeded(PathBuf),
    /// The store was made without a passphrase and holds secrets already.
    #[error("{} holds secrets that no passphrase protects: open it without one", .0.display())]
    NotProtected(PathBuf),
    /// What is stored does not open: another passphrase sealed it, or it was damaged.
    #[error("wrong passphrase, or damaged data")]
    Sealed,
    /// What is stored is not in a format that this version reads.
    #[error("not a sealed secret, or one of a later version")]
    Format,
}
