//! UDP system calls: recvmmsg with UDP_GRO, sendmsg with UDP_SEGMENT, sendmmsg.

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
    time::Duration,
};

use crate::{
    Delivery,
    udp::{ReceiveBatch, Source, Transmit, UdpConfig, worse},
};

/// How long a full send buffer is waited for before the packet counts as lost.
const SEND_PATIENCE: Duration = Duration::from_millis(100);
/// How often it is waited for: a system short of memory says that there is room and then that there is not.
const SEND_WAITS: u32 = 3;
/// Errors of earlier sends that one receive passes over.
const REPORTS: usize = 1_000;
/// Datagrams in one sendmmsg call.
const SEND_BATCH: usize = 32;
/// Room for the control messages of one datagram: packet info and segment size, 8-byte aligned.
const CONTROL_WORDS: usize = 16;
type Control = [u64; CONTROL_WORDS];

/// What a receive call wrote beside the bytes of one buffer.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) local: Option<Source>,
    pub(crate) segment: usize,
    pub(crate) length: usize,
}

/// Why a segmented send has to be repeated datagram by datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSplit {
    /// Nothing is split on this way (the interface cannot make checksums, or IPsec is on it).
    NoWay,
    /// This buffer cannot be split (segments above the path's MTU).
    Refused,
}

/// What to do about an error of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    GiveUp,
    WithoutSource,
    Singly(NotSplit),
}

pub(crate) struct Opened {
    pub(crate) socket: OwnedFd,
    /// The system knows how to split (Linux 4.18 and later). Older ones send the whole buffer as one.
    pub(crate) splits: bool,
    /// The system joins what arrives (Linux 5.0 and later).
    pub(crate) merges: bool,
}

pub(crate) fn open(config: &UdpConfig) -> io::Result<Opened> {
    let family = if config.address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers; the result is checked before it is owned.
    let fd = unsafe { libc::socket(family, kind, libc::IPPROTO_UDP) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just opened and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if config.address.is_ipv4() {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    } else {
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
    }
    // A system that does not know how does as it always does.
    let _ = set_splitting(&socket, config.address.is_ipv4(), true);
    if config.shared {
        set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    set_buffers(&socket, config.buffer)?;
    if config.mark != 0 {
        set_mark(&socket, config.mark)?;
    }
    let merges = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
    // None unless a send says so: what counts is that the option is known.
    let splits = set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
    let (name, length) = raw_address(SocketAddr::new(config.address, config.port));
    // SAFETY: `name` is a valid socket address of `length` bytes for the call's duration.
    let result = unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(&name).cast(), length) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Opened { socket, splits, merges })
}

/// Has what is too large for the way go in parts, which routers make over IPv4 and this host over IPv6, or not at all.
pub(crate) fn set_splitting(socket: &impl AsRawFd, is_ipv4: bool, on: bool) -> io::Result<()> {
    if is_ipv4 {
        let mode = if on { libc::IP_PMTUDISC_DONT } else { libc::IP_PMTUDISC_PROBE };
        return set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, mode);
    }
    let mode = if on { libc::IPV6_PMTUDISC_WANT } else { libc::IPV6_PMTUDISC_PROBE };
    set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, mode)?;
    set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, i32::from(!on))
}

/// Beyond the system's limit where we may, else up to it.
fn set_buffers(socket: &OwnedFd, size: usize) -> io::Result<()> {
    let size = i32::try_from(size).unwrap_or(i32::MAX);
    let options =
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)];
    for (force, ask) in options {
        if set_option(socket, libc::SOL_SOCKET, force, size).is_err() {
            set_option(socket, libc::SOL_SOCKET, ask, size)?;
        }
    }
    Ok(())
}

pub(crate) fn set_mark(socket: &OwnedFd, mark: u32) -> io::Result<()> {
    let mark = i32::from_ne_bytes(mark.to_ne_bytes());
    set_option(socket, libc::SOL_SOCKET, libc::SO_MARK, mark)
}

