//! `nodestorage events`: what was logged, in the log's order.

use std::process::ExitCode;

use futures_util::StreamExt;
use nodestorage::event::{EventSerializer, PlainJson};
use nodestorage::storage::backend::{LogEntry, TailFrom, TailItem};
use nodestorage::{DocumentId, Event, Storage};

use crate::Failure;
use crate::args::Events;
use crate::output;

pub(crate) async fn run(arguments: Events, json: bool) -> Result<ExitCode, Failure> {
    let storage = arguments.store.open().await?;
    let result = tokio::select! {
        result = print(&storage, &arguments, json) => result,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
    };
    storage.close().await;
    result
}

async fn print(storage: &Storage, arguments: &Events, json: bool) -> Result<ExitCode, Failure> {
    let id = match &arguments.id {
        Some(id) => Some(arguments.id_type.parse(id)?),
        None => None,
    };
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let mut tail = storage.backend().tail(TailFrom::Beginning);
    while left > 0 {
        match tail.next().await.transpose()? {
            Some(TailItem::Entry { entry, .. }) => {
                if !concerns(&entry, arguments, id.as_ref()) {
                    continue;
                }
                for event in entry.to_events()? {
                    let wanted = arguments
                        .event_type
                        .as_ref()
                        .is_none_or(|wanted| wanted == event.event_type());
                    if wanted && left > 0 {
                        left -= 1;
                        output::line(&describe(&event, json)?)?;
                    }
                }
            }
            Some(TailItem::Idle { .. }) if arguments.follow => {}
            Some(TailItem::Idle { .. }) | None => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn concerns(entry: &LogEntry, arguments: &Events, id: Option<&DocumentId>) -> bool {
    arguments
        .collection
        .as_ref()
        .is_none_or(|collection| collection == entry.key.collection())
        && id.is_none_or(|id| id == entry.key.id())
}

fn describe(event: &Event, json: bool) -> Result<String, Failure> {
    if json {
        let bytes = PlainJson.serialize(event)?;
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    let time = event.time().try_to_rfc3339_string().unwrap_or_default();
    Ok(format!(
        "{time}  {:<24}  {} version {}  {}",
        event.event_type(),
        event.document(),
        event.version(),
        event.data()
    ))
}
