//! What stands before a listener, and what it shows to those that are no clients of it.

use std::{
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use bytes::{Buf, Bytes};
use ipnet::IpNet;

/// What is shown where there is no page: word for word what the most common web server says.
const NOT_FOUND: &str = "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n\
    <center><h1>404 Not Found</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n";

/// The most proxies of a chain whose word is read.
const MAX_PROXIES: usize = 8;

/// The longest page of a [`Front`], in bytes: it is in memory, and every stranger is shown it.
pub const MAX_PAGE: usize = 1 << 20;

/// A page has more than [`MAX_PAGE`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a page has at most {MAX_PAGE} bytes")]
pub struct PageTooLong;

/// Proxies whose word is believed, and the page for everybody who asks for no known path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Front {
    trusted: Vec<IpNet>,
    page: Option<Bytes>,
}

impl Front {
    /// Proxies at these addresses, whose `X-Forwarded-For` tells where a client comes from, and HTML of
    /// at most [`MAX_PAGE`] bytes that is shown at every other path; without it there is nothing at any.
    ///
    /// # Errors
    /// [`PageTooLong`].
    pub fn new(trusted: Vec<IpNet>, page: Option<Bytes>) -> Result<Self, PageTooLong> {
        if page.as_ref().is_some_and(|page| page.len() > MAX_PAGE) {
            return Err(PageTooLong);
        }
        Ok(Self { trusted, page })
    }

    /// Where a client comes from: the last in the chain of proxies whom no trusted one vouches for. The
    /// chain is what `X-Forwarded-For` says, the nearest proxy's word last.
    pub fn client<'f>(
        &self,
        connection: SocketAddr,
        forwarded_for: impl DoubleEndedIterator<Item = &'f str>,
    ) -> SocketAddr {
        let mut client = connection;
        for named in forwarded_for.rev().take(MAX_PROXIES) {
            let Some(address) = address(named).filter(|_| self.trusts(client.ip())) else { break };
            client = SocketAddr::new(address, connection.port());
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// The whole answer to a request for anything else than a known path.
    pub(crate) fn answer(&self, now: SystemTime) -> impl Buf {
        let (status, body) = match &self.page {
            Some(page) => ("200 OK", page.clone()),
            None => ("404 Not Found", Bytes::from_static(NOT_FOUND.as_bytes())),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nServer: nginx\r\nDate: {}\r\nContent-Type: text/html\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            httpdate::fmt_http_date(now),
            body.len()
        );
        Bytes::from(head).chain(body)
    }
}

/// An address as proxies write it: alone or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    text.parse().or_else(|_| with_port()).ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(trusted: &[&str], connection: &str, forwarded_for: &str) -> String {
        let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let front = Front::new(trusted, None).unwrap();
        let connection = SocketAddr::new(connection.parse().unwrap(), 7);
        front.client(connection, forwarded_for.split(',').map(str::trim)).ip().to_string()
    }

    #[test]
    fn only_the_word_of_a_trusted_proxy_counts_and_of_each_in_turn() {
        let proxies = ["127.0.0.0/8", "2001:db8::/32"];
        assert_eq!(client(&[], "127.0.0.1", "192.0.2.1"), "127.0.0.1");
        assert_eq!(client(&proxies, "192.0.2.9", "192.0.2.1"), "192.0.2.9");
        assert_eq!(client(&proxies, "127.0.0.1", "192.0.2.1"), "192.0.2.1");
        assert_eq!(client(&proxies, "127.0.0.1", "198.51.100.1, 192.0.2.1"), "192.0.2.1");
        assert_eq!(client(&proxies, "127.0.0.1", "192.0.2.1, 2001:db8::1"), "192.0.2.1");
        assert_eq!(client(&proxies, "127.0.0.1", "192.0.2.1:80, [2001:db8::1]:443"), "192.0.2.1");
        assert_eq!(client(&proxies, "127.0.0.1", "unknown"), "127.0.0.1");
        assert_eq!(client(&proxies, "127.0.0.1", ""), "127.0.0.1");
    }

    #[test]
    fn a_page_has_an_end() {
        let front = |length| Front::new(Vec::new(), Some(vec![b'a'; length].into()));
        assert!(front(MAX_PAGE).is_ok());
        assert_eq!(front(MAX_PAGE + 1), Err(PageTooLong));
    }

    #[test]
    fn the_answer_has_the_length_it_says() {
        for page in [None, Some(Bytes::from_static(b"<h1>It works</h1>"))] {
            let front = Front::new(Vec::new(), page).unwrap();
            let mut answer = front.answer(SystemTime::UNIX_EPOCH);
            let answer = answer.copy_to_bytes(answer.remaining());
            let answer = String::from_utf8(answer.into()).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
            assert!(head.contains("Date: Thu, 01 Jan 1970 00:00:00 GMT"));
        }
    }

    fn networks() -> impl Strategy<Value = Vec<IpNet>> {
        let network = any::<(IpAddr, u8)>().prop_map(|(address, length)| {
            let all = if address.is_ipv4() { 33 } else { 129 };
            IpNet::new(address, length % all).unwrap()
        });
        prop::collection::vec(network, 0..4)
    }

    /// What a header may name: addresses with and without a port, and anything else.
    fn named() -> impl Strategy<Value = Vec<String>> {
        let one = prop_oneof![
            any::<IpAddr>().prop_map(|address| address.to_string()),
            any::<SocketAddr>().prop_map(|address| address.to_string()),
            any::<String>(),
        ];
        prop::collection::vec(one, 0..2 * MAX_PROXIES)
    }

    proptest! {
        #[test]
        fn nobody_says_where_he_comes_from(
            mut trusted in networks(),
            trusts_named: Vec<bool>,
            named in named(),
            forged in named(),
            connection: SocketAddr,
            trusts_connection: bool,
        ) {
            let chosen = named.iter().zip(&trusts_named).filter(|(_, trusts)| **trusts);
            trusted.extend(chosen.filter_map(|(named, _)| address(named)).map(IpNet::from));
            trusted.extend(trusts_connection.then(|| IpNet::from(connection.ip())));
            let front = Front::new(trusted, None).unwrap();
            let from = |chain: &[&[String]]| {
                front.client(connection, chain.concat().iter().map(String::as_str))
            };
            let client = from(&[&named]);
            prop_assert_eq!(client.port(), connection.port());
            prop_assert!(client == connection || front.trusts(connection.ip()));
            prop_assert!(front.trusts(client.ip()) || from(&[&forged, &named]) == client);
        }
    }
}