fn set_option(socket: &impl AsRawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = socklen(size_of::<i32>());
    // SAFETY: the option value is one valid int of the stated length.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, ptr::from_ref(&value).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(crate) fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    // SAFETY: all-zero is a valid sockaddr_storage (family unspecified).
    let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut length = socklen(size_of_val(&name));
    // SAFETY: `name` has room for `length` bytes, which the kernel does not exceed.
    let result = unsafe {
        libc::getsockname(socket.as_raw_fd(), ptr::from_mut(&mut name).cast(), &raw mut length)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    address_of(&name).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Fills the slots with what waits; the number filled, zero if nothing does.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    slots: &mut [Slot],
    buffer: &mut [u8],
) -> io::Result<usize> {
    const MAX: usize = ReceiveBatch::MAX_SLOTS;
    // SAFETY: all-zero is valid for these plain C structures (null pointers, zero lengths).
    let mut headers: [libc::mmsghdr; MAX] = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut pieces: [libc::iovec; MAX] = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut names: [libc::sockaddr_storage; MAX] = unsafe { mem::zeroed() };
    let mut controls = [[0_u64; CONTROL_WORDS]; MAX];
    let wanted = slots.len().min(MAX);
    for (index, bytes) in buffer.chunks_exact_mut(ReceiveBatch::SLOT).take(wanted).enumerate() {
        pieces[index] = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let header = &mut headers[index].msg_hdr;
        header.msg_name = ptr::from_mut(&mut names[index]).cast();
        header.msg_namelen = socklen(size_of::<libc::sockaddr_storage>());
        header.msg_iov = &raw mut pieces[index];
        header.msg_iovlen = 1;
        header.msg_control = controls[index].as_mut_ptr().cast();
        header.msg_controllen = size_of::<Control>();
    }
    for _ in 0..REPORTS {
        // SAFETY: the first `wanted` headers point to live buffers of the stated lengths, each
        // distinct; they outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                u32::try_from(wanted).expect("a few dozen slots"),
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        if let Ok(count) = usize::try_from(count) {
            for (index, slot) in slots.iter_mut().take(count).enumerate() {
                *slot = slot_of(&headers[index], &names[index]);
            }
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error().unwrap_or(0) {
            libc::EAGAIN => return Ok(0),
            libc::EINTR => {}
            // Answers of the network to earlier sends; each is reported once.
            libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::EHOSTDOWN
            | libc::ENETUNREACH
            | libc::EMSGSIZE
            | libc::EACCES
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP => {}
            // Memory is short for the moment.
            libc::ENOMEM | libc::ENOBUFS => return Ok(0),
            _ => return Err(error),
        }
    }
    Err(io::Error::other("the socket reports nothing but errors"))
}

fn slot_of(header: &libc::mmsghdr, name: &libc::sockaddr_storage) -> Slot {
    let length = usize::try_from(header.msg_len).expect("a datagram is below 64 KiB");
    let mut slot = Slot { remote: address_of(name), local: None, segment: length, length };
    if header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        slot.remote = None;
        return slot;
    }
    // SAFETY: the kernel filled the control buffer that the header still points to, and set its
    // length; the macros stay inside it.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(&raw const header.msg_hdr) };
    while !control.is_null() {
        // SAFETY: not null, so it points to a whole control header inside the buffer.
        let (level, kind) = unsafe { ((*control).cmsg_level, (*control).cmsg_type) };
        // SAFETY: the data of a control message follows its header.
        let data = unsafe { libc::CMSG_DATA(control) };
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: the kernel writes one int for this type.
                let size = unsafe { ptr::read_unaligned(data.cast::<libc::c_int>()) };
                slot.segment = usize::try_from(size).unwrap_or(length);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel writes an in_pktinfo for this type.
                let info = unsafe { ptr::read_unaligned(data.cast::<libc::in_pktinfo>()) };
                let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                slot.local = source_of(address.into(), info.ipi_ifindex);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: the kernel writes an in6_pktinfo for this type.
                let info = unsafe { ptr::read_unaligned(data.cast::<libc::in6_pktinfo>()) };
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                slot.local = Some(Source { address: address.into(), interface: info.ipi6_ifindex });
            }
            _ => {}
        }
        // SAFETY: `control` is inside the header's control buffer.
        control = unsafe { libc::CMSG_NXTHDR(&raw const header.msg_hdr, control) };
    }
    slot
}

fn source_of(address: IpAddr, index: i32) -> Option<Source> {
    Some(Source { address, interface: u32::try_from(index).ok()? })
}

