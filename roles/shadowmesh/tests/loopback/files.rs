//! What the program writes for the system: manual pages, completions, and what `make install` puts in place.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::processes::{PROGRAM, answer, command};

fn succeeded(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
}

/// Renders a page as `man` shows it; warnings of the formatter are failures.
fn rendered(page: &Path) -> String {
    let mut man = Command::new("man");
    man.args(["--warnings", "--local-file"])
        .arg(page)
        .env("MANWIDTH", "80")
        .env("LC_ALL", "C.UTF-8");
    let output = man.output().expect("man is there: `make tools` installs it");
    succeeded(&output);
    String::from_utf8(output.stdout).expect("text")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn every_command_has_a_manual_page_that_renders() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pages = folder.path().join("man1");
    answer(&mut command(folder.path(), &["man", pages.to_str().expect("UTF-8")]));
    let main = rendered(&pages.join("shadowmesh.1"));
    for named in ["shadowmesh-up(1)", "shadowmesh-network(1)", "--state-dir"] {
        assert!(main.contains(named), "{named} in {main}");
    }
    assert!(rendered(&pages.join("shadowmesh-network-restore.1")).contains("--key-file"));
    for page in files(&pages) {
        let name = page.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(rendered(&page).contains(&name), "{name} names itself");
    }
}

#[test]
fn completions_know_every_command() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for shell in ["bash", "zsh", "fish"] {
        let script = answer(&mut command(folder.path(), &["completions", shell]));
        for word in ["restore", "key-file", "invite"] {
            assert!(script.contains(word), "{word} for {shell}");
        }
        let file = folder.path().join(shell);
        fs::write(&file, script).expect("it is kept");
    }
    let syntax = Command::new("bash").arg("-n").arg(folder.path().join("bash")).output();
    succeeded(&syntax.expect("bash is there"));
    let unknown = command(folder.path(), &["completions", "no-such-shell"]).output();
    assert_eq!(unknown.expect("it starts").status.code(), Some(2));
}

#[test]
fn the_files_of_an_installation_land_below_its_folder_and_are_accepted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let destination = folder.path().join("with space");
    let prefix = destination.join("opt/shadowmesh");
    fs::create_dir_all(prefix.join("bin")).expect("a folder");
    fs::hard_link(PROGRAM, prefix.join("bin/shadowmesh"))
        .or_else(|_| fs::copy(PROGRAM, prefix.join("bin/shadowmesh")).map(drop))
        .expect("the program is in place");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/install-files");
    let mut install = Command::new("sh");
    install.args(["-c", "umask 077; exec \"$0\" \"$@\"", script]).arg(&prefix).arg(&destination);
    succeeded(&install.output().expect("it starts"));

    let link = fs::read_link(prefix.join("bin/shadowmesh-wireguard")).expect("a link");
    assert_eq!(link, Path::new("shadowmesh"));
    let units = destination.join("etc/systemd/system");
    let placed = [
        prefix.join("share/man/man1/shadowmesh.1"),
        prefix.join("share/man/man1/shadowmesh-up.1"),
        prefix.join("share/bash-completion/completions/shadowmesh"),
        prefix.join("share/zsh/site-functions/_shadowmesh"),
        prefix.join("share/fish/vendor_completions.d/shadowmesh.fish"),
        prefix.join("share/doc/shadowmesh/config.example.yaml"),
        units.join("shadowmesh-node.service"),
        units.join("shadowmesh-serve.service"),
    ];
    for file in &placed {
        let mode = fs::metadata(file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        assert_eq!(mode.permissions().mode() & 0o777, 0o644, "{file:?} is for everybody to read");
        for folder in file
            .ancestors()
            .skip(1)
            .take_while(|folder| *folder != prefix && *folder != destination)
        {
            let mode = fs::metadata(folder).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o755, 0o755, "{folder:?} is for everybody to enter");
        }
    }
    for unit in files(&units) {
        let text = fs::read_to_string(&unit).expect("it is readable");
        let start = "ExecStart=/opt/shadowmesh/bin/shadowmesh ";
        assert!(text.contains(start) && !text.contains("@prefix@"), "{text}");
        accepted(&unit, &text, folder.path());
    }
}

/// Asks systemd about a unit, with a program that exists before the installation is in its place.
fn accepted(unit: &Path, text: &str, folder: &Path) {
    let copy = folder.join(unit.file_name().expect("a name"));
    fs::write(&copy, text.replace("/opt/shadowmesh/bin/shadowmesh", PROGRAM)).expect("room");
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output();
    succeeded(&verify.expect("systemd-analyze is there: `make tools` installs it"));
}
