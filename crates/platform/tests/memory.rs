//! What the heap does with memory that is freed; a program of its own, because it is changed for all of it.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::hint::black_box;
use std::thread;

const ROUNDS: usize = 500;

/// Page faults of this thread so far.
fn faults() -> usize {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux tells");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    fields.split_whitespace().nth(7).and_then(|field| field.parse().ok()).expect("a number")
}

/// Page faults of a thread that has a few messages of the longest size at a time.
fn faults_of_a_busy_thread() -> usize {
    let busy = thread::spawn(|| {
        let round = || black_box([(); 4].map(|()| vec![1_u8; 66 * 1024]));
        round();
        let before = faults();
        for _ in 0..ROUNDS {
            round();
        }
        faults() - before
    });
    busy.join().expect("it does not panic")
}

#[test]
fn messages_of_the_longest_size_find_the_memory_of_those_before_them() {
    platform::process::keep_freed_memory();
    let faults = faults_of_a_busy_thread();
    assert!(faults < ROUNDS, "{faults} page faults in {ROUNDS} rounds");
}
