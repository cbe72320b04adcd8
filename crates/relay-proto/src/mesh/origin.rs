//! What one relay says of itself.

use std::collections::BTreeMap;
use std::ops::Bound;

use identity::{Attachment, DeviceId, Signed};

use super::message::{Change, Delta, Distance, Version, Word};

/// Devices that one relay may say to have: more than it takes connections.
const MAX_DEVICES: usize = 16_384;
/// Links that one relay may say to have.
const MAX_LINKS: usize = 256;
/// Devices that were there and have gone, of which a relay goes on to say so; beyond as many as it has, it begins a
/// new run and leaves them out.
const MAX_GONE: usize = 1_024;
/// Bytes of one delta, and what each change and each link takes of them at least: less than a frame holds.
const DELTA_BYTES: usize = 48 * 1024;
const CHANGE_BYTES: usize = 64;
const LINK_BYTES: usize = 48;

/// What a relay has said of itself in one run, without what was said anew later.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    version: Version,
    words: BTreeMap<u64, Word>,
    /// Where the newest word about each device is.
    places: BTreeMap<DeviceId, u64>,
    attached: usize,
    /// Where the newest word about links is.
    links: Option<u64>,
}

impl Origin {
    /// A relay that has said nothing in this run.
    pub(crate) fn new(run: u64) -> Self {
        Self { version: Version { run, number: 0 }, ..Self::default() }
    }

    pub(crate) const fn version(&self) -> Version {
        self.version
    }

    /// The devices that are attached to it, by its own word.
    pub(crate) fn devices(&self) -> impl Iterator<Item = DeviceId> {
        self.places.keys().copied().filter(|device| self.attachment(*device).is_some())
    }

    /// By what a device showed that it is attached there.
    pub(crate) fn attachment(&self, device: DeviceId) -> Option<&Signed<Attachment>> {
        match self.words.get(self.places.get(&device)?)? {
            Word::Attached(_, attachment) => Some(attachment),
            Word::Detached(_) | Word::Links(_) => None,
        }
    }

    /// Its neighbours.
    pub(crate) fn links(&self) -> &[Distance] {
        match self.links.and_then(|number| self.words.get(&number)) {
            Some(Word::Links(links)) => links,
            Some(Word::Attached(..) | Word::Detached(_)) | None => &[],
        }
    }

    /// Says something more.
    pub(crate) fn say(&mut self, word: Word) {
        self.version.number += 1;
        self.keep(self.version.number, word);
        if self.places.len() - self.attached > MAX_GONE.max(self.attached) {
            self.begin_run(self.version.run + 1);
        }
    }

    /// Says everything that counts anew, in another run.
    pub(crate) fn begin_run(&mut self, run: u64) {
        let words = std::mem::replace(self, Self::new(run)).words;
        for word in words.into_values().filter(|word| !matches!(word, Word::Detached(_))) {
            self.version.number += 1;
            self.keep(self.version.number, word);
        }
    }

    /// Takes over a piece of what the relay said, and calls `about` for each device in it. False if it does not follow what
    /// is known.
    pub(crate) fn apply(&mut self, delta: Delta, mut about: impl FnMut(DeviceId)) -> bool {
        if delta.to.run < self.version.run {
            return true;
        }
        if delta.to.run > self.version.run {
            if delta.after != 0 {
                return false;
            }
            self.places.keys().for_each(|device| about(*device));
            *self = Self::new(delta.to.run);
        }
        if delta.after > self.version.number {
            return false;
        }
        for Change { number, word } in delta.changes {
            let is_next = number > self.version.number && number <= delta.to.number;
            if is_next && self.admits(&word) {
                if let Word::Attached(device, _) | Word::Detached(device) = word {
                    about(device);
                }
                self.keep(number, word);
                self.version.number = number;
            }
        }
        self.version.number = self.version.number.max(delta.to.number);
        true
    }

    /// What it said after `known`, a piece of it; none if that is all.
    pub(crate) fn after(&self, origin: DeviceId, known: Version) -> Option<Delta> {
        let after = if known.run == self.version.run { known.number } else { 0 };
        if known.run > self.version.run
            || (known.run, after) == (self.version.run, self.version.number)
        {
            return None;
        }
        let mut room = DELTA_BYTES;
        let later = (Bound::Excluded(after), Bound::Unbounded);
        let mut words = self.words.range(later).peekable();
        let mut changes = Vec::new();
        while let Some((number, word)) = words.next_if(|(_, word)| size(word) <= room) {
            room -= size(word);
            changes.push(Change { number: *number, word: word.clone() });
        }
        let is_all = words.peek().is_none();
        let last = changes.last().map_or(after, |change| change.number);
        let number = if is_all { self.version.number } else { last };
        Some(Delta { origin, to: Version { number, ..self.version }, after, changes })
    }

    /// Whether there is room for a word of another relay.
    fn admits(&self, word: &Word) -> bool {
        match word {
            Word::Attached(device, _) | Word::Detached(device) => {
                self.places.len() < 2 * MAX_DEVICES || self.places.contains_key(device)
            }
            Word::Links(links) => links.len() <= MAX_LINKS,
        }
    }

    fn keep(&mut self, number: u64, word: Word) {
        let before = match &word {
            Word::Attached(device, _) | Word::Detached(device) => {
                self.places.insert(*device, number)
            }
            Word::Links(_) => self.links.replace(number),
        };
        let is_attached = |word: &Word| usize::from(matches!(word, Word::Attached(..)));
        let before = before.and_then(|before| self.words.remove(&before));
        self.attached += is_attached(&word);
        self.attached -= before.as_ref().map_or(0, is_attached);
        self.words.insert(number, word);
    }
}

/// Bytes that a word takes in a delta at most.
fn size(word: &Word) -> usize {
    CHANGE_BYTES
        + match word {
            Word::Attached(_, attachment) => attachment.as_bytes().len(),
            Word::Detached(_) => 0,
            Word::Links(links) => links.len() * LINK_BYTES,
        }
}
