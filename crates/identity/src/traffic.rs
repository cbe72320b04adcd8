//! Which traffic goes before which, as the network's owner says it.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use minicbor::{Decode, Encode};

/// The most rules that count.
pub const MAX_TRAFFIC_RULES: usize = 32;

/// How a packet waits where others wait too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum TrafficClass {
    /// Before what takes long to send.
    #[n(0)]
    Interactive,
    /// In turn with others.
    #[n(1)]
    Bulk,
    /// With what others leave (the "lower effort" of RFC 8622).
    #[n(2)]
    Background,
}

impl TrafficClass {
    const ALL: [(Self, &str); 3] = [
        (Self::Interactive, "interactive"),
        (Self::Bulk, "bulk"),
        (Self::Background, "background"),
    ];
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Transport {
    /// TCP.
    #[n(0)]
    Tcp,
    /// UDP.
    #[n(1)]
    Udp,
}

impl Transport {
    const ALL: [(Self, &str); 2] = [(Self::Tcp, "tcp"), (Self::Udp, "udp")];

    /// The one of this name.
    pub(crate) fn named(text: &str) -> Option<Self> {
        value(&Self::ALL, text)
    }

    /// Its number in IP headers.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name(&Self::ALL, *self))
    }
}

/// The class of the traffic from and to some ports, in text `tcp/873=background` or
/// `udp/5000-5100=interactive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct TrafficRule {
    /// The protocol.
    #[n(0)]
    pub transport: Transport,
    /// The first port.
    #[n(1)]
    pub first: u16,
    /// The last port.
    #[n(2)]
    pub last: u16,
    /// How packets with such a port wait, whether they come from it or go to it.
    #[n(3)]
    pub class: TrafficClass,
}

impl TrafficRule {
    /// The ports.
    #[must_use]
    pub const fn ports(&self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl fmt::Display for TrafficRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transport, self.first)?;
        if self.last != self.first {
            write!(f, "-{}", self.last)?;
        }
        write!(f, "={}", name(&TrafficClass::ALL, self.class))
    }
}

/// The text is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a rule for traffic is tcp or udp, a port or a range of ports, and interactive, bulk or background, for instance tcp/873=background"
)]
pub struct ParseTrafficRuleError;

impl FromStr for TrafficRule {
    type Err = ParseTrafficRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or(ParseTrafficRuleError)
    }
}

fn parse(text: &str) -> Option<TrafficRule> {
    let (transport, rest) = text.split_once('/')?;
    let (ports, class) = rest.split_once('=')?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    let (transport, class) = (Transport::named(transport)?, value(&TrafficClass::ALL, class)?);
    (first <= last).then_some(TrafficRule { transport, first, last, class })
}

fn name<T: Copy + PartialEq>(all: &[(T, &'static str)], value: T) -> &'static str {
    all.iter().find(|(known, _)| *known == value).map_or("", |(_, name)| name)
}

fn value<T: Copy>(all: &[(T, &str)], name: &str) -> Option<T> {
    all.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_what_their_text_says_and_nothing_else_is_one() {
        for text in ["tcp/873=background", "udp/5000-5100=interactive", "tcp/0-65535=bulk"] {
            assert_eq!(
                text.parse::<TrafficRule>().map(|rule| rule.to_string()).as_deref(),
                Ok(text)
            );
        }
        for text in ["", "tcp/873", "icmp/1=bulk", "tcp/2-1=bulk", "tcp/65536=bulk", "tcp/1=fast"] {
            assert_eq!(text.parse::<TrafficRule>(), Err(ParseTrafficRuleError), "{text}");
        }
    }
}
