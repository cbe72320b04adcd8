//! The configuration file, and where things lie.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use node::NodeSettings;
use serde::Deserialize;

use crate::cli::{FrontSettings, Global, ListenSettings, LogFormat};
use crate::exit::{Exit, Failure};
use crate::values::Host;

/// Larger than any sensible configuration.
const MAX_FILE: u64 = 1 << 20;
/// Longest path of a unix socket on Linux (`sun_path` less its end).
const MAX_SOCKET_PATH: usize = 107;

/// The state folder of the service that `make install` brings, which runs as a user of its own.
const SERVICE_STATE: &str = "/var/lib/shadowmesh-serve";

/// The sockets of the servers' local APIs, in their state folder.
pub(crate) const CONTROLLER_SOCKET: &str = "controller.sock";
pub(crate) const RELAY_SOCKET: &str = "relay.sock";

/// The configuration file as a whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Folder for keys, maps, the database and the sockets of the local APIs.
    pub(crate) state_dir: Option<PathBuf>,
    /// What to log.
    pub(crate) log: Option<String>,
    /// How to log.
    pub(crate) log_format: Option<LogFormat>,
    /// Settings of `up`.
    pub(crate) node: NodeSettings,
    /// Settings of `serve` and `controller`.
    pub(crate) server: ServerSettings,
    /// Settings of `relay`.
    pub(crate) relay: RelaySettings,
}

/// Settings of a controller, alone or with its relay: [`ListenSettings`] and more. Every setting is here itself, since
/// serde forgets where in the file a mistake is in what is flattened.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ServerSettings {
    /// Name of the network that the first start creates.
    pub(crate) network: Option<String>,
    listen: Option<SocketAddr>,
    hosts: Vec<Host>,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    no_tls: bool,
    front: FrontSettings,
    /// Where its relay stands.
    pub(crate) region: Option<String>,
    /// Whether its relay passes no datagrams on.
    pub(crate) no_datagrams: bool,
}

impl From<ServerSettings> for ListenSettings {
    fn from(settings: ServerSettings) -> Self {
        let ServerSettings { listen, hosts, tls_certificate, tls_key, no_tls, front, .. } =
            settings;
        Self { listen, hosts, tls_certificate, tls_key, no_tls, front }
    }
}

/// Settings of a relay: [`ListenSettings`] and more.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RelaySettings {
    listen: Option<SocketAddr>,
    hosts: Vec<Host>,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    no_tls: bool,
    front: FrontSettings,
    /// Where it stands.
    pub(crate) region: Option<String>,
    /// Whether it passes no datagrams on.
    pub(crate) no_datagrams: bool,
    /// The groups that it serves; all members if there are none.
    pub(crate) groups: Vec<String>,
}

impl From<RelaySettings> for ListenSettings {
    fn from(settings: RelaySettings) -> Self {
        let RelaySettings { listen, hosts, tls_certificate, tls_key, no_tls, front, .. } = settings;
        Self { listen, hosts, tls_certificate, tls_key, no_tls, front }
    }
}

impl Config {
    /// Reads the file that `--config` names, or the default one if it exists, and puts what the command line says on top.
    pub(crate) fn load(global: &Global) -> Result<Self, Failure> {
        let mut config = match &global.config {
            Some(file) => Self::read(file)?,
            None => {
                let file = default_file();
                if file.exists() { Self::read(&file)? } else { Self::default() }
            }
        };
        config.state_dir = global.state_dir.clone().or(config.state_dir);
        config.log = global.log.clone().or(config.log);
        config.log_format = global.log_format.or(config.log_format);
        Ok(config)
    }

