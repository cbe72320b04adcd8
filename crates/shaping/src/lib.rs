//! When messages on a stream leave, where a network hides what their times tell.
//!
//! Somebody who watches a stream sees when messages go, and guesses from that what goes on inside. The network's owner may
//! say ([`identity::Shaping`]) that both ends of every stream run machines against it, probabilistic automata of the
//! framework maybenot (Pulls and Witwer, WPES 2023). They are told what is queued, sent and received, and answer with dummies to
//! send, which the next hop throws away, and with times during which what is queued waits.
//!
//! # A plan and a shaper
//!
//! A [`Plan`] is what the owner's word comes to: the machines of a preset, or those that were written down, if they can be
//! trusted to run. Every end of every link has a [`Shaper`] that runs the plan. It knows no messages: it answers which
//! [`Turn`] it is when the stream takes one, and the link finds the message.
//!
//! # What no machine can do
//!
//! Machines come from the network's owner, and may be wrong all the same. Whatever they are:
//!
//! - what waits while nothing else leaves waits no longer than [`limits::LONGEST_HOLD`], and then nothing is held back for as long;
//! - no more dummies are taken in a second than [`limits::DUMMIES_PER_SECOND`], nor wait than [`limits::DUMMIES_WAITING`],
//!   and none leaves before what is queued and may leave;
//! - each of its timers rings after [`limits::SHORTEST_WAIT`] at the soonest, so that a timeout always moves on;
//! - what it costs to run one is bounded by what a plan takes: states, allowances, and distributions that are quickly sampled.
//!
//! Time and randomness are arguments: a shaper is seeded once, and is then told the time.
//!
//! | file | what |
//! |---|---|
//! | `plan` | from the owner's word to machines that run |
//! | `front`, `constant` | the presets |
//! | `shaper` | machines on one end of one link, and their timers |
//! | `gate` | what may leave now |
//! | `limits` | limits as data |

#![forbid(unsafe_code)]

mod constant;
mod front;
mod gate;
pub mod limits;
mod plan;
mod shaper;

pub use gate::Turn;
pub use plan::{Plan, PlanError};
pub use shaper::{Content, Shaper};
