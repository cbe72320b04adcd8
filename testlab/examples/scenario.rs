//! Runs one scenario: for replays, and for fuzzers that feed files or standard input.
//!
//! The argument is hexadecimal digits or a file; without one it reads standard input.

use std::io::Read;
use std::process::ExitCode;

use testlab::sim::scenario;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it is for people to read")]
fn main() -> ExitCode {
    match scenario::run(&script()) {
        Ok(summary) => {
            println!("{summary:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            // Fuzzers look for crashes.
            std::process::abort()
        }
    }
}

fn script() -> Vec<u8> {
    let Some(argument) = std::env::args().nth(1) else {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).expect("standard input can be read");
        return bytes;
    };
    match data_encoding::HEXLOWER.decode(argument.as_bytes()) {
        Ok(bytes) => bytes,
        Err(_) => std::fs::read(&argument).expect("the argument is hexadecimal or a file"),
    }
}
