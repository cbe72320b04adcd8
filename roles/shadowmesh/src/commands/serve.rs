//! Running the server side: controller and relay together, or either alone.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use control_proto::{InviteRequest, Mode, Owner};
use controller::network::{NetworkError, NetworkFolder, NewNetwork, network_key};
use controller::secrets::ControllerSecrets;
use controller::{AdminClient, Controller, StartError};
use futures_util::future::join_all;
use identity::{DeviceName, GroupName, Invite, NetworkName};
use keystore::{FileKeystore, Keystore as _, KeystoreError, write_private_file};
use local_api::BindError;
use relay::{
    AdminListener, Capture, Limits, Membership, MembershipConfig, MembershipError, Relay,
    RelayConfig,
};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use websocket::Upgrade;
use zeroize::Zeroizing;

use super::admin::created;
use super::owner::{self, KEY_PASSPHRASE};
use crate::cli::{ListenSettings, RelayArgs, ServerArgs};
use crate::config::{CONTROLLER_SOCKET, Config, RELAY_SOCKET};
use crate::exit::{Exit, Failure};
use crate::listen::{Listening, Wanted, prepare};
use crate::output::{BOLD, line, note, styled};
use crate::{clock, passphrase, stop, values};

/// The name of the relay's TLS key in its keystore.
const RELAY_TLS_KEY: &str = "relay-tls-key";
/// The name that the relay of `serve` asks for.
const OWN_RELAY: &str = "relay";

/// The relay of a new strict network has this long to join and offer its entry.
const SIGN_DEADLINE: Duration = Duration::from_secs(60);
/// How often it is asked whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a server consists of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    /// Controller, relay and STUN.
    All,
    /// The controller alone.
    Controller,
}

/// `serve` and `controller`: runs until a signal.
pub(crate) async fn serve(args: ServerArgs, config: Config, parts: Parts) -> Result<(), Failure> {
    let stop = stop::requested().map_err(|error| Failure::new(Exit::Host, error.to_string()))?;
    let server = Server::start(args, config.clone(), parts, None).await?;
    server.welcome(&config).await?;
    server.run(stop).await
}

/// A running server.
pub(crate) struct Server {
    listening: Listening,
    controller: Controller,
    relay: Option<OwnRelay>,
    admin: AdminClient,
    mode: Mode,
    first_start: bool,
    /// At the first start of a strict network, until what waits is signed.
    owner: Option<Owner>,
}

/// The relay of `serve`.
struct OwnRelay {
    relay: Relay,
    memberships: Vec<Membership>,
    admin: Option<AdminListener>,
}

impl Server {
    /// Takes the port, makes the network at the first start, and starts the parts.
    pub(crate) async fn start(
        args: ServerArgs,
        config: Config,
        parts: Parts,
        capture: Option<Capture>,
    ) -> Result<Self, Failure> {
        let folder = network_folder(&config);
        let wanted_mode = if args.strict { Mode::Strict } else { Mode::Simple };
        let prepared = prepare(wanted(args.listener, config.server.clone().into())?).await?;
        let found = folder.secrets()?;
        let first_start = found.is_none();
        let (secrets, owner) = match found {
            Some(secrets) => (secrets, None),
            None => {
                let name = args.network.or(config.server.network.clone());
                create_network(&folder, name, wanted_mode, &config).await?
            }
        };
        let mode = secrets.keys.mode();
        if args.strict && mode == Mode::Simple {
            let text = "the network here is not strict, and its controller holds all keys: leave --strict out, or create a network elsewhere";
            return Err(Failure::new(Exit::Usage, text));
        }
        let listening = prepared.listen(&secrets.tls_key).await?;
        let controller = Controller::start(controller::Config {
            folder,
            servers: listening.servers.clone(),
            socket: config.socket(CONTROLLER_SOCKET)?,
        })
        .await?;
        let admin = AdminClient::new(config.socket(CONTROLLER_SOCKET)?);
        let relay = match parts {
            Parts::All => {
                let inviter = Inviter { admin: &admin, mode, owner: owner.as_ref() };
                let region = region(args.region, config.server.region.as_deref())?;
                let datagrams = !args.no_datagrams && !config.server.no_datagrams;
                let settings = OwnRelaySettings { config: &config, region, datagrams, capture };
                Some(start_own_relay(&inviter, &listening, settings).await?)
            }
            Parts::Controller => None,
        };
        Ok(Self { listening, controller, relay, admin, mode, first_start, owner })
    }

