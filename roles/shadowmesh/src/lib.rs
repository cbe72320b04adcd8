//! The shadowmesh command: see `docs/cli.md`. The program is [`main`] and nothing else.
//!
//! A command reads arguments and configuration, runs a role or asks one that runs, and ends with an exit code that says
//! who is at fault. Roles are libraries of their own; what is here speaks with people.
//!
//! | module | what |
//! |---|---|
//! | `cli`, `values` | commands, arguments, and their texts |
//! | `config` | the configuration file, and where things lie |
//! | `commands` | what each command does |
//! | `demo` | a whole network on this machine |
//! | `listen` | where a server listens, and how others reach it |
//! | `exit`, `output`, `passphrase` | errors, answers, questions |
//! | `log`, `clock`, `stop` | log lines, time, signals |

#![forbid(unsafe_code)]

mod cli;
mod clock;
mod commands;
mod config;
mod demo;
mod exit;
mod listen;
mod log;
mod output;
mod passphrase;
mod stop;
mod values;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
pub use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::output::{BAD, note, styled};

/// Called by this name, as through a link, the program is a WireGuard interface: `wg-quick` calls a program by one word.
const WIREGUARD_NAME: &str = "shadowmesh-wireguard";

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse_from(arguments(std::env::args_os().collect()));
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(format_args!("{} {failure}", styled(BAD, "error:")));
            failure.code()
        }
    }
}

/// The arguments, with the command that the program's name stands for.
fn arguments(mut given: Vec<OsString>) -> Vec<OsString> {
    let name = given.first().map(Path::new).and_then(Path::file_name);
    if name.is_some_and(|name| name == WIREGUARD_NAME) {
        given.insert(1, "wireguard".into());
    }
    given
}

fn run(cli: Cli) -> Result<(), Failure> {
    let config = Config::load(&cli.global)?;
    // An interface may leave for the background, which only a process without threads can.
    if let Command::Wireguard(args) = cli.command {
        return commands::wireguard(args, &config);
    }
    platform::process::keep_freed_memory();
    let serves_many = matches!(
        cli.command,
        Command::Serve(_) | Command::Controller(_) | Command::Relay(_) | Command::Demo(_)
    );
    if serves_many || matches!(cli.command, Command::Up(_)) {
        // With few files there is room for few connections, which is no reason not to have those.
        let _ = platform::process::raise_open_files();
    }
    let mut builder = if serves_many {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Host, error.to_string()))?;
    runtime.block_on(commands::run(cli, config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_of_another_name_is_a_command() {
        let called = |name: &str| arguments(vec![name.into(), "wg0".into()]);
        assert_eq!(
            called("/usr/bin/shadowmesh-wireguard"),
            ["/usr/bin/shadowmesh-wireguard", "wireguard", "wg0"]
        );
        assert_eq!(called("shadowmesh"), ["shadowmesh", "wg0"]);
    }
}
