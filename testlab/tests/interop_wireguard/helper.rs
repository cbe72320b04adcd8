//! Programs that run inside a namespace: ignored tests of this one.

use std::path::Path;

use testlab::netns::Process;

use crate::node::Node;

/// Runs one of the ignored tests, named with its module, in a node's namespace.
pub(crate) fn helper(node: &Node, name: &str, argument: &str, log: &Path) -> Process {
    let myself = std::env::current_exe().expect("a test knows its own path");
    let mut command = node.namespace.command(myself);
    command.args(["--exact", name, "--ignored", "--nocapture"]).env("HELPER", argument);
    Process::start(&mut command, log)
}

pub(crate) fn helper_argument() -> (String, String) {
    let argument = std::env::var("HELPER").expect("set by the test that starts this one");
    let (first, second) = argument.split_once(' ').expect("two words");
    (first.to_owned(), second.to_owned())
}
