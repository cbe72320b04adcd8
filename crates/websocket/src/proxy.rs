//! HTTP proxies, which open tunnels to other hosts (CONNECT, RFC 9110 section 9.3.6).

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use data_encoding::BASE64;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use url::{Host, Url};
use zeroize::{Zeroize, Zeroizing};

use crate::upgrade::{UpgradeError, read_head, response_status};

/// An HTTP proxy, and what it asks of its clients.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// User and password as Basic wants them (RFC 7617).
    authorization: Option<Zeroizing<String>>,
}

impl Proxy {
    /// Its name or address, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its address, if that is what its host is.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.host.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, self.port))
    }

    /// Asks the proxy at the other end of a connection for a tunnel to `target`, a host and a port.
    pub(crate) async fn connect(
        &self,
        tcp: &mut TcpStream,
        target: &str,
    ) -> Result<(), TunnelError> {
        let mut head = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"));
        if let Some(authorization) = &self.authorization {
            head.push_str("Proxy-Authorization: Basic ");
            head.push_str(authorization);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        tcp.write_all(head.as_bytes()).await?;
        let (status, rest) = read_head(tcp, response_status).await?;
        match status {
            // Whoever is behind the tunnel waits for us to speak first.
            200..300 if rest.is_empty() => Ok(()),
            // 407 is right; tinyproxy says 401 where the password is wrong.
            401 | 407 => Err(TunnelError::Credentials),
            200..300 => Err(TunnelError::Malformed),
            status => Err(TunnelError::Status(status)),
        }
    }
}

/// Without user and password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// `http://[USER:PASSWORD@]HOST[:PORT]`, the scheme being optional; without a port it is 80.
impl FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let scheme = if text.contains("://") { "" } else { "http://" };
        let full = Zeroizing::new([scheme, text].concat());
        let url = Url::parse(&full).map_err(|_| ProxyError::Malformed)?;
        if url.scheme() != "http" {
            return Err(ProxyError::Scheme(url.scheme().to_owned()));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyError::Malformed);
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(ProxyError::Malformed),
        };
        let port = url.port_or_known_default().ok_or(ProxyError::Malformed)?;
        Ok(Self { host, port, authorization: authorization(&url)? })
    }
}

fn authorization(url: &Url) -> Result<Option<Zeroizing<String>>, ProxyError> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decode = |part: &str| {
        Zeroizing::new(percent_encoding::percent_decode_str(part).collect::<Vec<u8>>())
    };
    let (user, password) = (decode(url.username()), decode(url.password().unwrap_or_default()));
    if user.contains(&b':') {
        return Err(ProxyError::Malformed);
    }
    let mut both = [user.as_slice(), b":", password.as_slice()].concat();
    let encoded = Zeroizing::new(BASE64.encode(&both));
    both.zeroize();
    Ok(Some(encoded))
}

/// Why a text names no proxy. It does not repeat the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// It is none at all.
    #[error("that is no proxy: write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")]
    Malformed,
    /// It is one of another kind.
    #[error("proxies of the kind {0:?} are not used: HTTP proxies are, written http://HOST:PORT")]
    Scheme(String),
}

/// Why a proxy opened no tunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the proxy's answer is no answer to CONNECT")]
    Malformed,
    #[error("the proxy wants another user and password")]
    Credentials,
    #[error("the proxy answered with HTTP status {0}")]
    Status(u16),
}

impl From<UpgradeError> for TunnelError {
    fn from(error: UpgradeError) -> Self {
        match error {
            UpgradeError::Io(error) => Self::Io(error),
            UpgradeError::Malformed => Self::Malformed,
            UpgradeError::Status(status) => Self::Status(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, u16, Option<String>) {
        let proxy: Proxy = text.parse().unwrap();
        let authorization = proxy.authorization.map(|value| value.to_string());
        (proxy.host, proxy.port, authorization)
    }

    #[test]
    fn a_proxy_is_written_as_a_url() {
        assert_eq!(parse("http://proxy.example:8080/"), ("proxy.example".into(), 8080, None));
        assert_eq!(parse("proxy.example"), ("proxy.example".into(), 80, None));
        assert_eq!(parse("http://[2001:db8::1]:3128"), ("2001:db8::1".into(), 3128, None));
        // RFC 7617 section 2.
        let (_, _, authorization) = parse("http://Aladdin:open%20sesame@192.0.2.1");
        assert_eq!(authorization.as_deref(), Some("QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
    }

    #[test]
    fn what_is_no_http_proxy_is_refused_without_repeating_it() {
        let socks = "socks5://proxy.example:1080".parse::<Proxy>();
        assert_eq!(socks, Err(ProxyError::Scheme("socks5".into())));
        for text in ["", "http://", "http://a:b:c", "http://host/path", "http://host?x", "a b"] {
            assert_eq!(text.parse::<Proxy>(), Err(ProxyError::Malformed), "{text:?}");
        }
        let proxy: Proxy = "http://user:hunter2@proxy.example".parse().unwrap();
        assert!(!format!("{proxy:?}").contains("hunter2"));
    }

    #[test]
    fn a_proxy_that_is_an_address_needs_no_resolver() {
        let address = |text: &str| text.parse::<Proxy>().unwrap().address();
        assert_eq!(address("http://[::1]:8080"), Some("[::1]:8080".parse().unwrap()));
        assert_eq!(address("http://proxy.example"), None);
    }
}
