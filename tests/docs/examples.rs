//! Items that the documentation shows by an example.

use std::fs;
use std::path::Path;

/// The rooms whose every public item has one.
const ROOMS: &[&str] = &[
    "aggregate",
    "command",
    "middleware",
    "projection",
    "query",
    "saga",
];

/// The public items of a file, each with whether its documentation has a code block. Items that are public
/// within the crate only are left out, and so are methods, which their types show.
fn items(text: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let mut has_example = false;
    for line in text.lines() {
        if line.starts_with("///") {
            has_example |= line.trim_start_matches('/').trim_start().starts_with("```");
            continue;
        }
        let item = ["struct", "enum", "trait", "type", "fn", "macro"]
            .iter()
            .find_map(|kind| line.strip_prefix(&format!("pub {kind} ")));
        if let Some(item) = item {
            let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
            found.push((item.chars().take_while(is_word).collect(), has_example));
        }
        // Attributes stand between documentation and item.
        if !line.starts_with("#[") && !line.starts_with(')') && !line.starts_with("    ") {
            has_example = false;
        }
    }
    found
}

#[test]
fn every_public_item_of_the_command_layer_has_an_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("pkg");
    let mut without = Vec::new();
    let mut seen = 0;
    let mut folders: Vec<_> = ROOMS.iter().map(|room| root.join(room)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            for (item, has_example) in items(&fs::read_to_string(&path).unwrap()) {
                seen += 1;
                if !has_example {
                    let file = path.strip_prefix(&root).unwrap();
                    without.push(format!("{}: {item}", file.display()));
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} items were found");
    without.sort();
    assert!(without.is_empty(), "no example:\n{}", without.join("\n"));
}

#[test]
fn an_item_without_an_example_is_found() {
    let text = "/// A thing.\n///\n/// ```\n/// use it;\n/// ```\n#[derive(Debug)]\npub struct Shown;\n\n\
                /// Another.\npub(crate) struct Own;\n\n/// More.\npub trait Bare {}\n";
    let expected = [("Shown".to_owned(), true), ("Bare".to_owned(), false)];
    assert_eq!(items(text), expected);
}
