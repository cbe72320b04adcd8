//! What was received before, per stream.

/// How far behind the newest frame of its stream a frame may arrive.
pub const REPLAY_WINDOW: u64 = 1024;

/// How many streams of a session are live: those below the newest eight are refused.
pub const STREAMS_KEPT: u64 = 8;

const WORD: u64 = u64::BITS as u64;
/// One word more than the window, so that a word can be cleared as a whole (RFC 6479).
const WORDS: u64 = REPLAY_WINDOW / WORD + 1;

/// The frames of one stream that were received, by counter.
#[derive(Debug)]
pub(crate) struct ReplayWindow {
    /// One more than the highest counter received.
    next: u64,
    seen: [u64; WORDS as usize],
}

impl ReplayWindow {
    pub(crate) const fn new() -> Self {
        Self { next: 0, seen: [0; WORDS as usize] }
    }

    /// Whether a frame with this counter may still come.
    pub(crate) const fn may_receive(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        self.next - counter <= REPLAY_WINDOW && self.seen[word(counter)] & bit(counter) == 0
    }

    /// Takes note of a frame that was authenticated; says whether it was new.
    pub(crate) fn receive(&mut self, counter: u64) -> bool {
        if !self.may_receive(counter) {
            return false;
        }
        if counter >= self.next {
            let newest = self.next.saturating_sub(1) / WORD;
            let skipped = (counter / WORD - newest).min(WORDS);
            for step in 1..=skipped {
                self.seen[((newest + step) % WORDS) as usize] = 0;
            }
            self.next = counter + 1;
        }
        self.seen[word(counter)] |= bit(counter);
        true
    }
}

const fn word(counter: u64) -> usize {
    (counter / WORD % WORDS) as usize
}

const fn bit(counter: u64) -> u64 {
    1 << (counter % WORD)
}
