//! Peers, and the channels that lead to them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::message::Binding;

/// Channels that are kept up at once.
pub const MAX_PEERS: usize = 64;
/// The numbers of channels (RFC 8656 section 12) begin here ...
const FIRST: u16 = 0x4000;
/// ... and there are so many.
const NUMBERS: u16 = 0x1000;
/// A channel is made anew after this: the permission that comes with it lasts for 300 s.
const RENEW: Duration = Duration::from_secs(240);
/// A channel that nothing was sent over for so long is left to end.
const UNUSED: Duration = Duration::from_secs(180);
/// A channel that is not renewed lasts for 600 s, and its number must not be another peer's for 300 s more.
const RETIRED: Duration = Duration::from_secs(900);
/// A channel that nothing was sent over for so long makes room for another peer's. Busier ones stay: if they made room in
/// turn, each would be asked for again for every few datagrams.
const IDLE: Duration = Duration::from_secs(10);
/// A peer that the server refuses is not asked for again before.
const REFUSED: Duration = Duration::from_secs(60);
/// Payloads that wait for the channel to a peer.
const WAITING: usize = 4;

/// The channels of one allocation.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    active: Vec<Channel>,
    /// When one of them is due, or earlier: it is asked for with every packet.
    due: Option<Instant>,
    /// Those that the server may still know: peer, number, and when both are free again.
    retired: VecDeque<(Binding, Instant)>,
    /// How many numbers were given out.
    given: u16,
}

/// A channel that is kept up.
#[derive(Debug)]
struct Channel {
    binding: Binding,
    state: State,
    used: Instant,
}

#[derive(Debug)]
enum State {
    /// The server was asked for it. These payloads wait.
    Wanted(Vec<Vec<u8>>),
    /// It leads there; it is to be asked for again then.
    Bound(Instant),
    /// The server does not want it, until then.
    Refused(Instant),
}

/// What to do with a payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It goes over this channel.
    Over(u16),
    /// It waits until this channel is there, which is to be asked for.
    Ask(Binding),
    /// It waits, or is lost.
    None,
}

impl Channels {
    /// How a payload gets to the peer.
    pub(crate) fn send(&mut self, peer: SocketAddr, payload: &[u8], now: Instant) -> Way {
        if let Some(channel) = self.active.iter_mut().find(|channel| channel.binding.1 == peer) {
            return channel.send(payload, now);
        }
        if self.active.len() == MAX_PEERS && !self.evict(now) {
            return Way::None;
        }
        let Some(binding) = self.number(peer, now).map(|number| (number, peer)) else {
            return Way::None;
        };
        let state = State::Wanted(vec![payload.to_vec()]);
        self.active.push(Channel { binding, state, used: now });
        Way::Ask(binding)
    }

    /// The peer to which a channel leads, or led a while ago.
    pub(crate) fn peer(&self, number: u16) -> Option<SocketAddr> {
        let active = self.active.iter().map(|channel| channel.binding);
        let known = active.chain(self.retired.iter().map(|(binding, _)| *binding));
        known.into_iter().find(|binding| binding.0 == number).map(|(_, peer)| peer)
    }

    /// The server has made a channel; answers what waited for it.
    pub(crate) fn handle_bound(&mut self, binding: Binding, now: Instant) -> Vec<Vec<u8>> {
        let Some(channel) = self.active.iter_mut().find(|one| one.binding == binding) else {
            return Vec::new();
        };
        let before = std::mem::replace(&mut channel.state, State::Bound(now + RENEW));
        self.note_due();
        match before {
            State::Wanted(waiting) => waiting,
            State::Bound(_) | State::Refused(_) => Vec::new(),
        }
    }

    /// The server did not make a channel.
    pub(crate) fn handle_refused(&mut self, binding: Binding, now: Instant) {
        if let Some(channel) = self.active.iter_mut().find(|one| one.binding == binding) {
            channel.state = State::Refused(now + REFUSED);
            self.note_due();
        }
    }

    /// Lets go of what is unused; answers a channel that is to be asked for again, until there is none.
    pub(crate) fn next_due(&mut self, now: Instant) -> Option<Binding> {
        while self.due.is_some_and(|due| due <= now) {
            let is_due = |channel: &Channel| channel.due().is_some_and(|at| at <= now);
            let Some(index) = self.active.iter().position(is_due) else {
                self.note_due();
                continue;
            };
            let channel = &mut self.active[index];
            let is_bound = matches!(channel.state, State::Bound(_));
            if is_bound && now < channel.used + UNUSED {
                channel.state = State::Bound(now + RENEW);
                return Some(channel.binding);
            }
            self.retire(index, now);
        }
        None
    }

    /// When [`Self::next_due`] wants to be called.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    fn note_due(&mut self) {
        self.due = self.active.iter().filter_map(Channel::due).min();
    }

    /// Makes room if it can: the one goes that was least recently used.
    fn evict(&mut self, now: Instant) -> bool {
        let unused = self.active.iter().enumerate().min_by_key(|(_, channel)| channel.used);
        let unused = unused.filter(|(_, channel)| channel.used + IDLE <= now);
        let Some((index, _)) = unused else { return false };
        self.retire(index, now);
        true
    }

    fn retire(&mut self, index: usize, now: Instant) {
        let binding = self.active.swap_remove(index).binding;
        self.retired.push_back((binding, now + RETIRED));
    }

    /// The number for a peer: the one that it had, or one that nobody has.
    fn number(&mut self, peer: SocketAddr, now: Instant) -> Option<u16> {
        while self.retired.pop_front_if(|(_, free)| *free <= now).is_some() {}
        if let Some(index) = self.retired.iter().position(|((_, known), _)| *known == peer) {
            return self.retired.remove(index).map(|((number, _), _)| number);
        }
        if self.active.len() + self.retired.len() >= usize::from(NUMBERS) {
            return None;
        }
        loop {
            let number = FIRST + self.given;
            self.given = (self.given + 1) % NUMBERS;
            if self.peer(number).is_none() {
                return Some(number);
            }
        }
    }
}

