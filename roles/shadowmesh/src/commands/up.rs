//! Running a node, in the foreground or detached.

use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use keystore::FileKeystore;
use node::api::{Client, ClientError, Membership, NetworkStatus};
use node::{Clock, Listening, Mode, Node, NodeConfig, NodeSettings, StartError};
use tracing::info;
use websocket::Proxy;
use zeroize::Zeroizing;

use super::serve;
use crate::cli::{FrontSettings, Global, ListenSettings, UpArgs, UpListenArgs, UpMode};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::listen::prepare;
use crate::output::{WARN, note, styled};
use crate::stop;
use crate::values::Host;

/// A node that was started has this long to answer.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is asked meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The name of the listener's TLS key in the keystore.
const TLS_KEY: &str = "listen-tls-key";
/// Longer than any invite.
const MAX_INVITE: u64 = 64 * 1024;

pub(crate) async fn up(args: UpArgs, global: &Global, config: Config) -> Result<(), Failure> {
    let invite = args.invite.as_deref().map(read_invite).transpose()?;
    let client = Client::new(config.node_socket()?);
    if let Ok(status) = client.status().await {
        let Some(invite) = invite else {
            let text = format!(
                "a node runs already, as process {}; `shadowmesh down` stops it",
                status.pid
            );
            return Err(Failure::new(Exit::Host, text));
        };
        return join(&client, &invite).await;
    }
    if args.detach {
        let node = start_detached(&args, global, &config)?;
        wait_until_it_answers(&client, node, &config).await?;
        return match invite {
            Some(invite) => join(&client, &invite).await,
            None => Ok(()),
        };
    }
    run(&args, config, client, invite).await
}

/// Runs the node here until it is told to stop, or until the network refuses the device that wanted in.
async fn run(
    args: &UpArgs,
    config: Config,
    client: Client,
    invite: Option<Zeroizing<String>>,
) -> Result<(), Failure> {
    let keys = FileKeystore::open(config.state_dir().join("node"), None)
        .map_err(|error| Failure::new(Exit::Host, error.to_string()))?;
    let stop = stop::requested().map_err(|error| Failure::new(Exit::Host, error.to_string()))?;
    let settings = settings(args, config.node.clone());
    let listening = open(&settings.listen, &keys).await?;
    let node_config = NodeConfig {
        keys: Arc::new(keys),
        socket: config.node_socket()?,
        settings,
        listening,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        clock: Clock::default(),
    };
    let node = Node::start(node_config).await?;
    if invite.is_none() && node.is_alone() {
        note("In no network yet: `shadowmesh up INVITE` joins one.");
    }
    let joining = async {
        match invite {
            Some(invite) => join(&client, &invite).await,
            None => Ok(()),
        }
    };
    let mut running = std::pin::pin!(node.run(stop));
    tokio::select! {
        () = &mut running => Ok(()),
        joined = joining => match joined {
            Ok(()) => {
                running.await;
                Ok(())
            }
            // The controller may come back, and clocks are set; everything else is final.
            Err(failure) if matches!(failure.exit, Exit::Timeout | Exit::Clock) => {
                note(&failure);
                running.await;
                Ok(())
            }
            Err(failure) => {
                // The node stops whether or not its answer arrives.
                let _ = tokio::join!(client.down(), running);
                Err(failure)
            }
        },
    }
}

/// Opens the port for peers' streams, if there is to be one.
async fn open(wanted: &node::Listen, keys: &FileKeystore) -> Result<Option<Listening>, Failure> {
    if wanted.address.is_none() {
        return Ok(None);
    }
    let hosts: Result<Vec<Host>, String> = wanted.hosts.iter().map(|host| host.parse()).collect();
    let asked = ListenSettings {
        listen: wanted.address,
        hosts: hosts.map_err(|error| Failure::new(Exit::Usage, error))?,
        tls_certificate: wanted.tls_certificate.clone().filter(|_| wanted.tls),
        tls_key: wanted.tls_key.clone().filter(|_| wanted.tls),
        no_tls: !wanted.tls,
        front: FrontSettings::default(),
    };
    let asked = serve::wanted(asked, ListenSettings::default())?;
    let opened = prepare(asked).await?.listen(&serve::tls_key(keys, TLS_KEY)?).await?;
    let follows_host = wanted.hosts.is_empty();
    info!(address = %opened.address, tls = wanted.tls, "taking streams of peers");
    Ok(Some(Listening { listener: opened.listener, servers: opened.servers, follows_host }))
}

