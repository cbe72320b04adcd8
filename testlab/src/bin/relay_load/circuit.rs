//! An end of a circuit over the relay of this program, and the link by which it is asked for.

use std::time::Instant;

use relay_proto::{CircuitBinding, CircuitKey, HEAD_LEN, Head};

use crate::datagrams::{Datagrams, pieces};
use crate::peer::Id;
use crate::web::Web;
use crate::wire::Target;

/// An end that is attached; joined with another it sends to that one.
pub(crate) struct Circuit {
    link: Web,
    datagrams: Datagrams,
    binding: Option<CircuitBinding>,
    /// What is sent at once.
    batch: Vec<u8>,
}

impl Circuit {
    pub(crate) async fn connect(target: &Target, number: usize) -> Self {
        let link = Web::to_ours(target, number).await;
        let datagrams = Datagrams::new(target.address());
        Self { link, datagrams, binding: None, batch: Vec::new() }
    }

    pub(crate) fn id(&self) -> Id {
        self.link.id()
    }

    /// Opens a circuit between two, and waits until datagrams are passed on from both.
    pub(crate) async fn join(one: &mut Self, other: &mut Self) {
        let offer = one.link.request_circuit(other.id()).await;
        let [own, others] = offer.keys;
        one.bind(offer.number, own).await;
        other.bind(offer.number, others).await;
    }

    async fn bind(&mut self, number: u32, key: CircuitKey) {
        self.binding = Some(CircuitBinding::new(number, key, Instant::now()));
        while !self.binding.as_ref().is_some_and(CircuitBinding::is_bound) {
            self.show();
            self.receive(&mut |_| {}).await;
        }
    }

    /// Shows the relay where this is, where that is due.
    fn show(&mut self) {
        let Some(binding) = &mut self.binding else { return };
        assert!(!binding.has_failed(), "the relay does not answer");
        if let Some(message) = binding.poll_transmit(Instant::now()) {
            self.datagrams.send(&message, message.len());
        }
    }

    pub(crate) async fn receive(&mut self, take: &mut (dyn FnMut(&[u8]) + Send)) {
        let mut ignore = |_: &[u8]| {};
        tokio::select! {
            () = self.datagrams.readable() => {}
            () = self.link.receive(&mut ignore) => return self.show(),
        }
        let Some(binding) = &mut self.binding else { return };
        let head = Head::descending(binding.number());
        self.datagrams.take(&mut |datagram| match Head::of(datagram) {
            Some(found) if found == head => take(&datagram[HEAD_LEN..]),
            Some(_) | None => {
                binding.handle_answer(datagram, Instant::now());
            }
        });
        self.show();
    }

    pub(crate) fn send(&mut self, length: usize, count: usize, head: &[u8]) {
        let number = self.binding.as_ref().expect("it was joined").number();
        let before = Head::ascending(number);
        self.batch.clear();
        for piece in pieces(length, count) {
            let begin = self.batch.len() + HEAD_LEN;
            self.batch.extend_from_slice(before.bytes());
            self.batch.resize(begin + piece, 0);
            self.batch[begin..][..head.len()].copy_from_slice(head);
        }
        let longest = pieces(length, count).next().unwrap_or_default();
        self.datagrams.send(&self.batch, HEAD_LEN + longest);
    }
}
