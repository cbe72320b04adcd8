//! The commands and their arguments.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use control_proto::limits::MAX_INVITES_AT_ONCE;
use identity::{GroupName, MAX_MACHINES, Padding};
use ipnet::IpNet;
use serde::Deserialize;

use crate::exit;
use crate::values::{
    Host, HostPort, Place, Traffic, Turn, duration, forward, network, networks, proxy, publish,
    region, rotation,
};

/// A private network that its owners control from end to end.
#[derive(Debug, Parser)]
#[command(name = "shadowmesh", version, after_help = exit::TABLE, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Configuration file (YAML)
    #[arg(long, global = true, env = "SHADOWMESH_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Folder for keys, maps, the database and the sockets of the local APIs
    #[arg(long, global = true, env = "SHADOWMESH_STATE_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Print JSON where something is read
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to log: error, warn, info, debug or trace, or a filter such as `engine=debug`
    #[arg(long, global = true, env = "SHADOWMESH_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How to log
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

/// How log lines look.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole network's server: controller, relay and STUN on one port
    ///
    /// Creates a network at the first start and prints an invite for the first device.
    Serve(ServerArgs),
    /// Run the controller alone
    Controller(ServerArgs),
    /// Run a relay alone
    ///
    /// The relay joins by an invite made with `shadowmesh invite create --relay`.
    Relay(RelayArgs),
    /// Join networks and run this device's node
    Up(UpArgs),
    /// Stop the node
    Down,
    /// Leave a network and forget its keys
    Leave {
        /// The network's name or id, if the device is in several
        network: Option<String>,
    },
    /// Show the node, its networks and its peers
    Status,
    /// Measure the round trip to a device through the tunnel
    Ping {
        /// Name, full name, id or address
        peer: String,
        /// How many times
        #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
    },
    /// Show what this device's surroundings allow
    Netcheck,
    /// Tell why traffic to a device takes the path it takes
    Why {
        /// Name, full name, id or address
        peer: String,
    },
    /// Make, list and revoke invites (on the controller's host)
    #[command(subcommand)]
    Invite(InviteCommand),
    /// List, approve, rename and remove devices (on the controller's host)
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Let plain WireGuard peers in, list and remove them (on the controller's host)
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Give names to devices, addresses and other names, list and remove them (on the controller's host)
    #[command(subcommand)]
    Name(NameCommand),
    /// Create, show, back up and restore the network (on the controller's host)
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Show security events and administrative changes (on the controller's host)
    #[command(subcommand)]
    Log(LogCommand),
    /// Run a plain WireGuard interface, configured by `wg`; a drop-in for wireguard-go
    Wireguard(WireguardArgs),
    /// Show a whole network on this machine, without root
    Demo(DemoArgs),
    /// Print shell completions
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a folder
    Man {
        /// The folder, made if missing
        #[arg(value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
}

/// Arguments of `serve` and `controller`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerArgs {
    /// Name of the network that the first start creates; this host's name otherwise
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
    /// The network that the first start creates is strict: its controller cannot admit devices by itself
    #[arg(long)]
    pub(crate) strict: bool,
    /// Where its relay stands, as for `relay`
    #[arg(long, value_name = "TEXT", value_parser = region)]
    pub(crate) region: Option<String>,
    /// Have its relay pass no datagrams on, as for `relay`
    #[arg(long)]
    pub(crate) no_datagrams: bool,
    #[command(flatten)]
    pub(crate) listener: ListenSettings,
}

/// Arguments of `relay`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RelayArgs {
    #[command(subcommand)]
    pub(crate) command: Option<RelayCommand>,
    /// Invite for a network to serve, or `-` to read it from standard input; none serves the networks joined before
    #[arg(env = "SHADOWMESH_INVITE", hide_env_values = true)]
    pub(crate) invite: Option<String>,
    #[command(flatten)]
    pub(crate) listener: ListenSettings,
    #[command(flatten)]
    pub(crate) service: RelayService,
}

/// Whom a relay serves, and from where.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RelayService {
    /// Where it stands, such as `eu-central`: a device that can is at home at relays of two regions
    #[arg(long, value_name = "TEXT", value_parser = region)]
    pub(crate) region: Option<String>,
    /// Serve members of this group only; may be repeated. Others reach them through other relays
    #[arg(long = "for-group", value_name = "GROUP")]
    pub(crate) groups: Vec<GroupName>,
    /// Pass no datagrams on over UDP, but frames over streams alone
    #[arg(long)]
    pub(crate) no_datagrams: bool,
}

