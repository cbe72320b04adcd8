//! What is signed, what carries it, and the texts that people copy.

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::time::{Duration, Instant};

use control_proto::{
    ControllerMessage, MapChunk, MapItem, MapVersion, NetworkMap, NodeMessage, Outline, Unsigned,
};
use identity::{
    Binding, CertificateChain, DeviceId, DeviceName, Endpoints, GroupName, Invite, Ipv4Prefix,
    NetworkId, NetworkName, Record, RelayEntry, Revocations, Shaping, Signed, SignerId,
    TrafficRule, TunnelPublicKey, UlaPrefix, UnixTime,
};
use node::Forward;
use shaping::{Content, Plan, Shaper, Turn};
use websocket::Proxy;

use super::{HERE, NETWORK, parts};

pub(super) fn control_message(bytes: &[u8]) {
    if let Ok(message) = NodeMessage::from_bytes(bytes) {
        let again = NodeMessage::from_bytes(&message.to_bytes());
        assert!(again.is_ok(), "what was read can be written and read again");
    }
    if let Ok(message) = ControllerMessage::from_bytes(bytes) {
        let again = ControllerMessage::from_bytes(&message.to_bytes());
        assert!(again.is_ok(), "what was read can be written and read again");
    }
}

pub(super) fn map(bytes: &[u8]) {
    let now = UnixTime(1_800_000_000);
    if let Ok((map, _)) = NetworkMap::from_bytes(NETWORK, bytes, now) {
        assert_eq!(map.peers().count(), 0, "nobody has the network's key");
    }
    let items: Vec<_> = parts(bytes).map(|item| item.to_vec().into()).collect();
    for item in parts(bytes) {
        if let Some(item) = MapItem::from_bytes(item) {
            assert!(MapItem::from_bytes(&item.to_bytes()).is_some());
        }
    }
    let version = MapVersion { epoch: 0, number: 1 };
    let mut map = NetworkMap::new(NETWORK);
    let _ = map.apply(&MapChunk { base: None, version, items, last: true }, now);
    assert_eq!(map.peers().count(), 0, "nobody has the network's key");
}

pub(super) fn identity_statement(bytes: &[u8]) {
    let (device, now) = (DeviceId::from_bytes([1; 32]), UnixTime(1_800_000_000));
    if let Ok(chain) = CertificateChain::from_bytes(bytes) {
        let _ = chain.targets();
        let verdict = chain.verify(NETWORK, now, &Revocations::new(NETWORK));
        assert!(verdict.is_err(), "nobody has the network's key");
    }
    if let Ok(signed) = Signed::<Binding>::from_bytes(bytes) {
        assert!(signed.verify(NETWORK, device).is_err());
    }
    if let Ok(signed) = Signed::<Endpoints>::from_bytes(bytes) {
        assert!(signed.verify(NETWORK, device).is_err());
    }
    if let Ok(signed) = Signed::<Record<RelayEntry>>::from_bytes(bytes) {
        assert!(signed.verify(NETWORK, device).is_err());
    }
}

pub(super) fn invite(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(invite) = text.parse::<Invite>() {
        let _ = invite.grant();
        assert!(invite.to_string().parse::<Invite>().is_ok());
    }
    let _ = text.parse::<Outline>();
    let _ = text.parse::<Unsigned>();
}

pub(super) fn text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    stays::<NetworkId>(&text);
    stays::<DeviceId>(&text);
    stays::<SignerId>(&text);
    stays::<TunnelPublicKey>(&text);
    stays::<DeviceName>(&text);
    stays::<GroupName>(&text);
    stays::<NetworkName>(&text);
    stays::<UlaPrefix>(&text);
    stays::<Ipv4Prefix>(&text);
    stays::<TrafficRule>(&text);
    stays::<Shaping>(&text);
    if let Ok(proxy) = text.parse::<Proxy>() {
        assert!(!proxy.host().is_empty());
        assert!(proxy.address().is_none_or(|address| address.port() == proxy.port()));
    }
    let forward = Forward { listen: HERE, to: text };
    if let Some((host, _)) = forward.target() {
        assert!(!host.is_empty());
    }
}

/// Machines in their text, which somebody runs on a link if they can be run.
pub(super) fn machines(bytes: &[u8]) {
    let Ok(policy) = String::from_utf8_lossy(bytes).parse::<Shaping>() else { return };
    let Ok(Some(plan)) = Plan::new(&policy) else { return };
    let mut now = Instant::now();
    let (end, mut queued) = (now + Duration::from_secs(2), 0_u32);
    let mut shaper = Shaper::new(&plan, [7; 32], now);
    while now < end {
        shaper.handle_queued(now);
        queued += 1;
        shaper.handle_received(Content::Frame, true, now);
        shaper.handle_timeout(queued > 0, now);
        while shaper.turn(queued > 0) != Turn::Nothing {
            if shaper.take_turn(queued > 0) != Turn::Dummy {
                queued = queued.saturating_sub(1);
            }
            shaper.handle_sent(queued > 0, now);
        }
        let next = shaper.poll_timeout().unwrap_or(end);
        assert!(next > now, "a timeout moves on");
        now = next.min(now + Duration::from_millis(20));
    }
    assert!(queued <= 110, "{queued} messages wait");
}

/// What is read from a text is the same when it is written and read again.
fn stays<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse().ok(), Some(value));
    }
}
