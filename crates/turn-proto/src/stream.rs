//! Messages out of a stream of bytes (RFC 8656 section 3.1 over TCP).

use crate::message::{self, Kind};

/// The header of what is shortest, data of a channel.
const SHORTEST: usize = 4;

/// Bytes of a stream that are no whole message yet: at most one message, and what one read brings.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    bytes: Vec<u8>,
    /// How many of them were read as messages.
    read: usize,
}

/// What the server sends is neither a message nor data of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfStep;

impl Stream {
    /// Takes what has come.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.read));
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, if it is there as a whole.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, OutOfStep> {
        let rest = &self.bytes[self.read..];
        let Some(head) = rest.first_chunk::<SHORTEST>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let whole = match message::kind(head[0]) {
            Some(Kind::Message) => message::HEADER + length,
            // What a channel carries is filled up to a multiple of four bytes.
            Some(Kind::Channel) => SHORTEST + length.next_multiple_of(4),
            None => return Err(OutOfStep),
        };
        let Some(message) = rest.get(..whole) else { return Ok(None) };
        self.read += whole;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_were_cut() {
        let channel = [&[0x40, 0, 0, 5][..], b"hello", &[0; 3]].concat();
        let message = [&[0, 1, 0, 4][..], &[0; 16], &[9; 4]].concat();
        let all = [&channel[..], &message, &channel].concat();
        for step in 1..all.len() {
            let (mut stream, mut found) = (Stream::default(), Vec::new());
            for bytes in all.chunks(step) {
                stream.push(bytes);
                while let Some(one) = stream.next().expect("it is in step") {
                    found.push(one.to_vec());
                }
            }
            assert_eq!(found, [&channel[..], &message, &channel]);
        }
    }

    #[test]
    fn what_is_no_message_ends_the_stream() {
        let mut stream = Stream::default();
        stream.push(b"\xffHTTP");
        assert_eq!(stream.next(), Err(OutOfStep));
    }
}
