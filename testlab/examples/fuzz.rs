//! libFuzzer around one target of `testlab::fuzz`, which `SHADOWMESH_FUZZ` names; see `make fuzz`.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("SHADOWMESH_FUZZ").expect("SHADOWMESH_FUZZ names a target");
    testlab::fuzz::target(&name).unwrap_or_else(|| panic!("there is no target {name}")).run
});

fuzz_target!(|bytes: &[u8]| (*TARGET)(bytes));
