//! How much of their lengths messages on streams show, as the network's owner says it.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};

/// How messages on streams are filled up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Padding {
    /// Not at all.
    #[default]
    #[n(0)]
    Off,
    /// To the next of a few lengths.
    #[n(1)]
    Buckets,
}

impl fmt::Display for Padding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Buckets => "buckets",
        })
    }
}

/// The text names no padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("padding is `off` or `buckets`")]
pub struct ParsePaddingError;

impl FromStr for Padding {
    type Err = ParsePaddingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "buckets" => Ok(Self::Buckets),
            _ => Err(ParsePaddingError),
        }
    }
}
