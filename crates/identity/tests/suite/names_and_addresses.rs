//! Ids, names and addresses as text and bytes.

use std::net::Ipv4Addr;

use identity::{
    DeviceId, DeviceKey, DeviceName, Ipv4Prefix, NameError, NetworkId, PrefixError, Subnet,
    TunnelKey, TunnelPublicKey, UlaPrefix, device_address, interface_identifier, ipv4_prefix,
    ula_prefix,
};
use proptest::prelude::*;

const NETWORK: NetworkId = NetworkId::from_bytes([1; 32]);
const DEVICE: DeviceId = DeviceId::from_bytes([2; 32]);

#[test]
fn the_addresses_of_a_network_never_change() {
    assert_eq!(ula_prefix(NETWORK).to_string(), "fd6a:9fd1:8eaa::/48");
    assert_eq!(ipv4_prefix(NETWORK).to_string(), "100.119.0.0/16");
    assert_eq!(
        device_address(NETWORK, DEVICE, 0).to_string(),
        "fd6a:9fd1:8eaa:2:c27e:9d40:ca32:7b64"
    );
}

#[test]
fn a_counter_network_or_device_of_its_own_gives_an_identifier_of_its_own() {
    let first = interface_identifier(NETWORK, DEVICE, 0);
    assert_ne!(first, interface_identifier(NETWORK, DEVICE, 1));
    assert_ne!(first, interface_identifier(NetworkId::from_bytes([3; 32]), DEVICE, 0));
    assert_ne!(first, interface_identifier(NETWORK, DeviceId::from_bytes([3; 32]), 0));
}

#[test]
fn a_prefix_contains_its_subnets_and_nothing_else() {
    let prefix: UlaPrefix = "fd42:1337:beef::/48".parse().unwrap();
    let relay = prefix.address(Subnet::Relays, 1);
    assert_eq!(relay.to_string(), "fd42:1337:beef:1::1");
    assert!(prefix.contains(relay) && prefix.subnet_contains(Subnet::Relays, relay));
    assert!(!prefix.subnet_contains(Subnet::Devices, relay));
    assert!(!prefix.contains("fd42:1337:bee0::1".parse().unwrap()));
    let shared: Ipv4Prefix = "100.127.0.0/16".parse().unwrap();
    assert_eq!(shared.address(258), Ipv4Addr::new(100, 127, 1, 2));
    assert!(shared.contains(shared.address(9)));
    assert!(!shared.contains(Ipv4Addr::new(100, 126, 0, 9)));
}

#[test]
fn a_prefix_of_another_kind_is_refused() {
    let v6 = |text: &str| text.parse::<UlaPrefix>().unwrap_err();
    assert_eq!(v6("fd42:1337:beef::"), PrefixError::Malformed);
    assert_eq!(v6("fc42:1337:beef::/48"), PrefixError::NotUla);
    assert_eq!(v6("fd42:1337:beef:1::/48"), PrefixError::NotUla);
    assert_eq!(v6("fd42:1337:beef::/64"), PrefixError::NotUla);
    let v4 = |text: &str| text.parse::<Ipv4Prefix>().unwrap_err();
    assert_eq!(v4("10.0.0.0/16"), PrefixError::NotShared);
    assert_eq!(v4("100.128.0.0/16"), PrefixError::NotShared);
    assert_eq!(v4("100.64.0.0/10"), PrefixError::NotShared);
    assert_eq!(v4("100.64.0.0"), PrefixError::Malformed);
}

#[test]
fn an_id_is_one_dns_label_of_z_base_32() {
    let id = DeviceId::from_bytes([0xff; 32]);
    assert_eq!(id.to_string(), format!("{}o", "9".repeat(51)));
    assert_eq!(DeviceId::from_bytes([0; 32]).to_string(), "y".repeat(52));
    assert!("9".repeat(52).parse::<DeviceId>().is_err(), "stray bits at the end");
    assert!("y".repeat(51).parse::<DeviceId>().is_err());
    assert!("Y".repeat(52).parse::<DeviceId>().is_err());
}

#[test]
fn a_tunnel_key_reads_and_writes_as_wg_does() {
    let key = TunnelKey::from_bytes(&[0x42; 32]);
    let text = key.public().to_string();
    assert_eq!(text.len(), 44);
    assert_eq!(text.parse::<TunnelPublicKey>().unwrap(), key.public());
    assert!("AAAA".parse::<TunnelPublicKey>().is_err());
}

#[test]
fn two_keys_agree_and_low_order_points_do_not() {
    let (a, b) = (TunnelKey::from_bytes(&[1; 32]), TunnelKey::from_bytes(&[2; 32]));
    assert_eq!(a.agree(&b.public()), b.agree(&a.public()));
    assert!(a.agree(&b.public()).is_some());
    assert!(a.agree(&TunnelPublicKey::from_bytes([0; 32])).is_none());
}

#[test]
fn a_secret_key_shows_its_public_half_only() {
    let key = DeviceKey::from_bytes(&[7; 32]);
    assert_eq!(format!("{key:?}"), format!("DeviceKey(secret of {})", key.id()));
    assert_eq!(DeviceKey::from_bytes(&key.to_bytes()).id(), key.id());
}

#[test]
fn a_name_is_one_dns_label() {
    let refused = |text: &str| text.parse::<DeviceName>().unwrap_err();
    assert!("laptop-2".parse::<DeviceName>().is_ok());
    assert!("a".repeat(63).parse::<DeviceName>().is_ok());
    assert_eq!(refused(""), NameError::Empty);
    assert_eq!(refused(&"a".repeat(64)), NameError::TooLong);
    for text in ["Laptop", "-a", "a-", "a.b", "a b", "ä"] {
        assert_eq!(refused(text), NameError::BadCharacter);
    }
}

proptest! {
    #[test]
    fn an_id_survives_its_text(bytes in any::<[u8; 32]>()) {
        let id = DeviceId::from_bytes(bytes);
        prop_assert_eq!(id.to_string().parse::<DeviceId>(), Ok(id));
    }

    #[test]
    fn a_prefix_survives_its_text(bytes in any::<[u8; 32]>()) {
        let prefix = ula_prefix(NetworkId::from_bytes(bytes));
        prop_assert_eq!(prefix.to_string().parse::<UlaPrefix>(), Ok(prefix));
        let prefix = ipv4_prefix(NetworkId::from_bytes(bytes));
        prop_assert_eq!(prefix.to_string().parse::<Ipv4Prefix>(), Ok(prefix));
    }

    #[test]
    fn no_text_panics_a_parser(text in ".{0,80}") {
        let _ = text.parse::<DeviceId>();
        let _ = text.parse::<TunnelPublicKey>();
        let _ = text.parse::<DeviceName>();
        let _ = text.parse::<UlaPrefix>();
        let _ = text.parse::<Ipv4Prefix>();
    }
}
