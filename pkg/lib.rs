//! Documents whose every change becomes domain events.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod clock;
pub mod document;
pub mod error;
pub mod event;
pub mod storage;

pub use document::{DocumentId, DocumentKey, ExpectedVersion, Version, VersionConflict};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, EventId, Metadata, NewEvent};
pub use storage::{CollectionSpec, Index, Order, Page, Query};
