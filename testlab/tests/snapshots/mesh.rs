//! What the mesh of relays costs, and how fast it finds its way.

use std::fmt::Write;
use std::time::Duration;

use testlab::relays::Relays;

use super::{SECOND, compare};

const RELAYS: usize = 100;
const DEVICES: usize = 10_000;

/// One way, from 5 ms between neighbours on a circle to 80 ms across it.
fn circle(one: usize, other: usize) -> Duration {
    let apart = one.abs_diff(other).min(RELAYS - one.abs_diff(other));
    Duration::from_micros(5_000 + 1_500 * u64::try_from(apart).expect("few relays"))
}

/// The time until every relay that runs knows of so many others and devices.
fn settled(relays: &mut Relays, dead: Option<usize>, others: usize, devices: usize) -> Duration {
    let begin = relays.elapsed();
    let has_settled = |relays: &mut Relays| {
        (0..RELAYS).filter(|relay| Some(*relay) != dead).all(|relay| {
            let (reached, known) = relays.reach(relay);
            reached == others && known >= devices
        })
    };
    while !has_settled(relays) {
        assert!(relays.elapsed() - begin < 60 * SECOND, "it settles");
        relays.run_for(SECOND / 10);
    }
    relays.elapsed() - begin
}

#[test]
fn the_cost_and_speed_of_a_mesh_of_100_relays_and_10_000_devices_are_as_committed() {
    let mut table = String::new();
    let mut relays = Relays::new(RELAYS, circle);
    let linked = settled(&mut relays, None, RELAYS - 1, 0);
    let sent = relays.sent_between_relays();
    let _ = writeln!(table, "links                                   {:>8}", relays.links());
    let _ = writeln!(table, "until all relays reach each other, ms   {:>8}", linked.as_millis());
    let _ = writeln!(table, "bytes for that, per relay               {:>8}", sent / RELAYS as u64);

    let devices: Vec<_> = (0..DEVICES).map(|device| relays.device_at(device % RELAYS)).collect();
    let known = settled(&mut relays, None, RELAYS - 1, DEVICES - DEVICES / RELAYS);
    let _ = writeln!(table, "until all know 10,000 devices, ms       {:>8}", known.as_millis());
    let per_device = (relays.sent_between_relays() - sent) / DEVICES as u64;
    let _ = writeln!(table, "bytes for that, per device              {per_device:>8}");

    relays.run_for(60 * SECOND);
    let sent = relays.sent_between_relays();
    relays.run_for(60 * SECOND);
    let quiet = (relays.sent_between_relays() - sent) / DEVICES as u64;
    let _ = writeln!(table, "bytes in a quiet minute, per device     {quiet:>8}");

    let (sent, dead) = (relays.sent_between_relays(), 40);
    assert!(relays.reaches(devices[0], devices[39], SECOND));
    relays.kill(dead);
    let gone = settled(&mut relays, Some(dead), RELAYS - 2, 0);
    let _ = writeln!(table, "until a relay's death is known, ms      {:>8}", gone.as_millis());
    let bytes = (relays.sent_between_relays() - sent) / DEVICES as u64;
    let _ = writeln!(table, "bytes for that, per device              {bytes:>8}");
    for device in [1, 39, 41, 99] {
        assert!(relays.reaches(devices[0], devices[device], SECOND), "the others go on");
    }

    // As devices do that have lost a connection: each goes to one of the relays next to it.
    let sent = relays.sent_between_relays();
    let strays = (dead..DEVICES).step_by(RELAYS);
    for (count, device) in strays.clone().enumerate() {
        relays.move_device(devices[device], if count % 2 == 0 { dead - 1 } else { dead + 1 });
    }
    let crowded = DEVICES / RELAYS + DEVICES / RELAYS / 2;
    let back = settled(&mut relays, Some(dead), RELAYS - 2, DEVICES - crowded);
    let _ = writeln!(table, "until its 100 devices are known, ms     {:>8}", back.as_millis());
    let bytes = (relays.sent_between_relays() - sent) / DEVICES as u64;
    let _ = writeln!(table, "bytes for that, per device              {bytes:>8}");
    for device in strays {
        assert!(relays.reaches(devices[0], devices[device], SECOND / 5), "{device} is back");
    }
    let moved = relays.device_at(60);
    let begin = relays.elapsed();
    while !relays.reaches(devices[0], moved, SECOND / 10) {
        assert!(relays.elapsed() - begin < 10 * SECOND, "it is found");
    }
    let found = (relays.elapsed() - begin).as_millis();
    let _ = writeln!(table, "until a new device is found, ms         {found:>8}");
    compare("mesh.txt", &table);
}
