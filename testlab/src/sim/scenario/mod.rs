//! Random scenarios: bytes that say what happens, a model that says what ought to be, and a judge.
//!
//! [`run`] is the one harness: for properties with shrinking, for the corpus, for fuzzers. Any bytes are a
//! [`Script`]. A [`Mesh`] plays scripts one after the other in one big network. The world has the shipped
//! machines in it; the model (`model`) knows who is a member, who runs, who is cut off from whom, and nothing of
//! protocols. After every action, whatever arrived must be what somebody sent, once, to whom it was sent, from
//! whom it says, and from nobody of whom the receiver knows that it was removed. At every [`Action::Check`], and
//! at the end when everything is repaired, what the model calls reachable must be reached, members must be
//! online and their names resolve, all within a bounded time.

mod actions;
mod check;
mod contacts;
mod model;
mod script;

use data_encoding::HEXLOWER;

use super::World;

pub use actions::{Mesh, run};
pub use script::{Action, Layout, Script};

/// What a scenario did and how long it took in the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Actions.
    pub actions: usize,
    /// Questions that were answered as they had to be.
    pub answered: usize,
    /// The longest that settling took.
    pub settled_in: std::time::Duration,
}

/// What went wrong, with the script and the last messages.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub what: String,
    script: Script,
    /// Scripts that were played in the same world before.
    before: Vec<Vec<u8>>,
    at: usize,
    diagram: String,
}

impl Failure {
    fn new(what: String, script: &Script, at: usize, world: &World) -> Self {
        let before = Vec::new();
        Self { what, script: script.clone(), before, at, diagram: world.diagram() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.what)?;
        for script in &self.before {
            writeln!(f, "after {}", HEXLOWER.encode(script))?;
        }
        writeln!(f, "{:?}", self.script.layout)?;
        for (index, action) in self.script.actions.iter().enumerate() {
            let mark = if index == self.at { "->" } else { "  " };
            writeln!(f, "{mark} {action:?}")?;
        }
        if self.at == self.script.actions.len() {
            writeln!(f, "-> when everything was repaired")?;
        }
        write!(f, "{}", self.diagram)
    }
}

impl std::error::Error for Failure {}
