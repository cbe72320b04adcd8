//! A corpus as a folder of files, as fuzzers want it, and back as text: `corpus unpack|pack TARGET FOLDER`.

use std::collections::BTreeSet;
use std::path::Path;

use data_encoding::HEXLOWER;
use testlab::fuzz::{corpus, corpus_file, target};

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [action, name, folder] = &arguments[..] else {
        panic!("usage: corpus unpack|pack TARGET FOLDER");
    };
    assert!(target(name).is_some(), "there is no target {name}");
    let folder = Path::new(folder);
    if action == "unpack" {
        std::fs::create_dir_all(folder)?;
        let text = std::fs::read_to_string(corpus_file(name)).unwrap_or_default();
        for (number, input) in corpus(&text).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), input)?;
        }
        return Ok(());
    }
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        found.insert(HEXLOWER.encode(&std::fs::read(entry?.path())?));
    }
    let text = std::fs::read_to_string(corpus_file(name)).unwrap_or_default();
    std::fs::write(corpus_file(name), with_found(&text, found))
}

/// The corpus anew. One with comments was written by people: what was found goes behind it.
fn with_found(text: &str, mut found: BTreeSet<String>) -> String {
    let is_commented = text.lines().any(|line| line.starts_with('#'));
    let kept: Vec<&str> = text.lines().filter(|_| is_commented).collect();
    found.retain(|line| !line.is_empty() && !kept.contains(&line.as_str()));
    let all = kept.into_iter().chain(found.iter().map(String::as_str));
    all.map(|line| format!("{line}\n")).collect()
}
