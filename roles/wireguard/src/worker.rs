//! The data thread: packets to completion, and whatever the UAPI asks for between them.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use packet::{Coalescer, Offload, Packet, Segments};
use platform::poll::ReadySet;
use platform::tun::MAX_PACKET;
use platform::{Delivery, Interest, Poller, Queues, ReceiveBatch, TunError, Waker};
use rand_chacha::ChaCha20Rng;
use tokio::sync::oneshot;
use wireguard_proto::{Event, PublicKey};
use zeroize::Zeroizing;

use crate::device::Device;
use crate::inbound::Inbound;
use crate::mtu::MtuWatch;
use crate::outbound::Outbound;
use crate::sockets::Sockets;
use crate::uapi::{Changes, Request, UapiError, answer};

const WAKE: u64 = 0;
const UDP4: u64 = 1;
const UDP6: u64 = 2;
/// The first queue; the others follow.
const QUEUES: u64 = 3;

/// Buffers of one receive call; more amortise the wake-up, fewer stay in the cache.
const RECEIVE_SLOTS: usize = 4;
/// Bytes after which what was received is delivered, so that the host works on it while the rest is opened.
const DELIVER_AT: usize = 32 * 1024;

/// What other threads ask of the data thread.
#[derive(Debug)]
pub(crate) enum Command {
    Uapi { request: Request, reply: oneshot::Sender<Zeroizing<String>> },
    Stop,
}

/// The way to the data thread.
#[derive(Clone, Debug)]
pub(crate) struct Commands {
    sender: mpsc::Sender<Command>,
    waker: Arc<Waker>,
}

impl Commands {
    /// Hands over a command; without effect once the data thread has ended.
    pub(crate) fn send(&self, command: Command) {
        if self.sender.send(command).is_ok() {
            self.waker.wake();
        }
    }
}

/// Everything the data thread owns.
#[derive(Debug)]
pub(crate) struct Worker {
    device: Device,
    queues: Queues,
    sockets: Sockets,
    poller: Poller,
    waker: Arc<Waker>,
    commands: mpsc::Receiver<Command>,
    mtu: MtuWatch,
    inbound: Inbound,
    outbound: Outbound,
    received: ReceiveBatch,
    read: BytesMut,
}

/// Why the data thread ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

impl Worker {
    pub(crate) fn new(
        queues: Queues,
        rng: ChaCha20Rng,
        rekey_after_bytes: Option<u64>,
    ) -> io::Result<(Self, Commands)> {
        let (sender, commands) = mpsc::channel();
        let waker = Arc::new(Waker::new()?);
        let mut device = Device::new(rng, rekey_after_bytes, Instant::now());
        let sockets = Sockets::bind(0, 0)?;
        device.listen_port = sockets.port();
        let poller = Poller::new()?;
        poller.add(&waker, WAKE, Interest::Read)?;
        for (token, queue) in (QUEUES..).zip(queues.own()) {
            poller.add(queue, token, Interest::Read)?;
        }
        let worker = Self {
            device,
            mtu: MtuWatch::new(queues.first()),
            queues,
            sockets,
            poller,
            waker: Arc::clone(&waker),
            commands,
            inbound: Inbound::default(),
            outbound: Outbound::new(),
            received: ReceiveBatch::new(RECEIVE_SLOTS),
            read: BytesMut::with_capacity(MAX_PACKET),
        };
        worker.watch_sockets()?;
        Ok((worker, Commands { sender, waker }))
    }

    /// Runs until it is told to stop or the interface is deleted.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        loop {
            self.work_off_interface(Instant::now());
            let timeout = self
                .device
                .interface
                .poll_timeout()
                .map(|(at, _)| at.saturating_duration_since(Instant::now()));
            let ready = self.wait(timeout)?;
            let now = Instant::now();
            let mut flow = Flow::Continue;
            if ready.udp4 || ready.udp6 {
                flow = self.receive(&ready, now);
            }
            if flow == Flow::Continue {
                flow = self.read_queues(ready.queues, now);
            }
            if ready.wake && flow == Flow::Continue {
                flow = self.obey(now);
            }
            if flow == Flow::Stop {
                return Ok(());
            }
            self.device.interface.handle_timeout(&mut self.device.rng, now);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Ready> {
        let mut all = Ready::default();
        for ready in self.poller.wait(timeout)? {
            match ready.token {
                WAKE => all.wake = true,
                UDP4 => all.udp4 = true,
                UDP6 => all.udp6 = true,
                token => all.queues.insert(token - QUEUES),
            }
        }
        Ok(all)
    }

    fn watch_sockets(&self) -> io::Result<()> {
        self.poller.add(&self.sockets.v4, UDP4, Interest::Read)?;
        self.sockets.v6.as_ref().map_or(Ok(()), |v6| self.poller.add(v6, UDP6, Interest::Read))
    }

    /// Reads packets, seals them and sends them.
    fn read_queues(&mut self, ready: ReadySet, now: Instant) -> Flow {
        if ready.is_empty() {
            return Flow::Continue;
        }
        let mtu = self.mtu.current(self.queues.first(), now);
        let queues = self.queues.clone();
        let turn = queues.take_turn(ready, |queue| {
            self.read.clear();
            let Some(offload) = queue.receive(&mut self.read)? else { return Ok(None) };
            let read = std::mem::take(&mut self.read);
            self.route(offload, &read, mtu, now);
            self.read = read;
            if self.outbound.is_enough() {
                self.flush();
            }
            Ok(Some(self.read.len()))
        });
        self.flush();
        match turn {
            Ok(()) => {}
            Err(TunError::Gone) => return Flow::Stop,
            Err(error) => tracing::warn!(error = &error as &dyn Error, "reading the TUN failed"),
        }
        Flow::Continue
    }

