//! The folder of files.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    Keystore, KeystoreError, MAX_SECRET, open_with_passphrase, seal::MasterKey,
    seal_with_passphrase,
};

/// The sealed master key; the leading dot keeps it apart from every name a secret can have.
const MASTER_FILE: &str = ".master";
/// Nonces, tags and headers add less than this to a secret's length.
const SEAL_OVERHEAD: usize = 128;

/// A keystore in one folder, with one file per secret.
pub struct FileKeystore {
    folder: PathBuf,
    master: Option<MasterKey>,
}

impl fmt::Debug for FileKeystore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKeystore")
            .field("folder", &self.folder)
            .field("sealed", &self.master.is_some())
            .finish()
    }
}

impl FileKeystore {
    /// Opens the keystore in `folder`, which is made (0700) if it is not there.
    ///
    /// A new store opened with a passphrase stays protected by it; deriving its key takes a moment.
    ///
    /// # Errors
    /// When the folder cannot be made or read, and when store and passphrase do not go together:
    /// [`KeystoreError::PassphraseNeeded`], [`KeystoreError::NotProtected`],
    /// [`KeystoreError::Sealed`].
    pub fn open(
        folder: impl Into<PathBuf>,
        passphrase: Option<&[u8]>,
    ) -> Result<Self, KeystoreError> {
        let folder = folder.into();
        make_private_folder(&folder)?;
        let mut store = Self { folder, master: None };
        store.remove_left_overs()?;
        let path = store.folder.join(MASTER_FILE);
        let sealed = read_bounded(&path)?;
        store.master = match (sealed, passphrase) {
            (None, None) => None,
            (Some(_), None) => return Err(KeystoreError::PassphraseNeeded(store.folder)),
            (Some(sealed), Some(passphrase)) => {
                let key = open_with_passphrase(&sealed, passphrase)?;
                Some(MasterKey::from_bytes(&key).ok_or(KeystoreError::Format)?)
            }
            (None, Some(passphrase)) => {
                if !store.list()?.is_empty() {
                    return Err(KeystoreError::NotProtected(store.folder));
                }
                let master = MasterKey::generate();
                write_private_file(&path, &seal_with_passphrase(master.as_bytes(), passphrase))?;
                Some(master)
            }
        };
        Ok(store)
    }

    /// Removes what a process that ended while writing left behind: there may be secrets in it.
    fn remove_left_overs(&self) -> Result<(), KeystoreError> {
        let at_folder = |source| KeystoreError::Io { path: self.folder.clone(), source };
        for entry in fs::read_dir(&self.folder).map_err(at_folder)? {
            let entry = entry.map_err(at_folder)?;
            let is_temporary = entry.file_name().to_str().is_some_and(is_temporary_name);
            if is_temporary {
                fs::remove_file(entry.path()).map_err(at_folder)?;
            }
        }
        Ok(())
    }

    fn path(&self, name: &str) -> Result<PathBuf, KeystoreError> {
        if is_name(name) {
            Ok(self.folder.join(name))
        } else {
            Err(KeystoreError::Name(name.to_owned()))
        }
    }
}

impl Keystore for FileKeystore {
    fn load(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeystoreError> {
        let Some(bytes) = read_bounded(&self.path(name)?)? else { return Ok(None) };
        match &self.master {
            Some(master) => master.open(name, &bytes).map(Some),
            None => Ok(Some(bytes)),
        }
    }

    fn store(&self, name: &str, secret: &[u8]) -> Result<(), KeystoreError> {
        if secret.len() > MAX_SECRET {
            return Err(KeystoreError::TooLong(secret.len()));
        }
        let path = self.path(name)?;
        match &self.master {
            Some(master) => write_private_file(&path, &master.seal(name, secret)),
            None => write_private_file(&path, secret),
        }
    }

    fn remove(&self, name: &str) -> Result<(), KeystoreError> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Ok(()) => sync_folder(&self.folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(KeystoreError::Io { path, source }),
        }
    }

    fn list(&self) -> Result<Vec<String>, KeystoreError> {
        let at_folder = |source| KeystoreError::Io { path: self.folder.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(at_folder)? {
            let name = entry.map_err(at_folder)?.file_name();
            names.extend(name.into_string().ok().filter(|name| is_name(name)));
        }
        names.sort();
        Ok(names)
    }
}

/// Writes a file that only its owner may read (0600), as a whole or not at all, durable on return.
///
/// # Errors
/// When the file or its folder cannot be written.
pub fn write_private_file(path: &Path, bytes: &[u8]) -> Result<(), KeystoreError> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(temporary_name(&name));
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = written {
        // The old file stands; a left-over temporary file is overwritten by the next attempt.
        let _ = fs::remove_file(&temporary);
        return Err(KeystoreError::Io { path: path.to_owned(), source });
    }
    sync_folder(folder)
}

/// `.NAME.PID`, so that two processes do not write into one file.
fn temporary_name(name: &str) -> String {
    format!(".{name}.{}", std::process::id())
}

/// Whether this is the temporary file of a process that is no more, or of this one.
fn is_temporary_name(file: &str) -> bool {
    let Some((_, process)) = file.strip_prefix('.').and_then(|name| name.rsplit_once('.')) else {
        return false;
    };
    let Ok(process) = process.parse::<u32>() else { return false };
    process == std::process::id() || !Path::new("/proc").join(process.to_string()).exists()
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn read_bounded(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeystoreError> {
    let at_path = |source| KeystoreError::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(at_path(source)),
    };
    let limit = MAX_SECRET + SEAL_OVERHEAD;
    // Room for everything at once: a growing buffer would leave copies of the secret behind.
    let length = file.metadata().map_err(at_path)?.len();
    let room = usize::try_from(length).unwrap_or(limit).min(limit) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(at_path)?;
    if bytes.len() > limit {
        return Err(KeystoreError::TooLong(bytes.len()));
    }
    Ok(Some(bytes))
}

fn make_private_folder(folder: &Path) -> Result<(), KeystoreError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|source| KeystoreError::Io { path: folder.to_owned(), source })
}

fn sync_folder(folder: &Path) -> Result<(), KeystoreError> {
    // An empty parent means the working folder.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(|source| KeystoreError::Io { path: folder.to_owned(), source })
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
    };
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}
