//! A client and a server that does as RFC 8656 says, or does not, on a virtual clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytecodec::{DecodeExt, EncodeExt};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use stun_codec::rfc5389::attributes::{ErrorCode, Nonce, Realm};
use stun_codec::rfc5766::attributes::{
    ChannelNumber, Data, Lifetime, XorPeerAddress, XorRelayAddress,
};
use stun_codec::rfc5766::methods;
use stun_codec::{Message, MessageClass, MessageDecoder, MessageEncoder, Method, TransactionId};
use zeroize::Zeroizing;

use crate::message::attribute::Attribute;
use crate::message::{Session, channel_data};
use crate::{Client, Credentials, Event, Failure, Login, Transport};

const RELAYED: &str = "203.0.113.9:50000";
const PEER: &str = "198.51.100.7:4242";
const REALM: &str = "example.org";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("the test writes addresses")
}

fn login(password: &str) -> Login {
    let password = Zeroizing::new(password.to_owned());
    Credentials::LongTerm { username: "alice".into(), password }.login(0)
}

/// What a server has for one client.
struct Server {
    login: Login,
    nonce: u32,
    lifetime: u32,
    allocated: bool,
    channels: BTreeMap<u16, SocketAddr>,
    permissions: Vec<IpAddr>,
    /// Whom it passes nothing on to.
    forbidden: Option<IpAddr>,
    /// Whether it signs what it says.
    signs: bool,
    /// The realm that it names in refusals.
    named: &'static str,
    /// What it does not answer.
    overhears: Option<Method>,
    asked: u32,
}

impl Server {
    fn new() -> Self {
        Self {
            login: login("right"),
            nonce: 1,
            lifetime: 600,
            allocated: false,
            channels: BTreeMap::new(),
            permissions: Vec::new(),
            forbidden: None,
            signs: true,
            named: REALM,
            overhears: None,
            asked: 0,
        }
    }

    fn session(&self) -> Session {
        Session::new(&self.login, REALM.into(), format!("nonce {}", self.nonce))
    }

    /// The answer to a request; nothing to data.
    fn answer(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let decoded = MessageDecoder::<Attribute>::new().decode_from_bytes(bytes);
        let request = decoded.ok()?.expect("the client writes what it means");
        self.asked += 1;
        if self.overhears == Some(request.method()) {
            return None;
        }
        let nonce = request.get_attribute::<Nonce>().map(|nonce| nonce.value().to_owned());
        let session = self.session();
        if nonce.is_none() || !session.proves(bytes) {
            return Some(encode(self.refusal(&request, 401)));
        }
        if nonce.as_deref() != Some(&session.nonce) {
            return Some(encode(self.refusal(&request, 438)));
        }
        let mut answer = response(&request, MessageClass::SuccessResponse);
        match request.method() {
            methods::ALLOCATE => {
                self.allocated = true;
                answer.add_attribute(XorRelayAddress::new(address(RELAYED)));
                answer.add_attribute(Lifetime::from_u32(self.lifetime));
            }
            methods::REFRESH if self.allocated => {
                let wanted = request.get_attribute::<Lifetime>()?.lifetime();
                self.allocated = !wanted.is_zero();
                let granted = if self.allocated { self.lifetime } else { 0 };
                answer.add_attribute(Lifetime::from_u32(granted));
            }
            methods::CHANNEL_BIND if self.allocated => {
                let peer = request.get_attribute::<XorPeerAddress>()?.address();
                if self.forbidden == Some(peer.ip()) {
                    answer = self.refusal(&request, 403);
                } else {
                    let number = request.get_attribute::<ChannelNumber>()?.value();
                    let before = self.channels.insert(number, peer);
                    assert!(before.is_none_or(|before| before == peer));
                    self.permissions.push(peer.ip());
                }
            }
            _ => answer = self.refusal(&request, 437),
        }
        let mut bytes = encode(answer);
        if self.signs {
            session.sign(&mut bytes);
        }
        Some(bytes)
    }

