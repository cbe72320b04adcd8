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
    let mut lines = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        lines.insert(HEXLOWER.encode(&std::fs::read(entry?.path())?));
    }
    let lines: Vec<_> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    std::fs::write(corpus_file(name), lines.join("\n") + "\n")
}