async fn join(client: &Client, invite: &str) -> Result<(), Failure> {
    let joined = client.join(invite).await?;
    match joined.membership {
        Membership::AwaitingApproval => note(format_args!(
            "Joined {}: waiting until somebody there runs `shadowmesh device approve`.",
            joined.name
        )),
        Membership::Online | Membership::Offline | Membership::Joining | Membership::Refused => {
            note(format_args!("Joined {}. `shadowmesh status` shows who is there.", joined.name))
        }
    }
    tell(&joined.advice);
    Ok(())
}

fn tell(advice: &[String]) {
    for advice in advice {
        note(format_args!("{} {advice}", styled(WARN, "!")));
    }
}

/// The settings of the file with what the command line says on top.
fn settings(args: &UpArgs, file: NodeSettings) -> NodeSettings {
    let mode = args.mode.map(|mode| match mode {
        UpMode::Auto => Mode::Auto,
        UpMode::Tun => Mode::Tun,
        UpMode::Userspace => Mode::Userspace,
    });
    let proxy = args.http_proxy.as_ref().and_then(|url| url.parse().ok()).or(file.http_proxy);
    let (http_proxy, no_proxy) = match proxy {
        Some(proxy) => (Some(proxy), file.no_proxy),
        None => proxy_of_environment(|name| std::env::var(name).ok()),
    };
    NodeSettings {
        mode: mode.unwrap_or(file.mode),
        http_proxy,
        no_proxy,
        device_name: args.name.clone().or(file.device_name),
        listen_port: args.listen_port.unwrap_or(file.listen_port),
        listen: listen_settings(&args.listen, file.listen),
        port_mapping: file.port_mapping && !args.no_port_mapping,
        udp: file.udp && !args.no_udp,
        dns: file.dns && !args.no_dns,
        proxy: args.proxy.or(file.proxy),
        forwards: [file.forwards, args.forward.clone()].concat(),
        publish: [file.publish, args.publish.clone()].concat(),
        ..file
    }
}

fn listen_settings(args: &UpListenArgs, file: node::Listen) -> node::Listen {
    let asked: Vec<String> = args.hosts.iter().map(ToString::to_string).collect();
    let hosts = if asked.is_empty() { file.hosts } else { asked };
    let is_certified = args.tls_certificate.is_some();
    node::Listen {
        address: args.address.or(file.address),
        hosts,
        tls_certificate: args.tls_certificate.clone().or(file.tls_certificate),
        tls_key: args.tls_key.clone().or(file.tls_key),
        tls: !args.no_tls && (file.tls || is_certified),
    }
}

/// The proxy and its exceptions as curl and others know them. What is no HTTP proxy is passed over, and said.
fn proxy_of_environment(get: impl Fn(&str) -> Option<String>) -> (Option<Proxy>, Vec<String>) {
    let of = |names: &[&'static str]| {
        names.iter().find_map(|name| Some((*name, get(name).filter(|v| !v.is_empty())?)))
    };
    let Some((name, value)) = of(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]) else {
        return (None, Vec::new());
    };
    let value = Zeroizing::new(value);
    let (_, exceptions) = of(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
    let exceptions = exceptions.split(',').map(|one| one.trim().to_owned()).collect();
    match value.parse() {
        Ok(proxy) => (Some(proxy), exceptions),
        Err(error) => {
            note(format_args!("{} {name} is not used: {error}", styled(WARN, "!")));
            (None, Vec::new())
        }
    }
}

/// The invite itself, or what standard input says for `-`.
pub(crate) fn read_invite(argument: &str) -> Result<Zeroizing<String>, Failure> {
    if argument != "-" {
        return Ok(Zeroizing::new(argument.to_owned()));
    }
    let mut text = Zeroizing::new(String::new());
    let read = std::io::stdin().take(MAX_INVITE).read_to_string(&mut text);
    read.map_err(|error| Failure::new(Exit::Usage, format!("standard input: {error}")))?;
    Ok(text)
}

