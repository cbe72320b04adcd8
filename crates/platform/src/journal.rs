//! What was changed outside of our own interfaces, on disk before it is done.
//!
//! The order is: write the entry, change the system, and on the way back: restore, drop the
//! entry. A crash at any point leaves an entry that the next start undoes; undoing what was never
//! done, or twice, is harmless. An interface of ours needs no entry: it ends with its process.

use std::{
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{links, links::Route, resolver::SavedFile};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    Route(Route),
    ResolvConf(SavedFile),
}

impl Entry {
    fn undo(&self) -> io::Result<()> {
        match self {
            Self::Route(route) => links::remove_route(route),
            Self::ResolvConf(saved) => saved.restore(),
        }
    }
}

/// The changes that are still in force.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Journal {
    /// Opens the journal at `path`, whose folder exists, and undoes what a crash left in it.
    ///
    /// One process at a time may have it open: the caller holds the lock of its state folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let entries = match std::fs::read(path) {
            // A journal is replaced as a whole, so a broken one was written by something else.
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut journal = Self { path: path.to_owned(), entries };
        if !journal.entries.is_empty() {
            tracing::info!(changes = journal.entries.len(), "undoing what the last run left");
            journal.undo()?;
        }
        Ok(journal)
    }

    /// Adds a route that ends with this process, or with the next start.
    pub fn add_route(&mut self, route: &Route) -> io::Result<()> {
        let entry = Entry::Route(route.clone());
        self.record(entry.clone())?;
        let added = links::add_route(route);
        if added.is_err() {
            self.forget(&entry)?;
        }
        added
    }

    /// Removes a route added by [`add_route`](Self::add_route).
    pub fn remove_route(&mut self, route: &Route) -> io::Result<()> {
        links::remove_route(route)?;
        self.forget(&Entry::Route(route.clone()))
    }

    /// Undoes everything, newest first. What fails stays for the next start; the first failure is
    /// returned when all were tried.
    pub fn undo(&mut self) -> io::Result<()> {
        let mut first = Ok(());
        for entry in std::mem::take(&mut self.entries).into_iter().rev() {
            if let Err(error) = entry.undo() {
                tracing::warn!(%error, ?entry, "a change could not be undone");
                self.entries.insert(0, entry);
                first = first.and(Err(error));
            }
        }
        self.write()?;
        first
    }

    pub(crate) fn record(&mut self, entry: Entry) -> io::Result<()> {
        self.entries.push(entry);
        self.write()
    }

    pub(crate) fn forget(&mut self, entry: &Entry) -> io::Result<()> {
        if let Some(newest) = self.entries.iter().rposition(|one| one == entry) {
            self.entries.remove(newest);
        }
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        if self.entries.is_empty() {
            return match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let bytes = serde_json::to_vec(&self.entries).map_err(io::Error::other)?;
        replace_file(&self.path, &bytes, 0o600)
    }
}

/// Replaces the file in one step: readers and crashes see the old or the new one, never a part.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut beside = tempfile::Builder::new().prefix(".shadowmesh-").tempfile_in(folder)?;
    beside.write_all(bytes)?;
    beside.as_file().set_permissions(Permissions::from_mode(mode))?;
    beside.as_file().sync_all()?;
    beside.persist(path)?;
    Ok(())
}
