//! What the owner of a network signs by hand, where the network's own key is.
//!
//! A controller in strict mode holds no key that could admit a device or change what the network says
//! about itself. It tells the owner what an invite has to say ([`Outline`]) and which records wait for
//! a signature ([`Unsigned`]); the [`Owner`] makes invites and signs records; the controller carries
//! them. Nothing that the owner gets from the controller is trusted: an outline that lies yields an
//! invite that leads nowhere, and records are shown to the owner before they are signed.

use data_encoding::BASE64URL_NOPAD;
use identity::{
    ChannelPublicKey, ControllerEntry, DelegatedKey, Delegation, GroupName, Invite, InviteGrant,
    InviteKey, InviteSecret, MAX_GROUPS, NetworkId, NetworkInfo, NetworkKey, NetworkName,
    PathSecretBytes, Record, RecordBody, RelayEntry, Scope, Serial, ServerAddress, Signed,
    SuccessorRule, UlaPrefix, UnixTime, Validity,
};
use minicbor::{Decode, Encode};
use noise_channel::UnixMillis;
use rand_core::CryptoRng;

use crate::limits::{LONGEST_INVITE, MAX_INVITES_AT_ONCE, MAX_OUTLINE};
use crate::{AdminError, InviteRequest, MapItem};

/// What outlines begin with as text; the digit is the version.
const OUTLINE_PREFIX: &str = "smo1";

/// All that an invite says beside whom it admits. It holds the path secret, but no key that signs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Outline {
    /// The network.
    #[n(0)]
    pub network: NetworkId,
    /// Its name.
    #[n(1)]
    pub network_name: NetworkName,
    /// Where its controllers listen, the preferred first.
    #[n(2)]
    pub controllers: Vec<ServerAddress>,
    /// Their Noise static key.
    #[n(3)]
    pub controller_key: ChannelPublicKey,
    /// With which the paths of the network's servers are made.
    #[n(4)]
    pub path_secret: PathSecretBytes,
    /// Relays to reach the network by.
    #[n(5)]
    pub relays: Vec<RelayEntry>,
    /// The prefix out of which devices take their addresses.
    #[n(6)]
    pub ula: UlaPrefix,
    /// Whether devices wait for approval unless the request says otherwise.
    #[n(7)]
    pub approval: bool,
    /// How long a membership is valid without renewal, in seconds.
    #[n(8)]
    pub validity: u64,
}

/// A text that is no outline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not what `shadowmesh network outline` prints; copy it again, completely")]
pub struct NotAnOutline;

/// One invite that is to be made.
pub(crate) struct InviteOrder<'a> {
    pub(crate) request: &'a InviteRequest,
    /// A key that issues, and the root's word for it.
    pub(crate) issuer: &'a (DelegatedKey, Signed<Delegation>),
    /// The number of the membership.
    pub(crate) serial: Serial,
}

impl Outline {
    /// Makes one invite.
    pub(crate) fn invite(
        &self,
        order: &InviteOrder<'_>,
        rng: &mut dyn CryptoRng,
        now: UnixTime,
    ) -> (Invite, InviteGrant) {
        let InviteOrder { request, issuer: (issuer, delegation), serial } = order;
        let key = InviteKey::generate(rng);
        let mut groups = request.groups.clone();
        if request.relay && !groups.contains(&GroupName::relay()) {
            groups.push(GroupName::relay());
        }
        let grant = InviteGrant {
            key: key.id(),
            name: request.name.clone(),
            groups,
            needs_approval: request.approval.unwrap_or(self.approval),
            validity: Validity::starting(now, request.expires_in),
            max_validity: self.validity,
            serial: *serial,
            prefix: self.ula,
        };
        let invite = Invite {
            network: self.network,
            network_name: self.network_name.clone(),
            controllers: self.controllers.clone(),
            controller_key: self.controller_key,
            successor: SuccessorRule::ByRecord,
            path_secret: self.path_secret.clone(),
            relays: self.relays.clone(),
            delegation: delegation.clone(),
            grant: Signed::sign(self.network, issuer, &grant),
            key: InviteSecret::from(&key),
        };
        (invite, grant)
    }
}

/// Writes the outline with the path secret.
impl std::fmt::Display for Outline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{OUTLINE_PREFIX}{}", to_text(self))
    }
}

impl std::str::FromStr for Outline {
    type Err = NotAnOutline;

    fn from_str(text: &str) -> Result<Self, NotAnOutline> {
        let text = text.trim().strip_prefix(OUTLINE_PREFIX).ok_or(NotAnOutline)?;
        from_text(text).ok_or(NotAnOutline)
    }
}

/// What waits for the owner's signature.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Unsigned {
    /// The network's epoch.
    #[n(0)]
    pub epoch: u64,
    /// The settings of the network, if they have changed.
    #[n(1)]
    pub info: Option<NetworkInfo>,
    /// The controller's entry about itself, if it has changed.
    #[n(2)]
    pub controller: Option<ControllerEntry>,
    /// Entries that relays offer.
    #[n(3)]
    pub relays: Vec<RelayEntry>,
}

