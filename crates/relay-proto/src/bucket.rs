//! A token bucket.

use std::time::{Duration, Instant};

/// How much of something one client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Sustained, for each second.
    pub per_second: u64,
    /// At once, after a pause.
    pub burst: u64,
}

/// Tokens of one client.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    tokens: u64,
    refilled: Instant,
}

impl Bucket {
    pub(crate) const fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: rate.burst, refilled: now }
    }

    /// Takes `amount` tokens if they are there.
    pub(crate) fn take(&mut self, amount: u64, now: Instant) -> bool {
        self.refill(now);
        let enough = self.tokens >= amount;
        if enough {
            self.tokens -= amount;
        }
        enough
    }

    /// Adds whole tokens only, and the time of the rest is kept for the next refill.
    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled).as_nanos();
        let rate = u128::from(self.rate.per_second.max(1));
        let earned = elapsed * rate / 1_000_000_000;
        if earned == 0 {
            return;
        }
        self.tokens = u64::try_from(earned)
            .unwrap_or(u64::MAX)
            .saturating_add(self.tokens)
            .min(self.rate.burst);
        let spent = (earned * 1_000_000_000).div_ceil(rate);
        self.refilled += Duration::from_nanos(u64::try_from(spent).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(Rate { per_second: 10, burst: 5 }, start);
        let taken = |bucket: &mut Bucket, at| (0..100).filter(|_| bucket.take(1, at)).count();
        assert_eq!(taken(&mut bucket, start), 5);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(350)), 3);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(400)), 1);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(60)), 5);
    }
}