impl Channel {
    fn send(&mut self, payload: &[u8], now: Instant) -> Way {
        self.used = now;
        match &mut self.state {
            State::Bound(_) => Way::Over(self.binding.0),
            State::Wanted(waiting) => {
                if waiting.len() < WAITING {
                    waiting.push(payload.to_vec());
                }
                Way::None
            }
            State::Refused(until) if *until > now => Way::None,
            State::Refused(_) => {
                self.state = State::Wanted(vec![payload.to_vec()]);
                Way::Ask(self.binding)
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Bound(at) => Some(at),
            State::Refused(until) => Some(until.max(self.used + UNUSED)),
            State::Wanted(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], number))
    }

    /// A channel that the server has made.
    fn bind(channels: &mut Channels, peer: SocketAddr, now: Instant) -> u16 {
        let Way::Ask(binding) = channels.send(peer, b"first", now) else {
            panic!("{peer} needs a channel");
        };
        assert_eq!(channels.handle_bound(binding, now), [b"first"]);
        binding.0
    }

    #[test]
    fn what_is_sent_before_there_is_a_channel_waits_for_it() {
        let (mut channels, now) = (Channels::default(), Instant::now());
        let Way::Ask(binding) = channels.send(peer(1), b"0", now) else { panic!("the first") };
        for payload in 1..10_u8 {
            assert_eq!(channels.send(peer(1), &[payload], now), Way::None);
        }
        assert_eq!(channels.handle_bound(binding, now).len(), WAITING);
        assert_eq!(channels.send(peer(1), b"more", now), Way::Over(binding.0));
        assert_eq!(channels.peer(binding.0), Some(peer(1)));
    }

    #[test]
    fn the_least_recently_used_goes_and_its_number_stays_its_own_for_fifteen_minutes() {
        let (mut channels, start) = (Channels::default(), Instant::now());
        let numbers: Vec<_> = (1..=64).map(|n| bind(&mut channels, peer(n), start)).collect();
        let mut later = start + IDLE;
        for n in 2..=64 {
            channels.send(peer(n), b"again", later);
        }
        let new = bind(&mut channels, peer(65), later);
        assert!(!numbers.contains(&new));
        assert_eq!(channels.active.len(), MAX_PEERS);
        assert_eq!(channels.peer(numbers[0]), Some(peer(1)), "data that is late is still its own");
        later += IDLE;
        assert_eq!(bind(&mut channels, peer(1), later), numbers[0], "it comes back as what it was");
        // Whatever comes and goes, no number leads to two peers.
        for n in 100..5_000 {
            if n % 64 == 0 {
                later += IDLE;
            }
            channels.send(peer(n), b"new", later);
        }
        assert!(channels.active.len() + channels.retired.len() <= usize::from(NUMBERS));
        let much_later = later + RETIRED;
        let number = bind(&mut channels, peer(6_000), much_later);
        assert_eq!(channels.peer(number), Some(peer(6_000)));
    }

    #[test]
    fn busy_channels_make_no_room_for_a_peer_too_many() {
        let (mut channels, start) = (Channels::default(), Instant::now());
        let numbers: Vec<_> = (1..=64).map(|n| bind(&mut channels, peer(n), start)).collect();
        for second in 1..=60 {
            let now = start + Duration::from_secs(second);
            let ways = (1..=65).map(|n| channels.send(peer(n), b"traffic", now));
            let over = numbers.iter().map(|number| Way::Over(*number));
            assert!(ways.eq(over.chain([Way::None])), "after {second} s");
        }
    }

    #[test]
    fn channels_in_use_are_renewed_before_the_permission_ends_and_others_are_not() {
        let (mut channels, start) = (Channels::default(), Instant::now());
        let used = bind(&mut channels, peer(1), start);
        bind(&mut channels, peer(2), start);
        channels.send(peer(1), b"traffic", start + Duration::from_secs(200));
        let due = channels.due().expect("something is due");
        assert!(due - start < Duration::from_secs(300));
        assert_eq!(channels.next_due(due), Some((used, peer(1))));
        assert_eq!(channels.next_due(due), None);
        assert_eq!(channels.active.len(), 1);
    }

    #[test]
    fn a_peer_that_is_refused_is_asked_for_again_after_a_minute() {
        let (mut channels, start) = (Channels::default(), Instant::now());
        let Way::Ask(binding) = channels.send(peer(1), b"0", start) else { panic!("the first") };
        channels.handle_refused(binding, start);
        assert_eq!(channels.send(peer(1), b"1", start + REFUSED / 2), Way::None);
        assert_eq!(channels.send(peer(1), b"2", start + REFUSED), Way::Ask(binding));
    }

    #[test]
    fn a_refused_peer_is_kept_in_mind_while_something_is_sent_to_it_and_then_forgotten() {
        let (mut channels, start) = (Channels::default(), Instant::now());
        let Way::Ask(binding) = channels.send(peer(1), b"0", start) else { panic!("the first") };
        channels.handle_refused(binding, start);
        let last = start + REFUSED / 2;
        assert_eq!(channels.send(peer(1), b"1", last), Way::None);
        let mut wakings = Vec::new();
        while let Some(due) = channels.due() {
            wakings.push(due);
            assert_eq!(channels.next_due(due), None);
        }
        assert_eq!(wakings.last(), Some(&(last + UNUSED)));
        assert!(wakings.len() <= 2, "{wakings:?}");
        assert!(channels.active.is_empty());
    }
}
