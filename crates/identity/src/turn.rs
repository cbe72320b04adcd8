//! TURN servers, as the network's owner or a device's names them.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::Transport;

/// The most TURN servers that count.
pub const MAX_TURN_SERVERS: usize = 4;
/// The longest username in bytes, of servers that have users.
const MAX_USERNAME: usize = 128;
/// The longest password or shared secret in bytes. As many as there may be of both fit a record with everything else.
const MAX_SECRET: usize = 256;

/// A TURN server (RFC 8656), in text `udp/192.0.2.7:3478,username=alice,password=PASSWORD` or
/// `tcp/[2001:db8::7]:3478,secret=SECRET`. `Display` leaves out password and secret.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct TurnServer {
    /// Where it listens.
    #[n(0)]
    pub address: SocketAddr,
    /// Over what it is asked; what it passes on is UDP in any case.
    #[n(1)]
    pub transport: Transport,
    /// With what.
    #[n(2)]
    pub login: TurnLogin,
}

/// By what a TURN server knows who may use it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum TurnLogin {
    /// A user of the server's, and its password.
    #[n(0)]
    User(#[n(0)] String, #[n(1)] TurnSecret),
    /// A secret that makes logins which end (coturn's `use-auth-secret`).
    #[n(1)]
    Shared(#[n(0)] TurnSecret),
}

/// A password or a shared secret.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnSecret(Zeroizing<String>);

impl TurnSecret {
    /// What it is.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for TurnSecret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl TurnServer {
    /// Whether nothing of it is longer than it may be, or missing.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let fits = |secret: &TurnSecret| (1..=MAX_SECRET).contains(&secret.0.len());
        self.address.port() != 0
            && match &self.login {
                TurnLogin::User(name, password) => {
                    (1..=MAX_USERNAME).contains(&name.len()) && fits(password)
                }
                TurnLogin::Shared(secret) => fits(secret),
            }
    }
}

impl fmt::Display for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transport, self.address)?;
        match &self.login {
            TurnLogin::User(name, _) => write!(f, ", username {name:?}, password set"),
            TurnLogin::Shared(_) => f.write_str(", secret set"),
        }
    }
}

impl fmt::Debug for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TurnServer({self})")
    }
}

impl fmt::Debug for TurnLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TurnLogin(secret)")
    }
}

impl fmt::Debug for TurnSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TurnSecret(secret)")
    }
}

impl<C> Encode<C> for TurnSecret {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for TurnSecret {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.str().map(|text| text.to_owned().into())
    }
}

/// The text names no TURN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a TURN server is udp or tcp, an address with a port, and a username of up to {MAX_USERNAME} bytes with a password or a \
     shared secret of up to {MAX_SECRET}, for instance udp/192.0.2.7:3478,username=alice,password=PASSWORD or \
     tcp/[2001:db8::7]:3478,secret=SECRET"
)]
pub struct ParseTurnServerError;

impl FromStr for TurnServer {
    type Err = ParseTurnServerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).filter(Self::is_bounded).ok_or(ParseTurnServerError)
    }
}

/// What stands last is taken as it is, whatever is in it.
fn parse(text: &str) -> Option<TurnServer> {
    let (transport, rest) = text.split_once('/')?;
    let (address, login) = rest.split_once(',')?;
    let secret = |text: &str| TurnSecret::from(text.to_owned());
    let login = match login.strip_prefix("secret=") {
        Some(shared) => TurnLogin::Shared(secret(shared)),
        None => {
            let (name, password) = login.strip_prefix("username=")?.split_once(",password=")?;
            TurnLogin::User(name.to_owned(), secret(password))
        }
    };
    let (transport, address) = (Transport::named(transport)?, address.parse().ok()?);
    Some(TurnServer { address, transport, login })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_what_their_text_says_and_nothing_else_is_one() {
        let user: TurnServer =
            "udp/192.0.2.7:3478,username=al,password=a,b=c".parse().expect("a server");
        let TurnLogin::User(name, password) = &user.login else { panic!("it has users") };
        assert_eq!((name.as_str(), password.as_str()), ("al", "a,b=c"));
        assert_eq!((user.transport, user.address.port()), (Transport::Udp, 3478));
        let shared: TurnServer = "tcp/[2001:db8::7]:443,secret=s".parse().expect("a server");
        assert_eq!(shared.login, TurnLogin::Shared("s".to_owned().into()));
        let long = |n| format!("udp/192.0.2.7:3478,secret={}", "s".repeat(n));
        assert!(long(MAX_SECRET).parse::<TurnServer>().is_ok());
        for text in [
            "",
            "192.0.2.7:3478,secret=s",
            "udp/192.0.2.7,secret=s",
            "udp/turn.example:3478,secret=s",
            "udp/192.0.2.7:0,secret=s",
            "udp/192.0.2.7:3478",
            "udp/192.0.2.7:3478,secret=",
            "udp/192.0.2.7:3478,username=al",
            "tls/192.0.2.7:3478,secret=s",
            &long(MAX_SECRET + 1),
        ] {
            assert_eq!(text.parse::<TurnServer>(), Err(ParseTurnServerError), "{text}");
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        for text in
            ["udp/192.0.2.7:3478,username=al,password=hidden", "udp/192.0.2.7:3478,secret=hidden"]
        {
            let server: TurnServer = text.parse().expect("a server");
            let shown = format!("{server} {server:?} {:?}", server.login);
            assert!(!shown.contains("hidden") && shown.contains("set"), "{shown}");
        }
    }

    #[test]
    fn a_server_survives_its_bytes() {
        let server: TurnServer = "tcp/192.0.2.7:3478,username=al,password=x".parse().expect("one");
        let bytes = minicbor::to_vec(&server).expect("it is encoded");
        assert_eq!(minicbor::decode::<TurnServer>(&bytes).expect("it is decoded"), server);
    }
}