/// What is asked of a relay that runs on this host.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RelayCommand {
    /// Send devices to other relays, so that this one can be stopped without anybody noticing
    ///
    /// Waits until nothing passes the relay any more, 10 seconds at most. A relay that is started anew is used again.
    Drain {
        /// Let devices use it again instead
        #[arg(long)]
        undo: bool,
    },
}

/// Where a server listens and how others reach it: on the command line, and in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ListenSettings {
    /// Address and port for WebSocket, and for STUN on UDP; port 443 as root if free, 8443 otherwise
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Name or address by which others reach this host, as written into invites and records; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    pub(crate) hosts: Vec<Host>,
    /// Certificate chain (PEM); self-signed and pinned by invites and records otherwise
    #[arg(long, requires = "tls_key", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, requires = "tls_certificate", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) tls_key: Option<PathBuf>,
    /// Listen without TLS: what the streams carry is encrypted in any case, but looks like nothing that the web knows
    #[arg(long, conflicts_with_all = ["tls_certificate", "tls_key", "front"])]
    pub(crate) no_tls: bool,
    #[command(flatten)]
    pub(crate) front: FrontSettings,
}

/// What stands before a listener: on the command line, and in the configuration as `front`.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct FrontSettings {
    /// Name of a reverse proxy or CDN that ends TLS for this listener, with a port where it is not 443; may be repeated. The
    /// listener itself then speaks plain HTTP
    #[arg(id = "front", long, value_name = "HOST[:PORT]", conflicts_with_all = ["tls_certificate", "tls_key"])]
    pub(crate) hosts: Vec<HostPort>,
    /// Certificate of --front (PEM), which is pinned; for one that no public authority has signed
    #[arg(long = "front-certificate", requires = "front", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) certificate: Option<PathBuf>,
    /// Address or prefix of proxies that are believed where clients come from (X-Forwarded-For); may be repeated
    #[arg(long = "trusted-proxy", value_name = "PREFIX", value_parser = network)]
    #[serde(deserialize_with = "networks")]
    pub(crate) trusted: Vec<IpNet>,
    /// HTML, at most 1 MiB, that is shown to everybody who is no client; without it there is nothing at any path
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) page: Option<PathBuf>,
}

impl FrontSettings {
    /// These, and the others where they are silent.
    pub(crate) fn or(self, others: Self) -> Self {
        let (hosts, certificate) = if self.hosts.is_empty() {
            (others.hosts, others.certificate)
        } else {
            (self.hosts, self.certificate)
        };
        let trusted = if self.trusted.is_empty() { others.trusted } else { self.trusted };
        Self { hosts, certificate, trusted, page: self.page.or(others.page) }
    }
}

/// Arguments of `up`.
#[derive(Clone, Debug, Args)]
pub(crate) struct UpArgs {
    /// Invite of a network to join, or `-` to read it from standard input, where no process list shows it
    #[arg(env = "SHADOWMESH_INVITE", hide_env_values = true)]
    pub(crate) invite: Option<String>,
    /// Go to the background once the node runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// TUN interface or userspace TCP/IP
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<UpMode>,
    /// Name that this device asks for; the host's name otherwise
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Do not use UDP: everything goes over streams
    #[arg(long)]
    pub(crate) no_udp: bool,
    /// Do not ask the router to forward a port
    #[arg(long)]
    pub(crate) no_port_mapping: bool,
    /// Leave the system's name resolution alone
    #[arg(long)]
    pub(crate) no_dns: bool,
    /// UDP port, 0 for a free one
    #[arg(long, value_name = "PORT")]
    pub(crate) listen_port: Option<u16>,
    #[command(flatten)]
    pub(crate) listen: UpListenArgs,
    /// HTTP proxy through which controllers and relays are dialled too; HTTPS_PROXY and NO_PROXY otherwise. Where it takes a
    /// password, the configuration file or the environment is the place
    #[arg(long, value_name = "URL", value_parser = proxy)]
    pub(crate) http_proxy: Option<String>,
    /// SOCKS5 and HTTP proxy in userspace mode; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) proxy: Option<SocketAddr>,
    /// Publish a local service in userspace mode, for instance 80=127.0.0.1:8080; may be repeated
    #[arg(long, value_name = "PORT=ADDRESS:PORT", value_parser = publish)]
    pub(crate) publish: Vec<node::Publish>,
    /// Forward a local port in userspace mode, for instance 127.0.0.1:2222=nas.home.alt:22; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT=HOST:PORT", value_parser = forward)]
    pub(crate) forward: Vec<node::Forward>,
}

