/// What all packets of a connection have in common, as it stands in them: addresses and ports.
///
/// For bringing together and telling apart, not for decisions about trust: where a packet has extension headers or is a
/// fragment, other bytes stand where the ports would; what is too short has nothing.
#[must_use]
pub fn flow(packet: &[u8]) -> &[u8] {
    let range = if packet.first().is_some_and(|byte| byte >> 4 == 4) { 12..24 } else { 8..44 };
    packet.get(range).unwrap_or_default()
}
