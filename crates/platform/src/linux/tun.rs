//! TUN system calls: the cloning device, its ioctls, scattered reads and writes.

use std::{
    io,
    io::{IoSlice, IoSliceMut},
    mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use packet::{Merging, Offload};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};

use crate::{
    Delivery,
    tun::{Device, TunError},
};

// From <linux/if_tun.h>.
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;
const TUNGETDEVNETNS: libc::c_ulong = 0x54e3;

/// What has to be as it is for packets to be read as they are.
const KIND: i32 = libc::IFF_TUN | libc::IFF_TAP | libc::IFF_NO_PI;
const PLAIN: i32 = libc::IFF_TUN | libc::IFF_NO_PI;
/// With which flags to try, in this order: a system may know of no virtio header. One queue, also where
/// an interface was made for several: another process may have the others.
const LADDER: [i32; 2] = [PLAIN | libc::IFF_VNET_HDR, PLAIN];

/// The virtio header, the packet's header, and 64 payloads.
const MAX_PIECES: usize = 66;

pub(crate) struct Opened {
    pub(crate) fd: OwnedFd,
    pub(crate) name: String,
    pub(crate) virtio: bool,
    pub(crate) merging: Merging,
}

pub(crate) fn open(device: Device, name: &str, offload: bool) -> Result<Opened, TunError> {
    let fd = open_device(device)?;
    if let Ok((name, flags)) = interface_of(fd.as_fd()) {
        if flags & KIND != PLAIN {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no plain TUN");
            return Err(TunError::Os { doing: "use the TUN descriptor", source });
        }
        return finish(fd, name, flags);
    }
    let mut last = libc::EINVAL;
    for flags in LADDER.into_iter().filter(|flags| offload || flags & libc::IFF_VNET_HDR == 0) {
        match attach(&fd, name, flags)? {
            Ok(name) => return finish(fd, name, flags),
            Err(error) => last = error,
        }
        if last != libc::EINVAL {
            break;
        }
    }
    Err(match last {
        libc::EPERM | libc::EACCES => TunError::NoPermission,
        libc::EBUSY | libc::EEXIST => TunError::NameTaken(name.into()),
        // An interface of another kind has the name.
        libc::EINVAL if crate::links::index_of(name).is_ok() => TunError::NameTaken(name.into()),
        libc::EINVAL => TunError::InvalidName(name.into()),
        other => {
            let source = io::Error::from_raw_os_error(other);
            TunError::Os { doing: "create the TUN interface", source }
        }
    })
}

/// Makes or takes the interface; its name, or the error.
fn attach(fd: &OwnedFd, name: &str, flags: i32) -> Result<Result<String, i32>, TunError> {
    let mut request = request_for(name).ok_or_else(|| TunError::InvalidName(name.into()))?;
    request.ifr_ifru.ifru_flags = flags_field(flags);
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Ok(Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)));
    }
    Ok(Ok(name_in(&request)))
}

fn open_device(device: Device) -> Result<OwnedFd, TunError> {
    let path = match device {
        Device::Open(fd) => {
            let doing = "use the TUN descriptor";
            let fault = |source: Errno| TunError::Os { doing, source: source.into() };
            let flags = rustix::fs::fcntl_getfl(&fd).map_err(fault)?;
            rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(fault)?;
            return Ok(fd);
        }
        Device::Path(path) => path,
    };
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => TunError::MissingDevice(path),
        Errno::ACCESS | Errno::PERM => TunError::NoPermission,
        other => TunError::Os { doing: "open the TUN device", source: other.into() },
    })
}

pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: not -1, and borrowed only for a duplication, which fails if nothing is open there.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
}

fn finish(fd: OwnedFd, name: String, flags: i32) -> Result<Opened, TunError> {
    let virtio = flags & libc::IFF_VNET_HDR != 0;
    let merging = if virtio { set_offloads(&fd)? } else { Merging::NONE };
    Ok(Opened { fd, name, virtio, merging })
}

