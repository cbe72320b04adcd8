//! What a controller keeps across restarts.
//!
//! The machine decides and hands out batches of [`Change`]s; a store keeps each batch as a whole or not at all, and answers only once
//! it would survive a power cut. Security events and audit entries are appended to chains of hashes, so that a later change to a kept
//! row, or a row taken out of the middle, shows. What a log need not keep any more goes from its beginning; the hash of the last row
//! that went stays as its anchor, so that the rest still verifies.

mod sqlite;

use std::future::Future;

use control_proto::{AuditEntry, Change, EventRecord, Stored};
use serde::Serialize;

pub use sqlite::SqliteStore;

/// The most rows that one look into a log returns.
pub const MAX_PAGE: u32 = 1_000;

/// Keeps what a controller must not forget.
pub trait Store: Send + Sync {
    /// Everything kept, or nothing if no settings were ever kept.
    ///
    /// # Errors
    /// If the storage fails or what it holds makes no sense.
    fn load(&self) -> impl Future<Output = Result<Option<Stored>, StoreError>> + Send;

    /// Keeps a batch as a whole.
    ///
    /// # Errors
    /// If the storage fails; then nothing of the batch is kept.
    fn commit(&self, changes: &[Change]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The newest security events before a sequence number, newest first, at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// If the storage fails or what it holds makes no sense.
    fn events(
        &self,
        page: Page,
    ) -> impl Future<Output = Result<Vec<Logged<EventRecord>>, StoreError>> + Send;

    /// The newest audit entries before a sequence number, newest first, at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// If the storage fails or what it holds makes no sense.
    fn audit(
        &self,
        page: Page,
    ) -> impl Future<Output = Result<Vec<Logged<AuditEntry>>, StoreError>> + Send;

    /// Checks both chains of hashes from their beginnings, or from their anchors.
    ///
    /// # Errors
    /// [`StoreError::ChainBroken`] where a row does not follow from the one before it; others if the storage fails.
    fn verify_logs(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Which part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Only rows with a lower sequence number.
    pub before: Option<u64>,
    /// How many rows at most.
    pub limit: u32,
}

/// A row of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Logged<T> {
    /// Its place, counted from 1.
    pub sequence: u64,
    /// What was written down.
    pub entry: T,
}

/// Why storing or loading failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The storage fails.
    #[error("the database fails: {0}")]
    Database(#[from] sqlx::Error),
    /// The database is of another version of the program.
    #[error("the database cannot be brought up to date: {0}; is it of a newer version?")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The file cannot be made or opened.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A row does not decode.
    #[error("the table {table} holds a row that makes no sense; restore a backup")]
    Corrupt {
        /// Which table.
        table: &'static str,
    },
    /// A log was changed after the fact.
    #[error("the log {table} does not follow from its beginning at row {sequence}: it was changed")]
    ChainBroken {
        /// Which log.
        table: &'static str,
        /// The first row that does not follow.
        sequence: u64,
    },
}
