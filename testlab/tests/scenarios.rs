//! Random scenarios for the shipped machines, judged by a model.

use data_encoding::HEXLOWER;
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use testlab::sim::scenario;

/// Scenarios of one run of the tests, unless `SHADOWMESH_SCENARIOS` says how many: with those of the big
/// mesh 2,000.
const SCENARIOS: u32 = 1_980;
/// Nodes of the big mesh.
const MESH: usize = 200;
/// Scenarios of the big mesh.
const MESH_SCENARIOS: u32 = 20;
/// Bytes of a script for it: about four actions.
const MESH_SCRIPT: usize = 16;

fn scenarios() -> u32 {
    std::env::var("SHADOWMESH_SCENARIOS")
        .map_or(SCENARIOS, |number| number.parse().expect("SHADOWMESH_SCENARIOS is a number"))
}

/// Where the random scripts begin; `SHADOWMESH_SEED` gives others.
fn seed() -> u64 {
    std::env::var("SHADOWMESH_SEED")
        .map_or(0, |number| number.parse().expect("SHADOWMESH_SEED is a number"))
}

/// Runs so many random scripts, and shrinks the first that fails.
fn run_random(number: u32, part: u8) {
    let mut seed_bytes = [part; 32];
    seed_bytes[..8].copy_from_slice(&seed().to_be_bytes());
    let config = Config {
        cases: number,
        failure_persistence: None,
        max_shrink_time: 30_000,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let scripts = vec(any::<u8>(), 4..64);
    let result = runner.run(&scripts, |bytes| {
        scenario::run(&bytes)
            .map(|_| ())
            .map_err(|failure| TestCaseError::fail(failure.to_string()))
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, bytes)) => {
            panic!("bytes {}\n{reason}", HEXLOWER.encode(&bytes))
        }
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// Scripts in which the model and the machines once disagreed, or that touch much.
const CORPUS: &str = include_str!("../corpus/scenario.txt");

#[test]
fn the_corpus_goes_as_the_model_says() {
    for line in CORPUS.lines().filter(|line| !line.starts_with('#')) {
        let bytes = HEXLOWER.decode(line.as_bytes()).expect("hexadecimal");
        if let Err(failure) = scenario::run(&bytes) {
            panic!("bytes {line}\n{failure}");
        }
    }
}

#[test]
fn any_bytes_are_a_script() {
    for byte in 0..=u8::MAX {
        for len in [0, 1, 2, 3, 100] {
            let script = scenario::Script::from_bytes(&vec![byte; len]);
            assert!((2..=4).contains(&script.layout.places.len()));
        }
    }
}

/// One part for each processor.
fn parts() -> u8 {
    let parts = std::thread::available_parallelism().map_or(1, |parts| parts.get().min(64));
    u8::try_from(parts).expect("at most 64")
}

#[test]
fn random_scenarios_go_as_the_model_says() {
    let share = scenarios().div_ceil(parts().into());
    std::thread::scope(|scope| {
        for part in 0..parts() {
            scope.spawn(move || run_random(share, part));
        }
    });
}

/// Plays random scripts one after the other in one big network.
fn run_mesh(number: u32, part: u8) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed().wrapping_add(part.into()));
    let mut mesh = scenario::Mesh::new(part.into(), MESH);
    for _ in 0..number {
        let mut bytes = [0; MESH_SCRIPT];
        rng.fill_bytes(&mut bytes);
        if let Err(failure) = mesh.run(&bytes) {
            panic!("a mesh of {MESH}, bytes {}\n{failure}", HEXLOWER.encode(&bytes));
        }
    }
}

#[test]
fn a_big_mesh_goes_as_the_model_says_in_one_scenario_after_the_other() {
    let share = MESH_SCENARIOS.div_ceil(parts().into());
    std::thread::scope(|scope| {
        for part in 0..parts() {
            scope.spawn(move || run_mesh(share, part));
        }
    });
}
