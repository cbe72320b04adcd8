//! Floods against a node and a server: memory stays, members do not notice, and it is written down. Needs root.

mod connections;
mod datagrams;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keystore::{FileKeystore, Keystore as _};
use minicbor::bytes::ByteArray;
use serde_json::Value;
use testlab::netns::{Process, wait_for};
use testlab::network::{Device, Lab, server_address};
use testlab::probes::{Probes, Trace};

use crate::datagrams::{Spoofer, initiations, noise};

/// How long anything may take that is not the subject of a test.
const PATIENCE: Duration = Duration::from_secs(20);
/// WebSockets that nobody speaks over.
const HALF_OPEN: usize = 5_000;
/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(10);
/// How long everybody has to be as before.
const RECOVERY: Duration = Duration::from_secs(5);
/// How long members and newcomers are left alone after a flood.
const LINGER: Duration = Duration::from_secs(2);
/// What a flood may cost in memory.
const MEMORY: u64 = 16 * 1024 * 1024;
/// A relay tells once a minute what it turned away.
const REPORTS: Duration = Duration::from_secs(90);

/// `network-ID` on disk: invite, name, device key, tunnel key, channel key.
type Place = (identity::Invite, String, ByteArray<32>, ByteArray<32>, ByteArray<32>);

#[test]
fn ten_thousand_initiations_a_second_cost_members_nothing() {
    let mut siege = Siege::new(true);
    let to = siege.address_of_bob();
    let key = tunnel_key(&siege.bob);
    siege.flood(&[(to, 10_000)], || Box::new(initiations(&key)));
    siege.wait_for_event("tunnel-refusals", "flood");
}

#[test]
fn fifty_thousand_datagrams_of_noise_a_second_cost_members_nothing() {
    let mut siege = Siege::new(true);
    let to = siege.address_of_bob();
    let stun = SocketAddr::from((server_address(), 8443));
    siege.flood(&[(to, 50_000), (stun, 50_000)], || Box::new(noise()));
    siege.wait_for_event("tunnel-refusals", "noise");
}

#[test]
fn five_thousand_half_open_websockets_cost_members_nothing() {
    let mut siege = Siege::new(false);
    let invite = siege.invite();
    let mallory = siege.lab.host("mallory");
    siege.besiege(|watch| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| connections::hold_open(&mallory, &invite, HALF_OPEN, &stop));
            watch();
            stop.store(true, Ordering::Relaxed);
            let answered = flood.join().expect("the flood is made");
            say(&format!("{answered} of {HALF_OPEN} WebSockets answered"));
            assert!(answered > HALF_OPEN * 9 / 10, "the server takes no more connections");
        });
    });
    siege.wait_for_event("rate-limited", "");
    siege.wait_for_event("connections-refused", "strangers");
}

#[test]
fn slow_oversized_and_hostile_requests_cost_members_nothing() {
    let mut siege = Siege::new(false);
    let invite = siege.invite();
    let mallory = siege.lab.host("mallory");
    siege.besiege(|watch| {
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| connections::ask_badly(&mallory, &invite));
            let hostile = scope.spawn(|| {
                connections::send_bombs(&mallory, &invite, 100);
                connections::guess_invites(&mallory, &invite, 200);
            });
            watch();
            for attack in [slow, hostile] {
                attack.join().expect("the attack is made");
            }
        });
    });
    siege.wait_for_event("forged-certificate", "");
}

/// A network with two members, and a third host that means no good.
struct Siege {
    lab: Lab,
    alice: Device,
    bob: Device,
}

/// Makes datagrams.
type Source = Box<dyn FnMut(&mut [u8; 1400]) -> usize + Send>;

impl Siege {
    /// Members reach each other directly, or without UDP through the server's relay.
    fn new(udp: bool) -> Self {
        // Whoever claims to be thousands needs as many sockets.
        platform::process::raise_open_files().expect("the limit of open files can be raised");
        let mut lab = Lab::new();
        let bob = lab.device("bob");
        let mut alice = lab.host("alice");
        if !udp {
            alice.namespace().block_udp();
        }
        alice.up(&[&lab.invite(&[])]);
        let kind = if udp { "direct" } else { "relay" };
        alice.wait_for_path(&bob, kind, PATIENCE);
        bob.wait_for_path(&alice, kind, PATIENCE);
        Self { lab, alice, bob }
    }

