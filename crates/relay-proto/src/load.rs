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
}
