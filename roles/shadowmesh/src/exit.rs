//! Exit codes, and the errors that lead to them.

use std::fmt;
use std::process::ExitCode;

use local_api::RequestError;

/// The codes, as `--help` shows them.
pub(crate) const TABLE: &str = "\
Exit codes:
  0  done
  1  failed in another way than those below
  2  the arguments or the configuration make no sense
  3  no node, controller or relay runs here
  4  no such device, network, invite, peer, name or relay
  5  refused: invite used or revoked, device removed, name taken,
     network full, wrong passphrase or key, no permission, no other relay
  6  nobody answered in time
  7  this device's clock is wrong, and nobody answered in time
  8  this host is in the way: port taken, no TUN device, no privilege,
     no room on the disk, another network of the same name";

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Other = 1,
    Usage = 2,
    NotRunning = 3,
    NotFound = 4,
    Refused = 5,
    Timeout = 6,
    Clock = 7,
    Host = 8,
}

impl Exit {
    /// The meaning of another process's code; nothing for success and unknown codes.
    pub(crate) fn from_code(code: i32) -> Option<Self> {
        [
            Self::Other,
            Self::Usage,
            Self::NotRunning,
            Self::NotFound,
            Self::Refused,
            Self::Timeout,
            Self::Clock,
            Self::Host,
        ]
        .into_iter()
        .find(|exit| *exit as i32 == code)
    }
}

/// A failure with its exit code and a text that ends with what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Other, format!("{error:#}"))
    }
}

impl Failure {
    /// Why a role on this host did not do what was asked: `role` is its name, `advice` how to get one, and `refused` what
    /// its refusals lead to.
    pub(crate) fn of_request<R: fmt::Display>(
        error: &RequestError<R>,
        (role, advice): (&str, &str),
        refused: impl Fn(&R) -> Exit,
    ) -> Self {
        let exit = match error {
            RequestError::NotRunning { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                let text = format!("{error}; use the user who runs the {role}, or root");
                return Self::new(Exit::Refused, text);
            }
            RequestError::NotRunning { .. } => {
                return Self::new(Exit::NotRunning, format!("{error}; {advice}"));
            }
            RequestError::Refused(refusal) => refused(refusal),
            RequestError::Timeout => Exit::Timeout,
            RequestError::Protocol | RequestError::Failed(_) | _ => Exit::Other,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<node::api::ClientError> for Failure {
    fn from(error: node::api::ClientError) -> Self {
        use node::api::Problem;
        let advice = "start it with `shadowmesh up`";
        Self::of_request(&error, ("node", advice), |refusal| match refusal.problem {
            Problem::Usage => Exit::Usage,
            Problem::NotFound => Exit::NotFound,
            Problem::Refused => Exit::Refused,
            Problem::Timeout => Exit::Timeout,
            Problem::Clock => Exit::Clock,
            Problem::System => Exit::Host,
        })
    }
}
