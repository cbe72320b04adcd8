//! A plain WireGuard interface in userspace, a drop-in for `wireguard-go IFNAME`.
//!
//! Two threads share the work. The **data thread** owns everything that decides about packets:
//! the [`wireguard_proto::Interface`], the allowed addresses, the TUN and the sockets. It waits
//! for all of them and runs packets to completion, whole super-packets at a time: one read, one
//! segmented send; one merged receive, one write. The **control thread** serves the UAPI socket
//! and the signals, and hands requests over by a queue.
//!
//! The process stays in the network namespace in which it began: the sockets are there. The TUN's
//! descriptor goes on working wherever the interface is moved.
//!
//! Nothing is kept between runs. The timestamps of handshakes, which peers never accept twice, begin at the
//! clock's time: after a start with a clock that was set back, peers answer once it has passed the time
//! of the last handshake before.
//!
//! What ends it: SIGTERM, SIGINT, the removal of the socket's file, the deletion of the interface.
//!
//! | module | what |
//! | --- | --- |
//! | [`uapi`] | the text protocol that `wg` speaks |
//! | `device`, `remote`, `allowed_ips` | the interface, where peers are, whose packets are whose |
//! | `worker`, `inbound`, `outbound` | the data thread, and both directions through it |
//! | `sockets`, `mtu` | UDP, and what fits the interface |
//! | `control` | the UAPI socket and the signals |

#![forbid(unsafe_code)]

mod allowed_ips;
mod control;
mod device;
mod inbound;
mod mtu;
mod outbound;
mod remote;
mod sockets;
pub mod uapi;
mod worker;

use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use platform::process::{Role, daemonise};
use platform::{Queues, Tun, TunConfig, TunError};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::control::ControlSocket;
use crate::worker::Worker;

/// What to run.
#[derive(Debug)]
pub struct Options {
    /// Name of the interface.
    pub interface: String,
    /// Stay in the foreground.
    pub foreground: bool,
    /// Where the TUN comes from.
    pub tun: TunSource,
    /// Bytes in both directions after which a session is renewed; `None` for WireGuard's own
    /// limits only.
    pub rekey_after_bytes: Option<u64>,
}

impl Options {
    /// What the arguments leave open is taken from the environment: `WG_TUN_FD` (number of an
    /// inherited descriptor) or `WG_TUN_PATH`, `WG_REKEY_AFTER_BYTES`, and
    /// `WG_PROCESS_FOREGROUND=1`.
    ///
    /// # Errors
    /// [`RunError::Setting`] for a variable that is no number.
    pub fn from_environment(interface: String, foreground: bool) -> Result<Self, RunError> {
        let tun = match (number("WG_TUN_FD")?, std::env::var_os("WG_TUN_PATH")) {
            (Some(number), _) => TunSource::Descriptor(number),
            (None, Some(path)) => TunSource::Path(path.into()),
            (None, None) => TunSource::default(),
        };
        Ok(Self {
            interface,
            foreground: foreground || number::<u8>("WG_PROCESS_FOREGROUND")? == Some(1),
            tun,
            rekey_after_bytes: number("WG_REKEY_AFTER_BYTES")?,
        })
    }
}

fn number<T: FromStr>(name: &'static str) -> Result<Option<T>, RunError> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or(RunError::Setting(name))
}

/// Where the TUN comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TunSource {
    /// The cloning device, usually `/dev/net/tun`.
    Path(PathBuf),
    /// A descriptor of it that the process inherited.
    Descriptor(i32),
}

impl Default for TunSource {
    fn default() -> Self {
        Self::Path(PathBuf::from("/dev/net/tun"))
    }
}

/// Why the interface does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The TUN cannot be had.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// Another process serves this interface.
    #[error("{interface} is served by another process: end that one or choose another name")]
    InUse {
        /// The interface.
        interface: String,
    },
    /// The socket for `wg` cannot be had.
    #[error("the control socket {} cannot be made: {source}; run as root", path.display())]
    ControlSocket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A variable of the environment is not understood.
    #[error("{0} is set to something that is no number in its range: correct or unset it")]
    Setting(&'static str),
    /// A descriptor was announced that is none.
    #[error("WG_TUN_FD={0} is no open descriptor: unset it, or pass an open /dev/net/tun")]
    Descriptor(i32),
    /// Going into the background failed.
    #[error("going into the background failed: {0}; use -f to stay in the foreground")]
    Daemon(#[source] io::Error),
    /// The process in the background ended before it was ready; its own message says why.
    #[error("the process in the background ended before it was ready: see its message above")]
    Background,
    /// The operating system failed.
    #[error("the operating system failed: {0}")]
    Os(#[from] io::Error),
}

/// Runs the interface until it ends; without [`Options::foreground`], answers as soon as another
/// process runs it.
///
/// Call it before any thread is started.
///
/// # Errors
/// Why the interface does not run.
pub fn run(options: Options) -> Result<(), RunError> {
    if options.foreground {
        return serve(options, || Ok(()));
    }
    match daemonise().map_err(RunError::Daemon)? {
        Role::Launcher(launched) => {
            if launched.wait() {
                Ok(())
            } else {
                Err(RunError::Background)
            }
        }
        Role::Daemon(ready) => serve(options, || ready.announce()),
    }
}

fn serve(options: Options, ready: impl FnOnce() -> io::Result<()>) -> Result<(), RunError> {
    let device = match options.tun {
        TunSource::Path(path) => platform::tun::Device::Path(path),
        TunSource::Descriptor(number) => {
            platform::tun::Device::inherited(number).map_err(|_| RunError::Descriptor(number))?
        }
    };
    let config =
        TunConfig { device, mtu: Some(mtu::DEFAULT_MTU), ..TunConfig::named(&options.interface) };
    let queues = Queues::new(Tun::open_queues(config, Queues::PER_THREAD)?);
    let socket = ControlSocket::bind(queues.first().name())?;
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(io::Error::other)?;
    let rng = ChaCha20Rng::from_seed(*seed);
    let rekey_after_bytes = options.rekey_after_bytes;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (started, start) = mpsc::channel();
    let (ended, end) = oneshot::channel();
    let data = std::thread::Builder::new().name("wireguard-data".to_owned()).spawn(move || {
        let (mut worker, commands) = Worker::new(queues, rng, rekey_after_bytes)?;
        // The receivers live as long as the function that joins this thread.
        let _ = started.send(commands);
        let outcome = worker.run();
        let _ = ended.send(());
        outcome
    })?;
    let join = |data: JoinHandle<io::Result<()>>| {
        data.join().unwrap_or_else(|_| Err(io::Error::other("the data thread failed")))
    };
    let Ok(commands) = start.recv() else { return Ok(join(data)?) };
    tracing::info!(interface = options.interface, "the interface is up");
    ready()?;
    let served = runtime.block_on(control::serve(&socket, commands, end));
    let worked = join(data);
    Ok(served.and(worked)?)
}
