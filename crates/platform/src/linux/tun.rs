//! TUN system calls: the cloning device, its ioctls, scattered reads and writes.

use std::{
    io,
    io::IoSlice,
    mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use bytes::BytesMut;
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
/// With which flags to try, in this order: a system may know of no virtio header or of one queue only, and an
/// interface that is there already is taken with one, or not at all.
const LADDER: [i32; 4] = [
    PLAIN | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE,
    PLAIN | libc::IFF_VNET_HDR,
    PLAIN | libc::IFF_MULTI_QUEUE,
    PLAIN,
];

/// The virtio header, the packet's header, and 64 payloads.
const MAX_PIECES: usize = 66;

pub(crate) struct Opened {
    pub(crate) fd: OwnedFd,
    pub(crate) name: String,
    pub(crate) virtio: bool,
    pub(crate) merging: Merging,
}

/// Up to `queues` queues of one interface, at least one.
pub(crate) fn open(
    device: Device,
    name: &str,
    offload: bool,
    queues: usize,
) -> Result<Vec<Opened>, TunError> {
    let path = device.path();
    let (first, flags) = open_first(device, name, offload, queues > 1)?;
    let mut all = vec![first];
    if flags & libc::IFF_MULTI_QUEUE == 0 {
        return Ok(all);
    }
    while let Some(path) = path.as_ref().filter(|_| all.len() < queues) {
        let fd = open_device(Device::Path(path.clone()))?;
        // The system has a limit of its own.
        let Ok(name) = attach(&fd, &all[0].name, flags)? else { break };
        all.push(finish(fd, name, flags)?);
    }
    Ok(all)
}

fn open_first(
    device: Device,
    name: &str,
    offload: bool,
    several: bool,
) -> Result<(Opened, i32), TunError> {
    let fd = open_device(device)?;
    if let Ok((name, flags)) = interface_of(fd.as_fd()) {
        if flags & KIND != PLAIN {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is no plain TUN");
            return Err(TunError::Os { doing: "use the TUN descriptor", source });
        }
        return Ok((finish(fd, name, flags)?, PLAIN));
    }
    let mut last = libc::EINVAL;
    let is_wanted = |flags: &i32| {
        (offload || flags & libc::IFF_VNET_HDR == 0)
            && (several || flags & libc::IFF_MULTI_QUEUE == 0)
    };
    for flags in LADDER.into_iter().filter(is_wanted) {
        // Whoever asks for a queue of an interface that has several gets one beside its owner, unless a new interface is
        // asked for.
        let has_several = flags & libc::IFF_MULTI_QUEUE != 0;
        let exclusive = if has_several { libc::IFF_TUN_EXCL } else { 0 };
        match attach(&fd, name, flags | exclusive)? {
            Ok(name) => return Ok((finish(fd, name, flags)?, flags)),
            Err(error) => last = error,
        }
        let may_have_one = has_several && last == libc::EBUSY;
        if last != libc::EINVAL && !may_have_one {
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
    buffer: &mut BytesMut,
) -> Result<Option<Offload>, TunError> {
    let mut header = [0; Offload::VIRTIO_LENGTH];
    let head = if virtio { header.len() } else { 0 };
    loop {
        let before = buffer.len();
        match append(fd, &mut header[..head], buffer) {
            Ok(0) => return Err(TunError::Gone),
            Ok(_) if !virtio => return Ok(Some(Offload::default())),
            Ok(length) => match Offload::from_virtio(&header) {
                Ok(offload) if length > head => return Ok(Some(offload)),
                // Nothing that was offered to the host: not for us.
                Ok(_) | Err(_) => buffer.truncate(before),
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

/// Reads into `head` until it is full, and what comes behind it to the end of `buffer`; the length of both.
fn append(fd: BorrowedFd<'_>, head: &mut [u8], buffer: &mut BytesMut) -> Result<usize, Errno> {
    let spare = buffer.spare_capacity_mut();
    let piece = |start: *mut u8, length| libc::iovec { iov_base: start.cast(), iov_len: length };
    let pieces =
        [piece(head.as_mut_ptr(), head.len()), piece(spare.as_mut_ptr().cast(), spare.len())];
    // SAFETY: both pieces are memory that may be written for the call's duration, of the stated lengths; the
    // system reads nothing of it.
    let length = unsafe { libc::readv(fd.as_raw_fd(), pieces.as_ptr(), 2) };
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    };
    let packet = length.saturating_sub(head.len());
    // SAFETY: the system has written so many bytes behind those that were there, within the capacity.
    unsafe { buffer.set_len(buffer.len() + packet) };
    Ok(length)
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
