//! Where packets go on this host: a TUN interface for each network, or one userspace stack for all.

use std::io;

use bytes::BytesMut;
use engine::{HostPacket, InterfaceSettings};

use crate::{
    data::{DataThreads, Outlet},
    directory::Directory,
    interface::Interface,
    udp::{Inbox, Sockets},
    userspace::{StackWay, Userspace},
};

/// What a network needs of the host, before its engine exists.
#[derive(Debug)]
pub(crate) enum HostPlan {
    /// The stack that all networks share; the loop itself has the UDP sockets.
    Userspace { way: StackWay, udp: Sockets },
    /// An interface; so many data threads work between its queues and the UDP sockets.
    Tun { interface: Interface, threads: usize, sockets: Sockets },
}

impl HostPlan {
    pub(crate) fn userspace(userspace: &Userspace, udp: Sockets) -> Self {
        Self::Userspace { way: userspace.way(), udp }
    }

    /// The UDP sockets.
    pub(crate) fn sockets(&self) -> &Sockets {
        match self {
            Self::Userspace { udp: sockets, .. } | Self::Tun { sockets, .. } => sockets,
        }
    }
}

/// One network's way to the host.
#[derive(Debug)]
pub(crate) enum Host {
    Userspace { way: StackWay, udp: Inbox },
    Tun(TunHost),
}

/// An interface at work; it disappears with this value.
#[derive(Debug)]
pub(crate) struct TunHost {
    name: String,
    interface: Interface,
    sockets: Sockets,
    threads: DataThreads,
}

impl Host {
    /// Begins to move packets.
    pub(crate) fn start(plan: HostPlan, outlet: &Outlet) -> io::Result<Self> {
        match plan {
            HostPlan::Userspace { way, udp } => Ok(Self::Userspace { way, udp: Inbox::new(udp)? }),
            HostPlan::Tun { interface, threads, sockets } => {
                let name = interface.name().to_owned();
                let threads = DataThreads::start(interface.queues().clone(), threads, outlet)?;
                Ok(Self::Tun(TunHost { name, interface, sockets, threads }))
            }
        }
    }

    /// The UDP sockets that the loop itself reads.
    pub(crate) fn inbox(&self) -> Option<&Inbox> {
        match self {
            Self::Userspace { udp, .. } => Some(udp),
            Self::Tun(_) => None,
        }
    }

    /// The UDP sockets.
    pub(crate) fn sockets(&self) -> &Sockets {
        match self {
            Self::Userspace { udp, .. } => udp.sockets(),
            Self::Tun(host) => &host.sockets,
        }
    }

    /// Delivers a packet; one that finds the queue full is lost, as on any wire.
    pub(crate) fn deliver(&self, packet: &HostPacket) {
        match self {
            Self::Userspace { way, .. } => packet.split(|part| {
                let _ = way.packets.try_send(BytesMut::from(part));
            }),
            Self::Tun(host) => host.threads.deliver(packet),
        }
    }

    /// The interface's name and index.
    pub(crate) fn interface(&self) -> Option<(&str, u32)> {
        match self {
            Self::Userspace { .. } => None,
            Self::Tun(host) => Some((&host.name, host.interface.index())),
        }
    }

    /// To what those who may connect get through.
    pub(crate) fn reach(&self) -> String {
        match self {
            Self::Tun(_) => "to every port that this host's own firewall lets through".to_owned(),
            Self::Userspace { way, .. } if way.published.is_empty() => {
                "but no port is published".to_owned()
            }
            Self::Userspace { way, .. } => {
                let ports: Vec<String> = way.published.iter().map(u16::to_string).collect();
                format!("to the published ports only: {}", ports.join(", "))
            }
        }
    }

    /// Takes the network's addresses back; the userspace stack outlives it, an interface does not.
    pub(crate) fn end(&self, directory: &Directory) {
        match self {
            Self::Userspace { way, .. } => way.stack.set_addresses(&directory.own_addresses()),
            Self::Tun(_) => {}
        }
    }

    /// Takes over this device's addresses and the network's prefixes.
    pub(crate) fn configure(&mut self, settings: &InterfaceSettings, directory: &Directory) {
        match self {
            Self::Userspace { way, .. } => way.stack.set_addresses(&directory.own_addresses()),
            Self::Tun(host) => host.interface.configure(settings),
        }
    }
}
