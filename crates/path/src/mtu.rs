//! How large packets a path carries (RFC 8899).

use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::disco::{MAX_MESSAGE, PROBE_SHORTER, TransactionId};
use crate::remote::LOST_AFTER;

/// Packets of the tunnel that every path carries, in bytes (`BASE_PLPMTU`): one that does not is none. IPv6 asks for as much.
pub const BASE_MTU: usize = 1_280;
/// A size that is probed so often in vain does not pass (`MAX_PROBES`).
const TRIES: u32 = 3;
/// Nothing is looked for between two sizes that are as near as this.
const NEAR: usize = 16;
/// What did not pass is tried again after this (`PMTU_RAISE_TIMER`).
const RAISE: Duration = Duration::from_secs(600);

/// The search for the largest packets of the tunnel that one path carries, and what it has found.
#[derive(Debug)]
pub(crate) struct MtuSearch {
    /// None are larger.
    most: usize,
    /// What is known to pass.
    carried: usize,
    /// What has passed before: it is tried first.
    passed: usize,
    /// The smallest that is known not to, until it may after all.
    refused: Option<(usize, Instant)>,
    probe: Option<Probe>,
    /// Whether it has not ended since the path began to be used, or to answer again.
    is_first: bool,
}

#[derive(Debug)]
struct Probe {
    size: usize,
    /// The same for all tries, however late one is answered.
    transaction: Option<TransactionId>,
    tries: u32,
    next: Instant,
}

