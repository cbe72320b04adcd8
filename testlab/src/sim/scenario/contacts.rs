//! When a node had the controller: what it must have heard by then.

use std::time::Duration;

use super::check::SETTLING;

/// The times in which nothing kept a node from the controller.
#[derive(Clone, Debug, Default)]
pub(super) struct Contacts {
    past: Vec<(Duration, Duration)>,
    since: Option<Duration>,
}

impl Contacts {
    /// Takes note of whether something does from now on.
    pub(super) fn note(&mut self, has_contact: bool, now: Duration) {
        match self.since {
            None if has_contact => self.since = Some(now),
            Some(since) if !has_contact => {
                self.since = None;
                self.past.push((since, now));
            }
            None | Some(_) => {}
        }
    }

    /// How long before `at` the node surely heard from the controller: once things had settled, until the contact
    /// ended. What members tell each other may have come later.
    pub(super) fn silence(&self, at: Duration) -> Option<Duration> {
        let present = self.since.map(|since| (since, at));
        let contacts = self.past.iter().copied().chain(present);
        let ends = contacts.filter_map(|(begin, end)| {
            let end = end.min(at);
            (end >= begin + SETTLING).then_some(end)
        });
        ends.max().map(|end| at - end)
    }
}
