//! Floods of connections, and what comes over them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use control_proto::{Hello, NodeMessage};
use identity::{
    Binding, Certificate, CertificateChain, ChannelKey, ChannelProof, DeviceKey, Invite, InviteKey,
    Signed, TlsMode, TunnelKey, UnixTime, Validity, device_address,
};
use noise_channel::{
    Channel, ChannelEvent, ClockOffset, InitiatorConfig, MessageClass, Now, PathSecret, Service,
    StaticSecret, UnixMillis, limits::MAX_PAYLOAD,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use testlab::network::{Device, server_address};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use websocket::{
    AttemptError, DialError, Endpoint, Receiver, Sender, SpkiPin, Tls, WebSocket, dial,
};

/// Connections that are being made at a time.
const AT_ONCE: usize = 64;
/// What a server that lives answers within.
const ANSWER: Duration = Duration::from_secs(15);

/// Opens WebSockets at relay and controller, says nothing, and holds them at least until told to stop; answers
/// how many the server answered.
pub(crate) fn hold_open(from: &Device, invite: &Invite, count: usize, stop: &AtomicBool) -> usize {
    inside(from, async {
        let (mut making, mut held) = (JoinSet::new(), Vec::new());
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        for number in 0..count {
            let service = if number % 2 == 0 { Service::Relay } else { Service::Control };
            let (endpoint, _) = endpoint(invite, service, &mut rng);
            making.spawn(async move { dial(&endpoint).await });
            if making.len() >= AT_ONCE {
                held.extend(making.join_next().await.and_then(Result::ok));
            }
        }
        held.extend(making.join_all().await);
        let mut looks = interval(Duration::from_millis(50));
        while !stop.load(Ordering::Relaxed) {
            looks.tick().await;
        }
        held.iter().filter(|made| is_answered(made)).count()
    })
}

/// Whether the server has answered, if only that it has no room.
fn is_answered(made: &Result<WebSocket, DialError>) -> bool {
    match made {
        Ok(_) => true,
        Err(DialError::Failed(failures)) => {
            matches!(failures[..], [(_, AttemptError::Status(404))])
        }
        Err(_) => false,
    }
}

/// Sends requests that never end, heads of 64 KiB, and over WebSockets messages of 64 KiB that would be 64 MiB if
/// anybody unpacked them; the server has ended them all.
pub(crate) fn ask_badly(from: &Device, invite: &Invite) {
    let server = server_address().to_string();
    let (Endpoint { path, .. }, _) =
        endpoint(invite, Service::Control, &mut ChaCha20Rng::seed_from_u64(6));
    let output = from.namespace().run("python3", &["-c", BAD_REQUESTS, &server, &path]);
    assert_eq!(output.trim(), "300 slow, 100 long and 100 compressed requests have ended");
}

const BAD_REQUESTS: &str = r#"
import asyncio, ssl, sys, zlib
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
async def ended(reader):
    try:
        while await reader.read(65536):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
async def slow():
    reader, writer = await asyncio.open_connection(sys.argv[1], 8443, ssl=context)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
    over = asyncio.ensure_future(ended(reader))
    while not over.done():
        writer.write(b"a")
        await asyncio.wait([over], timeout=0.5)
async def long():
    reader, writer = await asyncio.open_connection(sys.argv[1], 8443, ssl=context)
    writer.write(b"GET / HTTP/1.1\r\nHost: " + b"x" * 65536)
    await ended(reader)
packer = zlib.compressobj(9, zlib.DEFLATED, -15)
bomb = packer.compress(bytes(64 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
async def compressed():
    reader, writer = await asyncio.open_connection(sys.argv[1], 8443, ssl=context)
    writer.write(f"GET {sys.argv[2]} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head and b"deflate" not in head, head
    # A final binary frame with the bit of the extension, under a mask of zeros.
    writer.write(b"\xc2\xff" + len(bomb).to_bytes(8, "big") + bytes(4) + bomb)
    await ended(reader)
async def main():
    attacks = [slow() for _ in range(300)] + [long() for _ in range(100)] + [compressed() for _ in range(100)]
    await asyncio.wait_for(asyncio.gather(*attacks), 60)
    print("300 slow, 100 long and 100 compressed requests have ended")
asyncio.run(main())
"#;

/// Sends CBOR that nests, lies about its length, or is as long as a message may be, over channels of strangers.
pub(crate) fn send_bombs(from: &Device, invite: &Invite, count: usize) {
    let nested = |byte: u8| vec![byte; MAX_PAYLOAD];
    let lying = [&[0x82, 0x00, 0x9b][..], &[0x7f; 8], &[0; 64]].concat();
    let endless = [&[0x9f][..], &vec![0x9f; MAX_PAYLOAD - 1]].concat();
    let bombs = [nested(0x81), nested(0xa1), nested(0xd8), lying, endless, nested(0xff)];
    inside(from, async {
        let mut rng = ChaCha20Rng::seed_from_u64(4);
        for number in 0..count {
            let mut stranger = Stranger::come(invite, &mut rng).await;
            stranger.say(&bombs[number % bombs.len()]).await;
        }
    });
}

/// Tries to join with certificates that other keys than the invite's have signed; each is refused.
pub(crate) fn guess_invites(from: &Device, invite: &Invite, count: usize) {
    inside(from, async {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        for _ in 0..count {
            let mut stranger = Stranger::come(invite, &mut rng).await;
            let hello = stranger.forged_hello(invite, &mut rng);
            stranger.say(&NodeMessage::Hello(Box::new(hello)).to_bytes()).await;
            assert!(stranger.is_shown_out().await, "a forged certificate was taken");
        }
    });
}

/// Somebody who knows an invite, but is no member.
struct Stranger {
    channel: Channel,
    key: ChannelKey,
    handshake_hash: [u8; 32],
    sender: Sender,
    receiver: Receiver,
}

impl Stranger {
    async fn come(invite: &Invite, rng: &mut ChaCha20Rng) -> Self {
        let (endpoint, nonce) = endpoint(invite, Service::Control, rng);
        let socket: WebSocket = dial(&endpoint).await.expect("the server takes connections");
        let (mut sender, mut receiver) = socket.split();
        let key = ChannelKey::generate(rng);
        let secret = PathSecret::from_bytes(*invite.path_secret.0);
        let config = InitiatorConfig {
            static_key: StaticSecret::from_bytes(*key.to_bytes()),
            remote_static: *invite.controller_key.as_bytes(),
            prologue: invite.network.as_bytes().to_vec(),
            mask: secret.mask(Service::Control, nonce),
            capability: control_proto::limits::CAPABILITY,
            clock_offset: ClockOffset::default(),
        };
        let mut channel = Channel::initiate(config, rng, now()).expect("keys are good");
        loop {
            while let Some(message) = channel.poll_message() {
                sender.send(message.into()).await.expect("the server listens");
            }
            if let Some(ChannelEvent::Established { handshake_hash, .. }) = channel.poll_event() {
                return Self { channel, key, handshake_hash, sender, receiver };
            }
            let answer = timeout(ANSWER, receiver.receive()).await.expect("the server answers");
            let answer = answer.expect("the connection holds").expect("the server goes on");
            channel.handle_message(&answer, rng, now());
        }
    }

    async fn say(&mut self, payload: &[u8]) {
        let sent = self.channel.send(payload, MessageClass::Counted, now().instant);
        sent.expect("the channel is open");
        while let Some(message) = self.channel.poll_message() {
            // The server may have had enough already.
            let _ = self.sender.send(message.into()).await;
        }
    }

    async fn is_shown_out(&mut self) -> bool {
        let ended = async { while let Ok(Some(_)) = self.receiver.receive().await {} };
        timeout(ANSWER, ended).await.is_ok()
    }

    fn forged_hello(&self, invite: &Invite, rng: &mut ChaCha20Rng) -> Hello {
        let (network, key) = (invite.network, DeviceKey::generate(rng));
        let (device, time) = (key.id(), UnixTime(now().wall.as_secs()));
        let grant = invite.grant().expect("the invite is good");
        let certificate = Certificate {
            device,
            name: "mallory".parse().expect("a name"),
            groups: Vec::new(),
            address: device_address(network, device, 0),
            counter: 0,
            validity: Validity::starting(time, 3_600),
            serial: grant.serial,
        };
        let binding = Binding {
            device,
            tunnel_key: TunnelKey::generate(rng).public(),
            channel_key: self.key.public(),
            number: 1,
            not_after: time.plus(3_600),
            capability: control_proto::limits::CAPABILITY.into(),
        };
        let presence = ChannelProof { handshake_hash: self.handshake_hash };
        Hello {
            chain: CertificateChain {
                delegation: invite.delegation.clone(),
                grant: Some(invite.grant.clone()),
                certificate: Signed::sign(network, &InviteKey::generate(rng), &certificate),
                renewal: None,
            },
            binding: Signed::sign(network, &key, &binding),
            presence: Signed::sign(network, &key, &presence),
            have: None,
            endpoints: None,
        }
    }
}

fn endpoint(invite: &Invite, service: Service, rng: &mut ChaCha20Rng) -> (Endpoint, [u8; 16]) {
    let server = &invite.controllers[0];
    let TlsMode::Pin(pin) = server.tls else { panic!("the lab's server is pinned") };
    let mut nonce = [0; 16];
    rng.fill_bytes(&mut nonce);
    let endpoint = Endpoint {
        addresses: server.socket_addresses().collect(),
        host: format!("{}:{}", server.host, server.port),
        tls: Tls::Pin(SpkiPin(pin)),
        path: PathSecret::from_bytes(*invite.path_secret.0).path(service, nonce),
        mark: None,
        detour: None,
    };
    (endpoint, nonce)
}

/// Runs something with sockets of the device's host.
fn inside<T: Send>(device: &Device, work: impl Future<Output = T> + Send) -> T {
    device.namespace().enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work)
    })
}

fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let wall = UnixMillis(u64::try_from(wall.as_millis()).expect("the clock is before 2500"));
    Now { instant: Instant::now(), wall }
}
