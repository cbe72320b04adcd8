//! Sockets beside the device's own, each towards one address: a TURN server, or a peer that this device scatters itself for.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;

use identity::Transport;
use noise_channel::Now;
use rand_core::CryptoRng;

use crate::context::Context;
use crate::engine::Engine;
use crate::io::{SocketCommand, SocketId, SocketTo};

/// What the shell is to do with them.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    opened: u32,
    commands: VecDeque<SocketCommand>,
}

impl Sockets {
    /// Opens one towards a server.
    pub(crate) fn open(&mut self, remote: SocketAddr, transport: Transport) -> SocketId {
        let socket = SocketId(self.opened);
        self.opened += 1;
        let to = SocketTo::Server(transport);
        self.commands.push_back(SocketCommand::Open { socket, remote, to });
        socket
    }

    /// Opens so many towards a peer; answers their numbers.
    pub(crate) fn open_many(&mut self, count: u32, remote: SocketAddr) -> Range<u32> {
        let sockets = self.opened..self.opened + count;
        self.opened = sockets.end;
        let to = SocketTo::Peer;
        let open = |number| SocketCommand::Open { socket: SocketId(number), remote, to };
        self.commands.extend(sockets.clone().map(open));
        sockets
    }

    pub(crate) fn send(&mut self, socket: SocketId, bytes: Vec<u8>) {
        self.commands.push_back(SocketCommand::Send { socket, bytes });
    }

    pub(crate) fn close(&mut self, socket: SocketId) {
        self.commands.push_back(SocketCommand::Close { socket });
    }

    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }
}

impl Engine {
    /// A socket is open.
    pub fn handle_socket_opened(&mut self, socket: SocketId, rng: &mut dyn CryptoRng, now: Now) {
        let mut cx = Context { rng, now };
        let wall = self.wall(now);
        self.turns.handle_opened(socket, wall, &mut cx);
        self.drain(&mut cx);
    }

    /// A datagram came to a socket, or some bytes of a stream.
    pub fn handle_socket_bytes(
        &mut self,
        socket: SocketId,
        bytes: &[u8],
        rng: &mut dyn CryptoRng,
        now: Now,
    ) {
        let mut cx = Context { rng, now };
        if !self.take_scattered(socket, bytes, &mut cx) {
            self.turns.handle_bytes(socket, bytes, &mut cx);
        }
        self.drain(&mut cx);
    }

    /// A socket could not be opened, or failed.
    pub fn handle_socket_closed(&mut self, socket: SocketId, rng: &mut dyn CryptoRng, now: Now) {
        self.turns.handle_closed(socket, now.instant);
        self.handle_scattered_closed(socket, now.instant);
        self.drain(&mut Context { rng, now });
    }

    /// The next thing to do with sockets beside the device's own.
    #[must_use]
    pub fn poll_socket(&mut self) -> Option<SocketCommand> {
        self.sockets.commands.pop_front()
    }
}
