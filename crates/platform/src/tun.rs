//! TUN devices: IP packets and super-packets of the host, read and written with their
//! [`Offload`].

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use bytes::BytesMut;
use packet::{Merging, Offload};

use crate::{Delivery, linux::tun as sys};

/// The largest super-packet asked of the host: 44 segments of a 1420-byte MTU, which, sealed one
/// by one, still fit one UDP send of 65,507 bytes.
pub const SUPER_PACKET: u32 = 60_720;
/// Room for any packet that a read can bring.
pub const MAX_PACKET: usize = 65_536;

/// Where the TUN comes from.
#[derive(Debug)]
pub enum Device {
    /// The cloning device to open.
    Path(PathBuf),
    /// An open descriptor of it, attached to an interface already or not.
    Open(OwnedFd),
}

impl Device {
    /// A descriptor of the cloning device that this process inherited under `number`; it is
    /// duplicated, and the number stays open.
    pub fn inherited(number: i32) -> io::Result<Self> {
        sys::inherited(number).map(Self::Open)
    }

    /// Where further queues come from.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Path(path) => Some(path.clone()),
            Self::Open(_) => None,
        }
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::Path(PathBuf::from("/dev/net/tun"))
    }
}

/// How to make a TUN.
#[derive(Debug)]
pub struct TunConfig {
    /// Name of the interface; one with `%d` is completed by the system.
    pub name: String,
    /// Where it comes from.
    pub device: Device,
    /// MTU to set, in bytes; none leaves it.
    pub mtu: Option<u32>,
    /// Ask for super-packets. Without, every read and write is one packet.
    pub offload: bool,
}

impl TunConfig {
    /// A TUN with offloads from the usual device.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), device: Device::default(), mtu: None, offload: true }
    }
}

/// Why there is no TUN.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The device does not exist.
    #[error("{} does not exist: load the tun module, or pass the device into the container", .0.display())]
    MissingDevice(PathBuf),
    /// The device may not be opened or configured.
    #[error("no permission for a TUN: run as root, or with CAP_NET_ADMIN")]
    NoPermission,
    /// An interface of this name exists, or another process holds the TUN.
    #[error("interface name {0} is taken: choose another")]
    NameTaken(String),
    /// The system does not allow such a name.
    #[error("{0:?} is no interface name: use 1 to 15 characters without / or spaces")]
    InvalidName(String),
    /// The interface was deleted.
    #[error("the TUN interface is gone")]
    Gone,
    /// Another failure of the system.
    #[error("cannot {doing}")]
    Os {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// An open TUN, or one queue of it. Dropping the last removes the interface.
///
/// All methods take `&self`, so one thread may read while another writes.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
    virtio: bool,
    merging: Merging,
}

impl Tun {
    /// Makes or attaches the interface, in the calling thread's network namespace.
    pub fn open(config: TunConfig) -> Result<Self, TunError> {
        Ok(Self::open_queues(config, 1)?.swap_remove(0))
    }

    /// The same with up to `count` queues, at least one: as many as the system gives.
    ///
    /// What the host sends is spread over the queues by flow, and a flow stays with the queue that was last written
    /// to for the other direction of it.
    pub fn open_queues(config: TunConfig, count: usize) -> Result<Vec<Self>, TunError> {
        let queues = sys::open(config.device, &config.name, config.offload, count)?;
        let queues: Vec<Self> = queues
            .into_iter()
            .map(|sys::Opened { fd, name, virtio, merging }| Self { fd, name, virtio, merging })
            .collect();
        let tun = &queues[0];
        let index = tun.index()?;
        let fault = |doing| move |source| TunError::Os { doing, source };
        if let Some(mtu) = config.mtu {
            crate::links::set_mtu(index, mtu).map_err(fault("set the MTU"))?;
        }
        if tun.merging.tcp {
            // Older systems have a fixed limit: sends are split in two there.
            let _ = crate::links::set_super_packet(index, SUPER_PACKET);
        }
        Ok(queues)
    }

    /// Two ends joined in memory: what is written to one is read from the other, with its offload
    /// header. No interface, no privileges; for tests and for nodes without a TUN.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (left, right) = sys::pair()?;
        let end =
            |fd, name: &str| Self { fd, name: name.into(), virtio: true, merging: Merging::ALL };
        Ok((end(left, "left"), end(right, "right")))
    }

    /// The name at opening; the interface may have been renamed since.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which super-packets may be written; hand it to the coalescer. Without any, only packets
    /// with a plain [`Offload`] may be written.
    #[must_use]
    pub fn merging(&self) -> Merging {
        self.merging
    }

    /// The interface's index in the namespace of the calling thread.
    pub fn index(&self) -> Result<u32, TunError> {
        let name = self.current_name()?;
        crate::links::index_of(&name)
            .map_err(|source| TunError::Os { doing: "find the interface", source })
    }

    /// The name now, also after a rename or a move to another namespace;
    /// [`TunError::Gone`] once the interface was deleted.
    pub fn current_name(&self) -> Result<String, TunError> {
        sys::current_name(self.fd.as_fd())
    }

    /// The network namespace that the interface is in now, if the system can tell.
    pub fn namespace(&self) -> io::Result<OwnedFd> {
        sys::namespace(self.fd.as_fd())
    }

    /// Appends one packet or super-packet to `buffer`; none if nothing waits.
    ///
    /// It is cut if the capacity of `buffer` has no room for it, which never grows: leave [`MAX_PACKET`] bytes.
    pub fn receive(&self, buffer: &mut BytesMut) -> Result<Option<Offload>, TunError> {
        sys::receive(self.fd.as_fd(), self.virtio, buffer)
    }

    /// Writes one packet or super-packet, given as slices in order (at most 65).
    pub fn send(&self, offload: &Offload, pieces: &[&[u8]]) -> Result<Delivery, TunError> {
        sys::send(self.fd.as_fd(), self.virtio.then_some(offload), pieces)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
