//! Both ends of a control channel, by whoever opened it and says what he likes inside; and administration.

use std::time::Duration;

use control_proto::{
    AdminAnswer, AdminError, AdminRequest, Admission, ClientConfig, ClientEvent, ClockOffset,
    ConnectionId, ControlClient, ControllerAddress, DeviceRecord, Hello, InviteRequest, NetworkMap,
    NodeMessage, Output, StreamAction, Ticket,
};
use identity::{
    Binding, ChannelKey, ChannelProof, DeviceId, DeviceKey, DeviceName, Invite, Revocations,
    Signed, TunnelKey, UnixTime,
};
use noise_channel::{
    Channel, ChannelEvent, InitiatorConfig, MessageClass, Now, PathSecret, ReplayGuard,
    ResponderConfig, Service, StaticSecret,
};
use rand_chacha::ChaCha20Rng;

use super::{now, parts, rng};
use crate::sim::ControllerHost;

const YEAR: u64 = 365 * 24 * 3600;
const NONCE: [u8; 16] = [1; 16];
/// Longer inputs say nothing that shorter ones do not.
const MOST_PARTS: usize = 16;

/// A controller on its disk, and what it has to say.
struct Lab {
    host: ControllerHost,
    rng: ChaCha20Rng,
    now: Now,
    sent: Vec<(ConnectionId, Vec<u8>)>,
    answer: Option<Result<AdminAnswer, AdminError>>,
}

impl Lab {
    fn new() -> Self {
        let (mut rng, now) = (rng(), now());
        let mut host = ControllerHost::new(&mut rng, now);
        host.start(now);
        let mut lab = Self { host, rng, now, sent: Vec::new(), answer: None };
        lab.settle();
        lab
    }

    /// Does what the controller wants done.
    fn settle(&mut self) {
        let machine = self.host.machine.as_mut().expect("it runs");
        while let Some(output) = machine.poll_output() {
            match output {
                Output::Send { connection, message } => self.sent.push((connection, message)),
                Output::Close { .. } => {}
                Output::Persist { id, changes } => {
                    changes.iter().for_each(|change| self.host.disk.apply(change));
                    machine.handle_persisted(id, self.now);
                }
                Output::Answer { result, .. } => self.answer = Some(result),
            }
        }
    }

    fn ask(&mut self, request: AdminRequest) -> Result<AdminAnswer, AdminError> {
        let machine = self.host.machine.as_mut().expect("it runs");
        machine.handle_admin(Ticket(1), request, &mut self.rng, self.now);
        self.settle();
        self.answer.take().expect("every request is answered")
    }

    fn invite(&mut self) -> Invite {
        match self.ask(AdminRequest::CreateInvite(InviteRequest::default())) {
            Ok(AdminAnswer::InvitesCreated { invites }) => {
                invites[0].invite.parse().expect("an invite")
            }
            other => panic!("not the answer to an invite: {other:?}"),
        }
    }

    fn receive(&mut self, connection: ConnectionId, message: &[u8]) {
        let machine = self.host.machine.as_mut().expect("it runs");
        machine.handle_message(connection, message, &mut self.rng, self.now);
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        let machine = self.host.machine.as_mut().expect("it runs");
        machine.handle_timeout(&mut self.rng, self.now);
        self.settle();
    }
}

/// A device whose channel is played by hand.
struct Device {
    key: DeviceKey,
    channel: Channel,
    connection: ConnectionId,
}

impl Device {
    /// Joins as any device does.
    fn join(lab: &mut Lab, number: u64, name: &DeviceName) -> Self {
        let invite = lab.invite();
        let (key, channel_key) =
            (DeviceKey::generate(&mut lab.rng), ChannelKey::generate(&mut lab.rng));
        let connection = ConnectionId(number);
        let mask = PathSecret::from_bytes(*invite.path_secret.0).mask(Service::Control, NONCE);
        let machine = lab.host.machine.as_mut().expect("it runs");
        machine.handle_opened(connection, mask.clone(), lab.now);
        let config = InitiatorConfig {
            static_key: StaticSecret::from_bytes(*channel_key.to_bytes()),
            remote_static: *invite.controller_key.as_bytes(),
            prologue: invite.network.as_bytes().to_vec(),
            mask,
            capability: 1,
            clock_offset: ClockOffset(0),
        };
        let channel = Channel::initiate(config, &mut lab.rng, lab.now).expect("a usable key");
        let mut device = Self { key, channel, connection };
        let handshake_hash = device.shake_hands(lab);
        let wall = UnixTime(lab.now.wall.as_secs());
        let hello = Hello {
            chain: invite.certify(device.id(), name, 0, wall).expect("the invite is good"),
            binding: binding(&invite, &device.key, &channel_key, wall),
            presence: Signed::sign(invite.network, &device.key, &ChannelProof { handshake_hash }),
            have: None,
            endpoints: None,
        };
        device.say(&NodeMessage::Hello(Box::new(hello)).to_bytes(), lab);
        assert!(lab.host.disk.devices.contains_key(&device.id()), "it is let in");
        device
    }

    fn id(&self) -> DeviceId {
        self.key.id()
    }

    fn shake_hands(&mut self, lab: &mut Lab) -> [u8; 32] {
        self.carry(lab);
        while let Some(event) = self.channel.poll_event() {
            if let ChannelEvent::Established { handshake_hash, .. } = event {
                return handshake_hash;
            }
        }
        panic!("the controller answers");
    }

    fn say(&mut self, message: &[u8], lab: &mut Lab) {
        // A channel that has ended takes nothing more, which is fine.
        let _ = self.channel.send(message, MessageClass::Counted, lab.now.instant);
        self.carry(lab);
    }

