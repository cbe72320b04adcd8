//! Waiting for several handles in a thread without a runtime: epoll, eventfd and timerfd.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, Timespec, epoll, eventfd},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create,
        timerfd_settime,
    },
};

/// Events that one wait brings at most.
const MAX_EVENTS: usize = 32;

/// What to wait for at a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Room to write.
    Write,
    /// Either.
    Both,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::Write => epoll::EventFlags::OUT,
            Self::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

/// A handle that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The number given to [`Poller::add`].
    pub token: u64,
    /// Something to read, or an error to be read.
    pub readable: bool,
    /// Room to write.
    pub writable: bool,
}

/// Which of a thread's handles of one kind are ready, by their numbers from 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadySet(u64);

impl ReadySet {
    /// Adds a handle.
    ///
    /// # Panics
    /// If its number is above 63; so does [`remove`](Self::remove).
    pub fn insert(&mut self, index: u64) {
        self.0 |= bit(index);
    }

    /// Takes a handle away.
    pub fn remove(&mut self, index: usize) {
        self.0 &= !bit(index as u64);
    }

    /// Whether none is ready.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are ready now, whatever changes meanwhile, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |index| self.0 & (1 << index) != 0)
    }
}

fn bit(index: u64) -> u64 {
    assert!(index < 64, "a thread has few handles");
    1 << index
}

/// Waits for handles, level-triggered: what is not read is reported again.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    ready: Vec<Ready>,
}

impl Poller {
    /// A poller that waits for nothing yet.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, ready: Vec::with_capacity(MAX_EVENTS) })
    }

    /// Waits for `handle` from now on; `token` comes back with its events.
    pub fn add(&self, handle: &impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::add(&self.epoll, handle, data, interest.flags())?)
    }

    /// Waits for something else at a handle that was added.
    pub fn change(&self, handle: &impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::modify(&self.epoll, handle, data, interest.flags())?)
    }

    /// Waits no longer for `handle`.
    pub fn remove(&self, handle: &impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, handle)?)
    }

    /// Waits until a handle is ready, or for `timeout`; none means for as long as it takes.
    /// A signal ends the wait early, with nothing ready.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = Ready> + '_> {
        let timeout = timeout.map(timespec);
        self.ready.clear();
        let mut buffer = [MaybeUninit::uninit(); MAX_EVENTS];
        let events = match epoll::wait(&self.epoll, &mut buffer, timeout.as_ref()) {
            Ok((events, _)) => &*events,
            Err(rustix::io::Errno::INTR) => &[],
            Err(error) => return Err(error.into()),
        };
        self.ready.extend(events.iter().map(ready_of));
        Ok(self.ready.iter().copied())
    }
}

fn ready_of(event: &epoll::Event) -> Ready {
    let (flags, data) = (event.flags, event.data);
    let failed = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
    Ready {
        token: data.u64(),
        readable: flags.intersects(epoll::EventFlags::IN | failed),
        writable: flags.intersects(epoll::EventFlags::OUT | failed),
    }
}

/// Wakes a poller from another thread. Share it by reference or `Arc`.
#[derive(Debug)]
pub struct Waker {
    event: OwnedFd,
}

impl Waker {
    /// A waker; add it to the poller like any handle.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event })
    }

    /// Makes the handle readable until [`reset`](Self::reset). Never blocks or fails.
    pub fn wake(&self) {
        // A full counter is readable as well.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Takes all wake-ups so far together; call it before looking at what they announce.
    pub fn reset(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// A handle that becomes readable at an instant.
#[derive(Debug)]
pub struct Timer {
    timer: OwnedFd,
    due: Option<Instant>,
}

impl Timer {
    /// A timer that is not set.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { timer: timerfd_create(TimerfdClockId::Monotonic, flags)?, due: None })
    }

    /// Becomes readable at `due`; an instant that has passed means at once, none never.
    pub fn set(&mut self, due: Option<Instant>) -> io::Result<()> {
        if self.due == due {
            return Ok(());
        }
        let wait = due.map_or(Duration::ZERO, |due| {
            // Zero would disarm.
            due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1))
        });
        let spec = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(wait) };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        self.due = due;
        Ok(())
    }

    /// Takes the expiry, so that the handle is readable no longer; true if it was due.
    pub fn reset(&mut self) -> bool {
        let expired = rustix::io::read(&self.timer, &mut [0; 8]).is_ok();
        if expired {
            self.due = None;
        }
        expired
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