    /// An invite as `invite create` makes it by default.
    pub(crate) async fn invite(&self) -> Result<String, Failure> {
        let (admin, mode, owner) = (&self.admin, self.mode, self.owner.as_ref());
        Inviter { admin, mode, owner }.invite(InviteRequest::default()).await
    }

    /// Says where the server is and, at the first start, how the first device joins.
    async fn welcome(&self, config: &Config) -> Result<(), Failure> {
        let servers: Vec<String> = self.listening.servers.iter().map(ToString::to_string).collect();
        note(format_args!(
            "Serving network {} at {}.",
            self.controller.network(),
            servers.join(" ")
        ));
        note(match self.mode {
            Mode::Simple => "This controller holds keys that can admit devices (simple mode).",
            Mode::Strict => {
                "This controller cannot admit devices (strict mode): invites take the network's key."
            }
        });
        if self.first_start {
            let invite = Zeroizing::new(self.invite().await?);
            if writes_to_journal() {
                let file = config.state_dir().join("invite");
                write_private_file(&file, format!("{}\n", *invite).as_bytes())
                    .map_err(unwritable)?;
                note(format_args!("An invite for the first device is in {}.", file.display()));
            } else {
                note("On the first device, run:");
                line(format_args!("{} {}", styled(BOLD, "shadowmesh up"), *invite));
            }
            let key = if self.mode == Mode::Strict { " --key-file FILE" } else { "" };
            note(format_args!(
                "Each invite admits one device; `shadowmesh invite create{key}` makes more."
            ));
        } else {
            note("`shadowmesh invite create` makes an invite for a device.");
        }
        Ok(())
    }

    /// Hands out connections until `stop` is ready, or until what the controller keeps makes no sense.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        if let Some(owner) = self.owner.take() {
            tokio::spawn(sign_first(self.admin.clone(), owner, self.relay.is_some()));
        }
        self.accept_until(stop).await?;
        drop(self.relay);
        self.controller.stop().await.map_err(|error| Failure::new(Exit::Host, error.to_string()))
    }

    async fn accept_until(&mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let admin = self.relay.as_mut().and_then(|own| own.admin.take());
        let (relay, memberships) = match &self.relay {
            Some(own) => (Some(&own.relay), &own.memberships[..]),
            None => (None, &[][..]),
        };
        let mut stop = std::pin::pin!(async {
            stop.await;
            // Nobody takes back what has begun.
            drop(admin);
            drain(memberships).await;
        });
        loop {
            tokio::select! {
                () = &mut stop => return Ok(()),
                upgrade = self.listening.listener.accept() => {
                    dispatch(&self.controller, relay, upgrade).await;
                }
                ended = self.controller.ended() => {
                    let text = match ended {
                        Ok(()) => "the controller ended".to_owned(),
                        Err(error) => format!("the controller cannot use its state: {error}"),
                    };
                    return Err(Failure::new(Exit::Host, text));
                }
            }
        }
    }
}

/// `relay`: runs until a signal.
pub(crate) async fn relay(args: RelayArgs, config: Config) -> Result<(), Failure> {
    let stop = stop::requested().map_err(|error| Failure::new(Exit::Host, error.to_string()))?;
    let invite = args.invite.as_deref().map(super::up::read_invite).transpose()?;
    let invite = invite.map(|text| relay_invite(&text)).transpose()?;
    let prepared = prepare(wanted(args.listener, config.relay.clone().into())?).await?;
    let socket = config.socket(RELAY_SOCKET)?;
    let keystore = relay_keystore(&config)?;
    let _only_one = only_relay(&config)?;
    let listening = prepared.listen(&tls_key(&keystore, RELAY_TLS_KEY)?).await?;
    let datagrams = !args.service.no_datagrams && !config.relay.no_datagrams;
    let relay = start_relay(&listening, datagrams, None)?;
    let name = super::network::label(&platform::process::host_name());
    let membership = MembershipConfig {
        region: region(args.service.region, config.relay.region.as_deref())?,
        groups: groups(args.service.groups, &config.relay.groups)?,
        ..membership_config(&relay, &listening, keystore, &name)?
    };
    let mut memberships = Membership::resume(&relay, &membership)?;
    if let Some(invite) = invite {
        if memberships.iter().any(|membership| membership.network() == invite.network) {
            info!(network = %invite.network_name, "a member already: the invite is not used");
        } else {
            memberships.push(Membership::join(&relay, invite, membership)?);
        }
    }
    if memberships.is_empty() {
        let text = "this relay serves no network yet; give it an invite made with `shadowmesh invite create --relay`";
        return Err(Failure::new(Exit::Usage, text));
    }
    info!(networks = memberships.len(), address = %listening.address, "relaying");
    let admin = AdminListener::start(&socket, &memberships).await?;
    relay.listen(listening.listener);
    stop.await;
    // Nobody takes back what has begun.
    drop(admin);
    drain(&memberships).await;
    Ok(())
}

