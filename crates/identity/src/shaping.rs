//! When messages on streams leave, as the network's owner says it.

use std::fmt;
use std::str::FromStr;

use minicbor::data::Type;
use minicbor::decode::Error;
use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder};

/// The most machines that a network has.
pub const MAX_MACHINES: usize = 4;

/// The longest text of them all together, in bytes, without what separates them: half of what a record may take.
pub const MAX_MACHINES_LENGTH: usize = 2_048;

/// How much the times of messages on streams show.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shaping {
    /// Everything: messages leave as soon as they can.
    #[default]
    Off,
    /// Messages leave as soon as they can, and where something begins, others that say nothing go among them.
    Front,
    /// While there is something to send, messages leave one after the other at equal distances.
    Constant,
    /// What some machines of maybenot make of them, each in its text. Whether it is one, only who runs it knows.
    Machines(Vec<String>),
}

impl Shaping {
    /// The words in which it is written.
    fn words(&self) -> Vec<&str> {
        match self {
            Self::Off => vec!["off"],
            Self::Front => vec!["front"],
            Self::Constant => vec!["constant"],
            Self::Machines(machines) => machines.iter().map(String::as_str).collect(),
        }
    }

    fn of_words(words: Vec<String>) -> Self {
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] | ["off"] => Self::Off,
            ["front"] => Self::Front,
            ["constant"] => Self::Constant,
            // What a later version knows is none of our machines, and is told as such.
            _ => Self::Machines(words),
        }
    }
}

/// As `null` or a list of words: a record of a network that does not shape is as it was before there was shaping.
impl<C> Encode<C> for Shaping {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        cx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            Self::Off => e.null()?.ok(),
            Self::Front | Self::Constant | Self::Machines(_) => self.words().encode(e, cx),
        }
    }

    fn is_nil(&self) -> bool {
        *self == Self::Off
    }
}

impl<'b, C> Decode<'b, C> for Shaping {
    fn decode(d: &mut Decoder<'b>, cx: &mut C) -> Result<Self, Error> {
        if d.datatype()? == Type::Null {
            d.null()?;
            return Ok(Self::Off);
        }
        Vec::decode(d, cx).map(Self::of_words)
    }

    fn nil() -> Option<Self> {
        Some(Self::Off)
    }
}

impl fmt::Display for Shaping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(" "))
    }
}

/// The text names no way to shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "shaping is `off`, `front`, `constant`, or up to {MAX_MACHINES} machines as maybenot writes them, of \
     {MAX_MACHINES_LENGTH} characters together"
)]
pub struct ParseShapingError;

impl FromStr for Shaping {
    type Err = ParseShapingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
        let length: usize = words.iter().map(String::len).sum();
        if words.is_empty() || words.len() > MAX_MACHINES || length > MAX_MACHINES_LENGTH {
            return Err(ParseShapingError);
        }
        match Self::of_words(words) {
            Self::Machines(machines) if !machines.iter().all(|text| is_machine(text)) => {
                Err(ParseShapingError)
            }
            shaping @ (Self::Off | Self::Front | Self::Constant | Self::Machines(_)) => Ok(shaping),
        }
    }
}

/// Whether a text may be a machine: a version of two digits, then base64.
fn is_machine(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    let version = text.as_bytes().first_chunk::<2>();
    version.is_some_and(|version| version.iter().all(u8::is_ascii_digit))
        && text.len() > 2
        && text.bytes().all(is_base64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_way_to_shape_survives_its_text_and_its_bytes() {
        for text in ["off", "front", "constant", "02eNpj", "02eNpj 02YWJj"] {
            let shaping: Shaping = text.parse().unwrap();
            assert_eq!(shaping.to_string(), text);
            let bytes = minicbor::to_vec(&shaping).unwrap();
            assert_eq!(minicbor::decode::<Shaping>(&bytes).unwrap(), shaping);
        }
    }

    #[test]
    fn what_is_no_way_to_shape_is_refused() {
        let many = ["02eNpj"; 5].join(" ");
        let long = format!("02{}", "a".repeat(MAX_MACHINES_LENGTH));
        for text in ["", "on", "front constant", "off off", "02", "02e:", "0xeNpj", &many, &long] {
            assert_eq!(text.parse::<Shaping>(), Err(ParseShapingError), "{text}");
        }
    }

    #[test]
    fn what_a_later_version_may_say_can_be_read() {
        let bytes = minicbor::to_vec(["tamaraw", "9"]).unwrap();
        let shaping: Shaping = minicbor::decode(&bytes).unwrap();
        assert_eq!(shaping.to_string(), "tamaraw 9");
    }

    proptest! {
        #[test]
        fn no_bytes_and_no_text_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            text in ".{0,100}",
        ) {
            let _ = minicbor::decode::<Shaping>(&bytes);
            let _ = text.parse::<Shaping>();
        }
    }
}
