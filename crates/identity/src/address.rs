//! The addresses that a network's id proposes.
//!
//! Proposals are hashes, so that everybody arrives at the same ones without asking. What proves
//! an address is the certificate that names it.

use std::net::{Ipv4Addr, Ipv6Addr};

use minicbor::{Decode, Encode};

use crate::encoding::{array, sha256};
use crate::{DeviceId, GroupName, NetworkId};

/// The /48 of a network, out of fd00::/8 (RFC 4193).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UlaPrefix([u8; 6]);

/// The subnets of a network's /48, by the number that stands in the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Subnet {
    /// Relays.
    Relays = 1,
    /// Devices.
    Devices = 2,
    /// Services.
    Services = 3,
}

impl Subnet {
    /// The subnet in which a member of `groups` has its address.
    #[must_use]
    pub fn of_groups(groups: &[GroupName]) -> Self {
        if groups.contains(&GroupName::relay()) { Self::Relays } else { Self::Devices }
    }
}

/// The text is no prefix of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not an address with a prefix length.
    #[error("write a prefix as ADDRESS/LENGTH, for instance fd42:1337:beef::/48")]
    Malformed,
    /// The IPv6 prefix is not a /48 of fd00::/8.
    #[error("the IPv6 prefix of a network is a /48 that begins with fd (RFC 4193)")]
    NotUla,
    /// The IPv4 prefix is not a /16 of 100.64.0.0/10.
    #[error("the IPv4 prefix of a network is a /16 of 100.64.0.0/10")]
    NotShared,
}

/// The /48 that a network has unless it was set by hand: fd and 40 bits of a hash of its id.
#[must_use]
pub fn ula_prefix(network: NetworkId) -> UlaPrefix {
    let hash = sha256(&[b"shadowmesh/ula-prefix/v1", network.as_bytes()]);
    UlaPrefix([0xfd, hash[0], hash[1], hash[2], hash[3], hash[4]])
}

/// The /16 of 100.64.0.0/10 that a network has unless it was set by hand.
#[must_use]
pub fn ipv4_prefix(network: NetworkId) -> Ipv4Prefix {
    let hash = sha256(&[b"shadowmesh/ipv4-prefix/v1", network.as_bytes()]);
    Ipv4Prefix(64 | (hash[0] & 0x3f))
}

/// The 64 bits of an address that stand for a device.
///
/// The issuer raises `counter` until no other member has the address.
#[must_use]
pub fn interface_identifier(network: NetworkId, device: DeviceId, counter: u32) -> u64 {
    let hash = sha256(&[
        b"shadowmesh/interface-identifier/v1",
        network.as_bytes(),
        device.as_bytes(),
        &counter.to_be_bytes(),
    ]);
    u64::from_be_bytes(hash[..8].try_into().expect("a hash has more than 8 bytes"))
}

/// The address of `device` under the network's own prefix, in the subnet of devices.
#[must_use]
pub fn device_address(network: NetworkId, device: DeviceId, counter: u32) -> Ipv6Addr {
    let identifier = interface_identifier(network, device, counter);
    ula_prefix(network).address(Subnet::Devices, identifier)
}

impl UlaPrefix {
    /// The address with this prefix, subnet and interface identifier.
    #[must_use]
    pub fn address(&self, subnet: Subnet, identifier: u64) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[..6].copy_from_slice(&self.0);
        octets[6..8].copy_from_slice(&(subnet as u16).to_be_bytes());
        octets[8..].copy_from_slice(&identifier.to_be_bytes());
        octets.into()
    }

    /// The first address of the prefix.
    #[must_use]
    pub fn network(&self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[..6].copy_from_slice(&self.0);
        octets.into()
    }

    /// Whether `address` lies in the /48.
    #[must_use]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        address.octets()[..6] == self.0
    }

    /// Whether `address` lies in the /64 of `subnet`.
    #[must_use]
    pub fn subnet_contains(&self, subnet: Subnet, address: Ipv6Addr) -> bool {
        self.contains(address) && address.octets()[6..8] == (subnet as u16).to_be_bytes()
    }
}

impl TryFrom<[u8; 6]> for UlaPrefix {
    type Error = PrefixError;

    fn try_from(bytes: [u8; 6]) -> Result<Self, PrefixError> {
        if bytes[0] == 0xfd { Ok(Self(bytes)) } else { Err(PrefixError::NotUla) }
    }
}

impl std::fmt::Display for UlaPrefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/48", self.network())
    }
}

impl std::fmt::Debug for UlaPrefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UlaPrefix({self})")
    }
}

impl std::str::FromStr for UlaPrefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = text.split_once('/').ok_or(PrefixError::Malformed)?;
        let address: Ipv6Addr = address.parse().map_err(|_| PrefixError::Malformed)?;
        let octets = address.octets();
        let (prefix, rest) = octets.split_at(6);
        if length != "48" || rest.iter().any(|octet| *octet != 0) {
            return Err(PrefixError::NotUla);
        }
        <[u8; 6]>::try_from(prefix).map_err(|_| PrefixError::NotUla)?.try_into()
    }
}

impl<C> Encode<C> for UlaPrefix {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for UlaPrefix {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::try_from(array::<6>(d)?)
            .map_err(|_| minicbor::decode::Error::message("not a unique local prefix"))
    }
}

/// The /16 of a network, out of 100.64.0.0/10 (RFC 6598): for applications without IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4Prefix(u8);

impl Ipv4Prefix {
    /// The first address of the prefix.
    #[must_use]
    pub const fn network(&self) -> Ipv4Addr {
        Ipv4Addr::new(100, self.0, 0, 0)
    }

    /// The address of host number `host`; 0 and 65,535 are not for hosts.
    #[must_use]
    pub const fn address(&self, host: u16) -> Ipv4Addr {
        let [high, low] = host.to_be_bytes();
        Ipv4Addr::new(100, self.0, high, low)
    }

    /// Whether `address` lies in the /16.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.octets()[..2] == [100, self.0]
    }
}

impl TryFrom<u8> for Ipv4Prefix {
    type Error = PrefixError;

    fn try_from(second_octet: u8) -> Result<Self, PrefixError> {
        if second_octet & 0xc0 == 64 { Ok(Self(second_octet)) } else { Err(PrefixError::NotShared) }
    }
}

impl std::fmt::Display for Ipv4Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/16", self.network())
    }
}

impl std::fmt::Debug for Ipv4Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ipv4Prefix({self})")
    }
}

impl std::str::FromStr for Ipv4Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = text.split_once('/').ok_or(PrefixError::Malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| PrefixError::Malformed)?;
        let [100, second, 0, 0] = address.octets() else {
            return Err(PrefixError::NotShared);
        };
        if length == "16" { second.try_into() } else { Err(PrefixError::NotShared) }
    }
}

impl<C> Encode<C> for Ipv4Prefix {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u8(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Ipv4Prefix {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::try_from(d.u8()?)
            .map_err(|_| minicbor::decode::Error::message("not a prefix of 100.64.0.0/10"))
    }
}
