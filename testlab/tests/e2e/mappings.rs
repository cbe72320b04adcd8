//! Routers that forward a port to whoever asks for one.

use std::path::Path;

use serde_json::Value;
use testlab::netns::{Nat, Process, Router, wait_for};
use testlab::network::{Device, Lab};

use crate::PATIENCE;

/// The tables in which miniupnpd keeps its rules.
const TABLES: &str = "table inet ports {
    chain forward { type filter hook forward priority -1; jump granted_forward; }
    chain prerouting { type nat hook prerouting priority -110; jump granted; }
    chain postrouting { type nat hook postrouting priority 90; jump granted_back; }
    chain granted_forward { }
    chain granted { }
    chain granted_back { }
}";

/// Turns requests of PCP into such of a version that nobody knows, and refusals of that into those of a router that knows NAT-PMP alone.
const WITHOUT_PCP: &str = "table inet older {
    chain in { type filter hook input priority -300;
        udp dport 5351 @th,64,8 2 @th,64,8 set 3 udp checksum set 0
    }
    chain out { type filter hook output priority -300;
        udp sport 5351 @th,64,8 2 @th,64,8 set 0 udp checksum set 0
    }
}";

/// By which protocol a router is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Pcp,
    NatPmp,
    Upnp,
}

/// Lets a router grant ports by a protocol.
fn grant_ports(router: &Router, by: Protocol, folder: &Path) -> Process {
    router.namespace().nft(TABLES);
    if by == Protocol::NatPmp {
        router.namespace().nft(WITHOUT_PCP);
    }
    let (by_upnp, by_pcp) = if by == Protocol::Upnp { ("yes", "no") } else { ("no", "yes") };
    let settings = format!(
        "ext_ifname=eth0\nlistening_ip=bridge0\nenable_upnp={by_upnp}\nenable_natpmp={by_pcp}\n\
         secure_mode=yes\nsystem_uptime=yes\nuuid=5b8dcf0e-2f27-4a3c-9d1e-0c5b7f6f7a11\n\
         upnp_table_name=ports\nupnp_nat_table_name=ports\nupnp_forward_chain=granted_forward\n\
         upnp_nat_chain=granted\nupnp_nat_postrouting_chain=granted_back\n\
         allow 1024-65535 192.168.1.0/24 1024-65535\n"
    );
    let file = folder.join("miniupnpd.conf");
    std::fs::write(&file, settings).expect("a temporary file");
    let (file, pid) = (file.display().to_string(), folder.join("pid").display().to_string());
    let args = ["-d", "-f", &file, "-P", &pid];
    router.namespace().spawn("miniupnpd", &args, &folder.join("miniupnpd.log"))
}

fn announces_a_mapping(device: &Device) -> bool {
    let netcheck = device.ask(&["netcheck"]).stdout;
    let netcheck: Value = serde_json::from_slice(&netcheck).unwrap_or_default();
    netcheck["mapped"].as_array().is_some_and(|mapped| !mapped.is_empty())
}

/// Both ends have a translator that gives each destination another port, at random: without a mapping there is no direct way.
fn a_granted_port_leads_to_a_direct_path(by: Protocol) {
    let mut lab = Lab::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (left, right) = (lab.router(Nat::Symmetric, None), lab.router(Nat::Symmetric, None));
    let _granting = grant_ports(&left, by, folder.path());
    let (mut alice, mut bob) = (lab.host_behind(&left, "alice"), lab.host_behind(&right, "bob"));
    for device in [&mut alice, &mut bob] {
        device.up(&[&lab.invite(&[])]);
        device.wait_for_membership("online", PATIENCE);
    }
    wait_for("the router to grant a port", PATIENCE, || announces_a_mapping(&alice).then_some(()));
    bob.wait_until_reaches(&alice.full_name(), PATIENCE);
    bob.wait_for_path(&alice, "direct", PATIENCE);
    alice.wait_for_path(&bob, "direct", PATIENCE);

    let granted = || left.namespace().run("nft", &["list", "chain", "inet", "ports", "granted"]);
    assert!(granted().contains("dnat"), "{}", granted());
    alice.down();
    assert!(!granted().contains("dnat"), "the port was not given back: {}", granted());
}

#[test]
fn a_port_granted_by_pcp_leads_to_a_direct_path() {
    a_granted_port_leads_to_a_direct_path(Protocol::Pcp);
}

#[test]
fn a_port_granted_by_nat_pmp_leads_to_a_direct_path() {
    a_granted_port_leads_to_a_direct_path(Protocol::NatPmp);
}

#[test]
fn a_port_granted_by_upnp_leads_to_a_direct_path() {
    a_granted_port_leads_to_a_direct_path(Protocol::Upnp);
}