/// Lets devices go to other relays before this one stops; a further signal stops it at once.
async fn drain(memberships: &[Membership]) {
    let at_once = stop::requested();
    let drained = join_all(memberships.iter().map(|membership| membership.draining().begin()));
    match at_once {
        Ok(at_once) => tokio::select! {
            _ = drained => {}
            () = at_once => {}
        },
        Err(_) => drop(drained.await),
    }
}

/// What the command line asks for, and the file where it is silent.
pub(super) fn wanted(asked: ListenSettings, file: ListenSettings) -> Result<Wanted, Failure> {
    let asked_tls = asked.tls_certificate.is_some() || !asked.front.hosts.is_empty();
    let mut front = file.front;
    if asked.no_tls {
        (front.hosts, front.certificate) = (Vec::new(), None);
    }
    Ok(Wanted {
        plain: asked.no_tls || (!asked_tls && file.no_tls),
        listen: asked.listen.or(file.listen),
        hosts: if asked.hosts.is_empty() { file.hosts } else { asked.hosts },
        certificate: both(asked.tls_certificate, asked.tls_key)?.or(both(
            file.tls_certificate,
            file.tls_key,
        )?
        .filter(|_| !asked.no_tls)),
        front: asked.front.or(front),
    })
}

/// A certificate and its key, or neither.
fn both(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>, Failure> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => {
            let text = "tls-certificate and tls-key go together: give both or neither";
            Err(Failure::new(Exit::Usage, text))
        }
    }
}

/// An invite with which a relay can do something.
fn relay_invite(text: &str) -> Result<Invite, Failure> {
    let wrong =
        |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("the invite: {error}"));
    let invite: Invite = text.parse().map_err(|error| wrong(&error))?;
    let grant = invite.grant().map_err(|error| wrong(&error))?;
    if grant.groups.contains(&GroupName::relay()) {
        return Ok(invite);
    }
    let text =
        "it is for a device, not for a relay; make one with `shadowmesh invite create --relay`";
    Err(wrong(&text))
}

/// Signs the settings of a new strict network and, if it has one, the entry of its first relay.
async fn sign_first(admin: AdminClient, owner: Owner, has_relay: bool) {
    let signed = timeout(SIGN_DEADLINE, async {
        loop {
            let unsigned = owner::unsigned(&admin).await?;
            if !has_relay || !unsigned.relays.is_empty() {
                return owner::sign_all(&admin, &owner, &unsigned).await;
            }
            sleep(LOOK_AGAIN).await;
        }
    });
    let advice = "`shadowmesh network sign` does it later";
    match signed.await {
        Ok(Ok(())) => info!("settings and relay are signed"),
        Ok(Err(error)) => warn!(%error, "the network's settings could not be signed: {advice}"),
        Err(_) => warn!("the relay did not join in time to be signed: {advice}"),
    }
}

async fn dispatch(controller: &Controller, relay: Option<&Relay>, upgrade: Upgrade) {
    if controller.claims(upgrade.path()) {
        return controller.handle(upgrade).await;
    }
    if let Some(relay) = relay
        && relay.claims(upgrade.path())
    {
        let relay = relay.clone();
        tokio::spawn(async move { relay.handle(upgrade).await });
        return;
    }
    tokio::spawn(upgrade.reject_not_found());
}

/// Whether what is printed ends in the system's log, which others may read and which is kept and passed on: no place
/// for secrets (systemd.exec(5), `JOURNAL_STREAM`).
fn writes_to_journal() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal()
}

fn unwritable(error: KeystoreError) -> Failure {
    Failure::new(Exit::Host, error.to_string())
}

pub(crate) fn network_folder(config: &Config) -> NetworkFolder {
    NetworkFolder::new(config.state_dir().join("controller"))
}

