//! Interfaces, addresses and routes, by rtnetlink, in the calling thread's network namespace
//! (see [`Namespace`] for another).
//!
//! Calls are short and synchronous. What is added to a TUN disappears with it; a [`Route`] through
//! another interface does not, so the
//! [`Journal`](crate::journal::Journal) keeps those.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use serde::{Deserialize, Serialize};

use crate::process::Namespace;

mod monitor;
mod netlink;

pub use monitor::{Change, Monitor, changes};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index, unique in the namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The loopback.
    pub loopback: bool,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalAddress {
    /// The address with the length of its network's prefix.
    pub address: IpNet,
    /// The interface that has it.
    pub interface: u32,
    /// Valid on one link or on this host only.
    pub local_scope: bool,
    /// Ready to be used: not tentative, duplicate or deprecated.
    pub usable: bool,
}

/// A route of the unicast kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// The interface it uses.
    pub interface: u32,
    /// The next router; none where the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Lower is preferred; none for the system's default.
    pub metric: Option<u32>,
    /// The table; none for the main one.
    pub table: Option<u32>,
}

impl Route {
    /// A route in the main table to what is on the link of `interface`.
    #[must_use]
    pub fn on_link(destination: IpNet, interface: u32) -> Self {
        Self { destination, interface, gateway: None, metric: None, table: None }
    }
}

/// The index of the interface `name`.
pub fn index_of(name: &str) -> io::Result<u32> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(netdevice::name_to_index(socket, name)?)
}

/// All interfaces.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut all = Vec::new();
    netlink::dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
        if let RouteNetlinkMessage::NewLink(link) = message {
            all.push(interface_of(&link));
        }
    })?;
    Ok(all)
}

/// All addresses of this host, loopback and link-local ones included, in order.
pub fn local_addresses() -> io::Result<Vec<LocalAddress>> {
    let mut all = Vec::new();
    netlink::dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
        if let RouteNetlinkMessage::NewAddress(address) = message {
            all.extend(local_address_of(&address));
        }
    })?;
    all.sort_unstable();
    Ok(all)
}

/// Sets the MTU of an interface, in bytes.
pub fn set_mtu(index: u32, mtu: u32) -> io::Result<()> {
    change_link(index, LinkFlags::empty(), vec![LinkAttribute::Mtu(mtu)])
}

/// Sets the length of the largest super-packet that the system hands to an interface.
pub fn set_super_packet(index: u32, length: u32) -> io::Result<()> {
    change_link(index, LinkFlags::empty(), vec![LinkAttribute::GsoMaxSize(length)])?;
    // Linux 6.3 and later have IPv4 apart.
    let _ = change_link(index, LinkFlags::empty(), vec![LinkAttribute::GsoIpv4MaxSize(length)]);
    Ok(())
}

/// Brings an interface up.
pub fn set_up(index: u32) -> io::Result<()> {
    change_link(index, LinkFlags::Up, Vec::new())
}

/// Moves an interface into another namespace, where it is down and without addresses.
pub fn move_to(index: u32, namespace: &Namespace) -> io::Result<()> {
    let attribute = LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd());
    change_link(index, LinkFlags::empty(), vec![attribute])
}

/// Deletes an interface.
pub fn remove(index: u32) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    netlink::request(RouteNetlinkMessage::DelLink(message), 0)
}

/// Gives an interface an address; one that is there already is no error. An IPv6 address is
/// ready at once, since nobody else on a tunnel can have it.
pub fn add_address(index: u32, address: IpNet) -> io::Result<()> {
    let mut message = address_message(index, address);
    if address.addr().is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    netlink::request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Takes an address away; one that is not there is no error.
pub fn remove_address(index: u32, address: IpNet) -> io::Result<()> {
    let message = RouteNetlinkMessage::DelAddress(address_message(index, address));
    absent_is_fine(netlink::request(message, 0))
}

/// Adds a route; one that is there already, by whomever, is an error of kind `AlreadyExists`.
pub fn add_route(route: &Route) -> io::Result<()> {
    netlink::request(RouteNetlinkMessage::NewRoute(route_message(route)), NLM_F_CREATE | NLM_F_EXCL)
}

/// Removes exactly this route; one that is not there is no error.
pub fn remove_route(route: &Route) -> io::Result<()> {
    let message = RouteNetlinkMessage::DelRoute(route_message(route));
    absent_is_fine(netlink::request(message, 0))
}

/// The unicast routes of all tables.
pub fn routes() -> io::Result<Vec<Route>> {
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        netlink::dump(RouteNetlinkMessage::GetRoute(message), |message| {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                all.extend(route_of(&route));
            }
        })?;
    }
    Ok(all)
}

