//! The layout of the code holds: rooms import only what `docs/architecture.md` allows.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every room and the rooms it may import. `error` and `clock` are open to all.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("clock", &[]),
    ("document", &[]),
    ("event", &["document"]),
    ("storage", &["document", "event"]),
    ("history", &["document", "event", "storage"]),
    ("middleware", &["document", "event"]),
    ("bus", &["document", "event", "middleware"]),
    ("relay", &["document", "event", "history", "storage", "bus"]),
    ("aggregate", &["document", "event", "storage", "history"]),
    (
        "command",
        &["document", "event", "middleware", "aggregate", "storage"],
    ),
    (
        "projection",
        &["document", "event", "storage", "history", "bus"],
    ),
    ("query", &["document", "event", "projection", "storage"]),
    (
        "saga",
        &["document", "event", "command", "storage", "history"],
    ),
    // The composition root and the suites may see everything; the command line is a crate of its own.
    ("builder", &["*"]),
    ("testing", &["*"]),
    ("lib", &["*"]),
];

/// Crates whose types stay within one folder.
const ADAPTERS: &[(&str, &str)] = &[
    ("mongodb", "storage/mongodb/"),
    ("redb", "storage/embedded/"),
    ("redis", "bus/redis/"),
    ("async_nats", "bus/nats/"),
];

fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("pkg");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
                // Unit tests may borrow faults and stores from the suites.
                if name.ends_with("/tests.rs") || name.contains("/tests/") {
                    continue;
                }
                found.insert(name.to_owned(), code(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 40, "only {} sources were found", found.len());
    found
}

/// The text without comments.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| match line.find("//") {
        // Within a string such as "mongodb://" it is no comment.
        Some(at) if line[..at].matches('"').count() % 2 == 0 => &line[..at],
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What follows each `crate::`, groups taken apart.
fn imports(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
        text.trim_start().chars().take_while(is_word).collect()
    };
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        // `$crate::` in macros, and paths of other crates that end in "crate".
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut item = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 || (depth == 1 && c == ',') {
                    found.insert(word(&item));
                    item.clear();
                } else {
                    item.push(c);
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            found.insert(word(rest));
        }
    }
    found.remove("");
    found
}

fn room(file: &str) -> &str {
    let first = file.split('/').next().unwrap();
    first.strip_suffix(".rs").unwrap_or(first)
}

#[test]
fn rooms_import_only_what_they_may() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let room = room(&file);
        if room == "cli" {
            continue;
        }
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{file}: no room {room:?} is on the map"));
            continue;
        };
        for import in imports(&code) {
            let fine = import == room
                || ["error", "clock"].contains(&import.as_str())
                    && !["error", "clock"].contains(&room)
                || allowed.contains(&"*")
                || allowed.contains(&import.as_str());
            if !fine {
                wrong.push(format!("{file}: {room} may not import crate::{import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nobody_imports_the_suites_or_the_command_line() {
    for (file, code) in sources() {
        for room_name in ["testing", "cli"] {
            assert!(
                room(&file) == room_name || !imports(&code).contains(room_name),
                "{file} imports crate::{room_name}"
            );
        }
    }
}

#[test]
fn documents_and_events_never_await() {
    for (file, code) in sources() {
        if ["document", "event"].contains(&room(&file)) {
            for word in [".await", "async ", "tokio::"] {
                assert!(!code.contains(word), "{file} has {word:?}");
            }
        }
    }
}

#[test]
fn driver_types_stay_in_their_adapters() {
    for (file, code) in sources() {
        for (driver, folder) in ADAPTERS {
            if file.starts_with(folder) {
                continue;
            }
            // Modules of ours that go by the driver's name.
            let own = [
                format!("crate::storage::{driver}::"),
                format!("storage::{driver}::"),
                format!("bus::{driver}::"),
                format!("self::{driver}::"),
            ];
            let mut rest = code.clone();
            for path in own {
                rest = rest.replace(&path, "");
            }
            for at in rest.match_indices(&format!("{driver}::")).map(|(at, _)| at) {
                let before = rest[..at].chars().next_back();
                assert!(
                    before.is_some_and(|c| c.is_alphanumeric() || c == '_'),
                    "{file} names a type of the crate {driver}"
                );
            }
        }
    }
}

#[test]
fn the_map_names_every_room() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let rooms: BTreeSet<String> = sources().keys().map(|file| room(file).to_owned()).collect();
    for room in rooms {
        let names = [format!("`{room}/`"), format!("`{room}.rs`")];
        assert!(
            names.iter().any(|name| map.contains(name)),
            "docs/architecture.md does not name the room {room}"
        );
    }
}

#[test]
fn the_scanner_sees_imports() {
    let code =
        "use crate::{bus::{A, B}, error::Error};\nuse crate::relay;\nlet x = crate::query::f();";
    let found = imports(code);
    let expected = ["bus", "error", "query", "relay"];
    assert!(found.iter().map(String::as_str).eq(expected), "{found:?}");
}
