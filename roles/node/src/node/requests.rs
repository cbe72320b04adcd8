//! What the local API asks.

use getrandom::SysRng;
use identity::{DeviceName, Invite, InviteGrant, NetworkId};
use ipnet::{IpNet, Ipv6Net};
use platform::process;
use rand_core::UnwrapErr;
use tokio::sync::mpsc;

use super::{Node, answer};
use crate::{
    api::{
        ApiError, Command, Joined, Netcheck, PingReply, PingRequest, Problem, Reply, Status, Why,
    },
    join::Applicant,
    memory::Place,
    network::{NetworkCommand, ask, not_found, stopping},
    userspace::Userspace,
};

impl Node {
    pub(super) fn handle(&mut self, command: Command) {
        match command {
            Command::Status(reply) => self.status(reply),
            Command::Netcheck(reply) => self.netcheck(reply),
            Command::Why(peer, reply) => self.why(peer, reply),
            Command::Ping(request, reply) => self.ping(request, reply),
            Command::Join(request, reply) => self.join(&request.invite, reply),
            Command::Leave(request, reply) => self.leave(request.network.as_deref(), reply),
            Command::Down(reply) => answer(reply, Ok(())),
        }
    }

    fn senders(&self) -> Vec<mpsc::Sender<NetworkCommand>> {
        self.networks.values().map(|entry| entry.commands.clone()).collect()
    }

    fn status(&self, reply: Reply<Status>) {
        let senders = self.senders();
        let mut status = Status {
            version: self.config.version.clone(),
            pid: std::process::id(),
            running: self.running,
            proxy: self.userspace.as_ref().and_then(Userspace::proxy),
            udp: self.config.settings.udp,
            networks: Vec::new(),
        };
        tokio::spawn(async move {
            for sender in senders {
                status.networks.extend(ask(&sender, NetworkCommand::Status).await);
            }
            answer(reply, Ok(status));
        });
    }

    fn netcheck(&self, reply: Reply<Netcheck>) {
        let senders = self.senders();
        tokio::spawn(async move {
            let mut all = Netcheck {
                udp: false,
                reflexive: Vec::new(),
                mapping: None,
                filtering: None,
                filtering_ipv6: None,
                port_step: None,
                mapped: Vec::new(),
                local: Vec::new(),
                controller: true,
                relays: Vec::new(),
                turn: Vec::new(),
            };
            for sender in senders {
                if let Some(one) = ask(&sender, NetworkCommand::Netcheck).await {
                    all.udp |= one.udp;
                    all.controller &= one.controller;
                    all.reflexive.extend(one.reflexive);
                    all.mapping = all.mapping.or(one.mapping);
                    all.filtering = all.filtering.or(one.filtering);
                    all.filtering_ipv6 = all.filtering_ipv6.or(one.filtering_ipv6);
                    all.port_step = all.port_step.or(one.port_step);
                    all.mapped.extend(one.mapped);
                    all.local.extend(one.local);
                    all.relays.extend(one.relays);
                    all.turn.extend(one.turn);
                }
            }
            answer(reply, Ok(all));
        });
    }

    fn why(&self, peer: String, reply: Reply<Why>) {
        let senders = self.senders();
        tokio::spawn(async move {
            for sender in senders {
                let why = ask(&sender, |to| NetworkCommand::Why(peer.clone(), to)).await;
                if let Some(why) = why.flatten() {
                    return answer(reply, Ok(why));
                }
            }
            answer(reply, Err(not_found(&peer)));
        });
    }

    fn ping(&self, PingRequest { peer }: PingRequest, reply: Reply<PingReply>) {
        let senders = self.senders();
        tokio::spawn(async move {
            for sender in senders {
                let pong = ask(&sender, |to| NetworkCommand::Ping(peer.clone(), to)).await;
                match pong {
                    Some(Err(error)) if error.problem == Problem::NotFound => {}
                    Some(result) => return answer(reply, result),
                    None => {}
                }
            }
            answer(reply, Err(not_found(&peer)));
        });
    }

