//! For how long a path is left alone after another turned out to be better.

use std::time::{Duration, Instant};

use crate::why::Reason;

/// For how long a path is not used the first time ...
const FIRST: Duration = Duration::from_secs(30);
/// ... and at most, since each time it is twice as long as the time before ...
const LONGEST: Duration = Duration::from_secs(16 * 60);
/// ... unless the path has been free to be used for this long meanwhile.
const FORGIVEN: Duration = Duration::from_secs(10 * 60);

/// Whether one path is left alone, and since when it is not any more.
#[derive(Debug, Default)]
pub(crate) enum Shunning {
    /// It was never left.
    #[default]
    Never,
    /// It is not used until then at least.
    On { reason: Reason, until: Instant, pause: Duration },
    /// It may be used, after it was not for so long.
    Over { since: Instant, pause: Duration },
}

impl Shunning {
    /// The path is left.
    pub(crate) fn begin(&mut self, reason: Reason, now: Instant) {
        let pause = match *self {
            Self::Over { since, pause } if now < since + FORGIVEN => (pause * 2).min(LONGEST),
            Self::Over { .. } | Self::Never => FIRST,
            Self::On { .. } => return,
        };
        *self = Self::On { reason, until: now + pause, pause };
    }

    /// Nothing speaks against the path now: it may be used again, if it was left for long enough.
    pub(crate) fn end(&mut self, now: Instant) {
        if let Self::On { until, pause, .. } = *self
            && until <= now
        {
            *self = Self::Over { since: now, pause };
        }
    }

    /// Whether the path is not used.
    pub(crate) fn is_on(&self) -> bool {
        self.reason().is_some()
    }

    /// Why it is not used, if it is not.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match self {
            Self::On { reason, .. } => Some(*reason),
            Self::Over { .. } | Self::Never => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOSSY: Reason = Reason::Lossy { percent: 40 };

    #[test]
    fn each_time_is_twice_as_long_unless_the_path_was_free_for_ten_minutes() {
        let (mut shunning, mut now) = (Shunning::default(), Instant::now());
        for pause in [30, 60, 120, 240, 480, 960, 960] {
            assert!(!shunning.is_on());
            shunning.begin(LOSSY, now);
            now += Duration::from_secs(pause) - Duration::from_millis(1);
            shunning.end(now);
            assert!(shunning.is_on());
            now += Duration::from_millis(1);
            shunning.end(now);
            assert!(!shunning.is_on());
            now += FORGIVEN - Duration::from_millis(1);
        }
        now += Duration::from_millis(1);
        shunning.begin(LOSSY, now);
        shunning.end(now + FIRST);
        assert!(!shunning.is_on());
    }
}
