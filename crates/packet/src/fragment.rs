//! Splitting IPv4 packets as routers do (RFC 791, section 3.2). IPv6 has only its senders split (RFC 8200, section 5).

use std::ops::Range;

use crate::{
    ip::{IPV4_HEADER, Packet, Version},
    segment::write_ipv4_checksum,
};

/// The field of flags and offset.
const FLAGS: Range<usize> = 6..8;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
/// Where the fragment belongs, in eight bytes.
const OFFSET: u16 = 0x1fff;
/// An option of one byte that ends all.
const END_OF_OPTIONS: u8 = 0;
/// An option of one byte that does nothing.
const NO_OPERATION: u8 = 1;
/// Set in the type of an option that each fragment has.
const COPIED: u8 = 0x80;

/// Whether routers may split a packet: over IPv4, where its sender does not forbid it.
#[must_use]
pub fn may_be_split(packet: &Packet<'_>) -> bool {
    packet.version() == Version::V4 && flags(packet.bytes()) & DONT_FRAGMENT == 0
}

/// Gives the fragments of a complete packet in order, none longer than `mtu` bytes, or the packet itself if it is not; nothing
/// if it [must not be split](may_be_split) or `mtu` has no room for a header and eight bytes.
pub fn fragment(packet: &Packet<'_>, mtu: usize, mut each: impl FnMut(&[u8])) {
    let bytes = packet.bytes();
    if bytes.len() <= mtu {
        return each(bytes);
    }
    let first = packet.transport_offset();
    let room = mtu.saturating_sub(first) / 8 * 8;
    if !may_be_split(packet) || room == 0 {
        return;
    }
    let (before, data) = (flags(bytes), &bytes[first..]);
    let mut header = bytes[..first].to_vec();
    let mut fragment = Vec::with_capacity(mtu);
    for (index, part) in data.chunks(room).enumerate() {
        if index == 1 {
            keep_copied_options(&mut header);
        }
        fragment.clear();
        fragment.extend_from_slice(&header);
        fragment.extend_from_slice(part);
        let is_last = (index + 1) * room >= data.len();
        let more = if is_last { before & MORE_FRAGMENTS } else { MORE_FRAGMENTS };
        let offset = u16::try_from(index * room / 8).expect("a packet is below 64 KiB");
        // Where a hostile packet lies beyond the end of any, hosts refuse its fragments as well.
        let field = ((before & OFFSET) + offset).min(OFFSET) | more;
        fragment[FLAGS].copy_from_slice(&field.to_be_bytes());
        let length = u16::try_from(fragment.len()).expect("shorter than the packet");
        fragment[2..4].copy_from_slice(&length.to_be_bytes());
        write_ipv4_checksum(&mut fragment);
        each(&fragment);
    }
}

fn flags(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[FLAGS.start], packet[FLAGS.start + 1]])
}

/// Leaves the options that fragments after the first have.
fn keep_copied_options(header: &mut Vec<u8>) {
    let options = header.split_off(IPV4_HEADER);
    let mut rest = &options[..];
    while let [kind, ..] = *rest
        && kind != END_OF_OPTIONS
    {
        let length = match (kind, rest.get(1)) {
            (NO_OPERATION, _) => 1,
            (_, Some(length)) => usize::from(*length).max(2),
            (_, None) => break,
        };
        let Some((option, others)) = rest.split_at_checked(length) else { break };
        if kind & COPIED != 0 {
            header.extend_from_slice(option);
        }
        rest = others;
    }
    header.resize(header.len().next_multiple_of(4), END_OF_OPTIONS);
    let words = u8::try_from(header.len() / 4).expect("fifteen at most");
    header[0] = header[0] & 0xf0 | words;
}
