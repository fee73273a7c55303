//! `nodestorage history` and `nodestorage doctor`: what the log says.

use std::process::ExitCode;

use nodestorage::history::VersionRange;
use nodestorage::storage::backend::LogEntry;
use nodestorage::{Storage, Version};
use serde_json::{Value, json};

use crate::Failure;
use crate::args::{Doctor, History};
use crate::output;

/// Versions read at a time.
const PAGE: usize = 100;

pub(crate) async fn history(arguments: History, json: bool) -> Result<ExitCode, Failure> {
    let storage = arguments.document.store.open().await?;
    let result = print_history(&storage, &arguments, json).await;
    storage.close().await;
    result
}

async fn print_history(
    storage: &Storage,
    arguments: &History,
    json: bool,
) -> Result<ExitCode, Failure> {
    let id = arguments.document.id()?;
    let collection = &arguments.document.collection;
    let history = storage.history(collection, &id);
    let mut left = arguments.limit;
    let mut range = VersionRange::new().with_newest_first(arguments.newest_first);
    if let Some(from) = arguments.from.map(Version::new) {
        range = if arguments.newest_first {
            range.with_to(from)
        } else {
            range.with_from(from)
        };
    }
    let mut next = Some(range.with_limit(left.min(PAGE)));
    let mut printed = 0;
    while let Some(range) = next.take() {
        if left == 0 {
            break;
        }
        let page = history.versions(range).await?;
        for entry in &page.items {
            output::line(&describe(entry, json)?)?;
        }
        printed += page.items.len();
        left -= page.items.len().min(left);
        next = page.next.map(|range| range.with_limit(left.min(PAGE)));
    }
    if printed == 0 {
        eprintln!("nodestorage: {collection}/{id} has no such versions");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(entry: &LogEntry, json: bool) -> Result<String, Failure> {
    let at = entry.at.try_to_rfc3339_string().unwrap_or_default();
    let events: Vec<&str> = entry
        .events
        .iter()
        .map(|event| event.event_type.as_str())
        .collect();
    let diff = match &entry.patch {
        Some(patch) => serde_json::to_value(patch.json_patch()?).unwrap_or(Value::Null),
        None => Value::Null,
    };
    if json {
        let metadata = serde_json::to_value(&entry.metadata).unwrap_or(Value::Null);
        return Ok(json!({
            "version": entry.version.get(),
            "kind": entry.kind.as_str(),
            "at": at,
            "events": events,
            "diff": diff,
            "metadata": metadata,
        })
        .to_string());
    }
    let changes = match &diff {
        Value::Array(operations) => format!(", {} changes", operations.len()),
        _ => String::new(),
    };
    Ok(format!(
        "{:>6}  {:<8}  {at}  {}{changes}",
        entry.version.get(),
        entry.kind.as_str(),
        events.join(", ")
    ))
}

pub(crate) async fn doctor(arguments: Doctor, json: bool) -> Result<ExitCode, Failure> {
    let storage = arguments.store.open().await?;
    let report = storage.doctor(arguments.collection.as_deref()).await;
    storage.close().await;
    let report = report?;
    for finding in &report.findings {
        output::line(&if json {
            json!({
                "document": finding.key.to_string(),
                "version": finding.version.map(Version::get),
                "problem": finding.problem.to_string(),
            })
            .to_string()
        } else {
            finding.to_string()
        })?;
    }
    let summary = if json {
        json!({
            "documents": report.documents,
            "versions": report.versions,
            "problems": report.problems,
        })
        .to_string()
    } else {
        format!(
            "checked {} documents and {} versions, {} problems",
            report.documents, report.versions, report.problems
        )
    };
    output::line(&summary)?;
    Ok(if report.problems == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
