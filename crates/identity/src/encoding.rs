//! How 32-byte values and secrets become types: one macro for each, so that all behave the same.

/// Declares a public 32-byte value with CBOR, text and ordering.
///
/// `$display` and `$parse` are functions from and to bytes for its text form.
macro_rules! public_bytes {
    ($(#[$docs:meta])* $name:ident, $display:path, $parse:path) => {
        $(#[$docs])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes the 32 bytes as they are.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$display(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::ParseKeyError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $parse(text).map(Self).ok_or($crate::ParseKeyError)
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                $crate::encoding::array(d).map(Self)
            }
        }
    };
}
pub(crate) use public_bytes;

/// Reads a byte string that must have exactly `N` bytes.
pub(crate) fn array<const N: usize>(
    d: &mut minicbor::Decoder<'_>,
) -> Result<[u8; N], minicbor::decode::Error> {
    d.bytes()?
        .try_into()
        .map_err(|_| minicbor::decode::Error::message("a byte string has the wrong length"))
}

/// The z-base-32 alphabet of RFC 6189 section 5.1.6.
static Z_BASE_32: std::sync::LazyLock<data_encoding::Encoding> = std::sync::LazyLock::new(|| {
    let mut specification = data_encoding::Specification::new();
    specification.symbols.push_str("ybndrfg8ejkmcpqxot1uwisza345h769");
    specification.encoding().expect("the alphabet has 32 distinct symbols")
});

/// 52 characters of z-base-32.
pub(crate) fn to_z_base_32(bytes: &[u8; 32]) -> String {
    Z_BASE_32.encode(bytes)
}

/// The inverse of [`to_z_base_32`]; refuses trailing bits that are not zero.
pub(crate) fn from_z_base_32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 52 {
        return None;
    }
    Z_BASE_32.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// 44 characters of padded base64, the form that `wg` prints.
pub(crate) fn to_base64(bytes: &[u8; 32]) -> String {
    data_encoding::BASE64.encode(bytes)
}

/// The inverse of [`to_base64`].
pub(crate) fn from_base64(text: &str) -> Option<[u8; 32]> {
    if text.len() != 44 {
        return None;
    }
    data_encoding::BASE64.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// SHA-256 over the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}