    /// An invite that nobody has used: what it says of the network is no secret from its holder.
    fn invite(&self) -> identity::Invite {
        self.lab.invite(&[]).parse().expect("an invite")
    }

    /// Where bob takes datagrams.
    fn address_of_bob(&self) -> SocketAddr {
        let via = self.alice.path_to(&self.bob).expect("there is a path");
        via.parse().expect("a direct path leads to an address")
    }

    /// Floods these for a while, and holds everybody against what that may cost.
    fn flood(&mut self, targets: &[(SocketAddr, u32)], source: impl Fn() -> Source) {
        let spoofer = Spoofer::new(self.lab.host("mallory"), "11.1.0.4");
        spoofer.fool(self.bob.namespace());
        spoofer.fool(self.lab.server());
        self.besiege(|watch| {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let flood = |(to, rate)| {
                    let (spoofer, stop, source) = (&spoofer, &stop, source());
                    scope.spawn(move || spoofer.flood(to, rate, stop, source))
                };
                let floods: Vec<_> = targets.iter().copied().map(flood).collect();
                watch();
                stop.store(true, Ordering::Relaxed);
                for (flood, (to, rate)) in floods.into_iter().zip(targets) {
                    let sent = flood.join().expect("the flood is sent");
                    let per_second = sent / FLOOD.as_secs();
                    say(&format!("{per_second} of {rate} datagrams/s to {to}"));
                    assert!(per_second > u64::from(*rate) / 5, "the machine is too busy to flood");
                }
            });
        });
    }

    /// Attacks while alice pings bob. `attack` calls what it is given to let the time of a flood pass.
    fn besiege(&mut self, attack: impl FnOnce(&dyn Fn())) {
        let before = [self.bob.node(), self.lab.serving()].map(Process::resident_memory);
        let probes = Probes::start(&self.alice, &self.bob.addresses()[0]);
        attack(&|| probes.watch(FLOOD));
        // Whoever is asked for a cookie tries again only after WireGuard's five seconds; the load lasts for one.
        probes.watch(LINGER);
        let trace = probes.stop();
        let after = [self.bob.node(), self.lab.serving()].map(Process::resident_memory);
        let grown: Vec<u64> =
            after.iter().zip(before).map(|(after, before)| after.saturating_sub(before)).collect();
        say(&format!("{} of {} pings lost, grown by {grown:?}", trace.lost(), trace.sent()));

        self.alice.kill();
        self.alice.up(&[]);
        self.alice.wait_until_reaches(&self.bob.addresses()[0], RECOVERY);
        let carol = self.lab.device("carol");
        carol.wait_until_reaches(&self.bob.full_name(), RECOVERY);
        assert_few_lost(&trace);
        assert!(grown.iter().all(|bytes| *bytes <= MEMORY), "node and server grew by {grown:?}");
    }

    fn wait_for_event(&self, kind: &str, what: &str) {
        let found =
            |event: &Value| event["kind"] == kind && (what.is_empty() || event["what"] == what);
        wait_for(&format!("the event {kind} {what}"), REPORTS, || {
            self.lab.events().iter().any(found).then_some(())
        });
        assert!(self.lab.events().len() < 300, "events are rate-limited");
    }
}

fn assert_few_lost(trace: &Trace) {
    let allowed = usize::try_from(trace.sent() / 100).unwrap_or_default().max(1);
    assert!(trace.lost() <= allowed, "{} of {} pings lost", trace.lost(), trace.sent());
}

/// The public key of a device's tunnels, from its disk.
fn tunnel_key(device: &Device) -> [u8; 32] {
    let folder = Path::new(device.state_dir()).join("node");
    let keys = FileKeystore::open(folder, None).expect("a keystore without passphrase");
    let names = keys.list().expect("a readable keystore");
    let name = names.iter().find(|name| name.starts_with("network-")).expect("a member has one");
    let bytes = keys.load(name).expect("readable").expect("listed");
    let place: Place = minicbor::decode(&bytes).expect("a place");
    *identity::TunnelKey::from_bytes(&place.3).public().as_bytes()
}

#[expect(clippy::print_stderr, reason = "the figures that the tests are about")]
fn say(text: &str) {
    eprintln!("{text}");
}
