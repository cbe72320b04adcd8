//! What a relay carries of senders that wait for what they sent to arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testlab::netns::processor_seconds;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::peer::{Id, Peer};

/// What each sender has under way, in bytes: the window of a TCP flow of ten gigabits over a millisecond.
const WINDOW: usize = 1 << 20;
const WARM_UP: Duration = Duration::from_millis(500);
const LENGTH: Duration = Duration::from_secs(3);
/// What has not arrived by then does not arrive any more.
const LOST_AFTER: Duration = Duration::from_millis(100);

/// What may be under way between two peers yet, and what has arrived, in bytes.
struct Flow {
    room: Semaphore,
    arrived: AtomicU64,
}

/// Sends over every even connection to the one behind it as fast as it goes.
pub(crate) async fn carried(peers: Vec<Peer>, bytes: usize, process: &str) -> Value {
    let (mut peers, mut flows) = (peers.into_iter(), Vec::new());
    while let (Some(mut sender), Some(mut receiver)) = (peers.next(), peers.next()) {
        Peer::join(&mut sender, &mut receiver).await;
        let (room, arrived) = (Semaphore::new(WINDOW), AtomicU64::new(0));
        let flow = Arc::new(Flow { room, arrived });
        let to = receiver.id();
        tokio::spawn(receive(receiver, Arc::clone(&flow)));
        tokio::spawn(send(sender, to, bytes, Arc::clone(&flow)));
        flows.push(flow);
    }
    let arrived =
        || flows.iter().map(|flow| flow.arrived.load(Ordering::Relaxed)).sum::<u64>() as f64;
    sleep(WARM_UP).await;
    let before = (arrived(), processor_seconds(process), processor_seconds("self"));
    sleep(LENGTH).await;
    let gigabytes = (arrived() - before.0) / 1e9;
    let used = (processor_seconds(process) - before.1, processor_seconds("self") - before.2);
    let seconds = LENGTH.as_secs_f64();
    json!({
        "gigabits": gigabytes * 8.0 / seconds,
        "processor": used.0 / gigabytes,
        "relay_cores": used.0 / seconds,
        "load_cores": used.1 / seconds,
    })
}

async fn send(mut peer: Peer, to: Id, bytes: usize, flow: Arc<Flow>) {
    let mut ignore = |_: &[u8]| {};
    let length = u32::try_from(bytes).expect("a frame is shorter");
    loop {
        tokio::select! {
            room = timeout(LOST_AFTER, flow.room.acquire_many(length)) => match room {
                Ok(room) => room.expect("it is never closed").forget(),
                Err(_) => {
                    flow.give_back(WINDOW);
                    continue;
                }
            },
            () = peer.receive(&mut ignore) => continue,
        }
        peer.send(to, bytes, 1, &[]).await;
    }
}

async fn receive(mut peer: Peer, flow: Arc<Flow>) {
    loop {
        let flow = &flow;
        peer.receive(&mut |payload| {
            flow.arrived.fetch_add(payload.len() as u64, Ordering::Relaxed);
            flow.give_back(payload.len());
        })
        .await;
    }
}

impl Flow {
    /// So much is not under way any more.
    fn give_back(&self, bytes: usize) {
        let taken = WINDOW.saturating_sub(self.room.available_permits());
        self.room.add_permits(bytes.min(taken));
    }
}
