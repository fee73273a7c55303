//! Documents whose every change becomes domain events.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
pub mod bus;
pub mod clock;
pub mod document;
pub mod error;
pub mod event;
pub mod history;
pub mod relay;
pub mod storage;
#[cfg(feature = "testing")]
pub mod testing;

pub use builder::StorageBuilder;
pub use document::{
    Diff, DocumentId, DocumentKey, ExpectedVersion, MergePatch, Patch, PatchOp, PatchValue, Path,
    PathSegment, Version, VersionConflict,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{
    ChangeKind, ChangeView, DefaultEventMapper, Event, EventId, EventMapper, EventNames, MapError,
    Metadata, NewEvent,
};
pub use history::{DocumentState, History, HistoryPage, Revision, VersionRange};
pub use storage::{
    Change, Collection, CollectionSpec, Index, Order, Outcome, Page, Query, RetryPolicy, Storage,
    Stored, Transaction, UpdateContext, UpdateError, UpdateOptions,
};