/// Makes the network of the first start. Its key goes beside the state, under a passphrase that is shown once.
async fn create_network(
    folder: &NetworkFolder,
    wanted: Option<String>,
    mode: Mode,
    config: &Config,
) -> Result<(ControllerSecrets, Option<Owner>), Failure> {
    let text = wanted.unwrap_or_else(|| super::network::label(&platform::process::host_name()));
    let name: NetworkName = text.parse().map_err(|error| {
        Failure::new(
            Exit::Usage,
            format!("{text:?} as a network's name: {error}; choose one with --network"),
        )
    })?;
    let key_file = config.state_dir().join("network.key");
    let chosen = passphrase::given(KEY_PASSPHRASE);
    let passphrase = chosen.clone().unwrap_or_else(passphrase::generated);
    let secret = passphrase.as_bytes();
    let new = NewNetwork { name: name.clone(), mode, key_file: &key_file, passphrase: secret };
    folder.create(new, &mut clock::rng(), clock::unix_time()).await?;
    note(format_args!("Created the network {}.", styled(BOLD, format_args!("{name}.alt"))));
    let shown = key_file.display();
    if chosen.is_some() {
        note(format_args!("Its key is in {shown}, under the passphrase of {KEY_PASSPHRASE}."));
    } else if writes_to_journal() {
        let file = config.state_dir().join("network.passphrase");
        write_private_file(&file, format!("{}\n", *passphrase).as_bytes()).map_err(unwritable)?;
        note(format_args!("Its key is in {shown}, under the passphrase in {}.", file.display()));
    } else {
        note(format_args!("Its key is in {shown}, under the passphrase"));
        note(format_args!("  {}", styled(BOLD, passphrase.as_str())));
    }
    note(
        "Move key and passphrase to safe places: both together restore the network, and nothing else does.",
    );
    let owner = match mode {
        Mode::Simple => None,
        Mode::Strict => Some(Owner::new(network_key(&key_file, secret)?)),
    };
    let secrets = folder
        .secrets()?
        .ok_or_else(|| Failure::new(Exit::Other, "the new network's keys are not there"))?;
    Ok((secrets, owner))
}

/// What the relay of `serve` is made of.
struct OwnRelaySettings<'a> {
    config: &'a Config,
    /// Where it stands.
    region: String,
    /// Whether it passes datagrams on.
    datagrams: bool,
    capture: Option<Capture>,
}

/// The relay of `serve`, which joins like any other but reaches the controller without leaving the host.
async fn start_own_relay(
    inviter: &Inviter<'_>,
    listening: &Listening,
    OwnRelaySettings { config, region, datagrams, capture }: OwnRelaySettings<'_>,
) -> Result<OwnRelay, Failure> {
    let relay = start_relay(listening, datagrams, capture)?;
    let keystore = relay_keystore(config)?;
    let mut membership = membership_config(&relay, listening, keystore, OWN_RELAY)?;
    membership.controllers = Some(vec![listening.from_here.clone()]);
    membership.region = region;
    let mut memberships = Membership::resume(&relay, &membership)?;
    if memberships.is_empty() {
        let request =
            InviteRequest { relay: true, approval: Some(false), ..InviteRequest::default() };
        let invite = inviter.invite(request).await?;
        let invite: Invite = invite
            .parse()
            .map_err(|_| Failure::new(Exit::Other, "the controller made no invite"))?;
        memberships.push(Membership::join(&relay, invite, membership)?);
    }
    let admin = AdminListener::start(&config.socket(RELAY_SOCKET)?, &memberships).await?;
    Ok(OwnRelay { relay, memberships, admin: Some(admin) })
}

fn start_relay(
    listening: &Listening,
    datagrams: bool,
    capture: Option<Capture>,
) -> Result<Relay, Failure> {
    let next = listening.address.port().checked_add(1);
    let more_stun = next.map(|port| SocketAddr::new(listening.address.ip(), port));
    let limits =
        if datagrams { Limits::default() } else { Limits { circuits: 0, ..Limits::default() } };
    let relay = RelayConfig {
        limits,
        stun: vec![listening.address],
        more_stun: more_stun.into_iter().collect(),
        capture,
    };
    Relay::start(relay).map_err(|error| {
        let text = format!(
            "cannot answer STUN at UDP {}: {error}; choose another port with --listen",
            listening.address
        );
        Failure::new(Exit::Host, text)
    })
}

