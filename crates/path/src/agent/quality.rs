//! Whether the chosen path is worse than the way for frames, by what gets lost on it and by how long it takes.
//!
//! A relay is the detour, so a direct path is left only where it loses much, or takes far longer, and only for some time: then it is used
//! again, if pings do not tell that it is as bad as before. The next time is longer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use super::{PROBE_AFTER, PathAgent, SETTLED, Unanswered};
use crate::frames::SILENT;
use crate::io::Counts;
use crate::loss::{ENOUGH, LossMeter};
use crate::remote::{Answer, KEEP_ALIVE_BUSY, Remote};
use crate::why::{Path, Reason};

/// Between two pings over the way for frames, which tell how long it takes, ...
const FRAME_PING: Duration = Duration::from_secs(15);
/// ... while they are used though there is a direct path, ...
const FRAME_PING_IN_USE: Duration = Duration::from_secs(5);
/// ... and while the path may lose much, on which pings follow each other as soon.
const URGENT: Duration = Duration::from_secs(1);
/// A direct path takes far longer than frames if it takes twice as long and this.
const FAR_LONGER: Duration = Duration::from_millis(50);

impl PathAgent {
    /// Looks sooner for what gets lost where many packets go, and now and then for how long frames take where that may be less.
    pub(super) fn watch_quality(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        if !self.is_active(now) {
            return;
        }
        if let Some(counts) = self.counts
            && let Some(remote) = self.chosen_remote_mut()
            && remote.packets_since_probe(counts.sent) >= ENOUGH
        {
            remote.hasten_probe(KEEP_ALIVE_BUSY, now);
        }
        let is_long = |it: &Remote| it.latest_latency().is_some_and(|took| took > FAR_LONGER);
        let pause = if self.remotes.all().any(Remote::is_shunned) {
            FRAME_PING_IN_USE
        } else if self.is_direct() && self.loss.is_urgent() {
            URGENT
        } else if self.chosen_remote().is_some_and(is_long) {
            FRAME_PING
        } else {
            return;
        };
        if self.frames.pinged().is_none_or(|last| now >= last + pause) {
            self.transmits.extend(self.frames.ping(rng, now));
        }
        if !self.is_direct() && self.frames.is_silent(now) {
            self.choose_again(Reason::Unanswered { since: SILENT }, now);
        }
    }

    /// The peer uses another path than the direct one that we use: perhaps it has found that path
    /// dead already, or has moved. A probe that stays unanswered for [`PROBE_AFTER`], or two round trips, settles it.
    pub(super) fn suspect(&mut self, now: Instant) {
        let is_settled = self.suspected.is_some_and(|before| now < before + SETTLED);
        let is_heard = self.chosen_remote().is_some_and(|remote| {
            remote.heard().is_some_and(|heard| now < heard + patience(remote))
        });
        if !is_settled && !is_heard {
            self.suspected = Some(now);
            self.ask_whether_it_works(false, now);
        }
    }

    /// Something says more clearly that the chosen path may be dead: the peer looks for another one, or the relay over which it
    /// leads may be gone. Then a pong alone shows that it is not.
    pub fn handle_doubt(&mut self, now: Instant) {
        if !self.unanswered.is_some_and(|unanswered| unanswered.needs_pong) {
            self.ask_whether_it_works(true, now);
        }
    }

    fn ask_whether_it_works(&mut self, needs_pong: bool, now: Instant) {
        let Path::Direct(address) = self.chosen else { return };
        let Some(remote) = self.remotes.get_mut(address) else { return };
        let demote_at = now + patience(remote);
        if self.unanswered.is_none_or(|unanswered| demote_at < unanswered.demote_at) {
            let since = self.unanswered.map_or(now, |unanswered| unanswered.since);
            self.unanswered = Some(Unanswered { since, demote_at, probed: true, needs_pong });
            remote.start_burst(now);
        }
    }

    /// When a path is given up that is being probed since nothing comes over it: sooner than `demote_at` if it is a detour,
    /// beside which there are others.
    pub(super) fn give_up_at(&self, demote_at: Instant, now: Instant) -> Instant {
        let detour = self.chosen_remote().filter(|remote| remote.is_relayed());
        detour.map_or(demote_at, |remote| demote_at.min(now + patience(remote)))
    }

    /// A pong has come: leaves the path that it took, if that is the chosen one and found to be worse than another.
    pub(super) fn judge(
        &mut self,
        path: Path,
        answer: &Answer,
        arrived: Option<u32>,
        now: Instant,
    ) {
        let counts = answer.sent.zip(arrived).map(|(sent, arrived)| Counts { sent, arrived });
        let counts = counts.filter(|_| self.counts.is_some());
        if path == self.chosen {
            self.check_delivery(answer.at, counts, now);
        }
        if path == self.chosen {
            self.check_quality(answer.at, counts, now);
        }
    }

    /// Leaves the chosen path if the way for frames is far better.
    fn check_quality(&mut self, at: Instant, counts: Option<Counts>, now: Instant) {
        let lost = counts.and_then(|counts| self.loss.take(at, counts));
        if self.loss.is_urgent()
            && let Some(remote) = self.chosen_remote_mut()
        {
            remote.hasten_probe(URGENT, now);
        }
        let lost = lost.filter(|_| self.frames.answers(now));
        let reason = match (lost, self.faster_frames(self.chosen_remote())) {
            (Some(percent), _) => Reason::Lossy { percent },
            (None, Some((frames, latency))) => Reason::Slow { latency, frames },
            (None, None) => return,
        };
        if let Some(remote) = self.chosen_remote_mut() {
            remote.shun(reason, now);
            self.loss = LossMeter::default();
            self.choose_again(reason, now);
        }
    }

    /// A path that is not used has answered: perhaps it may be used again.
    pub(super) fn reconsider_shunned(&mut self, address: SocketAddr, now: Instant) {
        let remote = self.remotes.get(address).filter(|remote| remote.shunning.is_on());
        if remote.is_some_and(|remote| remote.is_steady(now))
            && self.faster_frames(remote).is_none()
            && let Some(remote) = self.remotes.get_mut(address)
        {
            remote.shunning.end(now);
        }
    }

    /// How long frames take and how long a path took meanwhile, if that is far longer however little waits in queues.
    fn faster_frames(&self, remote: Option<&Remote>) -> Option<(Duration, Duration)> {
        let (path, since) = remote?.least_latency()?;
        let frames = self.frames.latency_since(since)?;
        (path > frames * 2 + FAR_LONGER).then_some((frames, path))
    }
}

/// How long an answer over a path may take before the path is thought to be dead, if something says so.
fn patience(remote: &Remote) -> Duration {
    PROBE_AFTER.max(remote.latency().unwrap_or_default() * 2)
}