/// Where a node takes streams of its peers.
#[derive(Clone, Debug, Args)]
pub(crate) struct UpListenArgs {
    /// Take WebSocket streams of peers at this address and port, so that those without UDP need no relay
    #[arg(id = "listen", long = "listen", value_name = "ADDRESS:PORT")]
    pub(crate) address: Option<SocketAddr>,
    /// Name or address by which peers reach what --listen opens; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    pub(crate) hosts: Vec<Host>,
    /// Certificate chain (PEM) for --listen; self-signed and pinned otherwise
    #[arg(long, requires = "tls_key", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, requires = "tls_certificate", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) tls_key: Option<PathBuf>,
    /// Listen without TLS: what the streams carry is encrypted in any case
    #[arg(long, conflicts_with_all = ["tls_certificate", "tls_key"])]
    pub(crate) no_tls: bool,
}

/// How packets get in and out of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UpMode {
    /// A TUN interface where the privileges allow it, userspace otherwise
    Auto,
    /// A TUN interface, or no start
    Tun,
    /// TCP/IP in the process: no privileges needed
    Userspace,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InviteCommand {
    /// Make an invite; it is a secret that admits one device
    Create {
        /// Name that the device gets
        #[arg(long, conflicts_with = "uses")]
        name: Option<String>,
        /// Group that the device joins; may be repeated
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// How long it may be used: 90s, 30m, 24h, 7d
        #[arg(long, default_value = "24h", value_parser = duration)]
        expires: Duration,
        /// How many invites to make, one for each device; 100 at most
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_INVITES_AT_ONCE)))]
        uses: u16,
        /// Whether the device waits until it is approved; the network's setting otherwise
        #[arg(long, value_name = "true|false")]
        approval: Option<bool>,
        /// The device may serve as a relay
        #[arg(long)]
        relay: bool,
        #[command(flatten)]
        owner: OwnerArgs,
    },
    /// List the invites
    List,
    /// Make an invite useless; a device that came in by it stays
    Revoke {
        /// The invite's key, or the beginning of it
        key: String,
    },
}

