//! Which flows of packets send little.

use std::time::{Duration, Instant};

use relay_proto::FlowId;

/// Flows that are told apart: more than a device has busy at a time. Two in one place count as one.
const PLACES: u64 = 256;
/// What a flow sends is counted for as long as this, and for one such interval before: longer than a
/// queue may stand, so that a flow which begins to send little does not overtake itself.
const INTERVAL: Duration = Duration::from_millis(100);
/// What an interactive flow sends in two intervals at most: calls, keystrokes, questions and answers.
const LITTLE: usize = 8 * 1024;

/// Counts the bytes of flows.
#[derive(Debug, Default)]
pub(crate) struct FlowMeter {
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
    pub(crate) fn is_little(&mut self, flow: FlowId, bytes: usize, now: Instant) -> bool {
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
    use super::*;

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
