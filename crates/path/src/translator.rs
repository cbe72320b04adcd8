//! What the translator in front of this device does with ports, as far as servers can tell.

use std::fmt;
use std::net::SocketAddr;

use minicbor::{Decode, Encode};

/// For which destinations a translator uses the same port (RFC 4787 section 4.1), found as RFC 5780
/// section 4.3 does it. Of two servers on one address, or on one port each, only one difference shows: then
/// the translator counts as the kinder of the kinds that it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mapping {
    /// One port for all of them.
    EndpointIndependent,
    /// One for each address.
    AddressDependent,
    /// One for each address and port.
    AddressAndPortDependent,
}

impl Mapping {
    /// The mapping that gives these answers, each the address of a server and what it saw; nothing from
    /// fewer than two servers. IPv6 is not translated, so it says nothing.
    pub fn of(answers: &[(SocketAddr, SocketAddr)]) -> Option<Self> {
        let answers: Vec<_> = answers.iter().filter(|(server, _)| server.is_ipv4()).collect();
        let pairs = answers.iter().enumerate().flat_map(|(index, one)| {
            answers[index + 1..].iter().map(move |other| {
                let is_same_address = one.0.ip() == other.0.ip();
                match (one.1 == other.1, is_same_address) {
                    (true, _) => Self::EndpointIndependent,
                    (false, false) => Self::AddressDependent,
                    (false, true) => Self::AddressAndPortDependent,
                }
            })
        });
        pairs.max()
    }

    /// Whether the port towards one destination says nothing of the port towards another.
    pub fn is_dependent(self) -> bool {
        self != Self::EndpointIndependent
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
        })
    }
}

/// How a translator counts ports, for whoever wants to know the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PortSequence {
    /// Its address, with the port of its latest mapping.
    #[n(0)]
    pub last: SocketAddr,
    /// From one mapping to the next.
    #[n(1)]
    pub step: i16,
}

/// Ports further apart count as chosen at random.
const LONGEST_STEP: u32 = 1_024;
/// Between two of our mappings others may have been made, but no more than this.
const GAP: u32 = 8;
/// With fewer ports a pattern is an accident.
const LEAST_PORTS: usize = 3;
/// Translators keep to ports from here on (RFC 4787 section 4.2.1), and services are below.
pub(crate) const FIRST_PORT: u16 = 1_024;

impl PortSequence {
    /// The sequence to which mappings made one after the other belong; nothing if they were not counted.
    pub fn of(mappings: &[SocketAddr]) -> Option<Self> {
        let last = *mappings.last().filter(|_| mappings.len() >= LEAST_PORTS)?;
        if mappings.iter().any(|mapping| mapping.ip() != last.ip()) {
            return None;
        }
        let steps =
            || mappings.windows(2).map(|two| i32::from(two[1].port()) - i32::from(two[0].port()));
        let (sign, shortest) = (steps().next()?.signum(), steps().map(i32::unsigned_abs).min()?);
        let is_counted = |step: i32| {
            let size = step.unsigned_abs();
            step.signum() == sign && size.is_multiple_of(shortest) && size / shortest <= GAP
        };
        let fits = sign != 0 && (1..=LONGEST_STEP).contains(&shortest) && steps().all(is_counted);
        let step = i16::try_from(shortest).ok()? * i16::try_from(sign).ok()?;
        fits.then_some(Self { last, step })
    }

    /// The mapping that is made as the `number`th from now on, if the count gets that far.
    pub fn nth(self, number: u16) -> Option<SocketAddr> {
        let port = i64::from(self.last.port()) + i64::from(self.step) * i64::from(number);
        let port = u16::try_from(port).ok().filter(|port| *port >= FIRST_PORT)?;
        Some(SocketAddr::new(self.last.ip(), port))
    }
}
