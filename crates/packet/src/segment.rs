//! Splitting a super-packet into packets of the path's size.

use crate::{
    checksum::Sum,
    ip::{Packet, Version},
    offload::{Layout, Offload, OffloadError, Segmentation, complete_checksum},
    tcp, udp,
};

/// The plan of splitting one packet or super-packet; [`write`](Self::write) gives each part.
///
/// A packet without segmentation is a plan of one part, so callers need no second way.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    packet: &'a [u8],
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Single(Offload),
    Split(Split),
}

#[derive(Clone, Copy, Debug)]
struct Split {
    layout: Layout,
    size: usize,
    count: usize,
}

impl<'a> Segments<'a> {
    /// Plans the parts of `packet`, which must be as long as its IP header says (longer is cut).
    pub fn plan(offload: &Offload, packet: &'a [u8]) -> Result<Self, OffloadError> {
        if offload.segmentation == Segmentation::None {
            let end = usize::from(offload.checksum_start) + usize::from(offload.checksum_offset);
            if offload.needs_checksum && end + 2 > packet.len() {
                return Err(OffloadError::Bounds);
            }
            return Ok(Self { packet, kind: Kind::Single(*offload) });
        }
        let view = Packet::parse(packet).map_err(|_| OffloadError::Bounds)?;
        let layout = Layout::of(&view)?;
        layout.check_segmentation(offload)?;
        let size = usize::from(offload.segment_size);
        let count = layout.payload.div_ceil(size);
        Ok(Self { packet: view.bytes(), kind: Kind::Split(Split { layout, size, count }) })
    }

    /// The packet or super-packet that is split.
    #[must_use]
    pub fn whole(&self) -> &'a [u8] {
        self.packet
    }

    /// How many parts there are, at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        match self.kind {
            Kind::Single(_) => 1,
            Kind::Split(split) => split.count,
        }
    }

    /// The length of part `index`, headers included; all but the last are equal.
    #[must_use]
    pub fn length(&self, index: usize) -> usize {
        match self.kind {
            Kind::Single(_) => self.packet.len(),
            Kind::Split(split) => split.layout.header + split.payload(index),
        }
    }

    /// The length of the longest part: what has to fit the path.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.length(0)
    }

    /// Writes part `index`, complete with its checksums, into `out`.
    ///
    /// # Panics
    /// If `index` is not below [`count`](Self::count), or `out` not [`length`](Self::length) long.
    pub fn write(&self, index: usize, out: &mut [u8]) {
        assert!(index < self.count(), "part {index} of {}", self.count());
        match self.kind {
            Kind::Single(offload) => {
                out.copy_from_slice(self.packet);
                if offload.needs_checksum {
                    complete_checksum(&offload, out).expect("bounds were checked by the plan");
                }
            }
            Kind::Split(split) => split.write(self.packet, index, out),
        }
    }
}

impl Split {
    fn payload(&self, index: usize) -> usize {
        self.size.min(self.layout.payload.saturating_sub(index * self.size))
    }

    fn write(&self, packet: &[u8], index: usize, out: &mut [u8]) {
        let Layout { header, transport, .. } = self.layout;
        let from = header + index * self.size;
        out[..header].copy_from_slice(&packet[..header]);
        out[header..].copy_from_slice(&packet[from..from + self.payload(index)]);
        write_lengths(self.layout.version, index, out);
        if self.layout.tcp {
            let sequence = &mut out[transport + 4..transport + 8];
            let first = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
            let shift = u32::try_from(index * self.size).expect("a packet is below 64 KiB");
            sequence.copy_from_slice(&first.wrapping_add(shift).to_be_bytes());
            self.write_flags(index, &mut out[transport + tcp::FLAGS]);
        } else {
            let length = u16::try_from(out.len() - transport).expect("a packet is below 64 KiB");
            out[transport + 4..transport + 6].copy_from_slice(&length.to_be_bytes());
        }
        self.write_checksum(out);
    }

    /// FIN and PSH belong to the last part only, CWR to the first only.
    fn write_flags(&self, index: usize, flags: &mut u8) {
        if index + 1 < self.count {
            *flags &= !(tcp::Flags::FIN.0 | tcp::Flags::PSH.0);
        }
        if index > 0 {
            *flags &= !tcp::Flags::CWR.0;
        }
    }

    fn write_checksum(&self, out: &mut [u8]) {
        let transport = self.layout.transport;
        let addresses = match self.layout.version {
            Version::V4 => 12..20,
            Version::V6 => 8..40,
        };
        let field = transport + self.layout.checksum_offset();
        out[field..field + 2].fill(0);
        let length = out.len() - transport;
        let pseudo = Sum::pseudo_of(&out[addresses], self.layout.protocol(), length);
        let mut checksum = (pseudo + Sum::of(&out[transport..])).checksum();
        if checksum == [0, 0] && self.layout.checksum_offset() == udp::CHECKSUM {
            checksum = [0xff, 0xff];
        }
        out[field..field + 2].copy_from_slice(&checksum);
    }
}

/// Writes the length fields of the IP header, moves the IPv4 identification on by `index`, and
/// completes the IPv4 header checksum.
pub(crate) fn write_lengths(version: Version, index: usize, packet: &mut [u8]) {
    match version {
        Version::V4 => {
            let total = u16::try_from(packet.len()).expect("a packet is below 64 KiB");
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            let step = u16::try_from(index).expect("a packet has fewer parts than bytes");
            let identification = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(step);
            packet[4..6].copy_from_slice(&identification.to_be_bytes());
            write_ipv4_checksum(packet);
        }
        Version::V6 => {
            let payload = packet.len() - crate::ip::IPV6_HEADER;
            let payload = u16::try_from(payload).expect("a packet is below 64 KiB");
            packet[4..6].copy_from_slice(&payload.to_be_bytes());
        }
    }
}

/// Completes the checksum of the IPv4 header at the start of `packet`.
pub(crate) fn write_ipv4_checksum(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 0x0f) * 4;
    packet[10..12].fill(0);
    let checksum = Sum::of(&packet[..header]).checksum();
    packet[10..12].copy_from_slice(&checksum);
}