fn membership_config(
    relay: &Relay,
    listening: &Listening,
    keystore: FileKeystore,
    name: &str,
) -> Result<MembershipConfig, Failure> {
    let name: DeviceName = name.parse().map_err(|error| {
        Failure::new(Exit::Usage, format!("{name:?} as a device's name: {error}"))
    })?;
    let ports = relay.stun_addresses().iter().map(SocketAddr::port);
    let stun = ports
        .flat_map(|port| listening.stun.iter().map(move |ip| SocketAddr::new(*ip, port)))
        .collect();
    Ok(MembershipConfig {
        keystore: Arc::new(keystore),
        name,
        controllers: None,
        servers: listening.servers.clone(),
        stun,
        region: String::new(),
        groups: Vec::new(),
    })
}

/// Where a relay stands, by the command line or the configuration.
fn region(asked: Option<String>, file: Option<&str>) -> Result<String, Failure> {
    let wrong = |error| Failure::new(Exit::Usage, format!("region: {error}"));
    let file = file.map(values::region).transpose().map_err(wrong)?;
    Ok(asked.or(file).unwrap_or_default())
}

/// Whom a relay serves, by the command line or the configuration.
fn groups(asked: Vec<GroupName>, file: &[String]) -> Result<Vec<GroupName>, Failure> {
    if !asked.is_empty() {
        return Ok(asked);
    }
    let parsed = |group: &String| {
        group.parse().map_err(|error| Failure::new(Exit::Usage, format!("{group:?}: {error}")))
    };
    file.iter().map(parsed).collect()
}

fn relay_keystore(config: &Config) -> Result<FileKeystore, Failure> {
    let folder: PathBuf = config.state_dir().join("relay");
    FileKeystore::open(folder, None).map_err(|error| Failure::new(Exit::Host, error.to_string()))
}

/// One relay for one state folder: two would publish themselves in turns. The lock ends with the file.
fn only_relay(config: &Config) -> Result<std::fs::File, Failure> {
    let path = config.state_dir().join("relay").join(".lock");
    let failed =
        |error: std::io::Error| Failure::new(Exit::Host, format!("{}: {error}", path.display()));
    let file = std::fs::File::options().create(true).append(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            let text =
                "a relay runs already on this state folder; stop it, or choose another --state-dir";
            Err(Failure::new(Exit::Host, text))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The private key of a self-signed certificate, made at the first start.
pub(super) fn tls_key(keystore: &FileKeystore, name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if let Some(key) = keystore.load(name).map_err(unwritable)? {
        return Ok(key);
    }
    let key = websocket::generate_key();
    keystore.store(name, &key).map_err(unwritable)?;
    Ok(key)
}

/// Who makes the invites of a server that starts.
struct Inviter<'a> {
    admin: &'a AdminClient,
    mode: Mode,
    owner: Option<&'a Owner>,
}

impl Inviter<'_> {
    async fn invite(&self, request: InviteRequest) -> Result<String, Failure> {
        let created = match (self.mode, self.owner) {
            (Mode::Simple, _) => created(self.admin, request).await?,
            (Mode::Strict, Some(owner)) => {
                owner::invites(owner, &owner::outline(self.admin).await?, &request)?
            }
            (Mode::Strict, None) => {
                let text = "in strict mode this server's relay needs an invite made with the network's key: run `shadowmesh controller` here, and `shadowmesh relay` with what `shadowmesh invite create --relay --key-file FILE` prints";
                return Err(Failure::new(Exit::Usage, text));
            }
        };
        let first = created.into_iter().next();
        Ok(first.ok_or_else(|| Failure::new(Exit::Other, "the controller made no invite"))?.invite)
    }
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Self {
        let exit = match &error {
            NetworkError::Exists(_)
            | NetworkError::FileExists(_)
            | NetworkError::OtherNetwork { .. } => Exit::Usage,
            NetworkError::Missing(_) => Exit::NotFound,
            NetworkError::Keystore(KeystoreError::Sealed) => Exit::Refused,
            NetworkError::Io { .. }
            | NetworkError::WrongFile { .. }
            | NetworkError::Keystore(_)
            | NetworkError::Secrets(_)
            | NetworkError::Store(_)
            | _ => Exit::Host,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(Exit::Host, error.to_string())
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        Self::new(Exit::Host, error.to_string())
    }
}

impl From<MembershipError> for Failure {
    fn from(error: MembershipError) -> Self {
        Self::new(Exit::Host, error.to_string())
    }
}
