//! Creating the streams of a bus, or checking those that are there.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{self, Config, DiscardPolicy, RetentionPolicy, StorageType};
use serde_json::json;

use super::error;
use super::options::{NatsBusOptions, NatsStorage};
use super::server::Server;
use super::subject::Subjects;
use crate::error::{Error, ErrorKind, Result};

/// Times to live per message came with this release, and batched direct gets.
const OLDEST: (u32, u32) = (2, 11);

/// Atomic batches came with this one.
const ATOMIC: (u32, u32) = (2, 12);

/// The streams of a bus.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) events: String,
    pub(super) state: String,
    pub(super) atomic: bool,
}

pub(super) async fn open(
    server: &Server,
    subjects: &Subjects,
    options: &NatsBusOptions,
) -> Result<Streams> {
    let release = release(server)?;
    if release < OLDEST {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "nats: a durable bus needs a server of release {}.{} or newer, this one is {}.{}",
                OLDEST.0, OLDEST.1, release.0, release.1
            ),
        ));
    }
    let events = events(subjects, options, release >= ATOMIC);
    let state = state(subjects, options);
    let found = find_or_create(server, &events).await?;
    check_events(&events, &found.config, subjects)?;
    let found_state = find_or_create(server, &state).await?;
    check_state(&state, &found_state.config)?;
    Ok(Streams {
        atomic: found.config.allow_atomic_publish,
        events: events.name,
        state: state.name,
    })
}

fn release(server: &Server) -> Result<(u32, u32)> {
    let version = server.client().server_info().version;
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            "nats: the server does not tell its release",
        )),
    }
}

fn events(subjects: &Subjects, options: &NatsBusOptions, atomic: bool) -> Config {
    Config {
        name: options.stream_name(),
        description: Some("nodestorage: the events of a bus".to_owned()),
        subjects: subjects.of_stream(options.partitions),
        retention: RetentionPolicy::Limits,
        // A full stream refuses what is new. What is old may be unread.
        discard: DiscardPolicy::New,
        max_bytes: bound(options.max_bytes),
        storage: storage(options),
        num_replicas: options.replicas,
        duplicate_window: options.duplicate_window,
        allow_direct: true,
        allow_atomic_publish: atomic,
        ..Config::default()
    }
}

fn state(subjects: &Subjects, options: &NatsBusOptions) -> Config {
    Config {
        name: format!("{}_STATE", options.stream_name()),
        description: Some("nodestorage: groups, claims and dead letters of a bus".to_owned()),
        subjects: vec![subjects.of_state()],
        max_messages_per_subject: 1,
        max_bytes: bound(options.max_state_bytes),
        discard: DiscardPolicy::New,
        storage: storage(options),
        num_replicas: options.replicas,
        allow_direct: true,
        allow_message_ttl: true,
        metadata: HashMap::new(),
        ..Config::default()
    }
}

fn bound(bytes: Option<u64>) -> i64 {
    bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn storage(options: &NatsBusOptions) -> StorageType {
    match options.storage {
        NatsStorage::File => StorageType::File,
        NatsStorage::Memory => StorageType::Memory,
    }
}

async fn find_or_create(server: &Server, config: &Config) -> Result<stream::Info> {
    let what = format!("opening stream {}", config.name);
    let nothing = json!({});
    let find = || {
        let subject = format!("STREAM.INFO.{}", config.name);
        server.call(&what, subject, &nothing)
    };
    match find().await {
        Err(error) if error::code(&error) == Some(ErrorCode::STREAM_NOT_FOUND) => {}
        found => return found,
    }
    let subject = format!("STREAM.CREATE.{}", config.name);
    match server.call(&what, subject, config).await {
        // Somebody else was faster.
        Err(error) if error::code(&error) == Some(ErrorCode::STREAM_NAME_EXIST) => find().await,
        created => created,
    }
}

/// Refuses a stream on which the bus would not keep its promises. How much it may hold is its
/// operator's business.
fn check_events(wanted: &Config, found: &Config, subjects: &Subjects) -> Result<()> {
    let set = |config: &Config| config.subjects.iter().cloned().collect::<BTreeSet<_>>();
    if set(wanted) != set(found) {
        let of = |partition: u32| found.subjects.contains(&subjects.partition(partition));
        let partitions = (0..).take_while(|partition| of(*partition)).count();
        return Err(differs(
            found,
            "subjects",
            format_args!("those of {partitions} partitions of {}", subjects.prefix()),
            format_args!("those of {} partitions", wanted.subjects.len()),
        ));
    }
    check(found, "retention", &wanted.retention, &found.retention)?;
    check(found, "discard", &wanted.discard, &found.discard)?;
    check(found, "storage", &wanted.storage, &found.storage)?;
    check(found, "replicas", &wanted.num_replicas, &found.num_replicas)?;
    if found.max_age.as_nanos() > 0 {
        return Err(differs(
            found,
            "max age",
            format_args!("{:?}", found.max_age),
            "none, since it removes what is unread",
        ));
    }
    if found.duplicate_window < wanted.duplicate_window {
        return Err(differs(
            found,
            "duplicate window",
            format_args!("{:?}", found.duplicate_window),
            format_args!("{:?}", wanted.duplicate_window),
        ));
    }
    Ok(())
}

fn check_state(wanted: &Config, found: &Config) -> Result<()> {
    check(found, "subjects", &wanted.subjects, &found.subjects)?;
    check(found, "storage", &wanted.storage, &found.storage)?;
    check(found, "replicas", &wanted.num_replicas, &found.num_replicas)?;
    check(
        found,
        "messages per subject",
        &wanted.max_messages_per_subject,
        &found.max_messages_per_subject,
    )?;
    check(
        found,
        "time to live per message",
        &wanted.allow_message_ttl,
        &found.allow_message_ttl,
    )
}

fn check<T: PartialEq + std::fmt::Debug>(
    stream: &Config,
    setting: &str,
    wanted: &T,
    found: &T,
) -> Result<()> {
    if wanted == found {
        return Ok(());
    }
    Err(differs(
        stream,
        setting,
        format_args!("{found:?}"),
        format_args!("{wanted:?}"),
    ))
}

fn differs(stream: &Config, setting: &str, found: impl Display, wanted: impl Display) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!(
            "nats: stream {} exists with another {setting}: {found}, and this bus needs {wanted}",
            stream.name
        ),
    )
}
