//! How packets wait where others wait too: as the network's rules say, else as their sender marks them, else by
//! whether their flow sends little.

use std::time::{Duration, Instant};

use frame_proto::{FLAG_BACKGROUND, FLAG_INTERACTIVE};
use identity::{MAX_TRAFFIC_RULES, TrafficClass, TrafficRule};
use packet::{Fragment, Packet};
use relay_proto::FlowId;

use crate::routes::flow_of;

/// Flows that are told apart: more than a device has busy at a time. Two in one place count as one.
const PLACES: u64 = 256;
/// What a flow sends is counted for as long as this, and for one such interval before: longer than a
/// queue may stand, so that a flow which begins to send little does not overtake itself.
const INTERVAL: Duration = Duration::from_millis(100);
/// What an interactive flow sends in two intervals at most: calls, keystrokes, questions and answers.
const LITTLE: usize = 8 * 1024;

/// Tells the class of packets.
#[derive(Debug, Default)]
pub(crate) struct Classifier {
    rules: Vec<TrafficRule>,
    meter: FlowMeter,
}

impl Classifier {
    /// Takes over the network's rules, as many as count.
    pub(crate) fn set_rules(&mut self, rules: &[TrafficRule]) {
        self.rules = rules[..rules.len().min(MAX_TRAFFIC_RULES)].to_vec();
    }

    /// The flow of a packet or super-packet, and the flags that its frame gets.
    pub(crate) fn classify(&mut self, packet: &[u8], now: Instant) -> (FlowId, u8) {
        let flow = flow_of(packet);
        let is_little = self.meter.is_little(flow, packet.len(), now);
        let class = Packet::parse(packet)
            .ok()
            .and_then(|packet| self.ruled(&packet).or_else(|| marked(packet.traffic_class())))
            .unwrap_or(if is_little { TrafficClass::Interactive } else { TrafficClass::Bulk });
        let flags = match class {
            TrafficClass::Interactive => FLAG_INTERACTIVE,
            TrafficClass::Bulk => 0,
            TrafficClass::Background => FLAG_BACKGROUND,
        };
        (flow, flags)
    }

    /// What the first rule says that fits. None fits later fragments, which have no ports.
    fn ruled(&self, packet: &Packet<'_>) -> Option<TrafficClass> {
        let (&[a, b, c, d], protocol) = (packet.payload().first_chunk()?, packet.protocol());
        if packet.fragment() == Fragment::Later {
            return None;
        }
        let ports = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
        let fits = |rule: &&TrafficRule| {
            rule.transport.number() == protocol.0
                && ports.iter().any(|port| rule.ports().contains(port))
        };
        self.rules.iter().find(fits).map(|rule| rule.class)
    }
}

/// What the sender asks for: calls, live video and what keeps a network running go first (EF, VOICE-ADMIT, AF4x,
/// CS5 and CS6 of RFC 4594 and RFC 5865), LE (RFC 8622) and CS1 have what others leave.
fn marked(traffic_class: u8) -> Option<TrafficClass> {
    match traffic_class >> 2 {
        34 | 36 | 38 | 40 | 44 | 46 | 48 => Some(TrafficClass::Interactive),
        1 | 8 => Some(TrafficClass::Background),
        _ => None,
    }
}

/// Counts the bytes of flows.
#[derive(Debug, Default)]
struct FlowMeter {
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    since: Instant,
    /// Bytes since then.
    bytes: usize,
    /// Bytes in the interval before.
    before: usize,
}

impl FlowMeter {
    /// Counts a packet; answers whether its flow sends little.
    fn is_little(&mut self, flow: FlowId, bytes: usize, now: Instant) -> bool {
        let index = usize::try_from(flow.0 % PLACES).expect("a small number");
        if self.places.len() <= index {
            self.places.resize(index + 1, Place { since: now, bytes: 0, before: 0 });
        }
        let place = &mut self.places[index];
        let elapsed = now.saturating_duration_since(place.since);
        if elapsed >= INTERVAL {
            let before = if elapsed < 2 * INTERVAL { place.bytes } else { 0 };
            *place = Place { since: now, bytes: 0, before };
        }
        place.bytes += bytes;
        place.before + place.bytes <= LITTLE
    }
}

#[cfg(test)]
mod tests {
    use packet::{build, tcp::Flags};

    use super::*;

    const EXPEDITED: u8 = 46 << 2;
    const LOWER_EFFORT: u8 = 1 << 2;

    /// What a packet between these ports is marked with, in a flow that sends much.
    fn flags(rules: &[&str], (source, destination): (u16, u16), traffic_class: u8) -> u8 {
        let rules: Vec<_> = rules.iter().map(|rule| rule.parse().expect("a rule")).collect();
        let mut classifier = Classifier::default();
        classifier.set_rules(&rules);
        let end = |port| std::net::SocketAddr::new("fd00::1".parse().expect("an address"), port);
        let meaning =
            build::Tcp { sequence: 1, acknowledgement: 1, flags: Flags::ACK, window: 512 };
        let mut packet = build::tcp(end(source), end(destination), &meaning, &[0; 2 * LITTLE]);
        packet[0] |= traffic_class >> 4;
        packet[1] |= traffic_class << 4;
        classifier.classify(&packet, Instant::now()).1
    }

    #[test]
    fn the_first_rule_that_fits_goes_before_what_the_sender_asks_for() {
        let rules = ["tcp/873=background", "tcp/800-900=interactive", "udp/1-65535=interactive"];
        assert_eq!(flags(&rules, (40_000, 873), EXPEDITED), FLAG_BACKGROUND);
        assert_eq!(flags(&rules, (900, 40_000), LOWER_EFFORT), FLAG_INTERACTIVE);
        assert_eq!(flags(&rules, (901, 40_000), 0), 0);
        assert_eq!(flags(&["tcp/22=bulk"], (22, 40_000), EXPEDITED), 0);
    }

    #[test]
    fn without_a_rule_the_sender_has_the_word() {
        assert_eq!(flags(&[], (1, 2), EXPEDITED), FLAG_INTERACTIVE);
        assert_eq!(flags(&[], (1, 2), LOWER_EFFORT), FLAG_BACKGROUND);
        assert_eq!(flags(&[], (1, 2), 0), 0);
    }

    #[test]
    fn a_flow_counts_as_interactive_while_it_sends_little_and_a_while_after_it_sent_much() {
        let (mut meter, mut now) = (FlowMeter::default(), Instant::now());
        let (call, bulk) = (FlowId(1), FlowId(2));
        for _ in 0..1_000 {
            now += Duration::from_millis(20);
            assert!(meter.is_little(call, 200, now));
        }
        assert!(!meter.is_little(bulk, 60_000, now));
        for _ in 0..1_000 {
            now += Duration::from_millis(7);
            assert!(!meter.is_little(bulk, 1_500, now), "not even when an interval begins");
        }
        now += 2 * INTERVAL;
        assert!(meter.is_little(bulk, 1_500, now));
    }
}
