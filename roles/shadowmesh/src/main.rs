//! The shadowmesh command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    shadowmesh::main()
}