/// One sendmsg; a segmented one may have to be repeated singly.
pub(crate) fn send(socket: BorrowedFd<'_>, transmit: &Transmit<'_>) -> Result<Delivery, NotSplit> {
    let mut source = transmit.source;
    loop {
        let one = Transmit { source, ..*transmit };
        let error = match submit::<1>(socket, std::iter::once(one)) {
            Ok(_) if source == transmit.source => return Ok(Delivery::Sent),
            Ok(_) => return Ok(Delivery::SourceGone),
            Err(error) => error,
        };
        match remedy(error, transmit.segment.is_some(), source.is_some()) {
            Remedy::WithoutSource => source = None,
            Remedy::Singly(why) => return Err(why),
            Remedy::GiveUp => return Ok(Delivery::Dropped),
        }
    }
}

fn remedy(error: i32, is_segmented: bool, has_source: bool) -> Remedy {
    match error {
        libc::EIO | libc::EOPNOTSUPP if is_segmented => Remedy::Singly(NotSplit::NoWay),
        // The source is checked first: it is the likelier fault and cheaper to exclude.
        libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENODEV | libc::ENETUNREACH if has_source => {
            Remedy::WithoutSource
        }
        libc::EINVAL | libc::EMSGSIZE if is_segmented => Remedy::Singly(NotSplit::Refused),
        _ => Remedy::GiveUp,
    }
}

/// The datagrams of `transmit` by sendmmsg, `segment` bytes each.
pub(crate) fn send_singly(
    socket: BorrowedFd<'_>,
    transmit: &Transmit<'_>,
    segment: usize,
) -> Delivery {
    let mut delivery = Delivery::Sent;
    let mut rest = transmit.bytes;
    while !rest.is_empty() {
        let each = rest.chunks(segment).take(SEND_BATCH);
        let each = each.map(|bytes| Transmit { segment: None, bytes, ..*transmit });
        let sent = if let Ok(sent) = submit::<SEND_BATCH>(socket, each) {
            sent
        } else {
            // The first failed: alone it says why, and the rest goes on.
            let bytes = &rest[..segment.min(rest.len())];
            let one = send(socket, &Transmit { segment: None, bytes, ..*transmit });
            delivery = worse(delivery, one.unwrap_or(Delivery::Dropped));
            1
        };
        rest = &rest[(sent * segment).min(rest.len())..];
    }
    delivery
}

/// Up to `N` messages in one call; how many went, or the error of the first.
fn submit<'a, const N: usize>(
    socket: BorrowedFd<'_>,
    transmits: impl Iterator<Item = Transmit<'a>>,
) -> Result<usize, i32> {
    // SAFETY: all-zero is valid for these plain C structures (null pointers, zero lengths).
    let mut headers: [libc::mmsghdr; N] = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut pieces: [libc::iovec; N] = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut names: [libc::sockaddr_storage; N] = unsafe { mem::zeroed() };
    let mut controls = [[0_u64; CONTROL_WORDS]; N];
    let mut count = 0;
    for (index, transmit) in transmits.take(N).enumerate() {
        let (name, length) = raw_address(transmit.destination);
        names[index] = name;
        pieces[index] = libc::iovec {
            iov_base: transmit.bytes.as_ptr().cast_mut().cast(),
            iov_len: transmit.bytes.len(),
        };
        let header = &mut headers[index].msg_hdr;
        header.msg_name = ptr::from_mut(&mut names[index]).cast();
        header.msg_namelen = length;
        header.msg_iov = &raw mut pieces[index];
        header.msg_iovlen = 1;
        header.msg_controllen = write_control(&mut controls[index], &transmit);
        if header.msg_controllen > 0 {
            header.msg_control = controls[index].as_mut_ptr().cast();
        }
        count += 1;
    }
    let mut waits = 0;
    loop {
        // SAFETY: the first `count` headers point to live names, buffers and control messages of
        // the stated lengths; a send only reads them.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                u32::try_from(count).expect("a few dozen messages"),
                libc::MSG_DONTWAIT,
            )
        };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        match io::Error::last_os_error().raw_os_error().unwrap_or(0) {
            libc::EINTR => {}
            // Reports an earlier datagram and clears itself; this one was not sent yet.
            libc::ECONNREFUSED => {}
            libc::EAGAIN | libc::ENOBUFS if waits < SEND_WAITS && wait_writable(socket) => {
                waits += 1
            }
            error => return Err(error),
        }
    }
}

fn wait_writable(socket: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(SEND_PATIENCE.subsec_nanos()) };
    let mut waiting = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
    matches!(poll(&mut waiting, Some(&patience)), Ok(1))
}

