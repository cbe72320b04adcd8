//! How much of the processor this process uses.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Measures processor use from one look to the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuMeter {
    since: Instant,
    used: Duration,
}

impl CpuMeter {
    pub(crate) fn start() -> Self {
        Self { since: Instant::now(), used: used() }
    }

    /// Use since the last look, in thousandths of one core.
    pub(crate) fn take_permille(&mut self) -> u32 {
        let before = std::mem::replace(self, Self::start());
        let elapsed = self.since.saturating_duration_since(before.since).as_micros();
        let used = self.used.saturating_sub(before.used).as_micros();
        u32::try_from((used * 1_000).checked_div(elapsed).unwrap_or_default()).unwrap_or(u32::MAX)
    }
}

/// Processor time of all threads of this process since it began.
fn used() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_and_is_counted_once() {
        let (mut meter, start) = (CpuMeter::start(), used());
        while used() < start + Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let busy = meter.take_permille();
        assert!(busy > 0);
        assert!(meter.used >= start + Duration::from_millis(20), "the next look begins here");
    }
}
