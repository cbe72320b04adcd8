//! A network with its keys, always the same, for the tests beside it.

use identity::{
    Authorities, Certificate, CertificateChain, ChannelKey, DelegatedKey, Delegation, DeviceKey,
    GroupName, Invite, InviteGrant, InviteKey, InviteSecret, IssueLimits, Lease4, NetworkId,
    NetworkKey, PathSecretBytes, ProvenRenewal, Record, RecordBody, RelayEntry, Renewal,
    RevocationTarget, Revocations, Scope, Serial, ServerAddress, Signed, SuccessorRule, TlsMode,
    UnixTime, Validity, device_address, ula_prefix,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

pub(crate) const NOW: UnixTime = UnixTime(1_800_000_000);
pub(crate) const DAY: u64 = 24 * 3600;

pub(crate) struct World {
    pub(crate) root: NetworkKey,
    pub(crate) issuer: DelegatedKey,
    pub(crate) renewer: DelegatedKey,
    pub(crate) revoker: DelegatedKey,
    pub(crate) device: DeviceKey,
    pub(crate) invite: InviteKey,
    pub(crate) revocations: Revocations,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::seeded(1)
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let root = NetworkKey::generate(&mut rng);
        Self {
            issuer: DelegatedKey::generate(&mut rng),
            renewer: DelegatedKey::generate(&mut rng),
            revoker: DelegatedKey::generate(&mut rng),
            device: DeviceKey::generate(&mut rng),
            invite: InviteKey::generate(&mut rng),
            revocations: Revocations::new(root.id()),
            root,
        }
    }

    pub(crate) fn network(&self) -> NetworkId {
        self.root.id()
    }

    pub(crate) fn delegation(&self, key: &DelegatedKey, scope: Scope) -> Delegation {
        Delegation {
            network: self.network(),
            key: key.id(),
            scope,
            validity: Validity::starting(NOW.minus(DAY), 365 * DAY),
            limits: IssueLimits::default(),
        }
    }

    pub(crate) fn delegate(&self, key: &DelegatedKey, scope: Scope) -> Signed<Delegation> {
        self.by_root(&self.delegation(key, scope))
    }

    pub(crate) fn by_root(&self, delegation: &Delegation) -> Signed<Delegation> {
        Signed::sign(self.network(), &self.root, delegation)
    }

    pub(crate) fn authorities(&self) -> Authorities {
        let mut authorities = Authorities::new(self.network());
        authorities.add(&self.delegate(&self.issuer, Scope::Issue)).unwrap();
        authorities.add(&self.delegate(&self.renewer, Scope::Renew)).unwrap();
        authorities.add(&self.delegate(&self.revoker, Scope::Revoke)).unwrap();
        authorities
    }

    pub(crate) fn certificate(&self) -> Certificate {
        Certificate {
            device: self.device.id(),
            name: "laptop".parse().unwrap(),
            groups: vec!["staff".parse().unwrap()],
            address: device_address(self.network(), self.device.id(), 0),
            counter: 0,
            validity: Validity::starting(NOW, 7 * DAY),
            serial: Serial(7),
        }
    }

    /// A chain by the issuer itself, for `certificate`.
    pub(crate) fn chain_for(&self, certificate: &Certificate) -> CertificateChain {
        CertificateChain {
            delegation: self.delegate(&self.issuer, Scope::Issue),
            grant: None,
            certificate: Signed::sign(self.network(), &self.issuer, certificate),
            renewal: None,
        }
    }

    pub(crate) fn chain(&self) -> CertificateChain {
        self.chain_for(&self.certificate())
    }

    pub(crate) fn renewal_of(&self, chain: &CertificateChain, validity: Validity) -> ProvenRenewal {
        let renewal =
            Renewal { certificate: chain.certificate.hash(), device: self.device.id(), validity };
        ProvenRenewal {
            delegation: self.delegate(&self.renewer, Scope::Renew),
            renewal: Signed::sign(self.network(), &self.renewer, &renewal),
        }
    }

    pub(crate) fn grant(&self) -> InviteGrant {
        InviteGrant {
            key: self.invite.id(),
            name: None,
            groups: vec![GroupName::relay()],
            needs_approval: false,
            validity: Validity::starting(NOW, DAY),
            max_validity: 7 * DAY,
            serial: Serial(9),
            prefix: ula_prefix(self.network()),
        }
    }

    pub(crate) fn invite_for(&self, grant: &InviteGrant) -> Invite {
        Invite {
            network: self.network(),
            network_name: "home".parse().unwrap(),
            controllers: vec![server()],
            controller_key: ChannelKey::from_bytes(&[3; 32]).public(),
            successor: SuccessorRule::ByRecord,
            path_secret: PathSecretBytes([5; 32].into()),
            relays: vec![relay_entry(self)],
            delegation: self.delegate(&self.issuer, Scope::Issue),
            grant: Signed::sign(self.network(), &self.issuer, grant),
            key: InviteSecret::from(&self.invite),
        }
    }

    pub(crate) fn revoke(&mut self, target: RevocationTarget) {
        let authorities = self.authorities();
        let entry = self.revocations.next_entry(target, self.revoker.id(), &authorities, NOW);
        let signed = Signed::sign(self.network(), &self.revoker, &entry);
        self.revocations.apply(&signed, &authorities).unwrap();
    }

    /// A record by `key`.
    pub(crate) fn record<T: RecordBody>(
        &self,
        key: &DelegatedKey,
        (epoch, version): (u64, u64),
        body: T,
    ) -> Signed<Record<T>> {
        let record = Record { signer: key.id(), epoch, version, at: NOW, withdrawn: false, body };
        Signed::sign(self.network(), key, &record)
    }

    pub(crate) fn lease(&self, host: u8) -> Lease4 {
        Lease4 { device: self.device.id(), address: [100, 64, 0, host].into() }
    }
}

pub(crate) fn server() -> ServerAddress {
    ServerAddress {
        host: "mesh.example.org".into(),
        port: 443,
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        tls: TlsMode::Pin([7; 32]),
    }
}

pub(crate) fn relay_entry(world: &World) -> RelayEntry {
    RelayEntry {
        device: world.device.id(),
        channel_key: ChannelKey::from_bytes(&[4; 32]).public(),
        servers: vec![server()],
        stun: vec!["192.0.2.1:3478".parse().unwrap()],
        region: "attic".into(),
        groups: Vec::new(),
    }
}
