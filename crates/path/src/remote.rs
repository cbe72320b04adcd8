//! What is known about one address of the peer.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::alias::Alias;
use crate::candidate::{Candidate, CandidateKind};
use crate::disco::TransactionId;
use crate::loss::HEAVY;
use crate::mtu::MtuSearch;
use crate::shunning::Shunning;
use crate::why::{Lack, Reason};

/// Gaps between the probes of a burst. Both ends start at about the same time; the last probe
/// leaves 1.5 s after the first, so slow call-me-maybes still find the hole open.
pub(crate) const BURST: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];
/// Between probes of a proven path: below the 30 s after which the strictest NATs forget a mapping.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The same while large packets are sent or many.
pub(crate) const KEEP_ALIVE_BUSY: Duration = Duration::from_secs(5);
/// The same where a path is to prove itself better than it was.
const KEEP_WATCHED: Duration = Duration::from_secs(3);
/// Between probes of an unproven path while there is traffic.
const RETRY: Duration = Duration::from_secs(30);
/// The same while nothing comes from the peer at all: at least this ...
const RETRY_SOONEST: Duration = Duration::from_secs(1);
/// ... and this share of the outage, so that finding its end prolongs it by no more.
const OUTAGE_SHARE: u32 = 10;
/// A path from which nothing came for this long is not proven any more (two keep-alives lost).
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(45);
/// A probe without an answer counts as lost after this.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(1);
/// A path on which so many probes in a row were lost does not carry them any more. If other things still came from there,
/// smaller ones, it is what RFC 8899, section 4.3, calls a black hole.
const MUTE_AFTER: usize = 5;
/// For how long a path is not used that carries pings, and none of the tunnel's packets, unless some turn out to pass.
const VOID: Duration = Duration::from_secs(600);
/// Answers of which the fastest says how long a path takes when nothing waits.
const RECENT: usize = 3;
/// Probes that the loss is taken over.
const HISTORY: usize = 16;
/// Fewer probes do not tell that a path on which many got lost is better now.
const TELLING: usize = 10;
/// Loss of pings, in percent, for which the incumbent gives way to a rival that has less than [`HEAVY`].
const UNBEARABLE: u8 = 45;
/// A rival must be faster by this share of the incumbent's latency ...
const HYSTERESIS_SHARE: u32 = 5;
/// ... and at least by this much, or paths would alternate with the jitter.
const HYSTERESIS_LEAST: Duration = Duration::from_millis(5);

/// The order of proven direct paths: the greatest is the best. The fields are compared from first
/// to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// It was not left lately for what got lost on it, or for how long it took.
    pub trusted: bool,
    /// Nobody passes it on.
    pub straight: bool,
    /// Not many of its pings get lost.
    pub steady: bool,
    /// Round trip, with an advantage taken off that the incumbent has. IPv6, which comes first (RFC 6724, RFC 8305), always has
    /// half as much again: it is taken where it is hardly slower, and left for what is clearly faster.
    pub latency: Reverse<Duration>,
    /// IPv6 before IPv4 where all else is equal.
    pub ipv6: bool,
}

/// When to probe an unproven path again while the peer has been silent for so long, or is not.
pub(crate) fn retry_after(silent: Option<Duration>) -> Duration {
    silent.map_or(RETRY, |silent| (silent / OUTAGE_SHARE).clamp(RETRY_SOONEST, RETRY))
}

#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) candidate: Candidate,
    probes: VecDeque<Probe>,
    latency: Option<Duration>,
    proven: bool,
    heard: Option<Instant>,
    burst: Option<usize>,
    next: Option<Instant>,
    /// Whether our translator may have a mapping for it.
    mapped: bool,
    was_narrow: bool,
    void: Option<Void>,
    pub(crate) shunning: Shunning,
    pub(crate) mtu: MtuSearch,
}

#[derive(Debug)]
struct Probe {
    transaction: TransactionId,
    sent: Instant,
    /// Packets of the tunnel that had been sent straight to the peer by then, if there was a session.
    packets: Option<u32>,
    /// How long the answer took, if it has come.
    latency: Option<Duration>,
}

impl Probe {
    /// Whether its answer may still come.
    fn is_open(&self, now: Instant) -> bool {
        self.latency.is_none() && now < self.sent + LOST_AFTER
    }
}

