//! What makes a device a member: certificates, the grants in invites, and renewals.

use std::net::Ipv6Addr;

use minicbor::{Decode, Encode};

use crate::{
    DeviceId, DeviceName, GroupName, NetworkId, Serial, SignerId, Statement, StatementHash, Subnet,
    UlaPrefix, Validity, interface_identifier,
};

/// The most groups that a device can be in.
pub const MAX_GROUPS: usize = 32;

/// A device is a member. Signed by a key of scope [`Scope::Issue`](crate::Scope::Issue), or by an
/// invite key within its [`InviteGrant`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Certificate {
    /// The member.
    #[n(0)]
    pub device: DeviceId,
    /// Its name.
    #[n(1)]
    pub name: DeviceName,
    /// Its groups, at most [`MAX_GROUPS`].
    #[n(2)]
    pub groups: Vec<GroupName>,
    /// Its address, which this certificate proves.
    #[n(3)]
    pub address: Ipv6Addr,
    /// How often the proposed address was taken; see [`interface_identifier`](fn@crate::interface_identifier).
    #[n(4)]
    pub counter: u32,
    /// When it is a member, unless a renewal says otherwise.
    #[n(5)]
    pub validity: Validity,
    /// The number of this membership.
    #[n(6)]
    pub serial: Serial,
}

impl Statement for Certificate {
    const PURPOSE: &'static str = "certificate";
    const MAX_SIZE: usize = 4096;
}

/// An invite key may certify one device. Signed by a key of scope
/// [`Scope::Issue`](crate::Scope::Issue).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct InviteGrant {
    /// The invite key.
    #[n(0)]
    pub key: SignerId,
    /// The name that the device must have; nothing lets it choose.
    #[n(1)]
    pub name: Option<DeviceName>,
    /// The groups that the device may have.
    #[n(2)]
    pub groups: Vec<GroupName>,
    /// Whether the device counts only once a renewal has approved it.
    #[n(3)]
    pub needs_approval: bool,
    /// When the invite may be used.
    #[n(4)]
    pub validity: Validity,
    /// The longest validity of the certificate, in seconds.
    #[n(5)]
    pub max_validity: u64,
    /// The number that the membership will have.
    #[n(6)]
    pub serial: Serial,
    /// The prefix out of which the device takes its address.
    #[n(7)]
    pub prefix: UlaPrefix,
}

impl Statement for InviteGrant {
    const PURPOSE: &'static str = "invite-grant";
    const MAX_SIZE: usize = 4096;
}

impl InviteGrant {
    /// The address that `device` has by this invite, in the subnet of relays if it is one.
    #[must_use]
    pub fn address(
        &self,
        network: NetworkId,
        device: DeviceId,
        groups: &[GroupName],
        counter: u32,
    ) -> Ipv6Addr {
        let subnet = Subnet::of_groups(groups);
        self.prefix.address(subnet, interface_identifier(network, device, counter))
    }
}

/// A membership is approved, or goes on. Signed by a key of scope
/// [`Scope::Renew`](crate::Scope::Renew); it changes nothing but the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Renewal {
    /// The envelope of the certificate that goes on.
    #[n(0)]
    pub certificate: StatementHash,
    /// The member.
    #[n(1)]
    pub device: DeviceId,
    /// When it is a member, in place of the certificate's own validity.
    #[n(2)]
    pub validity: Validity,
}

impl Statement for Renewal {
    const PURPOSE: &'static str = "renewal";
}
