//! Whether the tests notice faults: a copy of the workspace with the faults of [`faults`] seeded in it,
//! each dormant until a variable of the environment wakes it, so that everything is compiled once.
//!
//! The tests that a fault names must all pass while nothing is awake, and one of them at least must fail while
//! the fault is. The shipped sources have no part in this: the switch exists in the copy only.

#![forbid(unsafe_code)]

mod copy;
mod faults;
mod suites;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use faults::{Fault, Suite};
use suites::{Executables, Verdict};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(folder) = arguments.next().map(PathBuf::from) else {
        say("usage: mutants FOLDER [FAULT]... (the folder keeps the copy)");
        return ExitCode::from(2);
    };
    let chosen: Vec<String> = arguments.map(|name| name.to_string_lossy().into_owned()).collect();
    match run(&folder, &chosen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reasons) => {
            reasons.iter().for_each(|reason| say(&format!("mutants: {reason}")));
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &Path, chosen: &[String]) -> Result<(), Vec<String>> {
    for name in chosen {
        if !faults::all().any(|fault| fault.name == name) {
            return Err(vec![format!("there is no fault {name}")]);
        }
    }
    copy::refresh(folder)?;
    let executables = Executables::build(folder).map_err(|reason| vec![reason])?;
    let faults: Vec<&Fault> = faults::all()
        .filter(|fault| chosen.is_empty() || chosen.iter().any(|name| name == fault.name))
        .collect();
    let mut missed = healthy(&executables, &faults);
    if !missed.is_empty() {
        return Err(missed);
    }
    say("| fault | noticed by | seconds |\n|---|---|---|");
    for fault in faults {
        let started = Instant::now();
        match noticed(&executables, fault) {
            Ok(tests) => {
                let (first, more) = (&tests[0], tests.len() - 1);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                let seconds = started.elapsed().as_secs_f32();
                say(&format!("| {} | `{first}`{more} | {seconds:.1} |", fault.name));
            }
            Err(reason) => {
                say(&format!("| {} | **nothing** | |", fault.name));
                missed.push(format!("{}: {reason}: {}", fault.name, fault.breaks));
            }
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(missed) }
}

/// What is wrong with the tests while no fault is awake.
fn healthy(executables: &Executables, faults: &[&Fault]) -> Vec<String> {
    let mut named: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for Suite { package, target, tests } in faults.iter().flat_map(|fault| fault.tests) {
        let known = named.entry((package, target)).or_default();
        known.extend(tests.iter().filter(|test| !known.contains(test)).collect::<Vec<_>>());
    }
    let mut wrong = Vec::new();
    for ((package, target), tests) in named {
        match executables.run(&Suite { package, target, tests: &tests }, None) {
            Err(reason) => wrong.push(reason),
            Ok(verdicts) => {
                for test in tests {
                    match verdicts.get(test) {
                        Some(Verdict::Passed) => {}
                        Some(Verdict::Failed) => {
                            wrong.push(format!("{package}: {test} fails without any fault"));
                        }
                        None => wrong.push(format!("{package}: {target} has no test {test}")),
                    }
                }
            }
        }
    }
    wrong
}

/// The tests that fail while `fault` is awake.
fn noticed(executables: &Executables, fault: &Fault) -> Result<Vec<String>, String> {
    let mut failed = Vec::new();
    for suite in fault.tests {
        let verdicts = executables.run(suite, Some(fault.name))?;
        let of_suite = verdicts.into_iter().filter(|(_, verdict)| *verdict == Verdict::Failed);
        failed.extend(of_suite.map(|(test, _)| test));
    }
    if failed.is_empty() { Err("no test noticed it".into()) } else { Ok(failed) }
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output is open");
}
