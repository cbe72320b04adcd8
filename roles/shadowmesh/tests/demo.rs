//! The demonstration, as the program alone shows it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

#[test]
fn the_demonstration_succeeds_and_the_relay_reads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_shadowmesh"))
        .args(["demo", "--once"])
        .current_dir(folder.path())
        .env("HOME", folder.path())
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let (text, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    for expected in ["directly over UDP", "through the relay", "none is there", "Everything works"]
    {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
    assert!(!text.contains('\u{1b}'), "no colour without a terminal");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "nothing is left behind");
}
