//! The replay window at its edges.

use proptest::prelude::*;
use wireguard_proto::{REPLAY_WINDOW, ReplayWindow};

#[test]
fn a_counter_is_accepted_once() {
    let mut window = ReplayWindow::default();
    assert!(window.accept(0));
    assert!(!window.accept(0));
    assert!(window.accept(1));
    assert!(!window.accept(1));
}

#[test]
fn the_oldest_counter_inside_is_accepted_and_the_one_behind_it_is_not() {
    let mut window = ReplayWindow::default();
    assert!(window.accept(REPLAY_WINDOW));
    assert!(window.accept(1));
    assert!(!window.accept(0));
}

#[test]
fn a_jump_beyond_the_window_forgets_nothing_that_matters() {
    let mut window = ReplayWindow::default();
    assert!(window.accept(5));
    assert!(window.accept(10 * REPLAY_WINDOW + 5));
    assert!(!window.accept(5));
    assert!(!window.accept(10 * REPLAY_WINDOW + 5));
    assert!(window.accept(9 * REPLAY_WINDOW + 6));
    assert!(!window.accept(9 * REPLAY_WINDOW + 5));
}

#[test]
fn the_greatest_number_is_refused_rather_than_wrapped() {
    let mut window = ReplayWindow::default();
    assert!(!window.accept(u64::MAX));
    assert!(window.accept(u64::MAX - 1));
    assert!(!window.accept(u64::MAX - 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_window_agrees_with_a_set(
        steps in prop::collection::vec((0_u64..3 * REPLAY_WINDOW, 0_u64..200), 1..400)
    ) {
        let mut window = ReplayWindow::default();
        let mut seen = std::collections::BTreeSet::new();
        let mut base = 0;
        for (offset, advance) in steps {
            base += advance * 40;
            let counter = base + offset;
            let newest = seen.last().copied().unwrap_or(0);
            let expected = counter + REPLAY_WINDOW > newest && !seen.contains(&counter);
            prop_assert_eq!(window.accept(counter), expected);
            if expected {
                seen.insert(counter);
            }
        }
    }
}
