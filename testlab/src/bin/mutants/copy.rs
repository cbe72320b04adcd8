//! The copy of the workspace with all faults in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::faults::{self, AWAKE};

/// The variable that names the fault that is awake.
pub(crate) const VARIABLE: &str = "SHADOWMESH_FAULT";

/// What a build needs of the workspace besides its members.
const ROOT: [&str; 3] = ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"];
const MEMBERS: [&str; 3] = ["crates", "roles", "testlab"];
/// Would be linked to where the true ones are.
const PROGRAMS: &str = "testlab/src/bin";
/// The folder of the members in the copy. By their places cargo tells them from the true ones, so that both can
/// be built in one target folder and share what they depend on.
const SEEDED: &str = "seeded";

/// Brings the copy up to date. What has not changed is not touched, so that it is not compiled again.
pub(crate) fn refresh(copy: &Path) -> Result<(), Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("testlab has a parent");
    let mut files = BTreeMap::new();
    for part in ROOT.into_iter().chain(MEMBERS) {
        collect(root, Path::new(part), &mut files).map_err(|error| vec![error])?;
    }
    files.retain(|path, _| !path.starts_with(PROGRAMS));
    seed(&mut files)?;
    write(copy, &moved(files)).map_err(|error| vec![error])
}

/// The files with the members in their folder, of which the root's manifest is told.
fn moved(files: BTreeMap<PathBuf, Vec<u8>>) -> BTreeMap<PathBuf, Vec<u8>> {
    let place = |(path, bytes): (PathBuf, Vec<u8>)| {
        if path == Path::new("Cargo.toml") {
            let mut manifest = String::from_utf8_lossy(&bytes).into_owned();
            for member in MEMBERS {
                let quoted = format!("\"{member}");
                manifest = manifest.replace(&quoted, &format!("\"{SEEDED}/{member}"));
            }
            (path, manifest.into_bytes())
        } else if ROOT.iter().any(|file| path == Path::new(file)) {
            (path, bytes)
        } else {
            (Path::new(SEEDED).join(path), bytes)
        }
    };
    files.into_iter().map(place).collect()
}

fn collect(root: &Path, part: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<(), String> {
    let path = root.join(part);
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    if !path.is_dir() {
        files.insert(part.to_owned(), fs::read(&path).map_err(failed)?);
        return Ok(());
    }
    for entry in fs::read_dir(&path).map_err(failed)? {
        collect(root, &part.join(entry.map_err(failed)?.file_name()), files)?;
    }
    Ok(())
}

/// Puts every fault in its place, each behind the question whether it is awake.
fn seed(files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<(), Vec<String>> {
    let mut misplaced = Vec::new();
    for (fault, edit) in faults::all().flat_map(|f| f.edits.iter().map(move |edit| (f, edit))) {
        let text = files.get(Path::new(edit.file)).map(|bytes| String::from_utf8_lossy(bytes));
        let places = text.as_deref().map_or(0, |text| text.matches(edit.original).count());
        match text {
            Some(text) if places == 1 => {
                let seeded = edit.seeded.replace(AWAKE, &is_awake(fault.name));
                let text = text.replace(edit.original, &seeded);
                files.insert(edit.file.into(), text.into_bytes());
            }
            Some(_) | None => misplaced.push(format!(
                "{}: the text to change occurs {places} times in {}, not once",
                fault.name, edit.file
            )),
        }
    }
    if misplaced.is_empty() { Ok(()) } else { Err(misplaced) }
}

/// An expression; the environment is read once for each place, since some are in hot loops.
fn is_awake(name: &str) -> String {
    format!(
        "{{ static AWAKE: std::sync::OnceLock<bool> = std::sync::OnceLock::new(); *AWAKE.get_or_init(|| \
         std::env::var_os(\"{VARIABLE}\").is_some_and(|name| name == \"{name}\")) }}"
    )
}

fn write(copy: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<(), String> {
    for (path, bytes) in files {
        let path = copy.join(path);
        if fs::read(&path).is_ok_and(|known| known == *bytes) {
            continue;
        }
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let mut present = BTreeMap::new();
    collect(copy, Path::new(""), &mut present)?;
    let wanted: BTreeSet<&PathBuf> = files.keys().collect();
    for stale in present.keys().filter(|path| !wanted.contains(path)) {
        fs::remove_file(copy.join(stale)).map_err(|error| error.to_string())?;
    }
    remove_empty(copy).map_err(|error| error.to_string())
}

/// Removes folders in which nothing is left: among members, cargo takes each for one.
fn remove_empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    let is_empty = fs::read_dir(folder)?.next().is_none();
    if is_empty { fs::remove_dir(folder) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_remains_of_a_member_that_is_gone() {
        let copy = tempfile::tempdir().expect("a temporary folder");
        let files = |member: &str| {
            let path = Path::new(SEEDED).join("crates").join(member).join("src/lib.rs");
            BTreeMap::from([(path, b"text".to_vec())])
        };
        for member in ["old", "new"] {
            write(copy.path(), &files(member)).expect("it can be written");
        }
        let left = fs::read_dir(copy.path().join(SEEDED).join("crates")).expect("it is there");
        let left: Vec<_> = left.map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(left, ["new"]);
    }
}
