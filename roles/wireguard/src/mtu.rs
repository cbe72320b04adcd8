use std::time::{Duration, Instant};

use platform::Tun;
use platform::process::Namespace;

/// The MTU that padding keeps to, looked up again while packets flow.
#[derive(Debug)]
pub(crate) struct MtuWatch {
    mtu: usize,
    checked: Option<Instant>,
}

/// What WireGuard interfaces have unless told otherwise.
pub(crate) const DEFAULT_MTU: u32 = 1420;
/// How long a change may go unnoticed.
const INTERVAL: Duration = Duration::from_secs(1);

impl MtuWatch {
    pub(crate) fn new(tun: &Tun) -> Self {
        Self { mtu: look(tun).unwrap_or(DEFAULT_MTU as usize), checked: None }
    }

    /// The MTU, at most a second old.
    pub(crate) fn current(&mut self, tun: &Tun, now: Instant) -> usize {
        if self.checked.is_none_or(|at| now.saturating_duration_since(at) >= INTERVAL) {
            self.checked = Some(now);
            self.mtu = look(tun).unwrap_or(self.mtu);
        }
        self.mtu
    }
}

/// Asks in the namespace in which the interface is now.
fn look(tun: &Tun) -> Option<usize> {
    let name = tun.current_name().ok()?;
    let namespace = Namespace::from(tun.namespace().ok()?);
    let interfaces = namespace.run(platform::links::interfaces).ok()?.ok()?;
    let found = interfaces.into_iter().find(|interface| interface.name == name)?;
    usize::try_from(found.mtu).ok()
}
