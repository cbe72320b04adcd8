//! Pings through the tunnel, ten a second, and how long none was answered.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::netns::{Process, wait_for};
use crate::network::Device;

/// Between two pings.
pub const INTERVAL: Duration = Duration::from_millis(100);
/// How long pings may be late because the machine is busy.
const LATE: Duration = Duration::from_secs(30);

/// Pings that are under way until [`Probes::stop`].
#[derive(Debug)]
pub struct Probes {
    process: Process,
    log: PathBuf,
}

/// What became of the pings.
#[derive(Debug, Default)]
pub struct Trace {
    /// Sequence number and moment of each answer, in the order in which they came.
    answers: Vec<(u64, Duration)>,
    /// The greatest sequence number that is known to have been sent.
    sent: u64,
}

impl Probes {
    /// Starts to ping an address from a device; the first answer has come.
    #[must_use]
    pub fn start(from: &Device, address: &str) -> Self {
        let count = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let log = PathBuf::from(format!("{}-{count}.pings", from.state_dir()));
        let args = ["-n", "-D", "-O", "-i", "0.1", "-W", "1", address];
        let process = from.namespace().spawn("ping", &args, &log);
        let probes = Self { process, log };
        wait_for("a first answer", LATE, || (!probes.trace().answers.is_empty()).then_some(()));
        probes
    }

    /// Waits until as many further pings were sent as fit into this time.
    pub fn watch(&self, duration: Duration) {
        let pings = u64::try_from(duration.as_millis() / INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let until = self.trace().sent + pings;
        wait_for("pings to be sent", duration * 2 + LATE, || {
            (self.trace().sent >= until).then_some(())
        });
    }

    /// Ends the pings.
    #[must_use]
    pub fn stop(self) -> Trace {
        let trace = self.trace();
        self.process.kill();
        trace
    }

    /// What has become of them so far.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut trace = Trace::default();
        // The last line may be incomplete.
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        for line in complete.lines() {
            let number = |(_, rest): (&str, &str)| rest.split(' ').next()?.parse::<u64>().ok();
            let Some(sequence) = line.split_once("icmp_seq=").and_then(number) else { continue };
            trace.sent = trace.sent.max(sequence);
            let time = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            let at = time.and_then(|(seconds, _)| seconds.parse::<f64>().ok());
            if let Some(at) = at.filter(|_| line.contains("bytes from")) {
                trace.answers.push((sequence, Duration::from_secs_f64(at)));
            }
        }
        trace
    }
}

impl Trace {
    /// The longest time between two answers.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let pairs = self.answers.windows(2);
        pairs.map(|pair| pair[1].1.saturating_sub(pair[0].1)).max().unwrap_or(Duration::MAX)
    }

    /// From a moment to the next answer.
    #[must_use]
    pub fn answered_after(&self, moment: SystemTime) -> Duration {
        let moment = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        let later = self.answers.iter().find(|(_, at)| *at >= moment);
        later.map_or(Duration::MAX, |(_, at)| *at - moment)
    }

    /// How many pings were not answered, apart from the last second's, which may yet be.
    #[must_use]
    pub fn lost(&self) -> usize {
        let settled = 1..self.sent.saturating_sub(10);
        let answered: std::collections::BTreeSet<u64> =
            self.answers.iter().map(|(sequence, _)| *sequence).collect();
        settled.filter(|sequence| !answered.contains(sequence)).count()
    }

    /// How many pings were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }
}
