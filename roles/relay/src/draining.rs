//! Stopping without anybody noticing: a relay asks to be left and waits until it was.

use std::time::{Duration, Instant};

use identity::NetworkId;
use tokio::time::sleep;

use crate::Relay;

/// Nothing has passed for so long: whoever was here uses another relay.
const QUIET: Duration = Duration::from_secs(1);
/// Who has not left by then is not waited for.
const LONGEST: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until no frame of a network passes the relay any more.
pub(crate) async fn until_quiet(relay: &Relay, network: NetworkId) {
    let begin = Instant::now();
    let (mut seen, mut since) = (relay.forwarded(network), begin);
    while since.elapsed() < QUIET && begin.elapsed() < LONGEST {
        sleep(PAUSE).await;
        let forwarded = relay.forwarded(network);
        if forwarded != seen {
            (seen, since) = (forwarded, Instant::now());
        }
    }
}
