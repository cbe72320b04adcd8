//! Invites: all that a device needs to join, as one line of text.

use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::encoding::sha256;
use crate::{
    Certificate, CertificateChain, ChainError, ChannelPublicKey, Delegation, DeviceId, DeviceName,
    InviteGrant, InviteKey, NetworkId, NetworkName, RelayEntry, Revocations, ServerAddress, Signed,
    UnixTime, Validity, ValidityError,
};

/// What every invite begins with; the digit is the version.
pub const INVITE_PREFIX: &str = "smi1";

/// The longest invite that is looked at, in characters.
pub const MAX_INVITE_LENGTH: usize = 16 * 1024;

const CHECKSUM_LENGTH: usize = 4;

/// Which key may stand in for the controller's key in an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SuccessorRule {
    /// None.
    #[n(0)]
    Fixed,
    /// One that a [`ControllerEntry`](crate::ControllerEntry) record names.
    #[n(1)]
    ByRecord,
}

/// All that a device needs to join. Whoever holds it can admit one device.
///
/// As text it is [`INVITE_PREFIX`] and base64url without padding; `Display` writes it with the
/// secrets, `Debug` without.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Invite {
    /// The network.
    #[n(0)]
    pub network: NetworkId,
    /// Its name.
    #[n(1)]
    pub network_name: NetworkName,
    /// Where its controllers listen, the preferred first.
    #[n(2)]
    pub controllers: Vec<ServerAddress>,
    /// The Noise static key of the controllers.
    #[n(3)]
    pub controller_key: ChannelPublicKey,
    /// Which other key they may have.
    #[n(4)]
    pub successor: SuccessorRule,
    /// With which the paths of the network's servers are made and recognised.
    #[n(5)]
    pub path_secret: PathSecretBytes,
    /// Relays to reach the network by while no controller answers.
    #[n(6)]
    pub relays: Vec<RelayEntry>,
    /// The root lets the issuer issue.
    #[n(7)]
    pub delegation: Signed<Delegation>,
    /// The issuer lets the invite key certify one device.
    #[n(8)]
    pub grant: Signed<InviteGrant>,
    /// The invite key.
    #[n(9)]
    pub key: InviteSecret,
}

/// The secret of the network's URL paths.
#[derive(Clone, PartialEq, Eq)]
pub struct PathSecretBytes(pub Zeroizing<[u8; 32]>);

/// The seed of the invite key.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteSecret(Zeroizing<[u8; 32]>);

impl From<&InviteKey> for InviteSecret {
    fn from(key: &InviteKey) -> Self {
        Self(key.to_bytes())
    }
}

/// Why a text is no usable invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// The text is no invite at all.
    #[error("this is not an invite; an invite begins with {INVITE_PREFIX}")]
    NotAnInvite,
    /// The text was cut off or changed on the way.
    #[error("the invite is damaged; copy it again, completely")]
    Damaged,
    /// The text is longer than an invite can be.
    #[error("this is too long for an invite")]
    TooLong,
    /// The invite is of a later version, or not made by this program.
    #[error("the invite is not understood; upgrade this program, or ask for a new invite")]
    Malformed,
    /// The invite is for a device of another name.
    #[error("the invite is for a device of another name; join without choosing a name")]
    NameFixed,
    /// The time of the invite has not come or is over.
    #[error("the invite is {0}; ask for a new one if the clock is right")]
    Validity(#[from] ValidityError),
    /// The grant in the invite is not good.
    #[error("the invite is not good: {0}; ask for a new one")]
    Chain(#[from] ChainError),
}

impl Invite {
    /// The grant, verified as coming from the network that the invite names.
    ///
    /// # Errors
    /// [`InviteError::Chain`].
    pub fn grant(&self) -> Result<InviteGrant, InviteError> {
        Ok(crate::chain::verify_grant(self.network, &self.delegation, &self.grant)?)
    }

    /// Certifies `device` under `name` with the invite key, for use from `now` on.
    ///
    /// `counter` begins at 0 and is raised when the controller answers that the address is taken.
    ///
    /// # Errors
    /// If the invite does not count at `now`, fixes another name, or is not good.
    pub fn certify(
        &self,
        device: DeviceId,
        name: &DeviceName,
        counter: u32,
        now: UnixTime,
    ) -> Result<CertificateChain, InviteError> {
        let grant = self.grant()?;
        grant.validity.check(now)?;
        if grant.name.as_ref().is_some_and(|fixed| fixed != name) {
            return Err(InviteError::NameFixed);
        }
        let address = grant.address(self.network, device, &grant.groups, counter);
        let certificate = Certificate {
            device,
            name: name.clone(),
            groups: grant.groups,
            address,
            counter,
            validity: Validity::starting(now, grant.max_validity),
            serial: grant.serial,
        };
        let key = InviteKey::from_bytes(&self.key.0);
        let chain = CertificateChain {
            delegation: self.delegation.clone(),
            grant: Some(self.grant.clone()),
            certificate: Signed::sign(self.network, &key, &certificate),
            renewal: None,
        };
        match chain.verify(self.network, now, &Revocations::new(self.network)) {
            Ok(_) | Err(ChainError::NeedsApproval) => Ok(chain),
            Err(error) => Err(error.into()),
        }
    }

    /// The invite as text, wiped after use.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes =
            Zeroizing::new(minicbor::to_vec(self).expect("writing to memory cannot fail"));
        let checksum = sha256(&[&bytes]);
        bytes.extend_from_slice(&checksum[..CHECKSUM_LENGTH]);
        let mut text = Zeroizing::new(String::from(INVITE_PREFIX));
        data_encoding::BASE64URL_NOPAD.encode_append(&bytes, &mut text);
        text
    }
}

impl std::fmt::Display for Invite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl std::fmt::Debug for Invite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invite")
            .field("network", &self.network)
            .field("controllers", &self.controllers)
            .finish_non_exhaustive()
    }
}

impl std::str::FromStr for Invite {
    type Err = InviteError;

    /// Reads an invite, with spaces and line ends around or within it passed over.
    fn from_str(text: &str) -> Result<Self, InviteError> {
        if text.len() > MAX_INVITE_LENGTH {
            return Err(InviteError::TooLong);
        }
        let compact: Zeroizing<String> =
            Zeroizing::new(text.chars().filter(|c| !c.is_whitespace()).collect());
        let data = compact.strip_prefix(INVITE_PREFIX).ok_or(InviteError::NotAnInvite)?;
        let bytes = data_encoding::BASE64URL_NOPAD.decode(data.as_bytes()).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| InviteError::Damaged)?;
        let (body, checksum) =
            bytes.split_last_chunk::<CHECKSUM_LENGTH>().ok_or(InviteError::Damaged)?;
        if sha256(&[body])[..CHECKSUM_LENGTH] != *checksum {
            return Err(InviteError::Damaged);
        }
        minicbor::decode(body).map_err(|_| InviteError::Malformed)
    }
}

macro_rules! secret_bytes {
    ($name:ident) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(secret)"))
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(self.0.as_slice())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                crate::encoding::array(d).map(|bytes| Self(Zeroizing::new(bytes)))
            }
        }
    };
}

secret_bytes!(PathSecretBytes);
secret_bytes!(InviteSecret);
