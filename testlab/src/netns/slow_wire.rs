//! Wires that delay, jitter and lose.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use platform::{Interest, Poller, Waker};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::Namespace;
use super::switch::configure;

/// Frames on their way in each direction; what comes on top is lost, as in a full queue.
const MAX_IN_FLIGHT: usize = 8192;
/// Longer than any frame without offloads.
const MAX_FRAME: usize = 2048;
/// What the poller calls the waker; the ends have 0 and 1.
const OVER: u64 = 2;

/// How a wire treats frames, the same in both directions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    /// One way.
    pub delay: Duration,
    /// Up to this much is added, evenly distributed; frames may overtake each other by it.
    pub jitter: Duration,
    /// So many of a thousand frames are lost.
    pub loss_permille: u32,
}

impl Conditions {
    /// A delay and nothing else.
    pub fn delay(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }
}

/// A pair of TAP devices in two namespaces, and a thread between them.
#[derive(Debug)]
pub struct SlowWire {
    conditions: Arc<Mutex<Conditions>>,
    over: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl SlowWire {
    /// Joins two namespaces as [`super::wire`] does.
    pub fn new(
        a: (&Namespace, &str, &[&str]),
        b: (&Namespace, &str, &[&str]),
        conditions: Conditions,
    ) -> Self {
        let ends = [tap(a.0, a.1), tap(b.0, b.1)];
        configure(a);
        configure(b);
        let conditions = Arc::new(Mutex::new(conditions));
        let over = Arc::new(Waker::new().expect("an eventfd can be made"));
        let mut carrier = Carrier {
            ends,
            conditions: Arc::clone(&conditions),
            rng: ChaCha20Rng::seed_from_u64(0),
            in_flight: BinaryHeap::new(),
            count: 0,
        };
        let until = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            // The devices vanish with their namespaces, which may be dropped first.
            let _ = carrier.carry(&until);
        });
        Self { conditions, over, thread: Some(thread) }
    }

    /// Changes how frames that come from now on are treated.
    pub fn set(&self, conditions: Conditions) {
        *self.conditions.lock().unwrap_or_else(PoisonError::into_inner) = conditions;
    }
}

impl Drop for SlowWire {
    fn drop(&mut self) {
        self.over.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A frame, ordered by when it arrives and then by when it was sent.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    at: Instant,
    number: u64,
    to: usize,
    frame: Vec<u8>,
}

struct Carrier {
    ends: [SyncDevice; 2],
    conditions: Arc<Mutex<Conditions>>,
    rng: ChaCha20Rng,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    count: u64,
}

impl Carrier {
    fn carry(&mut self, over: &Waker) -> io::Result<()> {
        let mut poller = Poller::new()?;
        poller.add(over, OVER, Interest::Read)?;
        for (token, end) in [0, 1].into_iter().zip(&self.ends) {
            poller.add(end, token, Interest::Read)?;
        }
        loop {
            let next = self.in_flight.peek().map(|Reverse(frame)| frame.at);
            let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
            let ready: Vec<_> = poller.wait(timeout)?.map(|ready| ready.token).collect();
            if ready.contains(&OVER) {
                return Ok(());
            }
            for end in ready {
                self.take(usize::from(end == 1))?;
            }
            self.deliver();
        }
    }

    /// Takes in what has come from one end.
    fn take(&mut self, from: usize) -> io::Result<()> {
        let conditions = *self.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0; MAX_FRAME];
        loop {
            let length = match self.ends[from].recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let is_lost = self.rng.next_u32() % 1000 < conditions.loss_permille;
            if is_lost || self.in_flight.len() == MAX_IN_FLIGHT {
                continue;
            }
            let share = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
            let at = Instant::now() + conditions.delay + conditions.jitter.mul_f64(share);
            self.count += 1;
            let frame = buffer[..length].to_vec();
            self.in_flight.push(Reverse(InFlight { at, number: self.count, to: 1 - from, frame }));
        }
    }

    /// Hands out the frames whose time has come. An end that is down or full loses them.
    fn deliver(&mut self) {
        let now = Instant::now();
        while let Some(Reverse(next)) = self.in_flight.peek()
            && next.at <= now
        {
            if let Some(Reverse(due)) = self.in_flight.pop() {
                let _ = self.ends[due.to].send(&due.frame);
            }
        }
    }
}

fn tap(namespace: &Namespace, name: &str) -> SyncDevice {
    namespace.enter(|| {
        let device = DeviceBuilder::new().name(name).layer(Layer::L2).enable(false).build_sync();
        let device = device.expect("a TAP device can be made");
        device.set_nonblocking(true).expect("a TAP device can be read without waiting");
        device
    })
}
