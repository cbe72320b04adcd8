//! Names under `ip6.arpa` and `in-addr.arpa` (RFC 3596 section 2.5, RFC 1035 section 3.5).

use std::net::IpAddr;

/// The addresses that a reverse name, or an address prefix, stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// The address, left-aligned in 128 bits; bits beyond `length` are zero.
    bits: u128,
    length: u32,
    family: Family,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits of a whole address and of one label.
    fn sizes(self) -> (u32, u32) {
        match self {
            Self::V4 => (32, 8),
            Self::V6 => (128, 4),
        }
    }
}

impl Block {
    /// The block of a prefix; `None` when it does not end between two labels.
    pub(crate) fn of_prefix(address: IpAddr, length: u8) -> Option<Self> {
        let family = Family::of(address);
        let (whole, step) = family.sizes();
        let length = u32::from(length);
        if length > whole || !length.is_multiple_of(step) {
            return None;
        }
        Some(Self { bits: left_aligned(address) & mask(length), length, family })
    }

    pub(crate) fn contains(&self, other: &Self) -> bool {
        self.family == other.family
            && self.length <= other.length
            && (self.bits ^ other.bits) & mask(self.length) == 0
    }

    pub(crate) fn contains_address(&self, address: IpAddr) -> bool {
        self.family == Family::of(address)
            && (self.bits ^ left_aligned(address)) & mask(self.length) == 0
    }

    /// The one address of the block, if it is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        if self.length != self.family.sizes().0 {
            return None;
        }
        Some(match self.family {
            Family::V4 => {
                let bits = u32::try_from(self.bits >> 96).expect("32 bits are left of 128");
                IpAddr::V4(bits.into())
            }
            Family::V6 => IpAddr::V6(self.bits.into()),
        })
    }

    /// The number of labels of the block's reverse name.
    pub(crate) fn label_count(&self) -> usize {
        usize::try_from(self.length / self.family.sizes().1 + 2).expect("at most 34 labels")
    }
}

/// A reverse name: the block that its well-formed end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReverseName {
    pub(crate) block: Block,
    /// Labels in front of it that no address has.
    pub(crate) malformed: bool,
}

/// Reads a reverse name from labels in lower case, in their written order.
pub(crate) fn parse(labels: &[Vec<u8>]) -> Option<ReverseName> {
    let (family, rest) = match labels {
        [rest @ .., kind, top] if top == b"arpa" && kind == b"ip6" => (Family::V6, rest),
        [rest @ .., kind, top] if top == b"arpa" && kind == b"in-addr" => (Family::V4, rest),
        _ => return None,
    };
    let (whole, step) = family.sizes();
    let mut block = Block { bits: 0, length: 0, family };
    for label in rest.iter().rev() {
        let part = match family {
            Family::V4 => octet(label).map(u128::from),
            Family::V6 => nibble(label).map(u128::from),
        };
        let Some(part) = part.filter(|_| block.length < whole) else {
            return Some(ReverseName { block, malformed: true });
        };
        block.length += step;
        block.bits |= part << (128 - block.length);
    }
    Some(ReverseName { block, malformed: false })
}

fn nibble(label: &[u8]) -> Option<u8> {
    let &[digit] = label else { return None };
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}

fn octet(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| canonical)
}

fn left_aligned(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn mask(length: u32) -> u128 {
    u128::MAX.checked_shl(128 - length).unwrap_or(0)
}
