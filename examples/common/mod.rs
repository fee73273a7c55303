//! What the examples share: options on the command line, and how they print.
#![allow(dead_code, reason = "each example uses its own part")]

use nodestorage::command::CommandResult;
use nodestorage::{Storage, StorageBuilder};

/// A storage and a bus as the command line names them: in memory, unless it says otherwise.
pub(crate) fn builder() -> StorageBuilder {
    Storage::builder()
        .url(argument("--url").unwrap_or_else(|| "embedded::memory:".into()))
        .bus_url(argument("--bus").unwrap_or_else(|| "memory:".into()))
}

/// The text after an option on the command line.
pub(crate) fn argument(option: &str) -> Option<String> {
    std::env::args()
        .skip_while(|argument| argument != option)
        .nth(1)
}

/// Begins a part of the story.
pub(crate) fn heading(text: &str) {
    println!("\n== {text}");
}

/// What a command did, in a line.
pub(crate) fn summary(result: &CommandResult) -> String {
    let events = result.events().iter().map(|event| event.event_type());
    let events: Vec<_> = events.collect();
    let events = match events.is_empty() {
        true => "nothing happened".to_owned(),
        false => events.join(", "),
    };
    format!(
        "{} version {}: {events}",
        result.document(),
        result.version()
    )
}
