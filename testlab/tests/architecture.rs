//! The direction of dependencies, as drawn in `ARCHITECTURE.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// What no pure crate may reach, directly or through others.
const IMPURE: &[&str] = &[
    "async-std",
    "axum",
    "hyper",
    "mio",
    "polling",
    "rustls",
    "smol",
    "smoltcp",
    "socket2",
    "sqlx",
    "tokio",
    "tokio-rustls",
];

struct Rule {
    pure: bool,
    may_use: BTreeSet<String>,
    any: bool,
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(vec!["--locked".into(), "--offline".into()])
        .exec()
        .expect("cargo metadata answers")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("testlab stands in the workspace")
}

fn rules() -> BTreeMap<String, Rule> {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the page is there");
    page.lines()
        .skip_while(|line| !line.starts_with("| crate | kind | may use |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, kind, may_use] = cells[..] else { panic!("three columns: {line}") };
            let names =
                may_use.split(", ").filter(|name| *name != "-").map(str::to_owned).collect();
            (name.to_owned(), Rule { pure: kind == "pure", may_use: names, any: may_use == "any" })
        })
        .collect()
}

fn members(metadata: &Metadata) -> Vec<&Package> {
    metadata.workspace_packages()
}

#[test]
fn every_edge_between_crates_is_drawn() {
    let metadata = metadata();
    let rules = rules();
    let names: BTreeSet<String> =
        members(&metadata).iter().map(|package| package.name.to_string()).collect();
    let drawn: BTreeSet<String> = rules.keys().cloned().collect();
    assert_eq!(names, drawn, "ARCHITECTURE.md names the crates that exist");

    for package in members(&metadata) {
        let rule = &rules[package.name.as_str()];
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            let ours = names.contains(&dependency.name);
            assert!(
                !ours || rule.any || rule.may_use.contains(&dependency.name),
                "{} uses {}, which ARCHITECTURE.md does not draw",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn pure_crates_say_so_and_reach_no_runtime_socket_or_clock() {
    let metadata = metadata();
    let graph = metadata.resolve.as_ref().expect("cargo resolves the graph");
    let edges: BTreeMap<&PackageId, Vec<&PackageId>> = graph
        .nodes
        .iter()
        .map(|node| {
            let normal = node
                .deps
                .iter()
                .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
            (&node.id, normal.map(|dep| &dep.pkg).collect())
        })
        .collect();

    for (name, rule) in rules().iter().filter(|(_, rule)| rule.pure) {
        let package = members(&metadata).into_iter().find(|package| package.name.as_str() == name);
        let package = package.unwrap_or_else(|| panic!("{name} is a crate"));
        assert_eq!(
            package.metadata["shadowmesh"]["pure"], rule.pure,
            "{name} declares itself pure"
        );

        let mut reached = BTreeSet::new();
        let mut open = vec![&package.id];
        while let Some(id) = open.pop() {
            if reached.insert(id) {
                open.extend(&edges[id]);
            }
        }
        for id in reached {
            let dependency = metadata[id].name.as_str();
            assert!(!IMPURE.contains(&dependency), "{name} is pure but reaches {dependency}");
        }
    }
}

#[test]
fn pure_crates_forbid_unsafe_code_and_name_no_clock() {
    for (name, _) in rules().iter().filter(|(_, rule)| rule.pure) {
        let source = root().join("crates").join(name).join("src");
        let lib = std::fs::read_to_string(source.join("lib.rs")).expect("a crate has a lib.rs");
        assert!(lib.contains("#![forbid(unsafe_code)]"), "{name} forbids unsafe code");
        for file in rust_files(&source).iter().filter(|file| !file.ends_with("tests.rs")) {
            let text = std::fs::read_to_string(file).expect("source is readable");
            for clock in [
                "Instant::now(",
                "SystemTime::now(",
                "std::net::UdpSocket",
                "std::net::Tcp",
                "std::thread",
            ] {
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let shipped: Vec<&str> =
                    code.take_while(|line| !line.contains("#[cfg(test)]")).collect();
                assert!(
                    !shipped.iter().any(|line| line.contains(clock)),
                    "{} uses {clock}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn unsafe_code_stands_only_in_platform() {
    let denied = std::fs::read_to_string(root().join("Cargo.toml")).expect("it is there");
    assert!(denied.contains("\nunsafe_code = \"deny\"\n"), "the workspace denies it");
    // In two pieces, so that this file does not hold what it looks for.
    let exception = ["allow(unsafe", "code"].join("_");
    for folder in ["crates", "roles", "testlab"] {
        for file in rust_files(&root().join(folder)) {
            let text = std::fs::read_to_string(&file).expect("source is readable");
            let is_platform = file.starts_with(root().join("crates/platform/src"));
            assert!(is_platform || !text.contains(&exception), "{} has some", file.display());
        }
    }
}

#[test]
fn packets_frames_and_messages_are_sealed_by_one_crate() {
    for (name, _) in rules().iter().filter(|(_, rule)| rule.pure) {
        for file in rust_files(&root().join("crates").join(name).join("src")) {
            let text = std::fs::read_to_string(&file).expect("source is readable");
            let knows_a_backend = text.contains("aws_lc_rs::aead") || text.contains("chacha20::");
            assert!(!knows_a_backend || name == "ciphers", "{} does", file.display());
        }
    }
}

#[test]
fn a_table_of_contents_names_every_module() {
    for package in members(&metadata()) {
        let file = package.manifest_path.with_file_name("src").join("lib.rs");
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("//! |")).collect();
        if rows.is_empty() {
            continue;
        }
        let modules = text.lines().filter_map(|line| {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            line.strip_prefix("mod ")?.strip_suffix(';')
        });
        for module in modules {
            let name = format!("`{module}`");
            assert!(rows.iter().any(|row| row.contains(&name)), "{name} of {}", package.name);
        }
    }
}

fn rust_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("readable entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}
