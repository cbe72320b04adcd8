//! Plain WireGuard peers of a network.

use testlab::netns::{Namespace, Nat, tool};
use testlab::network::Lab;
use testlab::wireguard::End;

use crate::{MEGABYTE, PATIENCE, digest, file_of_noise, files_arrive_whole, web_server};

/// Less than the tunnel's smallest packets of full size need: 1,280 bytes and 60 for IPv4, UDP and the tunnel.
const NARROW: &str = "1300";

#[test]
fn behind_a_narrow_link_that_says_nothing_plain_peers_and_members_exchange_files() {
    let mut lab = Lab::new();
    let bob = lab.device("bob");
    let router = lab.router(Nat::PortRestricted, None);
    let (mut alice, phone) = (lab.host_behind(&router, "alice"), Namespace::new("phone"));
    router.plug(&phone);
    for host in [alice.namespace(), &phone] {
        host.run("ip", &["link", "set", "eth0", "mtu", NARROW]);
    }
    router.namespace().run("ip", &["link", "set", "bridge0", "mtu", NARROW]);
    router.namespace().nft(
        "table ip mute {
            chain out { type filter hook output priority 0; icmp type destination-unreachable drop; }
        }",
    );

    alice.up(&[&lab.invite(&[])]);
    alice.wait_for_path(&bob, "direct", PATIENCE);
    bob.wait_for_path(&alice, "direct", PATIENCE);
    files_arrive_whole(&alice, &bob);
    files_arrive_whole(&bob, &alice);
    assert_eq!(alice.path_kind(&bob).as_deref(), Some("direct"));

    let options = ["--disable-drop-privileges", "--disable-connected-udp", "-f"];
    let end = End::start(&tool("boringtun-cli"), &options, phone);
    let addresses = end.adopt(&lab.add_peer("phone", end.public()), 1_420);
    for address in bob.addresses() {
        end.wait_until_reaches(&address, PATIENCE);
        file_arrives_whole(end.namespace(), bob.namespace(), &address);
    }
    for address in addresses {
        file_arrives_whole(bob.namespace(), end.namespace(), &address);
    }
}

/// Fetches a file of one host from the other, which has this address.
fn file_arrives_whole(to: &Namespace, from: &Namespace, address: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sent = file_of_noise(folder.path(), 10 * MEGABYTE);
    let _server = web_server(from, folder.path());
    let arrived = folder.path().join("arrived");
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let (file, url) = (arrived.to_string_lossy(), format!("http://{host}:8000/noise"));
    to.run("curl", &["-sS", "--max-time", "60", "-o", &file, &url]);
    assert_eq!(digest(&arrived), sent, "{address}");
}
