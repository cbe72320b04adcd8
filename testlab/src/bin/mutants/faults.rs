//! The faults, and the tests that have to notice them.

mod paths;
mod sessions;
mod trust;

/// Stands in [`Edit::seeded`] for the question whether the fault is awake.
pub(crate) const AWAKE: &str = "AWAKE";

/// Stands in [`Suite::target`] for the unit tests of a library.
pub(crate) const UNITS: &str = "lib";

/// A promise that is broken on purpose.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// What whoever relies on the promise loses.
    pub(crate) breaks: &'static str,
    pub(crate) edits: &'static [Edit],
    pub(crate) tests: &'static [Suite<'static>],
}

/// A change of one place.
pub(crate) struct Edit {
    pub(crate) file: &'static str,
    /// Text that occurs once in the file.
    pub(crate) original: &'static str,
    /// What takes its place; the same as the original while [`AWAKE`] is false.
    pub(crate) seeded: &'static str,
}

/// Some tests of one target of a package.
pub(crate) struct Suite<'a> {
    pub(crate) package: &'a str,
    pub(crate) target: &'a str,
    pub(crate) tests: &'a [&'a str],
}

const fn in_suite(package: &'static str, tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package, target: "suite", tests }
}

const fn in_channel(tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package: "noise-channel", target: "channel", tests }
}

const fn in_machines(tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package: "control-proto", target: "machines", tests }
}

const fn in_relay(tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package: "relay-proto", target: "relay", tests }
}

const fn in_trust(tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package: "testlab", target: "trust", tests }
}

const fn in_translators(tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package: "path", target: "translators", tests }
}

const fn in_scattering(tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package: "path", target: "scattering", tests }
}

const fn in_sim(tests: &'static [&'static str]) -> Suite<'static> {
    Suite { package: "testlab", target: "sim", tests }
}

/// Every fault, by what it is about.
pub(crate) fn all() -> impl Iterator<Item = &'static Fault> {
    [sessions::FAULTS, trust::FAULTS, paths::FAULTS].into_iter().flatten()
}