/// What is known of a path that is not used, since it carries none of the tunnel's packets.
#[derive(Clone, Copy, Debug)]
struct Void {
    until: Instant,
    /// Packets that had come to the peer.
    arrived: u32,
}

/// A probe that was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// When it was sent.
    pub(crate) at: Instant,
    /// Packets of the tunnel that had been sent straight to the peer by then, if there was a session.
    pub(crate) sent: Option<u32>,
}

impl Remote {
    pub(crate) fn new(candidate: Candidate, mtu: MtuSearch) -> Self {
        Self {
            candidate,
            probes: VecDeque::new(),
            latency: None,
            proven: false,
            heard: None,
            burst: None,
            next: None,
            mapped: false,
            was_narrow: false,
            void: None,
            shunning: Shunning::default(),
            mtu,
        }
    }

    /// Whether our translator, if there is one, has no mapping for it yet.
    pub(crate) fn lacks_mapping(&self) -> bool {
        !self.mapped && self.candidate.address.is_ipv4()
    }

    /// Whether a probe certainly makes a mapping: what is private may be on our own side of the translator.
    pub(crate) fn makes_mapping(&self) -> bool {
        let is_public = matches!(self.candidate.address.ip(), IpAddr::V4(v4) if !v4.is_private());
        self.lacks_mapping() && is_public
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether somebody passes on what goes there.
    pub(crate) fn is_relayed(&self) -> bool {
        self.candidate.kind == CandidateKind::Relayed
    }

    pub(crate) fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// The least round trip of its last pings, so without what waits in queues now and then, and when the first of these was sent;
    /// none after too few.
    pub(crate) fn least_latency(&self) -> Option<(Duration, Instant)> {
        let answered = self.probes.iter().rev().filter(|probe| probe.latency.is_some());
        let latest: Vec<_> = answered.take(RECENT).collect();
        let first = latest.last().filter(|_| latest.len() == RECENT)?;
        Some((latest.iter().filter_map(|probe| probe.latency).min()?, first.sent))
    }

    /// The round trip of its latest ping with an answer.
    pub(crate) fn latest_latency(&self) -> Option<Duration> {
        self.probes.iter().rev().find_map(|probe| probe.latency)
    }

    /// The mean over all pings that are remembered, which jitter changes little.
    fn mean_latency(&self) -> Option<Duration> {
        let answered = self.probes.iter().filter_map(|probe| probe.latency);
        let (count, sum) =
            answered.fold((0, Duration::ZERO), |(count, sum), latency| (count + 1, sum + latency));
        sum.checked_div(count).or(self.latency)
    }

    /// How many packets of the tunnel have been sent since it was probed, if this many have been sent by now.
    pub(crate) fn packets_since_probe(&self, sent: u32) -> u32 {
        let before = self.probes.back().and_then(|probe| probe.packets);
        before.map_or(0, |before| sent.wrapping_sub(before))
    }

    pub(crate) fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// When the next probe is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Since when probes, which are as long as full packets, get no answers any more.
    pub(crate) fn mute_since(&self, now: Instant) -> Option<Instant> {
        let settled = || self.probes.iter().rev().skip_while(|probe| probe.is_open(now));
        let latest = || settled().take(MUTE_AFTER);
        let is_mute = latest().count() == MUTE_AFTER && latest().all(|it| it.latency.is_none());
        latest().last().filter(|_| is_mute).map(|probe| probe.sent)
    }

    /// Whether it is not to be used just because the peer does.
    pub(crate) fn is_poor(&self, now: Instant) -> bool {
        self.was_narrow || self.is_void(now) || self.shunning.is_on()
    }

    /// Whether it answers and is not used all the same, since another way was better.
    pub(crate) fn is_shunned(&self) -> bool {
        self.proven && self.shunning.is_on()
    }

    /// What it lacks, if another is in use.
    pub(crate) fn lacks(&self, now: Instant) -> Lack {
        match self.shunning.reason() {
            _ if self.is_void(now) => Lack::Packets,
            Some(reason) if self.proven => Lack::Quality(reason),
            None if self.proven => Lack::Precedence,
            Some(_) | None if self.was_narrow => Lack::FullPackets,
            Some(_) | None => Lack::Answer,
        }
    }

    /// Full packets have not passed since; true if smaller ones have.
    pub(crate) fn find_mute(&mut self, since: Instant, now: Instant) -> bool {
        let is_narrow = self.heard.is_some_and(|heard| heard > since);
        self.disprove();
        if is_narrow {
            self.was_narrow = true;
            self.mtu.shrink(now);
        }
        is_narrow
    }

    /// Starts a burst unless one is running.
    pub(crate) fn start_burst(&mut self, now: Instant) {
        if self.burst.is_none() {
            self.burst = Some(0);
            self.next = Some(now);
        }
    }

    /// Sends the next probe of a burst now, as its time may have come: something has arrived from there.
    pub(crate) fn hasten_burst(&mut self, now: Instant) {
        self.start_burst(now);
        self.next = Some(now);
    }

    /// The next probe follows the last one after this at the latest.
    pub(crate) fn hasten_probe(&mut self, pause: Duration, now: Instant) {
        if let (Some(next), Some(last)) = (self.next, self.probes.back()) {
            self.next = Some(next.min(now.max(last.sent + pause)));
        }
    }

    /// It carries pings, and none of the tunnel's packets, of which so many have come to the peer.
    pub(crate) fn find_void(&mut self, arrived: u32, now: Instant) {
        self.void = Some(Void { until: now + VOID, arrived });
    }

    /// Whether that was found lately.
    pub(crate) fn is_void(&self, now: Instant) -> bool {
        self.void.is_some_and(|void| now < void.until)
    }

    /// Takes how many of the tunnel's packets have come, while none go by any other path: if there are more, some pass.
    pub(crate) fn handle_arrived(&mut self, arrived: u32) {
        self.void.take_if(|void| void.arrived != arrived);
    }

    /// Another way is better: it is not used for a while, in which its pings tell how it does.
    pub(crate) fn shun(&mut self, reason: Reason, now: Instant) {
        self.shunning.begin(reason, now);
        self.probes.clear();
        self.next = Some(now + KEEP_WATCHED);
    }

    pub(crate) fn stop_probing(&mut self) {
        self.burst = None;
        self.next = None;
        self.mapped = false;
    }

    /// Forgets all proof, keeps the address.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.candidate, self.mtu.renewed());
    }

