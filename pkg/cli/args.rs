//! What can be asked on the command line.

use std::path::PathBuf;

use bson::oid::ObjectId;
use clap::{Args, Parser, Subcommand, ValueEnum};
use nodestorage::{DocumentId, Storage, StorageBuilder};

use crate::Failure;

/// Documents whose every change becomes domain events.
#[derive(Debug, Parser)]
#[command(name = "nodestorage", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Print JSON, one object per line, instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read JSON Lines into a collection, each line an update
    Import(Import),
    /// Print a document, as it is now or as it was
    Get(Get),
    /// Print the versions of a document
    History(History),
    /// Print logged events
    Events(Events),
    /// Check documents against the log
    Doctor(Doctor),
    /// Increment random documents and print what was acknowledged: a program to kill
    #[command(after_long_help = WORKLOAD_HELP)]
    Workload(Workload),
    /// Check what workloads left behind against what they acknowledged
    #[command(after_long_help = CHECK_HELP)]
    Check(Check),
}

const WORKLOAD_HELP: &str = "\
Each update adds 1 to the field `n` of one of the documents doc-0, doc-1, …; the first one creates it. As
nothing else writes them, `n`, the version and the number of log entries of a document stay equal.

Standard output gets one line per update, written as a whole and flushed before the next one:

    ack ID VERSION    the update was acknowledged and made this version
    unknown ID        the outcome of the commit could not be learnt: it happened once or not at all

An update that fails because the database was away or too slow wrote nothing and is tried again. Any
other error ends the workload with exit code 1. A summary goes to standard error.

Kill it whenever you like, then look:

    nodestorage workload --url $URL --collection w --documents 100 --tasks 16 --seconds 60 > acks
    nodestorage check --url $URL --collection w --acks acks";

const CHECK_HELP: &str = "\
Reads the whole log and every document of the collection, which must hold nothing but what workloads
wrote, while none of them runs. Prints

    N updates, M acknowledged, 0 lost, 0 gaps, 0 duplicates

and ends with exit code 1 if any of the last three is not 0:

    lost          acknowledged and not in the log, acknowledged twice for one version, or in the log and not
                  in the document
    gaps          versions of a document that the log skips, or that no workload wrote
    duplicates    updates that the log holds more than once, or a document counted more than the log";

#[derive(Debug, Args)]
pub(crate) struct Store {
    /// Where the documents are: embedded:PATH, embedded::memory: or mongodb://host/database
    #[arg(long, env = "NODESTORAGE_URL", hide_env_values = true)]
    pub(crate) url: String,
    /// The name of the integer field that holds a document's version
    #[arg(long, default_value = "version", value_name = "FIELD")]
    pub(crate) version_field: String,
}

impl Store {
    pub(crate) fn builder(&self) -> StorageBuilder {
        Storage::builder()
            .url(&self.url)
            .version_field(&self.version_field)
    }

    pub(crate) async fn open(&self) -> Result<Storage, Failure> {
        Ok(self.builder().open().await?)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(flatten)]
    pub(crate) store: Store,
    /// The collection to write to
    #[arg(long)]
    pub(crate) collection: String,
    /// The field of each document that holds its id
    #[arg(
        long,
        default_value = "_id",
        conflicts_with = "history",
        value_name = "FIELD"
    )]
    pub(crate) key: String,
    /// Lines are {"id", "at", "doc"}, the states of documents one after the other; a null doc deletes
    #[arg(long)]
    pub(crate) history: bool,
    /// Afterwards rebuild every imported version from the log and compare it with the file
    #[arg(long)]
    pub(crate) verify: bool,
    /// How many documents are written at the same time; the lines of one document stay in order
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) parallel: u16,
    /// JSON Lines, plain or compressed with gzip or xz
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Document {
    #[command(flatten)]
    pub(crate) store: Store,
    /// The collection
    #[arg(long)]
    pub(crate) collection: String,
    /// The document's id
    pub(crate) id: String,
    /// What the id is
    #[arg(long, value_enum, default_value_t = IdType::String)]
    pub(crate) id_type: IdType,
}

impl Document {
    pub(crate) fn id(&self) -> Result<DocumentId, Failure> {
        self.id_type.parse(&self.id)
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum IdType {
    /// Text
    String,
    /// An integer
    Int,
    /// A UUID
    Uuid,
    /// An ObjectId in 24 hexadecimal digits
    ObjectId,
}

impl IdType {
    pub(crate) fn parse(self, text: &str) -> Result<DocumentId, Failure> {
        let id = match self {
            Self::String => Some(DocumentId::from(text)),
            Self::Int => text.parse::<i64>().ok().map(DocumentId::from),
            Self::Uuid => uuid::Uuid::parse_str(text).ok().map(DocumentId::from),
            Self::ObjectId => ObjectId::parse_str(text).ok().map(DocumentId::from),
        };
        id.ok_or_else(|| Failure::new(format!("{text:?} is no id of the given type")))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) document: Document,
    /// As it was at this version
    #[arg(long, conflicts_with = "at", value_name = "NUMBER")]
    pub(crate) version: Option<u64>,
    /// As it was at this time on the database's clock (RFC 3339, to the second)
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    #[command(flatten)]
    pub(crate) document: Document,
    /// Begin with this version
    #[arg(long, value_name = "NUMBER")]
    pub(crate) from: Option<u64>,
    /// At most this many versions
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    pub(crate) limit: usize,
    /// Newest first
    #[arg(long)]
    pub(crate) newest_first: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(flatten)]
    pub(crate) store: Store,
    /// Only events of this collection
    #[arg(long)]
    pub(crate) collection: Option<String>,
    /// Only events of this document
    #[arg(long, requires = "collection", value_name = "ID")]
    pub(crate) id: Option<String>,
    /// What the id is
    #[arg(long, value_enum, default_value_t = IdType::String)]
    pub(crate) id_type: IdType,
    /// Only events of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// At most this many
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
    /// Go on with new events as they are logged, until interrupted
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) store: Store,
    /// Only this collection; without it, every one that the log knows
    #[arg(long)]
    pub(crate) collection: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("length").required(true).args(["updates", "seconds"]))]
pub(crate) struct Workload {
    #[command(flatten)]
    pub(crate) store: Store,
    /// The collection to write to
    #[arg(long)]
    pub(crate) collection: String,
    /// How many documents there are: doc-0 up to, not including, doc-COUNT
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) documents: u64,
    /// How many tasks update at the same time
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) tasks: u16,
    /// End after this many updates
    #[arg(long, value_name = "COUNT")]
    pub(crate) updates: Option<u64>,
    /// End after this time
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// Publish the events to a bus as well; memory: is one that nobody listens to
    #[arg(long, value_name = "URL")]
    pub(crate) bus: Option<String>,
    /// Give up an update after trying it for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) patience: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) store: Store,
    /// The collection that workloads wrote to
    #[arg(long)]
    pub(crate) collection: String,
    /// What they printed; a last line without its end was cut by a kill and does not count
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) acks: Vec<PathBuf>,
}
