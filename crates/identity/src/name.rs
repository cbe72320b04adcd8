//! Names of devices, networks and groups: each one DNS label.

/// A text that cannot be a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name cannot be empty")]
    Empty,
    /// The text is longer than a DNS label, which is 63 bytes (RFC 1035 section 2.3.4).
    #[error("a name has at most 63 characters")]
    TooLong,
    /// A character outside lower-case letters, digits and inner hyphens.
    #[error("a name has lower-case letters, digits and hyphens, and no hyphen at either end")]
    BadCharacter,
}

fn check(text: &str) -> Result<(), NameError> {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return Err(NameError::Empty);
    };
    if bytes.len() > 63 {
        return Err(NameError::TooLong);
    }
    let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    if *first == b'-' || *last == b'-' || !bytes.iter().all(allowed) {
        return Err(NameError::BadCharacter);
    }
    Ok(())
}

macro_rules! name {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                d.str()?.parse().map_err(|_| minicbor::decode::Error::message("not a name"))
            }
        }
    };
}

name! {
    /// A device's name within its network.
    DeviceName
}

name! {
    /// A network's name, the label before `.alt`.
    NetworkName
}

name! {
    /// A group of devices, which policy and limits refer to.
    GroupName
}

impl GroupName {
    /// The group whose members may serve as relays.
    #[must_use]
    pub fn relay() -> Self {
        Self("relay".into())
    }
}
