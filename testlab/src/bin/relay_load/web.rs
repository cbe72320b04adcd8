//! One WebSocket to a relay, ours or iroh's.

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use relay_proto::CircuitOffer;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_websockets::Message;

use crate::iroh::{self, Endpoint};
use crate::member::Member;
use crate::peer::{Id, TICK};
use crate::wire::{Stream, Target};

enum Speaker {
    Ours(Box<Member>),
    Iroh(Box<Endpoint>),
}

/// A connection that is attached.
pub(crate) struct Web {
    speaker: Speaker,
    stream: Stream,
    tick: Interval,
}

impl Web {
    pub(crate) async fn to_ours(target: &Target, number: usize) -> Self {
        let member = Box::new(Member::new(number));
        let stream = target.open(&member.path, None).await;
        Self::attach(Speaker::Ours(member), stream).await
    }

    pub(crate) async fn to_iroh(target: &Target, number: usize) -> Self {
        let stream = target.open(iroh::PATH, Some(iroh::PROTOCOL)).await;
        Self::attach(Speaker::Iroh(Box::new(Endpoint::new(number))), stream).await
    }

    async fn attach(speaker: Speaker, stream: Stream) -> Self {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut web = Self { speaker, stream, tick };
        web.flush().await;
        while !web.is_attached() {
            web.receive(&mut |_| {}).await;
        }
        web
    }

    pub(crate) fn id(&self) -> Id {
        match &self.speaker {
            Speaker::Ours(member) => Id::Ours(member.device),
            Speaker::Iroh(endpoint) => Id::Iroh(endpoint.id()),
        }
    }

    fn is_attached(&self) -> bool {
        match &self.speaker {
            Speaker::Ours(member) => member.is_attached(),
            Speaker::Iroh(endpoint) => endpoint.is_attached(),
        }
    }

    /// Asks for a circuit to another member, and waits for it.
    pub(crate) async fn request_circuit(&mut self, to: Id) -> CircuitOffer {
        if let (Speaker::Ours(member), Id::Ours(to)) = (&mut self.speaker, to) {
            member.request_circuit(to);
        }
        self.flush().await;
        loop {
            self.receive(&mut |_| {}).await;
            if let Speaker::Ours(member) = &mut self.speaker
                && let Some(offer) = member.take_offer()
            {
                return offer;
            }
        }
    }

    /// Takes what has arrived, at least one message, and hands payloads on; does what is due. Can be abandoned while it waits.
    pub(crate) async fn receive(&mut self, take: &mut (dyn FnMut(&[u8]) + Send)) {
        let mut message = tokio::select! {
            message = self.stream.next() => message,
            _ = self.tick.tick() => {
                if let Speaker::Ours(member) = &mut self.speaker {
                    member.handle_timeout();
                }
                return self.flush().await;
            }
        };
        let mut is_answer = false;
        loop {
            let bytes = message.expect("the relay goes on").expect("the relay speaks WebSocket");
            if bytes.is_binary() {
                is_answer |= self.handle(bytes.into_payload().into(), take);
            }
            match self.stream.next().now_or_never() {
                Some(next) => message = next,
                None => break,
            }
        }
        if is_answer {
            self.flush().await;
        }
    }

    /// Answers whether something may have to go back.
    fn handle(&mut self, message: Bytes, take: &mut (dyn FnMut(&[u8]) + Send)) -> bool {
        let (answers, payload) = match &mut self.speaker {
            Speaker::Ours(member) => {
                let payload = member.handle_message(message);
                (payload.is_none(), payload)
            }
            Speaker::Iroh(endpoint) => {
                let (answer, payload) = endpoint.handle_message(&message);
                let answers = answer.is_some();
                if let Some(answer) = answer {
                    self.stream.start_send_unpin(Message::binary(answer)).expect("it is open");
                }
                (answers, payload)
            }
        };
        payload.iter().for_each(|payload| take(payload));
        answers
    }

    /// Writes a batch of frames of `length` bytes at once.
    pub(crate) async fn send(&mut self, to: Id, length: usize, count: usize, head: &[u8]) {
        let write = |payload: &mut [u8]| payload[..head.len()].copy_from_slice(head);
        for _ in 0..count {
            match (&mut self.speaker, to) {
                (Speaker::Ours(member), Id::Ours(to)) => member.send(to, length, write),
                (Speaker::Iroh(_), Id::Iroh(to)) => {
                    let message = Message::binary(iroh::datagram(&to, length, write));
                    self.stream.feed(message).await.expect("the relay takes messages");
                }
                (Speaker::Ours(_) | Speaker::Iroh(_), _) => panic!("peers are of one kind"),
            }
        }
        self.flush().await;
    }

    async fn flush(&mut self) {
        if let Speaker::Ours(member) = &mut self.speaker {
            while let Some(message) = member.poll_message() {
                self.stream.feed(Message::binary(message)).await.expect("the relay takes messages");
            }
        }
        self.stream.flush().await.expect("the relay takes messages");
    }
}
