//! What a program asks of its process: privileges, namespaces, limits, becoming a daemon.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    thread,
};

use rustix::{
    fs::{Mode, OFlags},
    process::{DumpableBehavior, Resource, Rlimit},
    thread::{CapabilitySet, LinkNameSpaceType, capabilities, move_into_link_name_space},
};

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    handle: OwnedFd,
}

impl Namespace {
    /// The calling thread's.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The one at a path, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let handle = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { handle })
    }

    /// A new one, without anything but a loopback that is down. Needs CAP_SYS_ADMIN.
    pub fn unnamed() -> io::Result<Self> {
        let made = thread::scope(|scope| {
            scope
                .spawn(|| {
                    crate::linux::process::unshare_network()?;
                    Self::current()
                })
                .join()
        });
        made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `work` on a thread inside the namespace; what it opens stays there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let done = thread::scope(|scope| {
            scope
                .spawn(|| {
                    let kind = Some(LinkNameSpaceType::Network);
                    move_into_link_name_space(self.handle.as_fd(), kind)?;
                    Ok(work())
                })
                .join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl From<OwnedFd> for Namespace {
    fn from(handle: OwnedFd) -> Self {
        Self { handle }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// Whether the process may make interfaces and routes (CAP_NET_ADMIN).
#[must_use]
pub fn may_administer_network() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Whether the process runs as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The effective user.
#[must_use]
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The host's name.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Keeps secrets out of core dumps and away from debuggers of the same user.
pub fn forbid_core_dumps() -> io::Result<()> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Allows as many open files as the system lets this process have; how many that is.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// What a thread's heap may keep: the messages of the longest size that a busy stream has under way.
const FREED_MEMORY: i32 = 2 << 20;

/// Keeps a little memory that was freed, for who takes it next.
///
/// Else the message of a super-packet, which is as long as what the allocator is willing to keep, goes back to
/// the system whenever it is freed, and the next one costs a page fault for each of its pages: more than everything
/// else that is done to it.
pub fn keep_freed_memory() {
    crate::linux::process::keep_freed_memory(FREED_MEMORY);
}

/// Who is at the other end of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProcess {
    /// Its process.
    pub process: i32,
    /// Its user.
    pub user: u32,
    /// Its group.
    pub group: u32,
}

/// Who connected, as the system saw it when they did.
pub fn peer_of(socket: &impl AsFd) -> io::Result<PeerProcess> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(PeerProcess {
        process: peer.pid.as_raw_pid(),
        user: peer.uid.as_raw(),
        group: peer.gid.as_raw(),
    })
}

/// Which of the two processes [`daemonise`] returns in.
#[derive(Debug)]
#[must_use]
pub enum Role {
    /// The one that was started: wait for the daemon with [`Launched::wait`], then exit.
    Launcher(Launched),
    /// The one that stays: call [`Ready::announce`] when it serves.
    Daemon(Ready),
}

/// The launcher's view of its daemon.
#[derive(Debug)]
pub struct Launched {
    pipe: UnixStream,
}

impl Launched {
    /// Waits until the daemon serves; false if it ended before.
    #[must_use]
    pub fn wait(mut self) -> bool {
        io::Read::read_exact(&mut self.pipe, &mut [0]).is_ok()
    }
}

/// The daemon's promise to its launcher.
#[derive(Debug)]
pub struct Ready {
    pipe: UnixStream,
}

impl Ready {
    /// Tells the launcher that all is well, and lets go of the terminal.
    pub fn announce(mut self) -> io::Result<()> {
        let null = OFlags::RDWR | OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", null, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        // A launcher that was killed meanwhile does not matter.
        let _ = io::Write::write_all(&mut self.pipe, &[1]);
        Ok(())
    }
}

/// Splits into a launcher and a daemon in its own session. The terminal stays the daemon's for
/// messages until [`Ready::announce`].
///
/// Must be called before any thread is started: only the calling thread goes on in the daemon. It
/// refuses otherwise.
pub fn daemonise() -> io::Result<Role> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other("a daemon must be split off before threads are started"));
    }
    let (launcher, daemon) = UnixStream::pair()?;
    if crate::linux::process::fork()? {
        return Ok(Role::Launcher(Launched { pipe: launcher }));
    }
    rustix::process::setsid()?;
    Ok(Role::Daemon(Ready { pipe: daemon }))
}
