//! What a node remembers between runs of its own; the map is remembered apart, since it is large and can be had again.

use identity::{Binding, CertificateChain, Signed};
use minicbor::{Decode, Encode};
use noise_channel::{ClockOffset, Now, UnixMillis};
use wireguard_proto::Tai64N;

use crate::engine::Engine;
use crate::io::{EngineEvent, StatePart};

const FORMAT: u8 = 1;
/// WireGuard timestamps that are reserved at once.
const RESERVED_SECONDS: u64 = 600;
/// Numbers keep step with clocks up to this time, in the year 2248. No clock that is right shows a later
/// one, and one that shows the end of time would leave no numbers.
const LATEST: u64 = 1 << 43;

/// Everything beside the map that must survive a restart. Sessions never do.
#[derive(Clone, Debug, Default, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Saved {
    #[n(0)]
    format: u8,
    /// The membership.
    #[n(1)]
    pub(crate) chain: Option<CertificateChain>,
    /// The binding in use.
    #[n(2)]
    pub(crate) binding: Option<Signed<Binding>>,
    /// No WireGuard timestamp beyond this one was sent.
    // Index 3 is free.
    #[cbor(n(4), with = "minicbor::bytes")]
    timestamp: [u8; 12],
    /// What to add to the local clock.
    #[n(5)]
    clock_offset: i64,
    /// The highest number of any statement that the device signed about itself.
    #[n(6)]
    pub(crate) number: u64,
    /// The least that the network's time can be, in Unix milliseconds.
    #[n(7)]
    least_time: Option<u64>,
}

impl Saved {
    /// Reads what an earlier run saved; a later format or damage is as good as nothing.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        minicbor::decode::<Self>(bytes).ok().filter(|saved| saved.format == FORMAT)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let saved = Self { format: FORMAT, ..self.clone() };
        minicbor::to_vec(&saved).expect("writing to a vector does not fail")
    }

    pub(crate) fn timestamp(&self) -> Tai64N {
        Tai64N::from_bytes(self.timestamp)
    }

    /// Reserves the timestamps of the next minutes once half of those before are used up, so that
    /// not every handshake is written down, and none is sent that was not; true if it did.
    pub(crate) fn reserve_timestamps(&mut self, sent: Tai64N) -> bool {
        let due = later(sent, RESERVED_SECONDS / 2) > self.timestamp();
        if due {
            self.timestamp = *later(sent, RESERVED_SECONDS).as_bytes();
        }
        due
    }

    pub(crate) fn clock_offset(&self) -> ClockOffset {
        ClockOffset(self.clock_offset)
    }

    pub(crate) fn set_clock_offset(&mut self, offset: ClockOffset) {
        self.clock_offset = offset.0;
    }

    /// A number above all that were used. It keeps step with the wall clock, in milliseconds, so
    /// that it rises even if the process ended before the last number was written down.
    pub(crate) fn next_number(&mut self, now: Now) -> u64 {
        self.number = self.wall(now).0.min(LATEST).max(self.number.saturating_add(1));
        self.number
    }

    /// Leaves out the numbers that an earlier run is said to have used, as far as clocks could have
    /// shown them: whoever says so may not use all of them up.
    pub(crate) fn skip_numbers(&mut self, used: u64) {
        self.number = self.number.max(used.min(LATEST));
    }

    /// The network's time: not before what it was known to be at least, when this was saved.
    pub(crate) fn wall(&self, now: Now) -> UnixMillis {
        let local = now.wall.with_offset(self.clock_offset());
        self.least_time().map_or(local, |least| local.max(least))
    }

    pub(crate) fn least_time(&self) -> Option<UnixMillis> {
        self.least_time.map(UnixMillis)
    }

    pub(crate) fn set_least_time(&mut self, least: Option<UnixMillis>) {
        self.least_time = least.map(|least| least.0);
    }
}

fn later(timestamp: Tai64N, seconds: u64) -> Tai64N {
    let mut bytes = *timestamp.as_bytes();
    let (head, _) = bytes.split_at_mut(8);
    let ahead = u64::from_be_bytes(head.try_into().expect("split at 8")).saturating_add(seconds);
    head.copy_from_slice(&ahead.to_be_bytes());
    Tai64N::from_bytes(bytes)
}

impl Engine {
    /// Asks for the state to be kept now, without waiting for further changes: for a clean stop.
    pub fn flush(&mut self) {
        self.save();
        self.save_map();
    }

    pub(crate) fn save(&mut self) {
        let client = self.control.client();
        self.saved.chain = client.chain().cloned();
        self.saved.set_least_time(client.least_time(self.schedule.last_now()));
        self.output.events.push_back(EngineEvent::Save(StatePart::Own, self.saved.to_bytes()));
    }

    pub(crate) fn save_map(&mut self) {
        let bytes = self.control.client().map().to_bytes();
        self.schedule.map_saved(bytes.len());
        self.output.events.push_back(EngineEvent::Save(StatePart::Map, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn no_timestamp_is_sent_that_the_next_run_does_not_know_of() {
        let mut saved = Saved::default();
        let mut sent = Tai64N::from_unix(Duration::from_secs(1_800_000_000));
        for _ in 0..3 * RESERVED_SECONDS {
            saved.reserve_timestamps(sent);
            let next_run = Saved::from_bytes(&saved.to_bytes()).unwrap();
            assert!(next_run.timestamp() > sent);
            sent = later(sent, 1);
        }
    }

    #[test]
    fn numbers_rise_whatever_the_network_says_what_time_it_is() {
        let wall = UnixMillis(1_800_000_000_000);
        let now = Now { instant: Instant::now(), wall };
        let mut saved = Saved::default();
        assert_eq!(saved.next_number(now), wall.0);
        saved.set_clock_offset(ClockOffset(i64::MAX));
        let far = saved.next_number(now);
        assert!(far > wall.0 && far < 1 << 44, "{far}");
        saved.set_clock_offset(ClockOffset(i64::MIN));
        assert_eq!(saved.next_number(now), far + 1);
        saved.set_clock_offset(ClockOffset(0));
        assert_eq!(saved.next_number(now), far + 2);
        saved.skip_numbers(u64::MAX);
        assert_eq!(saved.next_number(now), far + 3);
        saved = Saved::default();
        saved.skip_numbers(wall.0 + 5);
        assert_eq!(saved.next_number(now), wall.0 + 6);
    }
}