    fn refusal(&self, request: &Message<Attribute>, code: u16) -> Message<Attribute> {
        let mut answer = response(request, MessageClass::ErrorResponse);
        answer.add_attribute(ErrorCode::new(code, "no".into()).expect("a code"));
        answer.add_attribute(Realm::new(self.named.into()).expect("a realm"));
        answer.add_attribute(Nonce::new(self.session().nonce).expect("a nonce"));
        answer
    }
}

fn encode(message: Message<Attribute>) -> Vec<u8> {
    MessageEncoder::new().encode_into_bytes(message).expect("it is encodable")
}

fn response(request: &Message<Attribute>, class: MessageClass) -> Message<Attribute> {
    Message::new(class, request.method(), request.transaction_id())
}

fn indication(peer: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let transaction = TransactionId::new([3; 12]);
    let mut message = Message::new(MessageClass::Indication, methods::DATA, transaction);
    message.add_attribute(Attribute::from(XorPeerAddress::new(peer)));
    message.add_attribute(Data::new(payload.to_vec()).expect("it is short"));
    encode(message)
}

/// Both, with what is said between them.
struct Pair {
    client: Client,
    server: Server,
    /// Whether the server answers.
    alive: bool,
    /// Whether what it answers is lost.
    unheard: bool,
    now: Instant,
    rng: ChaCha20Rng,
    /// What the client sent that was no request.
    passed_on: Vec<Vec<u8>>,
    /// The other things.
    requests: Vec<Vec<u8>>,
    events: Vec<Event>,
}

impl Pair {
    fn new(login: Login) -> Self {
        Self::over(Transport::Udp, login)
    }

    fn over(transport: Transport, login: Login) -> Self {
        let now = Instant::now();
        let mut pair = Self {
            client: Client::new(transport, login, now),
            server: Server::new(),
            alive: true,
            unheard: false,
            now,
            rng: ChaCha20Rng::seed_from_u64(5),
            passed_on: Vec::new(),
            requests: Vec::new(),
            events: Vec::new(),
        };
        pair.client.handle_timeout(&mut pair.rng, now);
        pair
    }

    fn allocated() -> Self {
        Self::allocated_over(Transport::Udp)
    }

    fn allocated_over(transport: Transport) -> Self {
        let mut pair = Self::over(transport, login("right"));
        pair.settle();
        assert_eq!(pair.events, [Event::Allocated(address(RELAYED))]);
        pair
    }

    /// Lets everything be said that can be said now.
    fn settle(&mut self) {
        while let Some(bytes) = self.client.poll_transmit() {
            if bytes[0] & 0xc0 != 0 {
                self.passed_on.push(bytes);
                continue;
            }
            let answer = if self.alive { self.server.answer(&bytes) } else { None };
            if let Some(answer) = answer.filter(|_| !self.unheard) {
                self.client.handle_bytes(&answer, &mut self.rng, self.now);
            }
            self.requests.push(bytes);
        }
        while let Some(event) = self.client.poll_event() {
            self.events.push(event);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while let Some((at, _)) = self.client.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = at;
            self.client.handle_timeout(&mut self.rng, self.now);
            self.settle();
        }
        self.now = end;
    }

    fn send(&mut self, to: &str, payload: &[u8]) {
        self.client.send(address(to), payload, &mut self.rng, self.now);
        self.settle();
    }

    /// A request that the client has just made, and that the server knows nothing of.
    fn unanswered(&mut self) -> (Vec<u8>, Message<Attribute>) {
        let bytes = self.client.poll_transmit().expect("it asks");
        let decoded = MessageDecoder::new().decode_from_bytes(&bytes).expect("it is whole");
        (bytes, decoded.expect("the client writes what it means"))
    }

    fn receive(&mut self, bytes: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        self.client.handle_bytes(bytes, &mut self.rng, self.now);
        self.client.poll_data()
    }
}

#[test]
fn a_client_shows_its_credentials_when_it_is_asked_to_and_has_an_allocation() {
    let pair = Pair::allocated();
    assert_eq!((pair.client.relayed(), pair.server.asked), (Some(address(RELAYED)), 2));
}

