//! One connection to a relay, of whatever kind.

use std::net::SocketAddr;
use std::time::Duration;

use identity::DeviceId;

use crate::circuit::Circuit;
use crate::turn::Turn;
use crate::web::Web;
use crate::wire::{Target, Way};

/// How often a link is asked whether something is due.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// Whose relay it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Ours,
    Iroh,
    Turn,
}

impl From<&str> for Kind {
    fn from(text: &str) -> Self {
        match text {
            "ours" => Self::Ours,
            "iroh" => Self::Iroh,
            "turn" => Self::Turn,
            other => panic!("{other} is no kind of relay"),
        }
    }
}

/// Whom a relay sends to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Id {
    Ours(DeviceId),
    Iroh([u8; 32]),
    Turn(SocketAddr),
}

/// A connection that is attached.
pub(crate) enum Peer {
    Web(Box<Web>),
    Circuit(Box<Circuit>),
    Turn(Box<Turn>),
}

impl Peer {
    pub(crate) async fn connect(kind: Kind, target: &Target, number: usize) -> Self {
        match (kind, target.way()) {
            (Kind::Ours, Way::Udp) => {
                Self::Circuit(Box::new(Circuit::connect(target, number).await))
            }
            (Kind::Ours, Way::Tcp | Way::Tls) => {
                Self::Web(Box::new(Web::to_ours(target, number).await))
            }
            (Kind::Iroh, _) => Self::Web(Box::new(Web::to_iroh(target, number).await)),
            (Kind::Turn, _) => Self::Turn(Box::new(Turn::connect(target, number).await)),
        }
    }

    pub(crate) fn id(&self) -> Id {
        match self {
            Self::Web(web) => web.id(),
            Self::Circuit(circuit) => circuit.id(),
            Self::Turn(turn) => Id::Turn(turn.relayed()),
        }
    }

    /// Stays connected for ever.
    pub(crate) async fn idle(mut self) {
        loop {
            self.receive(&mut |_| {}).await;
        }
    }

    /// Lets two send to each other, where that takes permission.
    pub(crate) async fn join(one: &mut Self, other: &mut Self) {
        match (one, other) {
            (Self::Circuit(one), Self::Circuit(other)) => Circuit::join(one, other).await,
            (Self::Turn(one), Self::Turn(other)) => {
                other.admit(one.relayed()).await;
                one.admit(other.relayed()).await;
            }
            (Self::Web(_) | Self::Circuit(_) | Self::Turn(_), _) => {}
        }
    }

    /// Takes what has arrived, at least one message, and hands payloads on; does what is due. Can be abandoned while it waits.
    pub(crate) async fn receive(&mut self, take: &mut (dyn FnMut(&[u8]) + Send)) {
        match self {
            Self::Web(web) => web.receive(take).await,
            Self::Circuit(circuit) => circuit.receive(take).await,
            Self::Turn(turn) => turn.receive(take).await,
        }
    }

    /// Writes a batch of frames of `length` bytes at once.
    pub(crate) async fn send(&mut self, to: Id, length: usize, count: usize, head: &[u8]) {
        match (self, to) {
            (Self::Web(web), to) => web.send(to, length, count, head).await,
            (Self::Circuit(circuit), _) => circuit.send(length, count, head),
            (Self::Turn(turn), Id::Turn(to)) => turn.send(to, length, count, head).await,
            (Self::Turn(_), Id::Ours(_) | Id::Iroh(_)) => panic!("peers are of one kind"),
        }
    }
}