    /// The state folder; its owner alone may enter it once a command has made it.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(default_state_dir)
    }

    /// The socket of the node's local API.
    pub(crate) fn node_socket(&self) -> Result<PathBuf, Failure> {
        self.socket("node.sock")
    }

    /// Where to ask the controller.
    pub(crate) fn controller_socket(&self) -> Result<PathBuf, Failure> {
        self.server_socket(CONTROLLER_SOCKET)
    }

    /// Where to ask the relay.
    pub(crate) fn relay_socket(&self) -> Result<PathBuf, Failure> {
        self.server_socket(RELAY_SOCKET)
    }

    /// One of the service, if the folder does not say otherwise.
    fn server_socket(&self, name: &str) -> Result<PathBuf, Failure> {
        let service = Path::new(SERVICE_STATE).join(name);
        let own = self.socket(name)?;
        Ok(if self.state_dir.is_none() && !own.exists() && service.exists() {
            service
        } else {
            own
        })
    }

    /// Where a role of this process has its local API.
    pub(crate) fn socket(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.state_dir().join(name);
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            let text = format!(
                "{} is longer than the {MAX_SOCKET_PATH} bytes that a unix socket may have; use a shorter --state-dir",
                path.display()
            );
            return Err(Failure::new(Exit::Usage, text));
        }
        Ok(path)
    }

    fn read(file: &Path) -> Result<Self, Failure> {
        let wrong = |what: String| Failure::new(Exit::Usage, format!("{}: {what}", file.display()));
        let length = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
        if length > MAX_FILE {
            return Err(wrong(format!("{length} bytes are more than a configuration has")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&text).map_err(wrong)
    }

    /// Reads the text of a configuration file (YAML).
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }
}

/// A service that systemd starts is told where its configuration is, whatever user it runs as.
fn default_file() -> PathBuf {
    if let Some(folder) = std::env::var_os("CONFIGURATION_DIRECTORY") {
        return PathBuf::from(folder).join("config.yaml");
    }
    match user_folders() {
        Some(folders) => folders.config_dir().join("config.yaml"),
        None => PathBuf::from("/etc/shadowmesh/config.yaml"),
    }
}

fn default_state_dir() -> PathBuf {
    match user_folders() {
        Some(folders) => folders.state_dir().unwrap_or_else(|| folders.data_dir()).to_owned(),
        None => PathBuf::from("/var/lib/shadowmesh"),
    }
}

/// The folders of an ordinary user; root uses those of the system.
fn user_folders() -> Option<directories::ProjectDirs> {
    let root = platform::process::is_root();
    (!root).then(|| directories::ProjectDirs::from("", "", "shadowmesh")).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(Config::parse("# nothing\n\n"), Ok(Config::default()));
    }

    #[test]
    fn a_misspelt_setting_is_an_error_that_names_it() {
        let error = Config::parse("node:\n  listen-prot: 4\n").expect_err("no such setting");
        assert!(error.contains("listen-prot"), "{error}");
    }

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        for part in ["server", "relay"] {
            let text = format!("{part}:\n  hosts: [a]\n  front:\n    hosts: ['a:b']\n");
            let error = Config::parse(&text).expect_err("no port");
            assert!(error.contains("line 4 column 13"), "{error}");
        }
    }

    #[test]
    fn the_documented_example_shows_every_setting_with_its_default() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/config.example.yaml");
        let text = std::fs::read_to_string(example).expect("the example is part of the project");
        let uncommented: String = text
            .lines()
            .filter_map(|line| line.strip_prefix("#:").or(Some(line)))
            .map(|line| format!("{line}\n"))
            .collect();
        let config = Config::parse(&uncommented).expect("the example is valid");
        assert_eq!(
            config.node,
            NodeSettings {
                forwards: config.node.forwards.clone(),
                publish: config.node.publish.clone(),
                data_threads: config.node.data_threads,
                device_name: config.node.device_name.clone(),
                listen: node::Listen {
                    address: config.node.listen.address,
                    tls_certificate: config.node.listen.tls_certificate.clone(),
                    tls_key: config.node.listen.tls_key.clone(),
                    ..node::Listen::default()
                },
                http_proxy: config.node.http_proxy.clone(),
                ..NodeSettings::default()
            }
        );
        let text_of = |part: &str| {
            let (_, after) = uncommented.split_once(&format!("\n{part}:\n")).expect("it is there");
            after.lines().take_while(|line| !line.starts_with(char::is_alphabetic)).collect()
        };
        let settings = ["listen", "hosts", "tls-certificate", "tls-key", "no-tls", "front"];
        let front = ["hosts", "certificate", "trusted", "page"];
        for part in ["server", "relay"] {
            let text: String = text_of(part);
            for setting in settings.iter().chain(&front) {
                assert!(text.contains(&format!(" {setting}:")), "{setting} of {part}");
            }
        }
        let relay: String = text_of("relay");
        assert!(relay.contains(" region:") && relay.contains(" groups:"));
        for setting in ["region", "state-dir", "log", "log-format", "node", "server", "relay"] {
            assert!(text.contains(&format!("{setting}:")), "{setting} is documented");
        }
    }
}
