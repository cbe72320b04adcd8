//! The file backend and the seal, through the public interface.

use std::fs;

use keystore::{
    FileKeystore, Keystore, KeystoreError, MAX_SECRET, open_with_passphrase, seal_with_passphrase,
    write_private_file,
};
use proptest::prelude::*;

fn plain_store(folder: &tempfile::TempDir) -> FileKeystore {
    FileKeystore::open(folder.path().join("keys"), None).expect("a new folder opens")
}

#[test]
fn a_stored_secret_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    plain_store(&folder).store("device", b"secret").unwrap();
    let store = plain_store(&folder);
    assert_eq!(store.load("device").unwrap().unwrap().as_slice(), b"secret");
    assert_eq!(store.load("other").unwrap(), None);
}

#[test]
fn the_last_write_wins_and_a_removed_secret_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let store = plain_store(&folder);
    store.store("b", b"1").unwrap();
    store.store("b", b"2").unwrap();
    store.store("a", b"3").unwrap();
    assert_eq!(store.load("b").unwrap().unwrap().as_slice(), b"2");
    assert_eq!(store.list().unwrap(), ["a", "b"]);
    store.remove("b").unwrap();
    store.remove("b").unwrap();
    assert_eq!(store.list().unwrap(), ["a"]);
}

#[test]
fn what_a_process_that_died_while_writing_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    plain_store(&folder).store("a", b"1").unwrap();
    // Process ids end at 2^22 on Linux.
    let left_over = folder.path().join("keys/.a.4194305");
    fs::write(&left_over, b"secret").unwrap();
    let store = plain_store(&folder);
    assert!(!left_over.exists());
    assert_eq!(store.list().unwrap(), ["a"]);
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_folder_and_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    plain_store(&folder).store("device", b"secret").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.path().join("keys")), 0o700);
    assert_eq!(mode(folder.path().join("keys/device")), 0o600);
}

#[test]
fn a_name_that_leaves_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = plain_store(&folder);
    for name in ["", ".", "..", "../x", "a/b", ".hidden", "UPPER", "a\0b", &"x".repeat(129)] {
        assert!(matches!(store.store(name, b"x"), Err(KeystoreError::Name(_))), "{name:?}");
        assert!(matches!(store.load(name), Err(KeystoreError::Name(_))), "{name:?}");
    }
}

#[test]
fn an_oversized_secret_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let result = plain_store(&folder).store("big", &vec![0; MAX_SECRET + 1]);
    assert!(matches!(result, Err(KeystoreError::TooLong(_))));
}

#[test]
fn a_left_over_temporary_file_is_no_secret_and_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let store = plain_store(&folder);
    let left_over = folder.path().join(format!("keys/.device.{}", std::process::id()));
    fs::write(left_over, b"half").unwrap();
    assert!(store.list().unwrap().is_empty());
    store.store("device", b"whole").unwrap();
    assert_eq!(store.list().unwrap(), ["device"]);
}

#[test]
fn a_failed_write_leaves_no_file_behind() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing/file");
    assert!(matches!(write_private_file(&missing, b"x"), Err(KeystoreError::Io { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_passphrase_protects_every_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let store = FileKeystore::open(&path, Some(b"horse")).unwrap();
    store.store("device", b"a secret of this device").unwrap();
    store.store("other", b"x").unwrap();

    let on_disk = fs::read(path.join("device")).unwrap();
    assert!(!on_disk.windows(6).any(|window| window == b"secret"));
    assert!(matches!(FileKeystore::open(&path, None), Err(KeystoreError::PassphraseNeeded(_))));
    assert!(matches!(FileKeystore::open(&path, Some(b"mule")), Err(KeystoreError::Sealed)));

    let again = FileKeystore::open(&path, Some(b"horse")).unwrap();
    assert_eq!(again.load("device").unwrap().unwrap().as_slice(), b"a secret of this device");
    fs::copy(path.join("device"), path.join("other")).unwrap();
    assert!(matches!(again.load("other"), Err(KeystoreError::Sealed)));
    fs::write(path.join("other"), b"plain").unwrap();
    assert!(matches!(again.load("other"), Err(KeystoreError::Format)));
}

#[test]
fn a_passphrase_cannot_be_put_on_a_plain_store_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    plain_store(&folder).store("device", b"secret").unwrap();
    let result = FileKeystore::open(folder.path().join("keys"), Some(b"horse"));
    assert!(matches!(result, Err(KeystoreError::NotProtected(_))));
}

#[test]
fn a_sealed_blob_opens_only_unchanged_and_with_its_passphrase() {
    let sealed = seal_with_passphrase(b"network key", b"horse");
    assert_eq!(open_with_passphrase(&sealed, b"horse").unwrap().as_slice(), b"network key");
    assert!(matches!(open_with_passphrase(&sealed, b"mule"), Err(KeystoreError::Sealed)));
    for at in [20, sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(matches!(open_with_passphrase(&changed, b"horse"), Err(KeystoreError::Sealed)));
    }
    assert_ne!(seal_with_passphrase(b"network key", b"horse"), sealed);
}

#[test]
fn a_blob_that_asks_for_too_much_work_is_refused() {
    let mut sealed = seal_with_passphrase(b"x", b"horse");
    sealed[5..9].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(open_with_passphrase(&sealed, b"horse"), Err(KeystoreError::Format)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..128), magic: bool) {
        if magic && bytes.len() >= 5 {
            bytes[..5].copy_from_slice(b"SMKP\x01");
        }
        prop_assert!(open_with_passphrase(&bytes, b"horse").is_err());
    }
}
