//! What stands before a datagram that goes over a circuit.

/// Length of what stands before the datagram itself.
pub(crate) const HEAD_LEN: usize = 4;
/// Numbers of circuits are below this.
pub(crate) const NUMBERS: u32 = 1 << 24;

/// On the way to the peer relay. WireGuard's messages begin with 1 to 4, frames with their version.
const ASCENDING: u8 = 5;
/// On the way from there.
const DESCENDING: u8 = 6;

/// A byte that says in which direction, and the circuit's number at the peer relay, big endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Head([u8; HEAD_LEN]);

impl Head {
    /// Of what the peer relay is to pass on.
    pub(crate) fn ascending(number: u32) -> Self {
        Self::new(ASCENDING, number)
    }

    /// Of what it has passed on.
    pub(crate) fn descending(number: u32) -> Self {
        Self::new(DESCENDING, number)
    }

    fn new(direction: u8, number: u32) -> Self {
        let [_, a, b, c] = number.to_be_bytes();
        Self([direction, a, b, c])
    }

    /// What stands before this datagram, if it goes over a circuit.
    pub(crate) fn of(datagram: &[u8]) -> Option<Self> {
        let head = datagram.first_chunk()?;
        matches!(head[0], ASCENDING | DESCENDING).then_some(Self(*head))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes of what a peer relay has taken what it passes on.
    pub(crate) fn descend(datagram: &mut [u8]) {
        if let Some(first) = datagram.first_mut() {
            *first = DESCENDING;
        }
    }
}
