//! Sockets on behalf of an engine that lead to one address each: towards TURN servers, and peers.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use engine::{SocketId, SocketTo};
use identity::Transport;
use platform::udp::allow_splitting;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tracing::debug;

use crate::{directory::Directory, mark::Mark};

/// Datagrams that wait for the network; further ones are lost, as on the way.
const OUTGOING: usize = 1_024;
/// The same over a stream, where they wait for as long as it has no room: a burst, and no more, since what is in here is late.
const OUTGOING_OVER_STREAM: usize = 64;
/// Requests that wait for the network: one for each peer, and some.
const REQUESTS: usize = 128;
/// What has come and waits for the loop, which takes as much at once. Behind it the system holds back or drops.
const INCOMING: usize = 32;
/// With what requests to TURN servers begin (RFC 8489 section 5), other than their data. So does a handshake with a peer.
const REQUEST: RangeInclusive<u8> = 0..=1;
/// What is read at once: the longest datagram.
const READ: usize = 65_536;
/// Bytes that the system keeps of either direction of a socket for datagrams, as far as it allows: a few bursts.
const SYSTEM_BUFFER: usize = 1 << 20;
/// A server that takes no connection in this time is not reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that acknowledges nothing of a stream for so long is gone, as a relay is.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);
/// What the system takes of a stream before it can be sent. More would wait where nothing goes before it.
const UNSENT: u32 = 32 * 1024;
/// What is queued at the end of a node has this long to leave.
const FAREWELL: Duration = Duration::from_secs(1);

/// What happened on a socket.
#[derive(Debug)]
pub(crate) enum SocketEvent {
    Opened,
    Bytes(Vec<u8>),
    Closed,
}

/// What waits for a socket.
#[derive(Debug)]
struct Queues {
    requests: mpsc::Sender<Vec<u8>>,
    data: mpsc::Sender<Vec<u8>>,
}

/// The sockets of one engine, by the engine's own numbers.
#[derive(Debug)]
pub(crate) struct ConnectedSockets {
    directory: Directory,
    open: BTreeMap<SocketId, Queues>,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<(SocketId, SocketEvent)>,
    events: mpsc::Receiver<(SocketId, SocketEvent)>,
}

impl ConnectedSockets {
    /// No sockets yet. They never lead into a network of `directory`, and bear its mark.
    pub(crate) fn new(directory: Directory) -> Self {
        let (sender, events) = mpsc::channel(INCOMING);
        Self { directory, open: BTreeMap::new(), tasks: JoinSet::new(), sender, events }
    }

    /// Opens a socket; [`SocketEvent::Opened`] or [`SocketEvent::Closed`] follows.
    pub(crate) fn open(&mut self, socket: SocketId, remote: SocketAddr, to: SocketTo) {
        let room = match to {
            SocketTo::Server(Transport::Udp) | SocketTo::Peer => OUTGOING,
            SocketTo::Server(Transport::Tcp) => OUTGOING_OVER_STREAM,
        };
        let (data, waiting_data) = mpsc::channel(room);
        let (requests, waiting_requests) = mpsc::channel(REQUESTS);
        self.open.insert(socket, Queues { requests, data });
        let waiting = Waiting { requests: waiting_requests, data: waiting_data };
        while self.tasks.try_join_next().is_some() {}
        let link = Link { socket, remote, waiting, events: self.sender.clone() };
        let mark = self.directory.mark();
        let is_overlay = self.directory.is_overlay(remote.ip());
        self.tasks.spawn(async move {
            let events = link.events.clone();
            let served = match to {
                _ if is_overlay => Err(io::ErrorKind::HostUnreachable.into()),
                SocketTo::Peer => link.exchange_datagrams(mark, is_of_the_way).await,
                SocketTo::Server(Transport::Udp) => link.exchange_datagrams(mark, |_| false).await,
                SocketTo::Server(Transport::Tcp) => link.exchange_stream(mark).await,
            };
            if let Err(error) = served {
                debug!(%remote, %error, "a socket is of no use");
                let _ = events.send((socket, SocketEvent::Closed)).await;
            }
        });
    }

    /// Queues a datagram, or a message of a stream.
    pub(crate) fn send(&self, socket: SocketId, bytes: Vec<u8>) {
        let Some(Queues { requests, data }) = self.open.get(&socket) else { return };
        let is_request = bytes.first().is_some_and(|first| REQUEST.contains(first));
        let queue = if is_request { requests } else { data };
        let _ = queue.try_send(bytes);
    }