#[test]
fn wrong_credentials_are_told_and_not_tried_again() {
    let mut pair = Pair::new(login("wrong"));
    pair.pass(Duration::from_secs(60));
    assert_eq!(pair.events, [Event::Failed(Failure::Unauthorized)]);
    assert_eq!((pair.client.relayed(), pair.server.asked), (None, 2));
    assert_eq!(pair.client.poll_timeout(), None);
}

#[test]
fn payloads_go_over_a_channel_and_what_comes_back_has_the_peers_address() {
    let mut pair = Pair::allocated();
    pair.send(PEER, b"first");
    pair.send(PEER, b"second");
    let number = *pair.server.channels.keys().next().expect("one was made");
    let expected = [&b"first"[..], b"second"].map(|one| channel_data(number, one, false));
    assert_eq!(pair.passed_on, expected.map(|one| one.expect("it is short")));
    let answer = channel_data(number, b"answer", false).expect("it is short");
    assert_eq!(pair.receive(&answer), Some((address(PEER), b"answer".to_vec())));
    let elsewhere = indication(address("198.51.100.7:9"), b"from another port");
    let expected = (address("198.51.100.7:9"), b"from another port".to_vec());
    assert_eq!(pair.receive(&elsewhere), Some(expected));
    assert_eq!(pair.receive(&channel_data(0x4fff, b"nobody's", false).expect("short")), None);
}

#[test]
fn a_peer_that_the_server_refuses_costs_the_others_nothing() {
    let mut pair = Pair::allocated();
    pair.server.forbidden = Some(address("10.0.0.1:1").ip());
    pair.send("10.0.0.1:1", b"lost");
    pair.send(PEER, b"first");
    assert_eq!(pair.passed_on.len(), 1);
    assert!(pair.client.relayed().is_some());
}

#[test]
fn a_channel_in_use_and_the_allocation_live_on_and_nonces_may_change() {
    let mut pair = Pair::allocated();
    for minute in 0..30 {
        pair.server.nonce += minute % 2;
        pair.send(PEER, b"traffic");
        pair.pass(Duration::from_secs(60));
    }
    assert_eq!(pair.events.len(), 1, "{:?}", pair.events);
    assert_eq!(pair.server.channels.len(), 1);
    assert!(pair.server.permissions.len() >= 30 / 5);
    assert_eq!(pair.passed_on.len(), 30);
}

#[test]
fn a_server_that_dies_is_known_within_33_s() {
    let mut pair = Pair::allocated();
    pair.alive = false;
    pair.pass(Duration::from_millis(32_500));
    assert_eq!(pair.events.last(), Some(&Event::Failed(Failure::Silent)));
}

#[test]
fn a_server_that_never_answers_is_asked_four_times() {
    let mut pair = Pair::new(login("right"));
    let mut asked = 0;
    while let Some((at, _)) = pair.client.poll_timeout() {
        asked += std::iter::from_fn(|| pair.client.poll_transmit()).count();
        pair.client.handle_timeout(&mut pair.rng, at);
        pair.now = at;
    }
    assert_eq!(asked, 4);
    assert_eq!(pair.client.poll_event(), Some(Event::Failed(Failure::Silent)));
}

#[test]
fn a_restarted_server_knows_nothing_any_more_which_is_told() {
    let mut pair = Pair::allocated();
    pair.server.allocated = false;
    pair.pass(Duration::from_secs(30));
    assert_eq!(pair.events.last(), Some(&Event::Failed(Failure::Lost)));
}

#[test]
fn an_allocation_is_given_back() {
    let mut pair = Pair::allocated();
    pair.client.end(&mut pair.rng);
    pair.settle();
    assert!(!pair.server.allocated);
    assert_eq!((pair.client.relayed(), pair.client.poll_timeout()), (None, None));
}

#[test]
fn what_the_server_did_not_sign_is_not_believed() {
    let mut pair = Pair::new(login("right"));
    pair.server.signs = false;
    pair.pass(Duration::from_secs(30));
    assert_eq!(pair.events, [Event::Failed(Failure::Unproven)]);
    let mut pair = Pair::allocated();
    pair.server.signs = false;
    pair.pass(Duration::from_secs(40));
    assert_eq!(pair.events.last(), Some(&Event::Failed(Failure::Unproven)));
}

