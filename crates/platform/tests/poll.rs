//! Waiting without a runtime.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use platform::{Interest, Poller, Timer, Waker};

const LONG: Option<Duration> = Some(Duration::from_secs(5));

fn tokens(poller: &mut Poller, timeout: Option<Duration>) -> Vec<u64> {
    poller.wait(timeout).unwrap().map(|ready| ready.token).collect()
}

#[test]
fn a_waker_wakes_until_it_is_reset() {
    let waker = Waker::new().unwrap();
    let mut poller = Poller::new().unwrap();
    poller.add(&waker, 7, Interest::Read).unwrap();
    assert!(tokens(&mut poller, Some(Duration::ZERO)).is_empty());
    std::thread::scope(|scope| {
        scope.spawn(|| waker.wake());
        assert_eq!(tokens(&mut poller, LONG), [7]);
    });
    waker.wake();
    assert_eq!(tokens(&mut poller, LONG), [7]);
    waker.reset();
    assert!(tokens(&mut poller, Some(Duration::ZERO)).is_empty());
}

#[test]
fn a_timer_is_due_at_its_instant_and_can_be_taken_back() {
    let mut timer = Timer::new().unwrap();
    let mut poller = Poller::new().unwrap();
    poller.add(&timer, 3, Interest::Read).unwrap();
    let due = Instant::now() + Duration::from_millis(20);
    timer.set(Some(due)).unwrap();
    assert_eq!(tokens(&mut poller, LONG), [3]);
    assert!(Instant::now() >= due);
    assert!(timer.reset());
    assert!(!timer.reset());
    timer.set(Some(Instant::now())).unwrap();
    timer.set(None).unwrap();
    assert!(tokens(&mut poller, Some(Duration::ZERO)).is_empty());
}

#[test]
fn a_removed_handle_is_silent() {
    let waker = Waker::new().unwrap();
    let mut poller = Poller::new().unwrap();
    poller.add(&waker, 1, Interest::Read).unwrap();
    poller.change(&waker, 2, Interest::Both).unwrap();
    waker.wake();
    assert_eq!(tokens(&mut poller, LONG), [2]);
    poller.remove(&waker).unwrap();
    assert!(tokens(&mut poller, Some(Duration::ZERO)).is_empty());
}
