//! What may be set for a node.

use std::{net::SocketAddr, num::NonZero, path::PathBuf, thread::available_parallelism};

use identity::TurnServer;
use serde::{Deserialize, Deserializer, de::Error};
use websocket::Proxy;
use zeroize::Zeroizing;

use crate::detour::ProxyRule;

/// A number whose bits none of the usual users of marks has: kube-proxy 0xc000, Cilium 0xf00, Tailscale
/// 0xff0000, Calico the upper half.
const DEFAULT_MARK: u32 = 0x53;

/// The least that IPv6 demands of a link (RFC 8200 section 5).
pub(crate) const SMALLEST_MTU: u16 = 1280;

/// How packets get from applications into the network and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A TUN interface where the privileges allow it, the userspace stack otherwise.
    #[default]
    Auto,
    /// A TUN interface; not starting without one.
    Tun,
    /// The userspace TCP/IP stack: no privileges, reached by proxy and forwards.
    Userspace,
}

/// How many threads move the packets of an interface, each with queues of it and a UDP socket of its own: 1 to 255, or by
/// default one for each two processors, 8 at most.
///
/// What one peer sends goes through one of them, and so does most of what goes to it. More of them help
/// whoever has many busy peers and processors to spare: the programs that send and receive need some as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ThreadCount(Option<NonZero<u8>>);

impl ThreadCount {
    /// Of processors, that many have a thread.
    const SHARE: usize = 2;
    /// More than that takes more memory than it moves packets, unless somebody knows better.
    const MOST: usize = 8;

    /// The number set, or one for each two processors that this process may use, 1 to 8.
    pub(crate) fn number(self) -> usize {
        let of_host = || {
            let processors = available_parallelism().map_or(1, NonZero::get);
            (processors / Self::SHARE).clamp(1, Self::MOST)
        };
        self.0.map_or_else(of_host, |number| number.get().into())
    }
}

/// Settings of a node, with the defaults that suit most.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NodeSettings {
    /// TUN or userspace.
    pub mode: Mode,
    /// The name this device asks for when it joins; the host's name otherwise.
    pub device_name: Option<String>,
    /// The TUN interface's name; further networks get a number behind it.
    pub interface: String,
    /// The TUN device node.
    pub tun_path: PathBuf,
    /// The interface's MTU in bytes, at least 1280. Packets to a peer are smaller where no larger ones pass.
    pub mtu: u16,
    /// Threads that move the packets of a network's interface.
    pub data_threads: ThreadCount,
    /// The UDP port, 0 for a free one. Further networks always take a free one.
    pub listen_port: u16,
    /// Whether the router is asked to forward a port to each network's UDP port.
    pub port_mapping: bool,
    /// Firewall mark (`SO_MARK`) on what goes underneath: datagrams, connections to controllers and
    /// relays, questions to the host's resolvers; 0 for none. Without CAP_NET_ADMIN there is none.
    pub mark: u32,
    /// Whether, and how, peers may come by streams of their own.
    pub listen: Listen,
    /// The HTTP proxy through which controllers and relays are dialled, beside the direct way.
    #[serde(deserialize_with = "proxy")]
    pub http_proxy: Option<Proxy>,
    /// For whom the proxy is not asked: names, which stand for what is below them too, addresses,
    /// prefixes, or `*`.
    pub no_proxy: Vec<String>,
    /// TURN servers beside those of each network.
    #[serde(deserialize_with = "turn")]
    pub turn: Vec<TurnServer>,
    /// Whether UDP is used at all; without it everything goes over streams.
    pub udp: bool,
    /// Whether names are answered and, in TUN mode, the system's resolver is pointed here.
    pub dns: bool,
    /// Where the userspace mode serves SOCKS5 and HTTP proxying; port 0 takes a free one.
    pub proxy: Option<SocketAddr>,
    /// Local ports that lead to a device or service of the network (userspace mode).
    pub forwards: Vec<Forward>,
    /// Ports of this device, as the network sees it, that lead to local services (userspace mode).
    pub publish: Vec<Publish>,
}

impl NodeSettings {
    pub(crate) fn proxy_rule(&self) -> Option<ProxyRule> {
        let proxy = self.http_proxy.clone()?;
        Some(ProxyRule { proxy, exceptions: self.no_proxy.clone() })
    }
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            device_name: None,
            interface: "shadowmesh".to_owned(),
            tun_path: PathBuf::from("/dev/net/tun"),
            mtu: engine::DEFAULT_MTU,
            data_threads: ThreadCount::default(),
            listen_port: 0,
            listen: Listen::default(),
            port_mapping: true,
            mark: DEFAULT_MARK,
            http_proxy: None,
            no_proxy: Vec::new(),
            turn: Vec::new(),
            udp: true,
            dns: true,
            proxy: Some(SocketAddr::from(([127, 0, 0, 1], 1080))),
            forwards: Vec::new(),
            publish: Vec::new(),
        }
    }
}

/// A WebSocket port for peers to which UDP is forbidden: they reach this device without a relay.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Listen {
    /// Address and port; without them the device does not listen.
    pub address: Option<SocketAddr>,
    /// Names and addresses by which others reach this host; its own addresses otherwise.
    pub hosts: Vec<String>,
    /// Certificate chain (PEM); self-signed and pinned by what the device announces otherwise.
    pub tls_certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    pub tls_key: Option<PathBuf>,
    /// Whether the streams are in TLS. What they carry is encrypted in any case.
    pub tls: bool,
}

impl Default for Listen {
    fn default() -> Self {
        Self { address: None, hosts: Vec::new(), tls_certificate: None, tls_key: None, tls: true }
    }
}

fn proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Proxy>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.map(Zeroizing::new);
    text.map(|text| text.parse()).transpose().map_err(Error::custom)
}

fn turn<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TurnServer>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let servers = texts.into_iter().map(|text| Zeroizing::new(text).parse());
    servers.collect::<Result<_, _>>().map_err(Error::custom)
}

/// A local port that leads into the network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// Where connections are taken on this host.
    pub listen: SocketAddr,
    /// Where they lead: `name:port`, `address:port` or `[address]:port`.
    pub to: String,
}

impl Forward {
    /// The host and the port of [`Self::to`], if it has both.
    #[must_use]
    pub fn target(&self) -> Option<(&str, u16)> {
        let (host, port) = self.to.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (!host.is_empty()).then_some((host, port.parse().ok()?))
    }
}

/// A port of this device that leads to a local service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The TCP port as the network sees it.
    pub port: u16,
    /// The local service.
    pub to: SocketAddr,
}
