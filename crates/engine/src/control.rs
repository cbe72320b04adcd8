//! The channel to the controller, as a child of the engine.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use control_proto::{ClientEvent, ConnectionId, ControlClient, StreamAction};

use crate::context::Context;
use crate::io::{DialTarget, Purpose, StreamId};
use crate::streams::{Owner, Streams};

/// A [`ControlClient`] with the names that the shell has for its connections.
#[derive(Debug)]
pub(crate) struct Control {
    client: ControlClient,
    streams: BTreeMap<StreamId, ConnectionId>,
    messages: BTreeMap<StreamId, VecDeque<Vec<u8>>>,
}

impl Control {
    pub(crate) fn new(client: ControlClient) -> Self {
        Self { client, streams: BTreeMap::new(), messages: BTreeMap::new() }
    }

    pub(crate) fn client(&self) -> &ControlClient {
        &self.client
    }

    pub(crate) fn client_mut(&mut self) -> &mut ControlClient {
        &mut self.client
    }

    pub(crate) fn handle_opened(&mut self, stream: StreamId, cx: &mut Context<'_>) {
        if let Some(connection) = self.streams.get(&stream) {
            self.client.handle_opened(*connection, cx.rng, cx.now);
        }
    }

    pub(crate) fn handle_message(
        &mut self,
        stream: StreamId,
        message: &[u8],
        cx: &mut Context<'_>,
    ) {
        if let Some(connection) = self.streams.get(&stream) {
            self.client.handle_message(*connection, message, cx.rng, cx.now);
        }
    }

    pub(crate) fn handle_closed(&mut self, stream: StreamId, cx: &mut Context<'_>) {
        self.messages.remove(&stream);
        if let Some(connection) = self.streams.remove(&stream) {
            self.client.handle_closed(connection, cx.rng, cx.now);
        }
    }

    /// Passes on what the client wants done with connections.
    pub(crate) fn drain_actions(&mut self, streams: &mut Streams) {
        while let Some(action) = self.client.poll_action() {
            match action {
                StreamAction::Dial { connection, server, path } => {
                    let target = DialTarget { server, path, purpose: Purpose::Controller };
                    let stream = streams.dial(Owner::Control, target);
                    self.streams.insert(stream, connection);
                }
                StreamAction::Send { connection, message } => {
                    if let Some(stream) = self.stream_of(connection) {
                        self.messages.entry(stream).or_default().push_back(message);
                        streams.wake(stream);
                    }
                }
                StreamAction::Close { connection } => {
                    if let Some(stream) = self.stream_of(connection) {
                        self.streams.remove(&stream);
                        self.messages.remove(&stream);
                        streams.close(stream);
                    }
                }
            }
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<ClientEvent> {
        self.client.poll_event()
    }

    pub(crate) fn poll_message(&mut self, stream: StreamId) -> Option<Vec<u8>> {
        self.messages.get_mut(&stream)?.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.client.poll_timeout()
    }

    fn stream_of(&self, connection: ConnectionId) -> Option<StreamId> {
        self.streams
            .iter()
            .find(|(_, candidate)| **candidate == connection)
            .map(|(stream, _)| *stream)
    }
}