impl Unsigned {
    /// How many records these are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.info.is_some())
            + usize::from(self.controller.is_some())
            + self.relays.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Display for Unsigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&to_text(self))
    }
}

impl std::str::FromStr for Unsigned {
    type Err = NotAnOutline;

    fn from_str(text: &str) -> Result<Self, NotAnOutline> {
        from_text(text).ok_or(NotAnOutline)
    }
}

/// Whoever has the network's own key.
#[derive(Debug, Clone)]
pub struct Owner(NetworkKey);

impl Owner {
    /// The owner with this key.
    #[must_use]
    pub const fn new(root: NetworkKey) -> Self {
        Self(root)
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.0.id()
    }

    /// Makes the invites that are asked for.
    ///
    /// # Errors
    /// [`AdminError::OutOfBounds`], [`AdminError::NameForMany`], or [`AdminError::OtherNetwork`] if
    /// the outline is of another network.
    pub fn invites(
        &self,
        outline: &Outline,
        request: &InviteRequest,
        rng: &mut dyn CryptoRng,
        now: UnixTime,
    ) -> Result<Vec<(Invite, InviteGrant)>, AdminError> {
        if outline.network != self.network() {
            return Err(AdminError::OtherNetwork);
        }
        check(request)?;
        let issuer = self.0.own_delegation(Scope::Issue);
        // Nobody here knows the serials given before; these rise with time and do not repeat.
        let first = (now.0 << 28) | u64::from(rng.next_u32() >> 8);
        let serials = (first..).take(request.uses.into());
        let made = serials.map(|serial| {
            let order = InviteOrder { request, issuer: &issuer, serial: Serial(serial) };
            outline.invite(&order, rng, now)
        });
        Ok(made.collect())
    }

    /// Signs records, each preceded by the delegation that it needs.
    #[must_use]
    pub fn sign(&self, unsigned: &Unsigned, now: UnixMillis) -> Vec<MapItem> {
        let mut items = Vec::new();
        let mut version = now.0;
        let mut next = || {
            version += 1;
            (unsigned.epoch, version)
        };
        if unsigned.info.is_some() || unsigned.controller.is_some() {
            items.push(MapItem::Delegation(self.0.own_delegation(Scope::Policy).1));
        }
        if let Some(info) = unsigned.info.clone() {
            items.push(MapItem::Info(self.record(info, next(), now)));
        }
        if let Some(entry) = unsigned.controller.clone() {
            items.push(MapItem::Controller(entry.channel_key, self.record(entry, next(), now)));
        }
        if !unsigned.relays.is_empty() {
            items.push(MapItem::Delegation(self.0.own_delegation(Scope::Relays).1));
        }
        for entry in unsigned.relays.clone() {
            items.push(MapItem::Relay(entry.device, self.record(entry, next(), now)));
        }
        items
    }

    fn record<T: RecordBody>(
        &self,
        body: T,
        (epoch, version): (u64, u64),
        now: UnixMillis,
    ) -> Signed<Record<T>> {
        let (key, _) = self.0.own_delegation(T::SCOPE);
        let at = UnixTime(now.as_secs());
        let record = Record { signer: key.id(), epoch, version, at, withdrawn: false, body };
        Signed::sign(self.network(), &key, &record)
    }
}

/// Whether a request for invites is within the bounds.
pub(crate) fn check(request: &InviteRequest) -> Result<(), AdminError> {
    let wrong = |what: String| Err(AdminError::OutOfBounds { what });
    if !(1..=MAX_INVITES_AT_ONCE).contains(&request.uses) {
        return wrong(format!("make 1 to {MAX_INVITES_AT_ONCE} invites at a time"));
    }
    if !(60..=LONGEST_INVITE).contains(&request.expires_in) {
        return wrong("an invite may be used for a minute to 90 days".to_owned());
    }
    if request.groups.len() >= MAX_GROUPS {
        return wrong(format!("a device is in fewer than {MAX_GROUPS} groups"));
    }
    if request.name.is_some() && request.uses > 1 {
        return Err(AdminError::NameForMany);
    }
    Ok(())
}

/// An item of the map as text.
pub(crate) fn item_from_text(text: &str) -> Option<MapItem> {
    MapItem::from_bytes(&BASE64URL_NOPAD.decode(text.as_bytes()).ok()?)
}

impl MapItem {
    /// The item as text, for [`crate::AdminRequest::Publish`].
    #[must_use]
    pub fn to_text(&self) -> String {
        BASE64URL_NOPAD.encode(&self.to_bytes())
    }
}

fn to_text(value: &impl Encode<()>) -> String {
    let bytes = minicbor::to_vec(value).expect("writing to memory cannot fail");
    BASE64URL_NOPAD.encode(&bytes)
}

fn from_text<T: for<'b> Decode<'b, ()>>(text: &str) -> Option<T> {
    if text.len() > MAX_OUTLINE {
        return None;
    }
    minicbor::decode(&BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()
}