#[test]
fn errors_that_nobody_signed_refuse_nothing_once_there_are_credentials() {
    let mut pair = Pair::allocated();
    pair.client.send(address(PEER), b"first", &mut pair.rng, pair.now);
    let (bytes, request) = pair.unanswered();
    for code in [400, 403, 437, 486] {
        let forged = encode(pair.server.refusal(&request, code));
        assert_eq!(pair.receive(&forged), None);
    }
    let answer = pair.server.answer(&bytes).expect("a channel");
    assert_eq!(pair.receive(&answer), None);
    pair.settle();
    assert_eq!(pair.passed_on.len(), 1);
    assert_eq!(pair.events.len(), 1, "{:?}", pair.events);
}

#[test]
fn a_realm_that_is_named_later_is_not_taken() {
    let mut pair = Pair::allocated();
    pair.server.named = "elsewhere.example";
    pair.server.nonce += 1;
    pair.pass(Duration::from_secs(60));
    assert_eq!(pair.events.len(), 1, "{:?}", pair.events);
}

#[test]
fn a_channel_without_an_answer_costs_the_others_nothing() {
    let mut pair = Pair::allocated();
    pair.send(PEER, b"first");
    pair.server.overhears = Some(methods::CHANNEL_BIND);
    pair.send("192.0.2.1:1", b"lost");
    pair.pass(Duration::from_secs(20));
    assert_eq!(pair.events.len(), 1, "{:?}", pair.events);
    pair.server.overhears = None;
    pair.send("192.0.2.1:1", b"lost, too: it is too soon");
    assert_eq!(pair.server.channels.len(), 1);
    pair.pass(Duration::from_secs(60));
    pair.send("192.0.2.1:1", b"second");
    pair.send(PEER, b"second");
    assert_eq!(pair.passed_on.len(), 3);
}

#[test]
fn a_refresh_without_an_answer_ends_nothing_while_data_comes() {
    let mut pair = Pair::allocated();
    pair.send(PEER, b"first");
    let number = *pair.server.channels.keys().next().expect("one was made");
    let data = channel_data(number, b"data", false).expect("it is short");
    pair.server.overhears = Some(methods::REFRESH);
    for _ in 0..20 {
        pair.pass(Duration::from_secs(5));
        assert!(pair.receive(&data).is_some());
    }
    assert_eq!(pair.events.len(), 1, "{:?}", pair.events);
    pair.pass(Duration::from_secs(33));
    assert_eq!(pair.events.last(), Some(&Event::Failed(Failure::Silent)));
}

#[test]
fn what_the_server_may_have_granted_is_given_back() {
    for transport in [Transport::Udp, Transport::Tcp] {
        for ends in [false, true] {
            let mut pair = Pair::over(transport, login("right"));
            let (bytes, _) = pair.unanswered();
            let challenge = pair.server.answer(&bytes).expect("it wants credentials");
            assert_eq!(pair.receive(&challenge), None);
            pair.unheard = true;
            pair.settle();
            assert!(pair.server.allocated);
            if ends {
                pair.client.end(&mut pair.rng);
                pair.settle();
            } else {
                pair.pass(Duration::from_secs(8));
                assert_eq!(pair.events, [Event::Failed(Failure::Silent)]);
            }
            assert!(!pair.server.allocated);
        }
    }
}

#[test]
fn a_short_lifetime_is_refreshed_in_time_and_none_is_a_failure() {
    let mut pair = Pair::new(login("right"));
    pair.server.lifetime = 20;
    pair.pass(Duration::from_secs(100));
    assert!(pair.server.asked > 2 + 100 / 20, "{}", pair.server.asked);
    let mut pair = Pair::new(login("right"));
    pair.server.lifetime = 0;
    pair.settle();
    assert_eq!(pair.events, [Event::Failed(Failure::Nonsense)]);
}

