//! Stopping without anybody noticing: a relay asks to be left and waits until it was.

use std::time::{Duration, Instant};

use identity::NetworkId;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::Relay;

/// Nothing has passed for so long: whoever was here uses another relay.
const QUIET: Duration = Duration::from_secs(1);
/// Who has not left by then is not waited for.
const LONGEST: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Sends the devices of one network to other relays, and lets them come back. Clones are one.
#[derive(Clone, Debug)]
pub struct Draining {
    network: NetworkId,
    wishes: mpsc::Sender<Wish>,
}

/// What a membership is asked for.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Devices are to go to other relays. Answered whether nothing passes here any more; dropped if they stay.
    Leave(oneshot::Sender<bool>),
    /// Devices may use this relay again.
    Return,
}

/// How it went with the devices of one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// The network's id.
    pub network: String,
    /// Where they are.
    pub devices: Whereabouts,
}

/// Where the devices of a network are that were to leave a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whereabouts {
    /// Nothing passes here any more.
    Elsewhere,
    /// They were asked to leave, and something passed to the last.
    Leaving,
    /// Here: there is no other relay, or no controller that could tell them, or they were asked to come back.
    Here,
}

impl Draining {
    pub(crate) fn new(network: NetworkId) -> (Self, mpsc::Receiver<Wish>) {
        let (wishes, asked) = mpsc::channel(1);
        (Self { network, wishes }, asked)
    }

    /// Asks the devices to go to other relays, if there are any, and waits until nothing passes here any
    /// more, 10 s at most.
    pub async fn begin(&self) -> Drained {
        let (done, is_done) = oneshot::channel();
        // Who serves nobody any more sends nobody anywhere.
        let _ = self.wishes.send(Wish::Leave(done)).await;
        let devices = match is_done.await {
            Ok(true) => Whereabouts::Elsewhere,
            Ok(false) => Whereabouts::Leaving,
            Err(_) => Whereabouts::Here,
        };
        Drained { network: self.network.to_string(), devices }
    }

    /// Lets devices come back.
    pub async fn undo(&self) {
        // Nobody comes to who serves nobody any more.
        let _ = self.wishes.send(Wish::Return).await;
    }
}

/// Waits until no frame of a network passes the relay any more; false if that takes too long.
pub(crate) async fn until_quiet(relay: &Relay, network: NetworkId) -> bool {
    let begin = Instant::now();
    let (mut seen, mut since) = (relay.forwarded(network), begin);
    while since.elapsed() < QUIET && begin.elapsed() < LONGEST {
        sleep(PAUSE).await;
        let forwarded = relay.forwarded(network);
        if forwarded != seen {
            (seen, since) = (forwarded, Instant::now());
        }
    }
    since.elapsed() >= QUIET
}