    /// Closes a socket after what is queued.
    pub(crate) fn close(&mut self, socket: SocketId) {
        self.open.remove(&socket);
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Option<(SocketId, SocketEvent)> {
        self.events.recv().await
    }

    /// What has come after an event, as far as it is there and the loop may take it at once.
    pub(crate) fn events_at_hand(&mut self) -> Vec<(SocketId, SocketEvent)> {
        std::iter::from_fn(|| self.events.try_recv().ok()).take(INCOMING).collect()
    }

    /// Closes all sockets after what is queued.
    pub(crate) async fn end(mut self) {
        self.open.clear();
        drop(self.events);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(FAREWELL, all).await.is_err() {
            debug!("not everything was taken in time");
        }
    }
}

/// One socket.
struct Link {
    socket: SocketId,
    remote: SocketAddr,
    waiting: Waiting,
    events: mpsc::Sender<(SocketId, SocketEvent)>,
}

/// The other ends of its queues.
struct Waiting {
    requests: mpsc::Receiver<Vec<u8>>,
    data: mpsc::Receiver<Vec<u8>>,
}

impl Waiting {
    /// What is to be sent next, until the queues are closed and empty: requests do not wait behind data.
    async fn next(&mut self) -> Option<Vec<u8>> {
        tokio::select! {
            biased;
            Some(bytes) = self.requests.recv() => Some(bytes),
            bytes = self.data.recv() => bytes,
        }
    }
}

impl Link {
    /// Exchanges datagrams until the queue is closed. Where an error is no more than a loss, it goes on.
    async fn exchange_datagrams(
        mut self,
        mark: Mark,
        is_loss: fn(&io::Error) -> bool,
    ) -> io::Result<()> {
        let any = match self.remote {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any).await?;
        mark.put_on(&socket)?;
        let buffers = SockRef::from(&socket);
        buffers.set_recv_buffer_size(SYSTEM_BUFFER)?;
        buffers.set_send_buffer_size(SYSTEM_BUFFER)?;
        allow_splitting(&socket, self.remote.is_ipv4());
        socket.connect(self.remote).await?;
        self.tell(SocketEvent::Opened).await;
        let mut buffer = vec![0; READ];
        loop {
            tokio::select! {
                outgoing = self.waiting.next() => match outgoing {
                    Some(bytes) => match socket.send(&bytes).await {
                        Err(error) if !is_too_long(&error) && !is_loss(&error) => return Err(error),
                        Ok(_) | Err(_) => {}
                    },
                    None => return Ok(()),
                },
                received = socket.recv(&mut buffer) => match received {
                    Ok(length) => self.tell(SocketEvent::Bytes(buffer[..length].to_vec())).await,
                    Err(error) if is_too_long(&error) || is_loss(&error) => {}
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Exchanges bytes until the queue is closed, or the server ends the stream.
    async fn exchange_stream(self, mark: Mark) -> io::Result<()> {
        let stream = timeout(CONNECT_TIMEOUT, connect(self.remote, mark)).await??;
        self.tell(SocketEvent::Opened).await;
        let (mut reader, mut writer) = stream.into_split();
        let Self { socket, mut waiting, events, .. } = self;
        let write = async {
            while let Some(bytes) = waiting.next().await {
                writer.write_all(&bytes).await?;
            }
            writer.shutdown().await
        };
        let read = async {
            let mut buffer = vec![0; READ];
            loop {
                let length = reader.read(&mut buffer).await?;
                if length == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let event = SocketEvent::Bytes(buffer[..length].to_vec());
                // Nobody listens any more at the end of a node.
                let _ = events.send((socket, event)).await;
            }
        };
        tokio::select! {
            written = write => written,
            read = read => read,
        }
    }

    async fn tell(&self, event: SocketEvent) {
        let _ = self.events.send((self.socket, event)).await;
    }
}

/// Whether a datagram was too long for the way: it is lost like others.
fn is_too_long(error: &io::Error) -> bool {
    /// The system's number for that.
    const EMSGSIZE: i32 = 90;
    error.raw_os_error() == Some(EMSGSIZE)
}

/// Whether this is what routers and the firewall of this host say of the way, each time once.
fn is_of_the_way(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied
    )
}

async fn connect(remote: SocketAddr, mark: Mark) -> io::Result<TcpStream> {
    let socket = match remote {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    mark.put_on(&socket)?;
    let stream = socket.connect(remote).await?;
    stream.set_nodelay(true)?;
    let options = SockRef::from(&stream);
    options.set_tcp_user_timeout(Some(ACKNOWLEDGED_WITHIN))?;
    options.set_tcp_notsent_lowat(UNSENT)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// What takes longer than this has failed.
    const DEADLINE: Duration = Duration::from_secs(10);
    const TURN: SocketId = SocketId(7);

    fn sockets() -> ConnectedSockets {
        ConnectedSockets::new(Directory::new(Mark::default(), None))
    }

    async fn event(sockets: &mut ConnectedSockets) -> SocketEvent {
        let (socket, event) =
            timeout(DEADLINE, sockets.event()).await.expect("in time").expect("it is open");
        assert_eq!(socket, TURN);
        event
    }

    #[tokio::test]
    async fn datagrams_go_to_the_server_and_come_from_nobody_else() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let mut sockets = sockets();
        sockets.open(
            TURN,
            server.local_addr().expect("it is bound"),
            SocketTo::Server(Transport::Udp),
        );
        assert!(matches!(event(&mut sockets).await, SocketEvent::Opened));
        sockets.send(TURN, b"question".to_vec());
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).await.expect("the question");
        assert_eq!(&buffer[..length], b"question");
        stranger.send_to(b"noise", from).await.expect("it is sent");
        server.send_to(b"answer", from).await.expect("it is sent");
        assert!(
            matches!(event(&mut sockets).await, SocketEvent::Bytes(bytes) if bytes == b"answer")
        );
        sockets.send(TURN, b"farewell".to_vec());
        sockets.end().await;
        let length = server.recv(&mut buffer).await.expect("the farewell");
        assert_eq!(&buffer[..length], b"farewell");
    }

    #[tokio::test]
    async fn a_socket_towards_a_peer_outlives_what_a_router_says_and_one_towards_a_server_does_not()
    {
        let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = closed.local_addr().expect("it is bound");
        drop(closed);
        for to in [SocketTo::Peer, SocketTo::Server(Transport::Udp)] {
            let mut sockets = sockets();
            sockets.open(TURN, address, to);
            assert!(matches!(event(&mut sockets).await, SocketEvent::Opened));
            sockets.send(TURN, b"refused".to_vec());
            if to != SocketTo::Peer {
                assert!(matches!(event(&mut sockets).await, SocketEvent::Closed));
                continue;
            }
            // The socket's task has its turn, and nobody is there yet.
            tokio::task::yield_now().await;
            let peer = UdpSocket::bind(address).await.expect("the port is free again");
            let arrived = async {
                // Those are lost that are told of the first one's fate.
                loop {
                    sockets.send(TURN, b"taken".to_vec());
                    let mut buffer = [0; 16];
                    let received = timeout(Duration::from_millis(10), peer.recv(&mut buffer)).await;
                    if let Ok(length) = received {
                        return buffer[..length.expect("it is bound")].to_vec();
                    }
                }
            };
            assert_eq!(timeout(DEADLINE, arrived).await.expect("in time"), b"taken");
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_what_was_queued_and_its_end_is_told() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let mut sockets = sockets();
        sockets.open(
            TURN,
            listener.local_addr().expect("it is bound"),
            SocketTo::Server(Transport::Tcp),
        );
        let (mut server, _) = listener.accept().await.expect("it connects");
        assert!(matches!(event(&mut sockets).await, SocketEvent::Opened));
        server.write_all(b"bytes").await.expect("it is sent");
        assert!(
            matches!(event(&mut sockets).await, SocketEvent::Bytes(bytes) if bytes == b"bytes")
        );
        sockets.send(TURN, b"last".to_vec());
        sockets.close(TURN);
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.expect("it ends");
        assert_eq!(all, b"last");
    }

    #[tokio::test]
    async fn a_slow_stream_holds_little_and_requests_go_before_data() {
        const SIZE: usize = 1_000;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let mut sockets = sockets();
        sockets.open(
            TURN,
            listener.local_addr().expect("it is bound"),
            SocketTo::Server(Transport::Tcp),
        );
        let (mut server, _) = listener.accept().await.expect("it connects");
        assert!(matches!(event(&mut sockets).await, SocketEvent::Opened));
        for _ in 0..20_000 {
            sockets.send(TURN, vec![0x40; SIZE]);
            tokio::task::yield_now().await;
        }
        sockets.send(TURN, b"\0request".to_vec());
        sockets.close(TURN);
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.expect("it ends");
        let at = all.windows(8).position(|bytes| bytes == b"\0request").expect("it was sent");
        let behind = (all.len() - at - 8) / SIZE;
        assert_eq!(behind, OUTGOING_OVER_STREAM);
    }

    #[tokio::test]
    async fn a_stream_does_not_wait_in_the_system() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let stream = connect(address, Mark::default()).await.expect("it connects");
        let options = SockRef::from(&stream);
        assert_eq!(options.tcp_notsent_lowat().expect("it is known"), UNSENT);
        let timeout = options.tcp_user_timeout().expect("it is known");
        assert_eq!(timeout, Some(ACKNOWLEDGED_WITHIN));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told() {
        let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = gone.local_addr().expect("it is bound");
        drop(gone);
        for transport in [Transport::Tcp, Transport::Udp] {
            let mut sockets = sockets();
            sockets.open(TURN, address, SocketTo::Server(transport));
            if transport == Transport::Udp {
                assert!(matches!(event(&mut sockets).await, SocketEvent::Opened));
                sockets.send(TURN, b"question".to_vec());
            }
            assert!(matches!(event(&mut sockets).await, SocketEvent::Closed), "{transport}");
        }
    }
}
