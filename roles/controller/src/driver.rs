//! The loop around the controller machine: connections, disk, timers and administrators.

use std::collections::BTreeMap;

use bytes::Bytes;
use control_proto::{
    AdminAnswer, AdminError, AdminRequest, ConnectionId, Controller, Output, Ticket,
};
use noise_channel::ConnectionMask;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tracing::info;

use crate::clock;
use crate::keeper::Keeper;
use crate::store::StoreError;

/// What reaches the loop.
#[derive(Debug)]
pub(crate) enum Command {
    /// A WebSocket is open; messages for it go to the sender.
    Opened(ConnectionId, ConnectionMask, mpsc::Sender<Bytes>),
    /// A message came in.
    Message(ConnectionId, Bytes),
    /// A WebSocket is closed.
    Closed(ConnectionId),
    /// An administrator asks.
    Admin(AdminRequest, oneshot::Sender<Result<AdminAnswer, AdminError>>),
    /// Everything under way is to be kept, then the loop ends.
    Stop,
}

/// Drives the machine until it is told to stop or the disk fails.
pub(crate) struct Driver {
    machine: Controller,
    keeper: Keeper,
    connections: BTreeMap<ConnectionId, mpsc::Sender<Bytes>>,
    answers: BTreeMap<Ticket, oneshot::Sender<Result<AdminAnswer, AdminError>>>,
    tickets: u64,
    /// Batches that are not on disk yet.
    unkept: u64,
    /// Whether the machine before this one failed and nothing was kept since.
    is_trying: bool,
    /// Whether it was told to end once everything is kept.
    is_stopping: bool,
}

impl Driver {
    /// Drives a new machine; `is_trying` if the one before failed.
    pub(crate) fn new(machine: Controller, keeper: Keeper, is_trying: bool) -> Self {
        let (connections, answers) = (BTreeMap::new(), BTreeMap::new());
        let (tickets, unkept, is_stopping) = (0, 0, false);
        Self { machine, keeper, connections, answers, tickets, unkept, is_trying, is_stopping }
    }

    /// Whether the machine before this one failed and nothing was kept since.
    pub(crate) fn is_trying(&self) -> bool {
        self.is_trying
    }

    /// Whether it was told to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// If a change cannot be kept: then nothing more may be promised to anybody.
    pub(crate) async fn run(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<(), StoreError> {
        loop {
            self.obey().await;
            if self.is_stopping && self.unkept == 0 {
                return Ok(());
            }
            let timer = self.machine.poll_timeout().map(|(at, _)| at);
            tokio::select! {
                kept = self.keeper.kept.recv() => {
                    let Some(kept) = kept else { return Ok(()) };
                    let id = kept?;
                    if std::mem::take(&mut self.is_trying) {
                        info!("changes are kept again");
                    }
                    self.unkept = self.machine.unpersisted_after(id);
                    self.machine.handle_persisted(id, clock::now());
                }
                command = commands.recv(), if !self.is_stopping => match command {
                    None | Some(Command::Stop) => self.is_stopping = true,
                    Some(command) => self.handle(command),
                },
                () = sleep_until(timer.unwrap_or_else(std::time::Instant::now).into()),
                    if timer.is_some() =>
                {
                    self.machine.handle_timeout(&mut clock::rng(), clock::now());
                }
            }
        }
    }

    fn handle(&mut self, command: Command) {
        let now = clock::now();
        match command {
            Command::Opened(connection, mask, sender) => {
                self.connections.insert(connection, sender);
                self.machine.handle_opened(connection, mask, now);
            }
            Command::Message(connection, message) => {
                self.machine.handle_message(connection, &message, &mut clock::rng(), now);
            }
            Command::Closed(connection) => {
                if self.connections.remove(&connection).is_some() {
                    self.machine.handle_closed(connection, now);
                }
            }
            Command::Admin(request, answer) => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                self.answers.insert(ticket, answer);
                self.machine.handle_admin(ticket, request, &mut clock::rng(), now);
            }
            Command::Stop => {}
        }
    }

    async fn obey(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { connection, message } => self.send(connection, message),
                Output::Close { connection } => {
                    self.connections.remove(&connection);
                }
                Output::Persist { id, changes } => {
                    self.unkept = self.unkept.max(1);
                    // If the keeper is gone, its last word is on the way and ends the loop.
                    let _ = self.keeper.batches.send((id, changes)).await;
                }
                Output::Answer { ticket, result } => {
                    if let Some(answer) = self.answers.remove(&ticket) {
                        // Whoever asked may be gone.
                        let _ = answer.send(result);
                    }
                }
            }
        }
    }

    /// A node that does not read gets a new channel, and with it a new map, when it does again.
    fn send(&mut self, connection: ConnectionId, message: Vec<u8>) {
        let Some(sender) = self.connections.get(&connection) else { return };
        if sender.try_send(message.into()).is_err() {
            info!(connection = connection.0, "a node does not read");
            self.connections.remove(&connection);
            self.machine.handle_closed(connection, clock::now());
        }
    }
}
