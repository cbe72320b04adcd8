//! What the devices of a relay do when it dies, in a network of 100 relays.

use std::fmt::Write;
use std::time::Duration;

use testlab::places::Place;
use testlab::sim::{HostId, Setup, World};

use super::{SECOND, all_have_addresses, compare};

const RELAYS: usize = 100;
const DEVICES: usize = 100;
/// At so many relays a device is at home.
const HOMES: usize = 2;
/// Between two questions of a device.
const PAUSE: Duration = Duration::from_millis(200);
/// All have to be back within this.
const PATIENCE: Duration = Duration::from_secs(60);
/// What happens two seconds after questions begin is over after this.
const WATCHED: Duration = Duration::from_secs(8);

/// A world whose devices reach each other through relays alone, and are at home at the nearest.
fn world() -> World {
    let mut world = World::new(Setup { relays: RELAYS, nodes: 0, ..Setup::default() });
    world.relays_pass_on = false;
    for (relay, place) in world.relays.iter_mut().zip(0..) {
        relay.distance = SECOND / 1_000 * 30 * place.min(10);
    }
    for _ in 0..DEVICES {
        let site = Place::Symmetric.site(&mut world);
        world.add_node_at(site);
    }
    assert!(world.run_until(60 * SECOND, all_have_addresses), "all join");
    let _ = until_at_home(&mut world, 0);
    world
}

/// Whether a device is at home at as many relays as it should be, and these are the nearest that run.
fn is_at_home(world: &World, device: usize, dead: usize) -> bool {
    let engine = world.nodes[device].engine.as_ref().expect("it runs");
    let relays = engine.status(world.now()).relays;
    let homes: Vec<_> = relays.iter().filter(|relay| relay.home && relay.connected).collect();
    let is_near = |id: &str| {
        let mut near = world.relays[dead..dead + HOMES].iter();
        near.any(|relay| relay.device.to_string() == id)
    };
    homes.len() == HOMES && homes.iter().all(|home| is_near(&home.device_id))
}

fn stream_bytes(world: &World) -> u64 {
    world.nodes.iter().map(|node| node.stream_bytes).sum()
}

/// The median and the longest, in milliseconds.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let last = times.last().expect("there are devices");
    format!("{:>8} {:>8}", times[times.len() / 2].as_millis(), last.as_millis())
}

/// When each device is at home at the nearest relays that run, after that of so many have died.
fn until_at_home(world: &mut World, dead: usize) -> Vec<Duration> {
    let begin = world.elapsed();
    let mut times = vec![None; DEVICES];
    while times.iter().any(Option::is_none) {
        assert!(world.elapsed() < begin + PATIENCE, "all find a home again");
        world.run_for(PAUSE);
        for (device, time) in times.iter_mut().enumerate() {
            if time.is_none() && is_at_home(world, device, dead) {
                *time = Some(world.elapsed() - begin);
            }
        }
    }
    times.into_iter().flatten().collect()
}

/// Lets each device ask the next one over and over from before `death` on; for how long each had no answer.
fn outages(world: &mut World, death: impl FnOnce(&mut World)) -> Vec<Duration> {
    let mut death = Some(death);
    let mut asked = vec![Vec::new(); DEVICES];
    let (begin, dies) = (world.elapsed(), world.elapsed() + 2 * SECOND);
    while world.elapsed() < begin + WATCHED {
        if world.elapsed() >= dies
            && let Some(death) = death.take()
        {
            death(world);
        }
        for (device, asked) in asked.iter_mut().enumerate() {
            asked.push(world.ping(device, (device + 1) % DEVICES));
        }
        world.run_for(PAUSE);
    }
    let answered = |(device, asked): (usize, &Vec<_>)| {
        let mut times: Vec<_> =
            asked.iter().filter_map(|number| world.answered_at(device, *number)).collect();
        times.retain(|at| *at >= dies - SECOND);
        times.sort_unstable();
        times.push(world.elapsed());
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().expect("it is answered before")
    };
    asked.iter().enumerate().map(answered).collect()
}

#[test]
fn how_devices_go_on_when_their_relay_dies_is_as_committed() {
    let mut table = format!("{:41} {:>8} {:>8}\n", "ms", "median", "longest");
    let mut world = world();
    let _ = outages(&mut world, |_| {});

    let bytes = stream_bytes(&world);
    world.stop_relay(0);
    let times = until_at_home(&mut world, 1);
    let _ = writeln!(table, "killed, until two homes are there again   {}", spread(times));
    let bytes = (stream_bytes(&world) - bytes) / DEVICES as u64;

    let times = outages(&mut world, |world| world.stop_relay(1));
    let _ = writeln!(table, "killed, without an answer                 {}", spread(times));
    let times = outages(&mut world, |world| world.cut_off(HostId::Relay(2)));
    let _ = writeln!(table, "unreachable, without an answer            {}", spread(times));
    // From here on relays pass on over UDP, too.
    world.relays_pass_on = true;
    let _ = outages(&mut world, |_| {});
    let next = (0..DEVICES).map(|device| world.path(device, (device + 1) % DEVICES));
    assert!(next.into_iter().all(|path| path.starts_with("udp-relay")), "circuits are in use");
    let times = outages(&mut world, |world| world.stop_relay(3));
    let _ = writeln!(table, "over UDP, killed, without an answer       {}", spread(times));
    let _ = writeln!(table, "bytes of each device for two homes again  {bytes:>8}");
    compare("rehoming.txt", &table);
}
