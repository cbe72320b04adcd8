//! Devices at every pair of places, as in the simulator.

use std::net::SocketAddr;
use std::time::Duration;

use testlab::netns::wait_for;
use testlab::network::{Device, Home, Lab};
use testlab::places::{Place, Times};

use crate::PATIENCE;
use crate::proxies::{self, tinyproxy};

/// Guesses at ports that fail, as when many peers are new at once, are made again after half a minute.
const GUESSING: Duration = Duration::from_secs(90);
/// Whom the simulator has meet later than after so many ms meets by chance; until then a relay passes datagrams on.
const BY_CHANCE: u64 = 5_000;
/// Devices that look for paths at the same time. What a router counts is hard to follow if many do.
const AT_ONCE: usize = 3;

/// A device in the network, and where the simulator would have it.
struct Site {
    place: Place,
    home: Home,
}

impl Site {
    fn device(&self) -> &Device {
        &self.home.device
    }
}

/// Devices at all places.
fn sites(lab: &mut Lab, side: &str) -> Vec<Site> {
    let mut sites: Vec<_> = Place::ALL
        .into_iter()
        .map(|place| {
            let name = format!("{place:?}-{side}").to_lowercase();
            Site { place, home: lab.at(place, &name) }
        })
        .collect();
    for site in &mut sites {
        site.home.device.up(&[&lab.invite(&[])]);
    }
    sites
}

#[test]
fn every_pair_of_places_connects_and_meets_directly_where_it_does_in_the_simulator() {
    let mut lab = Lab::with_ipv6();
    // On what a mapping depends is seen from two addresses.
    let _relay = lab.relay("relay");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let proxy = lab.host("proxy");
    let _serving = tinyproxy(proxy.namespace(), folder.path());
    proxy.namespace().wait_until_listens(proxies::PORT, PATIENCE);
    let at = proxy.underlay_address().parse().expect("an address");
    lab.use_proxy(SocketAddr::new(at, proxies::PORT), "alice", "secret");
    let [left, right] = ["left", "right"].map(|side| sites(&mut lab, side));
    let times = Times::committed();
    let meet = |one: &Site, other: &Site| {
        let (from, to) = (one.device(), other.device());
        from.wait_until_reaches(&to.full_name(), PATIENCE);
        let is_by_chance = times.to_direct(one.place, other.place).is_some_and(|ms| ms > BY_CHANCE);
        let kind = times.kind(one.place, other.place);
        for (from, to) in [(from, to), (to, from)] {
            if is_by_chance {
                wait_for("a path of datagrams", GUESSING, || {
                    let kind = from.path_kind(to)?;
                    ["direct", "udp-relay"].contains(&&*kind).then_some(())
                });
            } else {
                from.wait_for_path(to, kind, GUESSING);
            }
        }
    };
    std::thread::scope(|scope| {
        for some in left.chunks(left.len().div_ceil(AT_ONCE)) {
            let (right, meet) = (&right, &meet);
            scope.spawn(move || {
                some.iter().for_each(|one| right.iter().for_each(|other| meet(one, other)));
            });
        }
    });
    assert_eq!(lab.warnings(), Vec::<String>::new());
}
