//! Why a connection did not come about, or ended, and what to do about it.

use std::io;

use websocket::{AttemptError, DialError};

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What happened, with addresses: for people who ask, not for logs.
    detail: String,
    cause: Cause,
}

/// Causes, the least telling first: of several addresses the most telling one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The connection was there and ended.
    Ended,
    /// The server's name has no address here.
    Unresolved,
    /// All addresses lie in an overlay, through which nothing underneath may go.
    Overlay,
    /// No answer at all.
    Silent,
    /// The host has no way to there.
    Unreachable,
    /// Nobody listens there.
    Closed,
    /// Something answers that is no server of ours.
    Foreign,
    /// The server, or what ends TLS before it, has no TLS 1.3.
    TlsVersion,
    /// The certificate is not valid.
    Certificate,
    /// The certificate is not valid at this time.
    CertificateTime,
    /// What is taken for a proxy is none, or lets nobody through to the server.
    Proxy,
    /// The proxy wants another user and password.
    ProxyCredentials,
    /// The server does not know the path.
    UnknownPath,
    /// The server's key is not the pinned one.
    WrongPin,
}

impl Fault {
    pub(crate) fn ended(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), cause: Cause::Ended }
    }

    pub(crate) fn unresolved(host: &str) -> Self {
        Self { detail: format!("{host} has no address here"), cause: Cause::Unresolved }
    }

    pub(crate) fn overlay(host: &str) -> Self {
        let detail = format!("{host} is known by addresses within a network of this device only");
        Self { detail, cause: Cause::Overlay }
    }

    pub(crate) fn cause(&self) -> Cause {
        self.cause
    }
}

/// What happened and what to do.
impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.detail, self.cause)
    }
}

/// What to do.
impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ended => "the server ended the connection, and its log may say why",
            Self::Unresolved => "check this device's name resolution",
            Self::Overlay => "give the server an address outside of its networks with `--host`",
            Self::Silent => "check whether a firewall lets the server's port through",
            Self::Unreachable => "check this device's connection to the Internet",
            Self::Closed => "nothing listens there: check whether `shadowmesh serve` runs",
            Self::Foreign => "another program answers there: check the server's port",
            Self::TlsVersion => "let what ends TLS before the server offer version 1.3",
            Self::Certificate => "check the server's certificate",
            Self::CertificateTime => {
                "set this device's clock, for instance with `timedatectl set-ntp true`; if it is \
                 right, the server's certificate has to be renewed"
            }
            Self::Proxy => {
                "check the HTTP proxy's address (`http-proxy`, or HTTPS_PROXY in the environment) and \
                 whether it lets CONNECT through to the server's port"
            }
            Self::ProxyCredentials => {
                "give a user and password that the proxy knows: http://USER:PASSWORD@HOST:PORT"
            }
            Self::UnknownPath => {
                "a server answers there but does not know this network, or a proxy before it does \
                 not pass WebSocket on: if the network was made anew, ask for a new invite"
            }
            Self::WrongPin => {
                "if the server was made anew, ask for a new invite; if not, somebody is in between"
            }
        })
    }
}

impl From<DialError> for Fault {
    fn from(error: DialError) -> Self {
        let cause = match &error {
            DialError::Failed(attempts) => attempts.iter().map(|(_, error)| cause(error)).max(),
            DialError::Host(_) | DialError::Path | _ => None,
        };
        Self { detail: error.to_string(), cause: cause.unwrap_or(Cause::Unresolved) }
    }
}

fn cause(error: &AttemptError) -> Cause {
    match error {
        AttemptError::Connect(error) => cause_of_kind(error.kind()),
        AttemptError::Tls(_) | AttemptError::Malformed => Cause::Foreign,
        AttemptError::TlsVersion => Cause::TlsVersion,
        AttemptError::WrongPin => Cause::WrongPin,
        AttemptError::Certificate(_) => Cause::Certificate,
        AttemptError::CertificateTime(_) => Cause::CertificateTime,
        AttemptError::Status(_) => Cause::UnknownPath,
        AttemptError::ProxyStatus(_) | AttemptError::NoProxy => Cause::Proxy,
        AttemptError::ProxyCredentials => Cause::ProxyCredentials,
        AttemptError::Timeout | _ => Cause::Silent,
    }
}

fn cause_of_kind(kind: io::ErrorKind) -> Cause {
    const CAUSES: [(io::ErrorKind, Cause); 7] = [
        (io::ErrorKind::ConnectionRefused, Cause::Closed),
        (io::ErrorKind::NetworkUnreachable, Cause::Unreachable),
        (io::ErrorKind::HostUnreachable, Cause::Unreachable),
        (io::ErrorKind::NetworkDown, Cause::Unreachable),
        (io::ErrorKind::AddrNotAvailable, Cause::Unreachable),
        (io::ErrorKind::UnexpectedEof, Cause::Ended),
        (io::ErrorKind::ConnectionReset, Cause::Ended),
    ];
    CAUSES.iter().find(|(known, _)| *known == kind).map_or(Cause::Silent, |(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn failed(errors: Vec<AttemptError>) -> Fault {
        let address = SocketAddr::from(([192, 0, 2, 1], 443));
        DialError::Failed(errors.into_iter().map(|error| (address, error)).collect()).into()
    }

    #[test]
    fn the_most_telling_of_several_failures_says_what_to_do() {
        let refused = || AttemptError::Connect(io::ErrorKind::ConnectionRefused.into());
        let fault = failed(vec![refused(), AttemptError::WrongPin, AttemptError::Timeout]);
        assert_eq!(fault.cause(), Cause::WrongPin);
        assert_eq!(failed(vec![AttemptError::Timeout, refused()]).cause(), Cause::Closed);
    }

    #[test]
    fn each_failure_is_told_with_its_address_and_ends_with_what_to_do() {
        let text = failed(vec![AttemptError::Status(404)]).to_string();
        assert!(text.contains("192.0.2.1:443") && text.contains("404"), "{text}");
        assert!(text.ends_with("ask for a new invite"), "{text}");
        let text = failed(vec![AttemptError::CertificateTime("expired".into())]).to_string();
        assert!(text.contains("timedatectl set-ntp true"), "{text}");
        assert!(failed(Vec::new()).to_string().ends_with("name resolution"));
    }
}
