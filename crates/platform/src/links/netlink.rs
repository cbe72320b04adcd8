//! One rtnetlink request at a time, without a runtime.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Bytes of the header before each message (RFC 3549 section 2.3.2).
const HEADER: usize = 16;

/// Asks for a change and waits for its acknowledgement; `flags` beside request and ack.
pub(super) fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags, |_| {})
}

/// Asks about one thing; what is answered goes to `each`.
pub(super) fn question(
    message: RouteNetlinkMessage,
    each: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    exchange(message, NLM_F_REQUEST | NLM_F_ACK, each)
}

/// Asks for a list; each entry goes to `each`.
pub(super) fn dump(
    message: RouteNetlinkMessage,
    each: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    exchange(message, NLM_F_REQUEST | NLM_F_DUMP, each)
}

fn exchange(
    message: RouteNetlinkMessage,
    flags: u16,
    mut each: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for message in messages(&answer) {
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => {
                    return error.code.map_or(Ok(()), |_| Err(error.to_io()));
                }
                NetlinkPayload::InnerMessage(inner) => each(inner),
                NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {}
            }
        }
    }
}

/// The messages in a datagram; what is not understood is passed over.
pub(super) fn messages(
    mut bytes: &[u8],
) -> impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> + '_ {
    std::iter::from_fn(move || {
        loop {
            let length = bytes.get(..4)?.try_into().map(u32::from_ne_bytes).ok()?;
            // Whoever says less than a header has would be read for ever.
            let length = usize::try_from(length).ok().filter(|length| *length >= HEADER)?;
            let one = bytes.get(..length)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            if let Ok(message) = NetlinkMessage::deserialize(one) {
                return Some(message);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shorter_than_its_header_ends_the_datagram() {
        for length in 0..16_u32 {
            let mut datagram = [0; 64];
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&datagram).count(), 0, "{length}");
        }
    }
}
