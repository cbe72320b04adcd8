//! The Internet checksum (RFC 1071), its incremental update (RFC 1624) and the pseudo-headers
//! of TCP and UDP (RFC 9293 section 3.1, RFC 8200 section 8.1).

use std::net::IpAddr;

use crate::ip::Protocol;

/// Bytes that one step of the vectorised loop takes.
const BLOCK: usize = 64;
const LANES: usize = BLOCK / 4;

/// A running ones'-complement sum, not yet folded, in the byte order of memory.
///
/// Sums of slices of even length can be added in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// Sums `bytes`; an odd last byte counts as if a zero followed.
    pub fn of(bytes: &[u8]) -> Self {
        let mut lanes = [0_u64; LANES];
        let mut blocks = bytes.chunks_exact(BLOCK);
        for block in &mut blocks {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
                *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            }
        }
        let mut sum = lanes.iter().sum::<u64>();
        let mut words = blocks.remainder().chunks_exact(4);
        for word in &mut words {
            sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
        let mut last = [0; 4];
        let rest = words.remainder();
        last[..rest.len()].copy_from_slice(rest);
        Self(sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// Sums the pseudo-header of a transport `length` bytes long.
    pub fn pseudo_header(
        source: IpAddr,
        destination: IpAddr,
        protocol: Protocol,
        length: usize,
    ) -> Self {
        let of = |address: IpAddr| match address {
            IpAddr::V4(v4) => Self::of(&v4.octets()),
            IpAddr::V6(v6) => Self::of(&v6.octets()),
        };
        of(source) + of(destination) + Self::lengths(protocol, length)
    }

    /// Sums the pseudo-header from the addresses as they stand in a packet, side by side.
    pub(crate) fn pseudo_of(addresses: &[u8], protocol: Protocol, length: usize) -> Self {
        Self::of(addresses) + Self::lengths(protocol, length)
    }

    fn lengths(protocol: Protocol, length: usize) -> Self {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Self(u64::from(length.to_be()) + u64::from(u16::from(protocol.0).to_be()))
    }

    /// Folds to 16 bits, without the final complement, as bytes of the packet.
    #[must_use]
    pub fn fold(self) -> [u8; 2] {
        let mut sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).expect("the loop ends at 16 bits").to_ne_bytes()
    }

    /// The checksum field that makes the summed bytes, this field included, valid.
    #[must_use]
    pub fn checksum(self) -> [u8; 2] {
        let [high, low] = self.fold();
        [!high, !low]
    }

    /// Whether the summed bytes, checksum field included, are valid.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.fold() == [0xff, 0xff]
    }
}

impl std::ops::Add for Sum {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// The checksum field after a 16-bit word of the covered bytes changed from `old` to `new`
/// (RFC 1624, equation 3).
#[must_use]
pub fn update(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let complement = |[high, low]: [u8; 2]| u64::from(u16::from_ne_bytes([!high, !low]));
    let sum = complement(checksum) + complement(old) + u64::from(u16::from_ne_bytes(new));
    Sum(sum).checksum()
}
