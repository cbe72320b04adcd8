//! Texts of arguments and settings, and what they mean.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use identity::{ParseTrafficRuleError, ParseTurnServerError, TrafficRule, TurnSecret, TurnServer};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error};
use websocket::{Proxy, ProxyError};

/// Where web servers are found whose port nobody says.
pub(crate) const HTTPS_PORT: u16 = 443;
/// The longest DNS name in characters (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;
/// The longest part of one (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// By what others find a host: a DNS name, or an IP address without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Host(String);

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self(address.to_string())
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(address.into()),
            Err(_) if is_name(text) => Ok(Self(text.to_owned())),
            Err(_) => {
                Err(format!("{text:?} is no host: give a name or an address, without a port"))
            }
        }
    }
}

impl TryFrom<String> for Host {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host and a TCP port there, which is 443 where the text says none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HostPort {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = host_and_port(text).ok_or_else(|| {
            format!(
                "{text:?} is no host with or without a port: for instance mesh.example.org, mesh.example.org:8443 or [2001:db8::1]:8443"
            )
        })?;
        Ok(Self { host, port: port.map_or(HTTPS_PORT, NonZeroU16::get) })
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Where nodes find a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Where it listens.
    Listening,
    /// At this host and port.
    At(HostPort),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Listening);
        }
        let Some((host, Some(port))) = host_and_port(text) else {
            return Err("for instance vpn.example.org:443, [2001:db8::1]:443 or auto".to_owned());
        };
        Ok(Self::At(HostPort { host, port: port.get() }))
    }
}

/// A rule for traffic, or the word that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// All traffic waits as it is marked, or by what its flow sends.
    Unruled,
    /// As this rule says.
    Rule(TrafficRule),
}

impl FromStr for Traffic {
    type Err = ParseTrafficRuleError;

    fn from_str(text: &str) -> Result<Self, ParseTrafficRuleError> {
        if text == "none" {
            return Ok(Self::Unruled);
        }
        text.parse().map(Self::Rule)
    }
}

/// A TURN server with its secret, or the word that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nobody uses TURN.
    Unused,
    /// This one, in text.
    Server(TurnSecret),
}

impl FromStr for Turn {
    type Err = ParseTurnServerError;

    fn from_str(text: &str) -> Result<Self, ParseTurnServerError> {
        if text == "none" {
            return Ok(Self::Unused);
        }
        text.parse::<TurnServer>().map(|_| Self::Server(text.to_owned().into()))
    }
}

/// Reads `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`; an IPv6 address without brackets has no port.
fn host_and_port(text: &str) -> Option<(Host, Option<NonZeroU16>)> {
    if let Ok(host) = text.parse() {
        return Some((host, None));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (IpAddr::V6(address.parse::<Ipv6Addr>().ok()?).into(), port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':')?);
            (host.parse().ok()?, port)
        }
    };
    if port.is_empty() {
        return Some((host, None));
    }
    let digits = port.strip_prefix(':').filter(|digits| !digits.starts_with('+'))?;
    Some((host, Some(digits.parse().ok()?)))
}

/// Whether it is a host's name (RFC 1123 section 2.1). One that ends with a number would be taken for an address.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= MAX_NAME
        && text.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads a prefix, or an address as the prefix of it alone.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse().map(IpAddr::into);
    text.parse().or_else(|_| address()).map_err(|_| format!("{text:?} is no address or prefix"))
}

pub(crate) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| network(text)).collect::<Result<_, _>>().map_err(D::Error::custom)
}

/// Reads `90s`, `30m`, `24h` or `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const SYNTAX: &str = "a number and s, m, h or d, for instance 24h";
    let unit = text.chars().last().ok_or(SYNTAX)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(SYNTAX.to_owned()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| SYNTAX)?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "too long".to_owned())
}

/// Reads a duration in seconds, or `never` as 0.
pub(crate) fn rotation(text: &str) -> Result<u32, String> {
    if text == "never" {
        return Ok(0);
    }
    u32::try_from(duration(text)?.as_secs()).map_err(|_| "too long".to_owned())
}

/// Where a relay stands: a line that is short enough for a table.
pub(crate) fn region(text: &str) -> Result<String, String> {
    const LONGEST: usize = 64;
    if text.len() > LONGEST || text.chars().any(char::is_control) {
        return Err(format!("a region is one line of at most {LONGEST} bytes"));
    }
    Ok(text.to_owned())
}

/// A proxy's URL, unchanged if it is one.
pub(crate) fn proxy(text: &str) -> Result<String, ProxyError> {
    text.parse::<Proxy>().map(|_| text.to_owned())
}

