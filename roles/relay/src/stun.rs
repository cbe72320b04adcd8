//! To whom a STUN server answers how often.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Answers that one source prefix gets in a second: enough for an office behind one address, and
/// too little to be worth reflecting at somebody.
const PER_SOURCE: u32 = 20;

/// Answers to everybody in a second: a few percent of one core.
const IN_TOTAL: u32 = 10_000;

/// Source prefixes remembered at once.
const SOURCES: usize = 4_096;

/// Budgets are for this long.
const PERIOD: Duration = Duration::from_secs(1);

/// Who got how many answers in this period.
pub(crate) struct Budget {
    since: Instant,
    total: u32,
    sources: BTreeMap<IpAddr, u32>,
}

impl Budget {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { since: now, total: 0, sources: BTreeMap::new() }
    }

    pub(crate) fn allow(&mut self, source: SocketAddr, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= PERIOD {
            *self = Self::new(now);
        }
        let prefix = prefix(source.ip());
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&prefix) {
            return false;
        }
        let used = self.sources.entry(prefix).or_default();
        if *used >= PER_SOURCE || self.total >= IN_TOTAL {
            return false;
        }
        *used += 1;
        self.total += 1;
        true
    }
}

/// What one party usually holds: a /32 of IPv4, a /56 of IPv6.
fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (!0 << 72))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_gets_its_budget_and_others_theirs() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let allowed = |budget: &mut Budget, source: &str, at| {
            let source = source.parse().expect("an address");
            (0..100).filter(|_| budget.allow(source, at)).count()
        };
        assert_eq!(allowed(&mut budget, "192.0.2.1:1000", start), 20);
        assert_eq!(allowed(&mut budget, "192.0.2.1:2000", start), 0);
        assert_eq!(allowed(&mut budget, "192.0.2.2:1000", start), 20);
        assert_eq!(allowed(&mut budget, "[2001:db8::1]:1", start), 20);
        assert_eq!(allowed(&mut budget, "[2001:db8:0:1::2]:1", start), 0);
        assert_eq!(allowed(&mut budget, "192.0.2.1:1000", start + PERIOD), 20);
    }
}