    /// The path stopped answering.
    pub(crate) fn disprove(&mut self) {
        self.proven = false;
        self.probes.clear();
        self.latency = None;
    }

    /// Postpones a probe for which there is no budget.
    pub(crate) fn skip_probe(&mut self, retry: Duration, now: Instant) {
        self.burst = None;
        self.next = Some(now + retry);
    }

    pub(crate) fn handle_probe_sent(
        &mut self,
        (transaction, packets): (TransactionId, Option<u32>),
        retry: Duration,
        now: Instant,
    ) {
        if self.probes.len() == HISTORY {
            self.probes.pop_front();
        }
        self.probes.push_back(Probe { transaction, sent: now, packets, latency: None });
        self.mapped = true;
        let rest = if self.proven { LOST_AFTER } else { retry };
        let gap = self.burst.and_then(|position| BURST.get(position));
        self.burst = self.burst.map(|position| position + 1).filter(|_| gap.is_some());
        self.next = Some(now + gap.copied().unwrap_or(rest));
    }

    /// Takes a pong; which probe it answers, if that is one of ours on this path.
    pub(crate) fn handle_pong(
        &mut self,
        transaction: TransactionId,
        now: Instant,
    ) -> Option<Answer> {
        let probe = self
            .probes
            .iter_mut()
            .find(|probe| probe.transaction == transaction && probe.latency.is_none())?;
        let answer = Answer { at: probe.sent, sent: probe.packets };
        let sample = now.saturating_duration_since(probe.sent);
        probe.latency = Some(sample);
        self.latency = Some(smoothed(self.latency, sample));
        self.proven = true;
        self.was_narrow = false;
        self.heard = Some(now);
        self.burst = None;
        let pause = if self.shunning.is_on() { KEEP_WATCHED } else { KEEP_ALIVE };
        self.next = Some(now + pause);
        Some(answer)
    }