/// The way that packets to an address would take now; none where there is none. Nothing is sent.
pub fn way_to(destination: IpAddr) -> io::Result<Option<Route>> {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(destination);
    message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
    message.attributes = vec![RouteAttribute::Destination(route_address(destination))];
    let mut way = None;
    let asked = netlink::question(RouteNetlinkMessage::GetRoute(message), |answer| {
        if let RouteNetlinkMessage::NewRoute(route) = answer {
            way = route_of(&route);
        }
    });
    match asked {
        Ok(()) => Ok(way),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The link-layer address of a neighbour, if the system has asked for it and has an answer. Nothing is sent.
pub fn hardware_address(interface: u32, neighbour: IpAddr) -> io::Result<Option<Vec<u8>>> {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of(neighbour);
    message.header.ifindex = interface;
    let address = match neighbour {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    message.attributes = vec![NeighbourAttribute::Destination(address)];
    let mut found = None;
    let asked = netlink::question(RouteNetlinkMessage::GetNeighbour(message), |answer| {
        if let RouteNetlinkMessage::NewNeighbour(neighbour) = answer {
            found = neighbour.attributes.into_iter().find_map(|attribute| {
                if let NeighbourAttribute::LinkLayerAddress(address) = attribute {
                    Some(address)
                } else {
                    None
                }
            });
        }
    });
    absent_is_fine(asked).map(|()| found)
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    let absent = [libc::ESRCH, libc::ENODEV, libc::ENOENT, libc::EADDRNOTAVAIL];
    match result {
        Err(error) if error.raw_os_error().is_some_and(|code| absent.contains(&code)) => Ok(()),
        other => other,
    }
}

fn change_link(index: u32, flags: LinkFlags, attributes: Vec<LinkAttribute>) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message.header.change_mask = flags;
    message.attributes = attributes;
    netlink::request(RouteNetlinkMessage::SetLink(message), 0)
}

fn interface_of(link: &LinkMessage) -> Interface {
    let flags = link.header.flags;
    let mut interface = Interface {
        index: link.header.index,
        name: String::new(),
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
    };
    for attribute in &link.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            interface.name.clone_from(name);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            interface.mtu = *mtu;
        }
    }
    interface
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Address(address.addr()), AddressAttribute::Local(address.addr())];
    message
}

fn local_address_of(message: &AddressMessage) -> Option<LocalAddress> {
    let (mut remote, mut local, mut flags) = (None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        if let AddressAttribute::Address(address) = attribute {
            remote = Some(*address);
        } else if let AddressAttribute::Local(address) = attribute {
            local = Some(*address);
        } else if let AddressAttribute::Flags(all) = attribute {
            flags = *all;
        }
    }
    // On a point-to-point link the first is the other end's.
    let address = IpNet::new(local.or(remote)?, message.header.prefix_len).ok()?;
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    Some(LocalAddress {
        address,
        interface: message.header.index,
        local_scope: message.header.scope != AddressScope::Universe,
        usable: !flags.intersects(unusable),
    })
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(route.destination.addr());
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = match route.gateway {
        None if route.destination.addr().is_ipv4() => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    let table = route.table.unwrap_or(RouteHeader::RT_TABLE_MAIN.into());
    message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes = vec![
        RouteAttribute::Destination(route_address(route.destination.network())),
        RouteAttribute::Oif(route.interface),
        RouteAttribute::Table(table),
    ];
    message
        .attributes
        .extend(route.gateway.map(|gateway| RouteAttribute::Gateway(route_address(gateway))));
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the protocol's enums, most of no concern")]
fn route_of(message: &RouteMessage) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let from = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let mut destination = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut interface, mut gateway, mut metric) = (None, None, None);
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = from(address)?,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => gateway = from(address),
            RouteAttribute::Priority(priority) => metric = Some(*priority),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    Some(Route {
        destination: IpNet::new(destination, message.header.destination_prefix_length).ok()?,
        interface: interface?,
        gateway,
        metric,
        table: (table != u32::from(RouteHeader::RT_TABLE_MAIN)).then_some(table),
    })
}