    /// Carries messages until neither end has one.
    fn carry(&mut self, lab: &mut Lab) {
        while let Some(message) = self.channel.poll_message() {
            lab.receive(self.connection, &message);
            for (connection, message) in std::mem::take(&mut lab.sent) {
                if connection == self.connection {
                    self.channel.handle_message(&message, &mut lab.rng, lab.now);
                }
            }
        }
    }
}

fn binding(
    invite: &Invite,
    key: &DeviceKey,
    channel_key: &ChannelKey,
    now: UnixTime,
) -> Signed<Binding> {
    let tunnel: [u8; 32] = *key.id().as_bytes();
    let binding = Binding {
        device: key.id(),
        tunnel_key: TunnelKey::from_bytes(&tunnel).public(),
        channel_key: channel_key.public(),
        number: 1,
        not_after: now.plus(YEAR),
        capability: 1,
    };
    Signed::sign(invite.network, key, &binding)
}

/// What a member sends after it was let in; an empty part is a minute.
pub(super) fn controller(bytes: &[u8]) {
    let mut lab = Lab::new();
    let bystander = Device::join(&mut lab, 1, &"bystander".parse().expect("a name"));
    let mut member = Device::join(&mut lab, 2, &"member".parse().expect("a name"));
    let kept =
        |lab: &Lab| -> Option<DeviceRecord> { lab.host.disk.devices.get(&bystander.id()).cloned() };
    let before = kept(&lab);
    for part in parts(bytes).take(MOST_PARTS) {
        if part.is_empty() {
            lab.pass(Duration::from_secs(60));
        } else {
            member.say(part, &mut lab);
        }
    }
    assert_eq!(kept(&lab), before, "nobody speaks for another");
    lab.host.start(lab.now);
    lab.settle();
    assert!(matches!(lab.ask(AdminRequest::Network), Ok(AdminAnswer::Network(_))));
}

/// What whoever has a controller's channel key sends to a device; an empty part is a minute.
pub(super) fn client(bytes: &[u8]) {
    let mut lab = Lab::new();
    let invite = lab.invite();
    let (rng, mut now) = (&mut lab.rng, lab.now);
    let mut client = new_client(&invite, rng, now);
    client.handle_timeout(rng, now);
    let Some(StreamAction::Dial { connection, path, .. }) = client.poll_action() else {
        panic!("it begins with a connection");
    };
    let secret = PathSecret::from_bytes(*invite.path_secret.0);
    let config = ResponderConfig {
        static_key: StaticSecret::from_bytes(*lab.host.config.channel_key.to_bytes()),
        prologue: invite.network.as_bytes().to_vec(),
        mask: secret.recognise(Service::Control, &path).expect("the network's path"),
        capability: 1,
        replay: ReplayGuard::default(),
    };
    let mut channel = Channel::respond(config, now);
    client.handle_opened(connection, rng, now);
    for part in [&[][..]].into_iter().chain(parts(bytes).take(MOST_PARTS)) {
        if channel.is_open() && part.is_empty() {
            now = now.after(Duration::from_secs(60));
            client.handle_timeout(rng, now);
        }
        // A channel that has ended takes nothing more, which is fine.
        let _ = channel.send(part, MessageClass::Counted, now.instant);
        loop {
            while let Some(message) = channel.poll_message() {
                client.handle_message(connection, &message, rng, now);
            }
            let Some(action) = client.poll_action() else { break };
            if let StreamAction::Send { message, .. } = action {
                channel.handle_message(&message, rng, now);
            }
        }
        while let Some(event) = client.poll_event() {
            if let ClientEvent::Membership(chain) = event {
                let (wall, nobody) = (client.wall(now), Revocations::new(invite.network));
                assert!(chain.verify(invite.network, wall, &nobody).is_ok());
            }
        }
    }
    assert_eq!(client.map().peers().count(), 0, "nobody has the network's key");
}

/// An invite into a network of which nobody has the key.
pub(super) fn an_invite() -> Invite {
    Lab::new().invite()
}

fn new_client(invite: &Invite, rng: &mut ChaCha20Rng, now: Now) -> ControlClient {
    let (key, channel_key) = (DeviceKey::generate(rng), ChannelKey::generate(rng));
    let config = ClientConfig {
        controller: ControllerAddress::from(invite),
        binding: binding(invite, &key, &channel_key, UnixTime(now.wall.as_secs())),
        device_key: key,
        channel_key,
        admission: Admission::Invite {
            invite: Box::new(invite.clone()),
            name: "device".parse().expect("a name"),
        },
        clock_offset: ClockOffset(0),
    };
    ControlClient::new(config, NetworkMap::new(invite.network), now)
}

/// Requests of administrators, one a line.
pub(super) fn admin(bytes: &[u8]) {
    let mut lab = Lab::new();
    for line in bytes.split(|byte| *byte == b'\n').take(MOST_PARTS) {
        let Ok(request) = serde_json::from_slice::<AdminRequest>(line) else { continue };
        let text = serde_json::to_vec(&request).expect("a request is JSON");
        assert_eq!(serde_json::from_slice::<AdminRequest>(&text).ok().as_ref(), Some(&request));
        let answer = lab.ask(request);
        let text = serde_json::to_vec(&answer).expect("an answer is JSON");
        assert_eq!(serde_json::from_slice(&text).ok(), Some(answer));
    }
    let shown = views(&mut lab);
    lab.host.start(lab.now);
    lab.settle();
    assert_eq!(views(&mut lab), shown, "what was shown is on disk");
}

fn views(lab: &mut Lab) -> Vec<Result<AdminAnswer, AdminError>> {
    let requests = [
        AdminRequest::Network,
        AdminRequest::Invites,
        AdminRequest::Peers,
        AdminRequest::Names,
        AdminRequest::Relays,
    ];
    requests.into_iter().map(|request| lab.ask(request)).collect()
}
