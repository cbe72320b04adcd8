//! How busy a relay is.

use minicbor::{Decode, Encode};

/// A relay's load by one network during one reporting interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(array)]
pub struct LoadReport {
    /// Connections, attached or not.
    #[n(0)]
    pub connections: u32,
    /// Attached devices.
    #[n(1)]
    pub attached: u32,
    /// Bytes of frames that arrived since the last report.
    #[n(2)]
    pub bytes_received: u64,
    /// Bytes of frames queued for receivers since the last report.
    #[n(3)]
    pub bytes_forwarded: u64,
    /// Frames dropped since the last report: queues, rates, unknown receivers.
    #[n(4)]
    pub frames_dropped: u64,
    /// Bytes that wait in all queues now.
    #[n(5)]
    pub queued_bytes: u64,
    /// Processor use in thousandths of one core, as the shell measured it.
    #[n(6)]
    pub cpu_permille: u32,
    /// Connections closed since the last report because nobody attached over them, in time or before others needed the room.
    #[n(7)]
    pub strangers: u64,
    /// Connections closed since the last report because they broke the rules of handshake, channel or hop.
    #[n(8)]
    pub broken: u64,
    /// Devices refused since the last report because they are no members, or none any more.
    #[n(9)]
    pub refused: u64,
    /// Connections closed since the last report because they asked too much.
    #[n(10)]
    pub floods: u64,
}
