//! The HTTP proxy beside the direct way to controllers and relays.

use std::net::IpAddr;

use ipnet::IpNet;
use websocket::{Detour, Proxy};

use crate::dns::{DnsState, lookup};

/// A proxy, and for whom it is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyRule {
    pub(crate) proxy: Proxy,
    /// Names, which stand for what is below them too, addresses, prefixes, or `*` for everything.
    pub(crate) exceptions: Vec<String>,
}

impl ProxyRule {
    /// The way through the proxy to a host with a port; none if the host is an exception.
    pub(crate) async fn detour(&self, host: &str, dns: &DnsState) -> Option<Detour> {
        let (name, _) = host.rsplit_once(':')?;
        if self.excepts(name.trim_start_matches('[').trim_end_matches(']')) {
            return None;
        }
        let addresses = match self.proxy.address() {
            Some(address) => vec![address],
            None => lookup(dns, self.proxy.host(), self.proxy.port()).await,
        };
        Some(Detour { proxy: self.proxy.clone(), addresses })
    }

    /// This host itself is always an exception.
    fn excepts(&self, host: &str) -> bool {
        let address = host.parse::<IpAddr>().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let is_met = |exception: &String| {
            let exception = exception.trim();
            let name = exception.trim_start_matches("*.").trim_start_matches('.');
            let is_name = !name.is_empty()
                && host.len() >= name.len()
                && host.is_char_boundary(host.len() - name.len())
                && host[host.len() - name.len()..].eq_ignore_ascii_case(name)
                && (host.len() == name.len() || host[..host.len() - name.len()].ends_with('.'));
            let prefix = exception.parse::<IpNet>().ok();
            exception == "*"
                || (address.is_none() && is_name)
                || address.is_some_and(|address| {
                    exception.parse() == Ok(address)
                        || prefix.is_some_and(|prefix| prefix.contains(&address))
                })
        };
        self.exceptions.iter().any(is_met)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_names_and_what_is_below_addresses_prefixes_or_everything() {
        let excepts = |exception: &str, host: &str| {
            let proxy = "http://192.0.2.1:3128".parse().expect("a proxy");
            ProxyRule { proxy, exceptions: vec![exception.to_owned()] }.excepts(host)
        };
        for (exception, host) in [
            ("example.org", "example.org"),
            ("example.org", "relay.Example.ORG"),
            (".example.org", "relay.example.org"),
            ("*.example.org", "relay.example.org"),
            ("198.51.100.7", "198.51.100.7"),
            ("198.51.100.0/24", "198.51.100.7"),
            ("2001:db8::/32", "2001:db8::1"),
            ("*", "example.org"),
            (" example.org ", "example.org"),
            ("", "localhost"),
            ("", "127.0.0.2"),
            ("", "::1"),
        ] {
            assert!(excepts(exception, host), "{exception} {host}");
        }
        for (exception, host) in [
            ("example.org", "badexample.org"),
            ("relay.example.org", "example.org"),
            ("198.51.100.0/24", "198.51.101.7"),
            ("100.7", "198.51.100.7"),
            ("", "example.org"),
        ] {
            assert!(!excepts(exception, host), "{exception} {host}");
        }
    }
}