    fn join(&mut self, invite: &str, reply: Reply<Joined>) {
        let (id, name, servers) = match self.admit(invite) {
            Ok(admitted) => admitted,
            Err(error) => return answer(reply, Err(error)),
        };
        let Some(commands) = self.networks.get(&id).map(|entry| entry.commands.clone()) else {
            return answer(reply, Err(stopping()));
        };
        let events = self.events.subscribe();
        let applicant = Applicant { network: id, name, servers, commands, events };
        tokio::spawn(async move { answer(reply, applicant.join().await) });
    }

    /// Starts the invite's network unless it runs; says its id, its name and its controllers.
    fn admit(&mut self, invite: &str) -> Result<(NetworkId, String, String), ApiError> {
        let refuse = |problem, message: String| ApiError { problem, message };
        let invite: Invite =
            invite.parse().map_err(|error| refuse(Problem::Usage, format!("{error}")))?;
        let id = invite.network;
        let name = invite.network_name.to_string();
        let servers: Vec<_> = invite.controllers.iter().map(ToString::to_string).collect();
        let servers = servers.join(", ");
        if self.networks.contains_key(&id) {
            return Ok((id, name, servers));
        }
        if self.networks.values().any(|entry| entry.name == name) {
            let text = format!(
                "this device is in another network called {name}; `shadowmesh leave {name}` leaves it"
            );
            return Err(refuse(Problem::System, text));
        }
        let grant = invite.grant().map_err(|error| refuse(Problem::Refused, error.to_string()))?;
        if let Some(other) = self.directory.owner_of(&prefix_of(&grant)) {
            let text = format!(
                "the addresses of {name} overlap with those of {other}, in which this device is \
                 already; `shadowmesh leave {other}` leaves it"
            );
            return Err(refuse(Problem::System, text));
        }
        let device = match grant.name {
            Some(name) => name,
            None => self.device_name()?,
        };
        let place = Place::new(invite, device, &mut UnwrapErr(SysRng));
        let system = |text: String| refuse(Problem::System, text);
        place.store(self.config.keys.as_ref()).map_err(|error| system(error.to_string()))?;
        if let Err(error) = self.start_network(place) {
            // Nothing was sent yet, so the keys are of no use to anybody.
            self.forget(id)?;
            return Err(system(error.to_string()));
        }
        Ok((id, name, servers))
    }

    fn device_name(&self) -> Result<DeviceName, ApiError> {
        let wanted = match &self.config.settings.device_name {
            Some(name) => name.clone(),
            None => host_name(),
        };
        wanted.parse().map_err(|error| ApiError {
            problem: Problem::Usage,
            message: format!(
                "{wanted:?} cannot be a device's name: {error}; choose one with --name"
            ),
        })
    }

    fn leave(&mut self, wanted: Option<&str>, reply: Reply<()>) {
        let mut matching = self.networks.iter_mut().filter(|(id, entry)| {
            wanted.is_none_or(|wanted| entry.name == wanted || id.to_string() == wanted)
        });
        let (found, more) = (matching.next(), matching.next().is_some());
        match (found, more) {
            (Some((_, entry)), false) => {
                entry.leaving.push(reply);
                let commands = entry.commands.clone();
                tokio::spawn(async move {
                    // A loop that has ended meanwhile answers all the same.
                    let _ = commands.send(NetworkCommand::Leave).await;
                });
            }
            (Some(_), true) => {
                let message = "this device is in several networks; say which to leave".to_owned();
                answer(reply, Err(ApiError { problem: Problem::Usage, message }));
            }
            (None, _) => {
                let message = "this device is in no such network; `shadowmesh status` lists all";
                let message = message.to_owned();
                answer(reply, Err(ApiError { problem: Problem::NotFound, message }));
            }
        }
    }
}

/// The addresses of the invite's network.
fn prefix_of(grant: &InviteGrant) -> IpNet {
    Ipv6Net::new_assert(grant.prefix.network(), 48).into()
}

/// The host's name as a device name: its first label, without what names cannot have.
fn host_name() -> String {
    let name = process::host_name().to_ascii_lowercase();
    let label = name.split('.').next().unwrap_or_default();
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    label.chars().map(allowed).collect::<String>().trim_matches('-').to_owned()
}
