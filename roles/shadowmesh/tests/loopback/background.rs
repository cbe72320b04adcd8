//! `up -d` and `down`.

use std::path::Path;

use crate::processes::{Network, command, run, until};

/// A node in the background, which a failing test must not leave behind.
struct Detached<'a>(&'a Path);

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        run(self.0, &["down"]);
    }
}

fn status(state: &Path) -> Option<serde_json::Value> {
    let output = run(state, &["--json", "status"]);
    output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("it is JSON"))
}

#[test]
fn a_node_goes_to_the_background_and_stops_when_it_is_told_to() {
    let (network, mut server, _) = Network::create(&[]);
    let invite = server.wait_for("shadowmesh up ");
    let state = network.state("laptop");
    let up = ["up", "-d", "--mode", "userspace", "--name", "laptop", "--proxy", "127.0.0.1:0"];
    let detached = Detached(&state);
    let joined = command(&state, &[&up[..], &[&invite]].concat()).output().expect("it starts");
    let told = String::from_utf8_lossy(&joined.stderr).into_owned();
    assert!(joined.status.success(), "{told}");
    assert!(told.contains("Joined home"), "{told}");

    let running = status(&state).expect("the node answers");
    assert_eq!(running["networks"][0]["name"], "home");
    let process = running["pid"].as_u64().expect("a number");
    let arguments = std::fs::read(format!("/proc/{process}/cmdline")).expect("it runs");
    let arguments = String::from_utf8_lossy(&arguments).into_owned();
    assert!(!arguments.contains(&invite), "no process list shows an invite");
    let log = std::fs::read_to_string(state.join("node.log")).expect("it logs there");
    assert!(!log.contains(&invite), "nor does the log");
    let twice = run(&state, &up);
    assert_eq!(twice.status.code(), Some(8), "one node for one state folder");

    assert!(run(&state, &["down"]).status.success());
    until("the end of the process", || {
        let is_gone = !Path::new(&format!("/proc/{process}")).exists();
        is_gone.then_some(()).ok_or_else(|| "it is there".to_owned())
    });
    assert_eq!(run(&state, &["status"]).status.code(), Some(3));
    assert_eq!(run(&state, &["down"]).status.code(), Some(3));

    let again = run(&state, &up);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    let running = status(&state).expect("the node answers");
    assert_eq!(running["networks"][0]["name"], "home", "it is a member still");
    drop(detached);
    assert_eq!(run(&state, &["status"]).status.code(), Some(3));
}