    /// Authenticated traffic came from this address.
    pub(crate) fn handle_heard(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// Drops the proof if nothing came for too long; true if that changed something.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let stale = self.proven && self.stale_at().is_some_and(|at| at <= now);
        if stale {
            self.disprove();
        }
        stale
    }

    /// When the proof runs out.
    pub(crate) fn stale_at(&self) -> Option<Instant> {
        self.heard.filter(|_| self.proven).map(|heard| heard + STALE_AFTER)
    }

    /// Whether no translator of IPv4 is on the way.
    fn is_ipv6(&self) -> bool {
        let address = self.candidate.address;
        address.is_ipv6() && Alias::of(address).is_none()
    }

    /// Where this path stands among the proven ones.
    pub(crate) fn rank(&self, incumbent: bool, now: Instant) -> Option<Rank> {
        let latency = self.mean_latency().filter(|_| self.proven && !self.is_void(now))?;
        let half = (latency / HYSTERESIS_SHARE).max(HYSTERESIS_LEAST) / 2;
        let halves = match (self.is_ipv6(), incumbent) {
            (true, _) => 3,
            (false, true) => 2,
            (false, false) => 0,
        };
        let latency = latency.saturating_sub(half * halves);
        Some(Rank {
            trusted: !self.shunning.is_on(),
            straight: !self.is_relayed(),
            steady: self.loss_percent(now) < if incumbent { UNBEARABLE } else { HEAVY },
            latency: Reverse(latency),
            ipv6: self.is_ipv6(),
        })
    }

    /// Share of recent probes without an answer.
    pub(crate) fn loss_percent(&self, now: Instant) -> u8 {
        let (total, lost) = self.losses(now);
        u8::try_from((lost * 100).checked_div(total).unwrap_or(0)).unwrap_or(100)
    }

    /// Whether enough pings have gone there to say that few get lost.
    pub(crate) fn is_steady(&self, now: Instant) -> bool {
        self.losses(now).0 >= TELLING && self.loss_percent(now) < HEAVY
    }

    /// How many recent probes are settled, and how many of them got lost.
    fn losses(&self, now: Instant) -> (usize, usize) {
        let settled = self.probes.iter().filter(|probe| !probe.is_open(now));
        settled.fold((0, 0), |(total, lost), probe| {
            (total + 1, lost + usize::from(probe.latency.is_none()))
        })
    }
}

/// A round trip in the mean, in which the latest counts for a quarter.
pub(crate) fn smoothed(mean: Option<Duration>, sample: Duration) -> Duration {
    mean.map_or(sample, |mean| (mean * 3 + sample) / 4)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::candidate::CandidateKind;

    /// A path on which all passed, and then no probes any more.
    fn mute() -> (Remote, Instant) {
        let address = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 1));
        let candidate = Candidate::new(CandidateKind::Local, address);
        let mut remote = Remote::new(candidate, MtuSearch::new(1_420));
        let (start, mut rng) = (Instant::now(), ChaCha20Rng::seed_from_u64(1));
        remote.mtu.begin(start);
        let (transaction, _) = remote.mtu.next(None, &mut rng, start).expect("it is due");
        assert!(remote.mtu.handle_pong(transaction, start));
        for second in 0..6 {
            let now = start + Duration::from_secs(second);
            let transaction = TransactionId::random(&mut rng);
            remote.handle_probe_sent((transaction, None), RETRY, now);
            if second == 0 {
                assert!(remote.handle_pong(transaction, now).is_some());
            }
        }
        (remote, start + Duration::from_secs(6))
    }

    #[test]
    fn a_mute_path_is_narrow_only_if_something_came_over_it_meanwhile() {
        for is_heard in [false, true] {
            let (mut remote, now) = mute();
            assert_eq!(remote.mute_since(now - Duration::from_secs(1)), None, "four are lost");
            let since = remote.mute_since(now).expect("five are lost");
            assert_eq!(now - since, Duration::from_secs(5));
            if is_heard {
                remote.handle_heard(now);
            }
            assert_eq!(remote.find_mute(since, now), is_heard);
            assert!(!remote.is_proven() && remote.was_narrow == is_heard);
            assert_eq!(remote.mtu.carried() == 1_420, !is_heard);
        }
    }
}
