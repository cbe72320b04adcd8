//! Joining packets of one flow into super-packets.
//!
//! The packets of a batch arrive in the order in which the sender split them, so one open run is
//! enough: a packet that continues it is added, any other ends it.

use crate::{
    checksum::Sum,
    ip::{Packet, Protocol, Version},
    offload::{Layout, MAX_HEADER, Offload, Segmentation},
    segment::write_ipv4_checksum,
    tcp, udp,
};

/// Parts of one run: the kernel refuses more fragments than this in one packet of 64 KiB.
const MAX_PARTS: usize = 64;
/// The header and the payloads.
const MAX_PIECES: usize = MAX_PARTS + 1;
/// The longest super-packet.
const MAX_LENGTH: usize = 65_535;
/// A receiver without GRO gets a UDP run as a burst into its socket buffer of a few hundred
/// KiB at best, so runs of datagrams stay short.
const MAX_DATAGRAMS: usize = 16;

/// Which runs the receiver of super-packets can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merging {
    /// Runs of TCP segments.
    pub tcp: bool,
    /// Runs of UDP datagrams.
    pub udp: bool,
}

impl Merging {
    /// Both kinds.
    pub const ALL: Self = Self { tcp: true, udp: true };
    /// Every packet alone.
    pub const NONE: Self = Self { tcp: false, udp: false };
}

/// Where finished packets go.
pub trait PacketSink {
    /// Takes one packet or super-packet, given as slices in order.
    fn accept(&mut self, offload: &Offload, pieces: &[&[u8]]);
}

impl<F: FnMut(&Offload, &[&[u8]])> PacketSink for F {
    fn accept(&mut self, offload: &Offload, pieces: &[&[u8]]) {
        self(offload, pieces);
    }
}

/// Joins packets that live as long as the batch `'a` they came in.
///
/// [`push`](Self::push) each packet in order, then [`finish`](Self::finish). Everything comes
/// out at the sink, in order, each packet alone or in a run.
#[derive(Debug)]
pub struct Coalescer<'a> {
    merging: Merging,
    run: Option<Run<'a>>,
    payloads: [&'a [u8]; MAX_PARTS],
}

#[derive(Debug)]
struct Run<'a> {
    first: Packet<'a>,
    layout: Layout,
    parts: usize,
    /// Length of the merged packet.
    length: usize,
    /// Payload bytes of each part but the last.
    size: usize,
    /// The TCP sequence number, or the IPv4 identification, that comes next.
    next_sequence: u32,
    next_identification: u16,
    last_flags: u8,
    /// The first packet's checksum was found good.
    verified: bool,
    /// Nothing may follow: a shorter part, PSH or FIN came.
    ended: bool,
}

impl<'a> Coalescer<'a> {
    /// A coalescer for one batch, joining what `merging` allows.
    #[must_use]
    pub fn new(merging: Merging) -> Self {
        Self { merging, run: None, payloads: [&[]; MAX_PARTS] }
    }

    /// Adds a packet; what it completes goes to `sink`.
    pub fn push(&mut self, packet: Packet<'a>, sink: &mut impl PacketSink) {
        let merging = self.merging;
        let allowed = |layout: &Layout| if layout.tcp { merging.tcp } else { merging.udp };
        let Some(layout) = mergeable(&packet).filter(allowed) else {
            self.finish(sink);
            return sink.accept(&Offload::default(), &[packet.bytes()]);
        };
        if self.extend(&packet, layout) {
            return;
        }
        self.finish(sink);
        self.payloads[0] = &packet.bytes()[layout.header..];
        self.run = Some(Run::new(packet, layout));
    }

    /// Ends the batch: an open run goes to `sink`.
    pub fn finish(&mut self, sink: &mut impl PacketSink) {
        let Some(run) = self.run.take() else { return };
        if run.parts == 1 {
            return sink.accept(&Offload::default(), &[run.first.bytes()]);
        }
        let mut header = [0; MAX_HEADER];
        let header = &mut header[..run.layout.header];
        let offload = run.describe(header);
        let mut pieces: [&[u8]; MAX_PIECES] = [&[]; MAX_PIECES];
        pieces[0] = header;
        pieces[1..=run.parts].copy_from_slice(&self.payloads[..run.parts]);
        sink.accept(&offload, &pieces[..=run.parts]);
    }

    fn extend(&mut self, packet: &Packet<'a>, layout: Layout) -> bool {
        let Some(run) = &mut self.run else { return false };
        if !run.continues(packet, &layout) || !packet.transport_checksum_is_valid() {
            return false;
        }
        if !run.verified && !run.first.transport_checksum_is_valid() {
            return false;
        }
        run.verified = true;
        self.payloads[run.parts] = &packet.bytes()[layout.header..];
        run.add(packet, &layout);
        true
    }
}

/// The layout of a packet that could be part of a run: data of a TCP flow that only acknowledges,
/// or a datagram with a checksum; no IPv4 options, extension headers or congestion signals in TCP.
fn mergeable(packet: &Packet<'_>) -> Option<Layout> {
    let plain = match packet.version() {
        Version::V4 => crate::ip::IPV4_HEADER,
        Version::V6 => crate::ip::IPV6_HEADER,
    };
    if packet.transport_offset() != plain {
        return None;
    }
    if packet.version() == Version::V4 && packet.check_header().is_err() {
        return None;
    }
    let layout = Layout::of(packet).ok().filter(|layout| layout.payload > 0)?;
    let payload = packet.payload();
    if layout.tcp {
        let ends = tcp::Flags::PSH.0 | tcp::Flags::FIN.0;
        let flags = payload[tcp::FLAGS] & !ends & !tcp::Flags::ECE.0;
        return (flags == tcp::Flags::ACK.0).then_some(layout);
    }
    let length = usize::from(u16::from_be_bytes([payload[4], payload[5]]));
    let whole = length == payload.len();
    let summed = payload[udp::CHECKSUM..udp::HEADER] != [0, 0];
    (whole && summed).then_some(layout)
}