/// As much as this system can: UDP segmentation came with Linux 6.2.
fn set_offloads(fd: &OwnedFd) -> Result<Merging, TunError> {
    let mut size = i32::try_from(Offload::VIRTIO_LENGTH).expect("ten");
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw mut size) };
    if result < 0 {
        let source = io::Error::last_os_error();
        return Err(TunError::Os { doing: "set the TUN's header size", source });
    }
    let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    let ladder =
        [(tcp | TUN_F_USO4 | TUN_F_USO6, Merging::ALL), (tcp, Merging { tcp: true, udp: false })];
    for (offloads, merging) in ladder {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) } >= 0 {
            return Ok(merging);
        }
    }
    Ok(Merging::NONE)
}

pub(crate) fn current_name(fd: BorrowedFd<'_>) -> Result<String, TunError> {
    match interface_of(fd) {
        Ok((name, _)) => Ok(name),
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Err(TunError::Gone),
        Err(source) => Err(TunError::Os { doing: "ask for the TUN's name", source }),
    }
}

fn interface_of(fd: BorrowedFd<'_>) -> io::Result<(String, i32)> {
    let mut request = request_for("").expect("an empty name fits");
    // SAFETY: TUNGETIFF writes one ifreq, which `request` is.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: TUNGETIFF fills the flags member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok((name_in(&request), i32::from(u16::from_ne_bytes(flags.to_ne_bytes()))))
}

pub(crate) fn namespace(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: TUNGETDEVNETNS takes no argument and returns a new descriptor.
    let namespace: RawFd = unsafe { libc::ioctl(fd.as_raw_fd(), TUNGETDEVNETNS, 0) };
    if namespace < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(namespace) })
}

fn request_for(name: &str) -> Option<libc::ifreq> {
    // SAFETY: all-zero is a valid ifreq (empty name, zero union).
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() >= request.ifr_name.len() || name.bytes().any(|byte| byte == 0) {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Some(request)
}

fn name_in(request: &libc::ifreq) -> String {
    let bytes = request.ifr_name.iter().map(|byte| byte.to_ne_bytes()[0]);
    let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn flags_field(flags: i32) -> libc::c_short {
    let [low, high, ..] = flags.to_le_bytes();
    libc::c_short::from_le_bytes([low, high])
}

/// A socket pair keeps packet bounds and blocks nobody, as a TUN does.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    virtio: bool,
    buffer: &mut [u8],
) -> Result<Option<(Offload, usize)>, TunError> {
    let mut header = [0; Offload::VIRTIO_LENGTH];
    loop {
        let result = if virtio {
            let mut pieces = [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)];
            rustix::io::readv(fd, &mut pieces)
        } else {
            rustix::io::read(fd, &mut *buffer)
        };
        match result {
            Ok(0) => return Err(TunError::Gone),
            Ok(length) if !virtio => return Ok(Some((Offload::default(), length))),
            Ok(length) => match Offload::from_virtio(&header) {
                Ok(offload) if length > header.len() => {
                    return Ok(Some((offload, length - header.len())));
                }
                // Nothing that was offered to the host: not for us.
                Ok(_) | Err(_) => {}
            },
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(Errno::BADFD | Errno::BADF) => return Err(TunError::Gone),
            Err(other) => {
                return Err(TunError::Os { doing: "read from the TUN", source: other.into() });
            }
        }
    }
}

pub(crate) fn send(
    fd: BorrowedFd<'_>,
    offload: Option<&Offload>,
    pieces: &[&[u8]],
) -> Result<Delivery, TunError> {
    let header = offload.map(Offload::to_virtio);
    let mut slices = [IoSlice::new(&[]); MAX_PIECES];
    let mut count = 0;
    for piece in
        header.iter().map(<[u8; Offload::VIRTIO_LENGTH]>::as_slice).chain(pieces.iter().copied())
    {
        let Some(slice) = slices.get_mut(count) else { return Ok(Delivery::Dropped) };
        *slice = IoSlice::new(piece);
        count += 1;
    }
    loop {
        match rustix::io::writev(fd, &slices[..count]) {
            Ok(_) => return Ok(Delivery::Sent),
            Err(Errno::INTR) => {}
            Err(Errno::BADFD | Errno::BADF | Errno::PIPE) => return Err(TunError::Gone),
            // EIO: the link is down. EINVAL: the host finds the packet malformed.
            Err(_) => return Ok(Delivery::Dropped),
        }
    }
}
