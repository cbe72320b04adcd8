//! The surroundings that the simulator and the namespace lab both know, and the committed times between them.

use std::path::Path;

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nothing stands in front of it.
    Open,
    /// A public address of both families behind a firewall.
    Firewalled,
    /// Mapping and filter do not depend on the destination.
    FullCone,
    /// The filter depends on the address.
    Restricted,
    /// The filter depends on address and port.
    PortRestricted,
    /// The mapping depends on the address, the filter on address and port.
    AddressSymmetric,
    /// Mapping and filter depend on address and port.
    Symmetric,
    /// The same, with IPv6 beside it behind a firewall.
    SymmetricWithIpv6,
    /// A home's translator behind a carrier's.
    Carrier,
    /// Only streams get out.
    NoUdp,
    /// Mapping and filter depend on address and port, and ports are counted.
    Counting,
    /// A home's translator, with a mapping for all destinations, behind a carrier's that counts.
    CountingCarrier,
    /// There is no IPv4, and a firewall.
    Ipv6Only,
    /// Only streams to the port of HTTPS get out.
    Https,
    /// Only streams through an HTTP proxy get out, to the port of HTTPS.
    Proxy,
}

impl Place {
    /// Every place.
    pub const ALL: [Self; 15] = [
        Self::Open,
        Self::Firewalled,
        Self::FullCone,
        Self::Restricted,
        Self::PortRestricted,
        Self::AddressSymmetric,
        Self::Symmetric,
        Self::SymmetricWithIpv6,
        Self::Carrier,
        Self::NoUdp,
        Self::Counting,
        Self::CountingCarrier,
        Self::Ipv6Only,
        Self::Https,
        Self::Proxy,
    ];

    /// Whether datagrams get out.
    #[must_use]
    pub fn has_udp(self) -> bool {
        !matches!(self, Self::NoUdp | Self::Https | Self::Proxy)
    }
}

/// The committed table of how long it takes two nodes to answer and to meet directly, by their places.
#[derive(Clone, Debug)]
pub struct Times(String);

impl Times {
    /// What is committed.
    #[must_use]
    pub fn committed() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let table = std::fs::read_to_string(folder.join("tests/snapshots/time_to_direct.txt"));
        Self(table.expect("the table is committed"))
    }

    /// After how many milliseconds two nodes meet directly where the first begins to speak; nothing if they never do.
    #[must_use]
    pub fn to_direct(&self, one: Place, other: Place) -> Option<u64> {
        self.end(one, other).parse().ok()
    }

    /// Of what kind the path between them is in the end.
    #[must_use]
    pub fn kind(&self, one: Place, other: Place) -> &str {
        if self.to_direct(one, other).is_some() { "direct" } else { self.end(one, other) }
    }

    fn end(&self, one: Place, other: Place) -> &str {
        let row = self.0.lines().find(|line| line.starts_with(&format!("{one:?} ")));
        let column = Place::ALL.iter().position(|place| *place == other);
        let cell = row.zip(column).and_then(|(row, column)| row.split_whitespace().nth(column + 1));
        cell.and_then(|cell| cell.split_once('/')).expect("every pair has a cell").1
    }
}