impl<'a> Run<'a> {
    fn new(first: Packet<'a>, layout: Layout) -> Self {
        let mut run = Self {
            first,
            layout,
            parts: 0,
            length: layout.header,
            size: layout.payload,
            next_sequence: 0,
            next_identification: 0,
            last_flags: 0,
            verified: false,
            ended: false,
        };
        run.add(&first, &layout);
        run
    }

    fn add(&mut self, packet: &Packet<'a>, layout: &Layout) {
        let bytes = packet.bytes();
        self.parts += 1;
        self.length += layout.payload;
        self.ended = layout.payload < self.size;
        if layout.tcp {
            let payload = u32::try_from(layout.payload).expect("a packet is below 64 KiB");
            self.next_sequence = sequence(bytes, layout).wrapping_add(payload);
            self.last_flags = bytes[layout.transport + tcp::FLAGS];
            self.ended |= self.last_flags & (tcp::Flags::PSH.0 | tcp::Flags::FIN.0) != 0;
        }
        if layout.version == Version::V4 {
            self.next_identification = u16::from_be_bytes([bytes[4], bytes[5]]).wrapping_add(1);
        }
    }

    /// Whether `packet` is the next part: same flow and header, next in sequence, not longer.
    fn continues(&self, packet: &Packet<'a>, layout: &Layout) -> bool {
        let limit = if self.layout.tcp { MAX_PARTS } else { MAX_DATAGRAMS };
        if self.ended
            || self.parts >= limit
            || layout.payload > self.size
            || self.length + layout.payload > MAX_LENGTH
            || layout.header != self.layout.header
            || layout.tcp != self.layout.tcp
            || layout.version != self.layout.version
        {
            return false;
        }
        let (first, next) = (self.first.bytes(), packet.bytes());
        self.same_network_header(first, next) && self.same_transport_header(first, next)
    }

    fn same_network_header(&self, first: &[u8], next: &[u8]) -> bool {
        match self.layout.version {
            // All but length, identification and checksum. The identification counts up, unless
            // fragmentation is forbidden and it means nothing (RFC 6864).
            Version::V4 => {
                let atomic = next[6] & 0x40 != 0;
                let identification = u16::from_be_bytes([next[4], next[5]]);
                first[..2] == next[..2]
                    && first[6..10] == next[6..10]
                    && first[12..20] == next[12..20]
                    && (atomic || identification == self.next_identification)
            }
            // All but the length.
            Version::V6 => first[..4] == next[..4] && first[6..40] == next[6..40],
        }
    }

    fn same_transport_header(&self, first: &[u8], next: &[u8]) -> bool {
        let at = self.layout.transport;
        if first[at..at + 4] != next[at..at + 4] {
            return false;
        }
        if !self.layout.tcp {
            return true;
        }
        let ends = tcp::Flags::PSH.0 | tcp::Flags::FIN.0;
        let flags = at + tcp::FLAGS;
        sequence(next, &self.layout) == self.next_sequence
            && first[at + 8..flags] == next[at + 8..flags]
            && (first[flags] ^ next[flags]) & !ends == 0
            && first[flags + 1..at + tcp::CHECKSUM] == next[flags + 1..at + tcp::CHECKSUM]
            && first[at + 18..self.layout.header] == next[at + 18..self.layout.header]
    }

    /// Writes the header of the merged packet and says how to split it again.
    fn describe(&self, header: &mut [u8]) -> Offload {
        let Layout { version, transport, .. } = self.layout;
        header.copy_from_slice(&self.first.bytes()[..header.len()]);
        let short = |length: usize| u16::try_from(length).expect("runs end at 65,535 bytes");
        match version {
            Version::V4 => {
                header[2..4].copy_from_slice(&short(self.length).to_be_bytes());
                write_ipv4_checksum(header);
            }
            Version::V6 => {
                let payload = short(self.length - crate::ip::IPV6_HEADER);
                header[4..6].copy_from_slice(&payload.to_be_bytes());
            }
        }
        if self.layout.tcp {
            header[transport + tcp::FLAGS] = self.last_flags;
        } else {
            let length = short(self.length - transport);
            header[transport + 4..transport + 6].copy_from_slice(&length.to_be_bytes());
        }
        let field = transport + self.layout.checksum_offset();
        let protocol = self.layout.protocol();
        let pseudo = Sum::pseudo_of(self.first.addresses(), protocol, self.length - transport);
        header[field..field + 2].copy_from_slice(&pseudo.fold());
        Offload {
            needs_checksum: true,
            segmentation: match (protocol, version) {
                (Protocol::TCP, Version::V4) => Segmentation::Tcp4,
                (Protocol::TCP, Version::V6) => Segmentation::Tcp6,
                _ => Segmentation::Udp,
            },
            header_length: short(self.layout.header),
            segment_size: short(self.size),
            checksum_start: short(transport),
            checksum_offset: short(self.layout.checksum_offset()),
        }
    }
}

fn sequence(bytes: &[u8], layout: &Layout) -> u32 {
    let at = layout.transport + 4;
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
