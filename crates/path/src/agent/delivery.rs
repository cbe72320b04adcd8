//! Whether the chosen path carries the tunnel's packets, and not only pings.
//!
//! Some networks drop what looks like WireGuard, and let all else pass. Each pong on a direct path says how many packets of the tunnel have
//! come that way. Where that is in question some packets without content are sent, so a path that drops them is found out by two further
//! pongs, however little traffic there is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{PathAgent, SETTLED};
use crate::io::{Counts, PathEvent};
use crate::why::{Path, Reason};

/// Packets that must have been sent before it means anything that none came: some get lost anywhere.
const FEW: u32 = 3;
/// Between two pings that are to tell whether packets come.
const AGAIN: Duration = Duration::from_millis(500);

/// What is known of the chosen path.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// What had been sent and had arrived at the last ping after which something was found out.
    mark: Option<Counts>,
    /// Since which ping none have come though some were sent.
    void_since: Option<Instant>,
    /// Whether some have come.
    is_confirmed: bool,
    /// When that was in question again.
    doubted: Option<Instant>,
}

impl Delivery {
    /// Takes what the peer says has come by the time of a ping; true if the path is found to carry no packets.
    fn judge(&mut self, at: Instant, counts: Counts) -> bool {
        let Some(mark) = self.mark else {
            self.mark = Some(counts);
            return false;
        };
        let sent = counts.sent.wrapping_sub(mark.sent);
        if counts.arrived != mark.arrived {
            // Fewer than before have come to a peer that was started anew.
            let has_grown = counts.arrived.wrapping_sub(mark.arrived) < u32::MAX / 2;
            (self.mark, self.void_since, self.is_confirmed) = (Some(counts), None, has_grown);
        } else if sent >= FEW {
            let since = *self.void_since.get_or_insert(at);
            return at >= since + AGAIN;
        }
        false
    }

    /// Whether it is in question that packets come.
    fn is_open(&self) -> bool {
        self.mark.is_some() && (!self.is_confirmed || self.void_since.is_some())
    }
}

impl PathAgent {
    /// How many of the tunnel's packets have gone straight to the peer, and have come straight from it; none where there is no
    /// session, in which none could come. To be told before messages, and before timeouts.
    pub fn handle_counts(&mut self, counts: Option<Counts>) {
        self.counts = counts;
    }

    /// Whether packets of the tunnel are known to pass on the chosen path, or it is one for frames.
    pub fn carries_tunnel(&self) -> bool {
        !self.is_direct() || self.delivery.is_confirmed
    }

    /// The chosen path was probed: if it is in question whether packets come, some are sent before the next probe, which follows
    /// soon.
    pub(super) fn watch_delivery(&mut self, now: Instant) {
        let Path::Direct(address) = self.chosen else { return };
        if self.counts.is_some()
            && self.delivery.is_open()
            && let Some(remote) = self.remotes.get_mut(address).filter(|remote| remote.is_proven())
        {
            remote.hasten_probe(AGAIN, now);
            self.events.push_back(PathEvent::TunnelProbe { to: address });
        }
    }

    /// Nothing comes back, or the peer sends frames: whether packets come is in question once more.
    pub(super) fn doubt_delivery(&mut self, now: Instant) {
        let is_settled = self.delivery.doubted.is_some_and(|before| now < before + SETTLED);
        if self.delivery.is_confirmed && !is_settled {
            self.delivery.is_confirmed = false;
            self.delivery.doubted = Some(now);
            self.watch_delivery(now);
        }
    }

    /// Takes what a pong on a path that is not used says of the packets that have come: perhaps some pass after all.
    pub(super) fn reconsider_void(&mut self, address: SocketAddr, arrived: Option<u32>) {
        if !self.is_direct()
            && let (Some(remote), Some(arrived)) = (self.remotes.get_mut(address), arrived)
        {
            remote.handle_arrived(arrived);
        }
    }

    /// Takes what a pong on the chosen path says of the packets that have come. Leaves the path if none do.
    pub(super) fn check_delivery(&mut self, at: Instant, counts: Option<Counts>, now: Instant) {
        let Some(counts) = counts else {
            self.delivery = Delivery::default();
            return;
        };
        let is_first = self.delivery.mark.is_none();
        if !self.delivery.judge(at, counts) {
            if is_first {
                self.watch_delivery(now);
            }
            return;
        }
        self.delivery = Delivery::default();
        if let Path::Direct(address) = self.chosen
            && self.has_frames()
            && let Some(remote) = self.remotes.get_mut(address)
        {
            remote.find_void(counts.arrived, now);
            self.choose_again(Reason::Void, now);
        }
    }
}
