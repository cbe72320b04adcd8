//! Addresses that change, and more than one.

use testlab::netns::wait_for;

use crate::node::{Kind, Node, OTHER_AT, OTHERS, OURS_AT, PATIENCE, hosts, pair};

#[test]
fn roaming_is_followed_in_both_directions() {
    for kind in OTHERS {
        let (ours, other) = pair(kind);
        ours.peer(&other, Some(OTHER_AT));
        other.peer(&ours, Some(OURS_AT));
        ours.ping(&other);
        change_address(&other, "192.0.2.2/24", "192.0.2.22/24");
        other.ping(&ours);
        wait_for("the other's new address", PATIENCE, || {
            other.ping(&ours);
            (ours.show("endpoints")[0] == "192.0.2.22:51820").then_some(())
        });
        ours.ping(&other);
        change_address(&ours, "192.0.2.1/24", "192.0.2.11/24");
        wait_for("our new address", PATIENCE, || {
            ours.ping(&other);
            (other.show("endpoints")[0] == "192.0.2.11:51820").then_some(())
        });
    }
}

fn change_address(node: &Node, old: &str, new: &str) {
    node.namespace.run("ip", &["addr", "del", old, "dev", "eth0"]);
    node.namespace.run("ip", &["addr", "add", new, "dev", "eth0"]);
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let (a, b) = hosts();
    a.run("ip", &["addr", "add", "192.0.2.100/24", "dev", "eth0"]);
    let ours = Node::start(Kind::Ours, a, 1);
    let other = Node::start(Kind::WireguardGo, b, 2);
    ours.peer(&other, None);
    other.peer(&ours, Some("192.0.2.100:51820"));
    other.ping(&ours);
    ours.ping(&other);
    assert_eq!(other.show("endpoints")[0], "192.0.2.100:51820");
}
