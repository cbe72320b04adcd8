//! One session on several threads.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::lab::Lab;
use wireguard_proto::{OpenError, Session};

const THREADS: usize = 4;
const BATCHES: usize = 50;
const BATCH: u32 = 32;

#[test]
fn threads_seal_with_counters_of_their_own_and_open_each_message_once() {
    let mut lab = Lab::new();
    lab.establish();
    let session = |end: &crate::lab::End| {
        Arc::clone(end.interface.tunnel(&end.peer).unwrap().session(lab.now).unwrap())
    };
    let (sender, receiver): (Arc<Session>, Arc<Session>) = (session(&lab.a), session(&lab.b));
    let now = lab.now;

    let sealed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..BATCHES {
                    let batch: Vec<_> = sender
                        .reserve(BATCH, now)
                        .unwrap()
                        .map(|counter| {
                            let mut message = vec![7; 96];
                            sender.seal(counter, &mut message);
                            message
                        })
                        .collect();
                    sealed.lock().unwrap().extend(batch);
                }
            });
        }
    });
    let sealed = sealed.into_inner().unwrap();
    let counters: BTreeSet<&[u8]> = sealed.iter().map(|message| &message[8..16]).collect();
    assert_eq!(counters.len(), THREADS * BATCHES * BATCH as usize);

    // Every message goes to two threads; together they accept it once.
    let outcomes = Mutex::new((0, 0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for message in &sealed {
                    let accepted = receiver.open(&mut message.clone(), now).map(|payload| {
                        assert_eq!(payload, [7; 64]);
                    });
                    let mut outcomes = outcomes.lock().unwrap();
                    match accepted {
                        Ok(()) => outcomes.0 += 1,
                        Err(reason) => {
                            assert_eq!(reason, OpenError::Replayed);
                            outcomes.1 += 1;
                        }
                    }
                }
            });
        }
    });
    assert_eq!(outcomes.into_inner().unwrap(), (sealed.len(), sealed.len()));
}
