//! What each command does.

mod admin;
mod logs;
mod manual;
mod name;
mod network;
mod owner;
mod peer;
mod queries;
mod relay;
pub(crate) mod serve;
mod up;

use ::relay::AdminClient as RelayAdmin;
use controller::AdminClient;
use node::api::Client;
use wireguard::{Options, RunError};

use crate::cli::{Cli, Command, RelayArgs, RelayCommand, WireguardArgs};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::{demo, log};

/// Runs a command.
pub(crate) async fn run(cli: Cli, config: Config) -> Result<(), Failure> {
    let as_json = cli.global.json;
    let node = || Ok::<_, Failure>(Client::new(config.node_socket()?));
    let controller = || Ok::<_, Failure>(AdminClient::new(config.controller_socket()?));
    match cli.command {
        Command::Serve(args) => {
            start_log(&config)?;
            serve::serve(args, config, serve::Parts::All).await
        }
        Command::Controller(args) => {
            start_log(&config)?;
            serve::serve(args, config, serve::Parts::Controller).await
        }
        Command::Relay(RelayArgs { command: Some(RelayCommand::Drain { undo }), .. }) => {
            relay::drain(&RelayAdmin::new(config.relay_socket()?), undo, as_json).await
        }
        Command::Relay(args) => {
            start_log(&config)?;
            serve::relay(args, config).await
        }
        Command::Up(args) => {
            start_log(&config)?;
            up::up(args, &cli.global, config).await
        }
        Command::Down => queries::down(&node()?, &config).await,
        Command::Leave { network } => queries::leave(&node()?, network.as_deref()).await,
        Command::Status => queries::status(&node()?, as_json).await,
        Command::Ping { peer, count } => queries::ping(&node()?, &peer, count, as_json).await,
        Command::Netcheck => queries::netcheck(&node()?, as_json).await,
        Command::Why { peer } => queries::why(&node()?, &peer, as_json).await,
        Command::Invite(command) => admin::invite(&controller()?, command, as_json).await,
        Command::Device(command) => admin::device(&controller()?, command, as_json).await,
        Command::Peer(command) => peer::peer(&controller()?, command, as_json).await,
        Command::Name(command) => name::name(&controller()?, command, as_json).await,
        Command::Network(command) => network::network(command, &config, as_json).await,
        Command::Log(command) => logs::log(&controller()?, command, as_json).await,
        Command::Wireguard(args) => wireguard(args, &config),
        Command::Demo(args) => demo::run(args.once).await,
        Command::Completions { shell } => Ok(manual::completions(shell)?),
        Command::Man { folder } => Ok(manual::pages(&folder)?),
    }
}

/// Runs a plain WireGuard interface; without `-f` another process goes on with it.
pub(crate) fn wireguard(args: WireguardArgs, config: &Config) -> Result<(), Failure> {
    start_log(config)?;
    let options = Options::from_environment(args.interface, args.foreground);
    let ran = options.and_then(wireguard::run);
    ran.map_err(|error| {
        let exit = match &error {
            RunError::Setting(_) | RunError::Descriptor(_) => Exit::Usage,
            RunError::Tun(_)
            | RunError::InUse { .. }
            | RunError::ControlSocket { .. }
            | RunError::Daemon(_)
            | RunError::Background
            | RunError::Os(_) => Exit::Host,
        };
        Failure::new(exit, error.to_string())
    })
}

fn start_log(config: &Config) -> Result<(), Failure> {
    log::start(config.log.as_deref(), config.log_format.unwrap_or_default())
}
