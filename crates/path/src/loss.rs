//! How much of what goes over a path gets lost.

use std::net::SocketAddr;
use std::time::Instant;

use crate::io::Counts;

/// Packets over which loss is taken: of fewer, many may be lost by chance.
pub(crate) const ENOUGH: u32 = 50;
/// Traffic is better off elsewhere if this share is lost, in percent ...
pub(crate) const HEAVY: u8 = 20;
/// ... unless more packets a second arrive all the same. Few relays carry more, and what is lost then is lost because so much is sent.
const PLENTY: u128 = 20_000;

/// Compares what was sent by the time of a ping with what had come when it was answered.
#[derive(Debug, Default)]
pub(crate) struct LossMeter {
    path: Option<SocketAddr>,
    /// Where the interval began.
    mark: Option<(Instant, Counts)>,
    /// What had been sent by the latest ping.
    sent: u32,
    /// Whether much was lost in the interval before.
    was_heavy: bool,
    /// Whether packets have been sent between the latest two pings.
    is_busy: bool,
}

impl LossMeter {
    /// This path is used from now on. What was found out about it counts if no other but frames has been used since; the interval begins
    /// anew.
    pub(crate) fn handle_chosen(&mut self, path: SocketAddr) {
        let was_heavy = self.was_heavy && self.path == Some(path);
        *self = Self { path: Some(path), was_heavy, ..Self::default() };
    }

    /// Takes the counts of an answered ping; the share in percent that was lost lately, if much was lost in two intervals in a row.
    pub(crate) fn take(&mut self, at: Instant, counts: Counts) -> Option<u8> {
        let Some((since, mark)) = self.mark else {
            (self.mark, self.sent) = (Some((at, counts)), counts.sent);
            return None;
        };
        let [sent, arrived] =
            [(counts.sent, mark.sent), (counts.arrived, mark.arrived)].map(|(now, then)| {
                // What is less than before comes from an older ping, or from a peer that was started anew.
                Some(now.wrapping_sub(then)).filter(|more| *more < u32::MAX / 2)
            });
        let (Some(sent), Some(arrived), true) = (sent, arrived, since <= at) else {
            *self = Self { path: self.path, ..Self::default() };
            return None;
        };
        self.is_busy = counts.sent != self.sent;
        self.sent = counts.sent;
        if sent < ENOUGH {
            return None;
        }
        self.mark = Some((at, counts));
        let lost = u64::from(sent.saturating_sub(arrived)) * 100 / u64::from(sent);
        let lost = u8::try_from(lost).unwrap_or(100);
        let is_plenty = u128::from(arrived) * 1_000 > PLENTY * (at - since).as_millis();
        let is_heavy = lost >= HEAVY && !is_plenty;
        let was_heavy = std::mem::replace(&mut self.was_heavy, is_heavy);
        (is_heavy && was_heavy).then_some(lost)
    }

    /// Whether the next interval is to end soon, since it decides, and packets are being sent.
    pub(crate) fn is_urgent(&self) -> bool {
        self.was_heavy && self.is_busy
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What a meter says of intervals of a second, in which so many packets are sent and so many arrive.
    fn verdicts(intervals: &[(u32, u32)]) -> Vec<Option<u8>> {
        let (mut meter, mut at) = (LossMeter::default(), Instant::now());
        // The counts wrap on the way.
        let mut counts = Counts { sent: u32::MAX - 30, arrived: u32::MAX - 10 };
        assert_eq!(meter.take(at, counts), None);
        let mut take = |(sent, arrived): &(u32, u32)| {
            at += SECOND;
            counts.sent = counts.sent.wrapping_add(*sent);
            counts.arrived = counts.arrived.wrapping_add(*arrived);
            meter.take(at, counts)
        };
        intervals.iter().map(&mut take).collect()
    }

    #[test]
    fn loss_counts_when_it_is_heavy_twice_in_a_row() {
        assert_eq!(verdicts(&[(100, 60), (100, 70)]), [None, Some(30)]);
        assert_eq!(verdicts(&[(100, 60), (100, 81), (100, 60)]), [None; 3]);
    }

    #[test]
    fn few_packets_are_taken_together() {
        assert_eq!(verdicts(&[(20, 10); 6]), [None, None, None, None, None, Some(50)]);
    }

    #[test]
    fn where_plenty_arrives_what_is_lost_does_not_count() {
        assert_eq!(verdicts(&[(60_000, 30_000); 3]), [None; 3]);
        assert_eq!(verdicts(&[(30_000, 15_000); 2]), [None, Some(50)]);
    }

    #[test]
    fn late_packets_and_a_peer_that_was_started_anew_are_no_loss() {
        assert_eq!(verdicts(&[(100, 40), (100, 160), (100, 40)]), [None; 3]);
        assert_eq!(verdicts(&[(100, 40), (100, 0_u32.wrapping_sub(50)), (100, 40)]), [None; 3]);
    }

    #[test]
    fn the_second_interval_is_urgent_while_packets_are_sent() {
        let (mut meter, at) = (LossMeter::default(), Instant::now());
        let mut take = |seconds: u32, sent, arrived| {
            meter.take(at + SECOND * seconds, Counts { sent, arrived });
            meter.is_urgent()
        };
        assert!(!take(0, 0, 0));
        assert!(take(1, 100, 50));
        assert!(!take(2, 100, 50));
        assert!(take(3, 120, 60));
        assert!(!take(4, 160, 100));
    }
}
