//! Every target over its corpus, and over random changes of it.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use testlab::fuzz::{TARGETS, Target, corpus, corpus_file};

/// Says which input it was.
struct Running<'a>(&'static str, &'a [u8]);

impl Drop for Running<'_> {
    #[expect(clippy::print_stderr, reason = "it is how a failed test says why")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let digits = data_encoding::HEXLOWER.encode(self.1);
            eprintln!("target {} with {digits}", self.0);
        }
    }
}

/// A few random changes of an input, or a part of another one behind a part of it.
fn change(input: &[u8], other: &[u8], rng: &mut ChaCha20Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let mut below = |end: usize| rng.next_u32() as usize % (end + 1);
    for _ in 0..=below(3) {
        let at = below(bytes.len());
        match below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, u8::try_from(below(255)).unwrap_or(0)),
            2 => bytes.splice(at.., other[below(other.len())..].iter().copied()).for_each(drop),
            3 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << below(7)),
            4 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = 0xff),
            _ => drop(bytes.drain(at..(at + below(8)).min(bytes.len()))),
        }
    }
    bytes
}

#[test]
fn no_input_of_a_corpus_and_no_change_of_one_breaks_a_target() {
    for Target { name, run, changes } in TARGETS {
        let text = std::fs::read_to_string(corpus_file(name)).expect("every target has a corpus");
        let inputs = corpus(&text);
        assert!(!inputs.is_empty(), "{name}");
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let changed = (0..changes).map(|number| {
            let other = &inputs[rng.next_u32() as usize % inputs.len()];
            change(&inputs[number % inputs.len()], other, &mut rng)
        });
        for input in inputs.iter().cloned().chain(changed.collect::<Vec<_>>()) {
            let running = Running(name, &input);
            run(running.1);
        }
    }
}