/// Starts this program once more as a session of its own. The invite stays here, so that no process list shows it.
fn start_detached(args: &UpArgs, global: &Global, config: &Config) -> Result<Child, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Host, error.to_string());
    let log_path = log_file(config);
    let unusable = |error: std::io::Error| {
        let text = format!("{}: {error}; choose another --state-dir", log_path.display());
        Failure::new(Exit::Host, text)
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(config.state_dir())
        .map_err(unusable)?;
    let mut log = std::fs::File::options();
    let log = log.create(true).append(true).mode(0o600).open(&log_path).map_err(unusable)?;
    let mut command = std::process::Command::new(std::env::current_exe().map_err(failed)?);
    for (name, value) in [("--config", &global.config), ("--state-dir", &global.state_dir)] {
        if let Some(value) = value {
            command.arg(name).arg(std::path::absolute(value).map_err(failed)?);
        }
    }
    if let Some(filter) = &global.log {
        command.args(["--log", filter]);
    }
    if global.log_format == Some(crate::cli::LogFormat::Json) {
        command.args(["--log-format", "json"]);
    }
    command.arg("up").args(node_arguments(args)).env_remove("SHADOWMESH_INVITE").current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .process_group(0);
    command.spawn().map_err(failed)
}

fn node_arguments(args: &UpArgs) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(mode) = args.mode {
        let mode = match mode {
            UpMode::Auto => "auto",
            UpMode::Tun => "tun",
            UpMode::Userspace => "userspace",
        };
        all.push(format!("--mode={mode}"));
    }
    all.extend(args.name.iter().map(|name| format!("--name={name}")));
    all.extend(args.no_udp.then(|| "--no-udp".to_owned()));
    all.extend(args.no_port_mapping.then(|| "--no-port-mapping".to_owned()));
    all.extend(args.no_dns.then(|| "--no-dns".to_owned()));
    all.extend(args.listen_port.iter().map(|port| format!("--listen-port={port}")));
    all.extend(args.listen.address.iter().map(|address| format!("--listen={address}")));
    all.extend(args.listen.hosts.iter().map(|host| format!("--host={host}")));
    let files =
        [("--tls-certificate", &args.listen.tls_certificate), ("--tls-key", &args.listen.tls_key)];
    all.extend(files.iter().filter_map(|(name, file)| {
        let file = std::path::absolute(file.as_ref()?).ok()?;
        Some(format!("{name}={}", file.display()))
    }));
    all.extend(args.listen.no_tls.then(|| "--no-tls".to_owned()));
    all.extend(args.http_proxy.iter().map(|proxy| format!("--http-proxy={proxy}")));
    all.extend(args.proxy.iter().map(|proxy| format!("--proxy={proxy}")));
    all.extend(
        args.publish.iter().map(|publish| format!("--publish={}={}", publish.port, publish.to)),
    );
    all.extend(
        args.forward.iter().map(|forward| format!("--forward={}={}", forward.listen, forward.to)),
    );
    all
}

fn log_file(config: &Config) -> PathBuf {
    config.state_dir().join("node.log")
}

async fn wait_until_it_answers(
    client: &Client,
    mut node: Child,
    config: &Config,
) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + START_TIMEOUT;
    loop {
        match client.status().await {
            Ok(status) => {
                note(format_args!(
                    "The node runs as process {}; it logs to {}.",
                    status.pid,
                    log_file(config).display()
                ));
                let wrong = |network: &&NetworkStatus| network.clock_offset_seconds.is_some();
                // Every network says the same of one clock.
                if let Some(network) = status.networks.iter().find(wrong) {
                    tell(&network.advice);
                }
                return Ok(());
            }
            Err(ClientError::NotRunning { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if let Ok(Some(ended)) = node.try_wait() {
            let log = std::fs::read_to_string(log_file(config)).unwrap_or_default();
            let last = log.lines().last().unwrap_or("it left no word");
            let last = last.trim_start_matches("error: ");
            let code = ended.code().and_then(Exit::from_code).unwrap_or(Exit::Other);
            return Err(Failure::new(code, format!("the node did not start: {last}")));
        }
        if tokio::time::Instant::now() > deadline {
            let text =
                format!("the node does not answer; {} may say why", log_file(config).display());
            return Err(Failure::new(Exit::Timeout, text));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(Exit::Host, error.to_string())
    }
}
