//! The shadowmesh command.

fn main() {}