#[test]
fn a_login_that_is_about_to_end_ends_the_allocation() {
    let lasts = Some(Duration::from_secs(100));
    let mut pair = Pair::new(Login { lasts, ..login("right") });
    pair.pass(Duration::from_secs(99));
    assert_eq!(pair.events.len(), 1);
    pair.pass(Duration::from_secs(1));
    assert_eq!(pair.events.last(), Some(&Event::Failed(Failure::LoginEnds)));
    assert!(!pair.server.allocated, "it was given back");
}

#[test]
fn over_a_stream_nothing_is_repeated_and_all_is_filled_up() {
    let mut pair = Pair::allocated_over(Transport::Tcp);
    pair.send(PEER, b"odd");
    assert_eq!(pair.passed_on.iter().map(Vec::len).collect::<Vec<_>>(), [8]);
    pair.alive = false;
    pair.requests.clear();
    pair.pass(Duration::from_secs(40));
    assert_eq!(pair.events.last(), Some(&Event::Failed(Failure::Silent)));
    // One refresh, and the farewell.
    let lifetimes = pair.requests.iter().map(|bytes| bytes[24..28].to_vec()).collect::<Vec<_>>();
    assert_eq!(lifetimes, [600_u32, 0].map(|seconds| seconds.to_be_bytes().to_vec()));
}

#[test]
fn a_stream_of_something_else_ends_the_allocation() {
    let mut pair = Pair::allocated_over(Transport::Tcp);
    assert_eq!(pair.receive(b"\xffnonsense"), None);
    pair.settle();
    assert_eq!(pair.events.last(), Some(&Event::Failed(Failure::Nonsense)));
}

#[test]
fn nothing_is_lost_of_what_a_stream_brings_at_once() {
    let mut pair = Pair::allocated_over(Transport::Tcp);
    pair.send(PEER, b"first");
    let number = *pair.server.channels.keys().next().expect("one was made");
    let data = channel_data(number, b"small", true).expect("it is short");
    for count in [600, 65_536 / data.len()] {
        pair.client.handle_bytes(&data.repeat(count), &mut pair.rng, pair.now);
        assert_eq!(std::iter::from_fn(|| pair.client.poll_data()).count(), count);
    }
}

#[test]
fn what_nobody_polls_is_bounded() {
    let mut pair = Pair::allocated();
    let data = indication(address(PEER), &[0; 1_000]);
    for _ in 0..1_000 {
        pair.client.handle_bytes(&data, &mut pair.rng, pair.now);
    }
    let kept = std::iter::from_fn(|| pair.client.poll_data()).count();
    assert!((100..=262).contains(&kept), "{kept}");
    assert!(pair.receive(&data).is_some(), "there is room again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_hostile_server_panics_nobody(
        tcp in any::<bool>(),
        steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..80)), 0..60),
    ) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let mut pair = Pair::over(transport, login("right"));
        let mut heard = vec![indication(address(PEER), b"data")];
        for (step, index, bytes) in steps {
            match step {
                // What it says is right, and remembered.
                0 => {
                    while let Some(request) = pair.client.poll_transmit() {
                        if let Some(answer) = pair.server.answer(&request) {
                            pair.client.handle_bytes(&answer, &mut pair.rng, pair.now);
                            heard.push(answer);
                        }
                    }
                }
                // It is what was said before, changed somewhere.
                1 => {
                    let mut message = heard[index.index(heard.len())].clone();
                    for change in bytes.chunks_exact(2) {
                        let at = usize::from(change[0]) % message.len();
                        message[at] = change[1];
                    }
                    pair.client.handle_bytes(&message, &mut pair.rng, pair.now);
                }
                2 => pair.client.handle_bytes(&bytes, &mut pair.rng, pair.now),
                _ => {
                    let port = u16::try_from(index.index(5)).expect("it is small") + 1;
                    let peer = SocketAddr::new(address(PEER).ip(), port);
                    pair.client.send(peer, &bytes, &mut pair.rng, pair.now);
                    pair.now += Duration::from_secs(index.index(40) as u64);
                    pair.client.handle_timeout(&mut pair.rng, pair.now);
                }
            }
            let polled = std::iter::from_fn(|| pair.client.poll_data()).map(|(_, data)| data.len());
            prop_assert!(polled.sum::<usize>() <= 256 * 1024);
        }
    }
}
