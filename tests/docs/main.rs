//! What the documents say is there.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

/// The tutorial's program, whose own tests run here: cargo runs none of examples.
#[allow(dead_code, reason = "tests/examples.rs runs the program")]
#[path = "../../examples/beginners.rs"]
mod beginners;
mod events;
mod examples;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The names of all functions under the folders that hold tests and cases.
fn functions() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("pkg"), root.join("tests")];
    let mut names = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(path).unwrap();
                for (at, _) in text.match_indices("fn ") {
                    let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
                    names.insert(text[at + 3..].chars().take_while(is_word).collect());
                }
            }
        }
    }
    names
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let text = read("docs/guarantees.md");
    let functions = functions();
    let mut guarantees = 0;
    for section in text.split("\n## ").skip(1) {
        let Some((_, shown)) = section.split_once("Shown by ") else {
            continue;
        };
        guarantees += 1;
        let shown = shown.split("\n\n").next().unwrap();
        let names: Vec<_> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty());
        for name in names {
            assert!(functions.contains(name), "no test is named {name}");
        }
    }
    assert_eq!(guarantees, 10);
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in [
        "README.md",
        "docs/architecture.md",
        "docs/guarantees.md",
        "docs/development.md",
        "docs/benchmarks.md",
        "docs/events.md",
        "docs/redis.md",
        "docs/nats.md",
        "docs/projections.md",
        "docs/cqrs_for_beginners.md",
        "docs/patterns/notification_pattern.md",
        "docs/patterns/optimistic_concurrency.md",
        "docs/patterns/saga.md",
        "docs/patterns/schema_evolution.md",
    ] {
        let folder = Path::new(document).parent().unwrap();
        for link in read(document).split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap();
            if link.is_empty() || link.contains("://") {
                continue;
            }
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(folder)
                .join(link);
            assert!(
                path.exists(),
                "{document} links to {link}, which is not there"
            );
        }
    }
}

/// Every block of code in the tutorial stands in the example, which is compiled and run.
#[test]
fn the_tutorial_shows_the_program_that_is_run() {
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(String::from).collect()
    };
    let program = lines(&read("examples/beginners.rs"));
    let text = read("docs/cqrs_for_beginners.md");
    let blocks: Vec<_> = text.split("```rust\n").skip(1).collect();
    assert!(blocks.len() > 10, "{} blocks", blocks.len());
    for block in blocks {
        let block = lines(block.split("```").next().unwrap());
        let found = program.windows(block.len()).any(|part| *part == block);
        assert!(found, "not in the example:\n{}", block.join("\n"));
    }
}

/// The scenarios that the driver in `benches/` knows.
fn scenarios() -> BTreeSet<String> {
    let text = read("benches/src/scenario.rs");
    let (_, list) = text.split_once("const SCENARIOS").unwrap();
    let is_name = |text: &&str| {
        let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !text.is_empty() && text.chars().all(is_part)
    };
    let literals = list.split('"').skip(1).step_by(2);
    literals.filter(is_name).map(String::from).collect()
}

#[test]
fn the_benchmarks_document_lists_every_scenario() {
    let text = read("docs/benchmarks.md");
    let (text, _) = text.split_once("\n## Results").unwrap();
    // A row may be about several scenarios.
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap());
    let listed: BTreeSet<String> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(String::from)
        .collect();
    assert_eq!(listed, scenarios());
}

#[test]
fn commands_in_the_benchmarks_document_can_be_given() {
    let (text, help) = (read("docs/benchmarks.md"), read("benches/src/args.rs"));
    let scenarios = scenarios();
    let commands = text
        .lines()
        .filter_map(|it| it.strip_prefix("scripts/bench"));
    let mut seen = 0;
    for command in commands {
        seen += 1;
        let words = command.split('#').next().unwrap().split_whitespace();
        for word in words {
            let is_value = word.contains('.') || word.parse::<u32>().is_ok();
            let is_option = word.starts_with("--") && help.contains(&format!("\n  {word} "));
            assert!(
                is_value || is_option || scenarios.contains(word),
                "scripts/bench{command}: what is {word}?"
            );
        }
    }
    assert!(seen > 4);
}
