//! Memory of packets that leave their thread and comes back when they are gone.

use std::collections::VecDeque;

use bytes::BytesMut;
use engine::HostPacket;
use platform::tun::MAX_PACKET;

/// What a buffer holds: any packet of the host, with the room of a [`HostPacket`] around it.
const SIZE: usize = HostPacket::HEADROOM + MAX_PACKET + HostPacket::TAILROOM;
/// Buffers that are out and wanted back; when more are, those are freed by whoever drops them.
const OUT: usize = 32;

/// One buffer at a time, its memory used again once nobody else holds any of it.
#[derive(Debug)]
pub(super) struct Pool {
    current: BytesMut,
    /// An empty piece of each buffer that is out, which alone holds it in the end.
    out: VecDeque<BytesMut>,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self { current: BytesMut::with_capacity(SIZE), out: VecDeque::with_capacity(OUT) }
    }

    /// The current buffer: the head room of a [`HostPacket`], and room for any packet behind it.
    pub(super) fn cleared(&mut self) -> &mut BytesMut {
        self.current.clear();
        self.current.resize(HostPacket::HEADROOM, 0);
        &mut self.current
    }

    /// The packet in the current buffer.
    pub(super) fn packet(&self) -> &[u8] {
        &self.current[HostPacket::HEADROOM..]
    }

    /// Gives the current buffer away.
    pub(super) fn take(&mut self) -> BytesMut {
        let next = self.returned().unwrap_or_else(|| BytesMut::with_capacity(SIZE));
        let mut taken = std::mem::replace(&mut self.current, next);
        let piece = taken.split_off(SIZE);
        if self.out.len() < OUT {
            self.out.push_back(piece);
        }
        taken
    }

    /// The one that has been out for the longest, if it is free.
    fn returned(&mut self) -> Option<BytesMut> {
        let mut piece = self.out.pop_front()?;
        if piece.try_reclaim(SIZE) {
            return Some(piece);
        }
        self.out.push_back(piece);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pool: &mut Pool, byte: u8) -> BytesMut {
        pool.cleared().extend_from_slice(&[byte; MAX_PACKET]);
        assert_eq!(pool.packet(), [byte; MAX_PACKET]);
        pool.take()
    }

    #[test]
    fn memory_comes_back_when_nobody_holds_it() {
        let mut pool = Pool::new();
        let first = filled(&mut pool, 1);
        let memory = first.as_ptr();
        let frozen = first.freeze();
        let part = frozen.slice(HostPacket::HEADROOM..HostPacket::HEADROOM + 10);
        drop(frozen);
        let second = filled(&mut pool, 2);
        assert_ne!(second.as_ptr(), memory, "a part of the first is still held");
        assert_eq!(part, [1; 10][..]);
        drop((part, second));
        let places: Vec<_> = (0..4).map(|byte| filled(&mut pool, byte).as_ptr()).collect();
        assert!(places.contains(&memory));
    }

    #[test]
    fn a_buffer_grows_to_a_message_without_a_copy() {
        let mut pool = Pool::new();
        let mut taken = filled(&mut pool, 1);
        let memory = taken.as_ptr();
        taken.extend_from_slice(&[0; HostPacket::TAILROOM]);
        assert_eq!((taken.as_ptr(), taken.len()), (memory, SIZE));
    }

    #[test]
    fn what_never_comes_back_is_not_waited_for() {
        let mut pool = Pool::new();
        let held: Vec<_> = (0..100).map(|byte| filled(&mut pool, byte)).collect();
        assert_eq!((pool.out.len(), held.len()), (OUT, 100));
    }
}