pub(crate) fn publish(text: &str) -> Result<node::Publish, String> {
    const SYNTAX: &str = "for instance 80=127.0.0.1:8080";
    let (port, to) = text.split_once('=').ok_or(SYNTAX)?;
    let port = port.parse().map_err(|_| SYNTAX)?;
    Ok(node::Publish { port, to: to.parse().map_err(|_| SYNTAX)? })
}

pub(crate) fn forward(text: &str) -> Result<node::Forward, String> {
    const SYNTAX: &str = "for instance 127.0.0.1:2222=nas.home.alt:22";
    let (listen, to) = text.split_once('=').ok_or(SYNTAX)?;
    let forward = node::Forward { listen: listen.parse().map_err(|_| SYNTAX)?, to: to.to_owned() };
    if forward.target().is_none() {
        return Err(SYNTAX.to_owned());
    }
    Ok(forward)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> HostPort {
        HostPort { host: Host(host.to_owned()), port }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        let longest = [&"a".repeat(63)[..]; 4].join(".");
        for good in ["localhost", "Mesh-1.example.org", "3com.example", "192.0.2.1", "2001:db8::1"]
        {
            assert_eq!(good.parse(), Ok(Host(good.to_owned())));
        }
        assert!(longest[2..].parse::<Host>().is_ok(), "{} characters", longest.len() - 2);
        let wrong = ["", ".", "a.", "a..b", "-a", "a-", "a b", "a_b", "a/b", "é", "a:443", "[::1]"];
        let numbers = ["1", "192.0.2.256", "192.0.2.1.5", "a.1", "192.0.2.1:443"];
        let long = [&longest[..], &"a".repeat(64)];
        for wrong in [&wrong[..], &numbers, &long].concat() {
            assert!(wrong.parse::<Host>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_port_of_a_front_is_443_unless_it_is_said() {
        for (text, host, port) in [
            ("mesh.example.org", "mesh.example.org", 443),
            ("mesh.example.org:8443", "mesh.example.org", 8443),
            ("192.0.2.1", "192.0.2.1", 443),
            ("192.0.2.1:1", "192.0.2.1", 1),
            ("2001:db8::1", "2001:db8::1", 443),
            ("2001:DB8:0::1:8443", "2001:db8::1:8443", 443),
            ("[2001:db8::1]", "2001:db8::1", 443),
            ("[2001:db8::1]:65535", "2001:db8::1", 65535),
        ] {
            assert_eq!(text.parse(), Ok(at(host, port)));
        }
        for wrong in [
            "",
            ":",
            ":443",
            "a:",
            "a:b",
            "a:0",
            "a:65536",
            "a:+1",
            "a: 1",
            "a:1:2",
            "a b:1",
            "[]",
            "[a]",
            "[a]:1",
            "[192.0.2.1]:1",
            "[::1",
            "::1]:1",
            "[::1]1",
            "[::1]:",
            "[::1]:0",
            "[[::1]]:1",
            "https://a",
            "a/b",
        ] {
            assert!(wrong.parse::<HostPort>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn places_of_a_controller_have_a_port_and_brackets_where_needed() {
        assert_eq!("auto".parse(), Ok(Place::Listening));
        assert_eq!("a.example:443".parse(), Ok(Place::At(at("a.example", 443))));
        assert_eq!("[2001:db8::1]:443".parse(), Ok(Place::At(at("2001:db8::1", 443))));
        for wrong in
            ["a.example", ":443", "a.example:", "a.example:0", "2001:db8::1:443", "[a.example]:443"]
        {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_and_fronts_in_the_configuration_are_read_as_on_the_command_line() {
        let read = |text: &str| serde_saphyr::from_str::<Vec<HostPort>>(text).ok();
        assert_eq!(read("[\"[::1]:8443\", a]"), Some(vec![at("::1", 8443), at("a", 443)]));
        assert_eq!(read("[a:b]"), None);
        assert!(serde_saphyr::from_str::<Vec<Host>>("[a, '192.0.2.1']").is_ok());
        assert!(serde_saphyr::from_str::<Vec<Host>>("['a:443']").is_err());
    }

    #[test]
    fn durations_have_a_unit_and_do_not_overflow() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in
            ["", "7", "d", "1y", "-1h", "99999999999999999999d", "18446744073709551615d", "1é"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn published_ports_and_forwards_name_both_ends() {
        let published = publish("80=127.0.0.1:8080").expect("both ends");
        assert_eq!(
            (published.port, published.to),
            (80, "127.0.0.1:8080".parse().expect("an address"))
        );
        assert!(publish("80").is_err());
        assert!(forward("127.0.0.1:2222=nas.home.alt:22").is_ok());
        assert!(forward("127.0.0.1:2222=nas.home.alt").is_err());
    }
}