impl MtuSearch {
    /// For packets of at most so many bytes, of which nothing is known.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.clamp(BASE_MTU, MAX_MESSAGE + PROBE_SHORTER);
        let (carried, passed) = (BASE_MTU, BASE_MTU);
        Self { most, carried, passed, refused: None, probe: None, is_first: false }
    }

    /// The same, with all forgotten.
    pub(crate) fn renewed(&self) -> Self {
        Self::new(self.most)
    }

    /// Begins anew: the path is used from now on, or answers again, and may have become narrower meanwhile.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.refused = self.refused.filter(|(_, until)| now < *until);
        (self.carried, self.is_first) = (BASE_MTU, true);
        self.seek(now);
    }

    /// The largest packets that are known to pass.
    pub(crate) fn carried(&self) -> usize {
        self.carried
    }

    /// Whether it may turn out in a moment that larger ones pass: within three probes for each of a few sizes.
    pub(crate) fn is_on(&self) -> bool {
        self.is_first
    }

    /// Whether that are the largest of all.
    pub(crate) fn is_trying_most(&self) -> bool {
        self.is_on() && self.refused.is_none()
    }

    /// When the next probe is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        let again = self.refused.map(|(_, until)| until);
        self.probe.as_ref().map_or(again, |probe| Some(probe.next))
    }

    /// The next probe, and for packets of which size it is, if one is due. An answer takes `latency` at most, as far as is known.
    pub(crate) fn next(
        &mut self,
        latency: Option<Duration>,
        rng: &mut dyn CryptoRng,
        now: Instant,
    ) -> Option<(TransactionId, usize)> {
        self.due().filter(|at| *at <= now)?;
        match &self.probe {
            None => {
                self.refused = None;
                self.seek(now);
            }
            Some(Probe { size, tries: TRIES.., .. }) => self.refuse(*size, now),
            Some(_) => {}
        }
        let probe = self.probe.as_mut()?;
        let transaction = *probe.transaction.get_or_insert_with(|| TransactionId::random(rng));
        probe.tries += 1;
        probe.next = now + latency.unwrap_or_default().saturating_mul(2).max(LOST_AFTER);
        Some((transaction, probe.size))
    }

    /// Takes a pong; true if it tells that larger packets pass than was known.
    pub(crate) fn handle_pong(&mut self, transaction: TransactionId, now: Instant) -> bool {
        let Some(probe) = self.probe.as_ref().filter(|it| it.transaction == Some(transaction))
        else {
            return false;
        };
        (self.carried, self.passed) = (probe.size, probe.size);
        self.seek(now);
        true
    }

    /// What was carried is not any more, while smaller packets still pass; false if that is what every path carries.
    pub(crate) fn shrink(&mut self, now: Instant) -> bool {
        let lost = self.carried;
        if lost == BASE_MTU {
            return false;
        }
        (self.carried, self.is_first) = (BASE_MTU, false);
        self.refuse(lost, now);
        true
    }

    fn refuse(&mut self, size: usize, now: Instant) {
        self.refused = Some((size, now + RAISE));
        self.seek(now);
    }

    /// Goes on to what is next.
    fn seek(&mut self, now: Instant) {
        let size = self.next_size();
        self.probe = size.map(|size| Probe { size, transaction: None, tries: 0, next: now });
        self.is_first &= self.probe.is_some();
    }

    /// What passed before, then the largest size, then the middle between what passes and what does not.
    fn next_size(&self) -> Option<usize> {
        let refused = self.refused.map_or(self.most + 1, |(size, _)| size);
        if (self.carried + 1..refused).contains(&self.passed) {
            Some(self.passed)
        } else if self.carried == self.most {
            None
        } else if refused > self.most {
            Some(self.most)
        } else {
            (refused - self.carried > NEAR).then_some(self.carried.midpoint(refused))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;

    /// A path that carries packets of at most `widest` bytes.
    struct Bench {
        search: MtuSearch,
        rng: ChaCha20Rng,
        now: Instant,
        widest: usize,
        probes: usize,
    }

    impl Bench {
        fn new(most: usize, widest: usize) -> Self {
            let (rng, now) = (ChaCha20Rng::seed_from_u64(1), Instant::now());
            let mut search = MtuSearch::new(most);
            search.begin(now);
            Self { search, rng, now, widest, probes: 0 }
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            while let Some(at) = self.search.due().filter(|at| *at <= end) {
                self.now = self.now.max(at);
                if let Some((transaction, size)) = self.search.next(None, &mut self.rng, self.now) {
                    self.probes += 1;
                    assert!(size > BASE_MTU && size <= self.search.most);
                    if size <= self.widest {
                        assert!(self.search.handle_pong(transaction, self.now));
                        assert!(!self.search.handle_pong(transaction, self.now));
                    }
                }
            }
            self.now = end;
        }
    }

    #[test]
    fn one_probe_suffices_where_all_passes() {
        let mut bench = Bench::new(1_420, 1_500);
        assert!(bench.search.is_on());
        bench.run(Duration::ZERO);
        assert_eq!((bench.search.carried(), bench.probes), (1_420, 1));
        assert!(!bench.search.is_on() && bench.search.due().is_none());
    }

    #[test]
    fn an_answer_may_take_longer_than_the_next_try_and_what_is_refused_is_known_after_three() {
        let mut bench = Bench::new(1_420, 0);
        let (transaction, _) =
            bench.search.next(None, &mut bench.rng, bench.now).expect("it is due");
        bench.run(Duration::from_millis(1_500));
        assert!(bench.search.is_on() && bench.search.handle_pong(transaction, bench.now));
        assert_eq!((bench.search.carried(), bench.search.is_on()), (1_420, false));
        bench.search.begin(bench.now);
        bench.run(Duration::from_millis(2_900));
        assert!(bench.search.is_on());
        assert!(bench.search.is_trying_most());
        bench.run(Duration::from_millis(200));
        assert!(bench.search.is_on() && !bench.search.is_trying_most(), "smaller ones may pass");
        bench.run(Duration::from_secs(15));
        assert!(!bench.search.is_on());
    }

    #[test]
    fn a_path_that_answers_late_has_the_time_for_it() {
        let mut bench = Bench::new(1_420, 1_500);
        let slow = Some(Duration::from_secs(3));
        let mut sent = Vec::new();
        for second in 0..13 {
            let now = bench.now + Duration::from_secs(second);
            sent.extend(bench.search.next(slow, &mut bench.rng, now).map(|_| second));
        }
        assert_eq!(sent, [0, 6, 12]);
    }

    #[test]
    fn what_was_found_is_tried_first_and_what_was_refused_is_not_before_its_time() {
        let mut bench = Bench::new(1_420, 1_350);
        bench.run(Duration::from_secs(30));
        let carried = bench.search.carried();
        let before = bench.probes;
        for _ in 0..3 {
            bench.search.begin(bench.now);
            assert_eq!(bench.search.carried(), BASE_MTU, "it may have become narrower");
            bench.run(Duration::ZERO);
            assert_eq!((bench.search.carried(), bench.search.is_on()), (carried, false));
        }
        assert_eq!(bench.probes, before + 3);
        bench.widest = 1_500;
        bench.run(Duration::from_secs(500));
        bench.search.begin(bench.now);
        bench.run(Duration::from_secs(100));
        assert_eq!(bench.search.carried(), 1_420, "ten minutes have passed");
    }

    #[test]
    fn no_probe_stands_for_larger_packets_than_it_is_itself() {
        let mut bench = Bench::new(65_535, 65_535);
        bench.run(Duration::ZERO);
        assert_eq!(bench.search.carried(), MAX_MESSAGE + PROBE_SHORTER);
    }

    #[test]
    fn nothing_is_looked_for_where_all_passes_anyway() {
        let bench = Bench::new(BASE_MTU, 1_500);
        assert!(!bench.search.is_on() && bench.search.due().is_none());
    }

    #[test]
    fn a_path_that_becomes_narrower_or_wider_is_followed() {
        let mut bench = Bench::new(1_420, 1_500);
        bench.run(Duration::from_secs(1));
        bench.widest = 1_300;
        assert!(bench.search.shrink(bench.now));
        assert_eq!(bench.search.carried(), BASE_MTU);
        assert!(!bench.search.is_on(), "nobody waits for what may come of that");
        bench.search.begin(bench.now);
        assert!(bench.search.is_on() && !bench.search.is_trying_most(), "what was lost stays so");
        bench.run(Duration::from_secs(30));
        let carried = bench.search.carried();
        assert!((1_300 - NEAR..=1_300).contains(&carried), "{carried}");
        bench.widest = 1_500;
        bench.run(Duration::from_secs(500));
        assert_eq!(bench.search.carried(), carried);
        bench.run(Duration::from_secs(100));
        assert_eq!(bench.search.carried(), 1_420);
        assert!(bench.search.shrink(bench.now) && !bench.search.shrink(bench.now));
    }

    proptest! {
        #[test]
        fn the_largest_that_passes_is_found_with_few_probes(
            most in BASE_MTU..9_000,
            widest in BASE_MTU..9_500,
        ) {
            let mut bench = Bench::new(most, widest);
            bench.run(Duration::from_secs(60));
            let (carried, largest) = (bench.search.carried(), most.min(widest));
            prop_assert!(carried <= largest && largest - carried <= NEAR, "{carried} of {largest}");
            prop_assert!(!bench.search.is_on());
            prop_assert!(bench.probes <= 40, "{} probes", bench.probes);
            let before = bench.probes;
            bench.run(Duration::from_secs(500));
            prop_assert_eq!(bench.probes, before);
        }
    }
}
