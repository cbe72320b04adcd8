//! The real program on the loopback interface, without privileges.

mod background;
mod files;
mod meeting;
mod processes;
mod restoring;
mod strict;

use crate::processes::run;

#[test]
fn what_is_not_there_is_said_with_an_exit_code() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let code = |arguments: &[&str]| run(folder.path(), arguments).status.code();
    assert_eq!(code(&["status"]), Some(3));
    assert_eq!(code(&["invite", "list"]), Some(3));
    assert_eq!(code(&["no-such-command"]), Some(2));
    assert_eq!(code(&["--help"]), Some(0));
}