    /// Seals a packet for the peer that its destination belongs to.
    fn route(&mut self, offload: Offload, bytes: &[u8], mtu: usize, now: Instant) {
        let Ok(packet) = Packet::parse(bytes) else { return };
        let Some(peer) = self.device.allowed_ips.peer_of(packet.destination()).copied() else {
            return;
        };
        self.seal(&peer, (offload, bytes), mtu, now);
    }

    fn seal(&mut self, peer: &PublicKey, packet: (Offload, &[u8]), mtu: usize, now: Instant) {
        let (offload, bytes) = packet;
        let Some(tunnel) = self.device.interface.tunnel(peer) else { return };
        let Some(session) = tunnel.session(now).cloned() else {
            if tunnel.endpoint().is_some() {
                self.device.stage(*peer, offload, bytes);
                self.device.initiate(peer, now);
            }
            return;
        };
        let Some(remote) = tunnel.endpoint().copied() else { return };
        let Ok(parts) = Segments::plan(&offload, bytes) else { return };
        if let Ok(true) = self.outbound.push((&session, remote), &parts, mtu, now) {
            self.device.handle_activity(peer, now);
        }
    }

    /// Receives messages, opens them and writes the packets.
    fn receive(&mut self, ready: &Ready, now: Instant) -> Flow {
        let mut flow = Flow::Continue;
        for socket in [
            Some(&self.sockets.v4).filter(|_| ready.udp4),
            self.sockets.v6.as_ref().filter(|_| ready.udp6),
        ]
        .into_iter()
        .flatten()
        {
            match socket.receive(&mut self.received) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    tracing::warn!(%error, "receiving failed");
                    continue;
                }
            }
            let (queues, mut received) = (&self.queues, self.received.datagrams());
            loop {
                let mut bytes = 0;
                let mut datagrams: [_; RECEIVE_SLOTS] = std::array::from_fn(|_| {
                    if bytes >= DELIVER_AT {
                        return None;
                    }
                    received.next().inspect(|datagram| bytes += datagram.bytes.len())
                });
                if bytes == 0 {
                    break;
                }
                self.inbound.open(&mut self.device, &mut datagrams, now);
                let mut sink = |offload: &Offload, pieces: &[&[u8]]| {
                    if let Err(TunError::Gone) = queues.send(offload, pieces) {
                        flow = Flow::Stop;
                    }
                };
                let batch = (&datagrams[..], Coalescer::new(queues.merging()));
                self.inbound.deliver(&mut self.device, batch, &mut sink, now);
            }
        }
        flow
    }

    /// Sends what the interface has to say and packets whose session has come.
    fn work_off_interface(&mut self, now: Instant) {
        while let Some(transmit) = self.device.interface.poll_transmit() {
            if let Some(remote) = transmit.endpoint {
                self.outbound.push_message(remote, &transmit.message);
            }
        }
        while let Some(event) = self.device.interface.poll_event() {
            match event {
                Event::SessionReady(session) => {
                    let peer = *session.peer();
                    let mtu = self.mtu.current(self.queues.first(), now);
                    for staged in self.device.take_staged(&peer) {
                        self.seal(&peer, (staged.offload, &staged.packet), mtu, now);
                        if self.outbound.is_enough() {
                            self.flush();
                        }
                    }
                }
                Event::HandshakeGivenUp { peer } => drop(self.device.take_staged(&peer)),
                Event::SessionAdded(_) | Event::SessionRemoved { .. } => {}
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        for (send, bytes) in self.outbound.sends() {
            if self.sockets.send(send, bytes) == Delivery::SourceGone {
                self.device.forget_source(&send.remote);
            }
        }
        self.outbound.clear();
    }

    /// Carries out commands.
    fn obey(&mut self, now: Instant) -> Flow {
        self.waker.reset();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Stop => return Flow::Stop,
                Command::Uapi { request, reply } => {
                    let answer = match request {
                        Request::Get => answer(&Zeroizing::new(self.device.describe()), Ok(())),
                        Request::Set(changes) => answer("", self.set(changes, now)),
                    };
                    // A client that went away needs no answer.
                    let _ = reply.send(answer);
                }
            }
        }
        Flow::Continue
    }

    fn set(&mut self, changes: Changes, now: Instant) -> Result<(), UapiError> {
        let os = |error: io::Error| UapiError::Os(error.raw_os_error().unwrap_or(libc::EIO));
        if let Some(mark) = changes.fwmark {
            self.sockets.set_mark(mark).map_err(os)?;
            self.device.fwmark = mark;
        }
        if let Some(port) = changes.listen_port
            && port != self.sockets.port()
        {
            let sockets = Sockets::bind(port, self.device.fwmark).map_err(os)?;
            // The old ones leave the poller by being closed.
            self.sockets = sockets;
            self.watch_sockets().map_err(os)?;
            self.device.listen_port = self.sockets.port();
        }
        self.device.apply(changes, now);
        Ok(())
    }
}

/// What a wait has brought.
#[derive(Debug, Default)]
struct Ready {
    queues: ReadySet,
    udp4: bool,
    udp6: bool,
    wake: bool,
}
