//! Names beside those that devices have by their certificates.

use std::net::IpAddr;

use identity::{DeviceName, NameEntry, Scope, UnixTime};
use noise_channel::Now;

use super::admin::{Answer, not_held};
use super::{Controller, wall};
use crate::limits::{MAX_NAME_ADDRESSES, MAX_NAME_LENGTH, MAX_NAMES};
use crate::{AdminAnswer, AdminError, AuditAction, ItemKey, MapItem, NameTargetView, NameView};

impl Controller {
    /// Gives a name to something, or another meaning to the name.
    pub(crate) fn add_name(&mut self, request: NameView, now: Now) -> Answer {
        if !self.holds(Scope::Names) {
            return Err(not_held(Scope::Names));
        }
        check_name(&request.name)?;
        check_target(&request.target)?;
        let of_device = request.name.parse().ok();
        if let Some(name) =
            of_device.filter(|name: &DeviceName| self.index.names.contains_key(name))
        {
            return Err(AdminError::NameTaken { name });
        }
        let is_known = self.name_entries().any(|entry| entry.name == request.name);
        if !is_known && self.name_entries().count() >= MAX_NAMES {
            return Err(AdminError::Full { what: "names".into(), limit: MAX_NAMES });
        }
        let action = AuditAction::NameAdded { name: request.name.clone() };
        let entry = NameEntry { name: request.name, target: request.target.into() };
        self.put_name(entry, wall(now), false);
        self.done(action, now)
    }

    /// Withdraws a name.
    pub(crate) fn remove_name(&mut self, name: &str, now: Now) -> Answer {
        let entry = self.name_entries().find(|entry| entry.name == name);
        let entry = entry.ok_or(AdminError::UnknownName)?;
        if !self.holds(Scope::Names) {
            return Err(not_held(Scope::Names));
        }
        self.put_name(entry, wall(now), true);
        self.done(AuditAction::NameRemoved { name: name.to_owned() }, now)
    }

    pub(crate) fn name_views(&self) -> AdminAnswer {
        let view = |entry: NameEntry| NameView { name: entry.name, target: entry.target.into() };
        AdminAnswer::Names { names: self.name_entries().map(view).collect() }
    }

    fn name_entries(&self) -> impl Iterator<Item = NameEntry> {
        let keys = self.state.items.keys();
        keys.filter(|key| matches!(key, ItemKey::Name(_))).filter_map(|key| {
            let MapItem::Name(_, signed) = self.stored_item(key)? else { return None };
            self.current_body(&signed)
        })
    }

    fn put_name(&mut self, entry: NameEntry, at: UnixTime, withdrawn: bool) {
        let name = entry.name.clone();
        if let Some(signed) = self.sign(entry, at, withdrawn) {
            self.publish(&MapItem::Name(name, signed));
        }
    }
}

/// Labels as devices have them, with dots between.
fn check_name(name: &str) -> Result<(), AdminError> {
    let fits = name.len() <= MAX_NAME_LENGTH
        && name
            .split('.')
            .all(|label| label.parse().is_ok_and(|parsed: DeviceName| parsed.as_str() == label));
    let what = || {
        format!(
            "a name is made of labels in lower case with dots between, {MAX_NAME_LENGTH} characters at most, without the network's name"
        )
    };
    if fits { Ok(()) } else { Err(AdminError::OutOfBounds { what: what() }) }
}

fn check_target(target: &NameTargetView) -> Result<(), AdminError> {
    let what = match target {
        NameTargetView::Addresses { addresses } => {
            let is_usable = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
            if (1..=MAX_NAME_ADDRESSES).contains(&addresses.len())
                && addresses.iter().all(is_usable)
            {
                return Ok(());
            }
            format!("a name has 1 to {MAX_NAME_ADDRESSES} addresses of single hosts")
        }
        NameTargetView::Alias { name } => {
            let name = name.trim_end_matches('.');
            if !name.is_empty() && name.len() <= MAX_NAME_LENGTH {
                return Ok(());
            }
            format!("the name that is meant has up to {MAX_NAME_LENGTH} characters")
        }
        NameTargetView::Device { .. } => return Ok(()),
    };
    Err(AdminError::OutOfBounds { what })
}
