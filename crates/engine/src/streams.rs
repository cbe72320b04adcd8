//! Which connection belongs to which child machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use identity::DeviceId;
use relay_proto::ConnectionId;

use crate::io::{DialTarget, StreamCommand, StreamId};

/// The child that a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Control,
    /// This device's own link to a relay, or to a peer that listens.
    Relay(DeviceId),
    /// A peer has dialled it.
    Guest(ConnectionId),
}

/// The connections that the shell knows of, and what it has to do with them.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    last: u64,
    owners: BTreeMap<StreamId, Owner>,
    /// Connections for which the shell was woken and has not found the end yet.
    awake: BTreeSet<StreamId>,
    commands: VecDeque<StreamCommand>,
}

impl Streams {
    pub(crate) fn dial(&mut self, owner: Owner, target: DialTarget) -> StreamId {
        let stream = self.accept(owner);
        self.commands.push_back(StreamCommand::Dial { stream, target });
        stream
    }

    /// A connection that the shell has already.
    pub(crate) fn accept(&mut self, owner: Owner) -> StreamId {
        self.last += 1;
        let stream = StreamId(self.last);
        self.owners.insert(stream, owner);
        stream
    }

    /// There is something to send.
    pub(crate) fn wake(&mut self, stream: StreamId) {
        if self.owners.contains_key(&stream) && self.awake.insert(stream) {
            self.commands.push_back(StreamCommand::Wake { stream });
        }
    }

    /// The shell was told that there is nothing more to send.
    pub(crate) fn sleep(&mut self, stream: StreamId) {
        self.awake.remove(&stream);
    }

    pub(crate) fn close(&mut self, stream: StreamId) {
        if self.forget(stream).is_some() {
            self.commands.push_back(StreamCommand::Close { stream });
        }
    }

    /// The shell said that it is closed.
    pub(crate) fn forget(&mut self, stream: StreamId) -> Option<Owner> {
        self.awake.remove(&stream);
        self.owners.remove(&stream)
    }

    pub(crate) fn owner(&self, stream: StreamId) -> Option<Owner> {
        self.owners.get(&stream).copied()
    }

    pub(crate) fn poll(&mut self) -> Option<StreamCommand> {
        self.commands.pop_front()
    }

    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }
}
