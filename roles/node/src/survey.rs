//! Sockets that are used once: what the translator in front of this device does with new ones shows how it
//! counts ports, and whom it lets in.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use engine::{Transmit, is_stun};
use socket2::SockRef;
use tokio::{net::UdpSocket, sync::mpsc, time::timeout};
use tracing::debug;

/// Whoever answers later says nothing of the present.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longer datagrams are no answers.
const MAX_ANSWER: usize = 1_280;
/// What one socket takes of what may be answers.
const MAX_ANSWERS: usize = 16;
/// Answers that wait for the loop; further ones are lost.
const WAITING: usize = 16;

/// An answer with its sender.
pub(crate) type Answer = (SocketAddr, Vec<u8>);

/// Asks from new sockets, and has the answers.
#[derive(Debug)]
pub(crate) struct Surveyor {
    mark: u32,
    sender: mpsc::Sender<Answer>,
    answers: mpsc::Receiver<Answer>,
}

impl Surveyor {
    /// With this mark on everything sent, 0 for none.
    pub(crate) fn new(mark: u32) -> Self {
        let (sender, answers) = mpsc::channel(WAITING);
        Self { mark, sender, answers }
    }

    /// Sends datagrams of one family from a new socket, in order, and waits for answers, also of others than were asked: whether they
    /// get in may be the question.
    pub(crate) fn ask(&self, datagrams: &[Transmit]) {
        match self.send(datagrams) {
            Ok(socket) => {
                tokio::spawn(timeout(PATIENCE, collect(socket, self.sender.clone())));
            }
            // The survey ends without answers.
            Err(error) => debug!(%error, "no socket for a survey"),
        }
    }

    /// The next answer.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }

    fn send(&self, datagrams: &[Transmit]) -> io::Result<UdpSocket> {
        let is_ipv6 = datagrams.first().is_some_and(|datagram| datagram.to.is_ipv6());
        let any: IpAddr =
            if is_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        if self.mark != 0 {
            SockRef::from(&socket).set_mark(self.mark)?;
        }
        socket.set_nonblocking(true)?;
        for datagram in datagrams {
            socket.send_to(&datagram.payload, datagram.to)?;
        }
        UdpSocket::from_std(socket)
    }
}

/// Hands on what may be an answer; what is none has no number that the engine asked with.
async fn collect(socket: UdpSocket, sender: mpsc::Sender<Answer>) {
    let mut buffer = [0; MAX_ANSWER];
    let mut answers = 0;
    while answers < MAX_ANSWERS {
        // A closed port somewhere is no answer, but the next datagram may be one.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        if !is_stun(&buffer[..length]) {
            continue;
        }
        answers += 1;
        // What the loop does not take in time is lost, as on the way.
        let _ = sender.try_send((from, buffer[..length].to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_question_leaves_from_a_port_of_its_own_and_the_answers_come_back() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let to = server.local_addr().expect("it is bound");
        let mut surveyor = Surveyor::new(0);
        let mut ports = Vec::new();
        for number in [1, 2] {
            // As long as STUN's header, and with its magic cookie.
            let mut payload = [number; 20];
            payload[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
            surveyor.ask(&[Transmit::new(to, payload.to_vec())]);
            let mut buffer = [0; 32];
            let (length, from) = server.recv_from(&mut buffer).await.expect("the question");
            server.send_to(b"no answer", from).await.expect("it is sent");
            server.send_to(&buffer[..length], from).await.expect("the answer is sent");
            ports.push(from.port());
            assert_eq!(surveyor.answer().await, Some((to, payload.to_vec())));
        }
        assert_ne!(ports[0], ports[1]);
    }
}
