//! The few bytes of a DNS message that a forwarder touches.

use std::ops::Range;

/// Length of the header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
const OP_CODE: u8 = 0x78;
const SERVER_FAILURE: u8 = 2;
const REFUSED: u8 = 5;

/// A query with exactly one question, whose name is not compressed.
#[derive(Debug, Clone)]
pub struct ForwardQuery {
    bytes: Vec<u8>,
    name: Range<usize>,
    question: Range<usize>,
}

/// How a message relates to the query that it should answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// It is the answer.
    Whole,
    /// It is the answer but for the case of the name.
    OtherCase,
    /// It is not.
    None,
}

impl ForwardQuery {
    /// Finds the question; `None` when there is not exactly one, it is malformed, or this is a reply.
    #[must_use]
    pub fn parse(query: &[u8]) -> Option<Self> {
        if query.get(2)? & RESPONSE != 0 || query.get(4..6)? != [0, 1] {
            return None;
        }
        let mut end = HEADER;
        loop {
            let length = usize::from(*query.get(end)?);
            end += 1 + length;
            match length {
                0 => break,
                1..=63 => {}
                _ => return None,
            }
        }
        let question = HEADER..end + 4;
        query.get(question.clone())?;
        Some(Self { bytes: query.to_vec(), name: HEADER..end, question })
    }

    /// The same query with another id, and other case where a bit of `dice` is set. Letters beyond
    /// the dice keep their case.
    #[must_use]
    pub fn disguised(&self, id: u16, dice: &[u8]) -> Self {
        let mut other = self.clone();
        other.bytes[..2].copy_from_slice(&id.to_be_bytes());
        let letters = other.bytes[self.name.clone()].iter_mut().filter(|b| b.is_ascii_alphabetic());
        let bits = dice.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
        for (letter, bit) in letters.zip(bits) {
            *letter ^= bit << 5;
        }
        other
    }

    /// The query as it is sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Compares a reply with this query. Length bytes are below the letters, so folding the case of
    /// the whole name compares it right.
    #[must_use]
    pub fn matches(&self, reply: &[u8]) -> Match {
        let head = self.bytes[..2] == reply[..2.min(reply.len())]
            && reply.len() >= HEADER
            && reply[2] & RESPONSE != 0
            && reply[2] & OP_CODE == self.bytes[2] & OP_CODE
            && reply[4..6] == [0, 1];
        let (Some(question), true) = (reply.get(self.question.clone()), head) else {
            return Match::None;
        };
        let own = &self.bytes[self.question.clone()];
        let name = self.name.len();
        if own == question {
            Match::Whole
        } else if own[name..] == question[name..]
            && own[..name].eq_ignore_ascii_case(&question[..name])
        {
            Match::OtherCase
        } else {
            Match::None
        }
    }

    /// Gives a reply to the disguised query the id and the name of this one.
    pub fn restore(&self, reply: &mut [u8]) {
        reply[..2].copy_from_slice(&self.bytes[..2]);
        reply[self.question.clone()].copy_from_slice(&self.bytes[self.question.clone()]);
    }

    /// Cuts a reply down to its question, so that the client asks again over TCP.
    pub fn truncate(&self, reply: &mut Vec<u8>) {
        reply.truncate(self.question.end);
        reply[2] |= TRUNCATED;
        reply[6..HEADER].fill(0);
    }
}

/// Whether a reply says that its sender cannot answer, so that another may be asked.
#[must_use]
pub fn is_failure(reply: &[u8]) -> bool {
    matches!(reply.get(3).map(|flags| flags & 0x0f), Some(SERVER_FAILURE | REFUSED))
}

/// The reply that no upstream has answered.
#[must_use]
pub fn server_failure(query: &[u8]) -> Vec<u8> {
    let question = ForwardQuery::parse(query).map_or(HEADER, |parsed| parsed.question.end);
    let mut reply = query[..question.min(query.len())].to_vec();
    reply.resize(reply.len().max(HEADER), 0);
    reply[2] = RESPONSE | (query.get(2).unwrap_or(&0) & (OP_CODE | RECURSION_DESIRED));
    reply[3] = RECURSION_AVAILABLE | SERVER_FAILURE;
    reply[4..HEADER].copy_from_slice(&[0, u8::from(question > HEADER), 0, 0, 0, 0, 0, 0]);
    reply
}
