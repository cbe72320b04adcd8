//! Whether `docs/events.md` names the events that exist.

use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("testlab has a parent");
    std::fs::read_to_string(root.join(path)).expect("the file is there")
}

/// The variants of an enum as they are written down, in kebab case.
fn kinds_of(name: &str) -> BTreeSet<String> {
    let source = read("crates/control-proto/src/event.rs");
    let (_, body) = source.split_once(&format!("pub enum {name} {{\n")).expect("the enum is there");
    let (body, _) = body.split_once("\n}\n").expect("the enum ends");
    let variants = body.lines().filter_map(|line| {
        let name = line.strip_prefix("    ")?.trim_end_matches([',', '{', ' ']);
        let is_name = name.starts_with(|c: char| c.is_ascii_uppercase());
        is_name.then(|| kebab(name))
    });
    variants.collect()
}

fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            kebab.push('-');
        }
        kebab.push(letter.to_ascii_lowercase());
    }
    kebab
}

/// The first column of the table whose head begins so.
fn documented(head: &str) -> BTreeSet<String> {
    let page = read("docs/events.md");
    page.lines()
        .skip_while(|line| !line.starts_with(head))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('`').nth(1).map(str::to_owned))
        .collect()
}

#[test]
fn every_event_stands_in_the_documentation_and_nothing_else_does() {
    for (name, head) in [
        ("SecurityEvent", "| event |"),
        ("TunnelRefusal", "| in `tunnel-refusals` |"),
        ("ConnectionRefusal", "| in `connections-refused` |"),
    ] {
        let kinds = kinds_of(name);
        assert!(kinds.len() > 3, "{name}: {kinds:?}");
        assert_eq!(documented(head), kinds, "{name}");
    }
}
