use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use packet::{Coalescer, Packet, PacketSink};
use platform::udp::Datagram;
use wireguard_proto::{Session, TRANSPORT_HEADER_LEN, TRANSPORT_OVERHEAD, receiver_index};

use crate::device::Device;
use crate::remote::Remote;

/// Messages of one receive call on their way to the TUN device.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    /// Runs of messages of one session from one place.
    runs: Vec<Run>,
    opened: Vec<Opened>,
}

#[derive(Debug)]
struct Run {
    session: Arc<Session>,
    remote: Remote,
    /// Where its messages stand in `opened`.
    messages: Range<usize>,
    bytes: usize,
}

#[derive(Debug)]
struct Opened {
    counter: u64,
    datagram: usize,
    payload: Range<usize>,
    fresh: bool,
}

impl Inbound {
    /// Opens everything in `datagrams` in place; handshake messages go to the interface at once,
    /// packets wait for [`deliver`](Self::deliver).
    pub(crate) fn open(
        &mut self,
        device: &mut Device,
        datagrams: &mut [Option<Datagram<'_>>],
        now: Instant,
    ) {
        for (number, datagram) in datagrams.iter_mut().enumerate() {
            let Some(datagram) = datagram else { return };
            let remote = Remote { address: datagram.remote, source: datagram.local };
            let mut start = 0;
            for message in datagram.bytes.chunks_mut(datagram.segment.max(1)) {
                let place = (number, start);
                start += message.len();
                match receiver_index(message) {
                    Some(index) => self.open_packet(device, (message, place), (index, remote), now),
                    // What is wrong with a handshake concerns only its sender.
                    None => {
                        let rng = &mut device.rng;
                        drop(device.interface.handle_datagram(message, remote, rng, now));
                    }
                }
            }
        }
    }

    fn open_packet(
        &mut self,
        device: &Device,
        (message, place): (&mut [u8], (usize, usize)),
        (index, remote): (u32, Remote),
        now: Instant,
    ) {
        if !self.runs.last().is_some_and(|run| run.continues(index, &remote)) {
            let Some(session) = device.interface.session(index) else { return };
            let messages = self.opened.len()..self.opened.len();
            self.runs.push(Run { session: Arc::clone(session), remote, messages, bytes: 0 });
        }
        let Some(run) = self.runs.last_mut() else { return };
        let Ok(counter) = run.session.decrypt(message, now) else { return };
        let (datagram, start) = place;
        let payload = start + TRANSPORT_HEADER_LEN
            ..start + TRANSPORT_HEADER_LEN + message.len() - TRANSPORT_OVERHEAD;
        self.opened.push(Opened { counter, datagram, payload, fresh: false });
        run.messages.end = self.opened.len();
        run.bytes += message.len();
    }

    /// Hands the packets that are new, and come from where their peer may send, to `sink`.
    pub(crate) fn deliver<'a>(
        &mut self,
        device: &mut Device,
        (datagrams, mut coalescer): (&'a [Option<Datagram<'a>>], Coalescer<'a>),
        sink: &mut impl PacketSink,
        now: Instant,
    ) {
        for run in &self.runs {
            let opened = &mut self.opened[run.messages.clone()];
            if !run.mark_fresh(opened) {
                continue;
            }
            let peer = run.session.peer();
            let mut data = false;
            let mut allowed = None;
            for message in opened.iter().filter(|message| message.fresh) {
                let Some(datagram) = &datagrams[message.datagram] else { continue };
                let bytes = &datagram.bytes[message.payload.clone()];
                if bytes.is_empty() {
                    continue;
                }
                data = true;
                let Ok(packet) = Packet::parse(bytes) else { continue };
                let source = Some(packet.source());
                if source != allowed {
                    if device.allowed_ips.peer_of(packet.source()) != Some(peer) {
                        continue;
                    }
                    allowed = source;
                }
                coalescer.push(packet, sink);
            }
            device.interface.handle_endpoint(peer, &run.remote);
            let bytes = u64::try_from(run.bytes).unwrap_or(u64::MAX);
            if run.session.record_received(bytes, data, now) {
                device.handle_activity(peer, now);
            }
        }
        coalescer.finish(sink);
        self.runs.clear();
        self.opened.clear();
    }
}

impl Run {
    fn continues(&self, index: u32, remote: &Remote) -> bool {
        self.session.local_index() == index && self.remote == *remote
    }

    /// Tells new messages from replays under one lock; false when none is new.
    fn mark_fresh(&self, opened: &mut [Opened]) -> bool {
        let mut window = self.session.replay_window();
        for message in &mut *opened {
            message.fresh = window.accept(message.counter);
        }
        opened.iter().any(|message| message.fresh)
    }
}