/// Writes the control messages of a send; their length.
fn write_control(control: &mut Control, transmit: &Transmit<'_>) -> usize {
    let mut writer = ControlWriter { control, used: 0 };
    match transmit.source {
        Some(Source { address: IpAddr::V4(address), interface: _ }) => {
            let info = libc::in_pktinfo {
                // IPv4 answers may leave by any interface; the address is what has to stay.
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            writer.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(Source { address: IpAddr::V6(address), interface }) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: address.octets() },
                // Only link-local addresses depend on the interface.
                ipi6_ifindex: if address.is_unicast_link_local() { interface } else { 0 },
            };
            writer.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    if let Some(segment) = transmit.segment {
        writer.push(libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    writer.used
}

struct ControlWriter<'a> {
    control: &'a mut Control,
    used: usize,
}

impl ControlWriter<'_> {
    /// Appends one control message. `T` is a plain C structure of at most 20 bytes.
    fn push<T: Copy>(&mut self, level: i32, kind: i32, value: T) {
        let size = u32::try_from(size_of::<T>()).expect("a small structure");
        // SAFETY: these two only compute lengths.
        let (space, length) = unsafe { (libc::CMSG_SPACE(size), libc::CMSG_LEN(size)) };
        let (space, length) = (space as usize, length as usize);
        assert!(self.used + space <= size_of::<Control>(), "two control messages have room");
        // SAFETY: the message lies inside the buffer as just asserted, and starts 8-byte aligned
        // because the buffer does and every space is a multiple of 8.
        unsafe {
            let header = self.control.as_mut_ptr().cast::<u8>().add(self.used);
            let header = header.cast::<libc::cmsghdr>();
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = length;
            ptr::write_unaligned(libc::CMSG_DATA(header).cast::<T>(), value);
        }
        self.used += space;
    }
}

fn raw_address(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero is a valid sockaddr_storage (family unspecified).
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is larger than, and aligned for, every socket address.
            unsafe { ptr::write(ptr::from_mut(&mut storage).cast(), raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { ptr::write(ptr::from_mut(&mut storage).cast(), raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, socklen(length))
}

fn address_of(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that a sockaddr_in lies in this larger, aligned storage.
            let raw = unsafe { *ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that a sockaddr_in6 lies in this larger, aligned storage.
            let raw = unsafe { *ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Some(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn socklen(length: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(length).expect("socket structures are small")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_for_a_send_is_what_a_receive_reads() {
        for (destination, address, interface) in [
            ("192.0.2.1:51820", "198.51.100.7", 0),
            ("[2001:db8::1]:51820", "2001:db8::7", 0),
            ("[fe80::1%3]:51820", "fe80::7", 3),
        ] {
            let source = Some(Source { address: address.parse().unwrap(), interface });
            let destination = destination.parse().unwrap();
            let transmit = Transmit { destination, source, segment: Some(1_200), bytes: &[] };
            let mut control = [0; CONTROL_WORDS];
            let used = write_control(&mut control, &transmit);
            // SAFETY: all-zero is valid for this plain C structure.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_len = 2_000;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = used;
            let slot = slot_of(&header, &raw_address(destination).0);
            assert_eq!((slot.remote, slot.local), (Some(destination), source));
            assert_eq!((slot.length, slot.segment), (2_000, 2_000));
        }
    }

    #[test]
    fn every_way_in_which_a_send_fails_has_its_remedy() {
        let no_way = Remedy::Singly(NotSplit::NoWay);
        let refused = Remedy::Singly(NotSplit::Refused);
        // The error, and what follows of a segmented send and of a plain one, without a source.
        let cases = [
            (libc::EIO, no_way, Remedy::GiveUp),
            (libc::EOPNOTSUPP, no_way, Remedy::GiveUp),
            (libc::EINVAL, refused, Remedy::GiveUp),
            (libc::EMSGSIZE, refused, Remedy::GiveUp),
            (libc::ENETUNREACH, Remedy::GiveUp, Remedy::GiveUp),
            (libc::EPERM, Remedy::GiveUp, Remedy::GiveUp),
        ];
        for (error, segmented, plain) in cases {
            assert_eq!(
                (remedy(error, true, false), remedy(error, false, false)),
                (segmented, plain)
            );
        }
        for error in [libc::EINVAL, libc::EADDRNOTAVAIL, libc::ENODEV, libc::ENETUNREACH] {
            for is_segmented in [true, false] {
                assert_eq!(remedy(error, is_segmented, true), Remedy::WithoutSource, "{error}");
            }
        }
    }
}