/// By whom invites are made in strict mode.
#[derive(Clone, Debug, Args)]
pub(crate) struct OwnerArgs {
    /// Make it with the network's own key in this file, as strict mode needs
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key_file: Option<PathBuf>,
    /// What `shadowmesh network outline` printed, where no controller can be asked; `-` reads standard input
    #[arg(long, requires = "key_file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) outline: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeviceCommand {
    /// List the devices
    List,
    /// Let a waiting device in
    Approve {
        /// Name, id, or the beginning of the id
        device: String,
    },
    /// Give a device another name
    Rename {
        /// Name, id, or the beginning of the id
        device: String,
        /// The new name
        name: String,
    },
    /// Remove a device and revoke it for good
    Remove {
        /// Name, id, or the beginning of the id
        device: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// Let a WireGuard peer in and print a configuration for `wg-quick`; again for another time
    Add {
        /// Name that it gets
        name: String,
        /// Its public key, as `wg pubkey` prints it
        key: String,
        /// For how long: 24h, 365d
        #[arg(long, default_value = "365d", value_parser = duration)]
        expires: Duration,
    },
    /// List the WireGuard peers
    List,
    /// Let a WireGuard peer in no more
    Remove {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NameCommand {
    /// Give a name, or another meaning to a name: `name add wiki nas`, `name add printer.office 192.168.1.9`
    Add {
        /// The name, without the network's: `wiki` is found as `wiki.NETWORK.alt`
        name: String,
        /// A device by name or id, up to 16 addresses, or another name
        #[arg(required = true)]
        target: Vec<String>,
    },
    /// List the names beside those of devices
    List,
    /// Withdraw a name
    Remove {
        /// The name, without the network's
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Create a network whose key is written once, under a passphrase, to a file of yours
    Create {
        /// The network's name, the middle label of its devices' names
        name: String,
        /// Where to write the network's key
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        key_file: PathBuf,
        /// Its controller cannot admit devices by itself: invites and records are made with the network's key
        #[arg(long)]
        strict: bool,
    },
    /// Show the network
    Show,
    /// Print what `invite create --outline` needs where no controller can be asked; not to be published
    Outline,
    /// Sign settings and relays that wait for it in strict mode
    Sign {
        /// The file with the network's key
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        key_file: PathBuf,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Change settings
    #[command(arg_required_else_help = true)]
    Set {
        /// Whether devices wait for approval unless their invite says otherwise
        #[arg(long, value_name = "true|false")]
        approval: Option<bool>,
        /// How long a membership lasts without renewal: 24h, 7d
        #[arg(long, value_parser = duration)]
        validity: Option<Duration>,
        /// Where nodes find the controller, or `auto` for where it listens; may be repeated
        #[arg(long = "controller", value_name = "HOST:PORT")]
        controllers: Vec<Place>,
        /// How traffic waits where other traffic waits too, by its ports; may be repeated, and the first rule that fits counts.
        /// `none` takes all rules away
        #[arg(long, value_name = "tcp|udp/PORT[-PORT]=interactive|bulk|background")]
        traffic: Vec<Traffic>,
        /// Whether messages on streams, through relays and straight to devices, are filled up to one of a few lengths, so
        /// that theirs tell less; takes bandwidth
        #[arg(long, value_name = "off|buckets")]
        padding: Option<Padding>,
        /// A TURN server for devices that find no direct path; may be repeated, and `none` takes all away. Every member learns the
        /// password or secret
        #[arg(
            long,
            value_name = "udp|tcp/ADDRESS:PORT,(username=NAME,password=PASSWORD|secret=SECRET)"
        )]
        turn: Vec<Turn>,
        /// A file with a TURN server in each line, for what other users of this host should not see
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "turn")]
        turn_file: Option<PathBuf>,
        /// After how long devices are at home at other relays that are as near, so that none sees one for long: 6h, or `never`
        #[arg(long, value_name = "TIME|never", value_parser = rotation)]
        relay_rotation: Option<u32>,
        /// Whether the times of messages on streams tell less: dummies where something begins, equal distances, or what up to
        /// four machines of maybenot do; takes bandwidth, and the last two take time. Includes padding
        #[arg(long, value_name = "off|front|constant|MACHINE", num_args = 1..=MAX_MACHINES)]
        shaping: Vec<String>,
        /// Devices of this group pass datagrams on between devices that find no direct path to each other; may be repeated,
        /// and `none` lets nobody do so
        #[arg(long = "peer-relay", value_name = "GROUP|none")]
        peer_relays: Vec<String>,
        /// Whether devices send each other no datagrams, which show what they are, but use streams alone, through relays and straight to devices
        /// that listen; plain WireGuard peers go on
        #[arg(long, value_name = "true|false")]
        streams_only: Option<bool>,
        /// How many entries each of the logs keeps
        #[arg(long, value_name = "NUMBER")]
        log_entries: Option<u64>,
        /// For how long the logs keep entries: 30d, 400d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        log_age: Option<Duration>,
    },
    /// List the relays
    Relays,
    /// Write a backup of the controller's state, under a passphrase
    Backup {
        /// The file to write
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Restore a backup; needs the network's key, since nodes refuse an old state otherwise
    Restore {
        /// The backup
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// The file with the network's key
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        key_file: PathBuf,
    },
}

/// What is done with the controller's logs.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Show security events, newest first
    Events {
        /// How many at most
        #[arg(long, default_value_t = 100, value_name = "COUNT")]
        limit: u32,
    },
    /// Show administrative changes, newest first
    Audit {
        /// How many at most
        #[arg(long, default_value_t = 100, value_name = "COUNT")]
        limit: u32,
    },
    /// Check that nothing in the logs was changed after the fact
    Verify,
}

/// Arguments of `wireguard`.
#[derive(Clone, Debug, Args)]
pub(crate) struct WireguardArgs {
    /// Stay in the foreground
    #[arg(short, long)]
    pub(crate) foreground: bool,
    /// Name of the interface to create
    pub(crate) interface: String,
}

/// Arguments of `demo`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    /// End with a summary instead of running until Ctrl-C
    #[arg(long)]
    pub(crate) once: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_no_host_is_refused_before_anything_is_made() {
        let takes =
            |arguments: &[&str]| Cli::try_parse_from([&["shadowmesh"], arguments].concat()).is_ok();
        for (wrong, right) in [
            (["serve", "--front", "mesh.example.org:https"], "mesh.example.org:8443"),
            (["relay", "--front", "[mesh.example.org]"], "[2001:db8::1]"),
            (["controller", "--host", "mesh.example.org:443"], "mesh.example.org"),
            (["up", "--host", "mesh_example"], "2001:db8::1"),
        ] {
            let [command, option, text] = wrong;
            assert!(!takes(&wrong), "{command} {option} {text}");
            assert!(takes(&[command, option, right]), "{command} {option} {right}");
        }
    }
}
